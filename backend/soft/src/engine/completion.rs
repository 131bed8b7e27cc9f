//! Completions and events.

use super::Engine;
use masq_datapath::Pushed;
use masq_device::Handle;
use masq_spec::event::AsyncEvent;
use masq_spec::queue::Cqe;

/// Bytes of the global route header before a received datagram.
pub(super) const GRH_LEN: usize = 40;

impl Engine {
    /// Appends a completion and, if the CQ is armed for it, raises an event.
    pub(super) fn push_cqe(&mut self, index: usize, cqe: Cqe, solicited: bool) {
        let Some(cq) = self.cqs.get_mut(index) else {
            return;
        };
        match cq.out.push(cqe, solicited) {
            Pushed::Quiet | Pushed::Dropped => {}
            Pushed::Overrun => self.overrun(index),
            Pushed::Event(queue) => {
                let (session, handle) = (cq.session, cq.handle);
                if let Some(session) = self.sessions.get(session) {
                    session.events.completion(queue, handle);
                }
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
