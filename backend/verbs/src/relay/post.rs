//! From the tenants' rings to the card.

use super::Relay;
use super::objects::{Connection, PostedSend, Qp, WrId, place};
use super::receives::ReceiveQueue;
use crate::card::Link;
use crate::host::{MAX_INLINE, MAX_SGE, Payload, To};
use masq_spec::queue::{Cqe, SEND_DATA, SendFlags, SendOpcode, SendWqe, Sge, WcOpcode, WcStatus};
use masq_spec::verbs::{QpType, State};
use masq_transport::{Kind, opcode_allowed, rules};
use masq_verbs_abi::{IBV_SEND_FENCE, IBV_SEND_INLINE, IBV_SEND_SIGNALED, IBV_SEND_SOLICITED};
use zerocopy::{FromZeros, IntoBytes};

/// Largest message (IBA 9.7.7.1.2).
const MAX_MESSAGE: u64 = 1 << 31;

/// A request that was copied, and judged as far as the card cannot.
struct Judged {
    opcode: SendOpcode,
    total: u64,
    count: usize,
    sges: [Sge; MAX_SGE],
}

impl Relay {
    /// Hands work of a queue pair to the card; returns whether there was any.
    pub(super) fn run(&mut self, q: usize) -> bool {
        let Some(qp) = self.qps.get_mut(q) else {
            return false;
        };
        qp.queued = false;
        match qp.state {
            State::Reset => false,
            State::Err => self.flush(q),
            state => {
                let mut busy = self.post_receives(q);
                let connection = self.qps.get(q).map(|qp| qp.connection);
                // iWARP has no state between being connected and sending.
                let sends = state == State::Rtr && connection != Some(Connection::ByState)
                    || matches!(state, State::Rts | State::Sqd | State::Sqe);
                if sends {
                    busy |= match self.qps.get(q).is_some_and(Qp::may_send) {
                        true => self.post_sends(q),
                        false => self.wait_for_peer(q),
                    };
                }
                busy
            }
        }
    }

    /// Requests wait until the kernel has connected the card's queue pair, and not
    /// for ever.
    fn wait_for_peer(&mut self, q: usize) -> bool {
        let qp = self.qps.get(q);
        if qp.is_some_and(|qp| qp.connection == Connection::Ended && qp.has_requests()) {
            self.lose(q, "the connection has ended");
            return true;
        }
        if let Some(qp) = self.qps.get_mut(q)
            && let Connection::Waiting(since @ None) = &mut qp.connection
            && qp.sq.is_published(qp.sq_head)
        {
            *since = Some(self.clock.now());
            self.unconnected.push(q);
        }
        false
    }

    fn post_sends(&mut self, q: usize) -> bool {
        let Some(qp) = self.qps.get_mut(q) else {
            return false;
        };
        if qp.is_blocked || qp.refused.is_some() {
            return false;
        }
        let room = qp.attr.caps.max_send_wr.saturating_sub(qp.outstanding());
        let mut taken = 0;
        let mut refused = None;
        self.receivers.clear();
        if qp.qp_type != QpType::Ud {
            self.receivers.push(qp.attr.dest_qp_num);
        }
        while taken < room && !self.sends.is_full() {
            let Some(qp) = self.qps.get(q) else {
                return false;
            };
            let index = qp.sq_head.wrapping_add(taken);
            if !qp.sq.is_published(index) {
                break;
            }
            let mut wqe = SendWqe::new_zeroed();
            qp.sq.read(index, 0, wqe.as_mut_bytes());
            wqe.remote_addr = qp.peers_place.of(wqe.remote_addr);
            match self.prepare(q, index, &wqe) {
                Ok(posted) => {
                    if let Some(qp) = self.qps.get_mut(q) {
                        let slot = qp.send_slot(index);
                        if let Some(place) = qp.sends.get_mut(slot) {
                            *place = posted;
                        }
                    }
                    taken += 1;
                }
                Err(status) => {
                    refused = Some((wqe, status));
                    break;
                }
            }
        }
        let more = self.sends.is_full();
        if taken > 0 {
            self.serve_receivers(q);
        }
        let Some(qp) = self.qps.get_mut(q) else {
            return false;
        };
        let (posted, result) = self.sends.post(&qp.host);
        qp.sq_head = qp.sq_head.wrapping_add(posted as u32);
        if let Err(error) = result {
            // Of those that the card did not take the first is at fault, or has no
            // room.
            refused = None;
            match error.raw_os_error() {
                Some(libc::ENOMEM | libc::EAGAIN) if qp.outstanding() > 0 => qp.is_blocked = true,
                code => {
                    tracing::debug!(qpn = qp.qpn, ?code, "the card refuses a request");
                    let mut wqe = SendWqe::new_zeroed();
                    qp.sq.read(qp.sq_head, 0, wqe.as_mut_bytes());
                    refused = Some((wqe, WcStatus::LocQpOpErr));
                }
            }
        }
        if let Some((wqe, status)) = refused {
            qp.refused = Some(failed(qp, &wqe, status));
        }
        let (send_cq, is_refused) = (qp.send_cq, qp.refused.is_some());
        if posted > 0 {
            self.heat(send_cq);
        }
        if is_refused {
            self.complete_refused(q);
        } else if more {
            self.enqueue(q);
        }
        posted > 0 || is_refused
    }

    /// Hands over what those of this host have posted to receive that a batch is for. Who
    /// posts a receive and then has a peer send may count on it; the card must not see the
    /// one before the other, whatever order the doorbells are looked at in.
    fn serve_receivers(&mut self, sender: usize) {
        let domain = self.qps.get(sender).map(|qp| qp.domain);
        let mut receivers = std::mem::take(&mut self.receivers);
        for qpn in receivers.drain(..) {
            let Some(q) = self.qpns.get(&qpn).copied() else {
                continue;
            };
            let Some(qp) = self.qps.get(q) else { continue };
            // A peer elsewhere may have the number of a stranger's queue pair here.
            let takes = Some(qp.domain) == domain && !matches!(qp.state, State::Reset | State::Err);
            match (qp.srq, &qp.rq) {
                (Some(r), _) if takes => drop(self.post_shared(r)),
                (None, Some(rq)) if takes && rq.has_news() => drop(self.post_receives(q)),
                _ => {}
            }
        }
        self.receivers = receivers;
    }

    /// Puts a request into the batch.
    fn prepare(&mut self, q: usize, index: u32, wqe: &SendWqe) -> Result<PostedSend, WcStatus> {
        let qp = self.qps.get(q).ok_or(WcStatus::FatalErr)?;
        let judged = self.judge(qp, index, wqe);
        let judged = match judged {
            Err(WcStatus::GeneralErr) => {
                if let Some(qp) = self.qps.get_mut(q) {
                    qp.cause = Some("the policy does not allow this operation (verbs)");
                }
                return Err(WcStatus::LocQpOpErr);
            }
            other => other?,
        };
        let session = self.sessions.get(qp.session).ok_or(WcStatus::FatalErr)?;
        let to = match qp.qp_type {
            QpType::Ud => {
                let ah = session.ahs.get(&wqe.ah).filter(|ah| ah.pd == qp.pd);
                let ah = ah.ok_or(WcStatus::LocQpOpErr)?;
                let qkey = (wqe.compare_add >> 32) as u32;
                // A Q_Key with its high bit set stands for the queue pair's own.
                let qkey = match qkey >> 31 {
                    0 => qkey,
                    _ => qp.attr.qkey,
                };
                let qpn = wqe.compare_add as u32 & 0xff_ffff;
                let is_there = self.may_address(qp, ah, qpn);
                if ah.endpoint.is_some() && is_there && !self.receivers.contains(&qpn) {
                    self.receivers.push(qpn);
                }
                Some(To {
                    ah: &ah.host,
                    // 0 is no queue pair that takes datagrams: the card drops it, as
                    // if there were none.
                    qpn: if is_there { qpn } else { 0 },
                    qkey,
                })
            }
            _ => None,
        };
        let asked = SendFlags::from_bits_truncate(wqe.flags);
        let mut flags = 0;
        for (flag, bit) in [
            (SendFlags::FENCE, IBV_SEND_FENCE),
            (SendFlags::SIGNALED, IBV_SEND_SIGNALED),
            (SendFlags::SOLICITED, IBV_SEND_SOLICITED),
            (SendFlags::INLINE, IBV_SEND_INLINE),
        ] {
            if asked.contains(flag) {
                flags |= bit;
            }
        }
        let mut inline = |out: &mut [u8]| qp.sq.read(index, SEND_DATA, out);
        let payload = match asked.contains(SendFlags::INLINE) {
            true => Payload::Inline(judged.total as usize, &mut inline),
            false => Payload::List(judged.sges.get(..judged.count).unwrap_or_default()),
        };
        let id = WrId::Send(q, qp.epoch, index).pack();
        let posted = PostedSend {
            wr_id: wqe.wr_id,
            bytes: judged.total,
            opcode: rules(judged.opcode).completion as u8,
            signalled: asked.contains(SendFlags::SIGNALED) || qp.sq_sig_all,
        };
        match self.sends.push(id, wqe, judged.opcode, flags, payload, to) {
            true => Ok(posted),
            false => Err(WcStatus::LocLenErr),
        }
    }

    /// Whether a queue pair number may be reached through an address handle: of this
    /// host only the queue pairs of the endpoint that the policy was asked about.
    fn may_address(&self, qp: &Qp, ah: &super::Ah, qpn: u32) -> bool {
        let is_barred = ah.only.as_ref().is_some_and(|only| !only.contains(&qpn));
        let is_there = |endpoint| {
            let peer = self.qpns.get(&qpn).and_then(|p| self.qps.get(*p));
            peer.is_some_and(|peer| peer.domain == qp.domain && peer.endpoint == endpoint)
        };
        !is_barred && ah.endpoint.is_none_or(is_there)
    }

    /// Judges what the card does not know: the policy, and the form of the slot.
    /// GENERAL_ERR stands for the policy.
    fn judge(&self, qp: &Qp, index: u32, wqe: &SendWqe) -> Result<Judged, WcStatus> {
        let opcode = SendOpcode::from_raw(wqe.opcode).ok_or(WcStatus::LocQpOpErr)?;
        if !opcode_allowed(qp.qp_type, opcode) {
            return Err(WcStatus::LocQpOpErr);
        }
        let session = self.sessions.get(qp.session).ok_or(WcStatus::FatalErr)?;
        if !session.grants.allows(opcode) {
            let (session, qpn) = (&session.label, qp.qpn);
            tracing::warn!(session, qpn, ?opcode, rule = "verbs", "refused");
            return Err(WcStatus::GeneralErr);
        }
        let rules = rules(opcode);
        let mut judged = Judged {
            opcode,
            total: 0,
            count: 0,
            sges: [Sge::default(); MAX_SGE],
        };
        if rules.kind == Kind::Local || rules.invalidate {
            // Windows are not offered, so there is nothing to bind or invalidate.
            return Err(WcStatus::LocQpOpErr);
        }
        let is_iwarp = self.card.link == Link::Iwarp;
        if is_iwarp && (rules.immediate || rules.kind == Kind::Atomic) {
            return Err(WcStatus::LocQpOpErr);
        }
        if SendFlags::from_bits_truncate(wqe.flags).contains(SendFlags::INLINE) {
            let len = wqe.inline_len as usize;
            let room = (qp.sq.stride() as usize).saturating_sub(SEND_DATA);
            let most = (qp.attr.caps.max_inline_data as usize).min(MAX_INLINE);
            if !rules.inline || len > room || len > most {
                return Err(WcStatus::LocLenErr);
            }
            judged.total = len as u64;
            return Ok(judged);
        }
        let count = usize::from(wqe.num_sge);
        let room = (qp.sq.stride() as usize).saturating_sub(SEND_DATA) / size_of::<Sge>();
        if count > room || count > qp.attr.caps.max_send_sge as usize {
            return Err(WcStatus::LocLenErr);
        }
        let Some(sges) = judged.sges.get_mut(..count) else {
            return Err(WcStatus::LocLenErr);
        };
        qp.sq.read(index, SEND_DATA, sges.as_mut_bytes());
        if !self.card.has_iova {
            place(&session.regions, sges);
        }
        judged.total = sges.iter().map(|sge| u64::from(sge.length)).sum();
        judged.count = count;
        // One element says where a READ's data goes; without, siw takes what was there.
        if is_iwarp && opcode == SendOpcode::RdmaRead && (count != 1 || judged.total == 0) {
            return Err(WcStatus::LocLenErr);
        }
        let is_atomic = rules.kind == Kind::Atomic;
        if judged.total > MAX_MESSAGE || is_atomic && judged.total < 8 {
            return Err(WcStatus::LocLenErr);
        }
        Ok(judged)
    }

    pub(super) fn post_receives(&mut self, q: usize) -> bool {
        let Some(qp) = self.qps.get_mut(q) else {
            return false;
        };
        if matches!(qp.connection, Connection::Ended | Connection::Lost { .. }) {
            // The card would take them and never give them back.
            return false;
        }
        let epoch = qp.epoch;
        let Some(rq) = &mut qp.rq else { return false };
        let regions = match self.card.has_iova {
            true => None,
            false => self.sessions.get(qp.session).map(|s| &s.regions),
        };
        rq.fill(&mut self.receives, regions, |entry| {
            WrId::Receive(q, epoch, entry).pack()
        });
        let more = self.receives.is_full();
        let (posted, result) = self.receives.post(&qp.host);
        rq.taken(posted);
        let fault = match result.map_err(|error| error.raw_os_error()) {
            Ok(()) => false,
            // Completions make room.
            Err(Some(libc::ENOMEM | libc::EAGAIN)) => rq.outstanding() == 0,
            Err(_) => true,
        };
        let recv_cq = qp.recv_cq;
        let mut more = more;
        if self.is_frugal && qp.ask_for_rings_if_needed() {
            more |= qp.rq.as_ref().is_some_and(ReceiveQueue::has_news);
        }
        if posted > 0 {
            self.heat(recv_cq);
        }
        if fault {
            self.fail(q, "the card refused a receive");
        } else if more {
            self.enqueue(q);
        }
        posted > 0
    }

    /// Hands receives of a shared queue to the card.
    pub(super) fn run_srq(&mut self, r: usize) -> bool {
        let Some(srq) = self.srqs.get_mut(r) else {
            return false;
        };
        srq.queued = false;
        self.post_shared(r)
    }

    fn post_shared(&mut self, r: usize) -> bool {
        let Some(srq) = self.srqs.get_mut(r) else {
            return false;
        };
        let regions = match self.card.has_iova {
            true => None,
            false => self.sessions.get(srq.session).map(|s| &s.regions),
        };
        let id = |entry| WrId::Shared(r, entry).pack();
        srq.queue.fill(&mut self.receives, regions, id);
        let more = self.receives.is_full();
        let (posted, result) = self.receives.post_shared(&srq.host);
        srq.queue.taken(posted);
        if let Err(error) = result {
            tracing::debug!(srq = srq.handle, %error, "the card refuses a receive");
        } else if more {
            self.enqueue_srq(r);
        }
        posted > 0
    }
}

/// The completion of a request that was not handed to the card.
pub(super) fn failed(qp: &Qp, wqe: &SendWqe, status: WcStatus) -> Cqe {
    let opcode = SendOpcode::from_raw(wqe.opcode);
    Cqe {
        status: status as u8,
        opcode: opcode.map_or(WcOpcode::Send, |o| rules(o).completion) as u8,
        wr_id: wqe.wr_id,
        index: qp.sq_head,
        qp_num: qp.qpn,
        ..Cqe::default()
    }
}
