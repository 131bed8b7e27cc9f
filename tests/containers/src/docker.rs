//! dockerd with directories of its own.

use crate::command::{command, output_of};
use crate::container::{Container, Invocation};
use crate::lock::Lock;
use crate::names::{quietly, unique};
use crate::rootfs::RootFs;
use anyhow::{Context as _, bail};
use masq_e2e::{Running, spawn};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// A dockerd with one bridge network; all ends with it.
#[derive(Debug)]
pub struct Docker {
    daemon: Running,
    dir: tempfile::TempDir,
    network: String,
    subnet: String,
    _one: Lock,
}

impl Docker {
    /// Starts it; `program` is what containers are made by, under each name with
    /// arguments of its own.
    ///
    /// # Errors
    /// It does not come up; the error holds its log.
    pub fn start(program: &Path, names: &[(&str, &[&str])]) -> anyhow::Result<Self> {
        let one = Lock::take("docker")?;
        let dir = tempfile::Builder::new().prefix("masqt-docker-").tempdir()?;
        let at = |name: &str| dir.path().join(name).display().to_string();
        let runtime = |(name, args): &(&str, &[&str])| {
            let runtime = json!({ "path": program, "runtimeArgs": args });
            ((*name).to_owned(), runtime)
        };
        let runtimes: serde_json::Map<_, _> = names.iter().map(runtime).collect();
        let settings = json!({
            "bridge": "none",
            "iptables": false,
            "ip-forward": false,
            "ip-masq": false,
            "data-root": at("data"),
            "exec-root": at("exec"),
            "pidfile": at("pid"),
            "hosts": [format!("unix://{}", at("sock"))],
            "runtimes": runtimes,
        });
        std::fs::write(at("daemon.json"), serde_json::to_vec(&settings)?)?;
        let daemon = spawn(command(["dockerd", "--config-file", &at("daemon.json")]))?;
        let mut docker = Self {
            daemon,
            dir,
            network: String::new(),
            subnet: String::new(),
            _one: one,
        };
        let end = Instant::now() + Duration::from_secs(30);
        while docker.docker(&["version"]).is_err() {
            if !docker.daemon.is_running() || Instant::now() > end {
                bail!("dockerd does not come up:\n{}", docker.daemon.output());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _lock = Lock::take("network")?;
        let name = unique();
        docker.docker(&["network", "create", &name])?;
        docker.network = name;
        let format = "{{(index .IPAM.Config 0).Subnet}}";
        docker.subnet =
            docker.docker(&["network", "inspect", "--format", format, &docker.network])?;
        Ok(docker)
    }

    /// Addresses of its network.
    pub fn subnet(&self) -> &str {
        &self.subnet
    }

    fn client(&self) -> Invocation {
        let socket = format!("unix://{}", self.dir.path().join("sock").display());
        // One that is newer than the daemon would ask for more than it knows.
        Invocation::new(["docker", "-H", &socket])
    }

    fn docker(&self, words: &[&str]) -> anyhow::Result<String> {
        output_of(self.client().with(words.iter().copied()).command())
    }

    /// Starts a container that sleeps, by the runtime of this name and with further options
    /// of `docker run`, split at blanks.
    ///
    /// # Errors
    /// It does not start; the error holds what the runtime said.
    pub fn run(&self, image: &RootFs, runtime: &str, options: &str) -> anyhow::Result<Container> {
        if self.docker(&["image", "inspect", image.image()]).is_err() {
            let tar = image.tar().display().to_string();
            self.docker(&["import", &tar, image.image()])?;
        }
        let name = unique();
        let mut container = Container {
            id: String::new(),
            pid: 0,
            enter: self.client().with(["exec", &name]),
            remove: vec![self.client().with(["rm", "-f", &name])],
        };
        let run = [
            "run",
            "-d",
            "--runtime",
            runtime,
            "--name",
            &name,
            "--network",
        ];
        let run = self
            .client()
            .with(run)
            .with([&*self.network])
            .with(options.split_ascii_whitespace())
            .with([image.image(), "sleep", "1000"]);
        container.id = output_of(run.command())?;
        let pid = self.docker(&["inspect", "--format", "{{.State.Pid}}", &name])?;
        container.pid = pid.parse().context("docker tells no process id")?;
        Ok(container)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let left = self.docker(&["ps", "-aq"]).unwrap_or_default();
        for id in left.lines() {
            quietly(self.client().with(["rm", "-f", id]).command());
        }
        if !self.network.is_empty() {
            let network = self.network.clone();
            quietly(self.client().with(["network", "rm", &network]).command());
        }
        // It unmounts what it has mounted, if it is let.
        self.daemon.signal(rustix::process::Signal::TERM);
        let end = Instant::now() + Duration::from_secs(10);
        while self.daemon.is_running() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
