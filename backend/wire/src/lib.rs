//! The packet formats of RoCEv2: headers, opcodes, the invariant CRC, and the
//! IP and UDP headers around them. Bytes in, views out; structs in, bytes out;
//! no I/O, no clock; and no `std`, so that nothing allocates.
//!
//! ```text
//! IPv4 20 | IPv6 40 | UDP 8 | BTH 12 | extended headers 0..28 | payload | pad 0..3 | ICRC 4
//! ```
//!
//! Each header exists twice: as a layout over bytes (`BthBytes`), whose
//! accessors cannot fail, and as a plain struct (`Bth`). Reserved bits are
//! written as zero and ignored when read (IBA 9.2), with two exceptions that
//! the parser refuses: a transport version other than 0, and whatever RoCEv2
//! forbids in the IP header (options, fragments). The plain structs have no
//! pad count: it follows from the payload's length.
//!
//! What a responder must answer with a NAK is not an error of [`Packet::parse`]:
//! see [`Packet::check_length`].
//!
//! Clauses cited as "IBA" are of the InfiniBand Architecture Specification,
//! volume 1; "A17" is its annex on RoCEv2. Nothing here trusts its input.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_std)]

mod aeth;
mod bth;
mod emit;
mod error;
mod extended;
mod flow;
mod grh;
mod icrc;
mod ip;
mod ip_id;
mod mtu;
mod number;
mod opcode;
mod packet;
mod udp;

pub use aeth::{Aeth, AethBytes, Credits, NakCode, RnrTimer, Syndrome};
pub use bth::{Bth, BthBytes};
pub use emit::{BuildError, HeaderBytes, Headers, MAX_HEADERS, build, build_ip};
pub use error::{ErrorKind, LengthError, ParseError};
pub use extended::{
    AtomicAckEth, AtomicAckEthBytes, AtomicEth, AtomicEthBytes, Deth, DethBytes, Extended, Ieth,
    IethBytes, ImmDt, ImmDtBytes, Reth, RethBytes,
};
pub use flow::{Addresses, Flow};
pub use grh::{GRH_LEN, Grh, GrhBytes, ud_prefix};
pub use icrc::{ICRC_LEN, Icrc, IcrcCheck, Trailer};
pub use ip::{Dscp, Ecn, Ip, Ipv4, Ipv4Bytes, Ipv6, Ipv6Bytes, TrafficClass};
pub use ip_id::solve_ip_id;
pub use mtu::{Mtu, pad_count};
pub use number::{Msn, PKey, Psn, QKey, Qpn, RKey};
pub use opcode::{Layout, Opcode, Operation, Position, Service, Traits};
pub use packet::{Datagram, Packet};
pub use udp::{ROCE_PORT, UDP_LEN, Udp, UdpBytes};
