//! The relay: takes work requests from the tenants' rings to the card's queues, and
//! completions back. Payload is not touched: the card reads and writes the tenants'
//! memory itself.
//!
//! # Invariants
//! 1. A work request is copied once into private memory and judged there; the card
//!    checks keys, ranges and rights against the session's own protection domain.
//! 2. The card never has more of a queue pair than the tenant may have outstanding,
//!    and its completions are matched against what it was given: exactly one
//!    completion for each signalled or failed request, whatever the card does.
//! 3. Indexes into slabs are reused. What comes back from the card also carries the
//!    epoch of its queue pair, and events a ticket that is never reused.
//! 4. What is waiting is in [`Turns`] at most once (`queued`).

mod complete;
mod control;
mod datagram;
mod failure;
mod headers;
mod objects;
mod post;
mod receives;
#[cfg(test)]
mod tests;

pub(crate) use control::NewQp;
pub(crate) use headers::Headers;
pub(crate) use objects::{Ah, Mr};

use crate::card::Card;
use crate::host::{AsyncElement, Channel, Context, ReceiveBatch, SendBatch, Ticket, Wc};
use datagram::Senders;
use masq_datapath::{Clock, Engine, Readable, Rota, Turns};
use masq_device::Handle;
use masq_memory::Piece;
use masq_spec::event::AsyncEvent;
use masq_transport::Nanos;
use masq_verbs_abi::*;
use objects::{Connection, Cq, Qp, SessionState, Srq, Work};
use rustc_hash::FxHashMap;
use slab::Slab;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Empty polls of the card after which a CQ is left to the completion channel.
const CQ_HEAT: u32 = 2_000;
/// Completions that are taken off a CQ in one turn.
const POLL: usize = 32;
/// Items of work in one turn.
const ITEMS: usize = 32;
/// Turns without sleep after which a thread asks what time it is, for these.
const LOOK_TURNS: u32 = 32;
/// How often a busy thread looks for news of CQs that it does not poll.
const CHANNEL_LOOK: Nanos = 50_000;
/// How often a busy thread looks for asynchronous events of the card.
const EVENT_LOOK: Nanos = 1_000_000;
/// How long a queue pair in ERROR waits for completions that the card owes.
const PATIENCE: Nanos = 500_000_000;

/// How long requests wait for the kernel to connect their queue pair.
const PEER_PATIENCE: Nanos = 30_000_000_000;

/// Places of the descriptors that wake the thread.
const CHANNEL: usize = 0;
const EVENTS: usize = 1;
const REMOVAL: usize = 2;

/// State of one data-path thread.
pub(crate) struct Relay {
    pub(crate) card: Arc<Card>,
    /// None once the card is gone.
    host: Option<Host>,
    sessions: Slab<SessionState>,
    qps: Slab<Qp>,
    cqs: Slab<Cq>,
    srqs: Slab<Srq>,
    qpns: FxHashMap<u32, usize>,
    tickets: FxHashMap<usize, Object>,
    turns: Turns,
    /// Sessions, by when they last rang.
    rota: Rota,
    /// CQs: the hot ones are polled.
    hot_cqs: Rota,
    /// CQs that the completion channel does not watch.
    unarmed: Vec<usize>,
    /// Queue pairs in ERROR that wait for completions.
    failing: Vec<usize>,
    /// Queue pairs whose requests wait for a connection.
    unconnected: Vec<usize>,
    senders: Senders,
    /// Scratch for the pieces of a header; used within a call only.
    pieces: Vec<Piece>,
    sends: SendBatch,
    receives: ReceiveBatch,
    /// Scratch for the queue pairs of this host that a batch of sends is for.
    receivers: Vec<u32>,
    wcs: Box<[Wc]>,
    clock: Clock,
    turns_since_look: u32,
    looked_for_events: Nanos,
    looked_at_channel: Nanos,
    /// Completions came just before the thread was to sleep.
    found: bool,
    armed: bool,
    /// The card has just been let go of.
    let_go: bool,
    /// Each wake-up of the thread is dear: drivers ring for receives only when the card
    /// runs short of them.
    is_frugal: bool,
}

/// What the thread has of the card.
pub(crate) struct Host {
    pub(crate) context: Arc<Context>,
    pub(crate) channel: Arc<Channel>,
    /// Readable when something becomes of the card's character device.
    pub(crate) removal: Option<OwnedFd>,
    /// Written when the card is gone, for those who have to let go of it too.
    pub(crate) gone: Arc<OwnedFd>,
}

impl Host {
    /// Whether the card was taken away. Some drivers say so by an event; others have
    /// the kernel wait until everybody has closed the card, and all that is seen is
    /// that its character device has no name any more.
    fn is_unplugged(&self) -> bool {
        let Some(removal) = self.removal.as_ref().filter(is_readable) else {
            return false;
        };
        let _ = rustix::io::read(removal, &mut [0; 4096]);
        rustix::fs::fstat(&self.context).is_ok_and(|stat| stat.st_nlink == 0)
    }
}

/// What a ticket stands for.
#[derive(Clone, Copy, Debug)]
enum Object {
    Cq(usize),
    Qp(usize),
    Srq(usize),
}

impl Relay {
    pub(crate) fn new(card: Arc<Card>, host: Host, waiting: Arc<crate::network::Waiting>) -> Self {
        let mut receives = ReceiveBatch::default();
        receives.needs_element = !card.has_iova;
        Self {
            card,
            host: Some(host),
            sessions: Slab::new(),
            qps: Slab::new(),
            cqs: Slab::new(),
            srqs: Slab::new(),
            qpns: FxHashMap::default(),
            tickets: FxHashMap::default(),
            turns: Turns::default(),
            rota: Rota::default(),
            hot_cqs: Rota::new(CQ_HEAT),
            unarmed: Vec::new(),
            failing: Vec::new(),
            unconnected: Vec::new(),
            senders: Senders::new(waiting),
            pieces: Vec::with_capacity(8),
            sends: SendBatch::default(),
            receives,
            receivers: Vec::with_capacity(crate::host::BATCH),
            wcs: vec![Wc::default(); POLL].into(),
            clock: Clock::default(),
            turns_since_look: 0,
            looked_for_events: 0,
            looked_at_channel: 0,
            found: false,
            armed: false,
            let_go: false,
            is_frugal: false,
        }
    }

    /// For a thread that sleeps whenever it can.
    pub(crate) fn frugal(self, is_frugal: bool) -> Self {
        Self { is_frugal, ..self }
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
        let (slots, lane) = (&session.slots, session.lane);
        let (qps, srqs, turns) = (&mut self.qps, &mut self.srqs, &mut self.turns);
        session.doorbell.take(slots.len() as u32, |slot| {
            let Some(Some(work)) = slots.get(slot as usize) else {
                return;
            };
            let queued = match *work {
                Work::Qp(index) => qps.get_mut(index).map(|qp| &mut qp.queued),
                Work::Srq(index) => srqs.get_mut(index).map(|srq| &mut srq.queued),
            };
            if let Some(queued) = queued.filter(|queued| !**queued) {
                *queued = true;
                turns.push(lane, work.item());
            }
        });
        true
    }

    /// Gives a queue pair a turn, once.
    fn enqueue(&mut self, index: usize) {
        if let Some(qp) = self.qps.get_mut(index).filter(|qp| !qp.queued) {
            qp.queued = true;
            self.turns.push(qp.lane, Work::Qp(index).item());
        }
    }

    fn enqueue_srq(&mut self, index: usize) {
        if let Some(srq) = self.srqs.get_mut(index).filter(|srq| !srq.queued) {
            srq.queued = true;
            self.turns.push(srq.lane, Work::Srq(index).item());
        }
    }

    /// A CQ is polled from now on, for a while.
    fn heat(&mut self, index: usize) {
        self.hot_cqs.warm(index);
    }

    /// Has the channel watch a CQ before the thread sleeps.
    fn list_unarmed(&mut self, index: usize) {
        if let Some(cq) = self.cqs.get_mut(index).filter(|cq| !cq.listed) {
            cq.listed = true;
            self.unarmed.push(index);
        }
    }

    fn poll_hot(&mut self) -> bool {
        let mut busy = false;
        let mut place = 0;
        while let Some(index) = self.hot_cqs.hot(place) {
            let found = self.poll(index);
            busy |= found;
            if self.hot_cqs.looked(place, found) {
                // Whatever comes now is told by the channel; what came before is more than
                // one poll takes, perhaps.
                self.arm(index);
                if self.poll(index) {
                    self.heat(index);
                    busy = true;
                }
            } else {
                place += 1;
            }
        }
        busy
    }

    fn arm(&mut self, index: usize) {
        if let Some(cq) = self.cqs.get_mut(index).filter(|cq| !cq.armed) {
            cq.armed = cq.host.arm().is_ok();
        }
    }

    /// Looks at what wakes the thread when it sleeps, now and then.
    fn look(&mut self) {
        let now = self.clock.now();
        if now.saturating_sub(self.looked_at_channel) > CHANNEL_LOOK {
            self.looked_at_channel = now;
            self.take_channel(usize::MAX);
        }
        if now.saturating_sub(self.looked_for_events) > EVENT_LOOK {
            self.looked_for_events = now;
            self.take_events();
        }
    }

    /// Takes what the completion channel says, `most` events of it.
    fn take_channel(&mut self, most: usize) {
        let Some(channel) = self.host.as_ref().map(|host| Arc::clone(&host.channel)) else {
            return;
        };
        for ticket in std::iter::from_fn(|| channel.next()).take(most) {
            if let Some(Object::Cq(index)) = self.tickets.get(&ticket.0).copied() {
                if let Some(cq) = self.cqs.get_mut(index) {
                    cq.armed = false;
                }
                self.list_unarmed(index);
                self.heat(index);
            }
        }
    }

    /// Takes the card's asynchronous events.
    fn take_events(&mut self) {
        let Some(host) = &self.host else { return };
        if host.is_unplugged() {
            return self.card_is_gone("it was taken away");
        }
        let context = Arc::clone(&host.context);
        while is_readable(&context.async_descriptor()) {
            let Ok(report) = context.next_event() else {
                return;
            };
            match report.element {
                AsyncElement::Device => return self.card_is_gone("the kernel says so"),
                AsyncElement::Port => self.port_event(report.kind),
                AsyncElement::Cq(ticket) => self.object_event(ticket, report.kind),
                AsyncElement::Qp(ticket) => self.object_event(ticket, report.kind),
                AsyncElement::Srq(ticket) => self.object_event(ticket, report.kind),
            }
        }
    }

    fn port_event(&self, kind: c_enum) {
        let event = match kind {
            IBV_EVENT_PORT_ACTIVE => AsyncEvent::PortActive,
            IBV_EVENT_PORT_ERR => AsyncEvent::PortErr,
            // Tenants have GIDs and partitions of their own.
            _ => return,
        };
        tracing::warn!(card = self.card.name, ?event, "port");
        for (_, session) in &self.sessions {
            session.events.asynchronous(event, 1);
        }
    }

    fn object_event(&mut self, ticket: Ticket, kind: c_enum) {
        let Some(object) = self.tickets.get(&ticket.0).copied() else {
            return;
        };
        let (session, handle) = match object {
            Object::Cq(c) => match self.cqs.get(c) {
                Some(cq) => (cq.session, cq.handle),
                None => return,
            },
            Object::Qp(q) => match self.qps.get(q) {
                Some(qp) => (qp.session, qp.handle),
                None => return,
            },
            Object::Srq(r) => match self.srqs.get(r) {
                Some(srq) => (srq.session, srq.handle),
                None => return,
            },
        };
        let event = match kind {
            IBV_EVENT_CQ_ERR => AsyncEvent::CqErr,
            IBV_EVENT_QP_FATAL => AsyncEvent::QpFatal,
            IBV_EVENT_QP_REQ_ERR => AsyncEvent::QpReqErr,
            IBV_EVENT_QP_ACCESS_ERR => AsyncEvent::QpAccessErr,
            IBV_EVENT_COMM_EST => AsyncEvent::CommEst,
            IBV_EVENT_SQ_DRAINED => AsyncEvent::SqDrained,
            IBV_EVENT_SRQ_ERR => AsyncEvent::SrqErr,
            IBV_EVENT_SRQ_LIMIT_REACHED => AsyncEvent::SrqLimitReached,
            IBV_EVENT_QP_LAST_WQE_REACHED => AsyncEvent::QpLastWqeReached,
            _ => return,
        };
        if let (
            Object::Qp(q),
            AsyncEvent::QpFatal | AsyncEvent::QpReqErr | AsyncEvent::QpAccessErr,
        ) = (object, event)
        {
            self.follow_card(q, "the card reported a fault");
        }
        self.raise(session, event, handle);
    }

    /// Raises an asynchronous event in a session.
    fn raise(&self, session: usize, event: AsyncEvent, element: Handle) {
        if let Some(session) = self.sessions.get(session) {
            session.events.asynchronous(event, element);
        }
    }
}

/// Whether a descriptor is readable now.
fn is_readable(fd: &impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

impl Engine for Relay {
    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn turn(&mut self) -> bool {
        let mut busy = std::mem::take(&mut self.found);
        busy |= self.take_doorbells();
        busy |= self.poll_hot();
        for _ in 0..ITEMS.min(self.turns.len()) {
            let Some(item) = self.turns.pop() else { break };
            busy |= match Work::of_item(item) {
                Work::Qp(index) => self.run(index),
                Work::Srq(index) => self.run_srq(index),
            };
        }
        busy |= self.take_failing();
        busy |= self.take_unconnected();
        busy |= self.take_held_datagrams();
        self.turns_since_look += 1;
        if self.turns_since_look >= LOOK_TURNS {
            self.turns_since_look = 0;
            self.look();
        }
        busy
    }

    fn has_work(&self) -> bool {
        self.found
            || !self.turns.is_empty()
            || self.sessions.iter().any(|(_, s)| s.doorbell.is_rung())
    }

    fn next_wake(&self) -> Option<Nanos> {
        let failing = self
            .failing
            .iter()
            .filter_map(|q| self.qps.get(*q)?.failed_at);
        let failing = failing.map(|at| at.saturating_add(PATIENCE)).min();
        let unconnected =
            self.unconnected
                .iter()
                .filter_map(|q| match self.qps.get(*q)?.connection {
                    Connection::Waiting(Some(since)) => Some(since.saturating_add(PEER_PATIENCE)),
                    _ => Some(0),
                });
        let held = self.senders.next_wake();
        let next = [failing, unconnected.min(), held];
        next.into_iter().flatten().min()
    }

    fn set_armed(&mut self, armed: bool) {
        self.armed = armed;
        for (_, session) in &self.sessions {
            session.doorbell.set_armed(armed);
        }
        if !armed {
            return;
        }
        for place in 0..self.hot_cqs.len() {
            let Some(index) = self.hot_cqs.hot(place) else {
                break;
            };
            self.arm(index);
            // What came before it was armed.
            self.found |= self.poll(index);
        }
        while let Some(index) = self.unarmed.pop() {
            if let Some(cq) = self.cqs.get_mut(index) {
                cq.listed = false;
            }
            self.arm(index);
            if self.poll(index) {
                self.heat(index);
                self.found = true;
            }
        }
    }

    fn woken(&mut self, readable: Readable) {
        // What is not readable has been looked at, in a way.
        self.turns_since_look = 0;
        if readable.has(CHANNEL) {
            // Mostly it is the only one; whether there are more costs a call to know.
            self.take_channel(1);
        }
        if readable.has(EVENTS) || readable.has(REMOVAL) {
            self.take_events();
        }
    }

    fn has_other_descriptors(&mut self) -> bool {
        std::mem::take(&mut self.let_go)
    }

    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let Some(host) = &self.host else {
            return Ok(Vec::new());
        };
        let mut all = vec![
            host.channel.as_fd().try_clone_to_owned()?,
            host.context.async_descriptor().try_clone_to_owned()?,
        ];
        debug_assert_eq!((CHANNEL, EVENTS, REMOVAL), (0, 1, all.len()));
        if let Some(removal) = &host.removal {
            all.push(removal.try_clone()?);
        }
        Ok(all)
    }
}
