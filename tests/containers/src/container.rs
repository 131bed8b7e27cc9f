//! A running container, whoever runs it.

use crate::command::output_of;
use crate::names::quietly;
use anyhow::{Context as _, bail};
use masq_admin::ContainerReport;
use masq_e2e::{Finished, Host, Running, spawn, wait_for_listener_in};
use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A program inside may take so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A container whose first process sleeps. It is removed when this is dropped.
#[derive(Debug)]
pub struct Container {
    pub(crate) id: String,
    pub(crate) pid: u32,
    /// Command that runs a program inside, which follows; `{}` becomes a name.
    pub(crate) enter: Invocation,
    /// Commands that remove it, in order.
    pub(crate) remove: Vec<Invocation>,
}

/// A command with its environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Invocation {
    pub(crate) words: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
}

impl Invocation {
    pub(crate) fn new<S: Into<String>>(words: impl IntoIterator<Item = S>) -> Self {
        Self {
            words: words.into_iter().map(Into::into).collect(),
            env: Vec::new(),
        }
    }

    pub(crate) fn with<S: Into<String>>(&self, words: impl IntoIterator<Item = S>) -> Self {
        let mut longer = self.clone();
        longer.words.extend(words.into_iter().map(Into::into));
        longer
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = crate::command::command(&self.words);
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }
}

impl Container {
    /// Id that the runtime gave it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its first process, as the host numbers it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What a masqd knows of it.
    ///
    /// # Errors
    /// It does not know it.
    pub fn report(&self, host: &Host) -> anyhow::Result<ContainerReport> {
        masq_e2e::containers(host)?
            .into_iter()
            .find(|report| report.container == self.id)
            .with_context(|| format!("masqd does not know {}", self.id))
    }

    /// The command that runs `words` inside.
    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut enter = self.enter.clone();
        for word in &mut enter.words {
            if word == "{}" {
                *word = crate::names::unique();
            }
        }
        let mut command = enter.command();
        command.args(words);
        command
    }

    /// Starts a command line, split at blanks, inside.
    ///
    /// # Errors
    /// The runtime cannot be started.
    pub fn start(&self, line: &str) -> anyhow::Result<Running> {
        spawn(self.command(line.split_ascii_whitespace()))
    }

    /// Runs a command line, split at blanks, inside to its end.
    ///
    /// # Errors
    /// It hangs, or the runtime cannot be started; a failure is in the status.
    pub fn run(&self, line: &str) -> anyhow::Result<Finished> {
        self.start(line)?.wait(PATIENCE)
    }

    /// Runs a shell script inside to its end.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn sh(&self, script: &str) -> anyhow::Result<Finished> {
        spawn(self.command(["sh", "-c", script]))?.wait(PATIENCE)
    }

    /// What `ibv_devinfo -v` prints inside.
    ///
    /// # Errors
    /// It finds no device.
    pub fn devinfo(&self) -> anyhow::Result<String> {
        Ok(self.run("ibv_devinfo -v")?.success()?.output)
    }

    /// The GID of this index: `::ffff:10.0.0.1`.
    ///
    /// # Errors
    /// There is no device, or no such GID.
    pub fn gid(&self, index: usize) -> anyhow::Result<String> {
        let text = self.devinfo()?;
        let head = format!("GID[{index:3}]:");
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(&head))
            .with_context(|| format!("no GID {index} in\n{text}"))?;
        let gid = line.split(',').next().unwrap_or_default();
        Ok(gid.trim().to_owned())
    }

    /// Waits until there is a GID of this index.
    ///
    /// # Errors
    /// There is none within fifteen seconds.
    pub fn wait_for_gid(&self, index: usize) -> anyhow::Result<String> {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            match self.gid(index) {
                Ok(gid) => return Ok(gid),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Runs the host's `ip WORDS`, split at blanks, in its network namespace.
    ///
    /// # Errors
    /// It failed.
    pub fn ip(&self, words: &str) -> anyhow::Result<String> {
        let mut ip = self.in_its_network(&["ip"]);
        ip.args(words.split_ascii_whitespace());
        output_of(ip)
    }

    /// Its files, as its first process sees them.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid))
    }

    /// A command of the host in its network namespace.
    pub fn in_its_network(&self, words: &[&str]) -> Command {
        let mut command = crate::command::command(["nsenter", "-t"]);
        command.arg(self.pid.to_string()).arg("-n").args(words);
        command
    }

    /// Its first IPv4 address that is not loopback's.
    ///
    /// # Errors
    /// It has none.
    pub fn address(&self) -> anyhow::Result<IpAddr> {
        let out = output_of(self.in_its_network(&["ip", "-j", "-4", "address"]))?;
        let links: serde_json::Value = serde_json::from_str(&out)?;
        let of = |link: &serde_json::Value| -> Option<String> {
            let first = link.get("addr_info")?.get(0)?;
            Some(first.get("local")?.as_str()?.to_owned())
        };
        let found = links
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(of)
            .find(|address| !address.starts_with("127."));
        let text = found.with_context(|| format!("{} has no address: {out}", self.id))?;
        Ok(text.parse()?)
    }

    /// Waits until somebody listens on this TCP port in its network namespace.
    ///
    /// # Errors
    /// Nobody does within 20 seconds, or `server` ended.
    pub fn wait_for_listener(&self, port: u16, server: &mut Running) -> anyhow::Result<()> {
        let net = PathBuf::from(format!("/proc/{}/net", self.pid));
        wait_for_listener_in(&net, port, Duration::from_secs(20), || server.is_running())
            .map_err(|error| error.context(server.output()))
    }

    /// Waits until its first process has ended.
    ///
    /// # Errors
    /// It has not within ten seconds.
    pub fn wait_for_end(&self) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        let stat = format!("/proc/{}/stat", self.pid);
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
            if Instant::now() > end {
                bail!("the first process of {} still runs", self.id);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Removes it now, by the runtime's own command.
    ///
    /// # Errors
    /// The runtime says that it cannot.
    pub fn remove(mut self) -> anyhow::Result<()> {
        for step in std::mem::take(&mut self.remove) {
            output_of(step.command())?;
        }
        Ok(())
    }
}

/// What is left of a container until this is dropped: its root filesystem.
#[derive(Debug)]
pub struct Remains {
    steps: Vec<Invocation>,
}

impl Container {
    /// Removes it by the runtime's own command, but not yet its root filesystem, if that is
    /// a step of its own.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub fn remove_but_keep_files(mut self) -> anyhow::Result<Remains> {
        let mut steps = std::mem::take(&mut self.remove);
        let rest = steps.split_off(1.min(steps.len()));
        for step in steps {
            output_of(step.command())?;
        }
        Ok(Remains { steps: rest })
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        for step in &self.steps {
            quietly(step.command());
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for step in &self.remove {
            quietly(step.command());
        }
    }
}
