//! Memory regions.

use crate::context::Context;
use crate::errno;
use crate::lock::Lock;
use crate::stand_in::Region;
use libc::{c_int, c_void};
use masq_driver::DriverError;
use masq_regmem::{Arena, RegError, RegId, Registration, SegmentKind};
use masq_spec::command::{Opcode, Status};
use masq_spec::device::Features;
use masq_spec::verbs::{self, Access, MAX_SEGMENTS, MrCreated, RegMr, ReregMask, ReregMr, Segment};
use masq_verbs_abi::*;
use std::sync::Arc;
use zerocopy::IntoBytes as _;

/// What `ibv_mr *` points to.
#[repr(C)]
struct Mr {
    abi: ibv_mr,
    held: Lock<Held>,
}

/// What a region holds of the program's memory.
struct Held {
    /// Its pages in the shared file.
    memory: RegId,
    /// What stands in for the rest, unless the device reaches that through the process.
    stand_ins: Option<Arc<Region>>,
    access: Access,
}

/// Rights by which peers name a region themselves.
const REMOTE: Access = Access::REMOTE_READ
    .union(Access::REMOTE_WRITE)
    .union(Access::REMOTE_ATOMIC)
    .union(Access::MW_BIND);
/// Bytes for which stand-ins are made where the device could reach the process instead: more
/// would be copied twice, and held twice, for a device that may never touch them.
const MOST_BESIDE_REMOTE: usize = 1 << 20;
/// Bytes for which stand-ins are made at all.
const MOST: usize = 64 << 20;

/// Whether `bytes` of a region that are not in the shared file get stand-ins.
fn wants_stand_ins(features: Features, access: Access, bytes: usize) -> bool {
    if features.contains(Features::REMOTE_MEMORY) {
        !access.intersects(REMOTE) && (1..=MOST_BESIDE_REMOTE).contains(&bytes)
    } else {
        (1..=MOST).contains(&bytes)
    }
}

/// The rights that the device knows of those a program asks for.
///
/// Remote writers need a local one, as on hardware; what is only a hint and unknown is
/// dropped; other unknown rights are EINVAL, or EOPNOTSUPP where they name a feature.
fn access(asked: u32) -> Result<Access, c_int> {
    let asked = asked & !(IBV_ACCESS_OPTIONAL_RANGE & !IBV_ACCESS_RELAXED_ORDERING);
    let access = Access::from_bits(asked).ok_or(libc::EINVAL)?;
    if access.contains(Access::ON_DEMAND) {
        // Pages are never pinned, but the counters and errors of ODP are not there.
        return Err(libc::EOPNOTSUPP);
    }
    let writers = Access::REMOTE_WRITE | Access::REMOTE_ATOMIC;
    if access.intersects(writers) && !access.contains(Access::LOCAL_WRITE) {
        return Err(libc::EINVAL);
    }
    Ok(access)
}

/// The pieces of a registration, as the command names them.
fn segments(
    memory: &Registration,
    stand_ins: Option<&Region>,
) -> Result<Vec<Segment>, DriverError> {
    if memory.segments.len() > MAX_SEGMENTS {
        return Err(DriverError::Refused(Status::NoMemory));
    }
    let segment = |s: &masq_regmem::Segment| {
        let (kind, at) = match (s.kind, stand_ins.and_then(|region| region.at(s.addr))) {
            (SegmentKind::Remote, Some(at)) => (verbs::SegmentKind::Window, at),
            (SegmentKind::Remote, None) => (verbs::SegmentKind::Remote, s.addr),
            (SegmentKind::Window, _) => (verbs::SegmentKind::Window, s.addr),
        };
        Segment {
            addr: s.addr as u64,
            len: s.len as u64,
            at: at as u64,
            kind: kind as u32,
            reserved: 0,
        }
    };
    Ok(memory.segments.iter().map(segment).collect())
}

/// A range to be registered.
#[derive(Clone, Copy)]
struct Wanted {
    addr: u64,
    len: usize,
    /// How requests name its first byte.
    iova: u64,
    /// Whether the device will write to it.
    writes: bool,
    access: Access,
    /// Whether the command may be sent again when there was no room for stand-ins.
    again: bool,
}

/// Moves the memory and runs `command` with its segments; gives it back on failure.
fn with_memory<R>(
    ctx: &Context,
    wanted: Wanted,
    command: impl Fn(&[Segment]) -> Result<R, DriverError>,
) -> Result<(R, Held), DriverError> {
    let arena = Arena::global()?;
    let memory = arena.register(wanted.addr as usize, wanted.len, wanted.writes)?;
    let done = with_stand_ins(ctx, arena, wanted, &memory, command);
    match done {
        Ok((done, stand_ins)) => Ok((
            done,
            Held {
                memory: memory.id,
                stand_ins,
                access: wanted.access,
            },
        )),
        Err(error) => {
            let _ = arena.unregister(memory.id);
            Err(error)
        }
    }
}

/// Runs `command` with the segments of registered memory, with stand-ins where they fit.
fn with_stand_ins<R>(
    ctx: &Context,
    arena: &'static Arena,
    wanted: Wanted,
    memory: &Registration,
    command: impl Fn(&[Segment]) -> Result<R, DriverError>,
) -> Result<(R, Option<Arc<Region>>), DriverError> {
    let features = ctx.session.features();
    let remote = |s: &&masq_regmem::Segment| s.kind == SegmentKind::Remote;
    let bytes = memory.segments.iter().filter(remote).map(|s| s.len).sum();
    if wants_stand_ins(features, wanted.access, bytes) {
        let base = if wanted.access.contains(Access::ZERO_BASED) {
            0
        } else {
            wanted.iova
        };
        let done = Region::new(arena, memory, base, wanted.access.intersects(REMOTE))
            .and_then(|region| Ok((command(&segments(memory, Some(&region))?)?, Some(region))));
        match done {
            // Each is a window in the daemon, of which there may be no more.
            Err(
                DriverError::Refused(Status::NoMemory)
                | DriverError::Memory(RegError::NoMemory { .. }),
            ) if wanted.again && features.contains(Features::REMOTE_MEMORY) => {}
            done => return done,
        }
    }
    Ok((command(&segments(memory, None)?)?, None))
}

impl Held {
    /// Gives all back, when the device has let go of the region with this key.
    fn give_back(self, ctx: &Context, key: u32) {
        if let Some(stand_ins) = &self.stand_ins {
            ctx.stand_ins.remove(key, stand_ins);
        }
        // A forked child has nothing to give back.
        if let Ok(arena) = Arena::global() {
            let _ = arena.unregister(self.memory);
        }
    }
}

fn request(
    pd: u32,
    access: Access,
    addr: u64,
    len: usize,
    iova: u64,
    segments: &[Segment],
) -> RegMr {
    RegMr {
        pd,
        access: access.bits(),
        addr,
        len: len as u64,
        iova,
        segments: segments.len() as u32,
        reserved: 0,
    }
}

/// Registers memory; `iova` is how work requests name its first byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_reg_mr_iova2(
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    asked: u32,
) -> *mut ibv_mr {
    // SAFETY: the caller's PD.
    let (context, pd_handle) = unsafe { ((*pd).context, (*pd).handle) };
    // SAFETY: the PD's context.
    let ctx = unsafe { Context::of(context) };
    let rights = match access(asked) {
        Ok(rights) => rights,
        Err(error) => return errno::null(error),
    };
    let at = addr as u64;
    let wanted = Wanted {
        addr: at,
        len: length,
        iova,
        writes: rights.contains(Access::LOCAL_WRITE),
        access: rights,
        again: true,
    };
    let done = with_memory(ctx, wanted, |segments| {
        let request = request(pd_handle, rights, at, length, iova, segments);
        ctx.session
            .command_parts::<MrCreated>(Opcode::RegMr, &[request.as_bytes(), segments.as_bytes()])
    });
    let (created, held) = match done {
        Ok(done) => done,
        Err(error) => return errno::null(error.errno()),
    };
    if let Some(region) = &held.stand_ins {
        ctx.stand_ins.add(created.lkey, region);
    }
    let mr = Box::new(Mr {
        abi: ibv_mr {
            context,
            pd,
            addr,
            length,
            handle: created.handle,
            lkey: created.lkey,
            rkey: created.rkey,
        },
        held: Lock::new(held),
    });
    Box::into_raw(mr).cast()
}

/// Registers memory that is named by its own addresses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_reg_mr(
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    access: c_int,
) -> *mut ibv_mr {
    // SAFETY: the caller's arguments.
    unsafe { ibv_reg_mr_iova2(pd, addr, length, addr as u64, access as u32) }
}

/// As `ibv_reg_mr_iova2`, without optional rights.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_reg_mr_iova(
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    access: c_int,
) -> *mut ibv_mr {
    // SAFETY: the caller's arguments.
    unsafe { ibv_reg_mr_iova2(pd, addr, length, iova, access as u32) }
}

/// Memory of other devices cannot be reached.
#[unsafe(no_mangle)]
pub extern "C" fn ibv_reg_dmabuf_mr(
    _pd: *mut ibv_pd,
    _offset: u64,
    _length: usize,
    _iova: u64,
    _fd: c_int,
    _access: c_int,
) -> *mut ibv_mr {
    errno::null(libc::EOPNOTSUPP)
}

/// Changes a region. 0, or an `ibv_rereg_mr_err_code` with errno.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_rereg_mr(
    mr: *mut ibv_mr,
    flags: c_int,
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    asked: c_int,
) -> c_int {
    let input = |error| {
        errno::set(error);
        IBV_REREG_MR_ERR_INPUT
    };
    let Some(mask) = ReregMask::from_bits(flags as u32) else {
        return input(libc::EINVAL);
    };
    let translation = mask.contains(ReregMask::TRANSLATION);
    let no_range = translation && (length == 0 || addr.is_null());
    let stray_access = asked != 0 && !mask.contains(ReregMask::ACCESS);
    if no_range || stray_access || (mask.contains(ReregMask::PD) && pd.is_null()) {
        return input(libc::EINVAL);
    }
    let rights = match access(asked as u32) {
        Ok(rights) => rights,
        Err(error) => return input(error),
    };
    // SAFETY: the caller's MR.
    match unsafe { rereg(&mut *mr.cast(), mask, pd, addr, length, rights) } {
        Ok(()) => 0,
        Err(error) => {
            errno::set(error.errno());
            IBV_REREG_MR_ERR_CMD
        }
    }
}

/// # Safety
/// `pd` is valid if the mask names it.
unsafe fn rereg(
    mr: &mut Mr,
    mask: ReregMask,
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    rights: Access,
) -> Result<(), DriverError> {
    let translation = mask.contains(ReregMask::TRANSLATION);
    // SAFETY: the MR's context and the caller's PD.
    let (ctx, pd_handle) = unsafe {
        let pd_handle = if mask.contains(ReregMask::PD) {
            (*pd).handle
        } else {
            0
        };
        (Context::of(mr.abi.context), pd_handle)
    };
    let send = |segments: &[Segment]| {
        let request = ReregMr {
            handle: mr.abi.handle,
            mask: mask.bits(),
            new: request(
                pd_handle,
                rights,
                addr as u64,
                length,
                addr as u64,
                segments,
            ),
        };
        let parts = [request.as_bytes(), segments.as_bytes()];
        ctx.session
            .command_parts::<MrCreated>(Opcode::ReregMr, &parts)
    };
    let (old_access, old_stand_ins) = mr.held.with(|held| (held.access, held.stand_ins.clone()));
    let access = if mask.contains(ReregMask::ACCESS) {
        rights
    } else {
        old_access
    };
    let created = if translation {
        let wanted = Wanted {
            addr: addr as u64,
            len: length,
            iova: addr as u64,
            // Whoever will write is known to the device; the pages must allow it if they can.
            writes: rights.contains(Access::LOCAL_WRITE),
            access,
            again: false, // the region is gone if it failed
        };
        let (created, new) = with_memory(ctx, wanted, send)?;
        let stand_ins = new.stand_ins.clone();
        let old = mr.held.with(|held| std::mem::replace(held, new));
        old.give_back(ctx, mr.abi.lkey);
        if let Some(region) = &stand_ins {
            ctx.stand_ins.add(created.lkey, region);
        }
        mr.abi.addr = addr;
        mr.abi.length = length;
        created
    } else {
        if let Some(region) = old_stand_ins.filter(|_| access.intersects(REMOTE)) {
            ctx.stand_ins.merge_too(&region);
        }
        let created = send(&[])?;
        mr.held.with(|held| held.access = access);
        created
    };
    mr.abi.lkey = created.lkey;
    mr.abi.rkey = created.rkey;
    if mask.contains(ReregMask::PD) {
        mr.abi.pd = pd;
    }
    Ok(())
}

/// Ends a region: after it no access happens, and the pages are the program's own again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_dereg_mr(mr: *mut ibv_mr) -> c_int {
    // SAFETY: the caller's MR and its context.
    let ctx = unsafe { Context::of((*mr).context) };
    // SAFETY: the caller's MR.
    let id = unsafe { (*mr).handle };
    if let Err(error) = ctx.session.destroy(Opcode::DeregMr, id) {
        return error.errno();
    }
    // SAFETY: made as a box, and the caller's last use.
    let mr = unsafe { Box::from_raw(mr.cast::<Mr>()) };
    let key = mr.abi.lkey;
    mr.held.into_inner().give_back(ctx, key);
    0
}

/// `ibv_advise_mr`: there is no on-demand paging to advise.
pub(crate) unsafe extern "C" fn advise_mr(
    _pd: *mut ibv_pd,
    _advice: c_enum,
    _flags: u32,
    _sg_list: *mut ibv_sge,
    _num_sge: u32,
) -> c_int {
    libc::EOPNOTSUPP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_writers_need_the_local_right() {
        assert_eq!(access(IBV_ACCESS_REMOTE_WRITE), Err(libc::EINVAL));
        assert_eq!(access(IBV_ACCESS_REMOTE_ATOMIC), Err(libc::EINVAL));
        assert!(access(IBV_ACCESS_REMOTE_READ).is_ok());
        assert!(access(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE).is_ok());
    }

    #[test]
    fn stand_ins_are_for_what_only_this_side_names_or_a_device_cannot_reach() {
        let (soft, card) = (Features::REMOTE_MEMORY, Features::empty());
        let (local, remote) = (Access::LOCAL_WRITE, Access::REMOTE_READ);
        assert!(wants_stand_ins(soft, local, 1 << 20));
        assert!(!wants_stand_ins(soft, local, (1 << 20) + 1));
        for right in [remote, Access::MW_BIND, local | Access::REMOTE_WRITE] {
            assert!(!wants_stand_ins(soft, right, 16));
            assert!(wants_stand_ins(card, right, 64 << 20));
        }
        assert!(!wants_stand_ins(card, local, (64 << 20) + 1));
        assert!(!wants_stand_ins(card, local, 0), "all of it is shared");
    }

    #[test]
    fn unknown_optional_rights_are_dropped_and_others_refused() {
        assert_eq!(access(0x10_0003), Ok(Access::from_bits_retain(0x10_0003)));
        assert_eq!(access(1 << 25 | 1), Ok(Access::LOCAL_WRITE));
        assert_eq!(access(1 << 12), Err(libc::EINVAL));
        assert_eq!(access(IBV_ACCESS_ON_DEMAND | 1), Err(libc::EOPNOTSUPP));
    }
}
