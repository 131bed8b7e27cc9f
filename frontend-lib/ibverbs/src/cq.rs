//! Completion queues.

use crate::context::{Context, forget};
use crate::errno;
use crate::events::{Channel, acks, count_cq, discard_async};
use crate::lock::Lock;
use crate::ring::{self, RingMemory, Shape};
use libc::{c_int, c_void};
use masq_driver::DriverError;
use masq_regmem::SharedRegion;
use masq_spec::command::{Opcode, Status};
use masq_spec::event::AsyncEvent;
use masq_spec::queue::{ARM_ANY, ARM_SOLICITED, CQE_LEN, Cqe, HDR_CQ_ARM, HDR_CQ_CONSUMER};
use masq_spec::verbs::{CqResized, CreateCq, Created, NO_EVENT_QUEUE, ResizeCq};
use masq_verbs_abi::*;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Bytes of an entry's stamp.
const STAMP: usize = 4;
/// Empty polls in a row after which a poller asks whether the backend is still there.
const LIVENESS_INTERVAL: u32 = 1024;

/// What `ibv_cq *` and `ibv_cq_ex *` point to.
#[repr(C)]
pub(crate) struct Cq {
    pub(crate) abi: ibv_cq_ex,
    pub(crate) state: Lock<CqState>,
    /// Guarded by the lock of the context's table, as is the next.
    pub(crate) comp_events_given: u32,
    pub(crate) async_events_given: u32,
    /// As `comp_events_given`, for arming to read without that lock.
    pub(crate) events_seen: AtomicU32,
}

/// What polling changes.
pub(crate) struct CqState {
    ring: RingMemory,
    memory: SharedRegion,
    /// Rings from before a resize, each with the running index at which it ends.
    old: VecDeque<(u32, RingMemory, SharedRegion)>,
    consumer: u32,
    arm_serial: u32,
    /// Events that had been seen when completions of any kind were asked for last.
    any_asked_at: Option<u32>,
    empty_polls: u32,
    /// The completion that an extended poll stands on.
    pub(crate) current: Cqe,
}

impl CqState {
    /// The ring that holds the next entry.
    #[inline]
    fn ring(&mut self) -> RingMemory {
        while let Some((end, ring, _)) = self.old.front() {
            // Cleaning can have gone past the end.
            if (end.wrapping_sub(self.consumer) as i32) > 0 {
                return *ring;
            }
            self.old.pop_front();
        }
        self.ring
    }

    /// Takes the next completion.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Cqe> {
        let ring = self.ring();
        if !ring.is_valid(self.consumer) {
            return None;
        }
        // SAFETY: a published slot is 64 bytes, which the device leaves alone until
        // the consumer index has passed it.
        let cqe = unsafe { ring.slot(self.consumer).cast::<Cqe>().read() };
        self.consumer = self.consumer.wrapping_add(1);
        self.empty_polls = 0;
        Some(cqe)
    }

    /// Tells the device how far the driver has polled.
    #[inline]
    pub(crate) fn publish_consumer(&self) {
        self.ring
            .header(HDR_CQ_CONSUMER)
            .store(self.consumer, Ordering::Release);
    }

    /// The ring that holds entry `index`, which is not before the next one.
    fn ring_of(&self, index: u32) -> RingMemory {
        let behind = |end: u32| (end.wrapping_sub(index) as i32) > 0;
        let old = self.old.iter().find(|(end, ..)| behind(*end));
        old.map_or(self.ring, |(_, ring, _)| *ring)
    }

    /// Takes the entries of a QP out, and gives their places back to the device: other
    /// entries move up behind the newest, in their order.
    fn clean(&mut self, qp_num: u32) {
        let mut end = self.consumer;
        while self.ring_of(end).is_valid(end) {
            end = end.wrapping_add(1);
        }
        let (mut from, mut to) = (end, end);
        while from != self.consumer {
            from = from.wrapping_sub(1);
            let slot = self.ring_of(from).slot(from);
            // SAFETY: published slots of 64 bytes; the driver owns them until they are
            // consumed. A slot keeps its own stamp.
            unsafe {
                if (*slot.cast::<Cqe>()).qp_num == qp_num {
                    continue;
                }
                to = to.wrapping_sub(1);
                if to != from {
                    let place = self.ring_of(to).slot(to);
                    let rest = size_of::<Cqe>() - STAMP;
                    std::ptr::copy_nonoverlapping(slot.add(STAMP), place.add(STAMP), rest);
                }
            }
        }
        if to != self.consumer {
            self.consumer = to;
            self.publish_consumer();
        }
    }
}

/// What to do after a poll that found nothing.
pub(crate) enum Idle {
    Nothing,
    Yield,
    Gone,
}

impl Cq {
    /// The CQ behind a pointer of the program.
    ///
    /// # Safety
    /// A live CQ of this library.
    pub(crate) unsafe fn of<'a>(cq: *mut ibv_cq) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*cq.cast() }
    }

    /// The context of the CQ.
    pub(crate) fn context(&self) -> &Context {
        // SAFETY: a context outlives its objects.
        unsafe { Context::of(self.abi.context) }
    }

    /// Counts an empty poll.
    #[inline]
    pub(crate) fn idle(&self, state: &mut CqState) -> Idle {
        state.empty_polls += 1;
        let ctx = self.context();
        let pause = ctx.polls_until_yield;
        let threshold = if pause == 0 { LIVENESS_INTERVAL } else { pause };
        if state.empty_polls < threshold {
            return Idle::Nothing;
        }
        state.empty_polls = 0;
        if ctx.session.is_gone() {
            return Idle::Gone;
        }
        if pause == 0 {
            Idle::Nothing
        } else {
            Idle::Yield
        }
    }

    /// Forgets completions of a QP that is reset or destroyed.
    pub(crate) fn forget_qp(&self, qp_num: u32) {
        self.state.with(|state| state.clean(qp_num));
    }
}

/// Acts on what [`Cq::idle`] said, without the lock; true if the backend is gone.
#[inline]
pub(crate) fn rest(idle: &Idle) -> bool {
    match idle {
        Idle::Nothing => {}
        Idle::Yield => std::thread::yield_now(),
        Idle::Gone => return true,
    }
    false
}

/// What a CQ is created with.
pub(crate) struct NewCq {
    pub(crate) cqe: u32,
    pub(crate) cq_context: *mut c_void,
    pub(crate) channel: *mut ibv_comp_channel,
    pub(crate) comp_vector: u32,
    /// Flags of [`CreateCq`].
    pub(crate) flags: u32,
}

/// Entries of a completion queue at least: a page of them.
const LEAST_CQE: u32 = 64;

/// Creates a CQ whose extended part is still empty.
///
/// # Safety
/// A live context, and a channel of it or NULL.
pub(crate) unsafe fn create(context: *mut ibv_context, new: NewCq) -> Result<Box<Cq>, c_int> {
    // SAFETY: the caller's promise.
    let ctx = unsafe { Context::of(context) };
    let vectors = 1;
    if new.cqe == 0 || new.cqe > ctx.attr.max_cqe || new.comp_vector >= vectors {
        return Err(libc::EINVAL);
    }
    // Programs ask for one entry and post the next send when the first may still be
    // unpolled; cards give more than is asked for, so they get away with it.
    let cqe = new.cqe.max(LEAST_CQE).min(ctx.attr.max_cqe);
    let made = ring::allocate([Shape::new(cqe, CQE_LEN)]);
    let (memory, [ring]) = made.map_err(|e| e.errno())?;
    let event_queue = if new.channel.is_null() {
        NO_EVENT_QUEUE
    } else {
        // SAFETY: the caller's promise.
        unsafe { (*new.channel.cast::<Channel>()).queue.name() }
    };
    let request = CreateCq {
        ring: ring.describe(),
        cqe,
        event_queue,
        comp_vector: new.comp_vector,
        flags: new.flags,
    };
    let created = ctx
        .session
        .command::<_, Created>(Opcode::CreateCq, &request);
    let created = created.map_err(|e| e.errno())?;
    // SAFETY: integers, pointers and optional functions, for all of which zero is a value.
    let mut abi: ibv_cq_ex = unsafe { std::mem::zeroed() };
    abi.context = context;
    abi.channel = new.channel;
    abi.cq_context = new.cq_context;
    abi.handle = created.handle;
    abi.cqe = cqe as c_int;
    let state = CqState {
        ring,
        memory,
        old: VecDeque::new(),
        consumer: 0,
        arm_serial: 0,
        any_asked_at: None,
        empty_polls: 0,
        current: Cqe::default(),
    };
    Ok(Box::new(Cq {
        abi,
        state: Lock::new(state),
        comp_events_given: 0,
        async_events_given: 0,
        events_seen: AtomicU32::new(0),
    }))
}

/// Makes a created CQ known to events and to its channel.
pub(crate) fn announce(cq: Box<Cq>) -> *mut Cq {
    let cq = Box::into_raw(cq);
    // SAFETY: just made, and known to nobody else.
    unsafe {
        acks!(&raw mut (*cq).abi, comp_events_completed).init();
        count_cq((*cq).abi.channel, 1);
        let objects = &Context::of((*cq).abi.context).objects;
        objects.with(|objects| objects.cqs.insert((*cq).abi.handle, cq));
    }
    cq
}

/// Creates a completion queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_create_cq(
    context: *mut ibv_context,
    cqe: c_int,
    cq_context: *mut c_void,
    channel: *mut ibv_comp_channel,
    comp_vector: c_int,
) -> *mut ibv_cq {
    let (Ok(cqe), Ok(comp_vector)) = (u32::try_from(cqe), u32::try_from(comp_vector)) else {
        return errno::null(libc::EINVAL);
    };
    let new = NewCq {
        cqe,
        cq_context,
        channel,
        comp_vector,
        flags: 0,
    };
    // SAFETY: the caller's context and channel.
    match unsafe { create(context, new) } {
        Ok(cq) => announce(cq).cast(),
        Err(error) => errno::null(error),
    }
}

/// Destroys a CQ, after its events are acknowledged; EBUSY while a QP uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_destroy_cq(cq: *mut ibv_cq) -> c_int {
    // SAFETY: the caller's CQ.
    let (ctx, id) = unsafe { (Context::of((*cq).context), (*cq).handle) };
    let raw: *mut Cq = cq.cast();
    if let Err(error) = ctx.session.destroy(Opcode::DestroyCq, id) {
        return error.errno();
    }
    ctx.objects
        .with(|objects| forget(&mut objects.cqs, id, raw));
    // SAFETY: the caller's CQ, whose channel outlives it.
    if let Some(channel) = unsafe { (*cq).channel.cast::<Channel>().as_ref() } {
        channel.queue.discard(|event| event.element == id);
    }
    discard_async(ctx, id, |kind| kind == AsyncEvent::CqErr as u32);
    // SAFETY: no event of it is given out any more; the box is the caller's last use.
    unsafe {
        acks!(cq, comp_events_completed).wait((*raw).comp_events_given);
        acks!(cq, async_events_completed).wait((*raw).async_events_given);
        count_cq((*cq).channel, -1);
        drop(Box::from_raw(raw));
    }
    0
}

/// Changes the capacity.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_resize_cq(cq: *mut ibv_cq, cqe: c_int) -> c_int {
    // SAFETY: the caller's CQ.
    let this = unsafe { Cq::of(cq) };
    let ctx = this.context();
    let cqe = match u32::try_from(cqe) {
        Ok(cqe) if cqe > 0 && cqe <= ctx.attr.max_cqe => cqe,
        _ => return libc::EINVAL,
    };
    let result = this
        .state
        .with(|state| resize(ctx, state, this.abi.handle, cqe));
    match result {
        Ok(()) => {
            // SAFETY: the caller's CQ.
            unsafe { (*cq).cqe = cqe as c_int };
            0
        }
        Err(error) => error.errno(),
    }
}

/// The lock is held meanwhile: what the device wrote before stays where polling looks.
fn resize(ctx: &Context, state: &mut CqState, id: u32, cqe: u32) -> Result<(), DriverError> {
    let (memory, [new]) = ring::allocate([Shape::new(cqe, CQE_LEN)])?;
    new.header(HDR_CQ_CONSUMER)
        .store(state.consumer, Ordering::Relaxed);
    let arm = state.ring.header(HDR_CQ_ARM).load(Ordering::Relaxed);
    new.header(HDR_CQ_ARM).store(arm, Ordering::Relaxed);
    let request = ResizeCq {
        handle: id,
        cqe,
        ring: new.describe(),
    };
    let resized: CqResized = match ctx.session.command(Opcode::ResizeCq, &request) {
        // Too few places for what waits.
        Err(DriverError::Refused(Status::Busy)) => {
            return Err(DriverError::Refused(Status::Invalid));
        }
        other => other?,
    };
    let ring = std::mem::replace(&mut state.ring, new);
    let memory = std::mem::replace(&mut state.memory, memory);
    if resized.first_index != state.consumer {
        state.old.push_back((resized.first_index, ring, memory));
    }
    Ok(())
}

#[inline]
fn fill(wc: &mut ibv_wc, cqe: &Cqe) {
    *wc = ibv_wc {
        wr_id: cqe.wr_id,
        status: u32::from(cqe.status),
        opcode: u32::from(cqe.opcode),
        vendor_err: cqe.vendor_err,
        byte_len: cqe.byte_len,
        imm_data: cqe.imm_data,
        qp_num: cqe.qp_num,
        src_qp: cqe.src_qp,
        wc_flags: u32::from(cqe.flags),
        pkey_index: 0,
        slid: cqe.slid,
        sl: cqe.sl,
        dlid_path_bits: cqe.dlid_path_bits,
    };
}

/// `ibv_poll_cq`: the number of completions, or -1 when the backend is gone.
pub(crate) unsafe extern "C" fn poll_cq(cq: *mut ibv_cq, count: c_int, wc: *mut ibv_wc) -> c_int {
    // SAFETY: the caller's CQ.
    let this = unsafe { Cq::of(cq) };
    let stand_ins = this.context().stand_ins.in_use();
    let (found, idle) = this.state.with(|state| {
        let mut found = 0;
        while found < count {
            let Some(cqe) = state.take() else { break };
            if let Some(stand_ins) = stand_ins {
                stand_ins.completed(&cqe);
            }
            // SAFETY: the caller's array has `count` places.
            fill(unsafe { &mut *wc.add(found as usize) }, &cqe);
            found += 1;
        }
        if found > 0 {
            state.publish_consumer();
            return (found, Idle::Nothing);
        }
        (0, this.idle(state))
    });
    // Also if there was none: programs that wait for a peer's write poll all the same.
    if let Some(stand_ins) = stand_ins {
        stand_ins.merge();
    }
    if rest(&idle) { -1 } else { found }
}

/// `ibv_req_notify_cq`.
pub(crate) unsafe extern "C" fn req_notify_cq(cq: *mut ibv_cq, solicited_only: c_int) -> c_int {
    // SAFETY: the caller's CQ.
    let this = unsafe { Cq::of(cq) };
    if let Some(stand_ins) = this.context().stand_ins.in_use() {
        stand_ins.merge();
    }
    this.state.with(|state| {
        let seen = this.events_seen.load(Ordering::Relaxed);
        if solicited_only == 0 {
            state.any_asked_at = Some(seen);
        }
        // Asking for less does not take back what was asked for and has not come yet
        // (IBA 11.4.2.2).
        let kind = if state.any_asked_at == Some(seen) {
            ARM_ANY
        } else {
            ARM_SOLICITED
        };
        state.arm_serial = state.arm_serial.wrapping_add(1);
        let word = state.arm_serial << 2 | kind;
        state.ring.header(HDR_CQ_ARM).store(word, Ordering::Release);
        // Before the program polls once more, or an entry could slip between.
        fence(Ordering::SeqCst);
    });
    0
}
