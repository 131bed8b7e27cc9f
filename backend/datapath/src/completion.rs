//! A completion queue in tenant memory, as the device writes it (SPEC clauses 6.6
//! and 6.7).

use masq_device::CqSpec;
use masq_memory::MappedRing;
use masq_spec::queue::{ARM_ANY, ARM_SOLICITED, Cqe, HDR_CQ_ARM, HDR_CQ_CONSUMER, WcStatus};
use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{Ordering, fence};
use zerocopy::IntoBytes;

/// What became of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the ring; nobody waits for it by an event.
    Quiet,
    /// It is in the ring, and an event is due on this event queue.
    Event(u32),
    /// The ring was full; from now on it takes nothing.
    Overrun,
    /// The ring had overrun before.
    Dropped,
}

/// The device's side of a completion queue.
#[derive(Debug)]
pub struct CompletionRing {
    ring: MappedRing,
    cqe: u32,
    /// Running index of the next entry.
    index: u32,
    /// Last consumer index seen.
    consumer: u32,
    event_queue: Option<u32>,
    /// Arm word that was answered with an event.
    answered_arm: u32,
    timestamps: bool,
    ignore_overrun: bool,
    overrun: bool,
}

impl CompletionRing {
    /// None if its ring does not hold what it promises.
    pub fn new(spec: &CqSpec) -> Option<Self> {
        let fits = spec.cqe > 0 && spec.cqe <= spec.ring.slots();
        fits.then(|| Self {
            ring: spec.ring.clone(),
            cqe: spec.cqe,
            index: 0,
            consumer: 0,
            event_queue: spec.event_queue,
            answered_arm: 0,
            timestamps: spec.timestamps,
            ignore_overrun: spec.ignore_overrun,
            overrun: false,
        })
    }

    /// Appends a completion. `solicited`: its sender asked for an event, or it is
    /// not known whether.
    #[inline]
    pub fn push(&mut self, mut cqe: Cqe, solicited: bool) -> Pushed {
        if self.overrun {
            return Pushed::Dropped;
        }
        if self.index.wrapping_sub(self.consumer) >= self.cqe && !self.ignore_overrun {
            // A consumer index that is ahead is a lie that hurts its teller
            // only: the difference is then large.
            if self.waiting() >= self.cqe {
                self.overrun = true;
                return Pushed::Overrun;
            }
        }
        if self.timestamps {
            cqe.timestamp = realtime();
        }
        self.ring.publish(self.index, cqe.as_bytes());
        self.index = self.index.wrapping_add(1);
        let Some(queue) = self.event_queue else {
            return Pushed::Quiet;
        };
        // Pairs with the driver's fence between arming and its last poll.
        fence(Ordering::SeqCst);
        let arm = self.ring.load_header(HDR_CQ_ARM);
        if arm == self.answered_arm {
            return Pushed::Quiet;
        }
        let wanted = match arm & 3 {
            ARM_ANY => true,
            ARM_SOLICITED => solicited || cqe.status != WcStatus::Success as u8,
            _ => false,
        };
        if !wanted {
            return Pushed::Quiet;
        }
        self.answered_arm = arm;
        Pushed::Event(queue)
    }

    /// Completions that the driver has not polled.
    pub fn waiting(&mut self) -> u32 {
        self.consumer = self.ring.load_header(HDR_CQ_CONSUMER);
        self.index.wrapping_sub(self.consumer)
    }

    /// Goes on in another ring: what was polled and what was armed hold for it.
    /// Returns its first running index, and the old ring.
    pub fn move_to(&mut self, ring: MappedRing, cqe: u32) -> (u32, MappedRing) {
        let _ = self.waiting();
        let arm = self.ring.load_header(HDR_CQ_ARM);
        ring.begin_cq(self.index, self.consumer, arm);
        self.cqe = cqe;
        (self.index, std::mem::replace(&mut self.ring, ring))
    }

    /// As if it had been in use for long.
    #[doc(hidden)]
    pub fn start_at(&mut self, index: u32) {
        (self.index, self.consumer) = (index, index);
    }
}

fn realtime() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec as u64)
}
