//! Completion queues and shared receive queues.

use super::NO_OBJECT;
use crate::engine::Engine;
use crate::engine::objects::{Cq, Qp, ReceiveQueue, Srq, Waiting};
use masq_datapath::CompletionRing;
use masq_device::{CqSpec, DeviceError, Handle, Result, SrqSpec};
use masq_memory::MappedRing;
use masq_spec::verbs::SrqAttr;

impl Engine {
    pub(crate) fn create_cq(&mut self, s: usize, cq: CqSpec) -> Result<()> {
        let Some(out) = CompletionRing::new(&cq) else {
            return Err(DeviceError::Invalid("cqe does not fit the ring"));
        };
        let handle = cq.handle;
        self.session(s)?;
        let index = self.cqs.insert(Cq {
            session: s,
            handle,
            out,
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
        let waiting = cq.out.waiting();
        if waiting > cqe {
            return Err(DeviceError::Invalid("more completions wait than would fit"));
        }
        // Sends that wait for a helper complete soon, and may then not fit.
        let session = self.sessions.get(s).ok_or(DeviceError::Gone)?;
        let soon: u32 = session
            .qps
            .values()
            .filter_map(|q| self.qps.get(*q))
            .filter(|qp| qp.send_cq == index && matches!(qp.waiting, Waiting::Job { .. }))
            .map(Qp::posted)
            .sum();
        if waiting.saturating_add(soon) > cqe && soon > 0 {
            return Err(DeviceError::Again);
        }
        let cq = self.cqs.get_mut(index).ok_or(NO_OBJECT)?;
        Ok(cq.out.move_to(ring, cqe))
    }

    pub(crate) fn destroy_cq(&mut self, s: usize, handle: Handle) -> Result<Cq> {
        let index = self.cq_index(s, handle)?;
        if self.cqs.get(index).is_some_and(|cq| cq.users > 0) {
            return Err(DeviceError::Busy("a queue pair"));
        }
        self.session(s)?.cqs.remove(&handle);
        self.cqs.try_remove(index).ok_or(NO_OBJECT)
    }

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
}
