//! The Debian packages that the demo, the tests and the benchmarks need.

use crate::progress::{say, step};
use anyhow::{Context as _, bail, ensure};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Packages, each with the reason.
const PACKAGES: &[(&str, &str)] = &[
    ("gcc", "links libibverbs.so.1, compiles test programs"),
    ("libc6-dev", "headers for the test programs"),
    (
        "libibverbs-dev",
        "the C headers that the library is checked against",
    ),
    ("librdmacm-dev", "the same of rdma_cm"),
    ("ibverbs-utils", "ibv_devices, ibv_devinfo, ibv_*_pingpong"),
    ("perftest", "ib_send_bw and its seven siblings"),
    ("rdmacm-utils", "programs of rdma_cm"),
    ("python3-pyverbs", "rdma-core's own tests"),
    ("dpkg-dev", "fetches and unpacks rdma-core's source"),
    ("etcd-server", "the directory of several hosts"),
    ("openssl", "certificates for etcd in tests"),
    ("debootstrap", "the Debian that the package is tried in"),
    ("iproute2", "namespaces of the benchmark"),
    ("iperf3", "what bandwidth is compared with"),
    ("sockperf", "what latency is compared with"),
    ("tshark", "reads what masq capture writes"),
    ("nftables", "loses packets between hosts of the benchmark"),
    ("strace", "counts system calls on the data path"),
    ("util-linux", "unshare, for namespaces of single tests"),
    ("memcached", "a TCP program that is run over RDMA"),
    ("libmemcached-tools", "memcached's load generator"),
    ("podman", "containers, as root and as a user"),
    ("runc", "podman's runtime here, and bundles by hand"),
    ("crun", "another runtime"),
    ("netavark", "podman's networks"),
    ("aardvark-dns", "names in podman's networks"),
    ("uidmap", "ids of podman's users"),
    ("containerd", "ctr, and below Docker"),
    ("docker.io", "dockerd and its client"),
    ("bubblewrap", "a sandbox around one program"),
    ("debootstrap", "makes the root filesystem of the containers"),
    ("busybox-static", "an image without libc"),
];

/// Installs what is missing, or with `check` only says it.
pub(crate) fn setup(check: bool) -> anyhow::Result<ExitCode> {
    let missing = missing(PACKAGES)?;
    if missing.is_empty() {
        say("everything is installed");
        return Ok(ExitCode::SUCCESS);
    }
    if check {
        for name in &missing {
            let why = PACKAGES.iter().find(|(n, _)| n == name).map_or("", |p| p.1);
            say(&format!("missing: {name} ({why})"));
        }
        return Ok(ExitCode::FAILURE);
    }
    install(&missing)?;
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing; quiet if nothing is.
pub(crate) fn ensure_installed() -> anyhow::Result<()> {
    ensure_also(PACKAGES)
}

/// The same for packages of one chore.
pub(crate) fn ensure_also(packages: &[(&'static str, &'static str)]) -> anyhow::Result<()> {
    let step = step("Debian packages");
    let missing = missing(packages)?;
    if missing.is_empty() {
        step.done("all installed");
        return Ok(());
    }
    install(&missing)?;
    step.done(&format!("installed {}", missing.join(" ")));
    Ok(())
}

fn missing(packages: &[(&'static str, &'static str)]) -> anyhow::Result<Vec<&'static str>> {
    let names: Vec<_> = packages.iter().map(|(name, _)| *name).collect();
    if !Path::new("/usr/bin/dpkg-query").exists() {
        bail!(
            "this is no Debian system (there is no dpkg-query): install by other means what \
             these packages hold, and run the tests with `cargo test` afterwards: {}",
            names.join(" ")
        );
    }
    let out = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\\n"])
        .args(&names)
        .output()
        .context("cannot run dpkg-query")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    Ok(not_installed(&names, &text))
}

fn not_installed<'n>(names: &[&'n str], query: &str) -> Vec<&'n str> {
    let installed = |name: &str| query.lines().any(|l| l == format!("{name} installed"));
    let mut missing = names.to_vec();
    missing.retain(|name| !installed(name));
    missing
}

fn install(missing: &[&str]) -> anyhow::Result<()> {
    say(&format!("installing {}", missing.join(" ")));
    // The lists may be absent or old; a failure shows in the next command.
    let _ = apt_get(&["update", "-q"]);
    let mut args = vec!["install", "-y", "-q", "--no-install-recommends"];
    args.extend(missing);
    ensure!(
        apt_get(&args)?,
        "apt-get failed; install by hand: apt-get install {}",
        missing.join(" ")
    );
    Ok(())
}

/// `apt-get ARGS` as root, asking nothing.
pub(crate) fn apt_get(args: &[&str]) -> anyhow::Result<bool> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        sudo
    };
    let status = command
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null())
        .status()
        .context("cannot run apt-get (or sudo)")?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_but_keeps_its_settings_is_missing() {
        let query = "gcc installed\nperftest config-files\n";
        assert_eq!(
            not_installed(&["gcc", "perftest", "strace"], query),
            ["perftest", "strace"]
        );
    }
}
