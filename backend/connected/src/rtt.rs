//! How long an answer takes, measured on packets that were sent once. From it
//! follows when a requester looks after a lost packet; the local ACK timeout,
//! which is the program's, only says when it gives up.

use crate::sequence::Seq;
use masq_transport::Nanos;

/// Before anything was measured.
const INITIAL: Nanos = 20_000_000;
/// Below this a busy core looks like a lost packet.
const LEAST: Nanos = 1_000_000;
/// Above this a lost packet is looked after too late.
const MOST: Nanos = 1_000_000_000;

/// The estimator of TCP (RFC 6298), one sample at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rtt {
    smooth: Option<Nanos>,
    variation: Nanos,
    /// What is being timed: its end, and when it was sent.
    sample: Option<(Seq, Nanos)>,
    doublings: u32,
}

impl Rtt {
    /// A packet left that will be answered when everything before `end` is.
    pub(crate) fn sent(&mut self, end: Seq, now: Nanos) {
        self.sample.get_or_insert((end, now));
    }

    /// Everything before `una` is answered.
    pub(crate) fn answered(&mut self, una: Seq, now: Nanos) {
        self.doublings = 0;
        let Some((_, sent)) = self.sample.filter(|(end, _)| *end <= una) else {
            return;
        };
        self.sample = None;
        let took = now.saturating_sub(sent);
        match self.smooth {
            None => (self.smooth, self.variation) = (Some(took), took / 2),
            Some(smooth) => {
                self.variation = self.variation / 4 * 3 + smooth.abs_diff(took) / 4;
                self.smooth = Some(smooth / 8 * 7 + took / 8);
            }
        }
    }

    /// Packets are sent again: what is being timed is ambiguous (Karn).
    pub(crate) fn went_back(&mut self) {
        self.sample = None;
    }

    /// Nothing was answered in time: the next wait is twice as long.
    pub(crate) fn back_off(&mut self) {
        self.doublings = (self.doublings + 1).min(8);
    }

    /// How long to wait for an answer before looking after it.
    pub(crate) fn patience(&self) -> Nanos {
        let once = match self.smooth {
            None => INITIAL,
            Some(smooth) => smooth + 4 * self.variation,
        };
        (once.clamp(LEAST, MOST) << self.doublings).min(MOST)
    }
}
