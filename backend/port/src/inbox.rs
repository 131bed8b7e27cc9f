//! What arrived on another thread's port than its queue pair's.
//!
//! The kernel steers by queue pair number, but sees only the first packet of a
//! train. The others are copied into the right port's inbox. Buffers go round
//! between two queues, so that nothing is allocated.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use masq_wire::{Addresses, Flow, TrafficClass};
use rustix::event::{EventfdFlags, eventfd};

use crate::error::doing;
use crate::{MAX_PACKET, PortError};

/// Packets that wait at most.
const DEPTH: usize = 256;

/// A packet in its own buffer.
pub(crate) struct Visitor {
    pub(crate) flow: Flow,
    pub(crate) traffic_class: TrafficClass,
    pub(crate) hop_limit: u8,
    len: usize,
    bytes: [u8; MAX_PACKET],
}

impl Visitor {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// A port's inbox; its siblings write to it.
pub(crate) struct Inbox {
    waiting: ArrayQueue<Box<Visitor>>,
    spare: ArrayQueue<Box<Visitor>>,
    pub(crate) ready: OwnedFd,
    /// How often `ready` was written.
    rings: AtomicU64,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let spare = ArrayQueue::new(DEPTH);
        for _ in 0..DEPTH {
            let empty = Visitor {
                flow: Flow {
                    addresses: Addresses::V4 {
                        src: [0; 4].into(),
                        dst: [0; 4].into(),
                    },
                    src_port: 0,
                },
                traffic_class: TrafficClass(0),
                hop_limit: 0,
                len: 0,
                bytes: [0; MAX_PACKET],
            };
            let _ = spare.push(Box::new(empty));
        }
        Ok(Arc::new(Self {
            waiting: ArrayQueue::new(DEPTH),
            spare,
            ready: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            rings: AtomicU64::new(0),
        }))
    }

    /// Copies a packet in; false if there is no room.
    pub(crate) fn put(
        &self,
        flow: Flow,
        traffic_class: TrafficClass,
        hop_limit: u8,
        packet: &[u8],
    ) -> bool {
        let Some(mut visitor) = self.spare.pop() else {
            return false;
        };
        let Some(room) = visitor.bytes.get_mut(..packet.len()) else {
            let _ = self.spare.push(visitor);
            return false;
        };
        room.copy_from_slice(packet);
        visitor.len = packet.len();
        visitor.flow = flow;
        visitor.traffic_class = traffic_class;
        visitor.hop_limit = hop_limit;
        // As many buffers as places: it has room.
        self.waiting.push(visitor).is_ok()
    }

    /// Wakes the port that the inbox belongs to.
    pub(crate) fn ring(&self) {
        // Full means that it is readable already.
        let _ = rustix::io::write(&self.ready, &1u64.to_ne_bytes());
        // Last, so that whoever sees it can read what was written.
        self.rings.fetch_add(1, Ordering::Release);
    }

    /// Takes what waits. `heard` is how often the bell was heard so far.
    pub(crate) fn take(&self, into: &mut Vec<Box<Visitor>>, heard: &mut u64) {
        let rings = self.rings.load(Ordering::Acquire);
        if rings != *heard {
            *heard = rings;
            // Before the queue is emptied: what comes later rings again.
            let _ = rustix::io::read(&self.ready, &mut [0; 8]);
        }
        while into.len() < DEPTH
            && let Some(visitor) = self.waiting.pop()
        {
            into.push(visitor);
        }
    }

    /// Gives buffers back.
    pub(crate) fn give_back(&self, visitors: impl Iterator<Item = Box<Visitor>>) {
        for visitor in visitors {
            let _ = self.spare.push(visitor);
        }
    }

    /// Room for all that an inbox may hold.
    pub(crate) fn room() -> Vec<Box<Visitor>> {
        Vec::with_capacity(DEPTH)
    }
}

/// The inboxes of all threads that share a host, and whose this one is.
pub(crate) struct Siblings {
    pub(crate) inboxes: Arc<[Arc<Inbox>]>,
    pub(crate) mine: usize,
}

/// An inbox for each thread.
pub(crate) fn inboxes(threads: usize) -> Result<Arc<[Arc<Inbox>]>, PortError> {
    (0..threads)
        .map(|_| Inbox::new())
        .collect::<io::Result<_>>()
        .map_err(doing("make an eventfd"))
}

/// None for a thread that is alone.
pub(crate) fn siblings(inboxes: &Arc<[Arc<Inbox>]>, mine: usize) -> Option<Siblings> {
    (inboxes.len() > 1).then(|| Siblings {
        inboxes: Arc::clone(inboxes),
        mine,
    })
}
