//! Queue pairs.

use crate::ah::{from_wire, to_wire};
use crate::context::{Context, forget};
use crate::cq::Cq;
use crate::errno;
use crate::events::{acks, discard_async, is_qp_event};
use crate::lock::Lock;
use crate::pd::handle;
use crate::recv::RecvQueue;
use crate::ring::{self, Shape, WorkRing};
use crate::send::{Batch, SendQueue, allowed_opcodes};
use crate::srq::{Srq, recv_slot};
use crate::stand_in::{Queues, Receives, Sends};
use libc::c_int;
use masq_driver::DriverError;
use masq_regmem::SharedRegion;
use masq_spec::command::Opcode;
use masq_spec::queue::{MAX_STRIDE, SEND_DATA, SendFlags, Sge};
use masq_spec::verbs::{
    CreateQp, ModifyQp, NO_HANDLE, QpAttr, QpCaps, QpCreated, QpState, QpType, Ring,
};
use masq_verbs_abi::*;

/// What `ibv_qp *` and `ibv_qp_ex *` point to.
#[repr(C)]
pub(crate) struct Qp {
    pub(crate) abi: ibv_qp_ex,
    pub(crate) send: Lock<SendQueue>,
    /// Absent with an SRQ.
    pub(crate) recv: Option<Lock<RecvQueue>>,
    /// What both will write of memory that has stand-ins.
    pub(crate) pending: Queues,
    _memory: SharedRegion,
    /// Slot in the doorbell page.
    doorbell: u32,
    /// Created with SEND_OPS_FLAGS.
    pub(crate) is_extended: bool,
    init: Init,
    /// Guarded by the lock of the context's table.
    pub(crate) events_given: u32,
}

/// What `ibv_query_qp` answers of the creation.
#[derive(Clone, Copy)]
struct Init {
    cap: ibv_qp_cap,
    sq_sig_all: c_int,
}

impl Qp {
    /// The QP behind a pointer of the program.
    ///
    /// # Safety
    /// A live QP of this library.
    pub(crate) unsafe fn of<'a>(qp: *mut ibv_qp) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*qp.cast() }
    }

    pub(crate) fn context(&self) -> &Context {
        // SAFETY: a context outlives its objects.
        unsafe { Context::of(self.abi.qp_base.context) }
    }

    #[inline]
    pub(crate) fn is_ud(&self) -> bool {
        self.abi.qp_base.qp_type == IBV_QPT_UD
    }

    /// Tells the device of posted sends.
    #[inline]
    pub(crate) fn ring_doorbell(&self) {
        self.context().session.doorbell().ring(self.doorbell);
    }

    /// Forgets what waits in both CQs.
    fn clean_cqs(&self) {
        let base = &self.abi.qp_base;
        // SAFETY: a QP's CQs outlive it.
        unsafe { Cq::of(base.send_cq).forget_qp(base.qp_num) };
        if base.recv_cq != base.send_cq {
            // SAFETY: as above.
            unsafe { Cq::of(base.recv_cq).forget_qp(base.qp_num) };
        }
    }

    /// Empties both rings, as RESET asks.
    fn reset_rings(&self) {
        self.send.with(|queue| queue.ring.reset());
        self.pending.send.with(Sends::clear);
        if let Some(recv) = &self.recv {
            recv.with(|queue| queue.ring.reset());
            self.pending.recv.with(Receives::clear);
        }
    }
}

/// Bytes of a send slot.
fn send_slot(cap: &ibv_qp_cap) -> u32 {
    let sges = cap.max_send_sge * size_of::<Sge>() as u32;
    SEND_DATA as u32 + sges.max(cap.max_inline_data)
}

/// Capacities that a QP gets: where there is room for elements there is room for as much
/// inline data, and programs of drivers that grant it rely on that.
fn granted(ctx: &Context, asked: &ibv_qp_cap) -> ibv_qp_cap {
    let room = asked.max_send_sge * size_of::<Sge>() as u32;
    let inline = asked
        .max_inline_data
        .max(room.min(ctx.attr.max_inline_data));
    ibv_qp_cap {
        max_inline_data: inline,
        ..*asked
    }
}

/// The device's limits.
fn check(ctx: &Context, init: &ibv_qp_init_attr) -> Result<(), c_int> {
    let (cap, attr) = (&init.cap, &ctx.attr);
    if init.send_cq.is_null() || init.recv_cq.is_null() {
        return Err(libc::EINVAL);
    }
    if QpType::from_raw(init.qp_type).is_none() {
        return Err(libc::EOPNOTSUPP);
    }
    let wrs = cap.max_send_wr.max(cap.max_recv_wr);
    let sges = cap.max_send_sge.max(cap.max_recv_sge);
    let too_much = wrs > attr.max_qp_wr
        || sges > attr.max_sge
        || cap.max_inline_data > attr.max_inline_data
        || send_slot(cap) > MAX_STRIDE;
    if too_much { Err(libc::EINVAL) } else { Ok(()) }
}

/// Rings that a QP needs, and those that it has.
fn rings(
    init: &ibv_qp_init_attr,
) -> Result<(SharedRegion, WorkRing, Option<WorkRing>), DriverError> {
    let cap = &init.cap;
    let send = Shape::new(cap.max_send_wr, send_slot(cap));
    if !init.srq.is_null() {
        let (memory, [send]) = ring::allocate([send])?;
        return Ok((memory, WorkRing::new(send, cap.max_send_wr), None));
    }
    let recv = Shape::new(cap.max_recv_wr, recv_slot(cap.max_recv_sge));
    let (memory, [send, recv]) = ring::allocate([send, recv])?;
    let recv = WorkRing::new(recv, cap.max_recv_wr);
    Ok((memory, WorkRing::new(send, cap.max_send_wr), Some(recv)))
}

/// Creates a QP without the functions of its extended form.
///
/// # Safety
/// A live PD, and CQs and an SRQ (or NULL) of the same context.
pub(crate) unsafe fn create(
    pd: *mut ibv_pd,
    init: &mut ibv_qp_init_attr,
) -> Result<Box<Qp>, c_int> {
    // SAFETY: the caller's promise.
    let (context, pd_handle) = unsafe { ((*pd).context, (*pd).handle) };
    // SAFETY: the PD's context.
    let ctx = unsafe { Context::of(context) };
    check(ctx, init)?;
    let (memory, send, recv) = rings(init).map_err(|e| e.errno())?;
    let cap = granted(ctx, &init.cap);
    let request = CreateQp {
        pd: pd_handle,
        qp_type: init.qp_type,
        // SAFETY: the caller's promise.
        send_cq: unsafe { (*init.send_cq).handle },
        // SAFETY: as above.
        recv_cq: unsafe { (*init.recv_cq).handle },
        // SAFETY: as above.
        srq: unsafe { init.srq.as_ref() }.map_or(NO_HANDLE, |srq| srq.handle),
        sq_sig_all: u32::from(init.sq_sig_all != 0),
        caps: caps_to_wire(&cap),
        sq: send.memory.describe(),
        rq: recv
            .as_ref()
            .map_or(Ring::default(), |r| r.memory.describe()),
    };
    let created = ctx
        .session
        .command::<_, QpCreated>(Opcode::CreateQp, &request);
    let created = created.map_err(|e| e.errno())?;
    let always = if init.sq_sig_all == 0 {
        SendFlags::empty()
    } else {
        SendFlags::SIGNALED
    };
    let queue = SendQueue {
        ring: send,
        max_sge: cap.max_send_sge,
        max_inline: cap.max_inline_data,
        always,
        allowed: allowed_opcodes(init.qp_type),
        batch: Batch::default(),
    };
    // Told to the program, as verbs(7) has it.
    init.cap = cap;
    let shared = if init.srq.is_null() {
        None
    } else {
        // SAFETY: the caller's promise.
        Some(&unsafe { Srq::of(init.srq) }.pending)
    };
    let recv = recv.map(|ring| RecvQueue {
        ring,
        max_sge: cap.max_recv_sge,
    });
    Ok(Box::new(Qp {
        abi: abi(context, pd, init, &created),
        send: Lock::new(queue),
        recv: recv.map(Lock::new),
        pending: Queues::new(shared),
        _memory: memory,
        doorbell: created.doorbell,
        is_extended: false,
        init: Init {
            cap,
            sq_sig_all: init.sq_sig_all,
        },
        events_given: 0,
    }))
}

fn abi(
    context: *mut ibv_context,
    pd: *mut ibv_pd,
    init: &ibv_qp_init_attr,
    created: &QpCreated,
) -> ibv_qp_ex {
    // SAFETY: integers, pointers and optional functions, for all of which zero is a
    // value; the mutex is initialized when the QP is announced.
    let mut abi: ibv_qp_ex = unsafe { std::mem::zeroed() };
    let base = &mut abi.qp_base;
    base.context = context;
    base.qp_context = init.qp_context;
    base.pd = pd;
    base.send_cq = init.send_cq;
    base.recv_cq = init.recv_cq;
    base.srq = init.srq;
    base.handle = created.handle;
    base.qp_num = created.qpn;
    base.state = IBV_QPS_RESET;
    base.qp_type = init.qp_type;
    abi
}

/// Makes a created QP known to events.
pub(crate) fn announce(qp: Box<Qp>) -> *mut ibv_qp {
    let qp = Box::into_raw(qp);
    let base: *mut ibv_qp = qp.cast();
    // SAFETY: just made, and known to nobody else.
    unsafe {
        acks!(base, events_completed).init();
        let ctx = Context::of((*base).context);
        ctx.stand_ins.add_queues((*base).qp_num, &(*qp).pending);
        ctx.objects
            .with(|objects| objects.qps.insert((*base).handle, qp));
    }
    base
}

/// Creates a queue pair.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_create_qp(
    pd: *mut ibv_pd,
    init: *mut ibv_qp_init_attr,
) -> *mut ibv_qp {
    // SAFETY: the caller's PD and structure.
    match unsafe { create(pd, &mut *init) } {
        Ok(qp) => announce(qp),
        Err(error) => errno::null(error),
    }
}

/// Destroys a QP, after its events are acknowledged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_destroy_qp(qp: *mut ibv_qp) -> c_int {
    // SAFETY: the caller's QP.
    let (this, id) = unsafe { (Qp::of(qp), (*qp).handle) };
    let ctx = this.context();
    let raw: *mut Qp = qp.cast();
    if let Err(error) = ctx.session.destroy(Opcode::DestroyQp, id) {
        return error.errno();
    }
    ctx.objects
        .with(|objects| forget(&mut objects.qps, id, raw));
    discard_async(ctx, id, is_qp_event);
    let number = this.abi.qp_base.qp_num;
    ctx.stand_ins.remove_queues(number, &this.pending);
    this.clean_cqs();
    // SAFETY: no event of it is given out any more; the box is the caller's last use.
    unsafe {
        acks!(qp, events_completed).wait((*raw).events_given);
        drop(Box::from_raw(raw));
    }
    0
}

fn caps_to_wire(cap: &ibv_qp_cap) -> QpCaps {
    QpCaps {
        max_send_wr: cap.max_send_wr,
        max_recv_wr: cap.max_recv_wr,
        max_send_sge: cap.max_send_sge,
        max_recv_sge: cap.max_recv_sge,
        max_inline_data: cap.max_inline_data,
        reserved: 0,
    }
}

fn attr_to_wire(attr: &ibv_qp_attr, mask: u32) -> QpAttr {
    QpAttr {
        qp_state: attr.qp_state,
        cur_qp_state: attr.cur_qp_state,
        path_mtu: attr.path_mtu,
        path_mig_state: attr.path_mig_state,
        qkey: attr.qkey,
        rq_psn: attr.rq_psn,
        sq_psn: attr.sq_psn,
        dest_qp_num: attr.dest_qp_num,
        qp_access_flags: attr.qp_access_flags,
        caps: caps_to_wire(&attr.cap),
        ah: to_wire(&attr.ah_attr),
        alt_ah: to_wire(&attr.alt_ah_attr),
        pkey_index: attr.pkey_index,
        alt_pkey_index: attr.alt_pkey_index,
        en_sqd_async_notify: attr.en_sqd_async_notify,
        sq_draining: attr.sq_draining,
        max_rd_atomic: attr.max_rd_atomic,
        max_dest_rd_atomic: attr.max_dest_rd_atomic,
        min_rnr_timer: attr.min_rnr_timer,
        port_num: attr.port_num,
        timeout: attr.timeout,
        retry_cnt: attr.retry_cnt,
        rnr_retry: attr.rnr_retry,
        alt_port_num: attr.alt_port_num,
        alt_timeout: attr.alt_timeout,
        sq_sig_all: 0,
        // Older programs have a shorter structure, so read only if it is meant.
        rate_limit: if mask & IBV_QP_RATE_LIMIT == 0 {
            0
        } else {
            attr.rate_limit
        },
    }
}

/// Changes a QP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_modify_qp(
    qp: *mut ibv_qp,
    attr: *mut ibv_qp_attr,
    mask: c_int,
) -> c_int {
    // SAFETY: the caller's QP and structure.
    let (this, attr) = unsafe { (Qp::of(qp), &*attr) };
    let mask = mask as u32;
    let request = ModifyQp {
        handle: this.abi.qp_base.handle,
        mask,
        attr: attr_to_wire(attr, mask),
    };
    let done = this
        .context()
        .session
        .command::<_, QpState>(Opcode::ModifyQp, &request);
    let state = match done {
        Ok(done) => done.state,
        Err(error) => {
            errno::set(error.errno());
            return error.errno();
        }
    };
    if mask & IBV_QP_STATE != 0 && attr.qp_state == IBV_QPS_RESET {
        this.reset_rings();
        this.clean_cqs();
    }
    if mask & IBV_QP_STATE != 0 {
        // SAFETY: the caller's QP.
        unsafe { (*qp).state = state };
    }
    0
}

fn attr_from_wire(attr: &QpAttr, cap: ibv_qp_cap) -> ibv_qp_attr {
    ibv_qp_attr {
        qp_state: attr.qp_state,
        cur_qp_state: attr.cur_qp_state,
        path_mtu: attr.path_mtu,
        path_mig_state: attr.path_mig_state,
        qkey: attr.qkey,
        rq_psn: attr.rq_psn,
        sq_psn: attr.sq_psn,
        dest_qp_num: attr.dest_qp_num,
        qp_access_flags: attr.qp_access_flags,
        cap,
        ah_attr: from_wire(&attr.ah),
        alt_ah_attr: from_wire(&attr.alt_ah),
        pkey_index: attr.pkey_index,
        alt_pkey_index: attr.alt_pkey_index,
        en_sqd_async_notify: attr.en_sqd_async_notify,
        sq_draining: attr.sq_draining,
        max_rd_atomic: attr.max_rd_atomic,
        max_dest_rd_atomic: attr.max_dest_rd_atomic,
        min_rnr_timer: attr.min_rnr_timer,
        port_num: attr.port_num,
        timeout: attr.timeout,
        retry_cnt: attr.retry_cnt,
        rnr_retry: attr.rnr_retry,
        alt_port_num: attr.alt_port_num,
        alt_timeout: attr.alt_timeout,
        rate_limit: attr.rate_limit,
    }
}

/// Attributes of a QP, all of them whatever the mask.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_query_qp(
    qp: *mut ibv_qp,
    attr: *mut ibv_qp_attr,
    _mask: c_int,
    init: *mut ibv_qp_init_attr,
) -> c_int {
    // SAFETY: the caller's QP.
    let this = unsafe { Qp::of(qp) };
    let base = &this.abi.qp_base;
    let asked = handle(base.handle);
    let answer: QpAttr = match this.context().session.command(Opcode::QueryQp, &asked) {
        Ok(answer) => answer,
        Err(error) => {
            errno::set(error.errno());
            return error.errno();
        }
    };
    let created = ibv_qp_init_attr {
        qp_context: base.qp_context,
        send_cq: base.send_cq,
        recv_cq: base.recv_cq,
        srq: base.srq,
        cap: this.init.cap,
        qp_type: base.qp_type,
        sq_sig_all: this.init.sq_sig_all,
    };
    // SAFETY: the caller's structures and QP.
    unsafe {
        *attr = attr_from_wire(&answer, this.init.cap);
        *init = created;
        (*qp).state = answer.qp_state;
    }
    0
}

/// Data arrives in order: the device copies upwards, and the last byte last.
#[unsafe(no_mangle)]
pub extern "C" fn ibv_query_qp_data_in_order(_qp: *mut ibv_qp, _op: c_enum, _flags: u32) -> c_int {
    1
}

/// There are no enhanced connection options.
#[unsafe(no_mangle)]
pub extern "C" fn ibv_set_ece(_qp: *mut ibv_qp, _ece: *mut ibv_ece) -> c_int {
    errno::set(libc::EOPNOTSUPP);
    libc::EOPNOTSUPP
}

/// There are no enhanced connection options.
#[unsafe(no_mangle)]
pub extern "C" fn ibv_query_ece(_qp: *mut ibv_qp, _ece: *mut ibv_ece) -> c_int {
    errno::set(libc::EOPNOTSUPP);
    libc::EOPNOTSUPP
}
