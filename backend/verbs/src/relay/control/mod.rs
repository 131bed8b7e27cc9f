//! What the control side asks of a relay, between turns. The card's objects are made
//! and released by the control side itself: those calls take a while.

mod pairs;

pub(crate) use pairs::NewQp;

use super::failure::FLUSHES;
use super::objects::{Ah, Cq, Mr, Qp, SessionState, Srq, Work};
use super::receives::ReceiveQueue;
use super::{Object, Relay};
use crate::host::{self, Channel, Context, Ticket};
use masq_datapath::CompletionRing;
use masq_device::{CqSpec, DeviceError, Grants, Handle, Result, SessionSpec, SrqSpec};
use masq_memory::MappedRing;
use masq_spec::doorbell::MAX_SLOTS;
use masq_spec::event::AsyncEvent;
use masq_spec::verbs::{Gid, SrqAttr, State};
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

    pub(crate) fn insert_ah(&mut self, s: usize, handle: Handle, ah: Ah) -> Result<()> {
        self.session(s)?.ahs.insert(handle, ah);
        Ok(())
    }

    pub(crate) fn remove_ah(&mut self, s: usize, handle: Handle) -> Result<Ah> {
        self.session(s)?.ahs.remove(&handle).ok_or(NO_OBJECT)
    }
}
