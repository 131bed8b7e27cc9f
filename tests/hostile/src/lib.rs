//! A vhost-user frontend for attacks, and a real masqd to attack.
//!
//! Nothing here is polite: every message, descriptor and ring byte is the
//! test's to choose. [`Client`] on top of it behaves, for the parts of a test
//! that are to work.

mod client;
pub mod cm;
mod daemon;
mod memory;
mod verbs;
mod wire;

pub use client::{Client, Reply};
pub use daemon::{Masqd, POLICY, ProcessCounts};
pub use memory::{Memory, SIZE, eventfd, memfd, seal, sealed_memfd};
pub use verbs::{Endpoint, cq_request, ring_at, v4};
pub use wire::{Code, Raw, words};

use std::time::{Duration, Instant};

/// Longer than anything takes, even on a busy machine.
pub const LONG: Duration = Duration::from_secs(30);

/// Waits until `done` or [`LONG`] has passed; whether it was done.
pub fn eventually(mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + LONG;
    while Instant::now() < until {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    done()
}
