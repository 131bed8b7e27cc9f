//! Network namespaces made by hand: for containers whose addresses a test chooses, also
//! two with the same address.

use crate::command::{command, output_of};
use crate::container::Container;
use crate::names::{quietly, unique};
use masq_e2e::Namespace;
use std::net::Ipv4Addr;
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

    /// Behind a host, which forwards its packets: with this address, of the `/24` whose first
    /// address the host has.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn behind(host: &Namespace, address: Ipv4Addr) -> anyhow::Result<Self> {
        let net = Self { name: unique() };
        output_of(command(["ip", "netns", "add", &net.name]))?;
        net.ip(&["link", "set", "lo", "up"])?;
        let [a, b, c, last] = address.octets();
        let (near, pid) = (format!("pod{last}"), host.pid().to_string());
        let link = ["link", "add", "eth0", "type", "veth", "peer", "name"];
        net.ip(&[&link[..], &[&near, "netns", &pid]].concat())?;
        net.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        net.ip(&["link", "set", "eth0", "up"])?;
        host.shell(&format!(
            "ip address add {a}.{b}.{c}.1/24 dev {near}
             ip link set {near} up
             echo 1 > /proc/sys/net/ipv4/ip_forward"
        ))?;
        let gateway = format!("{a}.{b}.{c}.1");
        net.ip(&["route", "add", "default", "via", &gateway])?;
        Ok(net)
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
