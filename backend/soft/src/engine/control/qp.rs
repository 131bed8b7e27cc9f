//! Queue pairs: creation, state, end.

use super::NO_OBJECT;
use super::attributes::check_values;
use crate::engine::keys::KeyKind;
use crate::engine::objects::{Qp, ReceiveQueue, Waiting};
use crate::engine::tap::Noted;
use crate::engine::wire::Link;
use crate::engine::{Engine, Numbers};
use crate::limits::MAX_QPN;
use masq_device::{
    Destination, DeviceError, Handle, QpChange, QpCounters, QpReport, QpSpec, Result,
};
use masq_spec::doorbell::MAX_SLOTS;
use masq_spec::event::AsyncEvent;
use masq_spec::verbs::{QpAttr, QpMask, QpType, State};
use masq_transport::{KeyScope, Retry, check_transition};
use masq_wire::PKey;
use rustc_hash::FxHashSet;

impl Engine {
    pub(crate) fn create_qp(&mut self, s: usize, spec: QpSpec) -> Result<(u32, u32)> {
        let send_cq = self.cq_index(s, spec.send_cq)?;
        let recv_cq = self.cq_index(s, spec.recv_cq)?;
        let srq = spec
            .srq
            .map(|handle| self.srq_index(s, handle))
            .transpose()?;
        let qpn = self
            .fresh_qpn()
            .ok_or(DeviceError::Exhausted("queue pair numbers"))?;
        let session = self.session(s)?;
        let doorbell = match session.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None if session.slots.len() < MAX_SLOTS as usize => {
                session.slots.push(None);
                session.slots.len() - 1
            }
            None => return Err(DeviceError::Exhausted("doorbell slots")),
        };
        let (domain, endpoint, lane) = (session.domain, session.endpoint, session.lane);
        let attr = QpAttr {
            caps: spec.caps,
            sq_sig_all: u8::from(spec.sq_sig_all),
            ..QpAttr::default()
        };
        let max_sge = spec.caps.max_recv_sge;
        let index = self.qps.insert(Qp {
            session: s,
            handle: spec.handle,
            qpn,
            qp_type: spec.qp_type,
            domain,
            endpoint,
            pd: (s, spec.pd),
            state: State::Reset,
            attr,
            send_cq,
            recv_cq,
            srq,
            sq_sig_all: spec.sq_sig_all,
            sq: spec.sq,
            sq_head: 0,
            rq: spec.rq.map(|ring| ReceiveQueue {
                ring,
                head: 0,
                max_sge,
            }),
            doorbell: doorbell as u32,
            peer: None,
            peer_index: None,
            link: None,
            retry: Retry::default(),
            current: None,
            spare: None,
            waiting: Waiting::Nothing,
            queued: false,
            in_rnr_list: false,
            taken: Vec::new(),
            held: None,
            epoch: 0,
            lane,
            rnr_until: 0,
            starved: true,
            flush_after: 0,
            deliveries: 0,
            joined: Vec::new(),
            bound: FxHashSet::default(),
            established: false,
            flushed: false,
            counters: QpCounters::default(),
            noted: Noted::default(),
            cause: None,
        });
        self.qpns.insert(qpn, index);
        for cq in [send_cq, recv_cq] {
            if let Some(cq) = self.cqs.get_mut(cq) {
                cq.users += 1;
            }
        }
        if let Some(srq) = srq.and_then(|srq| self.srqs.get_mut(srq)) {
            srq.users += 1;
        }
        let session = self.session(s)?;
        session.qps.insert(spec.handle, index);
        if let Some(slot) = session.slots.get_mut(doorbell) {
            *slot = Some(index);
        }
        Ok((qpn, doorbell as u32))
    }

    fn fresh_qpn(&self) -> Option<u32> {
        (0..64).find_map(|_| {
            let qpn = getrandom::u32().ok()? & MAX_QPN;
            // 0 and 1 are management's, the highest is multicast's.
            let Numbers { number, threads } = self.numbers;
            let qpn = qpn - qpn % threads + number;
            (qpn > 1 && qpn < MAX_QPN && !self.qpns.contains_key(&qpn)).then_some(qpn)
        })
    }

    pub(crate) fn modify_qp(
        &mut self,
        s: usize,
        handle: Handle,
        change: QpChange,
    ) -> Result<State> {
        let q = self.qp_index(s, handle)?;
        let most = self.wire.as_ref().map(|wire| u32::from(wire.mtu().code()));
        let partition = self.session(s)?.partition.filter(|_| most.is_some());
        let qp = self.qps.get_mut(q).ok_or(NO_OBJECT)?;
        let (mask, new) = (change.mask, change.attr);
        let to = if mask.contains(QpMask::STATE) {
            State::from_raw(new.qp_state).ok_or(DeviceError::Invalid("no such state"))?
        } else {
            qp.state
        };
        if mask.contains(QpMask::CUR_STATE) && new.cur_qp_state != qp.state as u32 {
            return Err(DeviceError::Invalid(
                "the queue pair is not in cur_qp_state",
            ));
        }
        check_transition(qp.qp_type, qp.state, to, mask).map_err(|_| {
            DeviceError::Invalid("not allowed in this state, or attributes missing")
        })?;
        check_values(mask, &new)?;
        check_peer(qp, &change, partition, most)?;
        if to == State::Reset {
            qp.reset();
            return Ok(to);
        }
        if to == State::Err {
            self.fail(q, "the program moved it to ERROR", None);
            return Ok(to);
        }
        qp.apply(mask, &new);
        qp.connect(change.destination, partition, to);
        if to == State::Sqd && qp.state == State::Rts {
            qp.attr.sq_draining = 1;
        }
        if to == State::Rts {
            qp.attr.sq_draining = 0;
        }
        if to == State::Rts && qp.state == State::Sqe {
            qp.cause = None;
        }
        qp.state = to;
        qp.attr.qp_state = to as u32;
        // The thread is woken only if there is something for it to do.
        let is_linked = qp.link.is_some();
        if is_linked || qp.current.is_some() || qp.attr.sq_draining != 0 || qp.posted() > 0 {
            self.enqueue(q);
        }
        Ok(to)
    }

    pub(crate) fn query_qp(&mut self, s: usize, handle: Handle) -> Result<QpReport> {
        let q = self.qp_index(s, handle)?;
        let qp = self.qps.get(q).ok_or(NO_OBJECT)?;
        let mut attr = qp.attr;
        attr.qp_state = qp.state as u32;
        attr.cur_qp_state = qp.state as u32;
        let mut counters = qp.counters;
        if let Some(link) = &qp.link {
            link.report(&mut attr, &mut counters);
        }
        Ok(QpReport {
            attr,
            qpn: qp.qpn,
            qp_type: qp.qp_type,
            send_queue: qp.posted(),
            counters,
            cause: qp.cause,
        })
    }

    pub(crate) fn fail_qp(&mut self, s: usize, handle: Handle, cause: &'static str) -> Result<()> {
        let q = self.qp_index(s, handle)?;
        self.fail(q, cause, Some(AsyncEvent::QpFatal));
        Ok(())
    }

    pub(crate) fn destroy_qp(&mut self, s: usize, handle: Handle) -> Result<Qp> {
        let q = self.qp_index(s, handle)?;
        let session = self.session(s)?;
        session.qps.remove(&handle);
        let qp = self.qps.try_remove(q).ok_or(NO_OBJECT)?;
        if let Some(slot) = self.session(s)?.slots.get_mut(qp.doorbell as usize) {
            *slot = None;
        }
        self.qpns.remove(&qp.qpn);
        if qp.queued
            && let Some(lane) = self.lanes.get_mut(qp.lane)
        {
            lane.queue.retain(|index| *index != q);
        }
        if qp.in_rnr_list {
            self.rnr_waiters.retain(|index| *index != q);
        }
        for group in &qp.joined {
            self.leave_group(q, qp.domain, *group);
        }
        for cq in [qp.send_cq, qp.recv_cq] {
            if let Some(cq) = self.cqs.get_mut(cq) {
                cq.users = cq.users.saturating_sub(1);
            }
        }
        if let Some(srq) = qp.srq.and_then(|srq| self.srqs.get_mut(srq)) {
            srq.users = srq.users.saturating_sub(1);
        }
        for key in &qp.bound {
            self.release_window(*key, qp.qpn);
        }
        Ok(qp)
    }

    /// A type-2 window that is bound to a queue pair ends with it.
    fn release_window(&mut self, key: u32, qpn: u32) {
        let Some(entry) = self.keys.get_mut(key) else {
            return;
        };
        if entry.facts.scope != KeyScope::WindowOfQp(qpn) {
            return;
        }
        entry.invalidate();
        let parent = match &mut entry.kind {
            KeyKind::Window { parent, .. } => parent.take(),
            KeyKind::Region { .. } => None,
        };
        self.unbound(parent);
    }
}

/// Whether a queue pair can have this peer; nothing is changed if not.
fn check_peer(
    qp: &Qp,
    change: &QpChange,
    partition: Option<PKey>,
    most: Option<u32>,
) -> Result<()> {
    let to_host = match change.destination {
        Some(Destination::Host(_)) => true,
        Some(Destination::Endpoint(_)) => false,
        Some(Destination::Multicast(_)) | None => return Ok(()),
    };
    if to_host && partition.is_none() {
        return Err(DeviceError::Unsupported("a peer on another host"));
    }
    let is_connected = qp.state != State::Init;
    if is_connected && to_host != qp.link.is_some() {
        return Err(DeviceError::Unsupported(
            "moving a connection to another host",
        ));
    }
    let mtu = change.attr.path_mtu;
    let too_large = most.is_some_and(|most| mtu > most);
    if to_host && change.mask.contains(QpMask::PATH_MTU) && too_large {
        return Err(DeviceError::Invalid("path_mtu above the port's active MTU"));
    }
    Ok(())
}

impl Qp {
    /// Takes over where the peer is, and tells the link of what has changed.
    fn connect(&mut self, destination: Option<Destination>, partition: Option<PKey>, to: State) {
        if self.qp_type == QpType::Ud {
            return;
        }
        match (destination, &mut self.link, partition) {
            (Some(Destination::Endpoint(endpoint)), ..) => {
                self.peer = Some((endpoint, self.attr.dest_qp_num));
                self.peer_index = None;
            }
            (Some(Destination::Host(host)), Some(link), _) => link.moved_to(host, &self.attr),
            (Some(Destination::Host(host)), None, Some(partition)) => {
                self.link = Some(Box::new(Link::new(self, host, partition)));
            }
            _ => {}
        }
        if let Some(link) = &mut self.link {
            link.modified(self.qp_type, &self.attr, to);
        }
    }
}
