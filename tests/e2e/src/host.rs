//! A masqd of its own for each test.

use crate::binaries::{Binaries, workspace};
use crate::namespace::Namespace;
use crate::process::{Finished, Running, spawn};
use anyhow::{Context as _, bail};
use masq_admin::{Answer, EndpointReport, Overview, Request, SessionDetail};
use rustix::process::Signal;
use std::ffi::OsStr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// A running masqd with its run directory; both end with it.
#[derive(Debug)]
pub struct Host {
    masqd: Running,
    binaries: Binaries,
    policy: PathBuf,
    dir: tempfile::TempDir,
    start: Start,
    /// Environment of the endpoints' programs, beside this process's.
    environment: Vec<(&'static str, &'static str)>,
}

/// Where a masqd runs, and as whom.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'p> {
    /// Directory in which its own is made; else the one for temporary files.
    pub parent: Option<&'p Path>,
    /// User and group; else those of this process.
    pub owner: Option<(u32, u32)>,
    /// Network namespace of masqd and of its programs; else that of this thread.
    pub namespace: Option<&'p Namespace>,
}

/// How masqd is started.
#[derive(Debug)]
struct Start {
    owner: Option<(u32, u32)>,
    namespace: Option<Namespace>,
    args: Vec<String>,
}

impl Start {
    fn masqd(&self, binaries: &Binaries, policy: &Path, dir: &Path) -> anyhow::Result<Running> {
        let mut command = Command::new(binaries.masqd());
        command.arg("--policy").arg(policy);
        command.arg("--run-dir").arg(dir.join("run"));
        command.args(&self.args);
        command.env("RUST_BACKTRACE", "1");
        if let Some((uid, gid)) = self.owner {
            command.uid(uid).gid(gid);
        }
        self.spawn(command)
    }

    fn spawn(&self, command: Command) -> anyhow::Result<Running> {
        match &self.namespace {
            Some(namespace) => namespace.inside(|| spawn(command)),
            None => spawn(command),
        }
    }
}

impl Host {
    /// With `policy/examples/two-tenants.yaml`.
    ///
    /// # Errors
    /// masqd does not come up; the error holds its log.
    pub fn start() -> anyhow::Result<Self> {
        let file = workspace().join("policy/examples/two-tenants.yaml");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        Self::with_policy(&text)
    }

    /// With this policy.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn with_policy(text: &str) -> anyhow::Result<Self> {
        Self::launch(Binaries::find()?, text, &[])
    }

    /// With these programs, this policy, and further arguments of masqd.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn launch(binaries: Binaries, policy: &str, args: &[&str]) -> anyhow::Result<Self> {
        Self::launch_at(binaries, Place::default(), policy, args)
    }

    /// As [`Self::launch`], in this place.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn launch_at(
        binaries: Binaries,
        place: Place<'_>,
        policy: &str,
        args: &[&str],
    ) -> anyhow::Result<Self> {
        let Place {
            parent,
            owner,
            namespace,
        } = place;
        let mut builder = tempfile::Builder::new();
        builder.prefix("masq-");
        let dir = match parent {
            Some(parent) => builder.tempdir_in(parent)?,
            None => builder.tempdir()?,
        };
        let file = dir.path().join("policy.yaml");
        std::fs::write(&file, policy)?;
        if let Some((uid, gid)) = owner {
            chown(dir.path(), Some(uid), Some(gid))?;
        }
        let start = Start {
            owner,
            namespace: namespace.map(Namespace::entrance).transpose()?,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        };
        let mut host = Self {
            masqd: start.masqd(&binaries, &file, dir.path())?,
            binaries,
            policy: file,
            dir,
            start,
            environment: Vec::new(),
        };
        host.wait_until_up()?;
        Ok(host)
    }

    /// Starts masqd again after [`Self::kill`], as it was started before; its log begins
    /// anew.
    ///
    /// # Errors
    /// It does not come up; the error holds its log.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.masqd = self
            .start
            .masqd(&self.binaries, &self.policy, self.dir.path())?;
        self.wait_until_up()
    }

    fn wait_until_up(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + START;
        while self.overview().is_err() {
            if !self.masqd.is_running() || Instant::now() > end {
                bail!("masqd did not come up; its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// masqd's run directory.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// A directory that ends with the host.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// The policy file that masqd reads.
    pub fn policy_file(&self) -> &Path {
        &self.policy
    }

    /// The programs in use.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The tables of its network (`/proc/net`).
    pub(crate) fn network_tables(&self) -> PathBuf {
        let namespace = self.start.namespace.as_ref();
        namespace.map_or_else(|| "/proc/net".into(), Namespace::tables)
    }

    /// Sets a variable for the endpoints' programs that are started from now on.
    pub fn set_env(&mut self, name: &'static str, value: &'static str) {
        self.environment.push((name, value));
    }

    /// masqd's process id.
    pub fn pid(&self) -> u32 {
        self.masqd.pid()
    }

    /// masqd's log so far.
    pub fn log(&self) -> String {
        self.masqd.output()
    }

    /// Whether masqd still runs.
    pub fn is_running(&mut self) -> bool {
        self.masqd.is_running()
    }

    /// Sends masqd a signal.
    pub fn signal(&self, signal: Signal) {
        self.masqd.signal(signal);
    }

    /// Kills masqd, as a crash would; the run directory stays.
    pub fn kill(&mut self) {
        self.masqd.signal(Signal::KILL);
        while self.masqd.is_running() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// `masq` with the run directory.
    pub fn masq(&self) -> Command {
        let mut command = Command::new(self.binaries.masq());
        command.arg("--run-dir").arg(self.run_dir());
        command
    }

    /// Runs `masq ARGS` to its end.
    ///
    /// # Errors
    /// It cannot be started or hangs; a failure is in the status.
    pub fn masq_output<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Finished> {
        let mut command = self.masq();
        command.args(args);
        self.start.spawn(command)?.wait(PATIENCE)
    }

    /// The command that runs `program` as `endpoint`.
    pub fn command(&self, endpoint: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.masq();
        command.envs(self.environment.iter().copied());
        command.args(["run", "--endpoint", endpoint]);
        command.arg("--library").arg(self.binaries.library());
        command.arg("--").arg(program);
        command
    }

    /// Starts `program ARGS` as `endpoint`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_as<S: AsRef<OsStr>>(
        &self,
        endpoint: &str,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Running> {
        let mut command = self.command(endpoint, program);
        command.args(args);
        self.start.spawn(command)
    }

    /// Runs `program ARGS` as `endpoint` to its end.
    ///
    /// # Errors
    /// It cannot be started or hangs; a failure is in the status.
    pub fn run_as<S: AsRef<OsStr>>(
        &self,
        endpoint: &str,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Finished> {
        self.start_as(endpoint, program, args)?.wait(PATIENCE)
    }

    /// Everything in short.
    ///
    /// # Errors
    /// masqd does not answer.
    pub fn overview(&self) -> anyhow::Result<Overview> {
        match masq_admin::call(&self.run_dir(), &Request::Overview)? {
            Answer::Overview(overview) => Ok(*overview),
            other => bail!("not an overview: {other:?}"),
        }
    }

    /// One endpoint with its sessions.
    ///
    /// # Errors
    /// masqd does not answer, or has no such endpoint.
    pub fn endpoint(&self, name: &str) -> anyhow::Result<(Vec<SessionDetail>, EndpointReport)> {
        let request = Request::Endpoint {
            endpoint: name.to_owned(),
        };
        match masq_admin::call(&self.run_dir(), &request)? {
            Answer::Detail(sessions, Some(endpoint)) => Ok((sessions, endpoint)),
            other => bail!("not an endpoint: {other:?}"),
        }
    }

    /// Waits until no session is left and nothing of any quota is in use.
    ///
    /// # Errors
    /// Something is left after ten seconds; the error says what.
    pub fn wait_until_empty(&self) -> anyhow::Result<()> {
        self.wait_until_nothing_but(&[])
    }

    /// The same, but for the registrations of containers that still run.
    ///
    /// # Errors
    /// As [`Self::wait_until_empty`].
    pub fn wait_until_empty_but_containers(&self) -> anyhow::Result<()> {
        self.wait_until_nothing_but(&["containers"])
    }

    fn wait_until_nothing_but(&self, quotas: &[&str]) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let left = leftovers(&self.overview()?, quotas);
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("masqd did not forget: {}", left.join(", "));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn leftovers(overview: &Overview, but: &[&str]) -> Vec<String> {
    let mut left: Vec<_> = overview
        .sessions
        .iter()
        .map(|s| format!("session {} of {} ({})", s.id, s.endpoint, s.program))
        .collect();
    for endpoint in &overview.endpoints {
        let used = endpoint.quotas.iter().filter(|(_, q)| q.used > 0);
        for (quota, count) in used.filter(|(quota, _)| !but.contains(&quota.as_str())) {
            left.push(format!("{} {quota} of {}", count.used, endpoint.endpoint));
        }
    }
    left
}
