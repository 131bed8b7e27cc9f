//! Namespaces that are registered with masqd as a container's, without a runtime.

use crate::host::Host;
use crate::meeting::wait_for_words;
use crate::process::{Finished, Running, spawn};
use anyhow::{Context as _, bail};
use masq_admin::{AdminError, Answer, ContainerReport, Registration, Request};
use std::process::Command;
use std::time::{Duration, Instant};

/// `sh -c SCRIPT sh ADDRESS…`; the shell is the init process.
const SCRIPT: &str = r#"
set -e
ip link set lo up
for address; do ip address add "$address" dev lo; done
echo ready
exec sleep 1000
"#;

const PATIENCE: Duration = Duration::from_secs(60);

/// A container's namespaces; they end with it.
#[derive(Debug)]
pub struct Inside {
    holder: Running,
    pid: i32,
    user: bool,
}

impl Inside {
    /// PID, mount and network namespaces of their own, with these addresses (and their
    /// prefix lengths).
    ///
    /// # Errors
    /// The host lets this user make none.
    pub fn with_addresses(addresses: &[&str]) -> anyhow::Result<Self> {
        let user = !rustix::process::geteuid().is_root();
        let flags = if user { "-Urmnpf" } else { "-mnpf" };
        let mut command = Command::new("unshare");
        command.args([flags, "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", SCRIPT, "sh"]).args(addresses);
        Self::start(command, user)
    }

    /// Another container in the network namespace of this one.
    ///
    /// # Errors
    /// As [`Self::with_addresses`].
    pub fn beside(&self) -> anyhow::Result<Self> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-n"]);
        if self.user {
            command.args(["-U", "--preserve-credentials"]);
        }
        command.args(["unshare", "-mpf", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", "echo ready; exec sleep 1000"]);
        Self::start(command, self.user)
    }

    fn start(command: Command, user: bool) -> anyhow::Result<Self> {
        let mut holder = spawn(command)?;
        wait_for_words(&mut holder, "ready")?;
        let children = format!("/proc/{0}/task/{0}/children", holder.pid());
        let text = std::fs::read_to_string(children)?;
        let pid = text.split_whitespace().next().context("no init process")?;
        Ok(Self {
            pid: pid.parse()?,
            holder,
            user,
        })
    }

    /// The init process, as the host numbers it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Kills the init process, and with it all others.
    pub fn kill(self) {
        drop(self.holder);
    }

    /// What a hook would tell masqd of it.
    pub fn registration(&self, id: &str, tenant: &str, endpoint: Option<&str>) -> Registration {
        Registration {
            container: id.to_owned(),
            pid: self.pid,
            tenant: Some(tenant.to_owned()),
            endpoint: endpoint.map(str::to_owned),
            ..Registration::default()
        }
    }

    /// Registers it as an endpoint of `tenant`.
    ///
    /// # Errors
    /// masqd's refusal, in its words.
    pub fn register(
        &self,
        host: &Host,
        id: &str,
        tenant: &str,
        endpoint: Option<&str>,
    ) -> anyhow::Result<ContainerReport> {
        register(host, self.registration(id, tenant, endpoint))
    }

    /// The command that runs `words` inside, with masq's library and this socket.
    fn command(&self, host: &Host, report: &ContainerReport, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-m", "-n", "-p"]);
        if self.user {
            command.args(["-U", "--preserve-credentials"]);
        }
        command.arg("--").args(words);
        let library = host.binaries().library();
        command.env("MASQ_SOCKET", report.dir.join("run/masq.sock"));
        command.env("LD_PRELOAD", library);
        command
    }

    /// Starts a command line, split at blanks, inside.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_in(
        &self,
        host: &Host,
        at: &ContainerReport,
        line: &str,
    ) -> anyhow::Result<Running> {
        let words: Vec<_> = line.split(' ').collect();
        spawn(self.command(host, at, &words))
    }

    /// Runs a command line, split at blanks, inside to its end.
    ///
    /// # Errors
    /// It cannot be started or hangs; a failure is in the status.
    pub fn run_in(
        &self,
        host: &Host,
        at: &ContainerReport,
        line: &str,
    ) -> anyhow::Result<Finished> {
        self.start_in(host, at, line)?.wait(PATIENCE)
    }

    /// Runs `ip ADDRESS-COMMAND` in its network namespace.
    ///
    /// # Errors
    /// It fails.
    pub fn ip(&self, line: &str) -> anyhow::Result<()> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-n"]);
        if self.user {
            command.args(["-U", "--preserve-credentials"]);
        }
        command.arg("ip").args(line.split(' '));
        spawn(command)?.wait(PATIENCE)?.success().map(drop)
    }
}

/// Registers a container.
///
/// # Errors
/// masqd's refusal, in its words.
pub fn register(host: &Host, registration: Registration) -> anyhow::Result<ContainerReport> {
    match masq_admin::call(&host.run_dir(), &Request::Register(registration)) {
        Ok(Answer::Registered(report)) => Ok(report),
        Ok(other) => bail!("not a registration: {other:?}"),
        Err(AdminError::Refused(reason)) => bail!("{reason}"),
        Err(error) => Err(error.into()),
    }
}

/// The registered containers.
///
/// # Errors
/// masqd does not answer.
pub fn containers(host: &Host) -> anyhow::Result<Vec<ContainerReport>> {
    match masq_admin::call(&host.run_dir(), &Request::Containers)? {
        Answer::Containers(list) => Ok(list),
        other => bail!("not containers: {other:?}"),
    }
}

/// Waits until the registered containers are as wanted.
///
/// # Errors
/// They are not within ten seconds.
pub fn wait_for_containers(
    host: &Host,
    wanted: impl Fn(&[ContainerReport]) -> bool,
) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let list = containers(host)?;
        if wanted(&list) {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("still {list:?}; masqd's log:\n{}", host.log());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
