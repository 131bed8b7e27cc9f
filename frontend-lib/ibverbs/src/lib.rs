//! The replacement `libibverbs.so.1`.
//!
//! One file per kind of object; every exported function is in `link/symbols.txt` with
//! its version node. No function unwinds: a panic in `extern "C"` aborts.
#![allow(
    unsafe_code,
    reason = "a C interface: every entry point takes pointers from the program"
)]
#![allow(
    unreachable_pub,
    clippy::missing_safety_doc,
    reason = "entry points are reached by their symbols; verbs(7) says what each asks of its caller"
)]

mod ah;
mod ah_from_wc;
mod context;
mod cq;
mod cq_ex;
mod device;
mod errno;
mod events;
mod fork;
mod gid;
mod lock;
mod marshal;
mod mr;
mod mw;
mod pd;
mod private_stubs;
mod qp;
mod qp_ex;
mod query;
mod rate;
mod recv;
mod ring;
mod send;
mod srq;
mod strings;
mod sysfs;
