//! How many packets may be under way.
//!
//! A plain window: it doubles each round at first, then grows by a packet a
//! round; a loss halves it, a congestion notification (A17.9.3) takes a quarter
//! off, silence leaves one packet. It falls once for what was under way
//! together. There are no rates and no pacing, so nothing has to be tuned, and
//! a network that drops everything sees one packet per ever longer wait.

use crate::sequence::Seq;

/// Packets that a loss or notification leaves.
const LEAST: u64 = 4;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    packets: u64,
    /// Below this it doubles each round.
    threshold: u64,
    most: u64,
    /// Answers since it grew last, beyond the threshold.
    gathered: u64,
    /// It does not fall again for what was sent before this.
    recovery: Seq,
}

impl Window {
    pub(crate) fn new(initial: u32, most: u32, first: Seq) -> Self {
        let most = u64::from(most).max(LEAST);
        Self {
            packets: u64::from(initial).clamp(1, most),
            threshold: most,
            most,
            gathered: 0,
            recovery: first,
        }
    }

    /// Whether `more` packets may join those under way. What is alone may
    /// always go, or a READ larger than the window never would.
    pub(crate) fn admits(&self, under_way: u64, more: u64) -> bool {
        under_way == 0 || under_way.saturating_add(more) <= self.packets
    }

    /// So many packets were answered.
    pub(crate) fn answered(&mut self, count: u64) {
        if self.packets < self.threshold {
            self.packets = (self.packets + count).min(self.threshold);
            return;
        }
        self.gathered += count;
        if self.gathered >= self.packets {
            self.gathered = 0;
            self.packets = (self.packets + 1).min(self.most);
        }
    }

    /// The packet `una` is missing; `high` was not sent yet.
    pub(crate) fn lost(&mut self, una: Seq, high: Seq) {
        self.shrink(una, high, self.packets / 2);
    }

    /// The peer saw marks of congestion.
    pub(crate) fn notified(&mut self, una: Seq, high: Seq) {
        self.shrink(una, high, self.packets - self.packets / 4);
    }

    fn shrink(&mut self, una: Seq, high: Seq, to: u64) {
        if una < self.recovery {
            return;
        }
        self.recovery = high;
        self.packets = to.max(LEAST).min(self.packets);
        self.threshold = self.packets;
        self.gathered = 0;
    }

    /// Nothing is answered any more.
    pub(crate) fn silence(&mut self, high: Seq) {
        if self.packets > 1 {
            self.threshold = (self.packets / 2).max(LEAST);
        }
        self.packets = 1;
        self.gathered = 0;
        self.recovery = high;
    }
}
