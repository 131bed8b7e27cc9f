//! Virtual addresses, their GIDs, and networks.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};
use serde::{Serialize, Serializer};

/// An endpoint's virtual IP address in canonical form.
///
/// An IPv4-mapped IPv6 address is the IPv4 address: both are one GID on the wire
/// (RoCEv2 writes IPv4 as `::ffff:a.b.c.d`), so both are one address here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualAddress(IpAddr);

impl VirtualAddress {
    /// The canonical form of `address`.
    pub fn new(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    /// The address as an [`IpAddr`], never IPv4-mapped.
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// The vGID: the IPv6 address, or the IPv4-mapped one.
    #[doc(alias = "ibv_gid")]
    pub fn gid(self) -> [u8; 16] {
        match self.0 {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        }
    }

    /// The address that a vGID stands for.
    pub fn from_gid(gid: [u8; 16]) -> Self {
        Self::new(IpAddr::V6(Ipv6Addr::from(gid)))
    }

    /// Why the address cannot be an endpoint's, if it cannot.
    pub(crate) fn unfit_for_endpoint(self) -> Option<&'static str> {
        match self.0 {
            ip if ip.is_unspecified() => Some("the unspecified address"),
            ip if ip.is_multicast() => Some("a multicast group"),
            ip if ip.is_loopback() => Some("a loopback address"),
            IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
            _ => None,
        }
    }
}

impl From<IpAddr> for VirtualAddress {
    fn from(address: IpAddr) -> Self {
        Self::new(address)
    }
}

impl fmt::Display for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for VirtualAddress {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A network in CIDR notation, host bits zero, in canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr(IpNet);

/// Why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CidrError {
    /// Neither ADDRESS nor ADDRESS/PREFIX.
    Syntax,
    /// Bits beyond the prefix are set; the network that was probably meant.
    HostBits(IpNet),
}

impl Cidr {
    /// Whether the network holds `address`. An IPv6 network never holds an IPv4 address.
    pub fn contains(&self, address: VirtualAddress) -> bool {
        self.0.contains(&address.ip())
    }

    /// The network of one address.
    pub(crate) fn host(address: VirtualAddress) -> Self {
        Self(IpNet::from(address.ip()))
    }

    /// The first and the last address.
    pub(crate) fn bounds(&self) -> (VirtualAddress, VirtualAddress) {
        (
            VirtualAddress(self.0.network()),
            VirtualAddress(self.0.broadcast()),
        )
    }

    pub(crate) fn parse(text: &str) -> Result<Self, CidrError> {
        let net = IpNet::from_str(text).map_err(|_| CidrError::Syntax)?;
        if net.trunc() != net {
            return Err(CidrError::HostBits(net.trunc()));
        }
        // ::ffff:10.0.0.0/104 is 10.0.0.0/8 in the other spelling.
        if let IpNet::V6(v6) = net
            && let Some(v4) = v6.network().to_ipv4_mapped()
            && let Some(prefix) = v6.prefix_len().checked_sub(96)
            && let Ok(v4) = Ipv4Net::new(v4, prefix)
        {
            return Ok(Self(IpNet::V4(v4)));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> VirtualAddress {
        VirtualAddress::new(text.parse().unwrap())
    }

    #[test]
    fn ipv4_and_its_mapped_form_are_one_address_and_one_gid() {
        assert_eq!(address("10.0.0.1"), address("::ffff:10.0.0.1"));
        let gid = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
        assert_eq!(address("10.0.0.1").gid(), gid);
        assert_eq!(VirtualAddress::from_gid(gid), address("10.0.0.1"));
    }

    #[test]
    fn cidr_refuses_host_bits_and_reads_mapped_networks() {
        assert!(matches!(
            Cidr::parse("10.0.0.1/8"),
            Err(CidrError::HostBits(net)) if net.to_string() == "10.0.0.0/8"
        ));
        assert_eq!(Cidr::parse("10.0.0.0/33"), Err(CidrError::Syntax));
        let mapped = Cidr::parse("::ffff:10.0.0.0/104").unwrap();
        assert!(mapped.contains(address("10.9.9.9")));
        assert!(!Cidr::parse("::/0").unwrap().contains(address("10.0.0.1")));
    }
}
