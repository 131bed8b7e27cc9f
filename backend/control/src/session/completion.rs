//! Completion queues and shared receive queues (SPEC clauses 9.5, 9.6).

use super::{Reply, Session, created, device_error, map_ring, no_handle};
use crate::ledger::Kind;
use crate::refusal::Refused;
use crate::world::World;
use masq_device::{CqSpec, Device, Handle, SrqSpec};
use masq_spec::queue::{CQE_LEN, RECV_DATA, Sge};
use masq_spec::verbs::{
    CqResized, CreateCq, CreateSrq, ModifySrq, NO_EVENT_QUEUE, ResizeCq, Ring, SrqMask,
};
use zerocopy::IntoBytes;

/// A completion queue.
#[derive(Debug)]
pub(super) struct Cq {
    pub(super) cqe: u32,
    pub(super) event_queue: Option<u32>,
}

/// A shared receive queue.
#[derive(Debug)]
pub(super) struct Srq {
    pd: Handle,
}

impl Session {
    pub(super) fn create_cq(&mut self, world: &mut World, request: &CreateCq) -> Reply {
        let depth = world.policy.quotas(&self.endpoint).cq_depth;
        check_cqe(&**self.carrier(world), depth, request.cqe, &request.ring)?;
        if request.comp_vector != 0 {
            return Err(Refused::invalid("there is only completion vector 0"));
        }
        let event_queue = match request.event_queue {
            NO_EVENT_QUEUE => None,
            queue if self.notifier.has_queue(queue) => Some(queue),
            _ => return Err(Refused::invalid("the event queue is not set up")),
        };
        self.charge(world, Kind::Cqs, 1)?;
        let handle = self.cqs.reserve();
        let made = map_ring(&self.memory, request.ring, request.cqe, u64::from(CQE_LEN)).and_then(
            |ring| {
                let spec = CqSpec {
                    handle,
                    ring,
                    cqe: request.cqe,
                    event_queue,
                    timestamps: request.flags & CreateCq::TIMESTAMP != 0,
                    ignore_overrun: request.flags & CreateCq::IGNORE_OVERRUN != 0,
                };
                self.device.create_cq(spec).map_err(Refused::from)
            },
        );
        if let Err(refused) = made {
            self.refund(world, Kind::Cqs, 1);
            return Err(refused);
        }
        self.cqs.insert(
            handle,
            Cq {
                cqe: request.cqe,
                event_queue,
            },
        );
        Ok(created(handle))
    }

    pub(super) fn resize_cq(&mut self, world: &mut World, request: &ResizeCq) -> Reply {
        let depth = world.policy.quotas(&self.endpoint).cq_depth;
        check_cqe(&**self.carrier(world), depth, request.cqe, &request.ring)?;
        let cq = self
            .cqs
            .get_mut(request.handle)
            .ok_or_else(|| no_handle("completion queue"))?;
        let ring = map_ring(&self.memory, request.ring, request.cqe, u64::from(CQE_LEN))?;
        let resized = self.device.resize_cq(request.handle, ring, request.cqe);
        let first_index = resized.map_err(device_error)?;
        cq.cqe = request.cqe;
        Ok(CqResized {
            first_index,
            reserved: 0,
        }
        .as_bytes()
        .to_vec())
    }

    pub(super) fn destroy_cq(&mut self, world: &mut World, handle: Handle) -> Reply {
        self.cqs
            .get(handle)
            .ok_or_else(|| no_handle("completion queue"))?;
        self.device.destroy_cq(handle).map_err(device_error)?;
        self.cqs.remove(handle);
        self.refund(world, Kind::Cqs, 1);
        Ok(Vec::new())
    }

    pub(super) fn create_srq(&mut self, world: &mut World, request: &CreateSrq) -> Reply {
        self.may(world, masq_policy::Verb::CreateSrq)?;
        let device = self.carrier(world).attributes();
        let depth = world.policy.quotas(&self.endpoint).srq_depth;
        if request.max_wr == 0
            || u64::from(request.max_wr) > depth.min(u64::from(device.max_srq_wr))
            || request.max_wr > request.ring.slots
            || request.max_sge > device.max_srq_sge
            || !receive_fits(&request.ring, request.max_sge)
            || request.limit > request.max_wr
        {
            return Err(Refused::invalid("size, elements or limit of the queue"));
        }
        self.pd(request.pd)?;
        self.charge(world, Kind::Srqs, 1)?;
        let handle = self.srqs.reserve();
        let slot = receive_len(request.max_sge);
        let made = map_ring(&self.memory, request.ring, request.max_wr, slot).and_then(|ring| {
            let spec = SrqSpec {
                handle,
                pd: request.pd,
                max_wr: request.max_wr,
                max_sge: request.max_sge,
                limit: request.limit,
                ring,
            };
            self.device.create_srq(spec).map_err(Refused::from)
        });
        if let Err(refused) = made {
            self.refund(world, Kind::Srqs, 1);
            return Err(refused);
        }
        self.pd(request.pd)?.users += 1;
        self.srqs.insert(handle, Srq { pd: request.pd });
        Ok(created(handle))
    }

    pub(super) fn modify_srq(&mut self, request: &ModifySrq) -> Reply {
        self.srqs
            .get(request.handle)
            .ok_or_else(|| no_handle("shared receive queue"))?;
        let mask = SrqMask::from_bits(request.mask)
            .ok_or_else(|| Refused::invalid("unknown attribute mask"))?;
        if mask.contains(SrqMask::MAX_WR) {
            return Err(Refused::unsupported("resizing a shared receive queue"));
        }
        if mask.contains(SrqMask::LIMIT) {
            self.device.set_srq_limit(request.handle, request.limit)?;
        }
        Ok(Vec::new())
    }

    pub(super) fn query_srq(&mut self, handle: Handle) -> Reply {
        self.srqs
            .get(handle)
            .ok_or_else(|| no_handle("shared receive queue"))?;
        Ok(self.device.query_srq(handle)?.as_bytes().to_vec())
    }

    pub(super) fn destroy_srq(&mut self, world: &mut World, handle: Handle) -> Reply {
        self.srqs
            .get(handle)
            .ok_or_else(|| no_handle("shared receive queue"))?;
        self.device.destroy_srq(handle).map_err(device_error)?;
        if let Some(srq) = self.srqs.remove(handle) {
            self.leave_pd(srq.pd);
            self.refund(world, Kind::Srqs, 1);
        }
        Ok(Vec::new())
    }
}

fn check_cqe(device: &dyn Device, quota: u64, cqe: u32, ring: &Ring) -> Result<(), Refused> {
    let most = quota.min(u64::from(device.attributes().max_cqe));
    if cqe == 0 || u64::from(cqe) > most || cqe > ring.slots || ring.stride != CQE_LEN {
        return Err(Refused::invalid(
            "cqe is zero, too large, or does not fit the ring",
        ));
    }
    Ok(())
}

/// Whether a receive with that many elements fits a slot.
pub(super) fn receive_fits(ring: &Ring, max_sge: u32) -> bool {
    u64::from(ring.stride) >= receive_len(max_sge)
}

/// Bytes of a receive with that many elements.
pub(super) fn receive_len(max_sge: u32) -> u64 {
    RECV_DATA as u64 + u64::from(max_sge) * size_of::<Sge>() as u64
}
