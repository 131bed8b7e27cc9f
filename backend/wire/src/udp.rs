//! The UDP header.

use zerocopy::byteorder::{BE, U16};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The destination port of RoCEv2 (A17).
pub const ROCE_PORT: u16 = 4791;

/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;

/// The header's fields, but the length, which follows from the payload. The
/// checksum is written as 0, none, which A17 allows with IPv4 and IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

impl Udp {
    /// The header's bytes in front of `payload` bytes.
    pub fn to_bytes(&self, payload: u16) -> UdpBytes {
        UdpBytes {
            src_port: self.src_port.into(),
            dst_port: self.dst_port.into(),
            len: payload.saturating_add(UDP_LEN as u16).into(),
            checksum: 0.into(),
        }
    }
}

/// The header as it lies in a packet.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct UdpBytes {
    src_port: U16<BE>,
    dst_port: U16<BE>,
    len: U16<BE>,
    checksum: U16<BE>,
}

impl UdpBytes {
    /// Source port.
    pub fn src_port(&self) -> u16 {
        self.src_port.get()
    }

    /// Destination port.
    pub fn dst_port(&self) -> u16 {
        self.dst_port.get()
    }

    /// Length of header and payload.
    pub fn udp_len(&self) -> u16 {
        self.len.get()
    }

    /// Checksum, 0 for none. It is not verified here: the ICRC says more.
    pub fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// As the invariant CRC sees it.
    pub(crate) fn masked(&self) -> Self {
        Self {
            checksum: 0xffff.into(),
            ..*self
        }
    }
}
