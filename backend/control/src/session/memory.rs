//! Memory regions and windows (SPEC clause 9.4).

use super::{Reply, Session, device_error, no_handle, parse};
use crate::ledger::Kind;
use crate::refusal::Refused;
use crate::world::World;
use masq_device::{Handle, MrSpec, MwSpec};
use masq_memory::Region;
use masq_policy::{RemoteAccess, RemoteRight, Request};
use masq_spec::command::Status;
use masq_spec::device::MAX_ADDRESS;
use masq_spec::verbs::{
    Access, AllocMw, MAX_SEGMENTS, MrCreated, MwType, RegMr, ReregMask, ReregMr, Segment,
    SegmentKind,
};
use zerocopy::{FromBytes, IntoBytes};

/// A memory region.
#[derive(Debug)]
pub(super) struct Mr {
    pub(super) pd: Handle,
    pub(super) access: Access,
    pub(super) addr: u64,
    pub(super) len: u64,
    pub(super) iova: u64,
    pub(super) windows: u64,
    pub(super) remote_bytes: u64,
}

/// A memory window.
#[derive(Debug)]
pub(super) struct Mw {
    pd: Handle,
}

/// Access flags that programs may set and that change nothing (optional
/// flags, bits 20 to 29).
const OPTIONAL: u32 = 0x3ff0_0000;

impl Session {
    pub(super) fn reg_mr(&mut self, world: &mut World, body: &[u8]) -> Reply {
        let (reg, segments) = parse_reg(body)?;
        let handle = self.mrs.reserve();
        let key = self.register(world, handle, &reg, segments)?;
        Ok(MrCreated {
            handle,
            lkey: key,
            rkey: key,
            reserved: 0,
        }
        .as_bytes()
        .to_vec())
    }

    /// Checks, charges, maps and registers; undoes all if a step fails.
    fn register(
        &mut self,
        world: &mut World,
        handle: Handle,
        reg: &RegMr,
        segments: Vec<Segment>,
    ) -> Result<u32, Refused> {
        let about = format!("mr {:#x}+{}", reg.addr, reg.len);
        let access = self
            .check_access(world, reg.access)
            .map_err(|r| r.about(about.clone()))?;
        let end = reg
            .addr
            .checked_add(reg.len)
            .filter(|end| *end <= MAX_ADDRESS);
        if reg.len == 0 || end.is_none() || reg.iova.checked_add(reg.len).is_none() {
            return Err(Refused::invalid("the range is empty or wraps").about(about));
        }
        self.pd(reg.pd)?;
        let is_window = |s: &&Segment| s.kind == SegmentKind::Window as u32;
        let windows = segments.iter().filter(is_window).count() as u64;
        let remote_bytes = segments
            .iter()
            .filter(|s| !is_window(s))
            .map(|s| s.len)
            .fold(0, u64::saturating_add);
        if remote_bytes > 0 && !self.has_remote {
            let reason = "masqd may not reach the memory of this process, only what it shares";
            return Err(Refused::new(Status::Fault, "host", reason).about(about));
        }
        self.charge(world, Kind::Mrs, 1)
            .map_err(|r| r.about(about.clone()))?;
        let charged = self
            .charge(world, Kind::PinnedBytes, reg.len)
            .and_then(|()| {
                self.charge(world, Kind::Windows, windows)
                    .inspect_err(|_| self.refund(world, Kind::PinnedBytes, reg.len))
            })
            .inspect_err(|_| self.refund(world, Kind::Mrs, 1));
        charged.map_err(|r| r.about(about.clone()))?;
        let registered = Region::map(&self.memory, reg.addr, reg.len, &segments)
            .map_err(Refused::from)
            .and_then(|region| {
                let spec = MrSpec {
                    handle,
                    pd: reg.pd,
                    access,
                    iova: reg.iova,
                    region,
                };
                self.device.register(spec).map_err(Refused::from)
            });
        match registered {
            Ok(key) => {
                self.pd(reg.pd)?.users += 1;
                let mr = Mr {
                    pd: reg.pd,
                    access,
                    addr: reg.addr,
                    len: reg.len,
                    iova: reg.iova,
                    windows,
                    remote_bytes,
                };
                self.mrs.insert(handle, mr);
                Ok(key)
            }
            Err(refused) => {
                self.refund_mr(world, reg.len, windows);
                Err(refused.about(about))
            }
        }
    }

    fn refund_mr(&mut self, world: &mut World, len: u64, windows: u64) {
        self.refund(world, Kind::Mrs, 1);
        self.refund(world, Kind::PinnedBytes, len);
        self.refund(world, Kind::Windows, windows);
    }

    fn check_access(&self, world: &World, raw: u32) -> Result<Access, Refused> {
        let access = Access::from_bits(raw & !OPTIONAL)
            .ok_or_else(|| Refused::invalid("unknown access flags"))?;
        if access.contains(Access::ON_DEMAND) {
            return Err(Refused::unsupported("on-demand paging"));
        }
        let needs_local = Access::REMOTE_WRITE | Access::REMOTE_ATOMIC;
        if access.intersects(needs_local) && !access.contains(Access::LOCAL_WRITE) {
            return Err(Refused::invalid("remote write and atomic need local write"));
        }
        let mut remote = RemoteAccess::NONE;
        for (bit, right) in [
            (Access::REMOTE_READ, RemoteRight::Read),
            (Access::REMOTE_WRITE, RemoteRight::Write),
            (Access::REMOTE_ATOMIC, RemoteRight::Atomic),
        ] {
            if access.contains(bit) {
                remote = remote | RemoteAccess::from(right);
            }
        }
        let _ = world.decide(&Request::RegisterMemory {
            endpoint: &self.endpoint,
            remote,
        })?;
        Ok(access)
    }

    pub(super) fn dereg_mr(&mut self, world: &mut World, handle: Handle) -> Reply {
        let mr = self
            .mrs
            .get(handle)
            .ok_or_else(|| no_handle("memory region"))?;
        let about = format!("mr {:#x}+{}", mr.addr, mr.len);
        let region = self
            .device
            .deregister(handle)
            .map_err(|e| device_error(e).about(about))?;
        drop(region);
        if let Some(mr) = self.mrs.remove(handle) {
            self.leave_pd(mr.pd);
            self.refund_mr(world, mr.len, mr.windows);
        }
        Ok(Vec::new())
    }

    /// Changes a region. One that moves is taken away and registered in its new
    /// form under the same handle.
    pub(super) fn rereg_mr(&mut self, world: &mut World, body: &[u8]) -> Reply {
        let (head, rest) = ReregMr::read_from_prefix(body)
            .map_err(|_| Refused::invalid("the body has the wrong length"))?;
        let segments = parse_segments(head.new.segments, rest)?;
        let mask = ReregMask::from_bits(head.mask)
            .filter(|mask| !mask.is_empty())
            .ok_or_else(|| Refused::invalid("unknown or empty mask"))?;
        let old = self
            .mrs
            .get(head.handle)
            .ok_or_else(|| no_handle("memory region"))?;
        let moved = mask.contains(ReregMask::TRANSLATION);
        let reg = RegMr {
            pd: if mask.contains(ReregMask::PD) {
                head.new.pd
            } else {
                old.pd
            },
            access: if mask.contains(ReregMask::ACCESS) {
                head.new.access
            } else {
                old.access.bits()
            },
            addr: if moved { head.new.addr } else { old.addr },
            len: if moved { head.new.len } else { old.len },
            iova: if moved { head.new.iova } else { old.iova },
            segments: 0,
            reserved: 0,
        };
        let access = self.check_access(world, reg.access)?;
        self.pd(reg.pd)?;
        if !moved {
            return self.change_mr(head.handle, reg.pd, access);
        }
        self.dereg_mr(world, head.handle)?;
        // If this fails the region is gone, as the verbs API allows.
        let key = self.register(world, head.handle, &reg, segments)?;
        let reply = MrCreated {
            handle: head.handle,
            lkey: key,
            rkey: key,
            reserved: 0,
        };
        Ok(reply.as_bytes().to_vec())
    }

    /// Changes rights and protection domain in place: the keys stay.
    fn change_mr(&mut self, handle: Handle, pd: Handle, access: Access) -> Reply {
        let key = self
            .device
            .change_mr(handle, pd, access)
            .map_err(device_error)?;
        if let Some(mr) = self.mrs.get_mut(handle) {
            let old = std::mem::replace(&mut mr.pd, pd);
            mr.access = access;
            self.leave_pd(old);
            self.pd(pd)?.users += 1;
        }
        let reply = MrCreated {
            handle,
            lkey: key,
            rkey: key,
            reserved: 0,
        };
        Ok(reply.as_bytes().to_vec())
    }

    pub(super) fn alloc_mw(&mut self, world: &mut World, request: &AllocMw) -> Reply {
        let mw_type = match request.mw_type {
            1 => MwType::Type1,
            2 => MwType::Type2,
            _ => return Err(Refused::invalid("no such type of memory window")),
        };
        self.pd(request.pd)?;
        self.charge(world, Kind::Mws, 1)?;
        let handle = self.mws.reserve();
        let spec = MwSpec {
            handle,
            pd: request.pd,
            mw_type,
        };
        let rkey = match self.device.alloc_mw(spec) {
            Ok(rkey) => rkey,
            Err(error) => {
                self.refund(world, Kind::Mws, 1);
                return Err(error.into());
            }
        };
        self.pd(request.pd)?.users += 1;
        self.mws.insert(handle, Mw { pd: request.pd });
        Ok(MrCreated {
            handle,
            lkey: 0,
            rkey,
            reserved: 0,
        }
        .as_bytes()
        .to_vec())
    }

    pub(super) fn dealloc_mw(&mut self, world: &mut World, handle: Handle) -> Reply {
        self.mws
            .get(handle)
            .ok_or_else(|| no_handle("memory window"))?;
        self.device.dealloc_mw(handle)?;
        if let Some(mw) = self.mws.remove(handle) {
            self.leave_pd(mw.pd);
            self.refund(world, Kind::Mws, 1);
        }
        Ok(Vec::new())
    }
}

fn parse_reg(body: &[u8]) -> Result<(RegMr, Vec<Segment>), Refused> {
    let (reg, rest) = RegMr::read_from_prefix(body)
        .map_err(|_| Refused::invalid("the body has the wrong length"))?;
    let segments = parse_segments(reg.segments, rest)?;
    Ok((reg, segments))
}

fn parse_segments(count: u32, bytes: &[u8]) -> Result<Vec<Segment>, Refused> {
    let count = count as usize;
    if count > MAX_SEGMENTS || bytes.len() != count * size_of::<Segment>() {
        return Err(Refused::invalid("the number of segments is wrong"));
    }
    bytes.chunks(size_of::<Segment>()).map(parse).collect()
}
