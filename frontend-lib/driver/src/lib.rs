//! The driver side of the virtio-rdma device: one [`Session`] per opened device.
//!
//! A session is a vhost-user connection to its endpoint's socket (SPEC clause 2), the
//! control queue (clause 3.1), one event queue for asynchronous events and one per
//! completion channel (clause 7), and the doorbell page (clause 5). Work queues are
//! the caller's; see `masq-ibverbs`.
//!
//! # Threads
//! Any thread may call any method. The control queue is one mutex, each event queue
//! another; the doorbell takes none. One thread of the session's own sleeps until the
//! backend hangs up, then marks the session dead and wakes whoever waits for an event.

mod control;
mod doorbell;
mod endpoint;
mod error;
mod event_queue;
mod handshake;
mod process;
mod session;
mod vring;
mod watch;

pub use doorbell::Doorbell;
pub use endpoint::{SOCKET_ENV, socket_path};
pub use error::DriverError;
pub use event_queue::EventQueue;
pub use handshake::probe;
pub use process::process_id;
pub use session::Session;
pub use watch::Uncancelled;
