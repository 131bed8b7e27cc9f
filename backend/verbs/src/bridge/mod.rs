//! rdma_cm with plain hosts. QP1 of a card is the kernel's, so what an endpoint's agent
//! says to a host that is no masq is done by the host's connection manager, and what
//! becomes of that is told to the agent as messages of that host.
//!
//! One thread owns the ids ([`thread`]); [`desk`] decides, without I/O of its own;
//! [`translate`] turns messages into parameters and back. The data path is the tenant's
//! queue pair as ever: the kernel's manager is told its number, and no more.
//!
//! Invariants:
//! 1. A conversation has one id of the kernel and ends with it; the rest are listeners.
//! 2. Control never waits for the kernel: what it says is queued, at most so much.
//! 3. What plain hosts can make this host keep is bounded, per host and in sum.

mod agreed;
mod desk;
mod pairs;
mod thread;
mod translate;

#[cfg(test)]
mod tests;

pub(crate) use agreed::{Agreed, News, Tell};
pub(crate) use thread::Bridge;
