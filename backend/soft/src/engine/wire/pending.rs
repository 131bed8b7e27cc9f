//! Packets whose bytes belong into memory that lies in a process only. A helper
//! writes them one at a time; what follows on the connection waits, so that
//! nothing is acknowledged, completed or read before it is where it belongs.

use super::arrivals::Desk;
use super::kept::KeptPacket;
use super::land::{Job, Place};
use super::{Link, Wire};
use crate::engine::Engine;
use crate::engine::remote::{JobId, Stage};
use masq_connected::Arrival;
use masq_port::Incoming;
use masq_spec::queue::WcStatus;
use masq_spec::verbs::State;
use masq_transport::ResponderFault;
use masq_wire::Psn;
use std::collections::VecDeque;

/// Packets that wait for a helper; further ones are lost, as if the network
/// were slow.
const BACKLOG: usize = 64;

/// A packet that a helper is at.
pub(super) struct Pending {
    job: Job,
    what: What,
}

enum What {
    /// A request of the peer: its number, and what follows once it is placed.
    Request(Psn, Arrival),
    /// An atomic of the peer.
    Atomic,
    /// An answer.
    Answer,
}

/// Packets behind it.
#[derive(Default)]
pub(super) struct Backlog {
    packets: VecDeque<KeptPacket>,
    spare: Vec<Vec<u8>>,
}

impl Pending {
    pub(super) fn request(job: Job, psn: Psn, arrival: Arrival) -> Self {
        let what = What::Request(psn, arrival);
        Self { job, what }
    }

    pub(super) fn atomic(job: Job) -> Self {
        let what = What::Atomic;
        Self { job, what }
    }

    pub(super) fn answer(job: Job) -> Self {
        let what = What::Answer;
        Self { job, what }
    }

    /// Answers to the peer wait: they would say that it is placed.
    pub(super) fn holds_answers(&self) -> bool {
        matches!(self.what, What::Request(..))
    }

    /// Completions wait.
    pub(super) fn holds_completions(&self) -> bool {
        matches!(self.what, What::Answer)
    }
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// False: there is no room.
    pub(super) fn push(&mut self, incoming: &Incoming<'_>) -> bool {
        if self.packets.len() >= BACKLOG {
            return false;
        }
        let buffer = self.spare.pop().unwrap_or_default();
        self.packets.push_back(KeptPacket::of(incoming, buffer));
        true
    }
}

impl Engine {
    /// Takes the packets that waited for a helper, until one needs it again.
    pub(super) fn take_backlog(&mut self, q: usize, link: &mut Link, wire: &mut Wire) {
        while link.pending.is_none() {
            let Some(kept) = link.backlog.packets.pop_front() else {
                return;
            };
            if let Some(incoming) = kept.incoming() {
                self.connected_in(q, link, &mut Desk::of(wire), &incoming);
            }
            link.backlog.spare.push(kept.into_buffer());
        }
    }

    /// A helper answered a job of a link's queue pair. False: it is none of its.
    pub(in crate::engine) fn link_job_done(
        &mut self,
        q: usize,
        id: JobId,
        outcome: Option<Stage>,
    ) -> bool {
        let Some(mut link) = self.qps.get_mut(q).and_then(|qp| qp.link.take()) else {
            return false;
        };
        let (mut bytes, last) = match outcome {
            Some(Stage::Gathered(bytes)) => (Some(bytes), None),
            Some(Stage::Scattered { last, .. }) => (Some(Vec::new()), last),
            _ => (None, None),
        };
        let known = link.requests.done(id, &mut bytes) || link.answers.done(id, &mut bytes);
        match link.pending.take() {
            Some(pending) if !known && pending.job.id == id => {
                if let Some(last) = last {
                    self.store_end(q, &link, &pending.job, last);
                }
                self.placed(q, &mut link, pending, bytes);
            }
            other => link.pending = other,
        }
        self.put_back(q, link);
        self.enqueue(q);
        true
    }

    /// What a helper was at is done.
    fn placed(&mut self, q: usize, link: &mut Link, pending: Pending, bytes: Option<Vec<u8>>) {
        // What it held is flushed.
        if self.qps.get(q).is_none_or(|qp| qp.state == State::Err) {
            return;
        }
        let fault = ResponderFault::Memory;
        match (pending.what, bytes) {
            (What::Request(_, arrival), Some(_)) => self.concluded(q, link, &arrival),
            (What::Request(psn, _), None) => {
                let arrival = link.responder.placing_failed(psn, fault);
                self.concluded(q, link, &arrival);
            }
            (What::Atomic, bytes) => {
                let value = bytes
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(u64::from_ne_bytes);
                if let Some(arrival) = link.responder.atomic_done(value.ok_or(fault)) {
                    self.concluded(q, link, &arrival);
                }
            }
            (What::Answer, Some(_)) => {}
            (What::Answer, None) => {
                if let (Some(requester), Place::Request(id)) =
                    (&mut link.requester, pending.job.place)
                {
                    requester.reject(id, WcStatus::LocProtErr);
                }
            }
        }
    }

    /// Puts a link back that was worked on.
    pub(super) fn put_back(&mut self, q: usize, mut link: Box<Link>) {
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        if qp.state == State::Err && !link.ended {
            link.end();
        }
        qp.link = Some(link);
    }
}
