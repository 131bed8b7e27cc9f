//! Deadlines of waiting queue pairs.

use masq_transport::Nanos;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A heap of deadlines; entries whose wait ended early stay until they are due
/// and are recognized by their serial.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Nanos, usize, u64)>>,
    serial: u64,
}

impl Timers {
    /// Adds a deadline for queue pair `qp` and returns its serial.
    pub(super) fn add(&mut self, at: Nanos, qp: usize) -> u64 {
        self.serial += 1;
        self.heap.push(Reverse((at, qp, self.serial)));
        self.serial
    }

    /// When the earliest is due.
    pub(super) fn next(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes one that is due.
    pub(super) fn pop(&mut self, now: Nanos) -> Option<(usize, u64)> {
        match self.heap.peek() {
            Some(Reverse((at, ..))) if *at <= now => {
                self.heap.pop().map(|Reverse((_, qp, serial))| (qp, serial))
            }
            _ => None,
        }
    }
}
