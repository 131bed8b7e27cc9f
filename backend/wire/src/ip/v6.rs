//! IPv6 (RFC 8200), 40 bytes.

use core::net::Ipv6Addr;

use zerocopy::byteorder::{BE, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{PROTOCOL_UDP, TrafficClass};
use crate::ParseError;

const FLOW_LABEL: u32 = 0xf_ffff;
const VERSION: u32 = 6 << 28;

/// The header's fields; the length and the next header (UDP) follow from what
/// it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// DSCP and ECN.
    pub class: TrafficClass,
    /// Flow label; the low 20 bits count.
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// The sender.
    pub src: Ipv6Addr,
    /// The receiver.
    pub dst: Ipv6Addr,
}

impl Ipv6 {
    /// Bytes of the header.
    pub const LEN: usize = 40;

    /// The header's bytes in front of `payload` bytes.
    pub fn to_bytes(&self, payload: u16) -> Ipv6Bytes {
        let first = VERSION | u32::from(self.class.0) << 20 | self.flow_label & FLOW_LABEL;
        Ipv6Bytes {
            version_class_label: first.into(),
            payload_len: payload.into(),
            next_header: PROTOCOL_UDP,
            hop_limit: self.hop_limit,
            src: self.src.octets(),
            dst: self.dst.octets(),
        }
    }
}

/// The header as it lies in a packet.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Ipv6Bytes {
    version_class_label: U32<BE>,
    payload_len: U16<BE>,
    next_header: u8,
    hop_limit: u8,
    src: [u8; 16],
    dst: [u8; 16],
}

impl Ipv6Bytes {
    /// Splits a packet; what lies behind its payload length is left out.
    ///
    /// # Errors
    ///
    /// Another version, another protocol (extension headers among them), or
    /// fewer bytes than it says.
    pub fn parse(packet: &[u8]) -> Result<(&Self, &[u8]), ParseError> {
        let (header, rest) = Self::ref_from_prefix(packet).map_err(|_| ParseError::Truncated)?;
        let version = header.version_class_label.get() >> 28;
        if version != 6 {
            return Err(ParseError::IpVersion(version as u8));
        }
        if header.next_header != PROTOCOL_UDP {
            return Err(ParseError::NotUdp(header.next_header));
        }
        let payload = rest
            .get(..usize::from(header.payload_len.get()))
            .ok_or(ParseError::IpLength)?;
        Ok((header, payload))
    }

    /// DSCP and ECN.
    pub fn class(&self) -> TrafficClass {
        TrafficClass((self.version_class_label.get() >> 20) as u8)
    }

    /// The sender.
    pub fn src(&self) -> Ipv6Addr {
        self.src.into()
    }

    /// The receiver.
    pub fn dst(&self) -> Ipv6Addr {
        self.dst.into()
    }

    /// The fields as a plain struct.
    pub fn to_ipv6(&self) -> Ipv6 {
        Ipv6 {
            class: self.class(),
            flow_label: self.version_class_label.get() & FLOW_LABEL,
            hop_limit: self.hop_limit,
            src: self.src(),
            dst: self.dst(),
        }
    }

    /// As the invariant CRC sees it (IBA 7.8.1, A17).
    pub(crate) fn masked(&self) -> Self {
        Self {
            version_class_label: (self.version_class_label.get() | !(0xf << 28)).into(),
            hop_limit: 0xff,
            ..*self
        }
    }

    /// The masked header of a UDP socket's packet.
    pub(crate) fn for_icrc(src: Ipv6Addr, dst: Ipv6Addr, payload: u16) -> Self {
        Self {
            version_class_label: (VERSION | !(0xf << 28)).into(),
            payload_len: payload.into(),
            next_header: PROTOCOL_UDP,
            hop_limit: 0xff,
            src: src.octets(),
            dst: dst.octets(),
        }
    }
}
