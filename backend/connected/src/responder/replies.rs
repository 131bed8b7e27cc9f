//! Answers that wait to be sent, in the order of their requests.
//!
//! Their number is bounded: there is at most one for each READ or atomic that
//! is remembered, and what lies between two of those is one ACK or NAK, because
//! each says all that the ones before it did.

use super::{Arrival, Executed, Responder};
use crate::message::read_response;
use crate::sequence::Seq;
use crate::{Payload, Transmit};
use masq_transport::ResponderFault;
use masq_wire::{
    Aeth, AtomicAckEth, Bth, Extended, Headers, Msn, Mtu, Opcode, Psn, Reth, Syndrome,
};
use std::collections::VecDeque;

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reply {
    /// An ACK or NAK.
    Acknowledge {
        seq: Seq,
        syndrome: Syndrome,
        msn: Msn,
    },
    /// Data.
    Data(Data),
}

/// The answer to a READ or atomic, or a part of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    /// The first number of the request that is remembered; its name.
    pub(super) first: Seq,
    /// Numbers to answer: the first, the next and the one after the last.
    pub(super) start: Seq,
    pub(super) next: Seq,
    pub(super) end: Seq,
    pub(super) what: Executed,
    pub(super) msn: Msn,
    /// It was answered before.
    pub(super) repeats: bool,
}

impl Reply {
    fn seq(&self) -> Seq {
        match self {
            Self::Acknowledge { seq, .. } => *seq,
            Self::Data(data) => data.next,
        }
    }
}

#[derive(Debug)]
pub(super) struct Replies {
    queue: VecDeque<Reply>,
}

impl Replies {
    pub(super) fn new(remembered: usize) -> Self {
        Self {
            queue: VecDeque::with_capacity(2 * remembered + 2),
        }
    }

    pub(super) fn reserve(&mut self, remembered: usize) {
        let most = 2 * remembered + 2;
        self.queue.reserve(most.saturating_sub(self.queue.len()));
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    /// Queues an ACK of everything up to `seq`, joined with the one before it.
    pub(super) fn push_ack(&mut self, seq: Seq, syndrome: Syndrome, msn: Msn) {
        match self.queue.back_mut() {
            // It says so already. A NAK says that all before it arrived.
            Some(Reply::Acknowledge { seq: last, .. }) if *last > seq => {}
            Some(back @ Reply::Acknowledge { .. }) => {
                *back = Reply::Acknowledge { seq, syndrome, msn };
            }
            _ => self
                .queue
                .push_back(Reply::Acknowledge { seq, syndrome, msn }),
        }
    }

    /// Queues a NAK; it acknowledges all before `seq`.
    pub(super) fn push_nak(&mut self, seq: Seq, syndrome: Syndrome, msn: Msn) {
        if let Some(Reply::Acknowledge { .. }) = self.queue.back() {
            self.queue.pop_back();
        }
        self.queue
            .push_back(Reply::Acknowledge { seq, syndrome, msn });
    }

    /// Queues data: behind all that is for earlier numbers. What waits already
    /// is resumed from where it is wanted.
    pub(super) fn push_data(&mut self, data: Data) {
        let waiting = self.queue.iter_mut().find_map(|reply| match reply {
            Reply::Data(waiting) if waiting.first == data.first => Some(waiting),
            _ => None,
        });
        if let Some(waiting) = waiting {
            if data.start < waiting.next {
                (waiting.start, waiting.next) = (data.start, data.start);
            }
            waiting.end = waiting.end.max(data.end);
            return;
        }
        let later = self
            .queue
            .iter()
            .position(|reply| reply.seq() >= data.start);
        let at = later.unwrap_or(self.queue.len());
        self.queue.insert(at, Reply::Data(data));
    }

    /// Drops the repeated answer to a request; false if it was never answered.
    pub(super) fn forget(&mut self, first: Seq) -> bool {
        let waiting = self.queue.iter().position(|reply| match reply {
            Reply::Data(data) => data.first == first,
            Reply::Acknowledge { .. } => false,
        });
        let Some(at) = waiting else { return true };
        if let Some(Reply::Data(Data { repeats: false, .. })) = self.queue.get(at) {
            return false;
        }
        self.queue.remove(at);
        let before = at.checked_sub(1).and_then(|before| self.queue.get(before));
        if let (Some(Reply::Acknowledge { .. }), Some(Reply::Acknowledge { .. })) =
            (before, self.queue.get(at))
        {
            self.queue.remove(at - 1);
        }
        true
    }
}

impl Responder {
    /// The next packet to send.
    pub fn poll_packet(&mut self) -> Option<Transmit> {
        if std::mem::take(&mut self.cnp_due) {
            let mut headers = self.headers(Opcode::Cnp, Psn::new(0), Extended::Cnp);
            headers.bth.becn = true;
            return Some(Transmit {
                headers,
                payload: Payload::None,
            });
        }
        let mtu = self.config.mtu;
        let (psn, msn, answer) = match self.replies.queue.front_mut()? {
            Reply::Acknowledge { seq, syndrome, msn } => {
                let aeth = Aeth {
                    syndrome: *syndrome,
                    msn: *msn,
                };
                let psn = seq.psn();
                self.replies.queue.pop_front();
                let headers = self.headers(Opcode::RcAcknowledge, psn, Extended::Aeth(aeth));
                return Some(Transmit {
                    headers,
                    payload: Payload::None,
                });
            }
            Reply::Data(data) => {
                let psn = data.next.psn();
                let answer = data.answer(mtu)?;
                data.next = data.next.plus(1);
                (psn, data.msn, answer)
            }
        };
        if let Some(Reply::Data(data)) = self.replies.queue.front()
            && data.next >= data.end
        {
            self.replies.queue.pop_front();
        }
        let aeth = Aeth {
            syndrome: Syndrome::Ack(self.credits),
            msn,
        };
        let (opcode, extended, payload) = match answer {
            Answer::Atomic(original) => {
                let ack = AtomicAckEth { original };
                let extended = Extended::AtomicAck(aeth, ack);
                (Opcode::RcAtomicAcknowledge, extended, Payload::None)
            }
            Answer::Read(Opcode::RcReadResponseMiddle, payload) => {
                (Opcode::RcReadResponseMiddle, Extended::Plain, payload)
            }
            Answer::Read(opcode, payload) => (opcode, Extended::Aeth(aeth), payload),
        };
        let headers = self.headers(opcode, psn, extended);
        Some(Transmit { headers, payload })
    }

    fn headers(&self, opcode: Opcode, psn: Psn, extended: Extended) -> Headers {
        let mut bth = Bth::new(opcode, self.config.dest_qpn, psn);
        bth.mig_req = true;
        Headers { bth, extended }
    }

    /// The payload of the READ response with this PSN, which
    /// [`poll_packet`](Self::poll_packet) returned last, was not to be had. The
    /// responder ends; a receive that an arriving message holds is flushed.
    pub fn gather_failed(&mut self, psn: Psn, fault: ResponderFault) -> Arrival {
        let seq = self.expected.nearest(psn);
        self.end_at(seq, fault)
    }

    /// The oldest atomic whose value was not known at once found this, or
    /// failed.
    pub fn atomic_done(&mut self, outcome: Result<u64, ResponderFault>) -> Option<Arrival> {
        let waits = |what: &Executed| matches!(what, Executed::Atomic { original: None, .. });
        let resource = self.resources.iter_mut().find(|r| waits(&r.what))?;
        let first = resource.first;
        let value = match outcome {
            Ok(value) => value,
            Err(fault) => return Some(self.end_at(first, fault)),
        };
        resource.what.found(value);
        for reply in &mut self.replies.queue {
            if let Reply::Data(data) = reply
                && data.first == first
            {
                data.what.found(value);
            }
        }
        None
    }

    /// The payload of the request with this PSN, the last that was taken, could
    /// not be placed after all. Nothing that acknowledges it may have been sent.
    pub fn placing_failed(&mut self, psn: Psn, fault: ResponderFault) -> Arrival {
        let seq = self.expected.nearest(psn);
        self.end_at(seq, fault)
    }

    /// A fault that shows only after later requests were taken.
    fn end_at(&mut self, seq: Seq, fault: ResponderFault) -> Arrival {
        self.replies.queue.retain(|reply| reply.seq() < seq);
        self.expected = seq;
        let receive = self.receive.take();
        let arrival = self.fault(fault);
        self.receive = receive;
        arrival
    }
}

impl Executed {
    fn found(&mut self, value: u64) {
        if let Self::Atomic { original, .. } = self {
            *original = Some(value);
        }
    }
}

enum Answer {
    Atomic(u64),
    Read(Opcode, Payload),
}

impl Data {
    /// The answer with number `next`; none while it is not known.
    fn answer(&self, mtu: Mtu) -> Option<Answer> {
        let Reth {
            address,
            rkey,
            length,
        } = match self.what {
            Executed::Atomic { original, .. } => return original.map(Answer::Atomic),
            Executed::Read(reth) => reth,
        };
        let opcode = read_response(self.next == self.start, self.next.plus(1) >= self.end);
        let mtu = mtu.bytes() as u64;
        let offset = self.next.since(self.first) * mtu;
        let len = u64::from(length).saturating_sub(offset).min(mtu);
        let payload = match len {
            0 => Payload::None,
            _ => Payload::Memory {
                key: rkey,
                addr: address.wrapping_add(offset),
                len: len as u32,
            },
        };
        Some(Answer::Read(opcode, payload))
    }
}
