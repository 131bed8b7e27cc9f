//! How command lines get into a guest and their outputs out of it: lines over a pseudo
//! terminal that the guest has as a console. `scripts/agent.sh` is the other end.
//!
//! | To the guest | |
//! |---|---|
//! | `start JOB BASE64` | run this script in a shell |
//! | `read JOB out\|err OFFSET` | answered by `data` |
//! | `kill JOB SIGNAL` | to the job's process group |
//! | `drop JOB` | forget its output |
//! | `off` | power off |
//!
//! | From the guest | |
//! |---|---|
//! | `ready` | once |
//! | `end JOB STATUS` | as a shell counts: 128 and more is a signal |
//! | `data JOB BASE64` | at most 1500 bytes; none at the end |
//!
//! Only what was asked for travels in bulk, so nothing waits in the terminal's buffers.

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A job's name in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobId(pub(crate) u32);

/// A job's standard output or error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Out,
    Err,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Ready,
    End(JobId, i32),
    Data(JobId, Vec<u8>),
}

impl Event {
    /// Nothing for a line that the agent did not write: a kernel may speak too.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.trim_end().split(' ');
        let verb = words.next()?;
        if verb == "ready" {
            return Some(Self::Ready);
        }
        let job = JobId(words.next()?.parse().ok()?);
        let word = words.next().unwrap_or_default();
        match verb {
            "end" => Some(Self::End(job, word.parse().ok()?)),
            "data" => Some(Self::Data(job, STANDARD.decode(word).ok()?)),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    ready: bool,
    ended: BTreeMap<JobId, i32>,
    data: Option<(JobId, Vec<u8>)>,
}

impl State {
    fn take(&mut self, event: Event) {
        match event {
            Event::Ready => self.ready = true,
            Event::End(job, status) => {
                self.ended.insert(job, status);
            }
            Event::Data(job, bytes) => self.data = Some((job, bytes)),
        }
    }
}

/// The machine's end.
#[derive(Debug)]
pub(crate) struct Channel {
    to_guest: Mutex<File>,
    state: Arc<(Mutex<State>, Condvar)>,
    /// One reader of outputs at a time.
    reading: Mutex<()>,
    /// The guest opens and closes its end; this keeps the terminal whole meanwhile.
    _guest_end: OwnedFd,
    path: String,
}

impl Channel {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .context("no pseudo terminal")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?.into_string()?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let guest_end = rustix::fs::open(&path, flags, Mode::empty())
            .with_context(|| format!("cannot open {path}"))?;
        let mut modes = tcgetattr(&guest_end)?;
        modes.make_raw();
        tcsetattr(&guest_end, OptionalActions::Now, &modes)?;

        let from_guest = File::from(master);
        let to_guest = from_guest.try_clone()?;
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let shared = Arc::clone(&state);
        // It ends with the last open end of the terminal.
        std::thread::Builder::new()
            .name("guest channel".to_owned())
            .spawn(move || {
                for line in BufReader::new(from_guest).split(b'\n') {
                    let Ok(line) = line else { break };
                    if let Some(event) = Event::parse(&String::from_utf8_lossy(&line)) {
                        lock(&shared.0).take(event);
                        shared.1.notify_all();
                    }
                }
            })?;
        Ok(Self {
            to_guest: Mutex::new(to_guest),
            state,
            reading: Mutex::new(()),
            _guest_end: guest_end,
            path,
        })
    }

    /// The terminal to give to the guest.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Waits for the agent. `alive` says whether waiting still makes sense.
    pub(crate) fn wait_until_ready(
        &self,
        limit: Duration,
        alive: impl Fn() -> bool,
    ) -> anyhow::Result<()> {
        self.wait_for(limit, alive, |state| state.ready.then_some(()))
    }

    pub(crate) fn start(&self, job: JobId, script: &str) -> anyhow::Result<()> {
        self.send(&format!("start {} {}", job.0, STANDARD.encode(script)))
    }

    pub(crate) fn kill(&self, job: JobId, signal: &str) -> anyhow::Result<()> {
        self.send(&format!("kill {} {signal}", job.0))
    }

    pub(crate) fn forget(&self, job: JobId) -> anyhow::Result<()> {
        lock(&self.state.0).ended.remove(&job);
        self.send(&format!("drop {}", job.0))
    }

    pub(crate) fn power_off(&self) -> anyhow::Result<()> {
        self.send("off")
    }

    /// The status of a job that has ended.
    pub(crate) fn status(&self, job: JobId) -> Option<i32> {
        lock(&self.state.0).ended.get(&job).copied()
    }

    pub(crate) fn wait(
        &self,
        job: JobId,
        limit: Duration,
        alive: impl Fn() -> bool,
    ) -> anyhow::Result<i32> {
        self.wait_for(limit, alive, |state| state.ended.get(&job).copied())
    }

    /// What a job wrote so far.
    pub(crate) fn read(
        &self,
        job: JobId,
        stream: Stream,
        alive: impl Fn() -> bool,
    ) -> anyhow::Result<String> {
        const ANSWERS: Duration = Duration::from_secs(20);
        const MOST: usize = 1 << 20;
        let _reading = lock(&self.reading);
        let name = match stream {
            Stream::Out => "out",
            Stream::Err => "err",
        };
        let mut bytes = Vec::new();
        while bytes.len() < MOST {
            lock(&self.state.0).data = None;
            self.send(&format!("read {} {name} {}", job.0, bytes.len()))?;
            let chunk = self.wait_for(ANSWERS, &alive, |state| {
                let (of, chunk) = state.data.take()?;
                (of == job).then_some(chunk)
            })?;
            if chunk.is_empty() {
                break;
            }
            bytes.extend(chunk);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn send(&self, line: &str) -> anyhow::Result<()> {
        // More stays in the guest's terminal until it is read, which has no room for more.
        const LONGEST: usize = 4000;
        if line.len() > LONGEST {
            bail!("a command for a guest is too long: {} bytes", line.len());
        }
        let mut to_guest = lock(&self.to_guest);
        to_guest
            .write_all(format!("{line}\n").as_bytes())
            .context("the guest's channel is closed")
    }

    fn wait_for<T>(
        &self,
        limit: Duration,
        alive: impl Fn() -> bool,
        mut ready: impl FnMut(&mut State) -> Option<T>,
    ) -> anyhow::Result<T> {
        const LOOK: Duration = Duration::from_millis(200);
        let end = Instant::now() + limit;
        let mut state = lock(&self.state.0);
        loop {
            if let Some(found) = ready(&mut state) {
                return Ok(found);
            }
            if !alive() {
                bail!("the guest is gone");
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("nothing after {limit:?}");
            }
            state = self
                .state
                .1
                .wait_timeout(state, left.min(LOOK))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_agent_are_told_from_those_of_others() {
        assert_eq!(Event::parse("ready\r"), Some(Event::Ready));
        assert_eq!(Event::parse("end 7 137"), Some(Event::End(JobId(7), 137)));
        let data = Event::Data(JobId(7), b"one\n".to_vec());
        assert_eq!(Event::parse("data 7 b25lCg=="), Some(data));
        assert_eq!(
            Event::parse("data 7 "),
            Some(Event::Data(JobId(7), Vec::new()))
        );
        assert_eq!(Event::parse("[    0.1] Linux version 6.12"), None);
        assert_eq!(Event::parse("end 7"), None);
        assert_eq!(Event::parse(""), None);
    }

    /// The agent's own loop, on this machine instead of in a guest.
    fn agent(channel: &Channel, dir: &std::path::Path) -> masq_e2e::Running {
        let text = crate::root::AGENT;
        let from = text.find("exec 3<>").unwrap();
        let to = text.find("# reboot(").unwrap();
        let jobs = dir.join("jobs");
        let script = text[from..to].replace("/run/masq-jobs", jobs.to_str().unwrap());
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]).env("channel", channel.path());
        masq_e2e::spawn(shell).unwrap()
    }

    #[test]
    fn a_job_has_its_status_and_both_outputs_whole() {
        let dir = tempfile::tempdir().unwrap();
        let channel = Channel::new().unwrap();
        let _agent = agent(&channel, dir.path());
        let limit = Duration::from_secs(20);
        channel.wait_until_ready(limit, || true).unwrap();
        let job = JobId(1);
        channel
            .start(job, "seq 1 2000; echo 'it is' so >&2; exit 3")
            .unwrap();
        assert_eq!(channel.wait(job, limit, || true).unwrap(), 3);
        let out = channel.read(job, Stream::Out, || true).unwrap();
        assert_eq!(out.lines().count(), 2000);
        assert!(out.ends_with("\n2000\n"));
        let err = channel.read(job, Stream::Err, || true).unwrap();
        assert_eq!(err, "it is so\n");
    }

    #[test]
    fn a_job_is_killed_with_its_children_and_others_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let channel = Channel::new().unwrap();
        let _agent = agent(&channel, dir.path());
        let limit = Duration::from_secs(20);
        channel.wait_until_ready(limit, || true).unwrap();
        let (long, short) = (JobId(1), JobId(2));
        channel.start(long, "sleep 600; true").unwrap();
        channel.start(short, "sleep 0.3; echo late").unwrap();
        let end = Instant::now() + limit;
        // It may not have begun yet.
        while channel.status(long).is_none() {
            assert!(Instant::now() < end, "it still runs");
            channel.kill(long, "KILL").unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(channel.status(long), Some(137));
        assert_eq!(channel.wait(short, limit, || true).unwrap(), 0);
        let out = channel.read(short, Stream::Out, || true).unwrap();
        assert_eq!(out, "late\n");
    }
}
