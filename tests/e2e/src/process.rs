//! Child processes that never outlive whoever started them: each leads a
//! process group of its own, which is killed when its [`Running`] is dropped,
//! when [`end_all`] is called (by a handler of Ctrl-C), and, the child itself,
//! when the thread that started it dies.
#![allow(unsafe_code)] // pre_exec, for PR_SET_PDEATHSIG

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Kills every child that still runs.
pub fn end_all() {
    let groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    for group in groups.iter() {
        kill_group(*group);
    }
}

fn kill_group(group: i32) {
    if let Some(pid) = Pid::from_raw(group) {
        // It may be gone already.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// A child with its output so far.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    output: File,
    ended: Option<ExitStatus>,
}

/// What remains of a child.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command line.
    pub name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output and error, mixed as they came.
    pub output: String,
}

impl Finished {
    /// An error with the output, unless it succeeded.
    ///
    /// # Errors
    /// It failed.
    pub fn success(self) -> anyhow::Result<Self> {
        if !self.status.success() {
            bail!("{self}");
        }
        Ok(self)
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: {}", self.name, self.status)?;
        for line in self.output.lines() {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}

/// Starts `command` with its output kept.
///
/// # Errors
/// It cannot be started.
pub fn spawn(mut command: Command) -> anyhow::Result<Running> {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    let name = words.join(" ");
    let output = tempfile::tempfile().context("no room for output")?;
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .process_group(0);
    let die_with_parent = || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: the closure makes one system call and allocates nothing, so it
    // may run between fork and exec.
    unsafe { command.pre_exec(die_with_parent) };
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {name}; `cargo xtask setup` installs programs"))?;
    GROUPS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(child.id().cast_signed());
    Ok(Running {
        name,
        child,
        output,
        ended: None,
    })
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        let read = || -> std::io::Result<String> {
            // The descriptor's offset is shared with the child: read from a copy
            // opened anew.
            use std::os::fd::AsRawFd as _;
            let mut file = File::open(format!("/proc/self/fd/{}", self.output.as_raw_fd()))?;
            file.rewind()?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|e| format!("(output is lost: {e})"))
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_none()
    }

    /// Sends a signal to its whole group.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none()
            && let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
        {
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Waits for its end; after `limit` it is killed.
    ///
    /// # Errors
    /// It took longer; the error holds its output.
    pub fn wait(mut self, limit: Duration) -> anyhow::Result<Finished> {
        let end = Instant::now() + limit;
        while self.is_running() {
            if Instant::now() > end {
                let output = self.output();
                bail!(
                    "{} still ran after {limit:?} and was killed; its output:\n{output}",
                    self.name
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let status = self.ended.unwrap_or_else(|| ExitStatus::from_raw(0xff));
        Ok(Finished {
            name: self.name.clone(),
            status,
            output: self.output(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = self.child.id().cast_signed();
        // The group may outlive its leader.
        kill_group(group);
        let _ = self.child.wait();
        GROUPS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Running {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        spawn(command).unwrap()
    }

    #[test]
    fn output_and_status_are_kept() {
        let done = shell("echo one; echo two >&2; exit 3")
            .wait(Duration::from_secs(10))
            .unwrap();
        assert_eq!(done.output, "one\ntwo\n");
        assert_eq!(done.status.code(), Some(3));
        assert!(done.success().unwrap_err().to_string().contains("two"));
    }

    #[test]
    fn one_that_hangs_is_killed_with_its_children() {
        let running = shell("sleep 600 & echo $!; wait");
        while running.output().is_empty() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let pid = running.output().trim().to_owned();
        let error = running.wait(Duration::from_millis(1)).unwrap_err();
        assert!(error.to_string().contains("was killed"), "{error}");
        // A zombie of an orphan may linger until init reaps it.
        let gone = || {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |stat| stat.contains(") Z"))
        };
        let end = Instant::now() + Duration::from_secs(10);
        while !gone() {
            assert!(Instant::now() < end, "{pid} still runs");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
