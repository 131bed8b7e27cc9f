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

#[allow(dead_code, reason = "used by verbs to come")]
mod errno;
mod fork;
mod marshal;
mod pending;
mod private_stubs;
mod rate;
mod strings;
mod sysfs;
