//! A bridge in a namespace of its own, which joins guests and hosts.

use crate::namespace::Namespace;
use ipnet::IpNet;
use std::sync::atomic::{AtomicU32, Ordering};

/// The bridge. Guests have a tap at it and run beside it; a host is a namespace with one
/// end of a veth.
#[derive(Debug)]
pub struct Wire {
    namespace: Namespace,
    mtu: u32,
    next: AtomicU32,
}

impl Wire {
    /// A wire that carries packets of `mtu` bytes.
    ///
    /// # Errors
    /// Not root, or the kernel has no bridges.
    pub fn new(mtu: u32) -> anyhow::Result<Self> {
        let namespace = Namespace::new()?;
        namespace.shell(&format!(
            "ip link add br0 type bridge forward_delay 0 mcast_snooping 0
             ip link set br0 mtu {mtu} up"
        ))?;
        Ok(Self {
            namespace,
            mtu,
            next: AtomicU32::new(1),
        })
    }

    /// Bytes of a packet that an interface here carries.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Where the bridge and the guests are: the place to capture packets, or to lose some.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The name of a new tap at the bridge.
    ///
    /// # Errors
    /// There is no /dev/net/tun.
    pub fn tap(&self) -> anyhow::Result<String> {
        let name = format!("tap{}", self.number());
        self.namespace.shell(&format!(
            "ip tuntap add dev {name} mode tap
             ip link set {name} mtu {} master br0 up",
            self.mtu
        ))?;
        Ok(name)
    }

    /// A new namespace whose interface `eth0` is at the bridge and has these addresses.
    ///
    /// # Errors
    /// The kernel has no veth.
    pub fn host(&self, addresses: &[IpNet]) -> anyhow::Result<Namespace> {
        let host = Namespace::new()?;
        let name = format!("veth{}", self.number());
        self.namespace.shell(&format!(
            "ip link add {name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {pid}
             ip link set {name} master br0 up",
            mtu = self.mtu,
            pid = host.pid(),
        ))?;
        host.shell(&addresses_of("eth0", addresses))?;
        Ok(host)
    }

    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// The script that brings an interface up with these addresses, usable at once.
pub fn addresses_of(interface: &str, addresses: &[IpNet]) -> String {
    let mut script = format!("ip link set {interface} up\n");
    for address in addresses {
        let at_once = if address.addr().is_ipv6() {
            " nodad"
        } else {
            ""
        };
        script += &format!("ip address add {address} dev {interface}{at_once}\n");
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_does_not_wait_for_neighbours_to_object() {
        let addresses = ["10.0.0.1/24", "fd00::1/64"].map(|a| a.parse().unwrap());
        assert_eq!(
            addresses_of("e0", &addresses),
            "ip link set e0 up\nip address add 10.0.0.1/24 dev e0\n\
             ip address add fd00::1/64 dev e0 nodad\n"
        );
    }
}
