//! The binary interface of `libibverbs.so.1`, as types and constants; no logic. What
//! librdmacm says to the kernel lies here too ([`ucm`]).
//!
//! Names, field order and values are those of `<infiniband/verbs.h>`, so that a
//! reader can go from one to the other; structures have the newest known size
//! (rdma-core 65), whose offsets hold those of rdma-core 44.
//! `tests/layout.rs` compares every one with the headers that are installed.
#![allow(
    non_camel_case_types,
    non_snake_case,
    reason = "the C names are the interface"
)]
#![allow(
    missing_docs,
    reason = "fields and constants are described by verbs(7) and the header"
)]

mod attr;
mod consts;
mod context;
mod kern;
mod object;
pub mod ucm;
mod work;

pub use attr::*;
pub use consts::*;
pub use context::*;
pub use kern::*;
pub use object::*;
pub use work::*;

pub use libc::{pthread_cond_t, pthread_mutex_t, timespec};

/// Enumerations of the header are passed as 32-bit integers.
pub type c_enum = u32;
