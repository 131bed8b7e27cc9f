//! When a requester looks after a lost packet, and when it gives up (IBA
//! 9.7.6).
//!
//! Two clocks. The *attempt* is the program's local ACK timeout: the rule book
//! counts attempts that passed without any answer. The *probe* is ours, follows
//! the measured round trip, and repeats what may be lost without counting: the
//! responder cannot tell it from a repetition after a timeout.

use super::Requester;
use masq_transport::{Nanos, Verdict};

impl Requester {
    /// When [`expire`](Self::expire) and [`poll_packet`](Self::poll_packet)
    /// are to be called at the latest; none if there is nothing to wait for.
    pub fn deadline(&self) -> Option<Nanos> {
        [self.not_before, self.probe_at, self.attempt_ends]
            .into_iter()
            .flatten()
            .min()
    }

    /// The time has come, or any other time. Packets may be due afterwards.
    pub fn expire(&mut self, now: Nanos) {
        let due = |at: Option<Nanos>| at.is_some_and(|at| at <= now);
        if due(self.attempt_ends) {
            self.attempt_ends = None;
            match self.retry.unanswered(now) {
                Verdict::Fail(status) => return self.fail(status),
                Verdict::RetryAt(at) => self.attempt_ends = Some(at),
                Verdict::Wait => {}
            }
        } else if !due(self.probe_at) {
            return;
        }
        self.counters.silences += 1;
        self.rtt.back_off();
        self.window.silence(self.high);
        self.go_back();
    }

    /// A packet left.
    pub(super) fn start_timers(&mut self, now: Nanos) {
        if self.probe_at.is_none() {
            self.probe_at = Some(now.saturating_add(self.rtt.patience()));
        }
        if self.attempt_ends.is_none()
            && let Verdict::RetryAt(at) = self.retry.unanswered(now)
        {
            self.attempt_ends = Some(at);
        }
    }

    pub(super) fn stop_timers(&mut self) {
        (self.probe_at, self.attempt_ends) = (None, None);
    }

    /// Something was answered: whatever else is under way gets its full time.
    pub(super) fn restart_timers(&mut self, now: Nanos) {
        self.stop_timers();
        if self.una < self.next {
            self.start_timers(now);
        }
    }
}
