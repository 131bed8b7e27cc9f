//! The objects of a relay: the tenant's rings on one side, the card's objects on the
//! other.

use super::receives::ReceiveQueue;
use crate::host::{self, Ticket};
use crate::iwarp::Placement;
use crate::mapped::Mapped;
use masq_datapath::{CompletionRing, Lane};
use masq_device::{DomainKey, EndpointKey, EventSink, Grants, Handle, QpCounters};
use masq_memory::{DoorbellPage, MappedRing};
use masq_spec::queue::{Cqe, Sge, WcStatus};
use masq_spec::verbs::{Gid, QpAttr, QpType, State};
use masq_transport::Nanos;
use masq_wire::PKey;
use rustc_hash::FxHashMap;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};

/// Receives of a queue pair from which on the card need not have all.
const MANY_RECEIVES: usize = 32;

/// One frontend process.
pub(crate) struct SessionState {
    pub(crate) label: String,
    pub(crate) domain: DomainKey,
    pub(crate) partition: Option<PKey>,
    pub(crate) endpoint: EndpointKey,
    pub(crate) gid: Gid,
    pub(crate) grants: Grants,
    pub(crate) doorbell: Arc<DoorbellPage>,
    pub(crate) events: Arc<dyn EventSink>,
    pub(crate) lane: Lane,
    /// What the doorbell slots stand for.
    pub(crate) slots: Vec<Option<Work>>,
    pub(crate) pds: FxHashMap<Handle, Weak<host::Pd>>,
    pub(crate) qps: FxHashMap<Handle, usize>,
    pub(crate) cqs: FxHashMap<Handle, usize>,
    pub(crate) srqs: FxHashMap<Handle, usize>,
    pub(crate) ahs: FxHashMap<Handle, Ah>,
    /// Local key of a region.
    pub(crate) mrs: FxHashMap<Handle, u32>,
    pub(crate) regions: FxHashMap<u32, Mr>,
}

/// What may be given a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Qp(usize),
    Srq(usize),
}

impl Work {
    pub(crate) fn item(self) -> usize {
        match self {
            Self::Qp(index) => index << 1,
            Self::Srq(index) => index << 1 | 1,
        }
    }

    pub(crate) fn of_item(item: usize) -> Self {
        match item & 1 {
            0 => Self::Qp(item >> 1),
            _ => Self::Srq(item >> 1),
        }
    }
}

/// A region.
pub(crate) struct Mr {
    pub(crate) host: host::Mr<Mapped>,
    pub(crate) pd: Handle,
    pub(crate) iova: u64,
    /// Where the card has its first byte: as a rule there too.
    pub(crate) base: u64,
}

/// Replaces tenants' addresses by those of a card that goes by where memory is mapped.
pub(crate) fn place(regions: &FxHashMap<u32, Mr>, list: &mut [Sge]) {
    for sge in list {
        // Of what is no region the card says so.
        if let Some(mr) = regions.get(&sge.lkey) {
            let offset = sge.addr.wrapping_sub(mr.iova);
            sge.addr = mr.base.wrapping_add(offset);
        }
    }
}

/// An address handle.
pub(crate) struct Ah {
    pub(crate) host: Arc<host::Ah>,
    pub(crate) pd: Handle,
    /// The endpoint of this host that it leads to, whose queue pairs alone it may
    /// reach; None: another host's.
    pub(crate) endpoint: Option<EndpointKey>,
    /// The only queue pairs there that it may reach.
    pub(crate) only: Option<Box<[u32]>>,
}

/// A completion queue.
pub(crate) struct Cq {
    pub(crate) session: usize,
    pub(crate) handle: Handle,
    pub(crate) ticket: Ticket,
    pub(crate) out: CompletionRing,
    pub(crate) host: Arc<host::Cq>,
    pub(crate) users: u32,
    /// The channel will tell of its next completion.
    pub(crate) armed: bool,
    /// It is in the list of those to be armed before the thread sleeps.
    pub(crate) listed: bool,
    /// The card cannot be asked for its completions any more.
    pub(crate) is_broken: bool,
}

/// A shared receive queue.
pub(crate) struct Srq {
    pub(crate) session: usize,
    pub(crate) handle: Handle,
    pub(crate) ticket: Ticket,
    pub(crate) pd: Handle,
    pub(crate) host: Arc<host::Srq>,
    pub(crate) lane: Lane,
    pub(crate) queued: bool,
    pub(crate) doorbell: u32,
    pub(crate) max_wr: u32,
    pub(crate) queue: ReceiveQueue,
    pub(crate) users: u32,
}

/// A request that the card has.
#[derive(Clone, Copy, Default)]
pub(crate) struct PostedSend {
    pub(crate) wr_id: u64,
    pub(crate) bytes: u64,
    pub(crate) opcode: u8,
    pub(crate) signalled: bool,
}

/// How far the card's queue pair is connected. On most cards that is what its state
/// says; an iWARP card's is connected by the kernel's connection manager, whenever
/// the peer is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    ByState,
    /// Not yet; since when requests wait for it.
    Waiting(Option<Nanos>),
    Made,
    /// It ended while nothing was under way. As with any RC the program hears of that
    /// by its next request; until then it has its receives.
    Ended,
    /// It broke. The first request that it takes along was not answered, all others
    /// are flushed.
    Lost {
        told: bool,
    },
}

/// A queue pair.
pub(crate) struct Qp {
    pub(crate) session: usize,
    pub(crate) handle: Handle,
    pub(crate) ticket: Ticket,
    pub(crate) qpn: u32,
    pub(crate) qp_type: QpType,
    pub(crate) domain: DomainKey,
    pub(crate) endpoint: EndpointKey,
    pub(crate) pd: Handle,
    pub(crate) host: Arc<host::Qp>,
    /// As far as the relay knows; the card may be ahead.
    pub(crate) state: State,
    pub(crate) connection: Connection,
    /// Where the peer's card has what may be reached there.
    pub(crate) peers_place: Placement,
    /// Receives that the card gave back when the connection ended.
    pub(crate) withheld: Vec<u32>,
    /// What the tenant set.
    pub(crate) attr: QpAttr,
    pub(crate) send_cq: usize,
    pub(crate) recv_cq: usize,
    pub(crate) srq: Option<usize>,
    pub(crate) sq_sig_all: bool,
    pub(crate) sq: MappedRing,
    /// Running index of the next request to hand to the card.
    pub(crate) sq_head: u32,
    /// Running index of the oldest one that the card has.
    pub(crate) sq_tail: u32,
    pub(crate) sends: Box<[PostedSend]>,
    pub(crate) rq: Option<ReceiveQueue>,
    pub(crate) doorbell: u32,
    /// The driver is to ring for receives.
    pub(crate) asks_for_rings: bool,
    pub(crate) lane: Lane,
    pub(crate) queued: bool,
    /// Counts resets: completions from before one mean nothing after it.
    pub(crate) epoch: u8,
    /// The request at the head breaks a rule; it is completed so when all before it
    /// are.
    pub(crate) refused: Option<Cqe>,
    /// The card had no room; completions make some.
    pub(crate) is_blocked: bool,
    /// Since when it is known to be in ERROR, or since the last completion there.
    pub(crate) failed_at: Option<Nanos>,
    pub(crate) counters: QpCounters,
    pub(crate) cause: Option<&'static str>,
}

impl Qp {
    /// Requests that the card has.
    pub(crate) fn outstanding(&self) -> u32 {
        self.sq_head.wrapping_sub(self.sq_tail)
    }

    pub(crate) fn send_slot(&self, index: u32) -> usize {
        index as usize & (self.sends.len() - 1)
    }

    /// Whether the card may get requests.
    pub(crate) fn may_send(&self) -> bool {
        matches!(self.connection, Connection::ByState | Connection::Made)
    }

    /// The connection broke.
    pub(crate) fn lose(&mut self) {
        if !matches!(
            self.connection,
            Connection::ByState | Connection::Lost { .. }
        ) {
            self.connection = Connection::Lost { told: false };
        }
    }

    /// Whether the program waits for something of the peer's that it asked for.
    pub(crate) fn has_requests(&self) -> bool {
        self.outstanding() > 0 || self.sq.is_published(self.sq_head)
    }

    /// Whether a receive that the card gives back flushed is the program's to keep: its
    /// queue pair is not in ERROR.
    pub(crate) fn keeps_receives(&self) -> bool {
        self.state != State::Err && matches!(self.connection, Connection::Made | Connection::Ended)
    }

    /// The status of a request that is given back undone.
    pub(crate) fn undone(&mut self) -> WcStatus {
        match &mut self.connection {
            Connection::Lost { told } if !*told => {
                *told = true;
                WcStatus::RetryExcErr
            }
            _ => WcStatus::WrFlushErr,
        }
    }

    /// Back to RESET: what the card had is forgotten.
    pub(crate) fn reset(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        (self.sq_head, self.sq_tail) = (0, 0);
        self.sq.set_device_index(0);
        if let Some(rq) = &mut self.rq {
            rq.reset();
        }
        self.refused = None;
        self.is_blocked = false;
        self.failed_at = None;
        self.cause = None;
        if self.connection != Connection::ByState {
            self.connection = Connection::Waiting(None);
        }
        self.peers_place = Placement::default();
        self.withheld.clear();
        self.state = State::Reset;
        self.attr = QpAttr {
            caps: self.attr.caps,
            sq_sig_all: self.attr.sq_sig_all,
            ..QpAttr::default()
        };
    }

    /// What its rings hold at most.
    pub(crate) fn most_posted(&self) -> usize {
        let receives = self.rq.as_ref().map_or(0, |rq| rq.ring.slots());
        self.sq.slots() as usize + receives as usize
    }

    /// Asks the driver to ring for receives, from now on: also when it has reset its ring.
    pub(crate) fn ask_for_rings(&mut self) {
        if let Some(rq) = &self.rq {
            rq.ring.set_receive_bell(Some(self.doorbell));
            // The asking before the look at what was posted without a ring.
            fence(Ordering::SeqCst);
            self.asks_for_rings = true;
        }
    }

    /// Asks for no rings while the card has receives enough. Not of those whose messages
    /// are lost without a receive, nor where a few are all there are. Whether it begins to
    /// ask: what was posted until then is to be looked for.
    pub(crate) fn ask_for_rings_if_needed(&mut self) -> bool {
        let Some(rq) = &self.rq else { return false };
        let enough = rq.outstanding() >= rq.most() / 2 && rq.most() >= MANY_RECEIVES;
        if enough && self.qp_type == QpType::Rc && self.state != State::Err {
            if self.asks_for_rings {
                rq.ring.set_receive_bell(None);
                self.asks_for_rings = false;
            }
            return false;
        }
        let begins = !self.asks_for_rings;
        if begins {
            self.ask_for_rings();
        }
        begins
    }
}

/// Names a request in completions of the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WrId {
    /// Of a send queue: queue pair, its epoch, running index.
    Send(usize, u8, u32),
    /// Of a receive queue: queue pair, its epoch, entry.
    Receive(usize, u8, u32),
    /// Of a shared receive queue: its index, entry.
    Shared(usize, u32),
}

const KIND: u32 = 62;
const OWNER: u32 = 40;
const OWNERS: u64 = (1 << (KIND - OWNER)) - 1;

impl WrId {
    /// Owners above this cannot be told apart.
    pub(crate) const MOST: usize = OWNERS as usize;

    pub(crate) fn pack(self) -> u64 {
        let (kind, owner, epoch, index) = match self {
            Self::Send(owner, epoch, index) => (0, owner, epoch, index),
            Self::Receive(owner, epoch, index) => (1, owner, epoch, index),
            Self::Shared(owner, index) => (2, owner, 0, index),
        };
        kind << KIND | (owner as u64 & OWNERS) << OWNER | u64::from(epoch) << 32 | u64::from(index)
    }

    pub(crate) fn unpack(raw: u64) -> Self {
        let owner = (raw >> OWNER & OWNERS) as usize;
        let (epoch, index) = ((raw >> 32) as u8, raw as u32);
        match raw >> KIND {
            0 => Self::Send(owner, epoch, index),
            1 => Self::Receive(owner, epoch, index),
            _ => Self::Shared(owner, index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn requests_are_told_apart(owner in 0..WrId::MOST, epoch: u8, index: u32) {
            for id in [
                WrId::Send(owner, epoch, index),
                WrId::Receive(owner, epoch, index),
                WrId::Shared(owner, index),
            ] {
                prop_assert_eq!(WrId::unpack(id.pack()), id);
            }
        }
    }

    #[test]
    fn work_comes_back_from_its_item() {
        for work in [Work::Qp(5), Work::Srq(5)] {
            assert_eq!(Work::of_item(work.item()), work);
        }
    }
}
