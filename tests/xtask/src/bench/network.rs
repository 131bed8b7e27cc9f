//! Two network namespaces joined by veth pairs and a bridge, as containers are.

use anyhow::{Context as _, ensure};
use std::process::Command;

const NAMESPACES: [&str; 2] = ["masq-bench-a", "masq-bench-b"];
const BRIDGE: &str = "masqbr0";
const NET: &str = "10.231.77";

/// The namespaces; they end with it.
#[derive(Debug)]
pub(crate) struct Network(());

impl Network {
    pub(crate) fn make() -> anyhow::Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "namespaces need root; or leave TCP out: cargo xtask bench --no-network"
        );
        remove();
        let network = Self(());
        ip(&format!("link add {BRIDGE} type bridge"))?;
        ip(&format!("link set {BRIDGE} up"))?;
        for (n, namespace) in NAMESPACES.iter().enumerate() {
            let outer = format!("masqv{n}");
            ip(&format!("netns add {namespace}"))?;
            ip(&format!(
                "link add {outer} type veth peer name eth0 netns {namespace}"
            ))?;
            ip(&format!("link set {outer} master {BRIDGE} up"))?;
            ip(&format!(
                "-n {namespace} addr add {NET}.{}/24 dev eth0",
                n + 1
            ))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
        }
        Ok(network)
    }

    /// A command in the server's or the client's namespace.
    pub(crate) fn command(&self, side: Side, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", NAMESPACES[side as usize], program]);
        command
    }

    /// The server's address.
    pub(crate) fn server(&self) -> String {
        format!("{NET}.1")
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Server,
    Client,
}

impl Drop for Network {
    fn drop(&mut self) {
        remove();
    }
}

/// Whatever there is of it, also of a run that was killed.
fn remove() {
    for namespace in NAMESPACES {
        let _ = quiet(&format!("netns del {namespace}"));
    }
    for n in 0..NAMESPACES.len() {
        let _ = quiet(&format!("link del masqv{n}"));
    }
    let _ = quiet(&format!("link del {BRIDGE}"));
}

fn quiet(arguments: &str) -> std::io::Result<std::process::Output> {
    Command::new("ip").args(arguments.split(' ')).output()
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let out = quiet(arguments).context("cannot run ip")?;
    ensure!(
        out.status.success(),
        "`ip {arguments}` failed: {}",
        String::from_utf8_lossy(&out.stderr).trim()
    );
    Ok(())
}
