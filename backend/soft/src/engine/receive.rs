//! The responder: receives, deliveries and faults.

use super::Engine;
use super::objects::{Current, MAX_SGE, Receive, ReceiveName, ReceiveQueue};
use masq_spec::event::AsyncEvent;
use masq_spec::queue::{Cqe, RECV_DATA, RecvWqe, SendFlags, Sge, WcFlags, WcOpcode, WcStatus};
use masq_spec::verbs::{MwType, State};
use masq_transport::{KeyScope, Nak, OpcodeRules, ResponderFault};
use zerocopy::{FromZeros, IntoBytes};

impl Receive {
    /// Its scatter list.
    pub(crate) fn list(&self) -> &[Sge] {
        self.sges.get(..self.num_sge).unwrap_or_default()
    }
}

impl ReceiveQueue {
    /// Whether a receive is posted.
    pub(super) fn is_ready(&self) -> bool {
        self.ring.is_published(self.head)
    }

    /// Takes the next receive: copies its slot into `out`.
    #[inline]
    pub(super) fn take(&mut self, pd: super::keys::PdKey, out: &mut Receive) -> bool {
        if !self.is_ready() {
            return false;
        }
        let mut wqe = RecvWqe::new_zeroed();
        self.ring.read(self.head, 0, wqe.as_mut_bytes());
        let room = (self.ring.stride() as usize - RECV_DATA) / size_of::<Sge>();
        // A list longer than agreed is cut: what is missing is missing to the
        // message, which then does not fit.
        let num_sge = (wqe.num_sge as usize)
            .min(room)
            .min(self.max_sge as usize)
            .min(MAX_SGE);
        if let Some(list) = out.sges.get_mut(..num_sge) {
            self.ring.read(self.head, RECV_DATA, list.as_mut_bytes());
        }
        (out.num_sge, out.pd) = (num_sge, pd);
        out.name = ReceiveName {
            wr_id: wqe.wr_id,
            index: self.head,
        };
        self.advance();
        true
    }

    /// Takes the next receive to flush it.
    pub(super) fn take_name(&mut self) -> Option<ReceiveName> {
        if !self.is_ready() {
            return None;
        }
        let mut wqe = RecvWqe::new_zeroed();
        self.ring.read(self.head, 0, wqe.as_mut_bytes());
        let name = ReceiveName {
            wr_id: wqe.wr_id,
            index: self.head,
        };
        self.advance();
        Some(name)
    }

    fn advance(&mut self) {
        self.head = self.head.wrapping_add(1);
        self.ring.set_device_index(self.head);
    }
}

impl Engine {
    /// Whether a message for `p` would find a receive, and a helper that has
    /// room for it if datagrams before it wait for one.
    pub(super) fn receive_ready(&self, p: usize) -> bool {
        let Some(qp) = self.qps.get(p) else {
            return false;
        };
        if qp.held.is_some() {
            return true;
        }
        let helper = self.sessions.get(qp.session).map(|s| &s.helper);
        if qp.deliveries > 0 && !helper.is_some_and(|helper| helper.takes_datagrams()) {
            return false;
        }
        match qp.srq {
            Some(srq) => self.srqs.get(srq).is_some_and(|srq| srq.queue.is_ready()),
            None => qp.rq.as_ref().is_some_and(ReceiveQueue::is_ready),
        }
    }

    /// Takes a receive for a message to `p`.
    #[inline]
    pub(super) fn take_receive(&mut self, p: usize, out: &mut Receive) -> bool {
        let Some(qp) = self.qps.get_mut(p) else {
            return false;
        };
        if let Some(held) = qp.held.take() {
            *out = *held;
            return true;
        }
        let taken = match qp.srq {
            None => qp.rq.as_mut().is_some_and(|rq| rq.take(qp.pd, out)),
            Some(index) => self
                .srqs
                .get_mut(index)
                .is_some_and(|srq| srq.queue.take(srq.pd, out)),
        };
        if !taken {
            return false;
        }
        qp.taken.push(out.name);
        qp.starved = false;
        if let Some(index) = qp.srq {
            self.check_srq_limit(index);
        }
        true
    }

    /// Raises the limit event of an SRQ that has fewer receives than that.
    pub(super) fn check_srq_limit(&mut self, index: usize) {
        let Some(srq) = self.srqs.get_mut(index) else {
            return;
        };
        let last = srq.queue.head.wrapping_add(srq.limit.wrapping_sub(1));
        if srq.limit > 0 && !srq.queue.ring.is_published(last) {
            srq.limit = 0;
            let (session, handle) = (srq.session, srq.handle);
            self.raise(session, AsyncEvent::SrqLimitReached, handle);
        }
    }

    /// A message arrived whole: invalidate, complete its receive, count it.
    pub(super) fn deliver(
        &mut self,
        p: usize,
        cur: &Current,
        rules: OpcodeRules,
    ) -> Result<(), ResponderFault> {
        if rules.invalidate {
            self.invalidate_for_peer(p, cur.wqe.imm_data)?;
        }
        let Some(qp) = self.qps.get_mut(p) else {
            return Err(ResponderFault::Memory);
        };
        qp.counters.rx_messages += 1;
        qp.counters.rx_bytes += cur.total;
        let mut established = None;
        if qp.state == State::Rtr && !qp.established {
            qp.established = true;
            established = Some((qp.session, qp.handle));
        }
        if cur.has_receive {
            let receive = &cur.receive;
            qp.given_back(receive.name);
            let mut flags = WcFlags::empty();
            flags.set(WcFlags::WITH_IMM, rules.immediate);
            flags.set(WcFlags::WITH_INV, rules.invalidate);
            let opcode = match rules.kind {
                masq_transport::Kind::Write => WcOpcode::RecvRdmaWithImm,
                _ => WcOpcode::Recv,
            };
            let cqe = Cqe {
                status: WcStatus::Success as u8,
                opcode: opcode as u8,
                flags: flags.bits(),
                wr_id: receive.name.wr_id,
                index: receive.name.index,
                byte_len: cur.total as u32,
                imm_data: if flags.is_empty() {
                    0
                } else {
                    cur.wqe.imm_data
                },
                qp_num: qp.qpn,
                src_qp: qp.attr.dest_qp_num,
                ..Cqe::default()
            };
            let solicited =
                SendFlags::from_bits_truncate(cur.wqe.flags).contains(SendFlags::SOLICITED);
            let cq = qp.recv_cq;
            self.push_cqe(cq, cqe, solicited);
        }
        if let Some((session, handle)) = established {
            self.raise(session, AsyncEvent::CommEst, handle);
        }
        Ok(())
    }

    /// SEND_WITH_INV: the key must be a bound type-2 window of this very QP.
    pub(super) fn invalidate_for_peer(&mut self, p: usize, key: u32) -> Result<(), ResponderFault> {
        let Some(qp) = self.qps.get(p) else {
            return Err(ResponderFault::Memory);
        };
        let (pd, qpn) = (qp.pd, qp.qpn);
        self.invalidate(pd, qpn, key)
            .map_err(|()| ResponderFault::Access)
    }

    /// Makes a type-2 window that is bound to `qpn` invalid.
    pub(super) fn invalidate(
        &mut self,
        pd: super::keys::PdKey,
        qpn: u32,
        key: u32,
    ) -> Result<(), ()> {
        use super::keys::KeyKind;
        let entry = self.keys.get_mut(key >> 8).ok_or(())?;
        let bound_here = entry.facts.pd == pd
            && entry.facts.key == key
            && entry.facts.scope == KeyScope::WindowOfQp(qpn);
        let KeyKind::Window {
            mw_type: MwType::Type2,
            parent,
        } = &mut entry.kind
        else {
            return Err(());
        };
        if !bound_here {
            return Err(());
        }
        let parent = parent.take();
        entry.invalidate();
        self.unbound(parent);
        Ok(())
    }

    /// What follows from a fault at responder `p`; returns what the requester
    /// is told.
    pub(super) fn responder_fault(
        &mut self,
        p: usize,
        receive: Option<&Receive>,
        fault: ResponderFault,
    ) -> Option<Nak> {
        let qp = self.qps.get_mut(p)?;
        qp.counters.remote_errors += 1;
        let outcome = fault.outcome(qp.qp_type);
        if let Some(receive) = receive {
            match outcome.receive {
                Some(status) => {
                    qp.given_back(receive.name);
                    let cqe = Cqe {
                        status: status as u8,
                        opcode: WcOpcode::Recv as u8,
                        wr_id: receive.name.wr_id,
                        index: receive.name.index,
                        qp_num: qp.qpn,
                        ..Cqe::default()
                    };
                    let cq = qp.recv_cq;
                    self.push_cqe(cq, cqe, true);
                }
                // Dropped in silence: the next message gets the receive (IBA
                // 9.9.3, class D).
                None => qp.held = Some(Box::new(*receive)),
            }
        }
        if outcome.to_error {
            let cause = match fault {
                ResponderFault::ReceiveTooShort => "a message was longer than its receive",
                ResponderFault::ReceiveProtection => "a receive names memory it may not write",
                ResponderFault::Access => "a peer's request broke an access rule",
                ResponderFault::Malformed => "a peer's request was not one this queue pair takes",
                ResponderFault::Memory => "memory of this process did not answer",
            };
            self.fail(p, cause, outcome.event);
        }
        outcome.nak
    }
}
