//! The connection manager of rdma_cm: ids, ports, events, and the protocol of
//! IBA 12 under them, as a state machine without I/O.
//!
//! One [`Agent`] serves one endpoint. Whoever owns it calls it with what
//! programs ask and with what peers send, and then takes [`Output`]s until none
//! is left. It has no clock (times are arguments), no threads and no randomness
//! but what its seed gives. Nothing that arrives, from programs or from peers,
//! makes it panic, and what a peer can make it keep is bounded by its caller.

#![forbid(unsafe_code)]

mod address;
mod agent;
mod error;
mod mad;
mod message;
mod ports;
mod reject;
mod types;

pub use agent::Agent;
pub use error::CmError;
pub use mad::{MAD, Mad, MadError};
pub use message::*;
pub use reject::{Answered, Reason, SidrStatus};
pub use types::{Channel, Config, Event, Output, PortSpace, Target, Usage, View};
