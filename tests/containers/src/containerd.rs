//! containerd and its `ctr`.

use crate::bundle::overlay;
use crate::command::{command, output_of};
use crate::container::{Container, Invocation};
use crate::names::{quietly, unique};
use crate::netns::PodNet;
use crate::rootfs::RootFs;
use anyhow::{Context as _, bail};
use masq_e2e::{Running, spawn};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A containerd with directories of its own; it ends with it.
#[derive(Debug)]
pub struct Containerd {
    daemon: Running,
    dir: tempfile::TempDir,
}

impl Containerd {
    /// Starts it.
    ///
    /// # Errors
    /// It does not come up; the error holds its log.
    pub fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("masqt-ctr-").tempdir()?;
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = \"{}\"\n",
            at("root"),
            at("state"),
            at("sock")
        );
        std::fs::write(at("config.toml"), config)?;
        let daemon = spawn(command(["containerd", "-c", &at("config.toml")]))?;
        let mut started = Self { daemon, dir };
        let end = Instant::now() + Duration::from_secs(20);
        while output_of(started.ctr().with(["version"]).command()).is_err() {
            if !started.daemon.is_running() || Instant::now() > end {
                bail!("containerd does not come up:\n{}", started.daemon.output());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(started)
    }

    fn ctr(&self) -> Invocation {
        let socket = self.dir.path().join("sock").display().to_string();
        Invocation::new(["ctr", "-a", &socket])
    }

    /// Starts a container of this root filesystem that sleeps, in this network namespace,
    /// with these annotations, by this runtime instead of runc.
    ///
    /// # Errors
    /// It does not start; the error holds what the runtime said.
    pub fn run(
        &self,
        rootfs: &RootFs,
        net: &PodNet,
        annotations: &[(&str, &str)],
        runtime: &Path,
    ) -> anyhow::Result<Container> {
        let id = unique();
        let dir = self.dir.path().join(&id);
        let mut remove = vec![
            self.ctr().with(["task", "kill", "-s", "SIGKILL", &id]),
            self.ctr().with(["task", "delete", "-f", &id]),
            self.ctr().with(["container", "delete", &id]),
        ];
        let umount = |path: PathBuf| Invocation::new(["umount".into(), path.display().to_string()]);
        remove.push(umount(dir.join("rootfs")));
        let mut container = Container {
            id: id.clone(),
            pid: 0,
            enter: self.ctr().with(["task", "exec", "--exec-id", "{}", &id]),
            remove,
        };
        let rootfs = overlay(rootfs.dir(), &dir)?;
        let mut run = self.ctr().with(["run", "-d", "--null-io", "--rootfs"]);
        let namespace = format!("network:{}", net.path().display());
        run = run.with(["--with-ns", &namespace]);
        run = run.with(["--runc-binary".into(), runtime.display().to_string()]);
        run = run.with(["--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        for (name, value) in annotations {
            run = run.with(["--annotation".into(), format!("{name}={value}")]);
        }
        run = run.with([rootfs.display().to_string(), id.clone()]);
        output_of(run.with(["sleep", "1000"]).command())?;
        let tasks = output_of(self.ctr().with(["task", "ls"]).command())?;
        container.pid = tasks
            .lines()
            .filter_map(|line| {
                line.split_ascii_whitespace()
                    .collect::<Vec<_>>()
                    .try_into()
                    .ok()
            })
            .find_map(|[name, pid, _]: [&str; 3]| (name == id).then(|| pid.parse().ok())?)
            .with_context(|| format!("ctr tells no process id: {tasks}"))?;
        Ok(container)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.daemon.signal(rustix::process::Signal::TERM);
        for entry in std::fs::read_dir(self.dir.path()).into_iter().flatten() {
            let Ok(entry) = entry else { continue };
            let rootfs = entry.path().join("rootfs");
            if rootfs.exists() {
                let mut umount = command(["umount", "-q", "-l"]);
                umount.arg(rootfs);
                quietly(umount);
            }
        }
    }
}
