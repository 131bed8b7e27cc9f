//! Whether it pays to yield the CPU.
//!
//! Where programs and the NIC share too few cores, a yield lets a program run
//! that yields back as soon as its completion queue is empty. A program that
//! polls its memory never does: each yield then costs a whole scheduling slice.
//! Such neighbours are recognized by that, and shunned for a while: the thread
//! sleeps instead, is woken by the doorbell, and preempts them.

use masq_transport::Nanos;

/// A yield that lasts longer met a neighbour that does not yield back.
const GREEDY: Nanos = 1_000_000;
/// Two such yields within this time tell a neighbour from an accident.
const CLOSE: Nanos = 5_000_000;
/// For how long yields are given up at first; doubled each time.
const FIRST: Nanos = 10_000_000;
/// For how long at most.
const LONGEST: Nanos = 1_000_000_000;

/// What is known of the neighbours.
#[derive(Debug)]
pub(crate) struct Courtesy {
    /// When the last long yield ended.
    last: Option<Nanos>,
    until: Nanos,
    next: Nanos,
}

impl Default for Courtesy {
    fn default() -> Self {
        Self {
            last: None,
            until: 0,
            next: FIRST,
        }
    }
}

impl Courtesy {
    /// Whether to sleep instead of yielding.
    pub(crate) fn is_shunned(&self, now: Nanos) -> bool {
        now < self.until
    }

    /// Learns from a yield that lasted from `before` to `after`.
    pub(crate) fn yielded(&mut self, before: Nanos, after: Nanos) {
        if after.saturating_sub(before) <= GREEDY {
            if before.saturating_sub(self.until) > LONGEST {
                self.next = FIRST;
            }
            return;
        }
        let close = self
            .last
            .is_some_and(|last| before.saturating_sub(last) < CLOSE);
        self.last = Some(after);
        if close {
            self.last = None;
            self.until = after.saturating_add(self.next);
            self.next = self.next.saturating_mul(2).min(LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_yield_is_an_accident_and_two_soon_after_each_other_are_a_neighbour() {
        let mut courtesy = Courtesy::default();
        let mut now = 0;
        for _ in 0..10 {
            courtesy.yielded(now, now + GREEDY + 1);
            now += GREEDY + 1 + CLOSE;
        }
        assert!(!courtesy.is_shunned(now));
        courtesy.yielded(now, now + 1000);
        courtesy.yielded(now, now + 2 * GREEDY);
        now += 2 * GREEDY;
        courtesy.yielded(now + 1000, now + 3 * GREEDY);
        now += 3 * GREEDY;
        assert!(courtesy.is_shunned(now + FIRST - 1));
        assert!(!courtesy.is_shunned(now + FIRST));
    }

    #[test]
    fn a_neighbour_that_stays_is_shunned_longer_and_one_that_left_is_forgotten() {
        let mut courtesy = Courtesy::default();
        let mut now = 0;
        let mut shun = |courtesy: &mut Courtesy| {
            courtesy.yielded(now, now + 2 * GREEDY);
            courtesy.yielded(now + 2 * GREEDY, now + 4 * GREEDY);
            let from = now + 4 * GREEDY;
            now = courtesy.until;
            courtesy.until - from
        };
        assert_eq!(shun(&mut courtesy), FIRST);
        assert_eq!(shun(&mut courtesy), 2 * FIRST);
        for _ in 0..20 {
            shun(&mut courtesy);
        }
        assert_eq!(shun(&mut courtesy), LONGEST);
        let later = courtesy.until + LONGEST + 1;
        courtesy.yielded(later, later + 1000);
        assert_eq!(courtesy.next, FIRST);
    }
}
