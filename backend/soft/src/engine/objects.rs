//! The objects of an engine.

use super::keys::PdKey;
use super::remote::{Helper, JobId, Stage};
use super::tap::Noted;
use super::wire::Link;
use masq_datapath::CompletionRing;
use masq_device::{Destination, DomainKey, EndpointKey, EventSink, Grants, Handle, QpCounters};
use masq_memory::{DoorbellPage, MappedRing, Region};
use masq_spec::queue::{Cqe, SendWqe, Sge};
use masq_spec::verbs::{AhAttr, Gid, QpAttr, QpType, State};
use masq_transport::{Nanos, Retry};
use masq_wire::{PKey, Psn};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;
use std::sync::Arc;

/// Most elements of a work request.
pub(crate) const MAX_SGE: usize = 32;

/// The queue pairs of one tenant that want a turn. Tenants take turns, then
/// the queue pairs of a tenant do: many queue pairs gain no tenant a larger
/// share.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) queue: VecDeque<usize>,
    /// It is in the run queue.
    pub(crate) active: bool,
    /// Sessions of the tenant.
    pub(crate) sessions: u32,
    /// Its partition on the wire.
    pub(crate) partition: Option<PKey>,
}

/// One frontend process.
pub(crate) struct SessionState {
    pub(crate) label: String,
    pub(crate) domain: DomainKey,
    /// The tenant's on the wire.
    pub(crate) partition: Option<PKey>,
    pub(crate) endpoint: EndpointKey,
    pub(crate) gid: Gid,
    pub(crate) doorbell: Arc<DoorbellPage>,
    pub(crate) events: Arc<dyn EventSink>,
    /// What its work requests may do.
    pub(crate) grants: Grants,
    /// Its tenant's share of the turns.
    pub(crate) lane: usize,
    /// How often a command waited for its datagrams to leave.
    pub(crate) farewells: u32,
    /// Endpoints that its multicast datagrams may reach, in order.
    pub(crate) multicast_reach: Vec<EndpointKey>,
    /// Doorbell slot → queue pair.
    pub(crate) slots: Vec<Option<usize>>,
    pub(crate) qps: FxHashMap<Handle, usize>,
    pub(crate) cqs: FxHashMap<Handle, usize>,
    pub(crate) srqs: FxHashMap<Handle, usize>,
    pub(crate) ahs: FxHashMap<Handle, Ah>,
    /// Queue pairs that an address handle may reach, of those that may not
    /// reach all.
    pub(crate) ah_only: FxHashMap<Handle, Box<[u32]>>,
    /// Region or window → the upper bits of its key.
    pub(crate) mrs: FxHashMap<Handle, u32>,
    pub(crate) mws: FxHashMap<Handle, u32>,
    /// Regions that are revoked, but that the helper may reach until it is
    /// through with this job.
    pub(crate) leaving: FxHashMap<Handle, (Arc<Region>, JobId)>,
    /// Queue pairs that flush once the helper is through.
    pub(crate) flush_waiters: Vec<usize>,
    /// Reaches memory outside the shared file.
    pub(crate) helper: Helper,
}

/// An address handle.
#[derive(Clone, Copy)]
pub(crate) struct Ah {
    pub(crate) pd: Handle,
    pub(crate) destination: Destination,
    pub(crate) attr: AhAttr,
}

/// A completion queue.
pub(crate) struct Cq {
    pub(crate) session: usize,
    pub(crate) handle: Handle,
    pub(crate) out: CompletionRing,
    pub(crate) users: u32,
}

/// A shared receive queue.
pub(crate) struct Srq {
    pub(crate) session: usize,
    pub(crate) handle: Handle,
    pub(crate) pd: PdKey,
    pub(crate) queue: ReceiveQueue,
    pub(crate) max_wr: u32,
    pub(crate) max_sge: u32,
    pub(crate) limit: u32,
    pub(crate) users: u32,
}

/// A ring of receives.
pub(crate) struct ReceiveQueue {
    pub(crate) ring: MappedRing,
    /// Running index of the next receive to take.
    pub(crate) head: u32,
    pub(crate) max_sge: u32,
}

/// What its completion says of a receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReceiveName {
    pub(crate) wr_id: u64,
    /// Running index in its queue.
    pub(crate) index: u32,
}

impl ReceiveName {
    /// That of a completed receive.
    pub(crate) fn of(cqe: &Cqe) -> Self {
        Self {
            wr_id: cqe.wr_id,
            index: cqe.index,
        }
    }
}

/// A receive that was taken for a message.
#[derive(Clone, Copy, Default)]
pub(crate) struct Receive {
    pub(crate) name: ReceiveName,
    pub(crate) num_sge: usize,
    pub(crate) sges: [Sge; MAX_SGE],
    pub(crate) pd: PdKey,
}

/// A request in progress: a private copy of its slot.
pub(crate) struct Current {
    pub(crate) wqe: SendWqe,
    pub(crate) sges: [Sge; MAX_SGE],
    /// Running index of its slot.
    pub(crate) slot: u32,
    /// Payload bytes.
    pub(crate) total: u64,
    /// Payload bytes moved so far.
    pub(crate) offset: u64,
    /// The receive that it fills, if `has_receive`.
    pub(crate) receive: Receive,
    pub(crate) has_receive: bool,
    /// The peer's [`Qp::epoch`] at admission.
    pub(crate) peer_epoch: u32,
    /// Value found by an atomic whose result waits for a helper.
    pub(crate) fetched: Option<u64>,
    /// The responder has checked it and given its receive.
    pub(crate) admitted: bool,
    /// How far the present chunk has come.
    pub(crate) stage: Stage,
    /// Payload of a datagram that a helper read.
    pub(crate) datagram: Vec<u8>,
    /// An unreliable message that has been held for a receive once.
    pub(crate) waited: bool,
}

impl Current {
    /// An empty place.
    pub(crate) fn boxed() -> Box<Self> {
        Box::new(Self {
            wqe: SendWqe::default(),
            sges: [Sge::default(); MAX_SGE],
            slot: 0,
            total: 0,
            offset: 0,
            receive: Receive::default(),
            has_receive: false,
            peer_epoch: 0,
            fetched: None,
            admitted: false,
            stage: Stage::New,
            datagram: Vec::new(),
            waited: false,
        })
    }

    /// Forgets what was done: the next attempt begins anew. The receive that
    /// it held stays with its queue pair, to be flushed.
    pub(crate) fn restart(&mut self) {
        self.offset = 0;
        self.has_receive = false;
        self.fetched = None;
        self.admitted = false;
        self.stage = Stage::Fresh;
    }
}

/// What a queue pair waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Waiting {
    #[default]
    Nothing,
    /// A receive at the peer, until the RNR delay is over.
    Receive {
        serial: u64,
        peer: usize,
        until: Nanos,
    },
    /// An answer that will not come, until the ACK timeout.
    Answer { serial: u64 },
    /// For ever (ACK timeout 0).
    Forever,
    /// A helper, which reads or writes.
    Job { id: JobId, reading: bool },
    /// The helper of its own session, before a flush.
    Helper,
}

/// A queue pair.
pub(crate) struct Qp {
    pub(crate) session: usize,
    pub(crate) handle: Handle,
    pub(crate) qpn: u32,
    pub(crate) qp_type: QpType,
    pub(crate) domain: DomainKey,
    pub(crate) endpoint: EndpointKey,
    pub(crate) pd: PdKey,
    pub(crate) state: State,
    pub(crate) attr: QpAttr,
    pub(crate) send_cq: usize,
    pub(crate) recv_cq: usize,
    pub(crate) srq: Option<usize>,
    pub(crate) sq_sig_all: bool,
    pub(crate) sq: MappedRing,
    /// Running index of the next send to take.
    pub(crate) sq_head: u32,
    pub(crate) rq: Option<ReceiveQueue>,
    pub(crate) doorbell: u32,
    /// Endpoint and number of the peer, from RTR on.
    pub(crate) peer: Option<(EndpointKey, u32)>,
    /// Where the peer was found last.
    pub(crate) peer_index: Option<usize>,
    /// The connection, if the peer is on another host; taken out while it is
    /// worked on.
    pub(crate) link: Option<Box<Link>>,
    pub(crate) retry: Retry,
    pub(crate) current: Option<Box<Current>>,
    /// Kept to be filled again: the data path allocates nothing.
    pub(crate) spare: Option<Box<Current>>,
    pub(crate) waiting: Waiting,
    pub(crate) queued: bool,
    pub(crate) in_rnr_list: bool,
    /// Receives that messages hold which have not arrived whole.
    pub(crate) taken: Vec<ReceiveName>,
    /// The receive of a message that was dropped: the next one gets it.
    pub(crate) held: Option<Box<Receive>>,
    /// Counts resets: what began before one does not go on after it.
    pub(crate) epoch: u32,
    pub(crate) lane: usize,
    /// Until then a request that finds no receive goes on waiting as it did.
    pub(crate) rnr_until: Nanos,
    /// No receive was ever taken here, or none since an unreliable message
    /// waited for one in vain: such messages are dropped at once.
    pub(crate) starved: bool,
    /// Jobs up to this one may still touch memory of posted work: it is
    /// flushed after them.
    pub(crate) flush_after: JobId,
    /// Datagrams whose bytes a helper is writing.
    pub(crate) deliveries: u32,
    /// Multicast groups that it joined.
    pub(crate) joined: Vec<Gid>,
    /// Type-2 windows that were bound through it.
    pub(crate) bound: FxHashSet<u32>,
    pub(crate) established: bool,
    /// The flush of the receive queue ended with its event.
    pub(crate) flushed: bool,
    pub(crate) counters: QpCounters,
    /// For captures.
    pub(crate) noted: Noted,
    pub(crate) cause: Option<&'static str>,
}

impl Qp {
    /// Whether a doorbell gives it a turn: not while it waits.
    pub(crate) fn may_run(&self) -> bool {
        self.waiting == Waiting::Nothing
    }

    /// A datagram has taken a number.
    pub(super) fn count_psn(&mut self) {
        self.attr.sq_psn = Psn::new(self.attr.sq_psn).next().get();
    }

    /// Whether timer `serial` limits its wait.
    pub(crate) fn waits_for(&self, serial: u64) -> bool {
        let is_link = self.link.as_ref().is_some_and(|l| l.has_timer(serial));
        is_link
            || match self.waiting {
                Waiting::Receive { serial: s, .. }
                | Waiting::Answer { serial: s }
                | Waiting::Job { id: s, .. } => s == serial,
                Waiting::Nothing | Waiting::Forever | Waiting::Helper => false,
            }
    }

    /// Ends the wait that timer `serial` limits, if it still lasts.
    pub(crate) fn timer_fired(&mut self, serial: u64) -> bool {
        if self.link.as_mut().is_some_and(|l| l.timer_fired(serial)) {
            return true;
        }
        let fired = match self.waiting {
            Waiting::Receive { serial: s, .. } | Waiting::Answer { serial: s } => s == serial,
            _ => false,
        };
        if fired {
            self.rnr_until = 0;
            self.waiting = Waiting::Nothing;
        }
        fired
    }

    /// A cleared place for the next request.
    pub(crate) fn take_spare(&mut self) -> Box<Current> {
        self.spare.take().unwrap_or_else(Current::boxed)
    }
}
