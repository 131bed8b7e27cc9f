//! The responder: takes requests in order, and answers them in order.

mod duplicate;
mod execute;
mod replies;
mod unreliable;

use crate::sequence::Seq;
use crate::{Fate, Memory};
use masq_spec::queue::WcStatus;
use masq_spec::verbs::{Access, QpType};
use masq_transport::{Nak, Nanos, ResponderFault, ResponderOutcome};
use masq_wire::{
    Credits, Headers, ImmDt, Msn, Mtu, NakCode, Operation, Psn, Qpn, RKey, Reth, RnrTimer, Service,
    Syndrome,
};
use replies::Replies;
use std::collections::VecDeque;

/// A refusal that ends the responder is repeated so often, if the requester did
/// not hear it.
const REPETITIONS: u8 = 16;
/// Congestion is reported at most this often (A17.9.3 leaves it open).
const CNP_INTERVAL: Nanos = 50_000;

/// What a responder is told of its queue pair.
#[derive(Clone, Copy, Debug)]
pub struct ResponderConfig {
    /// RC or UC; anything else counts as UC.
    pub qp_type: QpType,
    /// The peer.
    pub dest_qpn: Qpn,
    /// `rq_psn`.
    pub psn: Psn,
    /// Path MTU.
    pub mtu: Mtu,
    /// READs and atomics that it remembers and works on at once.
    pub max_dest_rd_atomic: u8,
    /// Code of the delay in its RNR NAKs.
    pub min_rnr_timer: u8,
    /// What the peer may do (`qp_access_flags`).
    pub access: Access,
}

/// A message that arrived whole and means something to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The receive that was taken completes; without it the message was a WRITE
    /// that nobody is told of.
    pub receive: bool,
    /// It was a WRITE (with immediate data, if `receive`).
    pub write: bool,
    /// Payload bytes.
    pub length: u32,
    /// Immediate data.
    pub imm: Option<ImmDt>,
    /// The key that was invalidated.
    pub invalidated: Option<RKey>,
    /// Raises a solicited event.
    pub solicited: bool,
}

/// A fault, and what the rule book makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was wrong.
    pub fault: ResponderFault,
    /// What follows. The answer is queued already; completing the receive, the
    /// state and the event are the caller's.
    pub outcome: ResponderOutcome,
    /// The status with which the receive that was taken completes. It is given
    /// to the next message if there is none (IBA 9.9.3, class D).
    pub receive: Option<WcStatus>,
}

/// What came of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// For counters.
    pub fate: Fate,
    /// The first request of the connection: in RTR, COMM_EST (IBA 11.6.3.1).
    pub established: bool,
    /// A message ended.
    pub delivery: Option<Delivery>,
    /// A fault.
    pub failure: Option<Failure>,
}

impl From<Fate> for Arrival {
    fn from(fate: Fate) -> Self {
        Self {
            fate,
            established: false,
            delivery: None,
            failure: None,
        }
    }
}

/// The message that is arriving.
#[derive(Clone, Copy, Debug)]
enum Message {
    Send {
        offset: u64,
    },
    Write {
        addr: u64,
        key: RKey,
        offset: u32,
        length: u32,
    },
}

/// A READ or atomic that was carried out and may be asked for again.
#[derive(Clone, Copy, Debug)]
struct Resource {
    first: Seq,
    end: Seq,
    /// Messages that were complete before it.
    msn_before: Msn,
    what: Executed,
}

#[derive(Clone, Copy, Debug)]
enum Executed {
    Read(Reth),
    Atomic {
        operation: Operation,
        addr: u64,
        original: Option<u64>,
    },
}

/// The receiving half of a queue pair.
#[derive(Debug)]
pub struct Responder {
    config: ResponderConfig,
    /// Number of the next new packet.
    expected: Seq,
    /// Messages that were completed.
    msn: Msn,
    message: Option<Message>,
    /// Room of the receive that was taken.
    receive: Option<u64>,
    /// The requester was told of a gap, or to wait; it is told once (IBA
    /// 9.7.5.1).
    told: bool,
    resources: VecDeque<Resource>,
    replies: Replies,
    credits: Credits,
    established: bool,
    /// It takes no requests any more; the refusal, and how often it may still
    /// be repeated.
    ended: Option<(Option<NakCode>, u8)>,
    cnp_due: bool,
    cnp_after: Nanos,
}

impl Responder {
    /// A responder in RTR.
    pub fn new(config: ResponderConfig) -> Self {
        let remembered = usize::from(config.max_dest_rd_atomic);
        Self {
            expected: Seq::first(config.psn),
            msn: Msn::new(0),
            message: None,
            receive: None,
            told: false,
            resources: VecDeque::with_capacity(remembered),
            replies: Replies::new(remembered),
            credits: Credits::UNLIMITED,
            established: false,
            ended: None,
            cnp_due: false,
            cnp_after: 0,
            config,
        }
    }

    /// Takes a request. `payload` is its length; the bytes are with `memory`.
    pub fn handle(
        &mut self,
        headers: &Headers,
        payload: usize,
        memory: &mut impl Memory,
    ) -> Arrival {
        let traits = headers.bth.opcode.traits();
        let service = match self.config.qp_type {
            QpType::Rc => Service::Rc,
            _ => Service::Uc,
        };
        if traits.service != service || !headers.bth.opcode.is_request() {
            return Fate::Dropped.into();
        }
        if let Some((nak, left)) = self.ended {
            return self.repeat_refusal(headers.bth.psn, nak, left);
        }
        if service == Service::Uc {
            return self.unreliable(headers, payload, memory);
        }
        let seq = self.expected.nearest(headers.bth.psn);
        if seq > self.expected {
            if self.told {
                return Fate::OutOfOrder.into();
            }
            self.told = true;
            let nak = Syndrome::Nak(NakCode::PsnSequence);
            self.replies.push_nak(self.expected, nak, self.msn);
            return Fate::OutOfOrder.into();
        }
        if seq < self.expected {
            self.duplicate(seq, headers);
            return Fate::Duplicate.into();
        }
        self.told = false;
        self.in_order(headers, payload, memory)
    }

    /// A packet of the peer bore a mark of congestion (ECN CE).
    pub fn congestion(&mut self, now: Nanos) {
        if now >= self.cnp_after {
            self.cnp_due = true;
            self.cnp_after = now.saturating_add(CNP_INTERVAL);
        }
    }

    /// Executes the next packet of a reliable connection.
    fn in_order(&mut self, headers: &Headers, payload: usize, memory: &mut impl Memory) -> Arrival {
        let (seq, msn) = (self.expected, self.msn);
        match self.execute(headers, payload, memory) {
            Ok(Executes { packets, delivery }) => {
                self.expected = seq.plus(packets);
                let by_data = self.resources.back().is_some_and(|r| r.first == seq);
                // Only what is answered tells them.
                if (headers.bth.ack_request || by_data)
                    && let Some(credits) = memory.credits()
                {
                    self.credits = Credits::at_most(credits);
                }
                if headers.bth.ack_request && !by_data {
                    let ack = Syndrome::Ack(self.credits);
                    self.replies.push_ack(seq, ack, self.msn);
                }
                self.taken(delivery)
            }
            Err(Refusal::NotReady) => {
                self.told = true;
                let timer = RnrTimer::from_code(self.config.min_rnr_timer);
                self.replies.push_nak(seq, Syndrome::RnrNak(timer), msn);
                Fate::NotReady.into()
            }
            Err(Refusal::Fault(fault)) => self.fault(fault),
        }
    }

    /// A packet was carried out.
    fn taken(&mut self, delivery: Option<Delivery>) -> Arrival {
        Arrival {
            established: !std::mem::replace(&mut self.established, true),
            delivery,
            ..Fate::Taken.into()
        }
    }

    /// What follows from a fault, by the rule book.
    fn fault(&mut self, fault: ResponderFault) -> Arrival {
        let outcome = fault.outcome(self.config.qp_type);
        self.message = None;
        let mut receive = None;
        if let (Some(_), Some(status)) = (self.receive, outcome.receive) {
            self.receive = None;
            receive = Some(status);
        }
        let code = outcome.nak.and_then(nak_code);
        if let Some(code) = code {
            self.replies
                .push_nak(self.expected, Syndrome::Nak(code), self.msn);
        }
        if outcome.to_error {
            self.ended = Some((code, REPETITIONS));
        }
        Arrival {
            failure: Some(Failure {
                fault,
                outcome,
                receive,
            }),
            ..Fate::Faulty.into()
        }
    }

    /// The request that was refused comes again: the refusal was lost.
    fn repeat_refusal(&mut self, psn: Psn, nak: Option<NakCode>, left: u8) -> Arrival {
        if let (Some(code), true) = (nak, left > 0 && psn == self.expected.psn()) {
            self.ended = Some((nak, left - 1));
            self.replies
                .push_nak(self.expected, Syndrome::Nak(code), self.msn);
        }
        Fate::Dropped.into()
    }

    /// Takes over attributes that a modify changed.
    pub fn set_attributes(&mut self, access: Access, min_rnr_timer: u8, max_dest_rd_atomic: u8) {
        self.config.access = access;
        self.config.min_rnr_timer = min_rnr_timer;
        self.config.max_dest_rd_atomic = max_dest_rd_atomic;
        let most = usize::from(max_dest_rd_atomic);
        let more = most.saturating_sub(self.resources.len());
        self.resources.reserve(more);
        self.replies.reserve(most);
    }

    /// The queue pair goes to ERROR for another reason: nothing is taken or
    /// answered any more. Returns whether a receive is held, to be flushed.
    pub fn flush(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = Some((None, 0));
            self.replies.clear();
        }
        self.message = None;
        self.receive.take().is_some()
    }

    /// Whether the queue pair has to go to ERROR.
    pub fn has_failed(&self) -> bool {
        self.ended.is_some()
    }

    /// Places for what is remembered and waits, which nothing may grow.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.resources.capacity() + self.replies.capacity()
    }

    /// The next PSN: `rq_psn` of a query.
    pub fn expected_psn(&self) -> Psn {
        self.expected.psn()
    }
}

fn nak_code(nak: Nak) -> Option<NakCode> {
    match nak {
        Nak::InvalidRequest => Some(NakCode::InvalidRequest),
        Nak::RemoteAccess => Some(NakCode::RemoteAccess),
        Nak::RemoteOperation => Some(NakCode::RemoteOperation),
        // No fault's answer.
        Nak::ReceiverNotReady(_) => None,
    }
}

/// A packet was carried out.
struct Executes {
    /// Numbers that it takes.
    packets: u64,
    delivery: Option<Delivery>,
}

/// A packet was not.
enum Refusal {
    NotReady,
    Fault(ResponderFault),
}

impl From<ResponderFault> for Refusal {
    fn from(fault: ResponderFault) -> Self {
        Self::Fault(fault)
    }
}
