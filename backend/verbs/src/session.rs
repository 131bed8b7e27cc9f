//! A session: the card's objects are made and released here, on the control side;
//! the data path gets them when they are ready, and gives them back when it has let
//! go.

use crate::aside::{Answer, Asides};
use crate::attr::{LIVE, path, to_card};
use crate::bridge::Agreed;
use crate::card::{Card, Link};
use crate::host::{self, Channel, Context, QpShape, Ticket, refused};
use crate::iwarp::{Connector, Placement, reserve};
use crate::mapped::Mapped;
use crate::relay::{Ah, Headers, Mr, NewQp, Relay};
use masq_datapath::DataPath;
use masq_device::{
    AhSpec, CqSpec, Destination, DeviceError, DomainKey, EndpointKey, Grants, Handle, MrSpec,
    MwSpec, QpChange, QpReport, QpSpec, Result, Session, SrqSpec,
};
use masq_memory::{MappedRing, Mirror, Region};
use masq_spec::verbs::{Access, Gid, QpMask, QpType, SrqAttr, State};
use masq_transport::check_transition;
use masq_verbs_abi::{ibv_qp_attr, ibv_qp_cap};
use rustc_hash::FxHashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Room in a CQ of an iWARP card. siw makes it as small as it is asked to, while others
/// round up; the relay may be late, and what overflows there breaks the connection.
const FEWEST_CQES: u32 = 64;

/// Objects that are released at once.
const MANY: usize = 32;

/// Bytes above which the kernel takes longer to pin than other tenants should wait.
const LARGE: u64 = 4 << 20;

/// Calls that are made beside, one of each kind at most.
#[derive(Default)]
struct Pending {
    modify: Option<Answer<()>>,
    ah: Option<Answer<host::Ah>>,
    register: Option<Answer<Mr>>,
    deregister: Option<Answer<Region>>,
}

/// One frontend process on a card.
pub(crate) struct VerbsSession {
    pub(crate) card: Arc<Card>,
    /// What the kernel agreed with plain hosts.
    pub(crate) agreed: Arc<Agreed>,
    path: Arc<DataPath<Relay>>,
    /// Its number among the device's.
    path_number: usize,
    index: usize,
    kick: Arc<OwnedFd>,
    tenant: DomainKey,
    asides: Arc<Asides>,
    pending: Pending,
    /// On a card that goes by where memory is mapped: where that is, if peers may reach it.
    pub(crate) place: Option<Placement>,
    mirror: Option<Mirror>,
    /// Of an iWARP card.
    pub(crate) connector: Option<Arc<Connector>>,
    /// Numbers of the queue pairs that it was told of.
    pub(crate) joined: FxHashSet<u32>,
}

impl VerbsSession {
    pub(crate) fn new(
        card: Arc<Card>,
        agreed: Arc<Agreed>,
        (path_number, path): (usize, Arc<DataPath<Relay>>),
        index: usize,
        kick: Arc<OwnedFd>,
        (tenant, asides): (DomainKey, Arc<Asides>),
        connector: Option<Arc<Connector>>,
    ) -> Self {
        let place = (!card.has_iova).then(Placement::draw);
        Self {
            card,
            agreed,
            path,
            path_number,
            index,
            kick,
            tenant,
            asides,
            pending: Pending::default(),
            place,
            mirror: reserve().filter(|_| place.is_some()).map(Mirror::new),
            connector,
            joined: FxHashSet::default(),
        }
    }

    pub(crate) fn data_path(&self) -> Arc<DataPath<Relay>> {
        Arc::clone(&self.path)
    }

    pub(crate) fn path_number(&self) -> usize {
        self.path_number
    }

    pub(crate) fn call<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Relay, usize) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let index = self.index;
        self.path.call(move |relay| f(relay, index))?
    }

    fn host(&self) -> Result<(Arc<Context>, Arc<Channel>)> {
        self.call(|relay, _| relay.host())
    }

    /// The card's protection domain for the tenant's; made when it is first used.
    fn pd(&self, pd: Handle) -> Result<Arc<host::Pd>> {
        if let Some(made) = self.call(move |relay, s| relay.pd(s, pd))? {
            return Ok(made);
        }
        let (context, _) = self.host()?;
        let made = host::Pd::new(&context).map_err(|e| refused("a protection domain", &e))?;
        let kept = Arc::clone(&made);
        self.call(move |relay, s| relay.keep_pd(s, pd, &kept))?;
        Ok(made)
    }

    /// Where a path leads on the card, if it may lead there.
    pub(crate) fn check_destination(
        &self,
        destination: Destination,
        qpn: Option<u32>,
    ) -> Result<()> {
        let (Destination::Endpoint(endpoint), Some(qpn)) = (destination, qpn) else {
            return Ok(());
        };
        // Queue pairs of other tenants are on the same card: a number is not enough.
        match self.call(move |relay, s| relay.is_qp_of(s, qpn, endpoint))? {
            true => Ok(()),
            false => Err(DeviceError::Invalid(
                "dest_qp_num is no queue pair of that endpoint",
            )),
        }
    }

    /// Gives the data path what the card has registered.
    fn keep_mr(&self, handle: Handle, pinned: io::Result<Mr>) -> Result<u32> {
        let mr = pinned.map_err(|e| refused("a memory region", &e))?;
        self.call(move |relay, s| relay.insert_mr(s, handle, mr))
    }

    /// Whether a call has to look for a neighbour.
    fn may_block(destination: Option<Destination>) -> bool {
        matches!(destination, Some(Destination::Host(_)))
    }
}

impl Session for VerbsSession {
    fn set_grants(&mut self, grants: Grants) -> Result<()> {
        self.call(move |relay, s| relay.set_grants(s, grants))
    }

    fn set_gid(&mut self, gid: Gid) -> Result<()> {
        self.call(move |relay, s| relay.set_gid(s, gid))
    }

    #[allow(unsafe_code)] // registers mapped memory
    fn register(&mut self, mr: MrSpec) -> Result<u32> {
        let passed = Access::LOCAL_WRITE
            | Access::REMOTE_WRITE
            | Access::REMOTE_READ
            | Access::REMOTE_ATOMIC
            | Access::RELAXED_ORDERING;
        if mr.access.contains(Access::ZERO_BASED) {
            return Err(DeviceError::Unsupported("zero-based regions over a card"));
        }
        let pd = self.pd(mr.pd)?;
        let (len, access) = (mr.region.len(), (mr.access & passed).bits());
        let for_peers = Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC;
        let mapped = match self.place {
            Some(place) if mr.access.intersects(for_peers) => {
                Mapped::mirrored(self.mirror.as_mut(), mr.region, place.of(mr.iova))?
            }
            _ => Mapped::of(mr.region)?,
        };
        let goes_by_place = self.place.is_some();
        let pin = move || {
            let at = mapped.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
            let base = match goes_by_place {
                true => at.as_ptr() as u64,
                false => mr.iova,
            };
            Ok(Mr {
                // SAFETY: the region, its span and its mirror keep the memory mapped, and
                // are dropped only after the card's registration.
                host: unsafe { host::Mr::new(&pd, at, len, base, access, mapped) }?,
                pd: mr.pd,
                iova: mr.iova,
                base,
            })
        };
        let pinned = match len > LARGE {
            true => {
                let answer = self.asides.start(self.tenant, mr.handle, pin)?;
                answer.soon(&mut self.pending.register)?
            }
            false => pin(),
        };
        self.keep_mr(mr.handle, pinned)
    }

    fn registered(&mut self, mr: Handle) -> Result<u32> {
        let slot = &mut self.pending.register;
        let answer = Answer::of(slot, mr);
        let answer = answer.ok_or(DeviceError::Invalid("nothing is being registered"))?;
        let pinned = answer.soon(slot)?;
        self.keep_mr(mr, pinned)
    }

    fn deregister(&mut self, mr: Handle) -> Result<Region> {
        // A registration that nobody asks for any more ends as it comes.
        drop(Answer::of(&mut self.pending.register, mr));
        let slot = &mut self.pending.deregister;
        let unpinned = match Answer::of(slot, mr) {
            Some(answer) => answer.soon(slot)?,
            // Its key goes only when it can go at once.
            None if !self.asides.has_room(self.tenant) => return Err(DeviceError::Again),
            None => {
                let index = self.index;
                let taken = self.path.call(move |relay| relay.remove_mr(index, mr))??;
                let is_large = taken.host.memory().is_some_and(|m| m.region.len() > LARGE);
                let unpin = move || {
                    let mapped = taken.host.deregister();
                    mapped
                        .map(|mapped| mapped.region)
                        .ok_or(io::ErrorKind::Other.into())
                };
                match is_large {
                    true => self.asides.start(self.tenant, mr, unpin)?.soon(slot)?,
                    false => unpin(),
                }
            }
        };
        unpinned.map_err(|_| DeviceError::Gone)
    }

    fn alloc_mw(&mut self, _: MwSpec) -> Result<u32> {
        Err(DeviceError::Unsupported("memory windows over a card"))
    }

    fn dealloc_mw(&mut self, _: Handle) -> Result<()> {
        Err(DeviceError::Unsupported("memory windows over a card"))
    }

    fn create_cq(&mut self, cq: CqSpec) -> Result<()> {
        let (_, channel) = self.host()?;
        let ticket = Ticket::unused();
        let room = match self.card.link {
            Link::Iwarp => cq.cqe.max(FEWEST_CQES),
            _ => cq.cqe,
        };
        let host = host::Cq::new(&channel, room, ticket);
        let host = host.map_err(|e| refused("a completion queue", &e))?;
        self.call(move |relay, s| relay.insert_cq(s, cq, host, ticket))
    }

    fn resize_cq(&mut self, cq: Handle, ring: MappedRing, cqe: u32) -> Result<u32> {
        let host = self.call(move |relay, s| relay.host_cq(s, cq))?;
        host.resize(cqe)
            .map_err(|e| refused("another size of the completion queue", &e))?;
        // The old ring is unmapped here.
        let (first, _old) = self.call(move |relay, s| relay.move_cq(s, cq, ring, cqe))?;
        Ok(first)
    }

    fn destroy_cq(&mut self, cq: Handle) -> Result<()> {
        self.call(move |relay, s| relay.destroy_cq(s, cq)).map(drop)
    }

    fn create_srq(&mut self, srq: SrqSpec) -> Result<()> {
        let pd = self.pd(srq.pd)?;
        let ticket = Ticket::unused();
        let host = host::Srq::new(&pd, srq.max_wr, srq.max_sge, ticket);
        let host = host.map_err(|e| refused("a shared receive queue", &e))?;
        let (limit, handle) = (srq.limit, srq.handle);
        self.call(move |relay, s| relay.insert_srq(s, srq, host, ticket))?;
        match limit {
            0 => Ok(()),
            limit => self.set_srq_limit(handle, limit),
        }
    }

    fn set_srq_limit(&mut self, srq: Handle, limit: u32) -> Result<()> {
        let host = self.call(move |relay, s| relay.host_srq(s, srq))?;
        host.set_limit(limit).map_err(|e| refused("the limit", &e))
    }

    fn query_srq(&mut self, srq: Handle) -> Result<SrqAttr> {
        let (attr, host) = self.call(move |relay, s| {
            let attr = relay.srq_attr(s, srq)?;
            Ok((attr, relay.host_srq(s, srq)?))
        })?;
        let limit = host.limit().map_err(|e| refused("to tell the limit", &e))?;
        Ok(SrqAttr { limit, ..attr })
    }

    fn destroy_srq(&mut self, srq: Handle) -> Result<()> {
        self.call(move |relay, s| relay.destroy_srq(s, srq))
            .map(drop)
    }

    fn create_qp(&mut self, qp: QpSpec) -> Result<(u32, u32)> {
        let pd = self.pd(qp.pd)?;
        let queues = (qp.send_cq, qp.recv_cq, qp.srq);
        let parts = self.call(move |relay, s| relay.parts(s, queues))?;
        let caps = &qp.caps;
        // Headers of datagrams go to memory of masqd's own, one element more.
        let is_datagram = qp.qp_type == QpType::Ud && qp.srq.is_none();
        let headers = is_datagram.then(|| Headers::new(&pd, caps.max_recv_wr));
        let headers = headers.transpose();
        let headers = headers.map_err(|e| refused("memory for headers of datagrams", &e))?;
        let shape = QpShape {
            qp_type: qp.qp_type as u32,
            cap: ibv_qp_cap {
                max_send_wr: caps.max_send_wr,
                max_recv_wr: if qp.srq.is_some() {
                    0
                } else {
                    caps.max_recv_wr
                },
                max_send_sge: caps.max_send_sge,
                max_recv_sge: if qp.srq.is_some() {
                    0
                } else {
                    caps.max_recv_sge + u32::from(is_datagram)
                },
                max_inline_data: caps.max_inline_data,
            },
            sq_sig_all: qp.sq_sig_all,
            ticket: Ticket::unused(),
        };
        let (send, recv) = (&parts.send_cq, &parts.recv_cq);
        let host = host::Qp::new(&pd, send, recv, parts.srq.as_ref(), &shape);
        let host = host.map_err(|e| refused("a queue pair", &e))?;
        if self.card.link == Link::Iwarp {
            self.agreed.pairs.insert(&host);
        }
        let new = NewQp {
            host,
            headers,
            ticket: shape.ticket,
        };
        self.call(move |relay, s| relay.insert_qp(s, qp, new))
    }

    fn modify_qp(&mut self, qp: Handle, change: QpChange) -> Result<State> {
        let (mask, attr) = (change.mask, change.attr);
        let (host, qp_type, now) = self.call(move |relay, s| relay.host_qp(s, qp))?;
        let to = match mask.contains(QpMask::STATE) {
            true => State::from_raw(attr.qp_state).ok_or(DeviceError::Invalid("no such state"))?,
            false => now,
        };
        let is_iwarp = self.card.link == Link::Iwarp;
        if is_iwarp && (now, to) == (State::Err, State::Sqd) {
            // To close a connection that has ended is no mistake.
            return Ok(State::Err);
        }
        check_transition(qp_type, now, to, mask).map_err(|_| {
            DeviceError::Invalid("not allowed in this state, or attributes missing")
        })?;
        if is_iwarp {
            return self.modify_iwarp(qp, &change, &host, (now, to));
        }
        let path = match change.destination {
            Some(destination) => {
                let qpn = mask.contains(QpMask::DEST_QPN).then_some(attr.dest_qp_num);
                self.check_destination(destination, qpn)?;
                Some(path(&self.card, &attr.ah, destination)?)
            }
            None => None,
        };
        let mut wanted = to_card(&self.card, mask, &attr, path)?;
        if let (State::Rtr, Some(Destination::Host(peer))) = (to, change.destination) {
            self.agreed.correct(host.qpn(), peer, &mut wanted);
        }
        if to == State::Reset {
            self.call(move |relay, s| relay.begin_reset(s, qp))?;
        }
        let slot = &mut self.pending.modify;
        let changed = match Answer::of(slot, qp) {
            Some(answer) => answer.soon(slot)?,
            None if Self::may_block(change.destination) => {
                let host = Arc::clone(&host);
                let call = move || host.modify(wanted, mask.bits());
                self.asides.start(self.tenant, qp, call)?.soon(slot)?
            }
            None => host.modify(wanted, mask.bits()),
        };
        changed.map_err(|e| refused("this change of the queue pair", &e))?;
        self.call(move |relay, s| relay.modified(s, qp, mask, &attr, to))?;
        Ok(to)
    }

    fn query_qp(&mut self, qp: Handle) -> Result<QpReport> {
        let (host, ..) = self.call(move |relay, s| relay.host_qp(s, qp))?;
        let live: ibv_qp_attr = host
            .query(LIVE)
            .map_err(|e| refused("to tell of the queue pair", &e))?;
        self.call(move |relay, s| relay.report(s, qp, &live))
    }

    fn fail_qp(&mut self, qp: Handle) -> Result<()> {
        let (host, ..) = self.call(move |relay, s| relay.host_qp(s, qp))?;
        self.call(move |relay, s| relay.cut(s, qp))?;
        self.leave(host.qpn());
        Ok(())
    }

    fn destroy_qp(&mut self, qp: Handle) -> Result<()> {
        let (host, ..) = self.call(move |relay, s| relay.host_qp(s, qp))?;
        if self.joined.remove(&host.qpn()) {
            self.leave(host.qpn());
        }
        drop(host);
        // The card's queue pair goes here, when the data path has let go of it.
        self.call(move |relay, s| relay.destroy_qp(s, qp)).map(drop)
    }

    fn create_ah(&mut self, ah: AhSpec) -> Result<()> {
        let wanted = path(&self.card, &ah.attr, ah.destination)?;
        let pd = self.pd(ah.pd)?;
        let slot = &mut self.pending.ah;
        let made = match Answer::of(slot, ah.handle) {
            Some(answer) => answer.soon(slot)?,
            None if Self::may_block(Some(ah.destination)) => {
                let call = move || host::Ah::new(&pd, wanted);
                self.asides
                    .start(self.tenant, ah.handle, call)?
                    .soon(slot)?
            }
            None => host::Ah::new(&pd, wanted),
        };
        let entry = Ah {
            host: Arc::new(made.map_err(|e| refused("an address handle", &e))?),
            pd: ah.pd,
            endpoint: match ah.destination {
                Destination::Endpoint(endpoint) => Some(endpoint),
                _ => None,
            },
            only: ah.only,
        };
        let handle = ah.handle;
        self.call(move |relay, s| relay.insert_ah(s, handle, entry))
    }

    fn destroy_ah(&mut self, ah: Handle) -> Result<()> {
        self.call(move |relay, s| relay.remove_ah(s, ah)).map(drop)
    }

    fn set_multicast_reach(&mut self, _: Vec<EndpointKey>) -> Result<()> {
        Ok(())
    }

    fn attach_multicast(&mut self, _: Handle, _: Gid) -> Result<()> {
        Err(DeviceError::Unsupported("multicast over a card"))
    }

    fn detach_multicast(&mut self, _: Handle, _: Gid) -> Result<()> {
        Err(DeviceError::Unsupported("multicast over a card"))
    }
}

impl Drop for VerbsSession {
    fn drop(&mut self) {
        self.path.unwatch(self.kick.as_fd());
        self.leave_all();
        // What is left is released here, not by the data path; much of it by a thread,
        // so that nobody is kept waiting while the card works.
        let Ok(remains) = self.call(|relay, s| Ok(relay.close(s))) else {
            return;
        };
        if remains.len() > MANY {
            let thread = std::thread::Builder::new().name("masq-release".into());
            // Without a thread it is dropped here, with the closure.
            let _ = thread.stack_size(256 << 10).spawn(move || drop(remains));
        }
    }
}
