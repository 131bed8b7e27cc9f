//! Queue pairs that fail: each request and receive of theirs completes once, by the card
//! or in its stead.

use super::complete::Taken;
use super::objects::Connection;
use super::post::failed;
use super::receives::PostedReceive;
use super::{PATIENCE, PEER_PATIENCE, Relay};
use masq_spec::event::AsyncEvent;
use masq_spec::queue::{Cqe, SendWqe, WcOpcode, WcStatus};
use masq_spec::verbs::State;
use masq_verbs_abi::{IBV_QP_STATE, ibv_qp_attr};
use zerocopy::{FromZeros, IntoBytes};

/// Requests and receives that are flushed in one turn.
pub(super) const FLUSHES: usize = 64;

impl Relay {
    /// Every queue pair that needs this CQ fails.
    pub(super) fn fail_users(&mut self, c: usize, cause: &'static str) {
        let users: Vec<usize> = self
            .qps
            .iter()
            .filter(|(_, qp)| qp.send_cq == c || qp.recv_cq == c)
            .map(|(q, _)| q)
            .collect();
        for q in users {
            if self.fail(q, cause)
                && let Some(qp) = self.qps.get(q)
            {
                self.raise(qp.session, AsyncEvent::QpFatal, qp.handle);
            }
        }
    }

    /// Moves a queue pair of the card to ERROR, which flushes what the card has.
    /// Returns whether it was not there yet.
    pub(super) fn fail(&mut self, q: usize, cause: &'static str) -> bool {
        let Some(qp) = self.qps.get_mut(q) else {
            return false;
        };
        if matches!(qp.state, State::Err | State::Reset) {
            return false;
        }
        let attr = ibv_qp_attr {
            qp_state: State::Err as u32,
            ..ibv_qp_attr::default()
        };
        if let Err(error) = qp.host.modify(attr, IBV_QP_STATE) {
            tracing::debug!(qpn = qp.qpn, %error, "the card does not move it to ERROR");
        }
        self.failed(q, cause);
        true
    }

    /// The card may have moved a queue pair to ERROR by itself.
    pub(super) fn follow_card(&mut self, q: usize, cause: &'static str) {
        let Some(qp) = self.qps.get(q) else { return };
        if qp.state == State::Err {
            return;
        }
        let state = qp.host.query(IBV_QP_STATE).map(|attr| attr.qp_state);
        if !matches!(state, Ok(state) if state != State::Err as u32) {
            self.failed(q, cause);
        }
    }

    /// The connection of a queue pair broke, or was never made.
    pub(super) fn lose(&mut self, q: usize, cause: &'static str) {
        if let Some(qp) = self.qps.get_mut(q)
            && !matches!(qp.state, State::Err | State::Reset)
        {
            let is_idle = !qp.has_requests() && qp.state != State::Sqd;
            if is_idle && matches!(qp.connection, Connection::Made | Connection::Ended) {
                qp.connection = Connection::Ended;
                qp.cause.get_or_insert(cause);
            } else {
                qp.lose();
                self.fail(q, cause);
            }
        }
    }

    /// Gives up on peers that requests have waited for long enough.
    pub(super) fn take_unconnected(&mut self) -> bool {
        let mut busy = false;
        let mut i = 0;
        while let Some(q) = self.unconnected.get(i).copied() {
            let since = match self.qps.get(q).map(|qp| qp.connection) {
                Some(Connection::Waiting(Some(since))) => since,
                _ => {
                    self.unconnected.swap_remove(i);
                    continue;
                }
            };
            if self.clock.now().saturating_sub(since) < PEER_PATIENCE {
                i += 1;
                continue;
            }
            self.unconnected.swap_remove(i);
            self.lose(q, "the peer's queue pair was not connected in time");
            busy = true;
        }
        busy
    }

    /// A queue pair is in ERROR: what comes from now on is flushed.
    pub(super) fn failed(&mut self, q: usize, cause: &'static str) {
        let now = self.clock.now();
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        qp.state = State::Err;
        qp.ask_for_rings();
        qp.cause.get_or_insert(cause);
        qp.failed_at = Some(now);
        let (send_cq, recv_cq, qpn) = (qp.send_cq, qp.recv_cq, qp.qpn);
        for entry in std::mem::take(&mut qp.withheld) {
            if let Some(posted) = self.finish(q, Taken::Own(entry)) {
                self.push(recv_cq, flushed_receive(qpn, &posted), false);
            }
        }
        self.failing.push(q);
        self.heat(send_cq);
        self.heat(recv_cq);
        self.enqueue(q);
    }

    /// Completes what the card never got, once it has given back what it got.
    pub(super) fn flush(&mut self, q: usize) -> bool {
        let mut left = FLUSHES;
        while left > 0 {
            let Some(qp) = self.qps.get_mut(q) else {
                return false;
            };
            if qp.outstanding() == 0 && qp.sq.is_published(qp.sq_head) {
                let mut wqe = SendWqe::new_zeroed();
                qp.sq.read(qp.sq_head, 0, wqe.as_mut_bytes());
                qp.refused = None;
                let status = qp.undone();
                let cqe = failed(qp, &wqe, status);
                qp.sq_head = qp.sq_head.wrapping_add(1);
                qp.sq_tail = qp.sq_head;
                qp.sq.set_device_index(qp.sq_tail);
                let cq = qp.send_cq;
                self.push(cq, cqe, false);
            } else if let Some(rq) = qp.rq.as_mut().filter(|rq| rq.outstanding() == 0)
                && let Some(taken) = rq.take_unposted()
            {
                let (cqe, cq) = (flushed_receive(qp.qpn, &taken), qp.recv_cq);
                self.push(cq, cqe, false);
            } else {
                return left < FLUSHES;
            }
            left -= 1;
        }
        self.enqueue(q);
        true
    }

    /// Completes in the card's stead what it does not give back.
    pub(super) fn take_failing(&mut self) -> bool {
        let mut busy = false;
        let mut i = 0;
        while let Some(q) = self.failing.get(i).copied() {
            let Some(qp) = self.qps.get(q).filter(|qp| qp.state == State::Err) else {
                self.failing.swap_remove(i);
                continue;
            };
            let receives = qp.rq.as_ref().map_or(0, |rq| rq.outstanding());
            let owed = qp.outstanding() > 0 || receives > 0;
            let since = qp.failed_at.unwrap_or(self.clock.now());
            if owed && self.clock.now().saturating_sub(since) < PATIENCE {
                i += 1;
                continue;
            }
            if owed {
                tracing::warn!(
                    qpn = qp.qpn,
                    "the card owes completions of a queue pair in ERROR"
                );
                self.write_off(q);
            }
            if let Some(qp) = self.qps.get_mut(q) {
                qp.failed_at = None;
            }
            self.failing.swap_remove(i);
            self.enqueue(q);
            busy = true;
        }
        busy
    }

    /// Flushes what the card has; what it says of it later means nothing.
    pub(super) fn write_off(&mut self, q: usize) {
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        qp.epoch = qp.epoch.wrapping_add(1);
        let (qpn, send_cq, recv_cq) = (qp.qpn, qp.send_cq, qp.recv_cq);
        while let Some(qp) = self.qps.get_mut(q).filter(|qp| qp.outstanding() > 0) {
            let posted = qp
                .sends
                .get(qp.send_slot(qp.sq_tail))
                .copied()
                .unwrap_or_default();
            let index = qp.sq_tail;
            qp.sq_tail = index.wrapping_add(1);
            qp.sq.set_device_index(qp.sq_tail);
            let cqe = Cqe {
                status: qp.undone() as u8,
                opcode: posted.opcode,
                wr_id: posted.wr_id,
                index,
                qp_num: qpn,
                ..Cqe::default()
            };
            self.push(send_cq, cqe, false);
        }
        loop {
            let rq = self.qps.get(q).and_then(|qp| qp.rq.as_ref());
            let Some(entry) = rq.and_then(|rq| rq.oldest()) else {
                break;
            };
            let Some(posted) = self.finish(q, Taken::Own(entry)) else {
                break;
            };
            self.push(recv_cq, flushed_receive(qpn, &posted), false);
        }
    }
}

fn flushed_receive(qpn: u32, receive: &PostedReceive) -> Cqe {
    Cqe {
        status: WcStatus::WrFlushErr as u8,
        opcode: WcOpcode::Recv as u8,
        wr_id: receive.wr_id,
        index: receive.index,
        qp_num: qpn,
        ..Cqe::default()
    }
}
