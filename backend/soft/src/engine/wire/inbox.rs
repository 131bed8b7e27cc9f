//! What arrived for the control side.

use crossbeam_queue::ArrayQueue;
use masq_device::Arrival;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Arrivals that may wait: further ones are dropped, as by a network.
const ROOM: usize = 256;

/// A bounded queue with a descriptor to poll.
pub(crate) struct Inbox {
    queue: ArrayQueue<Arrival>,
    event: OwnedFd,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            queue: ArrayQueue::new(ROOM),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// False: it is full.
    pub(super) fn push(&self, arrival: Arrival) -> bool {
        let pushed = self.queue.push(arrival).is_ok();
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        pushed
    }

    /// The next arrival. The descriptor is cleared before the queue is looked
    /// at for the last time, so that none is left behind it.
    pub(crate) fn pop(&self) -> Option<Arrival> {
        self.queue.pop().or_else(|| {
            let mut count = [0; 8];
            let _ = rustix::io::read(&self.event, &mut count);
            self.queue.pop()
        })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
