//! The IPv4 and IPv6 headers, as far as RoCEv2 allows them (A17): no options,
//! no extension headers, no fragments.

mod class;
mod v4;
mod v6;

pub use class::{Dscp, Ecn, TrafficClass};
pub use v4::{Ipv4, Ipv4Bytes};
pub use v6::{Ipv6, Ipv6Bytes};

use crate::Addresses;

pub(crate) const PROTOCOL_UDP: u8 = 17;

/// An IP header of either version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    /// IPv4.
    V4(Ipv4),
    /// IPv6.
    V6(Ipv6),
}

impl Ip {
    /// Bytes of the header.
    pub const fn header_len(&self) -> usize {
        match self {
            Self::V4(_) => Ipv4::LEN,
            Self::V6(_) => Ipv6::LEN,
        }
    }

    /// DSCP and ECN.
    pub const fn class(&self) -> TrafficClass {
        match self {
            Self::V4(ip) => ip.class,
            Self::V6(ip) => ip.class,
        }
    }

    /// From where to where.
    pub const fn addresses(&self) -> Addresses {
        match *self {
            Self::V4(Ipv4 { src, dst, .. }) => Addresses::V4 { src, dst },
            Self::V6(Ipv6 { src, dst, .. }) => Addresses::V6 { src, dst },
        }
    }
}
