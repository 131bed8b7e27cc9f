//! Memory regions and windows (SPEC clause 9.4).

use super::{Reply, Session, device_error, no_handle, parse};
use crate::ledger::Kind;
use crate::refusal::Refused;
use crate::rights::remote_of;
use crate::world::World;
use masq_device::{DeviceError, Handle, MrSpec, MwSpec};
use masq_memory::Region;
use masq_policy::Request;
use masq_spec::command::Status;
use masq_spec::device::{Features, MAX_ADDRESS};
use masq_spec::verbs::{
    Access, AllocMw, MAX_SEGMENTS, MrCreated, MwType, RegMr, ReregMask, ReregMr, Segment,
    SegmentKind,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Bytes above which the kernel takes longer to map or unmap than other tenants
/// should wait: a few milliseconds.
const LARGE: u64 = 4 << 20;

/// Access flags that programs may set and that change nothing (optional
/// flags, bits 20 to 29).
const OPTIONAL: u32 = 0x3ff0_0000;

impl Session {
    pub(super) fn reg_mr(&mut self, world: &mut World, body: &[u8]) -> Reply {
        if self.filling.is_some() {
            return self.filled(world);
        }
        let (reg, segments) = parse_reg(body)?;
        let handle = self.mrs.reserve();
        self.register(world, handle, &reg, &segments)
    }

    /// Checks, charges and maps; undoes all if a step fails.
    fn register(
        &mut self,
        world: &mut World,
        handle: Handle,
        reg: &RegMr,
        segments: &[Segment],
    ) -> Reply {
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
        let features = self.carrier(world).features();
        if remote_bytes > 0 && !features.contains(Features::REMOTE_MEMORY) {
            let reason = format!(
                "{remote_bytes} bytes are in pages that the program does not share with masqd, \
                 and the card {} reaches no others: register whole pages of private memory",
                self.carrier(world).name()
            );
            return Err(Refused::new(Status::Unsupported, "device", reason).about(about));
        }
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
        let is_large = reg.len > LARGE;
        let mapped = if is_large {
            Region::map_lazily(&self.memory, reg.addr, reg.len, segments)
        } else {
            Region::map(&self.memory, reg.addr, reg.len, segments)
        };
        let mr = Mr {
            pd: reg.pd,
            access,
            addr: reg.addr,
            len: reg.len,
            iova: reg.iova,
            windows,
            remote_bytes,
        };
        match mapped {
            Err(error) => {
                self.refund_mr(world, reg.len, windows);
                Err(Refused::from(error).about(about))
            }
            Ok(region) if is_large => {
                let step = Step::fill(region);
                self.filling = Some(Filling { handle, mr, step });
                Err(Refused::again())
            }
            Ok(region) => self.finish(world, handle, mr, region),
        }
    }

    /// The same command again: whether its region is filled, and pinned, by now.
    fn filled(&mut self, world: &mut World) -> Reply {
        match self.filling.take() {
            Some(Filling { handle, mr, step }) => match step {
                Step::Fill(region, running) if running.is_done() => {
                    self.finish(world, handle, mr, region)
                }
                Step::Pin => {
                    let key = self.device.registered(handle);
                    self.pinned(world, handle, mr, key)
                }
                step @ Step::Fill(..) => {
                    self.filling = Some(Filling { handle, mr, step });
                    Err(Refused::again())
                }
            },
            None => Err(Refused::again()),
        }
    }

    /// Forgets a registration whose command is not served again.
    pub(super) fn give_up_filling(&mut self, world: &mut World) {
        if let Some(filling) = self.filling.take() {
            if let Step::Pin = filling.step {
                // It has no such region yet, and wants to hear that it never shall.
                let _ = self.device.deregister(filling.handle);
            }
            self.refund_mr(world, filling.mr.len, filling.mr.windows);
        }
    }

    /// The device's part of a registration.
    fn finish(&mut self, world: &mut World, handle: Handle, mr: Mr, region: Region) -> Reply {
        let spec = MrSpec {
            handle,
            pd: mr.pd,
            access: mr.access,
            iova: mr.iova,
            region,
        };
        let key = self.device.register(spec);
        self.pinned(world, handle, mr, key)
    }

    fn pinned(
        &mut self,
        world: &mut World,
        handle: Handle,
        mr: Mr,
        key: masq_device::Result<u32>,
    ) -> Reply {
        let key = match key {
            Ok(key) => key,
            Err(DeviceError::Again) => {
                let step = Step::Pin;
                self.filling = Some(Filling { handle, mr, step });
                return Err(Refused::again());
            }
            Err(error) => {
                self.refund_mr(world, mr.len, mr.windows);
                let about = format!("mr {:#x}+{}", mr.addr, mr.len);
                return Err(Refused::from(error).about(about));
            }
        };
        self.pd(mr.pd)?.users += 1;
        self.mrs.insert(handle, mr);
        Ok(registered(handle, key))
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
        let _ = world.decide(&Request::RegisterMemory {
            endpoint: &self.endpoint,
            remote: remote_of(access),
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
        if let Some(mr) = self.mrs.remove(handle) {
            drop_aside(mr.len, region);
            self.leave_pd(mr.pd);
            self.refund_mr(world, mr.len, mr.windows);
        }
        Ok(Vec::new())
    }

    /// Changes a region. One that moves is taken away and registered in its new
    /// form under the same handle.
    pub(super) fn rereg_mr(&mut self, world: &mut World, body: &[u8]) -> Reply {
        if self.filling.is_some() {
            return self.filled(world);
        }
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
        self.register(world, head.handle, &reg, &segments)
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
        Ok(registered(handle, key))
    }

    pub(super) fn alloc_mw(&mut self, world: &mut World, request: &AllocMw) -> Reply {
        let mw_type = match request.mw_type {
            1 => MwType::Type1,
            2 => MwType::Type2,
            _ => return Err(Refused::invalid("no such type of memory window")),
        };
        self.may(world, masq_policy::Verb::BindMw)?;
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

/// A large region on its way, while others are served.
pub(super) struct Filling {
    handle: Handle,
    mr: Mr,
    step: Step,
}

/// What is being done with it.
enum Step {
    /// A thread faults its pages in; dropping this ends the thread soon.
    Fill(Region, Running),
    /// The device pins it.
    Pin,
}

/// Held by the thread too; told to stop when dropped.
struct Running(Arc<AtomicBool>);

impl Step {
    fn fill(region: Region) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let (wanted, pages) = (Arc::clone(&running), region.clone());
        let fill = move || {
            pages.populate(|| wanted.load(Ordering::Relaxed));
            drop(pages);
            drop(wanted);
        };
        let thread = std::thread::Builder::new().name("masq-fill".into());
        if let Err(error) = thread.stack_size(64 << 10).spawn(fill) {
            // Its pages come one by one then.
            tracing::warn!(%error, "no thread to fault memory in");
        }
        Self::Fill(region, Running(running))
    }
}

impl Running {
    fn is_done(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Drops what holds `len` bytes of mappings; others are not kept waiting while
/// the kernel unmaps them.
pub(super) fn drop_aside<T: Send + 'static>(len: u64, what: T) {
    if len > LARGE {
        let thread = std::thread::Builder::new().name("masq-unmap".into());
        // Without a thread it is dropped here, with the closure.
        let _ = thread.stack_size(256 << 10).spawn(move || drop(what));
    }
}

fn registered(handle: Handle, key: u32) -> Vec<u8> {
    let reply = MrCreated {
        handle,
        lkey: key,
        rkey: key,
        reserved: 0,
    };
    reply.as_bytes().to_vec()
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
