//! The end of a queue pair: ERROR, SQE, and what is still posted.

use super::objects::{Qp, ReceiveName, Waiting};
use super::{Engine, Step};
use masq_spec::event::AsyncEvent;
use masq_spec::queue::{Cqe, SendOpcode, SendWqe, WcOpcode, WcStatus};
use masq_spec::verbs::{QpType, State};
use masq_transport::rules;
use zerocopy::{FromZeros, IntoBytes};

impl Qp {
    /// A taken receive was completed. False: it was not taken, or a flush or
    /// reset has dealt with it.
    #[inline]
    pub(super) fn given_back(&mut self, receive: ReceiveName) -> bool {
        let at = self.taken.iter().position(|taken| *taken == receive);
        if let Some(at) = at {
            self.taken.remove(at);
        }
        at.is_some()
    }
}

impl Engine {
    /// A request failed: RC goes to ERROR, UC and UD stop sending (IBA 10.3.1).
    pub(super) fn send_failed(&mut self, q: usize, status: WcStatus) {
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        if qp.state == State::Err {
            return;
        }
        let cause = match status {
            WcStatus::LocLenErr => "a request had a bad length",
            WcStatus::LocQpOpErr => "a request had a bad opcode",
            WcStatus::LocProtErr => "a request named memory it may not use",
            WcStatus::MwBindErr => "a window could not be bound",
            WcStatus::RemAccessErr => "the peer refused the access",
            WcStatus::RemInvReqErr => "the peer found the request invalid",
            WcStatus::RemOpErr => "the peer failed",
            WcStatus::RnrRetryExcErr => "the peer posted no receive",
            WcStatus::RetryExcErr => "the peer did not answer",
            _ => "a request failed",
        };
        match qp.qp_type {
            QpType::Rc => {
                let cause = qp.cause.unwrap_or(cause);
                self.fail(q, cause, None);
            }
            QpType::Uc | QpType::Ud => {
                qp.state = State::Sqe;
                qp.cause.get_or_insert(cause);
                self.enqueue(q);
            }
        }
    }

    /// Moves a queue pair to ERROR and has its queues flushed.
    pub(super) fn fail(&mut self, q: usize, cause: &'static str, event: Option<AsyncEvent>) {
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        if qp.state == State::Err {
            return;
        }
        qp.state = State::Err;
        qp.cause = Some(cause);
        qp.waiting = Waiting::Nothing;
        if let Some(link) = &mut qp.link {
            link.end();
        }
        qp.flush_after = self.timers.serial();
        if let Some(rq) = &qp.rq {
            rq.ring.set_receive_bell(Some(qp.doorbell));
        }
        let (session, handle) = (qp.session, qp.handle);
        if let Some(session) = self.sessions.get(session) {
            tracing::debug!(
                session = session.label,
                qp = handle,
                cause,
                "queue pair failed"
            );
        }
        if let Some(event) = event {
            self.raise(session, event, handle);
        }
        self.enqueue(q);
    }

    /// Flushes one request or receive; None when nothing is left.
    pub(super) fn flush_one(&mut self, q: usize) -> Option<Step> {
        let qp = self.qps.get_mut(q)?;
        // A flushed buffer is the program's again: no helper may touch it.
        if let Some(session) = self.sessions.get_mut(qp.session)
            && session.helper.is_busy(qp.flush_after)
        {
            qp.waiting = Waiting::Helper;
            session.flush_waiters.push(q);
            return Some(Step::Wait);
        }
        if let Some(current) = qp.current.take() {
            qp.spare = Some(current);
        }
        if qp.sq.is_published(qp.sq_head) {
            let mut wqe = SendWqe::new_zeroed();
            let index = qp.sq_head;
            qp.sq.read(index, 0, wqe.as_mut_bytes());
            qp.sq_head = index.wrapping_add(1);
            qp.sq.set_device_index(qp.sq_head);
            let opcode = SendOpcode::from_raw(wqe.opcode);
            let cqe = Cqe {
                status: WcStatus::WrFlushErr as u8,
                opcode: opcode.map_or(WcOpcode::Send, |o| rules(o).completion) as u8,
                wr_id: wqe.wr_id,
                index,
                qp_num: qp.qpn,
                ..Cqe::default()
            };
            let cq = qp.send_cq;
            self.push_cqe(cq, cqe, false);
            return Some(Step::Done);
        }
        if qp.state != State::Err {
            return None;
        }
        let taken = if qp.taken.is_empty() {
            None
        } else {
            Some(qp.taken.remove(0))
        };
        qp.held = None;
        let receive = taken.or_else(|| qp.rq.as_mut().and_then(|rq| rq.take_name()));
        if let Some(receive) = receive {
            let cqe = Cqe {
                status: WcStatus::WrFlushErr as u8,
                opcode: WcOpcode::Recv as u8,
                wr_id: receive.wr_id,
                index: receive.index,
                qp_num: qp.qpn,
                ..Cqe::default()
            };
            let cq = qp.recv_cq;
            self.push_cqe(cq, cqe, false);
            return Some(Step::Done);
        }
        if !qp.flushed {
            qp.flushed = true;
            if qp.srq.is_some() {
                let (session, handle) = (qp.session, qp.handle);
                self.raise(session, AsyncEvent::QpLastWqeReached, handle);
            }
        }
        None
    }

    /// A send queue in SQD has nothing in progress any more.
    pub(super) fn drained(&mut self, q: usize) {
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        if qp.attr.sq_draining != 0 {
            qp.attr.sq_draining = 0;
            if qp.attr.en_sqd_async_notify != 0 {
                let (session, handle) = (qp.session, qp.handle);
                self.raise(session, AsyncEvent::SqDrained, handle);
            }
        }
    }
}
