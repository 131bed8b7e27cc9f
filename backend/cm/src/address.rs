//! Addresses: of programs, of GIDs, and the IP header in private data (IBA
//! Annex A11).

use crate::types::PortSpace;
use masq_spec::verbs::Gid;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of the IP header.
pub(crate) const IP_HEADER: usize = 36;

/// The GID that stands for an address: itself, or the IPv4-mapped one.
pub(crate) fn gid_of(ip: IpAddr) -> Gid {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Whether it is an IPv6 link-local address.
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The unspecified address of the same family.
pub(crate) fn any_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// The service id of a port (Annex A11).
pub fn service_id(space: PortSpace, port: u16) -> u64 {
    u64::from(space.raw()) << 16 | u64::from(port)
}

/// The port of a service id, if it is one of an IP port space.
pub(crate) fn service_port(service: u64) -> Option<(PortSpace, u16)> {
    let space = PortSpace::from_raw(u16::try_from(service >> 16).ok()?)?;
    Some((space, service as u16))
}

/// The IP header at the start of the private data of REQ and SIDR_REQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpHeader {
    /// Who asks.
    pub source: SocketAddr,
    /// Of whom.
    pub destination: IpAddr,
}

impl IpHeader {
    /// The header, then `private` and zeros up to the end of `N` bytes.
    pub fn with<const N: usize>(&self, private: &[u8]) -> [u8; N] {
        let mut head = [0; IP_HEADER];
        let [_, version, port_high, port_low, addresses @ ..] = &mut head;
        [*port_high, *port_low] = self.source.port().to_be_bytes();
        *version = if self.destination.is_ipv4() {
            0x40
        } else {
            0x60
        };
        for (field, ip) in addresses
            .chunks_exact_mut(16)
            .zip([self.source.ip(), self.destination])
        {
            match ip {
                IpAddr::V4(v4) => {
                    for (to, from) in field.iter_mut().skip(12).zip(v4.octets()) {
                        *to = from;
                    }
                }
                IpAddr::V6(v6) => field.copy_from_slice(&v6.octets()),
            }
        }
        let mut out = [0; N];
        for (to, from) in out.iter_mut().zip(head.iter().chain(private)) {
            *to = *from;
        }
        out
    }

    /// The header, and the program's bytes behind it.
    pub fn split(private: &[u8]) -> Option<(Self, &[u8])> {
        let mut head = [0; IP_HEADER];
        for (to, from) in head.iter_mut().zip(private) {
            *to = *from;
        }
        let [0, version, port_high, port_low, addresses @ ..] = &head else {
            return None;
        };
        let port = u16::from_be_bytes([*port_high, *port_low]);
        let mut ips = addresses.chunks_exact(16).map(|field| {
            let field: [u8; 16] = field.try_into().ok()?;
            match version >> 4 {
                4 => {
                    let [.., a, b, c, d] = field;
                    Some(IpAddr::from([a, b, c, d]))
                }
                6 => Some(IpAddr::from(field)),
                _ => None,
            }
        });
        let (source, destination) = (ips.next()??, ips.next()??);
        if source.is_unspecified() || source.is_multicast() {
            return None;
        }
        Some((
            Self {
                source: SocketAddr::new(source, port),
                destination,
            },
            private.get(IP_HEADER..).unwrap_or_default(),
        ))
    }
}
