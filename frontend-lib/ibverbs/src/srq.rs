//! Shared receive queues.

use crate::context::{Context, forget};
use crate::errno;
use crate::events::{acks, discard_async, is_srq_event};
use crate::lock::Lock;
use crate::pd::handle;
use crate::recv::RecvQueue;
use crate::ring::{self, Shape, WorkRing};
use crate::stand_in::Receives;
use libc::c_int;
use masq_regmem::SharedRegion;
use masq_spec::command::Opcode;
use masq_spec::queue::{RECV_DATA, Sge};
use masq_spec::verbs::{CreateSrq, Created, ModifySrq, SrqAttr};
use masq_verbs_abi::*;
use std::sync::Arc;

/// What `ibv_srq *` points to.
#[repr(C)]
pub(crate) struct Srq {
    abi: ibv_srq,
    pub(crate) queue: Lock<RecvQueue>,
    pub(crate) pending: Arc<Lock<Receives>>,
    _memory: SharedRegion,
    /// Guarded by the lock of the context's table.
    pub(crate) events_given: u32,
}

impl Srq {
    pub(crate) fn context(&self) -> &Context {
        // SAFETY: an SRQ's context outlives it.
        unsafe { Context::of(self.abi.context) }
    }

    /// The SRQ behind a pointer of the program.
    ///
    /// # Safety
    /// A live SRQ of this library.
    pub(crate) unsafe fn of<'a>(srq: *mut ibv_srq) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*srq.cast() }
    }
}

/// Bytes of a receive slot.
pub(crate) fn recv_slot(max_sge: u32) -> u32 {
    RECV_DATA as u32 + max_sge * size_of::<Sge>() as u32
}

/// Creates a shared receive queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_create_srq(
    pd: *mut ibv_pd,
    init: *mut ibv_srq_init_attr,
) -> *mut ibv_srq {
    // SAFETY: the caller's PD and structure.
    match unsafe { create(pd, &*init) } {
        Ok(srq) => srq,
        Err(error) => errno::null(error),
    }
}

/// # Safety
/// A live PD.
unsafe fn create(pd: *mut ibv_pd, init: &ibv_srq_init_attr) -> Result<*mut ibv_srq, c_int> {
    // SAFETY: the caller's promise.
    let (context, pd_handle) = unsafe { ((*pd).context, (*pd).handle) };
    // SAFETY: the PD's context.
    let ctx = unsafe { Context::of(context) };
    let attr = init.attr;
    let too_many = attr.max_wr > ctx.attr.max_srq_wr || attr.max_sge > ctx.attr.max_srq_sge;
    if attr.max_wr == 0 || too_many {
        return Err(libc::EINVAL);
    }
    let made = ring::allocate([Shape::new(attr.max_wr, recv_slot(attr.max_sge))]);
    let (memory, [ring]) = made.map_err(|e| e.errno())?;
    let request = CreateSrq {
        pd: pd_handle,
        max_wr: attr.max_wr,
        max_sge: attr.max_sge,
        limit: 0,
        ring: ring.describe(),
    };
    let created = ctx
        .session
        .command::<_, Created>(Opcode::CreateSrq, &request);
    let created = created.map_err(|e| e.errno())?;
    // SAFETY: integers and pointers; the mutex is initialized below.
    let mut abi: ibv_srq = unsafe { std::mem::zeroed() };
    abi.context = context;
    abi.srq_context = init.srq_context;
    abi.pd = pd;
    abi.handle = created.handle;
    let queue = RecvQueue {
        ring: WorkRing::new(ring, attr.max_wr),
        max_sge: attr.max_sge,
    };
    let srq = Box::into_raw(Box::new(Srq {
        abi,
        queue: Lock::new(queue),
        pending: Receives::shared(),
        _memory: memory,
        events_given: 0,
    }));
    // SAFETY: just made, and known to nobody else.
    unsafe { acks!(srq.cast::<ibv_srq>(), events_completed).init() };
    ctx.objects
        .with(|objects| objects.srqs.insert(created.handle, srq));
    Ok(srq.cast())
}

/// `ibv_create_srq_ex`: XRC and tag matching are not offered.
pub(crate) unsafe extern "C" fn create_srq_ex(
    _context: *mut ibv_context,
    attr: *mut ibv_srq_init_attr_ex,
) -> *mut ibv_srq {
    // SAFETY: the caller's structure.
    let ex = unsafe { &*attr };
    let basic = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD;
    let typed = ex.comp_mask & IBV_SRQ_INIT_ATTR_TYPE != 0;
    if ex.comp_mask & !basic != 0 || typed && ex.srq_type != IBV_SRQT_BASIC {
        return errno::null(libc::EOPNOTSUPP);
    }
    if ex.comp_mask & IBV_SRQ_INIT_ATTR_PD == 0 {
        return errno::null(libc::EINVAL);
    }
    // SAFETY: the basic structure is a prefix of the extended one.
    unsafe { ibv_create_srq(ex.pd, attr.cast()) }
}

/// Changes the limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_modify_srq(
    srq: *mut ibv_srq,
    attr: *mut ibv_srq_attr,
    mask: c_int,
) -> c_int {
    // SAFETY: the caller's SRQ and structure.
    let (ctx, attr) = unsafe { (Context::of((*srq).context), &*attr) };
    let request = ModifySrq {
        // SAFETY: the caller's SRQ.
        handle: unsafe { (*srq).handle },
        mask: mask as u32,
        max_wr: attr.max_wr,
        limit: attr.srq_limit,
    };
    match ctx.session.command::<_, ()>(Opcode::ModifySrq, &request) {
        Ok(()) => 0,
        Err(error) => error.errno(),
    }
}

/// Attributes of an SRQ.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_query_srq(srq: *mut ibv_srq, attr: *mut ibv_srq_attr) -> c_int {
    // SAFETY: the caller's SRQ.
    let (ctx, id) = unsafe { (Context::of((*srq).context), (*srq).handle) };
    match ctx
        .session
        .command::<_, SrqAttr>(Opcode::QuerySrq, &handle(id))
    {
        Ok(answer) => {
            // SAFETY: the caller's structure.
            unsafe {
                *attr = ibv_srq_attr {
                    max_wr: answer.max_wr,
                    max_sge: answer.max_sge,
                    srq_limit: answer.limit,
                };
            }
            0
        }
        Err(error) => error.errno(),
    }
}

/// Destroys an SRQ, after its events are acknowledged; EBUSY while a QP uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_destroy_srq(srq: *mut ibv_srq) -> c_int {
    // SAFETY: the caller's SRQ.
    let (ctx, id) = unsafe { (Context::of((*srq).context), (*srq).handle) };
    let raw: *mut Srq = srq.cast();
    if let Err(error) = ctx.session.destroy(Opcode::DestroySrq, id) {
        return error.errno();
    }
    ctx.objects
        .with(|objects| forget(&mut objects.srqs, id, raw));
    discard_async(ctx, id, is_srq_event);
    // SAFETY: no event of it is given out any more; the box is the caller's last use.
    unsafe {
        acks!(srq, events_completed).wait((*raw).events_given);
        drop(Box::from_raw(raw));
    }
    0
}
