//! An etcd of its own for each test.

use crate::namespace::Namespace;
use crate::ports::free_port;
use crate::process::{Running, spawn};
use anyhow::bail;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(60);

/// An etcd with one member; it ends with this.
#[derive(Debug)]
pub struct Etcd {
    running: Running,
    place: Place,
    dir: tempfile::TempDir,
}

/// Where it is reached, and from where it is started.
#[derive(Debug)]
struct Place {
    namespace: Namespace,
    ip: IpAddr,
    client: u16,
    peer: u16,
}

impl Etcd {
    /// On this host.
    ///
    /// # Errors
    /// It is not installed (`cargo xtask setup`), or does not come up.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_at(Place {
            namespace: Namespace::current()?,
            ip: Ipv4Addr::LOCALHOST.into(),
            client: free_port()?,
            peer: free_port()?,
        })
    }

    /// In a namespace of its own, which has this address.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in(namespace: Namespace, ip: IpAddr) -> anyhow::Result<Self> {
        Self::start_at(Place {
            namespace,
            ip,
            client: 2379,
            peer: 2380,
        })
    }

    fn start_at(place: Place) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let running = place.spawn(dir.path().join("data"))?;
        let mut etcd = Self {
            running,
            place,
            dir,
        };
        etcd.wait()?;
        Ok(etcd)
    }

    /// What `masqd --directory` is told.
    pub fn address(&self) -> String {
        format!("etcd://{}:{}/test", self.place.ip, self.place.client)
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
        self.running = self.place.spawn(self.dir.path().join("data"))?;
        self.wait()
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + START;
        while !self.place.answers()? {
            if Instant::now() > end || !self.running.is_running() {
                bail!("etcd did not start:\n{}", self.running.output());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Place {
    fn answers(&self) -> anyhow::Result<bool> {
        let connect = || Ok(TcpStream::connect((self.ip, self.client)).is_ok());
        self.namespace.inside(connect)
    }

    fn spawn(&self, data: PathBuf) -> anyhow::Result<Running> {
        let url = |port| format!("http://{}:{port}", self.ip);
        let (client, peer) = (url(self.client), url(self.peer));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(data);
        command.args(["--name", "one"]);
        command.args(["--listen-client-urls", &client]);
        command.args(["--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer]);
        command.args(["--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("one={peer}")]);
        self.namespace.inside(|| spawn(command))
    }
}
