//! The virtio-rdma device interface: everything that a frontend (driver side,
//! inside a container or guest) and a backend (device side, masqd) must agree
//! on. `SPEC.md` beside this crate is the normative text; each item here names
//! the clause that it implements.
//!
//! All integers are little-endian. All structures are packed by hand: every
//! field is naturally aligned, every reserved field is zero, and the sizes are
//! asserted at compile time.

#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("the queue layouts are used in place and are little-endian");

pub mod command;
pub mod device;
pub mod doorbell;
pub mod event;
pub mod queue;
pub mod verbs;

#[cfg(test)]
mod tests;
