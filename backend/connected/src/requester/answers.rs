//! What a requester makes of responses (IBA 9.7.5.1, 9.7.6).

use super::Requester;
use crate::sequence::Seq;
use crate::{Fate, Landing};
use masq_spec::queue::WcStatus;
use masq_transport::{Kind, Nak, Nanos, Verdict};
use masq_wire::{Aeth, Extended, Headers, NakCode, Operation, Service, Syndrome};

impl Requester {
    /// Takes a response. `payload` is its length; the bytes are with `landing`.
    pub fn handle(
        &mut self,
        headers: &Headers,
        payload: usize,
        now: Nanos,
        landing: &mut impl Landing,
    ) -> Fate {
        let traits = headers.bth.opcode.traits();
        if !self.is_reliable() || traits.service != Service::Rc || self.failure.is_some() {
            return Fate::Dropped;
        }
        let seq = self.una.nearest(headers.bth.psn);
        // A ghost acknowledges what was never sent (IBA 9.7.6).
        if seq >= self.high {
            return Fate::Dropped;
        }
        match (traits.operation, headers.extended) {
            (Operation::Acknowledge, Extended::Aeth(aeth)) => self.acknowledged(seq, aeth, now),
            (Operation::ReadResponse, Extended::Plain) => self.response(seq, payload, now, landing),
            (Operation::ReadResponse, Extended::Aeth(aeth))
                if matches!(aeth.syndrome, Syndrome::Ack(_)) =>
            {
                self.response(seq, payload, now, landing)
            }
            (Operation::AtomicAcknowledge, Extended::AtomicAck(aeth, ack))
                if matches!(aeth.syndrome, Syndrome::Ack(_)) =>
            {
                self.atomic_response(seq, ack.original, now, landing)
            }
            _ => Fate::Dropped,
        }
    }

    /// A congestion notification came (A17.9.3).
    pub fn congestion(&mut self) {
        self.window.notified(self.una, self.high);
    }

    fn acknowledged(&mut self, seq: Seq, aeth: Aeth, now: Nanos) -> Fate {
        match aeth.syndrome {
            Syndrome::Ack(credits) => {
                // The latest ACK repeated may bring new credits.
                if seq.plus(1) < self.una {
                    return Fate::Duplicate;
                }
                self.limit = credits.count().map(|count| aeth.msn.plus(count));
                if seq < self.una {
                    return Fate::Duplicate;
                }
                if !self.advance_over(seq.plus(1), now) {
                    return self.lost();
                }
                Fate::Taken
            }
            _ if seq < self.una => Fate::Duplicate,
            // A NAK acknowledges all before it.
            Syndrome::Nak(NakCode::PsnSequence) => {
                self.advance_over(seq, now);
                self.lost()
            }
            Syndrome::RnrNak(timer) => {
                if !self.advance_over(seq, now) {
                    return self.lost();
                }
                self.refused(Nak::ReceiverNotReady(timer.code()), now)
            }
            Syndrome::Nak(code) => {
                let nak = match code {
                    NakCode::InvalidRequest => Nak::InvalidRequest,
                    NakCode::RemoteAccess => Nak::RemoteAccess,
                    NakCode::RemoteOperation => Nak::RemoteOperation,
                    NakCode::PsnSequence | NakCode::InvalidRdRequest => return Fate::Dropped,
                };
                if !self.advance_over(seq, now) {
                    return self.lost();
                }
                self.refused(nak, now)
            }
            Syndrome::Reserved(_) => Fate::Dropped,
        }
    }

    /// The responder refused the request at `una`.
    fn refused(&mut self, nak: Nak, now: Nanos) -> Fate {
        // One that was sent before the present wait is no further refusal.
        if self.not_before.is_some() {
            return Fate::Duplicate;
        }
        match self.retry.refused(nak, now) {
            Verdict::Fail(status) => {
                self.fail(status);
                Fate::Taken
            }
            Verdict::RetryAt(until) => {
                self.counters.rnr_waits += 1;
                self.go_back();
                self.stop_timers();
                self.not_before = Some(until);
                Fate::NotReady
            }
            Verdict::Wait => Fate::NotReady,
        }
    }

    fn response(
        &mut self,
        seq: Seq,
        payload: usize,
        now: Nanos,
        landing: &mut impl Landing,
    ) -> Fate {
        let Some((id, offset, len)) = self.awaited(seq, Kind::Read) else {
            return self.unawaited(seq, Kind::Read, now);
        };
        if payload != len as usize {
            return Fate::Dropped;
        }
        let placed = landing.place(id, offset, len);
        self.landed(seq, placed, now)
    }

    fn atomic_response(
        &mut self,
        seq: Seq,
        original: u64,
        now: Nanos,
        landing: &mut impl Landing,
    ) -> Fate {
        let Some((id, ..)) = self.awaited(seq, Kind::Atomic) else {
            return self.unawaited(seq, Kind::Atomic, now);
        };
        let placed = landing.place_atomic(id, original);
        self.landed(seq, placed, now)
    }

    /// The request that data with this number is for, and where it goes, if
    /// everything before it was answered or is by this.
    fn awaited(&self, seq: Seq, kind: Kind) -> Option<(u64, u32, u32)> {
        let slots = self.slots.iter().skip(self.done);
        let mut reached = self.una;
        for slot in slots {
            if slot.kind == kind && slot.first <= seq && seq < slot.end() {
                let in_order = seq == reached.max(slot.first);
                let (offset, len) = slot.piece(seq.since(slot.first), self.config.mtu);
                return in_order.then_some((slot.request.id, offset, len));
            }
            if slot.is_answered_by_data() || slot.end() > seq {
                return None;
            }
            reached = reached.max(slot.end());
        }
        None
    }

    /// Data that is not for the oldest request.
    fn unawaited(&mut self, seq: Seq, kind: Kind, now: Nanos) -> Fate {
        if seq < self.una {
            return Fate::Duplicate;
        }
        let mut slots = self.slots.iter().skip(self.done);
        let belongs = slots.any(|s| s.kind == kind && s.first <= seq && seq < s.end());
        if !belongs {
            return Fate::Dropped;
        }
        // What it acknowledges by the way counts; what is missing is lost.
        self.advance_over(seq, now);
        self.lost()
    }

    fn landed(&mut self, seq: Seq, placed: Result<(), WcStatus>, now: Nanos) -> Fate {
        self.advance_over(seq, now);
        if let Err(status) = placed {
            self.fail(status);
            return Fate::Faulty;
        }
        self.advance(seq.plus(1), now);
        Fate::Taken
    }

    /// Everything before `end` is acknowledged. Stops, with false, at a request
    /// that is answered by data: that data is lost (IBA 9.7.5.1, 9.7.6).
    fn advance_over(&mut self, end: Seq, now: Nanos) -> bool {
        let mut una = self.una;
        for slot in self.slots.iter().skip(self.done) {
            if una >= end || slot.is_answered_by_data() {
                break;
            }
            una = una.max(slot.end().min(end));
        }
        if una > self.una {
            self.advance(una, now);
        }
        self.una >= end
    }

    fn advance(&mut self, una: Seq, now: Nanos) {
        self.window.answered(una.since(self.una));
        self.una = una;
        self.retry.progress();
        self.rtt.answered(una, now);
        self.not_before = None;
        self.settle();
        if self.failure.is_none() {
            self.restart_timers(now);
        }
    }

    /// The answer to `una`, or `una` itself, is lost: goes back, once.
    fn lost(&mut self) -> Fate {
        if self.not_before.is_some() || self.went_back_to == Some(self.una) {
            return Fate::Duplicate;
        }
        self.counters.losses += 1;
        self.window.lost(self.una, self.high);
        self.go_back();
        Fate::OutOfOrder
    }
}
