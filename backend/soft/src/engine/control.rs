//! What the control side asks of an engine, between turns.

use super::Engine;
use super::keys::{KeyEntry, KeyKind};
use super::objects::{Ah, Cq, Lane, Qp, ReceiveQueue, SessionState, Srq, Waiting};
use super::remote::Helper;
use crate::limits::MAX_QPN;
use masq_device::{
    AhSpec, CqSpec, Destination, DeviceError, DomainKey, EndpointKey, Handle, MrSpec, MwSpec,
    QpChange, QpCounters, QpReport, QpSpec, Result, SessionSpec, SrqSpec,
};
use masq_memory::{MappedRing, Region};
use masq_spec::doorbell::MAX_SLOTS;
use masq_spec::event::AsyncEvent;
use masq_spec::queue::{HDR_CQ_ARM, HDR_CQ_CONSUMER};
use masq_spec::verbs::{Access, Gid, QpAttr, QpMask, QpType, SrqAttr, State};
use masq_transport::{KeyFacts, KeyScope, Retry, check_transition, mtu_bytes};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

const NO_OBJECT: DeviceError = DeviceError::Invalid("no such object");

/// What a closed or destroyed object leaves to be dropped by the caller, so
/// that the data path spends no time on unmapping.
#[derive(Default)]
pub(crate) struct Remains {
    regions: Vec<Arc<Region>>,
    qps: Vec<Qp>,
    cqs: Vec<Cq>,
    srqs: Vec<Srq>,
    session: Option<SessionState>,
}

impl Engine {
    pub(crate) fn open(&mut self, spec: SessionSpec) -> usize {
        let helper = Helper::new(spec.remote, spec.label.clone());
        spec.doorbell.set_armed(self.armed);
        let lanes = &mut self.lanes;
        let lane = *self
            .lane_of
            .entry(spec.domain)
            .or_insert_with(|| lanes.insert(Lane::default()));
        if let Some(lane) = lanes.get_mut(lane) {
            lane.sessions += 1;
        }
        let s = self.sessions.insert(SessionState {
            lane,
            heat: 0,
            multicast_reach: vec![spec.endpoint],
            leaving: FxHashMap::default(),
            flush_waiters: Vec::new(),
            label: spec.label,
            domain: spec.domain,
            endpoint: spec.endpoint,
            gid: spec.gid,
            doorbell: spec.doorbell,
            events: spec.events,
            slots: Vec::new(),
            qps: Default::default(),
            cqs: Default::default(),
            srqs: Default::default(),
            ahs: Default::default(),
            mrs: Default::default(),
            mws: Default::default(),
            helper,
        });
        self.session_end = self.session_end.max(s + 1);
        s
    }

    /// Releases everything of a session.
    pub(crate) fn close(&mut self, s: usize) -> Remains {
        let mut remains = Remains::default();
        let Some(session) = self.sessions.get_mut(s) else {
            return remains;
        };
        let handles: Vec<Handle> = session.qps.keys().copied().collect();
        let keys: Vec<u32> = session
            .mws
            .values()
            .chain(session.mrs.values())
            .copied()
            .collect();
        for handle in handles {
            remains.qps.extend(self.destroy_qp(s, handle).ok());
        }
        for key in keys {
            remains
                .regions
                .extend(self.keys.remove(key).and_then(|entry| entry.region));
        }
        self.hot.retain(|hot| *hot != s);
        if let Some(session) = self.sessions.try_remove(s) {
            self.leave_lane(session.domain, session.lane);
            for cq in session.cqs.values() {
                remains.cqs.extend(self.cqs.try_remove(*cq));
            }
            for srq in session.srqs.values() {
                remains.srqs.extend(self.srqs.try_remove(*srq));
            }
            remains.session = Some(session);
        }
        remains
    }

    fn leave_lane(&mut self, domain: DomainKey, l: usize) {
        let Some(lane) = self.lanes.get_mut(l) else {
            return;
        };
        lane.sessions = lane.sessions.saturating_sub(1);
        if lane.sessions == 0 {
            self.lanes.remove(l);
            self.lane_of.remove(&domain);
            self.run_queue.retain(|lane| *lane != l);
        }
    }

    fn session(&mut self, s: usize) -> Result<&mut SessionState> {
        self.sessions.get_mut(s).ok_or(DeviceError::Gone)
    }

    fn cq_index(&mut self, s: usize, handle: Handle) -> Result<usize> {
        self.session(s)?.cqs.get(&handle).copied().ok_or(NO_OBJECT)
    }

    fn srq_index(&mut self, s: usize, handle: Handle) -> Result<usize> {
        self.session(s)?.srqs.get(&handle).copied().ok_or(NO_OBJECT)
    }

    fn qp_index(&mut self, s: usize, handle: Handle) -> Result<usize> {
        self.session(s)?.qps.get(&handle).copied().ok_or(NO_OBJECT)
    }

    // --- memory ---

    pub(crate) fn register(&mut self, s: usize, mr: MrSpec) -> Result<u32> {
        let key = self.keys.fresh().ok_or(DeviceError::Exhausted("keys"))?;
        let session = self.session(s)?;
        session.mrs.insert(mr.handle, key >> 8);
        let zero_based = mr.access.contains(Access::ZERO_BASED);
        self.keys.insert(KeyEntry {
            facts: KeyFacts {
                key,
                pd: (s, mr.pd),
                scope: KeyScope::Region,
                access: mr.access,
                base: if zero_based { 0 } else { mr.iova },
                len: mr.region.len(),
            },
            region: Some(Arc::new(mr.region)),
            offset: 0,
            kind: KeyKind::Region { windows: 0 },
        });
        Ok(key)
    }

    pub(crate) fn deregister(&mut self, s: usize, handle: Handle) -> Result<Arc<Region>> {
        let latest_job = self.timers.serial();
        let session = self.session(s)?;
        if let Some((_, upto)) = session.leaving.get(&handle) {
            if session.helper.is_busy(*upto) {
                return Err(DeviceError::Again);
            }
            let left = session.leaving.remove(&handle);
            return left.map(|(region, _)| region).ok_or(NO_OBJECT);
        }
        let key = *session.mrs.get(&handle).ok_or(NO_OBJECT)?;
        let entry = self.keys.get(key).ok_or(NO_OBJECT)?;
        if matches!(entry.kind, KeyKind::Region { windows } if windows > 0) {
            return Err(DeviceError::Busy("a memory window"));
        }
        let region = self.keys.remove(key).and_then(|entry| entry.region);
        let region = region.ok_or(NO_OBJECT)?;
        let session = self.session(s)?;
        session.mrs.remove(&handle);
        if region.has_remote() && session.helper.is_busy(latest_job) {
            session.leaving.insert(handle, (region, latest_job));
            return Err(DeviceError::Again);
        }
        Ok(region)
    }

    /// Changes a region in place; its key stays.
    pub(crate) fn change_mr(
        &mut self,
        s: usize,
        handle: Handle,
        pd: Handle,
        access: Access,
    ) -> Result<u32> {
        let session = self.session(s)?;
        let key = *session.mrs.get(&handle).ok_or(NO_OBJECT)?;
        let entry = self.keys.get_mut(key).ok_or(NO_OBJECT)?;
        if matches!(entry.kind, KeyKind::Region { windows } if windows > 0) {
            return Err(DeviceError::Busy("a memory window"));
        }
        entry.facts.pd = (s, pd);
        entry.facts.access = access;
        Ok(entry.facts.key)
    }

    pub(crate) fn alloc_mw(&mut self, s: usize, mw: &MwSpec) -> Result<u32> {
        let key = self.keys.fresh().ok_or(DeviceError::Exhausted("keys"))?;
        self.session(s)?.mws.insert(mw.handle, key >> 8);
        self.keys.insert(KeyEntry {
            facts: KeyFacts {
                key,
                pd: (s, mw.pd),
                scope: KeyScope::Invalid,
                access: Access::empty(),
                base: 0,
                len: 0,
            },
            region: None,
            offset: 0,
            kind: KeyKind::Window {
                mw_type: mw.mw_type,
                parent: None,
            },
        });
        Ok(key)
    }

    pub(crate) fn dealloc_mw(&mut self, s: usize, handle: Handle) -> Result<()> {
        let key = self.session(s)?.mws.remove(&handle).ok_or(NO_OBJECT)?;
        if let Some(entry) = self.keys.remove(key)
            && let KeyKind::Window { parent, .. } = entry.kind
        {
            self.unbound(parent);
        }
        Ok(())
    }

    // --- completion queues ---

    pub(crate) fn create_cq(&mut self, s: usize, cq: CqSpec) -> Result<()> {
        if cq.cqe == 0 || cq.cqe > cq.ring.slots() {
            return Err(DeviceError::Invalid("cqe does not fit the ring"));
        }
        let handle = cq.handle;
        self.session(s)?;
        let index = self.cqs.insert(Cq {
            session: s,
            handle,
            ring: cq.ring,
            cqe: cq.cqe,
            index: 0,
            consumer: 0,
            event_queue: cq.event_queue,
            answered_arm: 0,
            timestamps: cq.timestamps,
            ignore_overrun: cq.ignore_overrun,
            overrun: false,
            users: 0,
        });
        self.session(s)?.cqs.insert(handle, index);
        Ok(())
    }

    /// Returns the first running index in the new ring, and the old ring.
    pub(crate) fn resize_cq(
        &mut self,
        s: usize,
        handle: Handle,
        ring: MappedRing,
        cqe: u32,
    ) -> Result<(u32, MappedRing)> {
        let index = self.cq_index(s, handle)?;
        let cq = self.cqs.get_mut(index).ok_or(NO_OBJECT)?;
        if cqe == 0 || cqe > ring.slots() {
            return Err(DeviceError::Invalid("cqe does not fit the ring"));
        }
        let consumer = cq.ring.load_header(HDR_CQ_CONSUMER);
        if cq.index.wrapping_sub(consumer) > cqe {
            return Err(DeviceError::Invalid("more completions wait than would fit"));
        }
        // What was polled and what was armed hold for the new ring.
        ring.begin_cq(cq.index, consumer, cq.ring.load_header(HDR_CQ_ARM));
        let old = std::mem::replace(&mut cq.ring, ring);
        cq.consumer = consumer;
        cq.cqe = cqe;
        Ok((cq.index, old))
    }

    pub(crate) fn destroy_cq(&mut self, s: usize, handle: Handle) -> Result<Cq> {
        let index = self.cq_index(s, handle)?;
        if self.cqs.get(index).is_some_and(|cq| cq.users > 0) {
            return Err(DeviceError::Busy("a queue pair"));
        }
        self.session(s)?.cqs.remove(&handle);
        self.cqs.try_remove(index).ok_or(NO_OBJECT)
    }

    // --- shared receive queues ---

    pub(crate) fn create_srq(&mut self, s: usize, srq: SrqSpec) -> Result<()> {
        let handle = srq.handle;
        self.session(s)?;
        let index = self.srqs.insert(Srq {
            session: s,
            handle,
            pd: (s, srq.pd),
            queue: ReceiveQueue {
                ring: srq.ring,
                head: 0,
                max_sge: srq.max_sge,
            },
            max_wr: srq.max_wr,
            max_sge: srq.max_sge,
            limit: srq.limit,
            users: 0,
        });
        self.session(s)?.srqs.insert(handle, index);
        Ok(())
    }

    pub(crate) fn set_srq_limit(&mut self, s: usize, handle: Handle, limit: u32) -> Result<()> {
        let index = self.srq_index(s, handle)?;
        let srq = self.srqs.get_mut(index).ok_or(NO_OBJECT)?;
        if limit > srq.max_wr {
            return Err(DeviceError::Invalid("limit above the size of the queue"));
        }
        srq.limit = limit;
        // Fewer than that already: the event is due at once.
        self.check_srq_limit(index);
        Ok(())
    }

    pub(crate) fn query_srq(&mut self, s: usize, handle: Handle) -> Result<SrqAttr> {
        let index = self.srq_index(s, handle)?;
        let srq = self.srqs.get(index).ok_or(NO_OBJECT)?;
        Ok(SrqAttr {
            max_wr: srq.max_wr,
            max_sge: srq.max_sge,
            limit: srq.limit,
            reserved: 0,
        })
    }

    pub(crate) fn destroy_srq(&mut self, s: usize, handle: Handle) -> Result<Srq> {
        let index = self.srq_index(s, handle)?;
        if self.srqs.get(index).is_some_and(|srq| srq.users > 0) {
            return Err(DeviceError::Busy("a queue pair"));
        }
        self.session(s)?.srqs.remove(&handle);
        self.srqs.try_remove(index).ok_or(NO_OBJECT)
    }

    // --- queue pairs ---

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
            starved: false,
            flush_after: 0,
            deliveries: 0,
            joined: Vec::new(),
            bound: FxHashSet::default(),
            established: false,
            flushed: false,
            counters: QpCounters::default(),
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
        if to == State::Reset {
            qp.reset();
            return Ok(to);
        }
        if to == State::Err {
            self.fail(q, "the program moved it to ERROR", None);
            return Ok(to);
        }
        qp.apply(mask, &new);
        if let Some(Destination::Endpoint(endpoint)) = change.destination
            && qp.qp_type != QpType::Ud
        {
            qp.peer = Some((endpoint, qp.attr.dest_qp_num));
            qp.peer_index = None;
        }
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
        self.enqueue(q);
        Ok(to)
    }

    pub(crate) fn query_qp(&mut self, s: usize, handle: Handle) -> Result<QpReport> {
        let q = self.qp_index(s, handle)?;
        let qp = self.qps.get(q).ok_or(NO_OBJECT)?;
        let mut attr = qp.attr;
        attr.qp_state = qp.state as u32;
        attr.cur_qp_state = qp.state as u32;
        let posted = (0..qp.attr.caps.max_send_wr.max(1))
            .take_while(|n| qp.sq.is_published(qp.sq_head.wrapping_add(*n)))
            .count();
        Ok(QpReport {
            attr,
            qpn: qp.qpn,
            qp_type: qp.qp_type,
            send_queue: posted as u32,
            counters: qp.counters,
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

    // --- addresses ---

    pub(crate) fn create_ah(&mut self, s: usize, ah: AhSpec) -> Result<()> {
        let entry = Ah {
            pd: ah.pd,
            destination: ah.destination,
            attr: ah.attr,
        };
        self.session(s)?.ahs.insert(ah.handle, entry);
        Ok(())
    }

    pub(crate) fn destroy_ah(&mut self, s: usize, handle: Handle) -> Result<()> {
        self.session(s)?
            .ahs
            .remove(&handle)
            .map(drop)
            .ok_or(NO_OBJECT)
    }

    pub(crate) fn set_multicast_reach(
        &mut self,
        s: usize,
        mut allowed: Vec<EndpointKey>,
    ) -> Result<()> {
        allowed.sort_unstable();
        self.session(s)?.multicast_reach = allowed;
        Ok(())
    }

    pub(crate) fn attach_multicast(&mut self, s: usize, handle: Handle, group: Gid) -> Result<()> {
        let q = self.qp_index(s, handle)?;
        let qp = self.qps.get(q).ok_or(NO_OBJECT)?;
        if qp.qp_type != QpType::Ud {
            return Err(DeviceError::Invalid("only UD queue pairs join groups"));
        }
        if !qp.joined.contains(&group) {
            self.groups.entry((qp.domain, group)).or_default().push(q);
            if let Some(qp) = self.qps.get_mut(q) {
                qp.joined.push(group);
            }
        }
        Ok(())
    }

    pub(crate) fn detach_multicast(&mut self, s: usize, handle: Handle, group: Gid) -> Result<()> {
        let q = self.qp_index(s, handle)?;
        let qp = self.qps.get_mut(q).ok_or(NO_OBJECT)?;
        let at = qp.joined.iter().position(|joined| *joined == group);
        qp.joined.swap_remove(at.ok_or(NO_OBJECT)?);
        let domain = qp.domain;
        self.leave_group(q, domain, group);
        Ok(())
    }

    fn leave_group(&mut self, q: usize, domain: DomainKey, group: Gid) {
        let Some(members) = self.groups.get_mut(&(domain, group)) else {
            return;
        };
        // In order: datagrams on their way through the group keep their place.
        members.retain(|index| *index != q);
        if members.is_empty() {
            self.groups.remove(&(domain, group));
        }
    }
}

impl Qp {
    /// Back to RESET: nothing posted is remembered, nothing is completed.
    fn reset(&mut self) {
        self.state = State::Reset;
        self.attr = QpAttr {
            caps: self.attr.caps,
            sq_sig_all: self.attr.sq_sig_all,
            ..QpAttr::default()
        };
        self.sq_head = 0;
        self.sq.set_device_index(0);
        self.sq.set_flushing(false);
        if let Some(rq) = &mut self.rq {
            rq.head = 0;
            rq.ring.set_device_index(0);
            rq.ring.set_flushing(false);
        }
        self.peer = None;
        self.peer_index = None;
        self.spare = self.current.take().or(self.spare.take());
        self.waiting = Waiting::Nothing;
        self.epoch = self.epoch.wrapping_add(1);
        self.rnr_until = 0;
        self.starved = false;
        self.deliveries = 0;
        self.taken.clear();
        self.held = None;
        self.established = false;
        self.flushed = false;
        self.cause = None;
    }

    /// Takes over the attributes that the mask names.
    fn apply(&mut self, mask: QpMask, new: &QpAttr) {
        let attr = &mut self.attr;
        let mut take = |bit: QpMask, copy: fn(&mut QpAttr, &QpAttr)| {
            if mask.contains(bit) {
                copy(attr, new);
            }
        };
        take(QpMask::ACCESS_FLAGS, |a, n| {
            a.qp_access_flags = n.qp_access_flags
        });
        take(QpMask::PKEY_INDEX, |a, n| a.pkey_index = n.pkey_index);
        take(QpMask::PORT, |a, n| a.port_num = n.port_num);
        take(QpMask::QKEY, |a, n| a.qkey = n.qkey);
        take(QpMask::AV, |a, n| a.ah = n.ah);
        take(QpMask::PATH_MTU, |a, n| a.path_mtu = n.path_mtu);
        take(QpMask::TIMEOUT, |a, n| a.timeout = n.timeout);
        take(QpMask::RETRY_CNT, |a, n| a.retry_cnt = n.retry_cnt);
        take(QpMask::RNR_RETRY, |a, n| a.rnr_retry = n.rnr_retry);
        take(QpMask::RQ_PSN, |a, n| a.rq_psn = n.rq_psn);
        take(QpMask::SQ_PSN, |a, n| a.sq_psn = n.sq_psn);
        take(QpMask::MAX_QP_RD_ATOMIC, |a, n| {
            a.max_rd_atomic = n.max_rd_atomic
        });
        take(QpMask::MAX_DEST_RD_ATOMIC, |a, n| {
            a.max_dest_rd_atomic = n.max_dest_rd_atomic
        });
        take(QpMask::MIN_RNR_TIMER, |a, n| {
            a.min_rnr_timer = n.min_rnr_timer
        });
        take(QpMask::DEST_QPN, |a, n| a.dest_qp_num = n.dest_qp_num);
        take(QpMask::PATH_MIG_STATE, |a, n| {
            a.path_mig_state = n.path_mig_state
        });
        take(QpMask::EN_SQD_ASYNC_NOTIFY, |a, n| {
            a.en_sqd_async_notify = n.en_sqd_async_notify
        });
        take(QpMask::ALT_PATH, |a, n| {
            a.alt_ah = n.alt_ah;
            a.alt_pkey_index = n.alt_pkey_index;
            a.alt_port_num = n.alt_port_num;
            a.alt_timeout = n.alt_timeout;
        });
        self.retry = Retry::new(self.attr.timeout, self.attr.retry_cnt, self.attr.rnr_retry);
    }
}

/// Checks values that a device would refuse (IBA 11.2.4.2).
fn check_values(mask: QpMask, new: &QpAttr) -> Result<()> {
    let invalid = DeviceError::Invalid;
    let has = |bit| mask.contains(bit);
    if has(QpMask::PORT) && new.port_num != 1 {
        return Err(invalid("there is only port 1"));
    }
    if has(QpMask::PKEY_INDEX) && new.pkey_index != 0 {
        return Err(invalid("there is only pkey index 0"));
    }
    if has(QpMask::PATH_MTU) && mtu_bytes(new.path_mtu).is_none() {
        return Err(invalid("path_mtu is not an MTU"));
    }
    let reads_ok = new.max_rd_atomic <= crate::limits::MAX_RD_ATOMIC;
    if has(QpMask::MAX_QP_RD_ATOMIC) && !reads_ok {
        return Err(invalid("max_rd_atomic above the device's"));
    }
    let reads_ok = new.max_dest_rd_atomic <= crate::limits::MAX_RD_ATOMIC;
    if has(QpMask::MAX_DEST_RD_ATOMIC) && !reads_ok {
        return Err(invalid("max_dest_rd_atomic above the device's"));
    }
    if has(QpMask::RETRY_CNT) && new.retry_cnt > 7 || has(QpMask::RNR_RETRY) && new.rnr_retry > 7 {
        return Err(invalid("a retry count is above 7"));
    }
    if has(QpMask::TIMEOUT) && new.timeout > 31
        || has(QpMask::MIN_RNR_TIMER) && new.min_rnr_timer > 31
    {
        return Err(invalid("a timer code is above 31"));
    }
    if has(QpMask::DEST_QPN) && new.dest_qp_num > MAX_QPN {
        return Err(invalid("a queue pair number has 24 bits"));
    }
    let access = Access::from_bits(new.qp_access_flags);
    if has(QpMask::ACCESS_FLAGS) && access.is_none() {
        return Err(invalid("unknown access flags"));
    }
    Ok(())
}
