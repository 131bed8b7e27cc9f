//! The connection manager of rdma_cm: ids, ports, events, and the protocol of
//! IBA 12 under them, as a state machine without I/O.
//!
//! One [`Agent`] serves one endpoint. Whoever owns it calls it with what
//! programs ask and with what peers send, and then takes [`Output`]s until none
//! is left. It has no clock (times are arguments), no threads and no randomness
//! but what its seed gives. Nothing that arrives, from programs or from peers,
//! makes it panic, and what a peer can make it keep is bounded by its caller.

//!
//! # Time
//! A REQ, a REP or a SIDR_REQ is repeated every 4.3 s, 15 times: after 68.7 s its
//! sender gives up (UNREACHABLE, -110). A side whose program has not answered yet
//! answers a repeated message with an MRA, which asks for 68.7 s and ends the
//! repetition, not the patience. A DREQ is repeated every 2.1 s for 8.6 s
//! (DISCONNECTED, -110). The numbers of a connection rest for 1.07 s. Agents of
//! one host answer at once; the times matter where a program is stopped, and on a
//! wire.
//!
//! # Where it differs from Linux
//! A port that a wildcard has is [`CmError::AddressInUse`], not "not available".
//! Disconnects that cross are agreed to at once. A request that was refused is
//! remembered while its sender may repeat it, and the program is not asked twice.
//! A REJ that meets an established connection (its sender died before it heard
//! the RTU) is told as DISCONNECTED. A DREQ is repeated although its id is gone.

#![forbid(unsafe_code)]

mod address;
mod agent;
mod error;
mod mad;
mod message;
mod ports;
mod reject;
mod types;
mod underlay;

pub use address::{IpHeader, service_id};
pub use agent::Agent;
pub use error::CmError;
pub use mad::{MAD, Mad, MadError};
pub use message::*;
pub use reject::{Answered, Reason, SidrStatus};
pub use types::{Channel, Config, Event, Output, Peer, PortSpace, Sender, Target, Usage, View};
pub use underlay::Asked;
