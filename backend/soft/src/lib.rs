//! The software NIC: serves queue pairs that lie in tenant memory.
//!
//! # Threads
//! 1. A data-path thread (`masq-datapath`) owns an `Engine`: all queue pairs of
//!    the tenants that were given to it. A tenant has one data-path thread, so
//!    queue pairs that may meet never need to be locked against each other.
//! 2. Memory that can block is touched by helper threads only, one a session.

mod capture;
mod client;
mod engine;
mod limits;
mod network;

pub use client::SoftDevice;

#[cfg(any(test, feature = "bench"))]
#[path = "tests/harness.rs"]
mod harness;

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;

#[cfg(test)]
mod tests;
