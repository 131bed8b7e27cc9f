//! From structs to bytes: headers alone, for a scattered send, or a whole
//! packet in the caller's buffer.

use zerocopy::IntoBytes;

use crate::ip::{Ipv4Bytes, Ipv6Bytes};
use crate::{
    Bth, BthBytes, Extended, Flow, ICRC_LEN, Icrc, Ip, Layout, Mtu, ROCE_PORT, UDP_LEN, Udp,
    pad_count,
};

const BTH_LEN: usize = size_of::<BthBytes>();

/// The longest BTH and extended headers.
pub const MAX_HEADERS: usize = BTH_LEN + Layout::Atomic.len();

/// Why a packet was not built: the caller's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The extended headers are not those of the opcode.
    #[error("the extended headers are not those of the opcode")]
    Headers,
    /// The opcode has no payload.
    #[error("the opcode has no payload")]
    Payload,
    /// The payload is longer than the largest MTU.
    #[error("{0} bytes of payload are more than any MTU")]
    TooLong(usize),
    /// The buffer is shorter than the packet.
    #[error("the buffer is too short: the packet has {0} bytes")]
    Buffer(usize),
}

/// All headers of a packet between UDP and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Base transport header.
    pub bth: Bth,
    /// What follows it; must suit the opcode.
    pub extended: Extended,
}

impl Headers {
    /// The headers' bytes in front of a payload of `payload` bytes.
    ///
    /// # Errors
    ///
    /// Headers, or a payload, that the opcode does not have.
    pub fn emit(&self, payload: usize) -> Result<HeaderBytes, BuildError> {
        let traits = self.bth.opcode.traits();
        if traits.layout != self.extended.layout() {
            return Err(BuildError::Headers);
        }
        if !traits.payload && payload != 0 {
            return Err(BuildError::Payload);
        }
        if payload > Mtu::B4096.bytes() {
            return Err(BuildError::TooLong(payload));
        }
        let mut extended = [0; Layout::Atomic.len()];
        self.extended
            .write(&mut extended)
            .ok_or(BuildError::Headers)?;
        let len = BTH_LEN + traits.layout.len();
        Ok(HeaderBytes {
            bytes: Bytes {
                bth: self.bth.to_bytes(payload),
                extended,
            },
            len,
            // Less than 4200 in all.
            packet_len: (len + payload + pad_count(payload) + ICRC_LEN) as u16,
        })
    }
}

#[derive(Clone, Copy, Debug, IntoBytes, zerocopy::Immutable)]
#[repr(C)]
struct Bytes {
    bth: BthBytes,
    extended: [u8; Layout::Atomic.len()],
}

/// Headers in front of a payload of known length.
#[derive(Clone, Copy, Debug)]
pub struct HeaderBytes {
    bytes: Bytes,
    len: usize,
    packet_len: u16,
}

impl HeaderBytes {
    /// BTH and extended headers.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_bytes().get(..self.len).unwrap_or(&[])
    }

    /// The BTH.
    pub const fn bth(&self) -> &BthBytes {
        &self.bytes.bth
    }

    /// What follows the BTH.
    pub fn extended(&self) -> &[u8] {
        self.as_bytes().get(BTH_LEN..).unwrap_or(&[])
    }

    /// Length of the UDP payload: headers, payload, padding, ICRC.
    pub const fn packet_len(&self) -> u16 {
        self.packet_len
    }

    /// How many bytes of padding follow the payload.
    pub const fn pad(&self) -> usize {
        self.bytes.bth.pad() as usize
    }
}

/// Writes a packet to the front of `out`, for a UDP socket to send; answers
/// its length. `payload` is gathered from its pieces. With IPv4 the socket
/// must send it under the identification `ip_id` (0 from a socket that forbids
/// fragmentation) and with the flag against fragmentation.
///
/// # Errors
///
/// Those of [`Headers::emit`], or a buffer that is too short, whose contents
/// are left alone.
pub fn build(
    headers: &Headers,
    payload: &[&[u8]],
    flow: &Flow,
    ip_id: u16,
    out: &mut [u8],
) -> Result<usize, BuildError> {
    let emitted = headers.emit(length(payload))?;
    let (body, trailer) = lay_out(&emitted, payload, out)?;
    let mut icrc = Icrc::new(flow, ip_id, emitted.bth(), emitted.packet_len());
    icrc.update(body);
    *trailer = icrc.finish();
    Ok(usize::from(emitted.packet_len()))
}

/// Writes a packet with its IP and UDP headers to the front of `out`, for a
/// raw port; answers its length.
///
/// # Errors
///
/// As [`build`]; the contents of a buffer that is too short are of no use.
pub fn build_ip(
    headers: &Headers,
    payload: &[&[u8]],
    ip: &Ip,
    src_port: u16,
    out: &mut [u8],
) -> Result<usize, BuildError> {
    let emitted = headers.emit(length(payload))?;
    let udp_len = emitted.packet_len() + UDP_LEN as u16;
    let total = ip.header_len() + usize::from(udp_len);
    let short = BuildError::Buffer(total);
    let (ip_out, rest) = out.split_at_mut_checked(ip.header_len()).ok_or(short)?;
    let (udp_out, rest) = rest.split_at_mut_checked(UDP_LEN).ok_or(short)?;
    let (body, trailer) = lay_out(&emitted, payload, rest).map_err(|_| short)?;

    let udp = Udp {
        src_port,
        dst_port: ROCE_PORT,
    };
    let udp = udp.to_bytes(emitted.packet_len());
    udp.write_to(udp_out).map_err(|_| short)?;
    let mut icrc = match ip {
        Ip::V4(ip) => {
            let ip: Ipv4Bytes = ip.to_bytes(udp_len);
            ip.write_to(ip_out).map_err(|_| short)?;
            Icrc::of_v4(&ip, &udp, emitted.bth())
        }
        Ip::V6(ip) => {
            let ip: Ipv6Bytes = ip.to_bytes(udp_len);
            ip.write_to(ip_out).map_err(|_| short)?;
            Icrc::of_v6(&ip, &udp, emitted.bth())
        }
    };
    icrc.update(body);
    *trailer = icrc.finish();
    Ok(total)
}

fn length(pieces: &[&[u8]]) -> usize {
    pieces.iter().map(|piece| piece.len()).sum()
}

/// Writes headers, payload and padding; answers what follows the BTH, and the
/// place of the ICRC.
fn lay_out<'a>(
    headers: &HeaderBytes,
    payload: &[&[u8]],
    out: &'a mut [u8],
) -> Result<(&'a [u8], &'a mut [u8; ICRC_LEN]), BuildError> {
    let len = usize::from(headers.packet_len());
    let short = BuildError::Buffer(len);
    let out = out.get_mut(..len).ok_or(short)?;
    let (body, trailer) = out.split_last_chunk_mut().ok_or(short)?;
    let mut rest = put(headers.as_bytes(), body).ok_or(short)?;
    for piece in payload {
        rest = put(piece, rest).ok_or(short)?;
    }
    rest.fill(0);
    Ok((body.get(BTH_LEN..).ok_or(short)?, trailer))
}

/// Copies to the front of a buffer; answers the rest of it.
fn put<'a>(bytes: &[u8], out: &'a mut [u8]) -> Option<&'a mut [u8]> {
    let (here, rest) = out.split_at_mut_checked(bytes.len())?;
    here.copy_from_slice(bytes);
    Some(rest)
}
