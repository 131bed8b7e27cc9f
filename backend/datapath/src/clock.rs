//! What time it is, for those who may not want to know.

use masq_transport::Nanos;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn monotonic() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec as u64)
}

/// The time of a turn: read when it is first asked for, and the same until the thread
/// lets time pass. In a virtual machine the clock may be a system call, and a thread that
/// is woken for one message often needs no time at all.
#[derive(Clone, Debug, Default)]
pub struct Clock(Cell<Option<Nanos>>);

impl Clock {
    /// Nanoseconds of CLOCK_MONOTONIC.
    #[inline]
    pub fn now(&self) -> Nanos {
        if let Some(now) = self.0.get() {
            return now;
        }
        let now = monotonic();
        self.0.set(Some(now));
        now
    }

    /// Time has passed.
    #[inline]
    pub fn forget(&self) {
        self.0.set(None);
    }

    /// Has it this late, for those who have a time of their own.
    pub fn set(&self, now: Nanos) {
        self.0.set(Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_only_when_it_is_let() {
        let clock = Clock::default();
        let first = clock.now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert_eq!(clock.now(), first);
        clock.forget();
        assert!(clock.now() >= first + 2_000_000);
        clock.set(7);
        assert_eq!(clock.now(), 7);
    }
}
