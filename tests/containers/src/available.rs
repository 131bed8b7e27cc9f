//! Which runtimes are there.

use crate::command::{command, output_of};
use std::fmt;

/// A way to run containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// podman with runc, as root.
    Podman,
    /// podman of a user who is not root.
    Rootless,
    /// runc on a bundle.
    Runc,
    /// crun on a bundle.
    Crun,
    /// containerd's `ctr`.
    Containerd,
    /// dockerd.
    Docker,
    /// bubblewrap, with `masq run`.
    Bubblewrap,
}

impl Runtime {
    /// Every one of them.
    pub const ALL: [Self; 7] = [
        Self::Podman,
        Self::Rootless,
        Self::Runc,
        Self::Crun,
        Self::Containerd,
        Self::Docker,
        Self::Bubblewrap,
    ];

    /// Programs that it takes.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Podman => &["podman", "runc", "conmon", "ip"],
            Self::Rootless => &["podman", "runc", "conmon", "newuidmap", "setpriv"],
            Self::Runc => &["runc"],
            Self::Crun => &["crun", "unshare"],
            Self::Containerd => &["containerd", "ctr", "runc"],
            Self::Docker => &["dockerd", "docker", "containerd", "runc"],
            Self::Bubblewrap => &["bwrap"],
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Podman => "podman",
            Self::Rootless => "rootless podman",
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Containerd => "containerd",
            Self::Docker => "docker",
            Self::Bubblewrap => "bubblewrap",
        })
    }
}

/// Whether `runtime` is there: its version.
///
/// # Errors
/// Why it is not, in words.
pub fn available(runtime: Runtime) -> Result<String, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("these tests make namespaces and mounts as root".to_owned());
    }
    for program in runtime.programs() {
        output_of(command(["sh", "-c", "command -v \"$0\"", program]))
            .map_err(|_| format!("{program} is not installed; `cargo xtask setup` does it"))?;
    }
    let program = match runtime {
        Runtime::Docker => "dockerd",
        other => other.programs().first().copied().unwrap_or("false"),
    };
    let version = output_of(command([program, "--version"])).map_err(|e| format!("{e:#}"))?;
    Ok(version.lines().next().unwrap_or_default().to_owned())
}

/// Environment variable with the runtimes that tests are to leave out, in their
/// [`Display`](fmt::Display) form and separated by commas.
pub const LEFT_OUT: &str = "MASQ_LEFT_OUT";

/// [`available`] for a test: says why it is left out.
pub fn usable(runtime: Runtime) -> bool {
    let left_out = std::env::var(LEFT_OUT).unwrap_or_default();
    let named = left_out.split(',').any(|name| name == runtime.to_string());
    let known = if named {
        Err(format!("{LEFT_OUT} names it"))
    } else {
        available(runtime)
    };
    match known {
        Ok(_) => true,
        Err(why) => {
            eprintln!("LEFT OUT: {runtime}: {why}");
            false
        }
    }
}
