//! An etcd of its own for each test.

use crate::ports::free_port;
use crate::process::{Running, spawn};
use anyhow::bail;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(60);

/// An etcd with one member; it ends with this.
#[derive(Debug)]
pub struct Etcd {
    dir: tempfile::TempDir,
    ip: String,
    client: u16,
    peer: u16,
    running: Running,
}

impl Etcd {
    /// On this host.
    ///
    /// # Errors
    /// It is not installed (`cargo xtask setup`), or does not come up.
    pub fn start() -> anyhow::Result<Self> {
        let (client, peer) = (free_port()?, free_port()?);
        let (dir, ip) = (tempfile::tempdir()?, "127.0.0.1".to_owned());
        let running = spawn(command(dir.path().join("data"), &ip, client, peer))?;
        let mut etcd = Self {
            dir,
            ip,
            client,
            peer,
            running,
        };
        etcd.wait()?;
        Ok(etcd)
    }

    /// What `masqd --directory` is told.
    pub fn address(&self) -> String {
        format!("etcd://{}:{}/test", self.ip, self.client)
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.running.signal(rustix::process::Signal::KILL);
        let end = Instant::now() + START;
        while self.running.is_running() {
            if Instant::now() > end {
                bail!("etcd does not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Starts it again where it was, with what it knew.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let data = self.dir.path().join("data");
        self.running = spawn(command(data, &self.ip, self.client, self.peer))?;
        self.wait()
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + START;
        while TcpStream::connect((self.ip.as_str(), self.client)).is_err() {
            if Instant::now() > end || !self.running.is_running() {
                bail!("etcd did not start:\n{}", self.running.output());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn command(data: PathBuf, ip: &str, client: u16, peer: u16) -> Command {
    let (client, peer) = (
        format!("http://{ip}:{client}"),
        format!("http://{ip}:{peer}"),
    );
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(data);
    command.args(["--name", "one"]);
    command.args(["--listen-client-urls", &client]);
    command.args(["--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer]);
    command.args(["--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("one={peer}")]);
    command
}
