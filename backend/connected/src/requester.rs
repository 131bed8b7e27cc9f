//! The requester: cuts requests into packets, and completes them in order.
//!
//! For UC a request is complete when its last packet was handed over (IBA
//! 9.8.3); nothing below about answers, windows and timers is for it.

mod answers;
mod timers;

use crate::congestion::Window;
use crate::request::{MAX_MESSAGE, Slot};
use crate::rtt::Rtt;
use crate::sequence::Seq;
use crate::{Payload, Request, Transmit};
use masq_spec::queue::{SendOpcode, WcStatus};
use masq_spec::verbs::QpType;
use masq_transport::{Kind, Nanos, Retry, opcode_allowed, rules};
use masq_wire::{Msn, Mtu, Psn, Qpn};
use std::collections::VecDeque;

/// An ACK is asked for at least this often in a long message.
const ACK_EVERY: u64 = 16;

/// What a requester is told of its queue pair.
#[derive(Clone, Copy, Debug)]
pub struct RequesterConfig {
    /// RC or UC; anything else counts as UC.
    pub qp_type: QpType,
    /// The peer.
    pub dest_qpn: Qpn,
    /// `sq_psn`.
    pub psn: Psn,
    /// Path MTU.
    pub mtu: Mtu,
    /// READs and atomics without an answer, at most; 0 counts as 1.
    pub max_rd_atomic: u8,
    /// Local ACK timeout, 4.096 µs × 2^timeout; 0 is none.
    pub timeout: u8,
    /// Timeouts before it gives up.
    pub retry_cnt: u8,
    /// RNR NAKs before it gives up; 7 is never.
    pub rnr_retry: u8,
    /// Requests that it holds at most.
    pub depth: usize,
    /// Packets under way, at first and at most.
    pub window: (u32, u32),
}

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// [`Request::id`].
    pub id: u64,
    /// Operation.
    pub opcode: SendOpcode,
    /// Payload bytes.
    pub length: u32,
    /// Outcome.
    pub status: WcStatus,
}

/// What a requester counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets handed over.
    pub packets: u64,
    /// Of those, packets that had been sent before.
    pub repeated: u64,
    /// Losses that an answer told of.
    pub losses: u64,
    /// Waits that ended without an answer.
    pub silences: u64,
    /// Waits for a receive of the peer.
    pub rnr_waits: u64,
}

/// The queue holds as many requests as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The sending half of a queue pair.
#[derive(Debug)]
pub struct Requester {
    config: RequesterConfig,
    /// Requests, oldest first; the first `done` are complete but not fetched.
    slots: VecDeque<Slot>,
    done: usize,
    /// The request that `next` belongs to.
    at: usize,
    /// Oldest number without an answer.
    una: Seq,
    /// Number to be sent next.
    next: Seq,
    /// First number that was never sent.
    high: Seq,
    /// Number for the next request.
    tail: Seq,
    last_ssn: Msn,
    /// Ends of the READ and atomic requests without a whole answer.
    reads: VecDeque<Seq>,
    retry: Retry,
    rtt: Rtt,
    window: Window,
    /// The peer has receives up to this message, if it tells.
    limit: Option<Msn>,
    /// Nothing is sent before this, after an RNR NAK.
    not_before: Option<Nanos>,
    /// When a packet without an answer is looked after.
    probe_at: Option<Nanos>,
    /// When the present attempt of the rule book ends.
    attempt_ends: Option<Nanos>,
    /// Where `una` was when it went back last: once for each loss.
    went_back_to: Option<Seq>,
    draining: bool,
    counters: Counters,
    /// Status of the oldest request; the others are flushed.
    failure: Option<WcStatus>,
}

impl Requester {
    /// A requester in RTS.
    pub fn new(mut config: RequesterConfig) -> Self {
        config.max_rd_atomic = config.max_rd_atomic.max(1);
        let first = Seq::first(config.psn);
        Self {
            slots: VecDeque::with_capacity(config.depth),
            done: 0,
            at: 0,
            una: first,
            next: first,
            high: first,
            tail: first,
            last_ssn: Msn::new(0),
            reads: VecDeque::with_capacity(usize::from(config.max_rd_atomic)),
            retry: Retry::new(config.timeout, config.retry_cnt, config.rnr_retry),
            rtt: Rtt::default(),
            window: Window::new(config.window.0, config.window.1, first),
            limit: None,
            not_before: None,
            probe_at: None,
            attempt_ends: None,
            went_back_to: None,
            draining: false,
            counters: Counters::default(),
            failure: None,
            config,
        }
    }

    /// Takes a request. One that the rule book forbids is taken too: it fails
    /// in its turn.
    ///
    /// # Errors
    /// [`Full`]: fetch completions first.
    pub fn post(&mut self, mut request: Request) -> Result<(), Full> {
        if self.slots.len() >= self.config.depth {
            return Err(Full);
        }
        let error = self.misuse(&request);
        if error.is_some() {
            request.length = 0;
        }
        let mut slot = Slot::new(request, self.tail, self.config.mtu, self.last_ssn);
        slot.error = error;
        self.tail = slot.end();
        self.last_ssn = slot.ssn;
        self.slots.push_back(slot);
        self.settle();
        Ok(())
    }

    /// What makes a request fail before it is sent.
    fn misuse(&self, request: &Request) -> Option<WcStatus> {
        let rules = rules(request.opcode);
        // UC has no opcode for invalidation (IBA 9.2.1).
        let has_opcode = self.is_reliable() || !rules.invalidate;
        if !opcode_allowed(self.config.qp_type, request.opcode) || !has_opcode {
            return Some(WcStatus::LocQpOpErr);
        }
        let fits = match rules.kind {
            Kind::Atomic => request.length == 8,
            _ => request.length <= MAX_MESSAGE,
        };
        (!fits).then_some(WcStatus::LocLenErr)
    }

    /// The caller found a request wrong, or could not gather its payload: it
    /// fails with this status once all before it are complete. A packet of it
    /// that could not be gathered is not to be sent.
    pub fn reject(&mut self, id: u64, status: WcStatus) {
        let at = self.slots.iter().position(|slot| slot.request.id == id);
        if let Some((at, slot)) = at.and_then(|at| Some((at, self.slots.get_mut(at)?))) {
            slot.error.get_or_insert(status);
            // UC counted it as complete when its last packet was handed over.
            self.done = self.done.min(at);
        }
        self.settle();
    }

    /// The local operation (invalidate, bind) whose turn has come: all before
    /// it are complete, and none after it begins until
    /// [`local_done`](Self::local_done).
    pub fn poll_local(&self) -> Option<u64> {
        let slot = self.slots.get(self.done)?;
        let is_due = slot.kind == Kind::Local && !slot.executed && self.failure.is_none();
        is_due.then_some(slot.request.id)
    }

    /// The local operation that was due was carried out, or failed.
    pub fn local_done(&mut self, outcome: Result<(), WcStatus>) {
        if self.poll_local().is_none() {
            return;
        }
        if let Some(slot) = self.slots.get_mut(self.done) {
            slot.executed = true;
            slot.error = outcome.err();
        }
        self.settle();
    }

    /// The next packet to send. After the last one, see
    /// [`deadline`](Self::deadline).
    pub fn poll_packet(&mut self, now: Nanos) -> Option<Transmit> {
        if self.failure.is_some() {
            return None;
        }
        if let Some(until) = self.not_before {
            if now < until {
                return None;
            }
            self.not_before = None;
        }
        let slot = self.slots.get(self.at)?;
        if slot.error.is_some() || slot.kind == Kind::Local {
            return None;
        }
        let index = self.next.since(slot.first);
        if index == 0 && !self.may_begin(slot) {
            return None;
        }
        let step = slot.step(index);
        let reads_full = self.reads.len() >= usize::from(self.config.max_rd_atomic);
        if slot.is_answered_by_data() && reads_full {
            return None;
        }
        let under_way = self.next.since(self.una);
        if self.is_reliable() && !self.window.admits(under_way, step) {
            return None;
        }
        let mtu = self.config.mtu;
        let mut headers = slot.headers(index, mtu, !self.is_reliable(), self.config.dest_qpn);
        let payload = match (slot.kind, slot.piece(index, mtu)) {
            (Kind::Read | Kind::Atomic, _) | (_, (_, 0)) => Payload::None,
            (_, (offset, len)) => Payload::Request {
                id: slot.request.id,
                offset,
                len,
            },
        };
        let after = self.next.plus(step);
        let is_last = after >= slot.end();
        let is_new = after > self.high;
        let by_data = slot.is_answered_by_data();
        headers.bth.ack_request = self.is_reliable()
            && (is_last
                || (!is_new && under_way == 0)
                || (index + 1).is_multiple_of(ACK_EVERY)
                || !self.window.admits(under_way + step, 1));
        self.counters.packets += 1;
        self.counters.repeated += u64::from(!is_new);
        self.next = after;
        self.high = self.high.max(after);
        if is_last {
            self.at += 1;
        }
        if self.is_reliable() {
            if by_data {
                self.reads.push_back(after);
            }
            if is_new && headers.bth.ack_request {
                self.rtt.sent(after, now);
            }
            self.start_timers(now);
        } else {
            self.una = after;
            self.settle();
        }
        Some(Transmit { headers, payload })
    }

    /// Whether the message may begin, window aside.
    fn may_begin(&self, slot: &Slot) -> bool {
        let is_new = self.next == self.high;
        if self.draining && is_new {
            return false;
        }
        if slot.request.fence && !self.reads.is_empty() {
            return false;
        }
        // Without credit, one message at a time finds out whether there are
        // receives again (IBA 9.7.7.2).
        let limited = self.limit.is_some_and(|limit| slot.ssn.is_after(limit));
        !(limited && slot.takes_receive() && self.next > self.una)
    }

    /// The next completion.
    pub fn poll_completion(&mut self) -> Option<Completion> {
        let status = if self.done > 0 {
            self.done -= 1;
            self.at = self.at.saturating_sub(1);
            WcStatus::Success
        } else {
            let status = self.failure?;
            if !self.slots.is_empty() {
                self.failure = Some(WcStatus::WrFlushErr);
            }
            status
        };
        let slot = self.slots.pop_front()?;
        Some(Completion {
            id: slot.request.id,
            opcode: slot.request.opcode,
            length: slot.request.length,
            status,
        })
    }

    /// Whether [`poll_completion`](Self::poll_completion) has one.
    pub fn has_completion(&self) -> bool {
        self.done > 0 || (self.failure.is_some() && !self.slots.is_empty())
    }

    /// The queue pair goes to ERROR: what is not complete is flushed (IBA
    /// 10.3.1.7).
    pub fn flush(&mut self) {
        self.fail(WcStatus::WrFlushErr);
    }

    /// Whether the queue pair has to go to ERROR (RC) or SQE (UC).
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// SQD: begins no further message, or goes on.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Whether nothing is in progress: every message that began is complete.
    pub fn is_drained(&self) -> bool {
        let begun = self
            .slots
            .get(self.done)
            .is_some_and(|s| s.first < self.high);
        !begun
    }

    /// Takes over attributes that a modify changed in RTS or SQD. Attempts and
    /// waits that are under way count anew.
    pub fn set_attributes(&mut self, timeout: u8, retry_cnt: u8, rnr_retry: u8, max_rd_atomic: u8) {
        self.retry = Retry::new(timeout, retry_cnt, rnr_retry);
        self.config.max_rd_atomic = max_rd_atomic.max(1);
        let most = usize::from(self.config.max_rd_atomic);
        self.reads.reserve(most.saturating_sub(self.reads.len()));
        self.attempt_ends = None;
    }

    /// What it counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Requests that it holds, complete ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The PSN of the next new packet: `sq_psn` of a query.
    pub fn next_psn(&self) -> Psn {
        self.high.psn()
    }

    /// Places for requests and READs, which nothing may grow.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.slots.capacity() + self.reads.capacity()
    }

    #[cfg(test)]
    pub(crate) fn is_rc(&self) -> bool {
        self.is_reliable()
    }

    fn is_reliable(&self) -> bool {
        self.config.qp_type == QpType::Rc
    }

    /// The oldest request ends with this status.
    fn fail(&mut self, status: WcStatus) {
        if self.failure.is_none() {
            self.failure = Some(status);
        }
        self.stop_timers();
        self.not_before = None;
        self.reads.clear();
    }

    /// Counts as complete what is, and fails what is due to.
    fn settle(&mut self) {
        while let Some(slot) = self.slots.get(self.done) {
            if let Some(status) = slot.error {
                self.fail(status);
                return;
            }
            let complete = match slot.kind {
                Kind::Local => slot.executed,
                _ => slot.end() <= self.una,
            };
            if !complete {
                break;
            }
            self.done += 1;
        }
        // An answer to an earlier attempt may have come after going back.
        self.at = self.at.max(self.done);
        self.next = self.next.max(self.una);
        while self.reads.front().is_some_and(|end| *end <= self.una) {
            self.reads.pop_front();
        }
    }

    /// What was not answered is sent again.
    fn go_back(&mut self) {
        self.next = self.una;
        self.at = self.done;
        self.reads.clear();
        self.rtt.went_back();
        self.went_back_to = Some(self.una);
        self.probe_at = None;
    }
}
