//! IPv4 (RFC 791), 20 bytes.

use core::net::Ipv4Addr;

use zerocopy::byteorder::{BE, U16};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{PROTOCOL_UDP, TrafficClass};
use crate::ParseError;

const VERSION_IHL: u8 = 0x45;
const DONT_FRAGMENT: u16 = 0x4000;

/// The header's fields; lengths, checksum and protocol (UDP) follow from what
/// it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// DSCP and ECN.
    pub class: TrafficClass,
    /// Identification. The ICRC covers it.
    pub id: u16,
    /// Routers may not fragment; A17 has senders set it.
    pub dont_fragment: bool,
    /// Time to live.
    pub ttl: u8,
    /// The sender.
    pub src: Ipv4Addr,
    /// The receiver.
    pub dst: Ipv4Addr,
}

impl Ipv4 {
    /// Bytes of the header.
    pub const LEN: usize = 20;

    /// The header's bytes in front of `payload` bytes.
    pub fn to_bytes(&self, payload: u16) -> Ipv4Bytes {
        let mut bytes = Ipv4Bytes {
            version_ihl: VERSION_IHL,
            tos: self.class.0,
            total_len: payload.saturating_add(Self::LEN as u16).into(),
            id: self.id.into(),
            fragment: if self.dont_fragment { DONT_FRAGMENT } else { 0 }.into(),
            ttl: self.ttl,
            protocol: PROTOCOL_UDP,
            checksum: 0.into(),
            src: self.src.octets(),
            dst: self.dst.octets(),
        };
        bytes.checksum = (!bytes.sum()).into();
        bytes
    }
}

/// The header as it lies in a packet.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Ipv4Bytes {
    version_ihl: u8,
    tos: u8,
    total_len: U16<BE>,
    id: U16<BE>,
    fragment: U16<BE>,
    ttl: u8,
    protocol: u8,
    checksum: U16<BE>,
    src: [u8; 4],
    dst: [u8; 4],
}

impl Ipv4Bytes {
    /// Splits a packet; what lies behind its total length (an Ethernet frame's
    /// padding) is left out.
    ///
    /// # Errors
    ///
    /// What RoCEv2 excludes, or a header that is not consistent in itself.
    pub fn parse(packet: &[u8]) -> Result<(&Self, &[u8]), ParseError> {
        let (header, rest) = Self::ref_from_prefix(packet).map_err(|_| ParseError::Truncated)?;
        if header.version_ihl >> 4 != 4 {
            return Err(ParseError::IpVersion(header.version_ihl >> 4));
        }
        if header.version_ihl != VERSION_IHL {
            return Err(ParseError::IpOptions);
        }
        if header.sum() != 0xffff {
            return Err(ParseError::IpChecksum);
        }
        if header.fragment.get() & !DONT_FRAGMENT != 0 {
            return Err(ParseError::Fragment);
        }
        if header.protocol != PROTOCOL_UDP {
            return Err(ParseError::NotUdp(header.protocol));
        }
        let payload = usize::from(header.total_len.get())
            .checked_sub(Ipv4::LEN)
            .and_then(|len| rest.get(..len))
            .ok_or(ParseError::IpLength)?;
        Ok((header, payload))
    }

    /// DSCP and ECN.
    pub const fn class(&self) -> TrafficClass {
        TrafficClass(self.tos)
    }

    /// Identification.
    pub fn id(&self) -> u16 {
        self.id.get()
    }

    /// The sender.
    pub fn src(&self) -> Ipv4Addr {
        self.src.into()
    }

    /// The receiver.
    pub fn dst(&self) -> Ipv4Addr {
        self.dst.into()
    }

    /// The fields as a plain struct.
    pub fn to_ipv4(&self) -> Ipv4 {
        Ipv4 {
            class: self.class(),
            id: self.id(),
            dont_fragment: self.fragment.get() & DONT_FRAGMENT != 0,
            ttl: self.ttl,
            src: self.src(),
            dst: self.dst(),
        }
    }

    /// As the invariant CRC sees it (A17).
    pub(crate) fn masked(&self) -> Self {
        Self {
            tos: 0xff,
            ttl: 0xff,
            checksum: 0xffff.into(),
            ..*self
        }
    }

    /// The masked header of a UDP socket's packet, which routers may not
    /// fragment: made without a checksum.
    pub(crate) fn for_icrc(src: Ipv4Addr, dst: Ipv4Addr, id: u16, payload: u16) -> Self {
        Self {
            version_ihl: VERSION_IHL,
            tos: 0xff,
            total_len: payload.saturating_add(Ipv4::LEN as u16).into(),
            id: id.into(),
            fragment: DONT_FRAGMENT.into(),
            ttl: 0xff,
            protocol: PROTOCOL_UDP,
            checksum: 0xffff.into(),
            src: src.octets(),
            dst: dst.octets(),
        }
    }

    /// The ones' complement sum of the header (RFC 1071).
    fn sum(&self) -> u16 {
        let bytes: &[u8] = self.as_bytes();
        let (pairs, _) = bytes.as_chunks::<2>();
        let sum: u32 = pairs
            .iter()
            .map(|pair| u32::from(u16::from_be_bytes(*pair)))
            .sum();
        // Ten words: one carry can come of the first fold, none of the second.
        let folded = (sum & 0xffff) + (sum >> 16);
        (folded + (folded >> 16)) as u16
    }
}
