//! Tenant memory as the daemon sees it: windows on the sealed file of a
//! process, rings and doorbell pages inside them, pieces of registered memory,
//! and the copies between them.
//!
//! # Invariants
//! 1. A mapping is made only of a file that can neither shrink nor grow
//!    ([`SharedFile::check`]), so an access inside a [`Window`] cannot raise
//!    SIGBUS.
//! 2. What lies in a window may change at any time. Values are read once, by
//!    volatile or atomic loads into private memory; no Rust reference to
//!    tenant bytes is ever formed, except to atomics.
//! 3. Every pointer handed out is inside a window that the holder keeps alive
//!    by an `Arc`.

mod atomics;
mod copy;
mod doorbell;
mod error;
mod mirror;
mod region;
mod remote;
mod reserve;
mod ring;
mod shared_file;
mod span;
mod window;

pub use atomics::atomic_u64;
pub use copy::{Piece, Target, copy_pieces, load_bytes, store_bytes, store_last_byte};
pub use doorbell::DoorbellPage;
pub use error::MemoryError;
pub use mirror::{Mirror, Mirrored};
pub use region::{MappedSegment, Region};
pub use remote::RemoteMemory;
pub use reserve::Reserve;
pub use ring::MappedRing;
pub use shared_file::SharedFile;
pub use span::Span;
pub use window::Window;

#[cfg(test)]
mod tests;
