//! A network namespace whose loopback interface has addresses of endpoints: for
//! programs that use rdma_cm and sockets of the host side by side.

use crate::host::Host;
use crate::meeting::wait_for_words;
use crate::process::{Running, spawn};
use anyhow::Context as _;
use std::process::Command;
use std::time::Duration;

/// `sh -c SCRIPT sh ADDRESS…`
const SCRIPT: &str = r#"
set -e
for address; do ip address add "$address" dev lo; done
ip link set lo up
echo ready
exec sleep 1000
"#;

/// Gives this thread, and what it starts from now on, a network of its own, whose loopback
/// interface has these addresses (and their prefix lengths). A test's thread ends with the
/// test. Ports in it are [`wait_for_listener_in`](crate::wait_for_listener_in)
/// [`THREAD_NET`].
///
/// # Errors
/// This user is not root.
pub fn own_network(addresses: &[&str]) -> anyhow::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .context("no network namespace; run the test as root")?;
    let mut command = Command::new("sh");
    let script = SCRIPT.replace("exec sleep 1000", "");
    command.args(["-c", &script, "sh"]).args(addresses);
    spawn(command)?.wait(PATIENCE)?.success()?;
    Ok(())
}

/// The tables of the calling thread's network.
pub const THREAD_NET: &str = "/proc/thread-self/net";

const PATIENCE: Duration = Duration::from_secs(20);

/// The namespace; it ends with it.
#[derive(Debug)]
pub struct Netns {
    holder: Running,
}

impl Netns {
    /// With these addresses (and their prefix lengths).
    ///
    /// # Errors
    /// The host lets this user make none.
    pub fn with_addresses(addresses: &[&str]) -> anyhow::Result<Self> {
        let root = rustix::process::geteuid().is_root();
        let mut command = Command::new("unshare");
        command.args([if root { "-n" } else { "-Urn" }, "sh", "-c", SCRIPT, "sh"]);
        command.args(addresses);
        let mut holder = spawn(command)?;
        wait_for_words(&mut holder, "ready")?;
        Ok(Self { holder })
    }

    /// Starts a command line, split at blanks, as `endpoint` in the namespace.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_as(&self, host: &Host, endpoint: &str, line: &str) -> anyhow::Result<Running> {
        let pid = self.holder.pid().to_string();
        let root = rustix::process::geteuid().is_root();
        let user: &[&str] = if root {
            &[]
        } else {
            &["-U", "--preserve-credentials"]
        };
        let enter = ["-t", &pid, "-n"];
        let words = enter.iter().chain(user).copied().chain(line.split(' '));
        host.start_as(endpoint, "nsenter", words)
    }
}
