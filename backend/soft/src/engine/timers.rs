//! Deadlines of waiting queue pairs and of helpers.

use masq_datapath::Clock;
use masq_transport::Nanos;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Stale entries that are put up with.
const SLACK: usize = 1024;

/// A deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline {
    at: Nanos,
    pub(super) serial: u64,
    /// Who waits. Indexes are reused: the serial decides whether it still does.
    pub(super) qp: usize,
    /// Session whose helper it limits.
    pub(super) helper: Option<usize>,
}

/// A heap of deadlines; entries whose wait ended early are recognized by their
/// serial, when they are due or when too many have gathered.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Deadline>>,
    serial: u64,
    /// Entries at which stale ones are looked for.
    limit: usize,
}

impl Timers {
    /// Adds a deadline and returns its serial.
    pub(super) fn add(&mut self, at: Nanos, qp: usize, helper: Option<usize>) -> u64 {
        self.serial += 1;
        self.heap.push(Reverse(Deadline {
            at,
            serial: self.serial,
            qp,
            helper,
        }));
        self.serial
    }

    /// The latest serial.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// When the earliest is due.
    pub(super) fn next(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse(deadline)| deadline.at)
    }

    /// Takes one that is due.
    pub(super) fn pop(&mut self, clock: &Clock) -> Option<Deadline> {
        match self.heap.peek() {
            Some(Reverse(deadline)) if deadline.at <= clock.now() => self.heap.pop().map(|d| d.0),
            _ => None,
        }
    }

    /// Drops entries that nobody waits for, once there may be many: a tenant
    /// that begins and gives up long waits must not fill the heap.
    pub(super) fn tidy(&mut self, is_live: impl Fn(&Deadline) -> bool) {
        if self.heap.len() < self.limit.max(SLACK) {
            return;
        }
        self.heap.retain(|Reverse(deadline)| is_live(deadline));
        self.limit = self.heap.len() * 2;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}
