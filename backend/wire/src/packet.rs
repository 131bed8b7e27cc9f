//! From bytes to a packet: what a UDP socket or a raw port received.

use zerocopy::FromBytes;

use crate::ip::{Ipv4Bytes, Ipv6Bytes};
use crate::{
    AethBytes, AtomicAckEthBytes, AtomicEthBytes, BthBytes, DethBytes, Extended, Flow, GRH_LEN,
    Headers, ICRC_LEN, Icrc, IcrcCheck, IethBytes, ImmDtBytes, Ip, Layout, LengthError, Mtu,
    Opcode, ParseError, Position, ROCE_PORT, RethBytes, Traits, UDP_LEN, UdpBytes, solve_ip_id,
    ud_prefix,
};

/// The longest UDP payload, over IPv6.
const MAX_UDP_PAYLOAD: usize = u16::MAX as usize - UDP_LEN;

/// A RoCEv2 packet in the payload of a UDP datagram: whole, its headers as the
/// opcode demands. Nothing is said of its ICRC, nor of what a transport checks.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    opcode: Opcode,
    traits: Traits,
    bth: &'a BthBytes,
    extended: &'a [u8],
    payload: &'a [u8],
    icrc: [u8; ICRC_LEN],
}

impl<'a> Packet<'a> {
    /// Reads a UDP payload.
    ///
    /// # Errors
    ///
    /// Such a packet is to be dropped without an answer (IBA 9.6).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_UDP_PAYLOAD {
            return Err(ParseError::TooLong);
        }
        let (bth, rest) = BthBytes::ref_from_prefix(bytes).map_err(|_| ParseError::Truncated)?;
        if bth.tver() != 0 {
            return Err(ParseError::Version(bth.tver()));
        }
        let opcode = bth.opcode().ok_or(ParseError::Opcode(bth.code()))?;
        let traits = opcode.traits();
        let (body, icrc) = rest.split_last_chunk().ok_or(ParseError::Truncated)?;
        let (extended, padded) = body
            .split_at_checked(traits.layout.len())
            .ok_or(ParseError::Truncated)?;
        if !padded.len().is_multiple_of(4) {
            return Err(ParseError::Misaligned);
        }
        if !traits.payload && !padded.is_empty() {
            return Err(ParseError::Payload(padded.len()));
        }
        let payload = padded
            .len()
            .checked_sub(usize::from(bth.pad()))
            .and_then(|len| padded.get(..len))
            .ok_or(ParseError::Pad {
                pad: bth.pad(),
                len: padded.len(),
            })?;
        Ok(Self {
            bytes,
            opcode,
            traits,
            bth,
            extended,
            payload,
            icrc: *icrc,
        })
    }

    /// What it is.
    pub const fn opcode(&self) -> Opcode {
        self.opcode
    }

    /// What follows from the opcode.
    pub const fn traits(&self) -> &Traits {
        &self.traits
    }

    /// The base transport header.
    pub const fn bth(&self) -> &'a BthBytes {
        self.bth
    }

    /// What it carries, without the padding.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The ICRC that it bears.
    pub const fn icrc(&self) -> [u8; ICRC_LEN] {
        self.icrc
    }

    /// The whole of it: what UDP carried.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The RETH, if its opcode has one.
    pub fn reth(&self) -> Option<&'a RethBytes> {
        match self.traits.layout {
            Layout::Reth | Layout::RethImm => self.at(0),
            _ => None,
        }
    }

    /// The AETH, if its opcode has one.
    pub fn aeth(&self) -> Option<&'a AethBytes> {
        match self.traits.layout {
            Layout::Aeth | Layout::AtomicAck => self.at(0),
            _ => None,
        }
    }

    /// The AtomicAckETH, if its opcode has one.
    pub fn atomic_ack(&self) -> Option<&'a AtomicAckEthBytes> {
        match self.traits.layout {
            Layout::AtomicAck => self.at(4),
            _ => None,
        }
    }

    /// The AtomicETH, if its opcode has one.
    pub fn atomic(&self) -> Option<&'a AtomicEthBytes> {
        match self.traits.layout {
            Layout::Atomic => self.at(0),
            _ => None,
        }
    }

    /// The DETH, if its opcode has one.
    pub fn deth(&self) -> Option<&'a DethBytes> {
        match self.traits.layout {
            Layout::Deth | Layout::DethImm => self.at(0),
            _ => None,
        }
    }

    /// The immediate data, if its opcode has any.
    pub fn imm(&self) -> Option<&'a ImmDtBytes> {
        match self.traits.layout {
            Layout::Imm => self.at(0),
            Layout::RethImm => self.at(16),
            Layout::DethImm => self.at(8),
            _ => None,
        }
    }

    /// The IETH, if its opcode has one.
    pub fn ieth(&self) -> Option<&'a IethBytes> {
        match self.traits.layout {
            Layout::Inv => self.at(0),
            _ => None,
        }
    }

    /// All headers as plain structs.
    pub fn headers(&self) -> Headers {
        Headers {
            // Parsed, so that the opcode is known and the bytes are there.
            bth: self.bth.to_bth().unwrap_or(crate::Bth::new(
                self.opcode,
                self.bth.dest_qpn(),
                self.bth.psn(),
            )),
            extended: Extended::read(self.traits.layout, self.extended).unwrap_or(Extended::Plain),
        }
    }

    /// Whether the payload's length suits the packet's place in its message
    /// (IBA 9.7.4.1.6 for reliable, 9.8.2 for unreliable connections).
    ///
    /// # Errors
    ///
    /// A reliable responder answers it with a NAK, invalid request.
    pub fn check_length(&self, mtu: Mtu) -> Result<(), LengthError> {
        let len = self.payload.len();
        match self.traits.position {
            Position::First | Position::Middle if len != mtu.bytes() => {
                Err(LengthError::NotFull(len))
            }
            _ if len > mtu.bytes() => Err(LengthError::OverMtu(len)),
            Position::Last if len == 0 => Err(LengthError::Empty),
            _ => Ok(()),
        }
    }

    /// Checks the ICRC of what a UDP socket received. It takes the IPv4 packet
    /// for one that routers may not fragment, as RoCEv2 demands.
    pub fn check_icrc(&self, flow: &Flow) -> IcrcCheck {
        // No more than MAX_UDP_PAYLOAD.
        let len = self.bytes.len() as u16;
        let right = self.rest_of_icrc(Icrc::new(flow, 0, self.bth, len));
        if right == self.icrc {
            return IcrcCheck::Right;
        }
        if let crate::Addresses::V6 { .. } = flow.addresses {
            return IcrcCheck::Wrong;
        }
        match solve_ip_id(self.icrc, right, self.bytes.len() - ICRC_LEN) {
            Some(id) => IcrcCheck::RightWithId(id),
            None => IcrcCheck::Wrong,
        }
    }

    fn rest_of_icrc(&self, mut icrc: Icrc) -> [u8; ICRC_LEN] {
        let covered = self.bytes.len().saturating_sub(ICRC_LEN);
        let after_bth = self.bytes.get(size_of::<BthBytes>()..covered);
        icrc.update(after_bth.unwrap_or(&[]));
        icrc.finish()
    }

    fn at<T>(&self, offset: usize) -> Option<&'a T>
    where
        T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
    {
        let (header, _) = T::ref_from_prefix(self.extended.get(offset..)?).ok()?;
        Some(header)
    }
}

/// An IP header in a packet.
#[derive(Clone, Copy, Debug)]
enum IpView<'a> {
    V4(&'a Ipv4Bytes),
    V6(&'a Ipv6Bytes),
}

/// A RoCEv2 packet with its IP and UDP headers, as a raw port sees it.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    ip: IpView<'a>,
    udp: &'a UdpBytes,
    packet: Packet<'a>,
}

impl<'a> Datagram<'a> {
    /// Reads a packet that begins with its IP header. What follows the length
    /// in that header, as in short Ethernet frames, is left out.
    ///
    /// # Errors
    ///
    /// What is no RoCEv2 packet; [`ParseError::NotUdp`] and
    /// [`ParseError::NotRoce`] say that it is somebody else's.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let version = bytes.first().ok_or(ParseError::Truncated)? >> 4;
        let (ip, rest) = match version {
            4 => Ipv4Bytes::parse(bytes).map(|(ip, rest)| (IpView::V4(ip), rest))?,
            6 => Ipv6Bytes::parse(bytes).map(|(ip, rest)| (IpView::V6(ip), rest))?,
            other => return Err(ParseError::IpVersion(other)),
        };
        let (udp, payload) = UdpBytes::ref_from_prefix(rest).map_err(|_| ParseError::Truncated)?;
        if udp.dst_port() != ROCE_PORT {
            return Err(ParseError::NotRoce(udp.dst_port()));
        }
        if usize::from(udp.udp_len()) != rest.len() {
            return Err(ParseError::UdpLength);
        }
        let packet = Packet::parse(payload)?;
        Ok(Self { ip, udp, packet })
    }

    /// What UDP carries.
    pub const fn packet(&self) -> &Packet<'a> {
        &self.packet
    }

    /// The UDP header.
    pub const fn udp(&self) -> &'a UdpBytes {
        self.udp
    }

    /// The IP header as a plain struct.
    pub fn ip(&self) -> Ip {
        match self.ip {
            IpView::V4(ip) => Ip::V4(ip.to_ipv4()),
            IpView::V6(ip) => Ip::V6(ip.to_ipv6()),
        }
    }

    /// Who sent it to whom.
    pub fn flow(&self) -> Flow {
        Flow {
            addresses: self.ip().addresses(),
            src_port: self.udp.src_port(),
        }
    }

    /// Whether the ICRC is right; nothing is unknown here.
    pub fn icrc_is_right(&self) -> bool {
        let bth = self.packet.bth;
        let icrc = match self.ip {
            IpView::V4(ip) => Icrc::of_v4(ip, self.udp, bth),
            IpView::V6(ip) => Icrc::of_v6(ip, self.udp, bth),
        };
        self.packet.rest_of_icrc(icrc) == self.packet.icrc
    }

    /// The 40 bytes that precede a datagram in its receive buffer.
    pub fn ud_prefix(&self) -> [u8; GRH_LEN] {
        ud_prefix(&self.ip(), self.udp.udp_len())
    }
}
