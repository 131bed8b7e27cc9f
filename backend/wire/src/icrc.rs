//! The invariant CRC (IBA 7.8.1, A17): Ethernet's CRC-32 over everything
//! between the frame and itself, with ones in place of what routers may change.
//!
//! | Masked | |
//! |---|---|
//! | LRH | RoCE has none: eight bytes of ones |
//! | IPv4 | type of service, time to live, header checksum |
//! | IPv6 | traffic class, flow label, hop limit |
//! | UDP | checksum |
//! | BTH | `resv8a`, the byte before the destination QP |
//!
//! It is stored with its low byte first, unlike every other field.

use crc32fast::Hasher;
use zerocopy::{Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ip::{Ipv4Bytes, Ipv6Bytes};
use crate::udp::{ROCE_PORT, UDP_LEN, Udp, UdpBytes};
use crate::{Addresses, BthBytes, Flow, HeaderBytes};

/// Bytes of an ICRC.
pub const ICRC_LEN: usize = 4;

/// CRC of the masked LRH.
const SEED: u32 = {
    let mut crc = !0u32;
    let mut bytes = 0;
    while bytes < 8 {
        crc ^= 0xff;
        let mut bits = 0;
        while bits < 8 {
            crc = crate::ip_id::times_x(crc);
            bits += 1;
        }
        bytes += 1;
    }
    !crc
};

/// What the ICRC covers in front of the extended headers, in one piece.
#[derive(IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Front<Ip> {
    ip: Ip,
    udp: UdpBytes,
    bth: BthBytes,
}

/// Whether a packet's ICRC is right, for a receiver that does not see the IPv4
/// identification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcrcCheck {
    /// It is that of identification 0, or of IPv6: all 32 bits agree.
    Right,
    /// It is that of this other identification. A damaged packet passes with
    /// a chance of 2^-16, since 16 of the 32 bits were free.
    RightWithId(u16),
    /// No identification makes it right.
    Wrong,
}

/// An ICRC in the making: everything after the BTH is fed to it in order.
#[derive(Clone)]
pub struct Icrc(Hasher);

impl Icrc {
    /// Of a packet between a UDP socket and another: `packet` is the length of
    /// the UDP payload, the ICRC included. With IPv4 the packet must bear the
    /// identification `ip_id` and the flag against fragmentation.
    pub fn new(flow: &Flow, ip_id: u16, bth: &BthBytes, packet: u16) -> Self {
        let udp = Udp {
            src_port: flow.src_port,
            dst_port: ROCE_PORT,
        };
        let udp = udp.to_bytes(packet).masked();
        let ip_payload = packet.saturating_add(UDP_LEN as u16);
        match flow.addresses {
            Addresses::V4 { src, dst } => {
                let ip = Ipv4Bytes::for_icrc(src, dst, ip_id, ip_payload);
                Self::front(ip, udp, bth)
            }
            Addresses::V6 { src, dst } => {
                let ip = Ipv6Bytes::for_icrc(src, dst, ip_payload);
                Self::front(ip, udp, bth)
            }
        }
    }

    /// Of headers that were written, to be sent by a UDP socket. Feed the
    /// payload, then take the [`trailer`](Self::trailer).
    pub fn of_headers(flow: &Flow, ip_id: u16, headers: &HeaderBytes) -> Self {
        let mut icrc = Self::new(flow, ip_id, headers.bth(), headers.packet_len());
        icrc.update(headers.extended());
        icrc
    }

    /// Of a packet whose IPv4 header is known.
    pub fn of_v4(ip: &Ipv4Bytes, udp: &UdpBytes, bth: &BthBytes) -> Self {
        Self::front(ip.masked(), udp.masked(), bth)
    }

    /// Of a packet whose IPv6 header is known.
    pub fn of_v6(ip: &Ipv6Bytes, udp: &UdpBytes, bth: &BthBytes) -> Self {
        Self::front(ip.masked(), udp.masked(), bth)
    }

    fn front(ip: impl IntoBytes + Immutable + Unaligned, udp: UdpBytes, bth: &BthBytes) -> Self {
        let bth = bth.masked();
        let mut hasher = Hasher::new_with_initial(SEED);
        hasher.update(Front { ip, udp, bth }.as_bytes());
        Self(hasher)
    }

    /// Takes the next bytes: extended headers, payload, padding.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The ICRC as it stands in the packet.
    pub fn finish(self) -> [u8; ICRC_LEN] {
        self.0.finalize().to_le_bytes()
    }

    /// Padding of `pad` bytes (0 to 3) and the ICRC, which follow the payload.
    pub fn trailer(mut self, pad: usize) -> Trailer {
        let pad = pad & 3;
        let mut bytes = [0; 3 + ICRC_LEN];
        let (zeros, rest) = bytes.split_at_mut(pad);
        self.update(zeros);
        for (to, from) in rest.iter_mut().zip(self.finish()) {
            *to = from;
        }
        Trailer {
            bytes,
            len: pad + ICRC_LEN,
        }
    }
}

/// The end of a packet: padding and ICRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    bytes: [u8; 3 + ICRC_LEN],
    len: usize,
}

impl Trailer {
    /// 4 to 7 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_that_of_eight_bytes_of_ones() {
        assert_eq!(SEED, crc32fast::hash(&[0xff; 8]));
    }
}
