//! The requester: takes requests off a send queue and carries them out.

use super::copy::{Performed, perform};
use super::objects::{Current, MAX_SGE, Waiting};
use super::remote::{JobKind, Stage};
use super::{Engine, Step};
use masq_memory::Target;
use masq_spec::queue::{Cqe, SEND_DATA, SendFlags, SendOpcode, SendWqe, Sge, WcOpcode, WcStatus};
use masq_spec::verbs::{Access, QpType, State};
use masq_transport::{
    AtomicOp, Kind, Nak, Nanos, Need, OpcodeRules, ResponderFault, Verdict, can_receive, can_send,
    opcode_allowed, rules,
};
use zerocopy::{FromZeros, IntoBytes};

/// How long an unreliable message waits for a receive.
const HOLD: Nanos = 100_000_000;
/// Largest message (IBA 9.7.7.1.2).
const MAX_MESSAGE: u64 = 1 << 31;

/// Why a responder does not take a request.
pub(super) enum Refusal {
    /// Answered at once, nothing else happens.
    Nak(Nak),
    /// A fault of the responder.
    Fault(ResponderFault),
}

impl Engine {
    /// Carries out the next request of a queue pair, or the next chunk of it.
    /// None: there is nothing to do.
    pub(super) fn step(&mut self, q: usize, bytes: &mut u64) -> Option<Step> {
        let qp = self.qps.get_mut(q)?;
        if qp.link.is_some() {
            return self.step_link(q, bytes);
        }
        if qp.waiting != Waiting::Nothing {
            return Some(Step::Wait);
        }
        if matches!(qp.state, State::Err | State::Sqe) {
            return self.flush_one(q);
        }
        if !can_send(qp.state) {
            return None;
        }
        let mut cur = match qp.current.take() {
            Some(cur) => cur,
            None if qp.state == State::Sqd => {
                self.drained(q);
                return None;
            }
            None if !qp.sq.is_published(qp.sq_head) => return None,
            None => {
                let mut spare = qp.take_spare();
                spare.stage = Stage::New;
                spare.slot = qp.sq_head;
                spare
            }
        };
        if cur.stage.is_new()
            && let Err(status) = self.fetch(q, &mut cur)
        {
            return Some(self.complete(q, cur, status));
        }
        let Some(opcode) = SendOpcode::from_raw(cur.wqe.opcode) else {
            return Some(self.complete(q, cur, WcStatus::LocQpOpErr));
        };
        let rules = rules(opcode);
        let qp_type = self.qps.get(q)?.qp_type;
        Some(match (rules.kind, qp_type) {
            (Kind::Local, _) => self.local(q, cur),
            (_, QpType::Ud) => self.datagram(q, cur, rules, bytes),
            _ => self.connected(q, cur, rules, bytes),
        })
    }

    /// Copies the slot at the head, once, and judges its form.
    pub(super) fn fetch(&mut self, q: usize, cur: &mut Current) -> Result<(), WcStatus> {
        let Some(qp) = self.qps.get(q) else {
            return Err(WcStatus::FatalErr);
        };
        cur.wqe = SendWqe::new_zeroed();
        qp.sq.read(cur.slot, 0, cur.wqe.as_mut_bytes());
        cur.total = 0;
        cur.waited = false;
        cur.restart();
        let flags = SendFlags::from_bits_truncate(cur.wqe.flags);
        let opcode = SendOpcode::from_raw(cur.wqe.opcode).ok_or(WcStatus::LocQpOpErr)?;
        if !opcode_allowed(qp.qp_type, opcode) {
            return Err(WcStatus::LocQpOpErr);
        }
        let session = self.sessions.get(qp.session).ok_or(WcStatus::FatalErr)?;
        if !session.grants.allows(opcode) {
            let (session, qpn) = (&session.label, qp.qpn);
            tracing::warn!(session, qpn, ?opcode, rule = "verbs", "refused");
            if let Some(qp) = self.qps.get_mut(q) {
                qp.cause = Some("the policy does not allow this operation (verbs)");
            }
            return Err(WcStatus::LocQpOpErr);
        }
        let rules = rules(opcode);
        if rules.kind == Kind::Local {
            cur.wqe.num_sge = 0;
            return Ok(());
        }
        if flags.contains(SendFlags::INLINE) {
            let room = (qp.sq.stride() as usize).saturating_sub(SEND_DATA);
            let len = cur.wqe.inline_len;
            if !rules.inline || len as usize > room || len > qp.attr.caps.max_inline_data {
                return Err(WcStatus::LocLenErr);
            }
            cur.total = u64::from(len);
            return Ok(());
        }
        let count = usize::from(cur.wqe.num_sge);
        let room = (qp.sq.stride() as usize).saturating_sub(SEND_DATA) / size_of::<Sge>();
        let Some(sges) = cur
            .sges
            .get_mut(..count)
            .filter(|_| count <= room.min(MAX_SGE))
        else {
            return Err(WcStatus::LocLenErr);
        };
        if count > qp.attr.caps.max_send_sge as usize {
            return Err(WcStatus::LocLenErr);
        }
        qp.sq.read(cur.slot, SEND_DATA, sges.as_mut_bytes());
        cur.total = sges.iter().map(super::keys::sge_len).sum();
        if cur.total > MAX_MESSAGE {
            return Err(WcStatus::LocLenErr);
        }
        if rules.kind == Kind::Atomic {
            if cur.total < 8 {
                return Err(WcStatus::LocLenErr);
            }
            cur.total = 8;
        }
        Ok(())
    }

    /// Fills `from` (or, for reads, `to`) with the requester's own pieces.
    pub(super) fn gather(&mut self, q: usize, cur: &Current, need: Need) -> Result<(), WcStatus> {
        let Some(qp) = self.qps.get(q) else {
            return Err(WcStatus::FatalErr);
        };
        let out = if need == Need::LocalRead {
            &mut self.from
        } else {
            &mut self.to
        };
        if SendFlags::from_bits_truncate(cur.wqe.flags).contains(SendFlags::INLINE) {
            let len = cur.total as usize;
            let bytes = qp
                .sq
                .slot_bytes(cur.slot, SEND_DATA, len)
                .ok_or(WcStatus::LocLenErr)?;
            out.push(masq_memory::Piece {
                target: Target::Mapped(bytes),
                len: cur.total,
            });
            return Ok(());
        }
        let sges = cur
            .sges
            .get(..usize::from(cur.wqe.num_sge))
            .unwrap_or_default();
        self.keys
            .resolve_list(qp.pd, qp.qpn, sges, cur.total, need, out)
            .map_err(|_| WcStatus::LocProtErr)
    }

    /// A request of a connected queue pair.
    fn connected(
        &mut self,
        q: usize,
        mut cur: Box<Current>,
        rules: OpcodeRules,
        bytes: &mut u64,
    ) -> Step {
        self.from.clear();
        self.to.clear();
        let need = match rules.kind {
            Kind::Read | Kind::Atomic => Need::LocalWrite,
            _ => Need::LocalRead,
        };
        if let Err(status) = self.gather(q, &cur, need) {
            return self.complete(q, cur, status);
        }
        let Some(p) = self.find_peer(q) else {
            return self.unanswered(q, cur);
        };
        let epoch = self.qps.get(p).map_or(0, |peer| peer.epoch);
        if cur.admitted && cur.peer_epoch != epoch {
            // The peer was reset in the middle of the message.
            return self.unanswered(q, cur);
        }
        let mut resolved = false;
        if !cur.admitted {
            self.show_begun(q);
            match self.admit(p, &mut cur, rules) {
                Ok(has_pieces) => resolved = has_pieces,
                Err(refusal) => return self.refused(q, p, cur, refusal),
            }
            (cur.admitted, cur.peer_epoch) = (true, epoch);
        }
        if !resolved && let Err(fault) = self.responder_pieces(p, &cur, rules.kind) {
            return self.refused(q, p, cur, Refusal::Fault(fault));
        }
        let before = cur.offset;
        let moved = if rules.kind == Kind::Atomic {
            self.atomic(q, &mut cur)
        } else {
            self.transfer(q, &mut cur, bytes)
        };
        if self.taps.is_some() {
            self.show_moved(q, p, &cur, before, moved);
        }
        match moved {
            Ok(Step::Done) => {}
            Ok(step) => return self.keep(q, cur, step),
            // The side whose memory did not answer is at fault.
            Err(from) => {
                let local = from == (need == Need::LocalRead);
                if local {
                    return self.complete(q, cur, WcStatus::LocProtErr);
                }
                return self.refused(q, p, cur, Refusal::Fault(ResponderFault::Memory));
            }
        }
        if let Err(fault) = self.deliver(p, &cur, rules) {
            return self.refused(q, p, cur, Refusal::Fault(fault));
        }
        if self.taps.is_some() {
            self.show_delivered(q, p, &cur);
        }
        self.complete(q, cur, WcStatus::Success)
    }

    /// The peer, if it exists, belongs to this connection and takes messages.
    fn find_peer(&mut self, q: usize) -> Option<usize> {
        let qp = self.qps.get(q)?;
        let (endpoint, qpn) = qp.peer?;
        let is_it = |index: &usize| {
            self.qps
                .get(*index)
                .is_some_and(|p| p.qpn == qpn && p.endpoint == endpoint && p.domain == qp.domain)
        };
        let index = match qp.peer_index.filter(is_it) {
            Some(index) => index,
            None => self.qp_by_number(qp.domain, endpoint, qpn)?,
        };
        let p = self.qps.get(index)?;
        let connected = p.qp_type == qp.qp_type
            && p.peer == Some((qp.endpoint, qp.qpn))
            && can_receive(p.state);
        if let Some(qp) = self.qps.get_mut(q) {
            qp.peer_index = Some(index);
        }
        connected.then_some(index)
    }

    /// The responder's checks, before anything is moved (IBA 9.7.4.1). Returns
    /// whether they filled the responder's list of pieces.
    #[inline]
    fn admit(&mut self, p: usize, cur: &mut Current, rules: OpcodeRules) -> Result<bool, Refusal> {
        let fault = Refusal::Fault;
        let Some(peer) = self.qps.get(p) else {
            return Err(fault(ResponderFault::Memory));
        };
        let access = Access::from_bits_truncate(peer.attr.qp_access_flags);
        let (right, need) = match rules.kind {
            Kind::Write => (Access::REMOTE_WRITE, Some(Need::RemoteWrite)),
            Kind::Read => (Access::REMOTE_READ, Some(Need::RemoteRead)),
            Kind::Atomic => (Access::REMOTE_ATOMIC, Some(Need::RemoteAtomic)),
            Kind::Send | Kind::Local => (Access::empty(), None),
        };
        let answers = matches!(rules.kind, Kind::Read | Kind::Atomic);
        if !access.contains(right) || (answers && peer.attr.max_dest_rd_atomic == 0) {
            return Err(fault(ResponderFault::Malformed));
        }
        let mut has_pieces = false;
        if let (Some(need), true) = (need, cur.total > 0) {
            let (addr, key) = (cur.wqe.remote_addr, cur.wqe.rkey);
            if need == Need::RemoteAtomic && !addr.is_multiple_of(8) {
                return Err(fault(ResponderFault::Malformed));
            }
            let out = match rules.kind {
                Kind::Write => &mut self.to,
                _ => &mut self.from,
            };
            self.keys
                .resolve(peer.pd, peer.qpn, key, addr, cur.total, need, out)
                .map_err(|_| fault(ResponderFault::Access))?;
            has_pieces = true;
        }
        if rules.takes_receive {
            if !self.take_receive(p, &mut cur.receive) {
                let code = self.qps.get(p).map_or(0, |peer| peer.attr.min_rnr_timer);
                return Err(Refusal::Nak(Nak::ReceiverNotReady(code)));
            }
            cur.has_receive = true;
            let room: u64 = cur.receive.list().iter().map(super::keys::sge_len).sum();
            if rules.kind == Kind::Send && cur.total > room {
                return Err(fault(ResponderFault::ReceiveTooShort));
            }
        }
        Ok(has_pieces)
    }

    /// Fills `to` (or, for reads and atomics, `from`) with the responder's
    /// pieces. Done again for every chunk, so that revoking needs no search.
    fn responder_pieces(
        &mut self,
        p: usize,
        cur: &Current,
        kind: Kind,
    ) -> Result<(), ResponderFault> {
        let Some(peer) = self.qps.get(p) else {
            return Err(ResponderFault::Memory);
        };
        if cur.total == 0 {
            return Ok(());
        }
        let (need, out) = match kind {
            Kind::Send => {
                if !cur.has_receive {
                    return Err(ResponderFault::Memory);
                }
                let receive = &cur.receive;
                let list = receive.list();
                return self
                    .keys
                    .resolve_list(
                        receive.pd,
                        peer.qpn,
                        list,
                        cur.total,
                        Need::LocalWrite,
                        &mut self.to,
                    )
                    .map_err(|_| ResponderFault::ReceiveProtection);
            }
            Kind::Write => (Need::RemoteWrite, &mut self.to),
            Kind::Read => (Need::RemoteRead, &mut self.from),
            Kind::Atomic => (Need::RemoteAtomic, &mut self.from),
            Kind::Local => return Ok(()),
        };
        let (addr, key) = (cur.wqe.remote_addr, cur.wqe.rkey);
        self.keys
            .resolve(peer.pd, peer.qpn, key, addr, cur.total, need, out)
            .map_err(|_| ResponderFault::Access)
    }

    /// A read-modify-write at the responder, its result to the requester.
    fn atomic(&mut self, q: usize, cur: &mut Current) -> Result<Step, bool> {
        if let Some(result) = cur.stage.take_gathered() {
            cur.fetched = result
                .get(..8)
                .and_then(|b| b.try_into().ok())
                .map(u64::from_ne_bytes);
            if cur.fetched.is_none() {
                return Err(true);
            }
        }
        let op = match SendOpcode::from_raw(cur.wqe.opcode) {
            Some(SendOpcode::CompareSwap) => AtomicOp::CompareSwap {
                compare: cur.wqe.compare_add,
                swap: cur.wqe.swap,
            },
            _ => AtomicOp::FetchAdd {
                add: cur.wqe.compare_add,
            },
        };
        let Some(old) = cur.fetched else {
            return match perform(&self.from, op) {
                Some(Performed::Found(old)) => {
                    cur.fetched = Some(old);
                    self.atomic(q, cur)
                }
                Some(Performed::Elsewhere { session, addr }) => match cur.stage {
                    Stage::Failed { reading } => Err(reading),
                    _ => self.submit(q, session as usize, JobKind::Atomic { addr, op }, true),
                },
                None => Err(true),
            };
        };
        self.scatter(q, cur, &old.to_ne_bytes())
    }

    /// Nobody answers: UC and UD do not mind, RC tries again.
    fn unanswered(&mut self, q: usize, mut cur: Box<Current>) -> Step {
        if self.taps.is_some() {
            self.show_unanswered(q, &cur);
        }
        let Some(qp) = self.qps.get_mut(q) else {
            return Step::Done;
        };
        if qp.qp_type != QpType::Rc {
            qp.counters.dropped += 1;
            return self.complete(q, cur, WcStatus::Success);
        }
        qp.counters.retries += 1;
        cur.restart();
        match qp.retry.unanswered(self.clock.now()) {
            Verdict::Fail(status) => self.complete(q, cur, status),
            Verdict::Wait => {
                qp.current = Some(cur);
                qp.waiting = Waiting::Forever;
                Step::Wait
            }
            Verdict::RetryAt(at) => {
                qp.current = Some(cur);
                qp.waiting = Waiting::Answer {
                    serial: self.timers.add(at, q, None),
                };
                Step::Wait
            }
        }
    }

    /// The responder answered, or dropped the message, because of `refusal`.
    fn refused(&mut self, q: usize, p: usize, mut cur: Box<Current>, refusal: Refusal) -> Step {
        let Some(qp_type) = self.qps.get(q).map(|qp| qp.qp_type) else {
            return Step::Done;
        };
        let nak = match refusal {
            Refusal::Nak(nak) => Some(nak),
            Refusal::Fault(fault) => {
                let receive = cur.has_receive.then_some(&cur.receive);
                self.responder_fault(p, receive, fault)
            }
        };
        if qp_type != QpType::Rc {
            if matches!(nak, Some(Nak::ReceiverNotReady(_))) && self.may_hold(p, &cur) {
                return self.hold(q, p, cur);
            }
            if self.taps.is_some() {
                self.show_refused(q, p, &cur, None);
            }
            self.count_dropped(q);
            return self.complete(q, cur, WcStatus::Success);
        }
        let Some(nak) = nak else {
            return self.unanswered(q, cur);
        };
        if self.taps.is_some() {
            self.show_refused(q, p, &cur, Some(nak));
        }
        cur.restart();
        let Some(qp) = self.qps.get_mut(q) else {
            return Step::Done;
        };
        // Woken before the delay was over, but another was faster: that was no
        // retry.
        let verdict = match nak {
            Nak::ReceiverNotReady(_) if self.clock.now() < qp.rnr_until => {
                Verdict::RetryAt(qp.rnr_until)
            }
            _ => qp.retry.refused(nak, self.clock.now()),
        };
        match verdict {
            Verdict::Fail(status) => self.complete(q, cur, status),
            Verdict::Wait => self.unanswered(q, cur),
            Verdict::RetryAt(until) => self.await_receive(q, p, cur, until),
        }
    }

    /// Waits until `p` has a receive, or until the time is over.
    fn await_receive(&mut self, q: usize, p: usize, cur: Box<Current>, until: Nanos) -> Step {
        let Some(qp) = self.qps.get_mut(q) else {
            return Step::Done;
        };
        qp.counters.rnr_waits += 1;
        qp.current = Some(cur);
        let serial = self.timers.add(until, q, None);
        qp.waiting = Waiting::Receive {
            serial,
            peer: p,
            until,
        };
        if !qp.in_rnr_list {
            qp.in_rnr_list = true;
            self.rnr_waiters.push(q);
        }
        Step::Wait
    }

    /// Whether an unreliable message may wait for a receive at `p`: once, and
    /// not if an earlier one waited there in vain.
    pub(super) fn may_hold(&mut self, p: usize, cur: &Current) -> bool {
        let Some(peer) = self.qps.get_mut(p) else {
            return false;
        };
        peer.starved |= cur.waited;
        !peer.starved
    }

    /// Holds an unreliable message for a little: on one host a receiver that is
    /// merely slower slows its sender, instead of losing what it was sent.
    pub(super) fn hold(&mut self, q: usize, p: usize, mut cur: Box<Current>) -> Step {
        cur.restart();
        cur.waited = true;
        let until = self.clock.now().saturating_add(HOLD);
        self.await_receive(q, p, cur, until)
    }

    /// Ends the request at the head of a send queue.
    pub(super) fn complete(&mut self, q: usize, cur: Box<Current>, status: WcStatus) -> Step {
        let Some(qp) = self.qps.get_mut(q) else {
            return Step::Done;
        };
        let opcode = SendOpcode::from_raw(cur.wqe.opcode);
        let ok = status == WcStatus::Success;
        qp.sq_head = qp.sq_head.wrapping_add(1);
        qp.sq.set_device_index(qp.sq_head);
        if ok {
            qp.retry.progress();
            qp.rnr_until = 0;
            qp.counters.tx_messages += 1;
            qp.counters.tx_bytes += cur.total;
        }
        let flags = SendFlags::from_bits_truncate(cur.wqe.flags);
        if !ok || qp.sq_sig_all || flags.contains(SendFlags::SIGNALED) {
            let cqe = Cqe {
                status: status as u8,
                opcode: opcode.map_or(WcOpcode::Send, |o| rules(o).completion) as u8,
                wr_id: cur.wqe.wr_id,
                index: cur.slot,
                byte_len: cur.total as u32,
                qp_num: qp.qpn,
                ..Cqe::default()
            };
            let cq = qp.send_cq;
            qp.spare = Some(cur);
            self.push_cqe(cq, cqe, false);
        } else {
            qp.spare = Some(cur);
        }
        if !ok {
            self.send_failed(q, status);
        }
        Step::Done
    }
}
