//! A cable between two hosts.

use crate::namespace::Namespace;
use crate::wire::addresses_of;
use anyhow::{Context as _, ensure};
use ipnet::IpNet;
use std::sync::OnceLock;

/// One veth pair; each end is in a host's namespace.
#[derive(Debug)]
pub struct Cable {
    mtu: u32,
    first: OnceLock<Namespace>,
}

impl Cable {
    /// One that carries packets of `mtu` bytes.
    pub fn new(mtu: u32) -> Self {
        Self {
            mtu,
            first: OnceLock::new(),
        }
    }

    /// A new namespace whose interface `eth0` is an end of the cable and has these addresses.
    ///
    /// # Errors
    /// Not root, or both ends are taken.
    pub fn host(&self, addresses: &[IpNet]) -> anyhow::Result<Namespace> {
        let host = Namespace::new()?;
        match self.first.get() {
            None => {
                let link = "type veth peer name far mtu";
                host.shell(&format!("ip link add eth0 mtu {0} {link} {0}", self.mtu))?;
                let is_first = self.first.set(host.entrance()?).is_ok();
                ensure!(is_first, "two first ends");
            }
            Some(first) => {
                let give = format!("ip link set far netns {} name eth0", host.pid());
                first.shell(&give).context("a cable has two ends")?;
            }
        }
        host.shell(&addresses_of("eth0", addresses))?;
        Ok(host)
    }
}
