//! What can be wrong with a packet.

/// Why bytes are not a RoCEv2 packet. Such a packet is dropped without an
/// answer (IBA 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It ends inside a header or before its ICRC.
    #[error("the packet is truncated")]
    Truncated,
    /// More than a UDP datagram holds.
    #[error("the packet is longer than a datagram can be")]
    TooLong,
    /// The transport header version is not 0.
    #[error("transport header version {0}")]
    Version(u8),
    /// An opcode that is reserved, or of RD or XRC.
    #[error("unknown opcode {0:#04x}")]
    Opcode(u8),
    /// Its length is not a multiple of four.
    #[error("the length is not a multiple of four")]
    Misaligned,
    /// The pad count exceeds what follows the headers.
    #[error("pad count {pad} with {len} bytes after the headers")]
    Pad {
        /// The pad count.
        pad: u8,
        /// Bytes of payload and padding.
        len: usize,
    },
    /// Something follows the headers of an opcode that has no payload.
    #[error("{0} bytes of payload where none belongs")]
    Payload(usize),
    /// Neither IPv4 nor IPv6.
    #[error("IP version {0}")]
    IpVersion(u8),
    /// The IPv4 header has options, which RoCEv2 excludes.
    #[error("the IPv4 header has options")]
    IpOptions,
    /// A fragment, or the reserved flag of IPv4 is set.
    #[error("the packet is a fragment")]
    Fragment,
    /// The checksum of the IPv4 header is wrong.
    #[error("the IPv4 header's checksum is wrong")]
    IpChecksum,
    /// The IP header's length and what is there do not agree.
    #[error("the IP length is wrong")]
    IpLength,
    /// Another protocol, or an IPv6 extension header.
    #[error("IP protocol {0} is not UDP")]
    NotUdp(u8),
    /// The UDP header's length is not that of the IP payload.
    #[error("the UDP length is wrong")]
    UdpLength,
    /// Another destination port.
    #[error("UDP port {0} is not RoCEv2's")]
    NotRoce(u16),
}

macro_rules! kinds {
    ($($kind:ident $name:literal),* $(,)?) => {
        /// A [`ParseError`] without its particulars, to count by.
        #[allow(missing_docs, reason = "see ParseError")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorKind {
            $($kind),*
        }

        impl ErrorKind {
            /// All kinds; each stands at the index that is its number.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// A name for metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name),*
                }
            }
        }
    };
}

kinds! {
    Truncated "truncated",
    TooLong "too_long",
    Version "version",
    Opcode "opcode",
    Misaligned "misaligned",
    Pad "pad",
    Payload "payload",
    IpVersion "ip_version",
    IpOptions "ip_options",
    Fragment "fragment",
    IpChecksum "ip_checksum",
    IpLength "ip_length",
    NotUdp "not_udp",
    UdpLength "udp_length",
    NotRoce "not_roce",
}

impl ParseError {
    /// What to count it as.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Truncated => ErrorKind::Truncated,
            Self::TooLong => ErrorKind::TooLong,
            Self::Version(_) => ErrorKind::Version,
            Self::Opcode(_) => ErrorKind::Opcode,
            Self::Misaligned => ErrorKind::Misaligned,
            Self::Pad { .. } => ErrorKind::Pad,
            Self::Payload(_) => ErrorKind::Payload,
            Self::IpVersion(_) => ErrorKind::IpVersion,
            Self::IpOptions => ErrorKind::IpOptions,
            Self::Fragment => ErrorKind::Fragment,
            Self::IpChecksum => ErrorKind::IpChecksum,
            Self::IpLength => ErrorKind::IpLength,
            Self::NotUdp(_) => ErrorKind::NotUdp,
            Self::UdpLength => ErrorKind::UdpLength,
            Self::NotRoce(_) => ErrorKind::NotRoce,
        }
    }
}

/// A payload whose length its place in the message forbids; a reliable
/// responder answers it with a NAK, invalid request (IBA 9.7.4.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    /// The first and the middle packets carry exactly one MTU.
    #[error("a packet in mid-message carries {0} bytes, not one MTU")]
    NotFull(usize),
    /// The last of several packets carries something.
    #[error("the last packet of several is empty")]
    Empty,
    /// More than one MTU.
    #[error("{0} bytes are more than one MTU")]
    OverMtu(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_numbered_by_their_place() {
        for (index, kind) in ErrorKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
        }
    }
}
