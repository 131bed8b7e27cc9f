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
//! 3. A queue pair is in the queue of its lane at most once (`queued`), and a
//!    lane in the run queue at most once (`active`).
//! 4. A queue pair has at most one request in progress (`current`), so its
//!    completions are in order and a fence has nothing left to wait for.
//! 5. Indexes into slabs are reused. Whatever keeps one over turns also keeps
//!    what tells whether it still means the same: the QPN, a timer's serial, a
//!    job's id, the epoch of a queue pair.

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
mod tap;
mod timers;
mod wire;

pub(crate) use remote::RemotePort;
pub(crate) use tap::{Kept, Shape, Tap};
pub(crate) use wire::{Inbox, Wire};

use completion::GRH_LEN;
use keys::KeyTable;
use masq_datapath::Clock;
use masq_device::{DomainKey, EndpointKey};
use masq_memory::Piece;
use masq_spec::verbs::Gid;
use masq_transport::Nanos;
use objects::{Cq, Lane, Qp, Receive, SessionState, Srq, Waiting};
use rustc_hash::FxHashMap;
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tap::Taps;
use timers::Timers;

/// Work requests that a queue pair may execute before others of its tenant.
const REQUESTS_PER_QP: u32 = 32;
/// Payload bytes that it may move.
const BYTES_PER_QP: u64 = 64 << 10;
/// Work requests that a tenant's queue pairs may execute before another
/// tenant's.
const REQUESTS_PER_LANE: u32 = 128;
/// Payload bytes that they may move: what another tenant may have to wait for.
const BYTES_PER_LANE: u64 = 256 << 10;
/// Queue pairs of one tenant that are looked at in one turn.
const QPS_PER_LANE: usize = 256;
/// Waits for a receive that are looked at in one turn.
const RNR_CHECKS: usize = 64;

/// What a queue pair may still do in this turn.
struct Budget {
    requests: u32,
    bytes: u64,
}

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
    /// Groups by what they are on the wire.
    wire_groups: FxHashMap<IpAddr, Vec<(DomainKey, Gid)>>,
    /// The way to other hosts; taken out while it is worked on.
    wire: Option<Box<Wire>>,
    numbers: Numbers,
    /// Captures, while there are any.
    taps: Option<Arc<Taps>>,
    lanes: Slab<Lane>,
    lane_of: FxHashMap<DomainKey, usize>,
    /// Lanes with queue pairs that want a turn.
    run_queue: VecDeque<usize>,
    /// Sessions, by when they last rang.
    rota: masq_datapath::Rota,
    timers: Timers,
    /// Queue pairs that wait for a receive at their peer.
    rnr_waiters: Vec<usize>,
    /// Where to go on among them.
    rnr_next: usize,
    /// Scratch for the pieces of one chunk; empty between turns.
    from: Vec<Piece>,
    to: Vec<Piece>,
    grh: GrhBuffer,
    /// Kept for the receive of a datagram.
    datagram_receive: Option<Box<Receive>>,
    /// Answers of remote-memory helpers, drained at each turn.
    pub(crate) port: RemotePort,
    pub(crate) clock: Clock,
    /// What the doorbell pages say.
    armed: bool,
}

/// Which queue pair numbers an engine gives out: those that leave its own
/// number, divided by how many engines there are.
#[derive(Clone, Copy)]
struct Numbers {
    number: u32,
    threads: u32,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            number: 0,
            threads: 1,
        }
    }
}

struct GrhBuffer(Box<[u8; GRH_LEN]>);

impl Default for GrhBuffer {
    fn default() -> Self {
        Self(Box::new([0; GRH_LEN]))
    }
}

/// How often a sleeping thread looks for receives that something waits for.
const RECEIVE_LOOK: Nanos = 500_000;

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

impl masq_datapath::Engine for Engine {
    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn turn(&mut self) -> bool {
        let mut busy = self.take_jobs();
        busy |= self.take_doorbells();
        busy |= self.take_packets();
        busy |= self.take_timers();
        busy |= self.take_rnr_waiters();
        self.timers.tidy(|deadline| {
            let helps = |s: usize| {
                let session = self.sessions.get(s);
                session.is_some_and(|s| s.helper.has_job(deadline.serial))
            };
            deadline.helper.is_some_and(helps)
                || self
                    .qps
                    .get(deadline.qp)
                    .is_some_and(|qp| qp.waits_for(deadline.serial))
        });
        for _ in 0..self.run_queue.len() {
            let Some(lane) = self.run_queue.pop_front() else {
                break;
            };
            busy |= self.run_lane(lane);
        }
        if busy {
            self.flush_port();
        }
        busy
    }

    fn has_work(&self) -> bool {
        !self.run_queue.is_empty()
            || self.port.has_answers()
            || self.sessions.iter().any(|(_, s)| s.doorbell.is_rung())
    }

    fn next_wake(&self) -> Option<Nanos> {
        let timer = self.timers.next();
        if self.rnr_waiters.is_empty() {
            return timer;
        }
        // Receives ring no doorbell.
        let look = self.clock.now().saturating_add(RECEIVE_LOOK);
        Some(timer.map_or(look, |at| at.min(look)))
    }

    fn set_armed(&mut self, armed: bool) {
        self.armed = armed;
        for (_, session) in &self.sessions {
            session.doorbell.set_armed(armed);
        }
    }

    fn looks_are_dear(&self) -> bool {
        self.port_is_warm()
    }

    fn woken(&mut self, readable: masq_datapath::Readable) {
        self.warm_port(readable.any());
    }

    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        self.port_descriptors()
    }
}

impl Engine {
    /// When the next timer fires.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn next_timer(&self) -> Option<Nanos> {
        self.timers.next()
    }

    /// Whose a queue pair is.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn endpoint_of(&self, qpn: u32) -> Option<EndpointKey> {
        Some(self.qps.get(*self.qpns.get(&qpn)?)?.endpoint)
    }

    fn take_doorbells(&mut self) -> bool {
        let mut busy = false;
        let mut place = 0;
        while let Some(s) = self.rota.hot(place) {
            let rung = self.take_doorbells_of(s);
            busy |= rung;
            if !self.rota.looked(place, rung) {
                place += 1;
            }
        }
        for s in self.rota.next_few() {
            if !self.rota.is_hot(s) && self.take_doorbells_of(s) {
                self.rota.warm(s);
                busy = true;
            }
        }
        busy
    }

    /// Serves the doorbell page of one session; returns whether it was rung.
    #[inline]
    fn take_doorbells_of(&mut self, s: usize) -> bool {
        let Some(session) = self.sessions.get_mut(s) else {
            return false;
        };
        if !session.doorbell.is_rung() {
            return false;
        }
        let slots = &session.slots;
        let (qps, lanes, run_queue) = (&mut self.qps, &mut self.lanes, &mut self.run_queue);
        session.doorbell.take(slots.len() as u32, |slot| {
            if let Some(Some(index)) = slots.get(slot as usize)
                && qps.get(*index).is_some_and(Qp::may_run)
            {
                enqueue(qps, lanes, run_queue, *index);
            }
        });
        true
    }

    fn take_timers(&mut self) -> bool {
        let mut busy = false;
        while let Some(deadline) = self.timers.pop(&self.clock) {
            if let Some(helper) = deadline.helper {
                busy |= self.job_overdue(deadline.qp, helper, deadline.serial);
            } else if let Some(qp) = self.qps.get_mut(deadline.qp)
                && qp.timer_fired(deadline.serial)
            {
                busy = true;
                self.enqueue(deadline.qp);
            }
        }
        busy
    }

    /// A responder on this host may take its time to answer: a request that
    /// found no receive goes on as soon as one is posted, and is refused only
    /// when the delay is over.
    fn take_rnr_waiters(&mut self) -> bool {
        let mut busy = false;
        for _ in 0..self.rnr_waiters.len().min(RNR_CHECKS) {
            if self.rnr_next >= self.rnr_waiters.len() {
                self.rnr_next = 0;
            }
            let Some(q) = self.rnr_waiters.get(self.rnr_next).copied() else {
                break;
            };
            let wait = match self.qps.get(q).map(|qp| qp.waiting) {
                Some(Waiting::Receive { peer, until, .. }) => Some((peer, until)),
                _ => None,
            };
            if let Some((peer, until)) = wait {
                if !self.receive_ready(peer) {
                    self.rnr_next += 1;
                    continue;
                }
                if let Some(qp) = self.qps.get_mut(q) {
                    qp.waiting = Waiting::Nothing;
                    qp.rnr_until = until;
                }
                self.enqueue(q);
                busy = true;
            }
            if let Some(qp) = self.qps.get_mut(q) {
                qp.in_rnr_list = false;
            }
            self.rnr_waiters.swap_remove(self.rnr_next);
        }
        busy
    }

    /// Gives a queue pair a turn, once.
    fn enqueue(&mut self, index: usize) {
        enqueue(&mut self.qps, &mut self.lanes, &mut self.run_queue, index);
    }

    /// Gives the queue pairs of a tenant their turn.
    fn run_lane(&mut self, l: usize) -> bool {
        let mut lane = Budget {
            requests: REQUESTS_PER_LANE,
            bytes: BYTES_PER_LANE,
        };
        let mut busy = false;
        let waiting = self.lanes.get(l).map_or(0, |lane| lane.queue.len());
        for _ in 0..waiting.min(QPS_PER_LANE) {
            let Some(q) = self.lanes.get_mut(l).and_then(|l| l.queue.pop_front()) else {
                break;
            };
            // One that is alone takes what its tenant has.
            let (requests, bytes) = match waiting {
                1 => (REQUESTS_PER_LANE, BYTES_PER_LANE),
                _ => (REQUESTS_PER_QP, BYTES_PER_QP),
            };
            let mut own = Budget {
                requests: lane.requests.min(requests),
                bytes: lane.bytes.min(bytes),
            };
            let before = (own.requests, own.bytes);
            busy |= self.run(q, &mut own);
            lane.requests -= before.0 - own.requests;
            lane.bytes -= before.1 - own.bytes;
            if lane.requests == 0 || lane.bytes == 0 {
                break;
            }
        }
        if let Some(lane) = self.lanes.get_mut(l) {
            lane.active = !lane.queue.is_empty();
            if lane.active {
                self.run_queue.push_back(l);
            }
        }
        busy
    }

    /// Gives a queue pair its turn.
    fn run(&mut self, index: usize, budget: &mut Budget) -> bool {
        let Some(qp) = self.qps.get_mut(index) else {
            return false;
        };
        qp.queued = false;
        let mut busy = false;
        while budget.requests > 0 {
            match self.step(index, &mut budget.bytes) {
                None => return busy,
                Some(Step::Wait) => return true,
                Some(Step::Done) => busy = true,
                Some(Step::More) => {
                    budget.requests -= 1;
                    busy = true;
                    break;
                }
            }
            budget.requests -= 1;
            if budget.bytes == 0 {
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

/// Puts a queue pair into the queue of its lane, and the lane into the run
/// queue.
#[inline]
fn enqueue(
    qps: &mut Slab<Qp>,
    lanes: &mut Slab<Lane>,
    run_queue: &mut VecDeque<usize>,
    index: usize,
) {
    let Some(qp) = qps.get_mut(index).filter(|qp| !qp.queued) else {
        return;
    };
    let Some(lane) = lanes.get_mut(qp.lane) else {
        return;
    };
    qp.queued = true;
    lane.queue.push_back(index);
    if !lane.active {
        lane.active = true;
        run_queue.push_back(qp.lane);
    }
}

#[cfg(test)]
impl Engine {
    /// As if the queues had been in use for long.
    pub(crate) fn start_indexes_at(&mut self, index: u32) {
        for (_, qp) in &mut self.qps {
            qp.sq_head = index;
            if let Some(rq) = &mut qp.rq {
                rq.head = index;
            }
        }
        for (_, cq) in &mut self.cqs {
            cq.out.start_at(index);
        }
    }

    /// Queue pairs, CQs, keys, groups and lanes that exist.
    pub(crate) fn counts(&self) -> (usize, usize, usize, usize, usize) {
        (
            self.qps.len(),
            self.cqs.len() + self.srqs.len(),
            self.keys.len(),
            self.groups.len() + self.qpns.len(),
            self.lanes.len() + self.sessions.len() + self.rota.len(),
        )
    }

    /// Whether anything is captured.
    pub(crate) fn is_tapped(&self) -> bool {
        self.taps.is_some()
    }

    pub(crate) fn timers_len(&self) -> usize {
        self.timers.len()
    }
}
