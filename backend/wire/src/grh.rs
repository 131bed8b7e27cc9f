//! Global route header (IBA 8.3), and the 40 bytes in front of a received
//! datagram.

use zerocopy::byteorder::{BE, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Ip, TrafficClass};

/// Bytes of a GRH, and of what precedes a datagram in its receive buffer.
pub const GRH_LEN: usize = 40;

/// The fields of a GRH; its version is 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grh {
    /// Traffic class.
    pub class: TrafficClass,
    /// Flow label; the low 20 bits count.
    pub flow_label: u32,
    /// Bytes that follow.
    pub payload_len: u16,
    /// 0x1b for InfiniBand's transport, 17 for UDP.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// The sender's GID.
    pub sgid: [u8; 16],
    /// The receiver's GID.
    pub dgid: [u8; 16],
}

/// A GRH in memory.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct GrhBytes {
    version_class_label: U32<BE>,
    payload_len: U16<BE>,
    next_header: u8,
    hop_limit: u8,
    sgid: [u8; 16],
    dgid: [u8; 16],
}

impl From<Grh> for GrhBytes {
    fn from(grh: Grh) -> Self {
        let first = 6 << 28 | u32::from(grh.class.0) << 20 | grh.flow_label & 0xf_ffff;
        Self {
            version_class_label: first.into(),
            payload_len: grh.payload_len.into(),
            next_header: grh.next_header,
            hop_limit: grh.hop_limit,
            sgid: grh.sgid,
            dgid: grh.dgid,
        }
    }
}

impl GrhBytes {
    /// The IP version: 6, or else it is no GRH.
    pub fn version(&self) -> u8 {
        (self.version_class_label.get() >> 28) as u8
    }

    /// The fields; none if the version is not 6.
    pub fn to_grh(&self) -> Option<Grh> {
        let first = self.version_class_label.get();
        (self.version() == 6).then_some(Grh {
            class: TrafficClass((first >> 20) as u8),
            flow_label: first & 0xf_ffff,
            payload_len: self.payload_len.get(),
            next_header: self.next_header,
            hop_limit: self.hop_limit,
            sgid: self.sgid,
            dgid: self.dgid,
        })
    }
}

/// What a receiver finds in front of a datagram (A17): the IPv6 header, or 20
/// bytes without meaning (zeros here) and the IPv4 header. `udp_len` counts the
/// UDP header and what it carries.
pub fn ud_prefix(ip: &Ip, udp_len: u16) -> [u8; GRH_LEN] {
    let mut prefix = [0; GRH_LEN];
    let written = match ip {
        Ip::V4(ip) => ip.to_bytes(udp_len).write_to_suffix(&mut prefix).is_ok(),
        Ip::V6(ip) => ip.to_bytes(udp_len).write_to_prefix(&mut prefix).is_ok(),
    };
    debug_assert!(written, "both headers fit 40 bytes");
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ipv4, Ipv4Bytes, Ipv6};

    #[test]
    fn a_v4_header_stands_in_the_last_twenty_bytes() {
        let ip = Ipv4 {
            class: TrafficClass(106),
            id: 7,
            dont_fragment: true,
            ttl: 64,
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
        };
        let prefix = ud_prefix(&Ip::V4(ip), 100);
        assert_eq!(prefix[..20], [0; 20]);
        let packet = [&prefix[20..], &[0; 100][..]].concat();
        let (header, rest) = Ipv4Bytes::parse(&packet).unwrap();
        assert_eq!((header.to_ipv4(), rest.len()), (ip, 100));
    }

    #[test]
    fn a_v6_header_is_a_grh_whose_next_header_is_udp() {
        let ip = Ipv6 {
            class: TrafficClass(3),
            flow_label: 0xa_bcde,
            hop_limit: 9,
            src: "fd01::1".parse().unwrap(),
            dst: "fd01::2".parse().unwrap(),
        };
        let prefix = ud_prefix(&Ip::V6(ip), 100);
        let grh = GrhBytes::read_from_bytes(&prefix).unwrap();
        let plain = Grh {
            class: TrafficClass(3),
            flow_label: 0xa_bcde,
            payload_len: 100,
            next_header: 17,
            hop_limit: 9,
            sgid: ip.src.octets(),
            dgid: ip.dst.octets(),
        };
        assert_eq!(grh.to_grh(), Some(plain));
        assert_eq!(GrhBytes::from(plain), grh);
    }
}
