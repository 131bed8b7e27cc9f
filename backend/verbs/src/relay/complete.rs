//! From the card to the tenants' completion queues.

use super::Relay;
use super::objects::{Connection, Qp, WrId};
use super::receives::{PostedReceive, ReceiveQueue};
use crate::host::Wc;
use masq_datapath::Pushed;
use masq_spec::event::AsyncEvent;
use masq_spec::queue::{Cqe, WcFlags, WcOpcode, WcStatus};
use masq_spec::verbs::{QpType, State};
use masq_verbs_abi::IBV_WC_SUCCESS;

/// Which receive a message took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// An entry of the queue pair's own queue.
    Own(u32),
    /// An entry of a shared queue.
    Shared(usize, u32),
}

impl Relay {
    /// Takes completions off a CQ of the card; returns whether there were any.
    pub(super) fn poll(&mut self, c: usize) -> bool {
        let Some(cq) = self.cqs.get_mut(c).filter(|cq| !cq.is_broken) else {
            return false;
        };
        let mut wcs = std::mem::take(&mut self.wcs);
        let polled = cq.host.poll(&mut wcs);
        let count = match polled {
            Ok(count) => count,
            Err(error) => {
                tracing::error!(cq = cq.handle, %error, "the card's completion queue is broken");
                cq.is_broken = true;
                self.fail_users(c, "the card's completion queue is broken");
                0
            }
        };
        for wc in wcs.get(..count).unwrap_or_default() {
            self.complete(wc);
        }
        self.wcs = wcs;
        count > 0
    }

    fn complete(&mut self, wc: &Wc) {
        match WrId::unpack(wc.wr_id) {
            WrId::Send(q, epoch, index) => {
                let is_known = |qp: &&Qp| {
                    let ahead = index.wrapping_sub(qp.sq_tail);
                    qp.epoch == epoch && qp.qpn == wc.qp_num && ahead < qp.outstanding()
                };
                if self.qps.get(q).filter(is_known).is_some() {
                    self.complete_send(q, index, wc);
                }
            }
            WrId::Receive(q, epoch, entry) => {
                let is_known = |qp: &&Qp| {
                    let is_posted = qp.rq.as_ref().is_some_and(|rq| rq.is_posted(entry));
                    qp.epoch == epoch && qp.qpn == wc.qp_num && is_posted
                };
                if self.qps.get(q).filter(is_known).is_some() {
                    self.complete_receive(q, entry, wc);
                }
            }
            WrId::Shared(r, entry) => self.complete_shared(r, entry, wc),
        }
    }

    /// Request `index` is complete, and with it all before it.
    fn complete_send(&mut self, q: usize, index: u32, wc: &Wc) {
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        let ok = wc.status == IBV_WC_SUCCESS;
        let mut posted = Default::default();
        while qp.sq_tail != index.wrapping_add(1) {
            posted = qp
                .sends
                .get(qp.send_slot(qp.sq_tail))
                .copied()
                .unwrap_or_default();
            qp.sq_tail = qp.sq_tail.wrapping_add(1);
            if ok || qp.sq_tail != index.wrapping_add(1) {
                qp.counters.tx_messages += 1;
                qp.counters.tx_bytes += posted.bytes;
            }
        }
        qp.sq.set_device_index(qp.sq_tail);
        qp.is_blocked = false;
        if qp.failed_at.is_some() {
            qp.failed_at = Some(self.clock.now());
        }
        let status = send_status(qp, wc.status);
        let cqe = Cqe {
            status: status as u8,
            opcode: posted.opcode,
            wr_id: posted.wr_id,
            index,
            byte_len: if ok { wc.byte_len } else { 0 },
            qp_num: qp.qpn,
            vendor_err: wc.vendor_err,
            ..Cqe::default()
        };
        let cq = qp.send_cq;
        let wants_more = qp.refused.is_some() || qp.sq.is_published(qp.sq_head);
        match status {
            s if s == WcStatus::RetryExcErr as u32 => qp.counters.retries += 1,
            s if s == WcStatus::RnrRetryExcErr as u32 => qp.counters.rnr_waits += 1,
            _ => {}
        }
        if !ok || posted.signalled {
            self.push(cq, cqe, false);
        }
        if !ok {
            self.follow_card(q, cause_of(status));
        }
        if self.qps.get(q).is_some_and(|qp| qp.refused.is_some()) {
            self.complete_refused(q);
        }
        if wants_more || !ok {
            self.enqueue(q);
        }
    }

    fn complete_receive(&mut self, q: usize, entry: u32, wc: &Wc) {
        let qp = self.qps.get(q);
        let is_datagram = qp.is_some_and(|qp| qp.qp_type == QpType::Ud);
        let is_flushed = wc.status == WcStatus::WrFlushErr as u32;
        if is_datagram && wc.status == IBV_WC_SUCCESS {
            self.arrived(q, Taken::Own(entry), wc);
        } else if is_flushed && self.withhold(q, entry) {
            // The program gets it back when its queue pair is in ERROR.
        } else if let Some(posted) = self.finish(q, Taken::Own(entry)) {
            self.deliver(q, &posted, wc, None);
        }
    }

    /// Keeps a receive for the program whose connection has ended, if it is to keep it.
    fn withhold(&mut self, q: usize, entry: u32) -> bool {
        let Some(qp) = self.qps.get_mut(q).filter(|qp| qp.keeps_receives()) else {
            return false;
        };
        qp.connection = Connection::Ended;
        qp.withheld.push(entry);
        self.enqueue(q);
        true
    }

    fn complete_shared(&mut self, r: usize, entry: u32, wc: &Wc) {
        let q = self.qpns.get(&wc.qp_num).copied();
        let qp = q.and_then(|q| Some((q, self.qps.get(q)?)));
        match qp.filter(|(_, qp)| qp.srq == Some(r)) {
            // Of a queue pair that is gone nobody is told.
            None => drop(self.finish_shared(r, entry)),
            Some((q, qp)) if qp.qp_type == QpType::Ud && wc.status == IBV_WC_SUCCESS => {
                self.arrived(q, Taken::Shared(r, entry), wc);
            }
            Some((q, _)) => {
                if let Some(posted) = self.finish_shared(r, entry) {
                    self.deliver(q, &posted, wc, None);
                }
            }
        }
    }

    /// Takes a receive off the books.
    pub(super) fn finish(&mut self, q: usize, taken: Taken) -> Option<PostedReceive> {
        let entry = match taken {
            Taken::Shared(r, entry) => return self.finish_shared(r, entry),
            Taken::Own(entry) => entry,
        };
        let qp = self.qps.get_mut(q)?;
        if qp.failed_at.is_some() {
            qp.failed_at = Some(self.clock.now());
        }
        let posted = qp.rq.as_mut()?.finish(entry)?;
        if self.is_frugal {
            qp.ask_for_rings_if_needed();
        }
        // Published before there was room or without a ring, or to be flushed.
        if qp.rq.as_ref().is_some_and(ReceiveQueue::has_news) || qp.state == State::Err {
            self.enqueue(q);
        }
        Some(posted)
    }

    fn finish_shared(&mut self, r: usize, entry: u32) -> Option<PostedReceive> {
        let srq = self.srqs.get_mut(r)?;
        let posted = srq.queue.finish(entry)?;
        if srq.queue.has_news() {
            self.enqueue_srq(r);
        }
        Some(posted)
    }

    /// Tells the tenant of a receive. `src_qp`: of a datagram, who sent it.
    pub(super) fn deliver(
        &mut self,
        q: usize,
        posted: &PostedReceive,
        wc: &Wc,
        src_qp: Option<u32>,
    ) {
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        let ok = wc.status == IBV_WC_SUCCESS;
        if ok {
            qp.counters.rx_messages += 1;
            qp.counters.rx_bytes += u64::from(wc.byte_len);
        }
        let shown = WcFlags::from_bits_truncate(wc.wc_flags as u16);
        let cqe = Cqe {
            status: wc.status as u8,
            opcode: if ok {
                wc.opcode as u8
            } else {
                WcOpcode::Recv as u8
            },
            flags: if ok { shown.bits() } else { 0 },
            wr_id: posted.wr_id,
            index: posted.index,
            byte_len: if ok { wc.byte_len } else { 0 },
            imm_data: if ok { wc.imm_data } else { 0 },
            qp_num: qp.qpn,
            src_qp: src_qp.unwrap_or(qp.attr.dest_qp_num),
            vendor_err: wc.vendor_err,
            sl: wc.sl,
            ..Cqe::default()
        };
        let cq = qp.recv_cq;
        // The card does not tell which messages were solicited: an event too many
        // is harmless, one too few is not.
        self.push(cq, cqe, true);
        if !ok {
            self.follow_card(q, cause_of(wc.status));
        }
    }

    /// The request at the head broke a rule; its turn has come when the card has
    /// nothing left.
    pub(super) fn complete_refused(&mut self, q: usize) {
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        if qp.outstanding() > 0 {
            return;
        }
        let Some(cqe) = qp.refused.take() else { return };
        qp.sq_head = qp.sq_head.wrapping_add(1);
        qp.sq_tail = qp.sq_head;
        qp.sq.set_device_index(qp.sq_tail);
        let cq = qp.send_cq;
        self.push(cq, cqe, false);
        let cause = self.qps.get(q).and_then(|qp| qp.cause);
        self.fail(q, cause.unwrap_or("a request broke a rule"));
    }

    /// Appends a completion and, if the CQ is armed for it, raises an event.
    pub(super) fn push(&mut self, c: usize, cqe: Cqe, solicited: bool) {
        let Some(cq) = self.cqs.get_mut(c) else {
            return;
        };
        let (session, handle) = (cq.session, cq.handle);
        match cq.out.push(cqe, solicited) {
            Pushed::Quiet | Pushed::Dropped => {}
            Pushed::Event(queue) => {
                if let Some(session) = self.sessions.get(session) {
                    session.events.completion(queue, handle);
                }
            }
            Pushed::Overrun => {
                if let Some(session) = self.sessions.get(session) {
                    tracing::warn!(
                        session = session.label,
                        cq = handle,
                        "completion queue overrun"
                    );
                }
                self.raise(session, AsyncEvent::CqErr, handle);
                self.fail_users(c, "its completion queue overran");
            }
        }
    }
}

/// What a send's completion says. An iWARP card gives all back flushed when the
/// connection breaks; of the first a program would hear that nobody answered.
fn send_status(qp: &mut Qp, status: u32) -> u32 {
    match status {
        IBV_WC_SUCCESS => status,
        s if s == WcStatus::WrFlushErr as u32 => {
            if qp.state != State::Err {
                qp.lose();
            }
            qp.undone() as u32
        }
        _ => {
            if qp.connection != Connection::ByState {
                qp.connection = Connection::Lost { told: true };
            }
            status
        }
    }
}

/// Why a queue pair fails, in words.
fn cause_of(status: u32) -> &'static str {
    const NAMED: [(WcStatus, &str); 9] = [
        (WcStatus::LocLenErr, "a request had a bad length"),
        (WcStatus::LocQpOpErr, "a request had a bad opcode"),
        (
            WcStatus::LocProtErr,
            "a request named memory it may not use",
        ),
        (WcStatus::RemAccessErr, "the peer refused the access"),
        (WcStatus::RemInvReqErr, "the peer found the request invalid"),
        (WcStatus::RemOpErr, "the peer failed"),
        (WcStatus::RnrRetryExcErr, "the peer posted no receive"),
        (WcStatus::RetryExcErr, "the peer did not answer"),
        (WcStatus::WrFlushErr, "the card moved it to ERROR"),
    ];
    let named = NAMED.iter().find(|(this, _)| *this as u32 == status);
    named.map_or("a request failed", |(_, cause)| cause)
}
