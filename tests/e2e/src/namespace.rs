//! Network namespaces.

use crate::meeting::wait_for_words;
use crate::process::{Running, spawn};
use anyhow::Context as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// For a short script, with room for a loaded machine.
const SOON: Duration = Duration::from_secs(60);
const SCRIPT: &str = "ip link set lo up && echo ready && exec sleep infinity";

/// A network namespace. One that was made here ends with this and with what still runs
/// in it, or when the thread that made it ends.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    pid: u32,
    _holder: Option<Running>,
}

impl Namespace {
    /// A new one, with only its loopback interface, which is up.
    ///
    /// # Errors
    /// Not root, or the kernel has none left.
    pub fn new() -> anyhow::Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["-n", "sh", "-c", SCRIPT]);
        let mut holder = spawn(command)?;
        wait_for_words(&mut holder, "ready").context("no network namespace; it takes root")?;
        Ok(Self {
            file: File::open(format!("/proc/{}/ns/net", holder.pid()))?,
            pid: holder.pid(),
            _holder: Some(holder),
        })
    }

    /// The one in which this thread is.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn current() -> anyhow::Result<Self> {
        Ok(Self {
            file: File::open("/proc/thread-self/ns/net")?,
            pid: std::process::id(),
            _holder: None,
        })
    }

    /// A process in it, whose `/proc/PID/net` shows its tables.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Calls `f` while this thread is in the namespace; what it starts stays there.
    ///
    /// # Errors
    /// Not root, or `f` failed.
    ///
    /// # Panics
    /// The thread cannot return to where it was: nothing it did next would be right.
    pub fn inside<T>(&self, f: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        struct Return(File);
        impl Drop for Return {
            fn drop(&mut self) {
                enter(&self.0).expect("the thread returns to its network namespace");
            }
        }
        let _home = Return(File::open("/proc/thread-self/ns/net")?);
        enter(&self.file).context("cannot enter a network namespace; it takes root")?;
        f()
    }

    /// Runs a shell script in it; what it printed.
    ///
    /// # Errors
    /// It failed; the error holds what it said.
    pub fn shell(&self, script: &str) -> anyhow::Result<String> {
        let mut shell = Command::new("sh");
        shell.args(["-ec", script]);
        let shell = self.inside(|| spawn(shell))?;
        Ok(shell.wait(SOON)?.success()?.output)
    }

    /// Another hold on it, which does not keep it alive.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn entrance(&self) -> anyhow::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            pid: self.pid,
            _holder: None,
        })
    }

    /// Where its tables are, as [`wait_for_listener_in`](crate::wait_for_listener_in) wants
    /// it.
    pub fn tables(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/net", self.pid))
    }
}

fn enter(file: &File) -> rustix::io::Result<()> {
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
}
