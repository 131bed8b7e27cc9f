//! What the control side asks of a relay, between turns. The card's objects are made
//! and released by the control side itself: those calls take a while.

use super::complete::FLUSHES;
use super::headers::Headers;
use super::objects::{Ah, Connection, Cq, Mr, Qp, SessionState, Srq, Work};
use super::receives::ReceiveQueue;
use super::{Object, Relay};
use crate::attr::update;
use crate::card::Link;
use crate::host::{self, Channel, Context, Ticket};
use crate::iwarp::Placement;
use masq_datapath::CompletionRing;
use masq_device::{
    CqSpec, DeviceError, EndpointKey, Grants, Handle, QpCounters, QpReport, QpSpec, Result,
    SessionSpec, SrqSpec,
};
use masq_memory::MappedRing;
use masq_spec::doorbell::MAX_SLOTS;
use masq_spec::event::AsyncEvent;
use masq_spec::verbs::{Gid, QpAttr, QpMask, SrqAttr, State};
use masq_transport::take_over;
use masq_verbs_abi::ibv_qp_attr;
use rustc_hash::FxHashMap;
use std::sync::{Arc, Weak};

const NO_OBJECT: DeviceError = DeviceError::Invalid("no such object");

/// What a session leaves to be released by the caller; the order is the card's.
#[derive(Default)]
pub(crate) struct Remains {
    qps: Vec<Qp>,
    srqs: Vec<Srq>,
    cqs: Vec<Cq>,
    session: Option<SessionState>,
}

/// The card's side of a new queue pair.
pub(crate) struct NewQp {
    pub(crate) host: Arc<host::Qp>,
    /// Of a queue pair for datagrams with a receive queue of its own.
    pub(crate) headers: Option<Headers>,
    pub(crate) ticket: Ticket,
}

/// What a queue pair of the card is made with.
pub(crate) struct Parts {
    pub(crate) send_cq: Arc<host::Cq>,
    pub(crate) recv_cq: Arc<host::Cq>,
    pub(crate) srq: Option<Arc<host::Srq>>,
}

impl Remains {
    /// How many objects of the card are to be released.
    pub(crate) fn len(&self) -> usize {
        let regions = self.session.as_ref().map_or(0, |s| s.regions.len());
        self.qps.len() + self.srqs.len() + self.cqs.len() + regions
    }
}

impl Relay {
    pub(crate) fn open(&mut self, spec: SessionSpec) -> Result<usize> {
        if self.host.is_none() {
            return Err(DeviceError::Gone);
        }
        spec.doorbell.set_armed(self.armed);
        let lane = self.turns.enter(spec.domain);
        let s = self.sessions.insert(SessionState {
            label: spec.label,
            domain: spec.domain,
            partition: spec.partition,
            endpoint: spec.endpoint,
            gid: spec.gid,
            grants: spec.grants,
            doorbell: spec.doorbell,
            events: spec.events,
            lane,
            slots: Vec::new(),
            pds: FxHashMap::default(),
            qps: FxHashMap::default(),
            cqs: FxHashMap::default(),
            srqs: FxHashMap::default(),
            ahs: FxHashMap::default(),
            mrs: FxHashMap::default(),
            regions: FxHashMap::default(),
        });
        self.rota.enter(s);
        Ok(s)
    }

    /// Forgets a session; the caller releases what it had.
    pub(crate) fn close(&mut self, s: usize) -> Remains {
        let mut remains = Remains::default();
        let Some(session) = self.sessions.get(s) else {
            return remains;
        };
        let domain = session.domain;
        let qps: Vec<usize> = session.qps.values().copied().collect();
        let srqs: Vec<usize> = session.srqs.values().copied().collect();
        let cqs: Vec<usize> = session.cqs.values().copied().collect();
        remains
            .qps
            .extend(qps.into_iter().filter_map(|q| self.remove_qp(q)));
        remains
            .srqs
            .extend(srqs.into_iter().filter_map(|r| self.remove_srq(r)));
        remains
            .cqs
            .extend(cqs.into_iter().filter_map(|c| self.remove_cq(c)));
        self.rota.leave(s);
        remains.session = self.sessions.try_remove(s);
        self.turns.leave(domain);
        remains
    }

    /// The card is gone: all sessions are told, what they wait for is flushed, and
    /// the card's objects are let go of, which the kernel waits for.
    pub(super) fn card_is_gone(&mut self, why: &str) {
        tracing::error!(card = self.card.name, why, "the card is gone");
        let qps: Vec<usize> = self.qps.iter().map(|(q, _)| q).collect();
        for q in qps {
            if self.qps.get(q).is_some_and(|qp| qp.state != State::Reset) {
                self.failed(q, "the card is gone");
                self.write_off(q);
                // A driver that goes on posting is not waited for.
                let most = self.qps.get(q).map_or(0, Qp::most_posted) / FLUSHES + 1;
                for _ in 0..most {
                    self.flush(q);
                }
            }
        }
        let sessions: Vec<usize> = self.sessions.iter().map(|(s, _)| s).collect();
        for s in sessions {
            self.raise(s, AsyncEvent::DeviceFatal, 0);
            drop(self.close(s));
        }
        if let Some(host) = self.host.take() {
            let _ = rustix::io::write(&host.gone, &1u64.to_ne_bytes());
        }
        // Those who watch its descriptors hold it open.
        self.let_go = true;
    }

    /// What is needed of the card to make its objects.
    pub(crate) fn host(&self) -> Result<(Arc<Context>, Arc<Channel>)> {
        let host = self.host.as_ref().ok_or(DeviceError::Gone)?;
        Ok((Arc::clone(&host.context), Arc::clone(&host.channel)))
    }

    fn session(&mut self, s: usize) -> Result<&mut SessionState> {
        self.sessions.get_mut(s).ok_or(DeviceError::Gone)
    }

    pub(crate) fn set_gid(&mut self, s: usize, gid: Gid) -> Result<()> {
        self.session(s)?.gid = gid;
        Ok(())
    }

    pub(crate) fn set_grants(&mut self, s: usize, grants: Grants) -> Result<()> {
        self.session(s)?.grants = grants;
        Ok(())
    }

    /// The card's protection domain of a handle, if it has been made.
    pub(crate) fn pd(&mut self, s: usize, pd: Handle) -> Result<Option<Arc<host::Pd>>> {
        Ok(self.session(s)?.pds.get(&pd).and_then(Weak::upgrade))
    }

    pub(crate) fn keep_pd(&mut self, s: usize, pd: Handle, host: &Arc<host::Pd>) -> Result<()> {
        let pds = &mut self.session(s)?.pds;
        pds.retain(|_, pd| pd.strong_count() > 0);
        pds.insert(pd, Arc::downgrade(host));
        Ok(())
    }

    pub(crate) fn insert_mr(&mut self, s: usize, handle: Handle, mr: Mr) -> Result<u32> {
        let key = mr.host.lkey();
        if mr.host.rkey() != 0 && mr.host.rkey() != key {
            return Err(DeviceError::Unsupported(
                "a card with different local and remote keys",
            ));
        }
        let session = self.session(s)?;
        session.mrs.insert(handle, key);
        session.regions.insert(key, mr);
        Ok(key)
    }

    pub(crate) fn remove_mr(&mut self, s: usize, handle: Handle) -> Result<Mr> {
        let session = self.session(s)?;
        let key = session.mrs.remove(&handle).ok_or(NO_OBJECT)?;
        session.regions.remove(&key).ok_or(NO_OBJECT)
    }

    pub(crate) fn insert_cq(
        &mut self,
        s: usize,
        spec: CqSpec,
        host: Arc<host::Cq>,
        ticket: Ticket,
    ) -> Result<()> {
        let out = CompletionRing::new(&spec);
        let out = out.ok_or(DeviceError::Invalid("cqe does not fit the ring"))?;
        self.session(s)?;
        let index = self.cqs.insert(Cq {
            session: s,
            handle: spec.handle,
            ticket,
            out,
            host,
            users: 0,
            armed: false,
            listed: false,
            is_broken: false,
        });
        self.tickets.insert(ticket.0, Object::Cq(index));
        self.hot_cqs.enter(index);
        self.list_unarmed(index);
        self.session(s)?.cqs.insert(spec.handle, index);
        Ok(())
    }

    pub(crate) fn host_cq(&mut self, s: usize, handle: Handle) -> Result<Arc<host::Cq>> {
        let index = self.cq_index(s, handle)?;
        Ok(Arc::clone(&self.cqs.get(index).ok_or(NO_OBJECT)?.host))
    }

    fn cq_index(&mut self, s: usize, handle: Handle) -> Result<usize> {
        self.session(s)?.cqs.get(&handle).copied().ok_or(NO_OBJECT)
    }

    /// Returns the first running index in the new ring, and the old ring.
    pub(crate) fn move_cq(
        &mut self,
        s: usize,
        handle: Handle,
        ring: MappedRing,
        cqe: u32,
    ) -> Result<(u32, MappedRing)> {
        let index = self.cq_index(s, handle)?;
        // What the card has completed already.
        for _ in 0..64 {
            if !self.poll(index) {
                break;
            }
        }
        let cq = self.cqs.get_mut(index).ok_or(NO_OBJECT)?;
        if cqe == 0 || cqe > ring.slots() {
            return Err(DeviceError::Invalid("cqe does not fit the ring"));
        }
        if cq.out.waiting() > cqe {
            return Err(DeviceError::Invalid("more completions wait than would fit"));
        }
        Ok(cq.out.move_to(ring, cqe))
    }

    pub(crate) fn destroy_cq(&mut self, s: usize, handle: Handle) -> Result<Cq> {
        let index = self.cq_index(s, handle)?;
        if self.cqs.get(index).is_some_and(|cq| cq.users > 0) {
            return Err(DeviceError::Busy("a queue pair"));
        }
        self.session(s)?.cqs.remove(&handle);
        self.remove_cq(index).ok_or(NO_OBJECT)
    }

    fn remove_cq(&mut self, c: usize) -> Option<Cq> {
        let cq = self.cqs.try_remove(c)?;
        self.tickets.remove(&cq.ticket.0);
        self.hot_cqs.leave(c);
        self.unarmed.retain(|unarmed| *unarmed != c);
        Some(cq)
    }

    /// A free slot of the session's doorbell page.
    fn slot(&mut self, s: usize, work: Work) -> Result<u32> {
        let slots = &mut self.session(s)?.slots;
        let free = match slots.iter().position(Option::is_none) {
            Some(free) => free,
            None if slots.len() < MAX_SLOTS as usize => {
                slots.push(None);
                slots.len() - 1
            }
            None => return Err(DeviceError::Exhausted("doorbell slots")),
        };
        if let Some(slot) = slots.get_mut(free) {
            *slot = Some(work);
        }
        Ok(free as u32)
    }

    fn free_slot(&mut self, s: usize, slot: u32) {
        let session = self.sessions.get_mut(s);
        if let Some(slot) = session.and_then(|s| s.slots.get_mut(slot as usize)) {
            *slot = None;
        }
    }

    pub(crate) fn insert_srq(
        &mut self,
        s: usize,
        spec: SrqSpec,
        host: Arc<host::Srq>,
        ticket: Ticket,
    ) -> Result<()> {
        let lane = self.session(s)?.lane;
        let index = self.srqs.vacant_key();
        let doorbell = self.slot(s, Work::Srq(index))?;
        spec.ring.set_receive_bell(Some(doorbell));
        self.srqs.insert(Srq {
            session: s,
            handle: spec.handle,
            ticket,
            pd: spec.pd,
            host,
            lane,
            queued: false,
            doorbell,
            max_wr: spec.max_wr,
            queue: ReceiveQueue::new(spec.ring, spec.max_wr, spec.max_sge, true),
            users: 0,
        });
        self.tickets.insert(ticket.0, Object::Srq(index));
        self.session(s)?.srqs.insert(spec.handle, index);
        Ok(())
    }

    fn srq_index(&mut self, s: usize, handle: Handle) -> Result<usize> {
        self.session(s)?.srqs.get(&handle).copied().ok_or(NO_OBJECT)
    }

    pub(crate) fn host_srq(&mut self, s: usize, handle: Handle) -> Result<Arc<host::Srq>> {
        let index = self.srq_index(s, handle)?;
        Ok(Arc::clone(&self.srqs.get(index).ok_or(NO_OBJECT)?.host))
    }

    /// Attributes, but for the limit, which the card knows.
    pub(crate) fn srq_attr(&mut self, s: usize, handle: Handle) -> Result<SrqAttr> {
        let index = self.srq_index(s, handle)?;
        let srq = self.srqs.get(index).ok_or(NO_OBJECT)?;
        Ok(SrqAttr {
            max_wr: srq.max_wr,
            max_sge: srq.queue.max_sge,
            limit: 0,
            reserved: 0,
        })
    }

    pub(crate) fn destroy_srq(&mut self, s: usize, handle: Handle) -> Result<Srq> {
        let index = self.srq_index(s, handle)?;
        if self.srqs.get(index).is_some_and(|srq| srq.users > 0) {
            return Err(DeviceError::Busy("a queue pair"));
        }
        self.session(s)?.srqs.remove(&handle);
        self.remove_srq(index).ok_or(NO_OBJECT)
    }

    fn remove_srq(&mut self, r: usize) -> Option<Srq> {
        let srq = self.srqs.try_remove(r)?;
        self.tickets.remove(&srq.ticket.0);
        self.free_slot(srq.session, srq.doorbell);
        Some(srq)
    }

    /// The queues of the card that a new queue pair is to use.
    pub(crate) fn parts(
        &mut self,
        s: usize,
        spec: (Handle, Handle, Option<Handle>),
    ) -> Result<Parts> {
        let (send_cq, recv_cq, srq) = spec;
        Ok(Parts {
            send_cq: self.host_cq(s, send_cq)?,
            recv_cq: self.host_cq(s, recv_cq)?,
            srq: srq.map(|srq| self.host_srq(s, srq)).transpose()?,
        })
    }

    /// Returns its number and doorbell slot.
    pub(crate) fn insert_qp(&mut self, s: usize, spec: QpSpec, new: NewQp) -> Result<(u32, u32)> {
        let send_cq = self.cq_index(s, spec.send_cq)?;
        let recv_cq = self.cq_index(s, spec.recv_cq)?;
        let srq = spec
            .srq
            .map(|handle| self.srq_index(s, handle))
            .transpose()?;
        let session = self.session(s)?;
        let (domain, endpoint, lane) = (session.domain, session.endpoint, session.lane);
        let index = self.qps.vacant_key();
        if index >= super::objects::WrId::MOST {
            return Err(DeviceError::Exhausted("queue pairs"));
        }
        let doorbell = self.slot(s, Work::Qp(index))?;
        let caps = spec.caps;
        let keep_sges = spec.qp_type == masq_spec::verbs::QpType::Ud;
        let headers = new.headers;
        let receives = |ring| {
            let queue = ReceiveQueue::new(ring, caps.max_recv_wr, caps.max_recv_sge, keep_sges);
            match headers {
                Some(headers) => queue.with_headers(headers),
                None => queue,
            }
        };
        let sends = caps.max_send_wr.max(1).next_power_of_two() as usize;
        let qpn = new.host.qpn();
        let mut qp = Qp {
            session: s,
            handle: spec.handle,
            ticket: new.ticket,
            qpn,
            qp_type: spec.qp_type,
            domain,
            endpoint,
            pd: spec.pd,
            host: new.host,
            state: State::Reset,
            connection: match self.card.link {
                Link::Iwarp => Connection::Waiting(None),
                _ => Connection::ByState,
            },
            peers_place: Placement::default(),
            withheld: Vec::new(),
            attr: QpAttr {
                caps,
                sq_sig_all: u8::from(spec.sq_sig_all),
                ..QpAttr::default()
            },
            send_cq,
            recv_cq,
            srq,
            sq_sig_all: spec.sq_sig_all,
            sq: spec.sq,
            sq_head: 0,
            sq_tail: 0,
            sends: vec![Default::default(); sends].into(),
            rq: spec.rq.map(receives),
            doorbell,
            asks_for_rings: false,
            lane,
            queued: false,
            epoch: 0,
            refused: None,
            is_blocked: false,
            failed_at: None,
            counters: QpCounters::default(),
            cause: None,
        };
        qp.ask_for_rings();
        self.qps.insert(qp);
        self.qpns.insert(qpn, index);
        self.tickets.insert(new.ticket.0, Object::Qp(index));
        for cq in [send_cq, recv_cq] {
            if let Some(cq) = self.cqs.get_mut(cq) {
                cq.users += 1;
            }
        }
        if let Some(srq) = srq.and_then(|srq| self.srqs.get_mut(srq)) {
            srq.users += 1;
        }
        self.session(s)?.qps.insert(spec.handle, index);
        Ok((qpn, doorbell))
    }

    fn qp_index(&mut self, s: usize, handle: Handle) -> Result<usize> {
        self.session(s)?.qps.get(&handle).copied().ok_or(NO_OBJECT)
    }

    /// The card's queue pair, its type and the state that the relay knows.
    pub(crate) fn host_qp(
        &mut self,
        s: usize,
        handle: Handle,
    ) -> Result<(Arc<host::Qp>, masq_spec::verbs::QpType, State)> {
        let q = self.qp_index(s, handle)?;
        let qp = self.qps.get(q).ok_or(NO_OBJECT)?;
        Ok((Arc::clone(&qp.host), qp.qp_type, qp.state))
    }

    /// Whether a queue pair of this host belongs to an endpoint that a session of
    /// `s` may connect to.
    pub(crate) fn is_qp_of(&mut self, s: usize, qpn: u32, endpoint: EndpointKey) -> Result<bool> {
        let domain = self.session(s)?.domain;
        let peer = self.qpns.get(&qpn).and_then(|p| self.qps.get(*p));
        Ok(peer.is_some_and(|peer| peer.domain == domain && peer.endpoint == endpoint))
    }

    /// The card is about to forget what it has of a queue pair.
    pub(crate) fn begin_reset(&mut self, s: usize, handle: Handle) -> Result<()> {
        let q = self.qp_index(s, handle)?;
        if let Some(qp) = self.qps.get_mut(q) {
            qp.state = State::Reset;
        }
        Ok(())
    }

    /// The card has changed a queue pair.
    pub(crate) fn modified(
        &mut self,
        s: usize,
        handle: Handle,
        mask: QpMask,
        attr: &QpAttr,
        to: State,
    ) -> Result<()> {
        let q = self.qp_index(s, handle)?;
        let qp = self.qps.get_mut(q).ok_or(NO_OBJECT)?;
        match to {
            State::Reset => qp.reset(),
            State::Err => self.failed(q, "the program moved it to ERROR"),
            // The card may have failed meanwhile.
            _ if qp.state == State::Err => {}
            _ => {
                take_over(&mut qp.attr, mask, attr);
                qp.state = to;
                // A driver that has reset its ring no longer rings.
                qp.ask_for_rings();
                let is_over = to == State::Sqd && qp.connection == Connection::Ended;
                // Before the program can tell its peer to send.
                self.post_receives(q);
                self.enqueue(q);
                if is_over {
                    self.lose(q, "the program closed the connection");
                }
            }
        }
        Ok(())
    }

    /// Attributes and counters; `live`: what the card says.
    pub(crate) fn report(
        &mut self,
        s: usize,
        handle: Handle,
        live: &ibv_qp_attr,
    ) -> Result<QpReport> {
        let q = self.qp_index(s, handle)?;
        if live.qp_state == State::Err as u32 {
            self.follow_card(q, "the card moved it to ERROR");
        }
        let qp = self.qps.get(q).ok_or(NO_OBJECT)?;
        let mut attr = qp.attr;
        match qp.connection {
            Connection::ByState => update(&mut attr, live),
            // An RNIC's begins where others' are after INIT, and drivers say so.
            _ if qp.state == State::Reset => attr.qp_state = State::Init as u32,
            _ => attr.qp_state = qp.state as u32,
        }
        let waiting = (0..attr.caps.max_send_wr)
            .take_while(|n| qp.sq.is_published(qp.sq_head.wrapping_add(*n)))
            .count() as u32;
        Ok(QpReport {
            attr,
            qpn: qp.qpn,
            qp_type: qp.qp_type,
            send_queue: qp.outstanding() + waiting,
            counters: qp.counters,
            cause: qp.cause,
        })
    }

    /// What names a queue pair for ever.
    pub(crate) fn ticket_of(&mut self, s: usize, handle: Handle) -> Result<Ticket> {
        let q = self.qp_index(s, handle)?;
        Ok(self.qps.get(q).ok_or(NO_OBJECT)?.ticket)
    }

    /// The kernel has connected a queue pair.
    pub(crate) fn connected(&mut self, ticket: Ticket, place: Placement) {
        let Some(Object::Qp(q)) = self.tickets.get(&ticket.0).copied() else {
            return;
        };
        let is_waiting = |qp: &&mut Qp| matches!(qp.connection, Connection::Waiting(_));
        if let Some(qp) = self.qps.get_mut(q).filter(is_waiting) {
            qp.connection = Connection::Made;
            qp.peers_place = place;
            self.enqueue(q);
        }
    }

    /// A connection ended, or was not made.
    pub(crate) fn disconnected(&mut self, ticket: Ticket, cause: &'static str) {
        if let Some(Object::Qp(q)) = self.tickets.get(&ticket.0).copied() {
            self.lose(q, cause);
        }
    }

    /// Moves a queue pair to ERROR on the operator's behalf.
    pub(crate) fn cut(&mut self, s: usize, handle: Handle) -> Result<()> {
        let q = self.qp_index(s, handle)?;
        if self.fail(q, "the policy no longer allows the connection") {
            self.raise(s, AsyncEvent::QpFatal, handle);
        }
        Ok(())
    }

    pub(crate) fn destroy_qp(&mut self, s: usize, handle: Handle) -> Result<Qp> {
        let q = self.qp_index(s, handle)?;
        self.session(s)?.qps.remove(&handle);
        self.remove_qp(q).ok_or(NO_OBJECT)
    }

    fn remove_qp(&mut self, q: usize) -> Option<Qp> {
        let qp = self.qps.try_remove(q)?;
        self.qpns.remove(&qp.qpn);
        self.tickets.remove(&qp.ticket.0);
        self.failing.retain(|failing| *failing != q);
        self.unconnected.retain(|waiting| *waiting != q);
        self.free_slot(qp.session, qp.doorbell);
        for cq in [qp.send_cq, qp.recv_cq] {
            if let Some(cq) = self.cqs.get_mut(cq) {
                cq.users = cq.users.saturating_sub(1);
            }
        }
        if let Some(srq) = qp.srq.and_then(|srq| self.srqs.get_mut(srq)) {
            srq.users = srq.users.saturating_sub(1);
        }
        Some(qp)
    }

    pub(crate) fn insert_ah(&mut self, s: usize, handle: Handle, ah: Ah) -> Result<()> {
        self.session(s)?.ahs.insert(handle, ah);
        Ok(())
    }

    pub(crate) fn remove_ah(&mut self, s: usize, handle: Handle) -> Result<Ah> {
        self.session(s)?.ahs.remove(&handle).ok_or(NO_OBJECT)
    }
}
