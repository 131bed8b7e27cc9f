//! The turn of a queue pair whose peer is on another host.

use super::emit::Unsent;
use super::fetch::Fetch;
use super::pending::Pending;
use super::{Link, Wire};
use crate::engine::objects::{Current, Waiting};
use crate::engine::{Engine, Step};
use masq_connected::{Request, Transmit};
use masq_spec::queue::{SendFlags, SendOpcode, WcStatus};
use masq_spec::verbs::State;
use masq_transport::Nanos;
use masq_wire::{ImmDt, Opcode, RKey};

/// What a packet costs at least, in bytes of the turn's budget.
const PACKET_COST: u64 = 128;

/// A half of a link, with what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    /// Requests.
    Requester,
    /// Answers.
    Responder,
}

/// How far a half came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// There is nothing more to send now.
    Idle,
    /// The turn's bytes are used up.
    Spent,
}

impl Engine {
    /// Sends answers, takes requests, sends packets, completes. None: there was
    /// nothing to do.
    pub(in crate::engine) fn step_link(&mut self, q: usize, bytes: &mut u64) -> Option<Step> {
        let mut link = self.qps.get_mut(q)?.link.take()?;
        let Some(mut wire) = self.wire.take() else {
            self.put_back(q, link);
            return None;
        };
        let step = self.drive(q, &mut link, &mut wire, bytes);
        self.wire = Some(wire);
        self.arm(q, &mut link);
        self.put_back(q, link);
        step
    }

    fn drive(
        &mut self,
        q: usize,
        link: &mut Link,
        wire: &mut Wire,
        bytes: &mut u64,
    ) -> Option<Step> {
        link.overdrawn = spend(bytes, link.overdrawn);
        let before = *bytes;
        self.take_backlog(q, link, wire);
        let answers_wait = link.pending.as_ref().is_some_and(Pending::holds_answers);
        if !answers_wait && self.send(q, link, wire, bytes, Half::Responder) == Flow::Spent {
            return Some(Step::More);
        }
        if let Some(requester) = &mut link.requester
            && requester
                .deadline()
                .is_some_and(|at| at <= self.clock.now())
        {
            requester.expire(self.clock.now());
        }
        let mut worked = *bytes < before;
        loop {
            let taken = self.take_requests(q, link);
            let sent = self.send(q, link, wire, bytes, Half::Requester);
            let completed = self.complete_requests(q, link);
            worked |= taken || completed;
            if sent == Flow::Spent {
                return Some(Step::More);
            }
            if !taken && !completed {
                break;
            }
        }
        let state = self.qps.get(q)?.state;
        let is_empty = link.posted.is_empty();
        match state {
            // What the link held is flushed; now what is on the rings.
            State::Err | State::Sqe if is_empty && link.pending.is_none() => {
                let waits = self.qps.get(q)?.waiting != Waiting::Nothing;
                if waits {
                    Some(Step::Wait)
                } else {
                    self.flush_one(q)
                }
            }
            State::Sqd => {
                let drained = link.requester.as_ref().is_none_or(|r| r.is_drained());
                if drained && !link.requester.as_ref().is_some_and(has_complete) {
                    self.drained(q);
                }
                None
            }
            _ if worked || *bytes < before => Some(Step::Wait),
            _ => None,
        }
    }

    /// Takes requests off the send queue.
    fn take_requests(&mut self, q: usize, link: &mut Link) -> bool {
        let mut taken = false;
        while !link.ended && link.room() {
            let Some(qp) = self.qps.get(q) else { break };
            let slot = qp.sq_head.wrapping_add(link.posted.len() as u32);
            if qp.state != State::Rts || !qp.sq.is_published(slot) {
                break;
            }
            let mut request = link.take_spare();
            request.slot = slot;
            let judged = self.fetch(q, &mut request);
            let Some(requester) = &mut link.requester else {
                break;
            };
            let id = link.first + link.posted.len() as u64;
            let opcode = SendOpcode::from_raw(request.wqe.opcode);
            let posted = requester.post(describe(id, opcode, &request));
            if posted.is_err() {
                link.spare.push(request);
                break;
            }
            link.posted.push_back(request);
            if let Err(status) = judged {
                requester.reject(id, status);
            }
            taken = true;
        }
        taken
    }

    /// Sends what one half of the link has to send.
    fn send(
        &mut self,
        q: usize,
        link: &mut Link,
        wire: &mut Wire,
        bytes: &mut u64,
        half: Half,
    ) -> Flow {
        let mut listed = None;
        loop {
            // A train is not cut at the end of a turn.
            if *bytes == 0 && !wire.continues(&link.path) {
                return Flow::Spent;
            }
            let Some(packet) = link.next_packet(half, self.clock.now()) else {
                return Flow::Idle;
            };
            match self.emit(q, link, wire, &packet, &mut listed) {
                Ok(()) => {
                    let cost = u64::from(packet.payload.len()).max(PACKET_COST);
                    link.overdrawn += spend(bytes, cost);
                }
                Err(Unsent::Waits) => {
                    link.fetch(half).waiting = Some(packet);
                    return Flow::Idle;
                }
                Err(Unsent::Request(id, status)) => {
                    if let Some(requester) = &mut link.requester {
                        requester.reject(id, status);
                    }
                }
                Err(Unsent::Answer(fault)) => {
                    let psn = packet.headers.bth.psn;
                    let arrival = link.responder.gather_failed(psn, fault);
                    self.concluded(q, link, &arrival);
                }
            }
        }
    }

    /// Completes what is complete, and carries out local operations in their
    /// turn.
    pub(super) fn complete_requests(&mut self, q: usize, link: &mut Link) -> bool {
        let mut completed = false;
        // The bytes of answers are where they belong before they are told of, and a packet
        // that waits for its bytes keeps its request: UC has no acknowledgement to wait for.
        while !link
            .pending
            .as_ref()
            .is_some_and(Pending::holds_completions)
            && !link.first_waits()
        {
            let Some(requester) = &mut link.requester else {
                break;
            };
            if let Some(done) = requester.poll_completion() {
                completed = true;
                let Some(request) = link.posted.pop_front() else {
                    break;
                };
                link.first = done.id + 1;
                let _ = self.complete(q, request, done.status);
                let spare = self.qps.get_mut(q).and_then(|qp| qp.spare.take());
                link.spare.extend(spare);
                if done.status != WcStatus::Success {
                    self.after_failure(q, link);
                }
                continue;
            }
            let Some(id) = requester.poll_local() else {
                break;
            };
            completed = true;
            let Some(request) = link.request(id) else {
                break;
            };
            let status = self.carry_out(q, request);
            if let Some(requester) = &mut link.requester {
                requester.local_done(match status {
                    WcStatus::Success => Ok(()),
                    status => Err(status),
                });
            }
        }
        completed
    }

    /// The queue pair is in ERROR or SQE by now.
    fn after_failure(&mut self, q: usize, link: &mut Link) {
        let state = self.qps.get(q).map(|qp| qp.state);
        match state {
            Some(State::Err) if !link.ended => link.end(),
            Some(State::Sqe) => link.ended = true,
            _ => {}
        }
    }

    /// Sets the timer that the requester asks for, unless an earlier one is set.
    fn arm(&mut self, q: usize, link: &mut Link) {
        let wanted = link.requester.as_ref().and_then(|r| r.deadline());
        let Some(at) = wanted.filter(|_| !link.ended) else {
            return;
        };
        if link.timer.is_none_or(|(_, set)| set > at) {
            link.timer = Some((self.timers.add(at, q, None), at));
        }
    }
}

impl Link {
    fn fetch(&mut self, half: Half) -> &mut Fetch {
        match half {
            Half::Requester => &mut self.requests,
            Half::Responder => &mut self.answers,
        }
    }

    /// The packet that waited for its bytes, or the next.
    fn next_packet(&mut self, half: Half, now: Nanos) -> Option<Transmit> {
        if let waiting @ Some(_) = self.fetch(half).waiting.take() {
            return waiting;
        }
        match half {
            Half::Requester => self.requester.as_mut()?.poll_packet(now),
            Half::Responder => {
                let packet = self.responder.poll_packet()?;
                // Each response reads memory anew.
                if matches!(
                    packet.headers.bth.opcode,
                    Opcode::RcReadResponseFirst | Opcode::RcReadResponseOnly
                ) {
                    self.answers.chunk = None;
                }
                Some(packet)
            }
        }
    }
}

pub(super) fn has_complete(requester: &masq_connected::Requester) -> bool {
    requester.has_completion()
}

/// Takes a cost off what is left of a turn; returns what the next turn is to pay.
fn spend(bytes: &mut u64, cost: u64) -> u64 {
    let paid = cost.min(*bytes);
    *bytes -= paid;
    cost - paid
}

/// A work request, as the requester sees it. What was found wrong with it is
/// told by `reject`.
pub(in crate::engine) fn describe(
    id: u64,
    opcode: Option<SendOpcode>,
    request: &Current,
) -> Request {
    let wqe = &request.wqe;
    let flags = SendFlags::from_bits_truncate(wqe.flags);
    Request {
        id,
        opcode: opcode.unwrap_or(SendOpcode::Send),
        // At most 2^31, or it was refused.
        length: u32::try_from(request.total).unwrap_or(0),
        remote_addr: wqe.remote_addr,
        rkey: RKey(wqe.rkey),
        imm: ImmDt(wqe.imm_data.to_ne_bytes()),
        invalidate: RKey(wqe.imm_data),
        compare_add: wqe.compare_add,
        swap: wqe.swap,
        fence: flags.contains(SendFlags::FENCE),
        solicited: flags.contains(SendFlags::SOLICITED),
    }
}
