//! Event virtqueues (SPEC clause 7): their call eventfd is what the program polls.

use crate::DriverError;
use crate::vring::{DESC_WRITE, Vring};
use crate::watch::Liveness;
use masq_spec::event::Event;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;
use zerocopy::IntoBytes as _;

/// Events that may wait before the device has to keep them back.
const SIZE: u16 = 256;

/// What a program that hangs on the descriptor finds when the backend is gone: enough
/// for every thread that waits, and readable from then on.
const GONE_TOKENS: u64 = 1 << 32;

/// The ring, and what was taken out of it but not given out yet.
#[derive(Debug)]
struct Events {
    ring: Vring,
    kept: VecDeque<Event>,
}

/// One event queue.
#[derive(Debug)]
pub struct EventQueue {
    events: Arc<Mutex<Events>>,
    fd: RawFd,
    alive: Arc<Liveness>,
    name: u32,
}

impl EventQueue {
    pub(crate) fn new(
        name: u32,
        alive: Arc<Liveness>,
        kick: Arc<EventFd>,
    ) -> Result<Self, DriverError> {
        let mut ring = Vring::new(SIZE, size_of::<Event>(), kick)?;
        for i in 0..SIZE {
            ring.describe(i, size_of::<Event>(), DESC_WRITE, 0);
            ring.publish(i);
        }
        let fd = ring.call.as_raw_fd();
        Ok(Self {
            events: Arc::new(Mutex::new(Events {
                ring,
                kept: VecDeque::new(),
            })),
            fd,
            alive,
            name,
        })
    }

    pub(crate) fn with_ring<R>(&self, f: impl FnOnce(&Vring) -> R) -> R {
        f(&self.lock().ring)
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
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
            if let Some(event) = self.lock().pop() {
                return Ok(event);
            }
        }
        self.lock().pop().ok_or(DriverError::Gone)
    }

    /// Adds events that the device leaves to the driver to count (clause 9.9).
    pub fn raise(&self, event: Event, count: u32) {
        if count == 0 || !self.alive.is_ours() {
            return;
        }
        let mut events = self.lock();
        events.kept.extend((0..count).map(|_| event));
        // Under the lock: who takes a count must find the event.
        let _ = events.ring.call.write(count.into());
    }

    /// Drops the events of an object that is no more, each with its token, so that the
    /// descriptor is not readable for nothing. One whose token a reader has taken is
    /// left to that reader.
    pub fn discard(&self, is_stale: impl Fn(&Event) -> bool) {
        if !self.alive.is_ours() {
            return;
        }
        let mut events = self.lock();
        while let Some(event) = events.pop_ring() {
            events.kept.push_back(event);
        }
        let fd = self.fd;
        events
            .kept
            .retain(|event| !(is_stale(event) && crate::watch::take_token_now(fd)));
    }

    /// The event of a token that the caller took from [`EventQueue::fd`] itself; `None` if
    /// the device has not written it yet: then the caller waits for another token.
    ///
    /// # Errors
    /// [`DriverError::Gone`] when the backend hung up.
    pub fn taken(&self) -> Result<Option<Event>, DriverError> {
        if !self.alive.is_ours() || self.alive.is_gone() {
            return Err(DriverError::Gone);
        }
        Ok(self.lock().pop())
    }

    /// Takes back up to `count` events that wait, whichever they are, each with its
    /// token; answers how many. For a reader to whom events are mere counts.
    pub fn take_back(&self, count: u32) -> u32 {
        if !self.alive.is_ours() || self.alive.is_gone() {
            return 0;
        }
        let mut events = self.lock();
        while let Some(event) = events.pop_ring() {
            events.kept.push_back(event);
        }
        let mut taken = 0;
        while taken < count && !events.kept.is_empty() && crate::watch::take_token_now(self.fd) {
            events.kept.pop_front();
            taken += 1;
        }
        taken
    }

    /// The same ring with another descriptor, which the device was told of. The old one is
    /// closed: whoever polls it or waits for it hears no more. Events that wait are
    /// forgotten, they were the last owner's.
    pub(crate) fn successor(&self, call: Arc<EventFd>) -> Self {
        let fd = call.as_raw_fd();
        let mut events = self.lock();
        events.ring.call = call;
        while events.pop().is_some() {}
        Self {
            events: Arc::clone(&self.events),
            fd,
            alive: Arc::clone(&self.alive),
            name: self.name,
        }
    }

    /// Wakes everybody who waits, for good: the backend is gone.
    pub(crate) fn wake_all(&self) {
        let _ = self.with_ring(|ring| ring.call.write(GONE_TOKENS));
    }

    fn take_token(&self) -> Result<(), DriverError> {
        // Not `EventFd::read`: the mutex must not be held while it blocks.
        let mut token = [0u8; 8];
        crate::watch::read_exact(self.fd, &mut token)?;
        Ok(())
    }
}

impl Events {
    fn pop(&mut self) -> Option<Event> {
        self.kept.pop_front().or_else(|| self.pop_ring())
    }

    fn pop_ring(&mut self) -> Option<Event> {
        let ring = &mut self.ring;
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
