//! What the control side asks of an engine, between turns.

mod address;
mod attributes;
mod memory;
mod qp;
mod queues;

use super::Engine;
use super::objects::{Cq, Lane, Qp, SessionState, Srq};
use super::remote::Helper;
use masq_device::{DeviceError, DomainKey, Grants, Handle, Result, SessionSpec};
use masq_memory::Region;
use masq_spec::verbs::Gid;
use rustc_hash::FxHashMap;
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
        let lane = *self.lane_of.entry(spec.domain).or_insert_with(|| {
            lanes.insert(Lane {
                partition: spec.partition,
                ..Lane::default()
            })
        });
        if let Some(lane) = lanes.get_mut(lane) {
            lane.sessions += 1;
        }
        let s = self.sessions.insert(SessionState {
            lane,
            grants: spec.grants,
            farewells: 0,
            multicast_reach: vec![spec.endpoint],
            leaving: FxHashMap::default(),
            flush_waiters: Vec::new(),
            label: spec.label,
            domain: spec.domain,
            partition: spec.partition,
            endpoint: spec.endpoint,
            gid: spec.gid,
            doorbell: spec.doorbell,
            events: spec.events,
            slots: Vec::new(),
            qps: Default::default(),
            cqs: Default::default(),
            srqs: Default::default(),
            ahs: Default::default(),
            ah_only: Default::default(),
            mrs: Default::default(),
            mws: Default::default(),
            helper,
        });
        self.rota.enter(s);
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
        self.rota.leave(s);
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

    pub(crate) fn set_gid(&mut self, s: usize, gid: Gid) -> Result<()> {
        self.session(s)?.gid = gid;
        Ok(())
    }

    pub(crate) fn set_grants(&mut self, s: usize, grants: Grants) -> Result<()> {
        self.session(s)?.grants = grants;
        Ok(())
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
}
