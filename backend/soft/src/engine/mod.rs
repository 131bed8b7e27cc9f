//! The engine: all queue pairs, completion queues, keys and timers of one
//! data-path thread, and what happens when a queue pair gets its turn.
//!
//! It is a state machine: [`Engine::turn`] is given the time and does a bounded
//! amount of work on whatever was rung; everything else is called by the
//! control side, between turns. Nothing here blocks, sleeps or reads a clock.
//!
//! # Invariants
//! 1. No pointer into a region outlives a turn: every chunk of a message
//!    resolves its keys again. So taking a key out of the table revokes it.
//! 2. A work request is copied once into private memory and judged there.
//! 3. A queue pair is in the run queue at most once (`queued`).
//! 4. A queue pair has at most one request in progress (`current`), so its
//!    completions are in order and a fence has nothing left to wait for.

mod bind;
mod completion;
mod control;
mod copy;
mod datagram;
mod flush;
mod keys;
mod objects;
mod receive;
mod remote;
mod send;
mod timers;

pub(crate) use remote::RemotePort;

use completion::GRH_LEN;
use keys::KeyTable;
use masq_device::{DomainKey, EndpointKey};
use masq_memory::Piece;
use masq_spec::verbs::Gid;
use masq_transport::Nanos;
use objects::{Cq, Qp, SessionState, Srq, Waiting};
use rustc_hash::FxHashMap;
use slab::Slab;
use std::collections::VecDeque;
use timers::Timers;

/// Work requests that a queue pair may execute in one turn.
const REQUESTS_PER_TURN: u32 = 64;
/// Payload bytes that a queue pair may move in one turn: what another queue
/// pair may have to wait for.
const BYTES_PER_TURN: u64 = 256 << 10;

/// State of one data-path thread.
#[derive(Default)]
pub(crate) struct Engine {
    pub(crate) sessions: Slab<SessionState>,
    qps: Slab<Qp>,
    cqs: Slab<Cq>,
    srqs: Slab<Srq>,
    keys: KeyTable,
    qpns: FxHashMap<u32, usize>,
    groups: FxHashMap<(DomainKey, Gid), Vec<usize>>,
    run_queue: VecDeque<usize>,
    timers: Timers,
    /// Queue pairs that wait for a receive at their peer.
    rnr_waiters: Vec<usize>,
    /// Scratch for the pieces of one chunk; empty between turns.
    from: Vec<Piece>,
    to: Vec<Piece>,
    grh: GrhBuffer,
    /// Answers of remote-memory helpers, drained at each turn.
    pub(crate) port: RemotePort,
    pub(crate) now: Nanos,
    /// What the doorbell pages say.
    armed: bool,
}

struct GrhBuffer(Box<[u8; GRH_LEN]>);

impl Default for GrhBuffer {
    fn default() -> Self {
        Self(Box::new([0; GRH_LEN]))
    }
}

/// What became of the request that had its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Completed, one way or the other; the next one may run.
    Done,
    /// Used up its bytes; goes on in the next turn.
    More,
    /// Waits for a timer, a receive or a helper.
    Wait,
}

impl Engine {
    /// Serves doorbells, timers, helpers and the run queue once. Returns
    /// whether there was anything to do.
    pub(crate) fn turn(&mut self, now: Nanos) -> bool {
        self.now = now;
        let mut busy = self.take_jobs();
        busy |= self.take_doorbells();
        busy |= self.take_timers();
        busy |= self.take_rnr_waiters();
        for _ in 0..self.run_queue.len() {
            let Some(qp) = self.run_queue.pop_front() else {
                break;
            };
            busy |= self.run(qp);
        }
        busy
    }

    /// Whether the next turn has something to do already.
    pub(crate) fn has_work(&self) -> bool {
        !self.run_queue.is_empty()
            || self.port.has_answers()
            || self.sessions.iter().any(|(_, s)| s.doorbell.is_rung())
    }

    /// When the next timer fires.
    pub(crate) fn next_timer(&self) -> Option<Nanos> {
        self.timers.next()
    }

    /// Tells every driver whether it must kick.
    pub(crate) fn set_armed(&mut self, armed: bool) {
        self.armed = armed;
        for (_, session) in &self.sessions {
            session.doorbell.set_armed(armed);
        }
    }

    fn take_doorbells(&mut self) -> bool {
        let mut busy = false;
        for (_, session) in &self.sessions {
            if !session.doorbell.is_rung() {
                continue;
            }
            busy = true;
            let (qps, run_queue) = (&mut self.qps, &mut self.run_queue);
            session.doorbell.take(|slot| {
                let Some(Some(index)) = session.slots.get(slot as usize) else {
                    return;
                };
                if let Some(qp) = qps.get_mut(*index)
                    && !qp.queued
                    && qp.may_run()
                {
                    qp.queued = true;
                    run_queue.push_back(*index);
                }
            });
        }
        busy
    }

    fn take_timers(&mut self) -> bool {
        let mut busy = false;
        while let Some((index, serial)) = self.timers.pop(self.now) {
            if self.job_overdue(index, serial) {
                busy = true;
                continue;
            }
            let Some(qp) = self.qps.get_mut(index) else {
                continue;
            };
            if qp.timer_fired(serial) {
                busy = true;
                self.enqueue(index);
            }
        }
        busy
    }

    /// A responder on this host may take its time to answer: a request that
    /// found no receive goes on as soon as one is posted, and is refused only
    /// when the delay is over.
    fn take_rnr_waiters(&mut self) -> bool {
        let mut busy = false;
        let mut i = 0;
        while let Some(q) = self.rnr_waiters.get(i).copied() {
            let peer = match self.qps.get(q).map(|qp| qp.waiting) {
                Some(Waiting::Receive { peer, .. }) => Some(peer),
                _ => None,
            };
            match peer {
                Some(peer) if !self.receive_ready(peer) => {
                    i += 1;
                    continue;
                }
                Some(_) => {
                    if let Some(qp) = self.qps.get_mut(q) {
                        qp.waiting = Waiting::Nothing;
                    }
                    self.enqueue(q);
                    busy = true;
                }
                None => {}
            }
            self.rnr_waiters.swap_remove(i);
        }
        busy
    }

    /// Puts a queue pair into the run queue, once.
    fn enqueue(&mut self, index: usize) {
        if let Some(qp) = self.qps.get_mut(index)
            && !qp.queued
        {
            qp.queued = true;
            self.run_queue.push_back(index);
        }
    }

    /// Gives a queue pair its turn.
    fn run(&mut self, index: usize) -> bool {
        let Some(qp) = self.qps.get_mut(index) else {
            return false;
        };
        qp.queued = false;
        let mut bytes = BYTES_PER_TURN;
        let mut busy = false;
        for _ in 0..REQUESTS_PER_TURN {
            match self.step(index, &mut bytes) {
                None => return busy,
                Some(Step::Wait) => return true,
                Some(Step::Done) => busy = true,
                Some(Step::More) => {
                    busy = true;
                    break;
                }
            }
            if bytes == 0 {
                break;
            }
        }
        self.enqueue(index);
        busy
    }

    fn qp_by_number(&self, domain: DomainKey, endpoint: EndpointKey, qpn: u32) -> Option<usize> {
        let index = *self.qpns.get(&qpn)?;
        let qp = self.qps.get(index)?;
        (qp.domain == domain && qp.endpoint == endpoint).then_some(index)
    }
}
