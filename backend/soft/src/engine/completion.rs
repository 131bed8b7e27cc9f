//! Completions and events.

use super::Engine;
use masq_device::Handle;
use masq_spec::event::AsyncEvent;
use masq_spec::queue::{ARM_ANY, ARM_SOLICITED, Cqe, HDR_CQ_ARM, HDR_CQ_CONSUMER, WcStatus};
use std::sync::atomic::{Ordering, fence};
use zerocopy::IntoBytes;

/// Bytes of the global route header before a received datagram.
pub(super) const GRH_LEN: usize = 40;

impl Engine {
    /// Appends a completion and, if the CQ is armed for it, raises an event.
    pub(super) fn push_cqe(&mut self, index: usize, mut cqe: Cqe, solicited: bool) {
        let Some(cq) = self.cqs.get_mut(index) else {
            return;
        };
        if cq.overrun {
            return;
        }
        if cq.index.wrapping_sub(cq.consumer) >= cq.cqe && !cq.ignore_overrun {
            cq.consumer = cq.ring.load_header(HDR_CQ_CONSUMER);
            // A consumer index that is ahead is a lie that hurts its teller
            // only: the difference is then large.
            if cq.index.wrapping_sub(cq.consumer) >= cq.cqe {
                cq.overrun = true;
                self.overrun(index);
                return;
            }
        }
        if cq.timestamps {
            cqe.timestamp = realtime();
        }
        cq.ring.publish(cq.index, cqe.as_bytes());
        cq.index = cq.index.wrapping_add(1);
        let Some(queue) = cq.event_queue else { return };
        // Pairs with the driver's fence between arming and its last poll.
        fence(Ordering::SeqCst);
        let arm = cq.ring.load_header(HDR_CQ_ARM);
        if arm == cq.answered_arm {
            return;
        }
        let wanted = match arm & 3 {
            ARM_ANY => true,
            ARM_SOLICITED => solicited || cqe.status != WcStatus::Success as u8,
            _ => false,
        };
        if wanted {
            cq.answered_arm = arm;
            let (session, handle) = (cq.session, cq.handle);
            if let Some(session) = self.sessions.get(session) {
                session.events.completion(queue, handle);
            }
        }
    }

    /// A CQ is full: it, and every queue pair that needs it, fails.
    fn overrun(&mut self, index: usize) {
        let Some(cq) = self.cqs.get(index) else {
            return;
        };
        let (session, handle) = (cq.session, cq.handle);
        if let Some(session) = self.sessions.get(session) {
            tracing::warn!(
                session = session.label,
                cq = handle,
                "completion queue overrun"
            );
        }
        self.raise(session, AsyncEvent::CqErr, handle);
        let users: Vec<usize> = self
            .qps
            .iter()
            .filter(|(_, qp)| qp.send_cq == index || qp.recv_cq == index)
            .map(|(q, _)| q)
            .collect();
        for q in users {
            self.fail(q, "its completion queue overran", Some(AsyncEvent::QpFatal));
        }
    }

    /// Raises an asynchronous event in a session.
    pub(super) fn raise(&self, session: usize, event: AsyncEvent, element: Handle) {
        if let Some(session) = self.sessions.get(session) {
            session.events.asynchronous(event, element);
        }
    }
}

fn realtime() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec as u64)
}
