//! RoCEv2 packets in and out of a host: one [`Port`] for each data-path thread.
//!
//! A port knows UDP and the invariant CRC, and nothing of queue pairs but that
//! several threads share a host by queue pair number. What it hands up is a
//! whole packet whose ICRC it checked as far as it can; `docs/ports.md` says
//! which port checks what.
//!
//! Sending is by batches: [`Port::place`] gives room for a packet and says what
//! its ICRC must cover, [`Port::commit`] closes it, [`Port::flush`] sends all.
//! Nothing is allocated after a port was made, but by [`Port::join`] and
//! [`Port::descriptors`].

#[cfg(test)]
mod bench;
mod counters;
mod desk;
mod error;
mod groups;
mod inbox;
mod interface;
mod kind;
#[cfg(any(test, feature = "memory"))]
pub mod memory;
mod port;
mod raw;
mod sender;
mod sys;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod train;
mod udp;

pub use counters::{Counters, SendErrors, Traffic};
pub use error::PortError;
pub use kind::{Config, PortKind, UnknownPort, open};
pub use port::{Incoming, MAX_PACKET, MIN_PACKET, Path, Place, Port};
pub use raw::{RawPort, open_raw};
pub use udp::{UdpPort, open_udp};
