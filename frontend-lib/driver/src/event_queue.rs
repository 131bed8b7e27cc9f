//! Event virtqueues (SPEC clause 7): their call eventfd is what the program polls.

use crate::DriverError;
use crate::vring::{DESC_WRITE, Vring};
use crate::watch::Liveness;
use masq_spec::event::Event;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use zerocopy::IntoBytes as _;

/// Events that may wait before the device has to keep them back.
const SIZE: u16 = 256;

/// One event queue.
#[derive(Debug)]
pub struct EventQueue {
    ring: Mutex<Vring>,
    fd: RawFd,
    alive: Arc<Liveness>,
    name: u32,
}

impl EventQueue {
    pub(crate) fn new(name: u32, alive: Arc<Liveness>) -> Result<Self, DriverError> {
        let mut ring = Vring::new(SIZE, size_of::<Event>())?;
        for i in 0..SIZE {
            ring.describe(i, size_of::<Event>(), DESC_WRITE, 0);
            ring.publish(i);
        }
        let fd = ring.call.as_raw_fd();
        Ok(Self {
            ring: Mutex::new(ring),
            fd,
            alive,
            name,
        })
    }

    pub(crate) fn with_ring<R>(&self, f: impl FnOnce(&Vring) -> R) -> R {
        f(&self.ring.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number by which CREATE_CQ names the queue (clause 9.1, JOIN).
    pub fn name(&self) -> u32 {
        self.name
    }

    /// The descriptor to poll: readable while an event waits. A semaphore: one read
    /// of eight bytes is one event.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Takes the next event. Blocks, or answers EAGAIN, as the program has set the
    /// descriptor.
    ///
    /// # Errors
    /// What `read` says; [`DriverError::Gone`] when the backend hung up.
    pub fn next(&self) -> Result<Event, DriverError> {
        if !self.alive.is_ours() {
            return Err(DriverError::Gone);
        }
        while !self.alive.is_gone() {
            self.take_token()?;
            // The counter can be ahead of the ring: the device signals an event that
            // finds its ring full when it is raised, and writes it later.
            if let Some(event) = self.pop() {
                return Ok(event);
            }
        }
        self.pop().ok_or(DriverError::Gone)
    }

    fn take_token(&self) -> Result<(), DriverError> {
        // Not `EventFd::read`: the mutex must not be held while it blocks.
        let mut token = [0u8; 8];
        crate::watch::read_exact(self.fd, &mut token)?;
        Ok(())
    }

    fn pop(&self) -> Option<Event> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let was_full = ring.waiting() >= ring.size();
        let (index, _) = ring.pop()?;
        let mut event = Event::default();
        ring.copy_out(index, event.as_mut_bytes());
        ring.publish(index);
        if was_full {
            // Events that were kept back have room now.
            ring.notify();
        }
        Some(event)
    }
}
