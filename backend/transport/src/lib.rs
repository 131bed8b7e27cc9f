//! The rule book of RC, UC and UD: what a queue pair may do in which state, who
//! may touch which memory, what answer a request gets, and what its sender
//! makes of the answer. No I/O, no clock, no memory: facts in, verdicts out.
//!
//! One rule book serves peers on the same host, whose messages are copied
//! directly, and peers elsewhere, whose messages travel in packets.
//!
//! Clauses cited as "IBA" are of the InfiniBand Architecture Specification,
//! volume 1, release 1.

#![forbid(unsafe_code)]

mod access;
mod atomic;
mod attributes;
mod fault;
mod opcode;
mod retry;
mod state;

pub use access::{KeyFacts, KeyFault, KeyScope, Need, check_key};
pub use atomic::AtomicOp;
pub use attributes::take_over;
pub use fault::{Nak, ResponderFault, ResponderOutcome};
pub use opcode::{Kind, OpcodeRules, opcode_allowed, rules};
pub use retry::{Nanos, Retry, Verdict, ack_timeout, rnr_delay};
pub use state::{TransitionError, can_receive, can_send, check_transition, mtu_bytes};

#[cfg(test)]
mod tests;
