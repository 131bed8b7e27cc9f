//! Network namespaces made by hand: for containers whose addresses a test chooses, also
//! two with the same address.

use crate::command::{command, output_of};
use crate::container::Container;
use crate::names::{quietly, unique};
use std::path::PathBuf;

/// A network namespace with one interface; it ends with it.
#[derive(Debug)]
pub struct PodNet {
    name: String,
}

impl PodNet {
    /// With this address and prefix length on its only interface, which leads nowhere.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn with_address(address: &str) -> anyhow::Result<Self> {
        let net = Self { name: unique() };
        output_of(command(["ip", "netns", "add", &net.name]))?;
        net.ip(&["link", "set", "lo", "up"])?;
        // Small kernels have no dummy interfaces.
        net.ip(&["link", "add", "eth0", "type", "bridge"])?;
        net.ip(&["link", "set", "eth0", "up"])?;
        net.ip(&["address", "add", address, "dev", "eth0"])?;
        Ok(net)
    }

    /// Two that are linked, with an address and prefix length each.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn pair(one: &str, other: &str) -> anyhow::Result<[Self; 2]> {
        let nets = [Self { name: unique() }, Self { name: unique() }];
        for net in &nets {
            output_of(command(["ip", "netns", "add", &net.name]))?;
            net.ip(&["link", "set", "lo", "up"])?;
        }
        let [a, b] = &nets;
        let link = ["link", "add", "eth0", "type", "veth", "peer", "name"];
        let peer = ["eth0", "netns", &b.name];
        a.ip(&[&link[..], &peer[..]].concat())?;
        for (net, address) in [(a, one), (b, other)] {
            net.ip(&["address", "add", address, "dev", "eth0"])?;
            net.ip(&["link", "set", "eth0", "up"])?;
        }
        Ok(nets)
    }

    /// Links two running containers that have no network, with an address and prefix
    /// length each.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn link(ends: [(&Container, &str); 2]) -> anyhow::Result<()> {
        let [(one, _), (other, _)] = ends;
        let [one, other] = [one.pid().to_string(), other.pid().to_string()];
        let mut add = command(["ip", "link", "add", "eth0", "netns", &one, "type", "veth"]);
        add.args(["peer", "name", "eth0", "netns", &other]);
        output_of(add)?;
        for (container, address) in ends {
            let ip = |words: &[&str]| output_of(container.in_its_network(words));
            ip(&["ip", "address", "add", address, "dev", "eth0"])?;
            ip(&["ip", "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    /// Runs `ip WORDS` in it.
    ///
    /// # Errors
    /// It failed.
    pub fn ip(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut ip = command(["ip", "-n", &self.name]);
        ip.args(words);
        output_of(ip)
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }
}

impl Drop for PodNet {
    fn drop(&mut self) {
        quietly(command(["ip", "netns", "delete", &self.name]));
    }
}
