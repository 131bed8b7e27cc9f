//! A network namespace whose loopback interface has addresses of endpoints: for
//! programs that use rdma_cm and sockets of the host side by side.

use crate::host::Host;
use crate::meeting::wait_for_words;
use crate::process::{Running, spawn};
use std::process::Command;

/// `sh -c SCRIPT sh ADDRESS…`
const SCRIPT: &str = r#"
set -e
for address; do ip address add "$address" dev lo; done
ip link set lo up
echo ready
exec sleep 1000
"#;

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
