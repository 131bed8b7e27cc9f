//! A masqd of the test's own.

use crate::Client;
use masq_admin::{Answer, Overview, Request};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, OnceLock};
use tempfile::TempDir;

/// Two tenants as in the example, and a bystander.
pub const POLICY: &str = "
version: 1
tenants:
  blue:
    endpoints:
      a: { address: 10.0.0.1 }
      b: { address: 10.0.0.2 }
    rules:
      - { name: a-and-b, from: a, to: b, both_ways: true, qp_types: [RC, UC, UD], action: allow }
  red:
    endpoints:
      a: { address: 10.0.0.1 }
      b: { address: 10.0.0.3 }
  green:
    endpoints:
      bystander: { address: 10.0.0.9 }
";

/// A running masqd and its directory.
pub struct Masqd {
    child: Mutex<Child>,
    pid: i32,
    dir: TempDir,
    log: Mutex<Receiver<String>>,
    lines: Mutex<Vec<String>>,
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessCounts {
    /// Open descriptors.
    pub fds: usize,
    /// Threads.
    pub threads: usize,
    /// Mappings.
    pub maps: usize,
}

/// `MASQD`, or the one of this build, which is built once.
fn masqd_binary() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("MASQD") {
            return path.into();
        }
        let test = std::env::current_exe().expect("the test has a path");
        let dir = test
            .ancestors()
            .find(|dir| dir.join("deps").is_dir())
            .expect("tests run from cargo's target directory");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "-p", "masqd"]);
        if dir.file_name().is_some_and(|name| name == "release") {
            build.arg("--release");
        }
        let status = build.status().expect("cargo can be run");
        assert!(status.success(), "masqd does not build");
        dir.join("masqd")
    })
}

impl Masqd {
    /// Starts one with [`POLICY`].
    pub fn start() -> Self {
        Self::with_policy(POLICY)
    }

    /// Starts one with another policy.
    pub fn with_policy(policy: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("policy.yaml"), policy).expect("the policy is written");
        Self::in_dir(dir, &[])
    }

    /// Starts one in a directory that holds a `policy.yaml`.
    pub fn in_dir(dir: TempDir, arguments: &[&str]) -> Self {
        let mut child = Self::command(dir.path())
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("masqd starts");
        let stderr = child.stderr.take().expect("it is piped");
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if std::env::var_os("SHOW_LOG").is_some() {
                    eprintln!("{line}");
                }
                let _ = sender.send(line);
            }
        });
        let masqd = Self {
            pid: child.id() as i32,
            child: Mutex::new(child),
            dir,
            log: Mutex::new(log),
            lines: Mutex::default(),
        };
        assert!(masqd.has_logged("ready"), "masqd did not start");
        masqd
    }

    /// The command line that starts a masqd in `dir`.
    pub fn command(dir: &Path) -> Command {
        let mut command = Command::new(masqd_binary());
        command
            .arg("--policy")
            .arg(dir.join("policy.yaml"))
            .arg("--run-dir")
            .arg(dir.join("run"))
            .args(["--drain", "1", "--log-format", "json"]);
        command
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its directory: `policy.yaml` and `run`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// An endpoint's socket.
    pub fn socket(&self, endpoint: &str) -> PathBuf {
        let dir = self.dir.path().join("run/endpoints").join(endpoint);
        dir.join("masq.sock")
    }

    /// A client of an endpoint, with an open session.
    pub fn open(&self, endpoint: &str) -> Client {
        Client::open(&self.socket(endpoint))
    }

    /// Waits until a line of the log contains `text`; false if none did for
    /// long.
    pub fn has_logged(&self, text: &str) -> bool {
        let log = self.log.lock().expect("no test panics with it");
        let mut lines = self.lines.lock().expect("no test panics with it");
        if lines.iter().any(|line| line.contains(text)) {
            return true;
        }
        while let Ok(line) = log.recv_timeout(crate::LONG) {
            let found = line.contains(text);
            lines.push(line);
            if found {
                return true;
            }
        }
        false
    }

    /// Asks as an operator does.
    pub fn ask(&self, request: &Request) -> Result<Answer, masq_admin::AdminError> {
        masq_admin::call(&self.dir.path().join("run"), request)
    }

    /// Its overview.
    pub fn overview(&self) -> Overview {
        match self.ask(&Request::Overview) {
            Ok(Answer::Overview(overview)) => *overview,
            other => panic!("no overview: {other:?}"),
        }
    }

    /// How often `verb` was refused to `tenant/name`.
    pub fn refusals(&self, endpoint: &str, verb: &str) -> u64 {
        let counts = self.overview().refusals_total;
        let of = |c: &&masq_admin::RefusalCount| {
            format!("{}/{}", c.tenant, c.endpoint) == endpoint && c.verb == verb
        };
        counts.iter().filter(of).map(|c| c.count).sum()
    }

    /// Replaces the policy and has it read again.
    pub fn reload(&self, policy: &str) -> Result<Answer, masq_admin::AdminError> {
        fs::write(self.dir.path().join("policy.yaml"), policy).expect("the policy is written");
        self.ask(&Request::Reload)
    }

    /// What it holds now.
    pub fn counts(&self) -> ProcessCounts {
        let count = |what: &str| {
            let path = format!("/proc/{}/{what}", self.pid);
            fs::read_dir(path).map_or(0, Iterator::count)
        };
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap_or_default();
        ProcessCounts {
            fds: count("fd"),
            threads: count("task"),
            maps: maps.lines().count(),
        }
    }

    /// Whether a tenant that has done nothing wrong is served.
    pub fn serves_others(&self) -> bool {
        let mut bystander = self.open("green/bystander");
        bystander.works()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid).expect("no pid is 0");
        rustix::process::kill_process(pid, signal).expect("it lives");
    }

    /// Waits for its end.
    pub fn wait(&self) -> ExitStatus {
        let mut child = self.child.lock().expect("no test panics with it");
        child.wait().expect("it is a child")
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        let mut child = self.child.lock().expect("no test panics with it");
        !matches!(child.try_wait(), Ok(None))
    }

    /// Ends it without warning and gives its directory.
    pub fn kill(self) -> TempDir {
        let mut child = self.child.lock().expect("no test panics with it");
        let _ = child.kill();
        let _ = child.wait();
        drop(child);
        let empty = tempfile::tempdir().expect("a temporary directory");
        let mut this = self;
        std::mem::replace(&mut this.dir, empty)
    }
}

impl Drop for Masqd {
    fn drop(&mut self) {
        if let Ok(mut child) = self.child.lock() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
