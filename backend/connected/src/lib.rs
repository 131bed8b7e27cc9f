//! RC and UC over packets: the two halves of a connected queue pair as state
//! machines. Work requests, packets and the time go in; packets, completions
//! and accesses to memory come out. No I/O, no clock, no threads, and nothing
//! is allocated once a queue pair is set up.
//!
//! What is allowed, and what follows from a fault, is not decided here but in
//! the rule book (`masq-transport`), which peers of one host obey as well. The
//! headers are `masq-wire`'s. It is a crate of its own because the rule book
//! needs no packet formats, and those need no rules.
//!
//! Who owns what: one data-path thread owns both halves of a queue pair.
//!
//! Invariants:
//! 1. Sequence numbers inside are 64 bits wide and never wrap; the PSN is the
//!    low 24 bits. A PSN of the network stands for the nearest number.
//! 2. `una ≤ next ≤ high`: the oldest number without an answer, the next to
//!    send, and the first that was never sent. Answers outside `una..high`
//!    change nothing.
//! 3. The headers of a packet follow from its request and its place in it, so
//!    going back is nothing but setting `next` to `una`.
//! 4. Answers of a responder leave in the order of their requests, so that an
//!    ACK never overtakes the responses to a READ before it.
//! 5. Requests complete in order, each exactly once.
//!
//! Clauses cited as "IBA" are of the InfiniBand Architecture Specification,
//! volume 1.

#![forbid(unsafe_code)]

mod congestion;
mod memory;
mod message;
mod request;
mod requester;
mod responder;
mod rtt;
mod sequence;
mod transmit;

pub use memory::{Landing, Memory};
pub use message::Message;
pub use request::{READ_SEGMENT, Request};
pub use requester::{Completion, Counters, Full, Requester, RequesterConfig};
pub use responder::{Arrival, Delivery, Failure, Responder, ResponderConfig};
pub use transmit::{Fate, Payload, Transmit};

#[cfg(test)]
mod tests;
