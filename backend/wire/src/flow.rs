//! Between whom a packet travels, as far as the ICRC and a UDP socket know it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Both hosts' addresses, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// IPv4.
    V4 {
        /// The sender.
        src: Ipv4Addr,
        /// The receiver.
        dst: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// The sender.
        src: Ipv6Addr,
        /// The receiver.
        dst: Ipv6Addr,
    },
}

impl Addresses {
    /// Pairs two addresses; none if their families differ.
    pub const fn new(src: IpAddr, dst: IpAddr) -> Option<Self> {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Some(Self::V4 { src, dst }),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Some(Self::V6 { src, dst }),
            _ => None,
        }
    }

    /// The sender.
    pub const fn src(&self) -> IpAddr {
        match *self {
            Self::V4 { src, .. } => IpAddr::V4(src),
            Self::V6 { src, .. } => IpAddr::V6(src),
        }
    }

    /// The receiver.
    pub const fn dst(&self) -> IpAddr {
        match *self {
            Self::V4 { dst, .. } => IpAddr::V4(dst),
            Self::V6 { dst, .. } => IpAddr::V6(dst),
        }
    }
}

/// The addresses and the UDP source port, which spreads connections over
/// paths (A17). The destination port is always [`ROCE_PORT`](crate::ROCE_PORT).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// From where to where.
    pub addresses: Addresses,
    /// The sender's UDP port.
    pub src_port: u16,
}
