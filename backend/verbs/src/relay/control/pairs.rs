//! Queue pairs, from their creation to their end.

use super::NO_OBJECT;
use crate::attr::update;
use crate::card::Link;
use crate::host::{self, Ticket};
use crate::iwarp::Placement;
use crate::relay::headers::Headers;
use crate::relay::objects::{Connection, Qp, Work, WrId};
use crate::relay::receives::ReceiveQueue;
use crate::relay::{Object, Relay};
use masq_device::{DeviceError, EndpointKey, Handle, QpCounters, QpReport, QpSpec, Result};
use masq_spec::event::AsyncEvent;
use masq_spec::verbs::{QpAttr, QpMask, State};
use masq_transport::take_over;
use masq_verbs_abi::ibv_qp_attr;
use std::sync::Arc;

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

impl Relay {
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
        if index >= WrId::MOST {
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

    pub(super) fn remove_qp(&mut self, q: usize) -> Option<Qp> {
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
}
