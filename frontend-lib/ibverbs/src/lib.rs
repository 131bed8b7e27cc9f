//! The replacement `libibverbs.so.1`.
//!
//! One file per kind of object; every exported function is in `link/symbols.txt` with
//! its version node. No function unwinds: a panic in `extern "C"` aborts.
//!
//! # Rules
//! 1. One opened device is one session of the backend; its handles mean nothing in
//!    another. A forked child's inherited objects answer ENODEV and are freed locally.
//! 2. The data path (post, poll, arm) takes the lock of its own queue, allocates
//!    nothing, and makes no system call but the kick of a device that sleeps and, with
//!    few processors, `sched_yield` on empty polls. While a context has regions with
//!    stand-ins, it also takes their locks, and may allocate.
//! 3. Events find their object by its handle under the context's lock; an object leaves
//!    that table once the device has destroyed it, and is freed when its events are acknowledged.
//!
//! # Environment
//! `MASQ_SOCKET`: the endpoint's socket (see `masq-driver`; without one the list of
//! devices is empty). `MASQ_POLL_YIELD`: empty polls in a row after which a poller
//! yields, 0 for never; by default 20 with up to three processors. `MASQ_MOVE=off`: see
//! `masq-regmem`. `MASQ_REMOTE_MEMORY=off`: see `masq-driver`.
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
mod stand_in;
mod strings;
mod sysfs;
