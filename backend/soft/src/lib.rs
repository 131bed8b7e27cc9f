//! The software NIC: serves queue pairs that lie in tenant memory.
//!
//! # Threads
//! 1. A data-path thread owns an `Engine`: all queue pairs of the tenants that
//!    were given to it. A tenant has one data-path thread, so queue pairs that
//!    may meet never need to be locked against each other.
//! 2. While it is awake the thread holds the engine; the control side sends it
//!    closures through a bounded queue and waits for the answer, at most one
//!    turn of the engine.
//! 3. Before it sleeps it arms all doorbell pages, looks once more, and lets
//!    go of the engine: while it sleeps the control side uses the engine
//!    itself. Either way nobody else touches it, so an answer to a revocation
//!    means that the data path has let go.
//! 4. Memory that can block is touched by helper threads only, one a session.

mod capture;
mod client;
mod config;
mod courtesy;
mod engine;
mod limits;
mod network;
mod thread;

pub use client::SoftDevice;
pub use config::SoftConfig;

#[cfg(any(test, feature = "bench"))]
#[path = "tests/harness.rs"]
mod harness;

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;

#[cfg(test)]
mod tests;
