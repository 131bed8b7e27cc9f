//! Completion channels and asynchronous events. The descriptor that a program polls is
//! the event queue's own.

use crate::context::Context;
use crate::{cq, errno};
use libc::{c_int, c_void};
use masq_driver::{DriverError, EventQueue};
use masq_spec::event::{self, AsyncEvent, Event};
use masq_verbs_abi::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What `ibv_comp_channel *` points to.
#[repr(C)]
pub(crate) struct Channel {
    abi: ibv_comp_channel,
    pub(crate) queue: Arc<EventQueue>,
}

/// Counts events given out and acknowledged, in the program's own structure.
pub(crate) struct Acks {
    pub(crate) mutex: *mut pthread_mutex_t,
    pub(crate) cond: *mut pthread_cond_t,
    pub(crate) completed: *mut u32,
}

impl Acks {
    /// Initializes the mutex and condition.
    ///
    /// # Safety
    /// All pointers lead into an object that nobody else knows yet.
    pub(crate) unsafe fn init(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            libc::pthread_mutex_init(self.mutex, std::ptr::null());
            libc::pthread_cond_init(self.cond, std::ptr::null());
        }
    }

    /// Acknowledges `count` events.
    ///
    /// # Safety
    /// The object is alive.
    unsafe fn add(&self, count: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            libc::pthread_mutex_lock(self.mutex);
            *self.completed = (*self.completed).wrapping_add(count);
            libc::pthread_cond_signal(self.cond);
            libc::pthread_mutex_unlock(self.mutex);
        }
    }

    /// Waits until `given` events are acknowledged.
    ///
    /// # Safety
    /// The object is alive, and no event of it is given out any more.
    pub(crate) unsafe fn wait(&self, given: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            libc::pthread_mutex_lock(self.mutex);
            // Changed by other threads while the condition is waited for.
            while self.completed.read_volatile() != given {
                libc::pthread_cond_wait(self.cond, self.mutex);
            }
            libc::pthread_mutex_unlock(self.mutex);
        }
    }
}

/// The counters of an object, by its mutex, condition and field: only places are named.
/// To be used where the object is known to live.
macro_rules! acks {
    ($object:expr, $completed:ident) => {
        crate::events::Acks {
            mutex: &raw mut (*$object).mutex,
            cond: &raw mut (*$object).cond,
            completed: &raw mut (*$object).$completed,
        }
    };
}
pub(crate) use acks;

/// Creates a completion channel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_create_comp_channel(
    context: *mut ibv_context,
) -> *mut ibv_comp_channel {
    // SAFETY: the caller's context.
    let ctx = unsafe { Context::of(context) };
    match ctx.session.open_event_queue() {
        Ok(queue) => {
            let abi = ibv_comp_channel {
                context,
                fd: queue.fd(),
                refcnt: 0,
            };
            Box::into_raw(Box::new(Channel { abi, queue })).cast()
        }
        Err(error) => errno::null(error.errno()),
    }
}

/// Runs `f` under the context's mutex, which guards `refcnt`.
///
/// # Safety
/// A live channel.
unsafe fn locked<R>(channel: *mut ibv_comp_channel, f: impl FnOnce(&mut c_int) -> R) -> R {
    // SAFETY: the caller's promise.
    unsafe {
        let mutex = &raw mut (*(*channel).context).mutex;
        libc::pthread_mutex_lock(mutex);
        let result = f(&mut (*channel).refcnt);
        libc::pthread_mutex_unlock(mutex);
        result
    }
}

/// Counts a CQ that uses the channel (`change` 1) or no longer does (-1).
///
/// # Safety
/// NULL or a live channel.
pub(crate) unsafe fn count_cq(channel: *mut ibv_comp_channel, change: c_int) {
    if !channel.is_null() {
        // SAFETY: the caller's promise.
        unsafe { locked(channel, |count| *count += change) };
    }
}

/// Destroys a channel; EBUSY while a CQ uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_destroy_comp_channel(channel: *mut ibv_comp_channel) -> c_int {
    // SAFETY: the caller's channel.
    if unsafe { locked(channel, |count| *count) } != 0 {
        return libc::EBUSY;
    }
    // SAFETY: made as a box, and the caller's last use.
    let channel = unsafe { Box::from_raw(channel.cast::<Channel>()) };
    // SAFETY: the channel's context.
    let ctx = unsafe { Context::of(channel.abi.context) };
    // Whatever a dead backend answers, the channel is gone.
    let _ = ctx.session.close_event_queue(&channel.queue);
    0
}

/// Waits for a completion event. 0 or -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_get_cq_event(
    channel: *mut ibv_comp_channel,
    cq: *mut *mut ibv_cq,
    cq_context: *mut *mut c_void,
) -> c_int {
    // SAFETY: the caller's channel.
    let this = unsafe { &*channel.cast::<Channel>() };
    // SAFETY: the channel's context.
    let ctx = unsafe { Context::of(this.abi.context) };
    loop {
        let event = match this.queue.next() {
            Ok(event) => event,
            Err(DriverError::Gone) => return errno::minus_one(libc::EIO),
            Err(error) => return errno::minus_one(error.errno()),
        };
        // An event of a CQ that was destroyed meanwhile is nobody's.
        let found = ctx.objects.with(|objects| {
            let found = *objects.cqs.get(&event.element)?;
            // SAFETY: live while it is in the table, whose lock is held.
            unsafe {
                (*found).comp_events_given += 1;
                (*found).events_seen.fetch_add(1, Ordering::Relaxed);
            }
            Some(found)
        });
        if let Some(found) = found.filter(|_| event.kind == event::COMPLETION) {
            // SAFETY: the CQ lives until its event is acknowledged.
            unsafe {
                *cq = found.cast();
                *cq_context = (*found).abi.cq_context;
            }
            return 0;
        }
    }
}

/// Acknowledges completion events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_ack_cq_events(cq: *mut ibv_cq, count: u32) {
    // SAFETY: the caller's CQ.
    unsafe { acks!(cq, comp_events_completed).add(count) };
}

/// Waits for an asynchronous event. 0 or -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_get_async_event(
    context: *mut ibv_context,
    event: *mut ibv_async_event,
) -> c_int {
    // SAFETY: the caller's context.
    let ctx = unsafe { Context::of(context) };
    loop {
        let found = match ctx.session.async_events().next() {
            Ok(found) => element(ctx, &found).map(|element| ibv_async_event {
                element,
                event_type: found.kind,
            }),
            Err(DriverError::Gone) => match fatal(ctx) {
                Some(fatal) => Some(fatal),
                None => return errno::minus_one(libc::EIO),
            },
            Err(error) => return errno::minus_one(error.errno()),
        };
        if let Some(found) = found {
            // SAFETY: the caller's structure.
            unsafe { *event = found };
            return 0;
        }
    }
}

/// A backend that is gone is the fatal error of the device, told once.
fn fatal(ctx: &Context) -> Option<ibv_async_event> {
    let told = ctx.fatal_told.swap(true, Ordering::AcqRel);
    (!told).then_some(ibv_async_event {
        element: ibv_async_element { port_num: 1 },
        event_type: AsyncEvent::DeviceFatal as u32,
    })
}

/// Whether an event names a QP.
pub(crate) fn is_qp_event(kind: u32) -> bool {
    matches!(
        kind,
        IBV_EVENT_QP_FATAL..=IBV_EVENT_PATH_MIG_ERR | IBV_EVENT_QP_LAST_WQE_REACHED
    )
}

/// Whether an event names an SRQ.
pub(crate) fn is_srq_event(kind: u32) -> bool {
    matches!(kind, IBV_EVENT_SRQ_ERR | IBV_EVENT_SRQ_LIMIT_REACHED)
}

/// Drops what waits of a destroyed object, whose descriptor must not stay readable.
pub(crate) fn discard_async(ctx: &Context, id: u32, is_kind: impl Fn(u32) -> bool) {
    let events = ctx.session.async_events();
    events.discard(|event| event.element == id && is_kind(event.kind));
}

/// The object that an event names, counted as given out; `None` if it is gone.
fn element(ctx: &Context, event: &Event) -> Option<ibv_async_element> {
    let id = event.element;
    ctx.objects.with(|objects| match event.kind {
        IBV_EVENT_CQ_ERR => objects.cqs.get(&id).map(|cq| {
            // SAFETY: live while it is in the table, whose lock is held.
            unsafe { (**cq).async_events_given += 1 };
            ibv_async_element { cq: cq.cast() }
        }),
        kind if is_srq_event(kind) => objects.srqs.get(&id).map(|srq| {
            // SAFETY: as above.
            unsafe { (**srq).events_given += 1 };
            ibv_async_element { srq: srq.cast() }
        }),
        kind if is_qp_event(kind) => objects.qps.get(&id).map(|qp| {
            // SAFETY: as above.
            unsafe { (**qp).events_given += 1 };
            ibv_async_element { qp: qp.cast() }
        }),
        _ => Some(ibv_async_element {
            port_num: id as c_int,
        }),
    })
}

/// Acknowledges an asynchronous event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_ack_async_event(event: *mut ibv_async_event) {
    // SAFETY: the caller's event, whose object lives until now.
    unsafe {
        let element = (*event).element;
        match (*event).event_type {
            IBV_EVENT_CQ_ERR => acks!(element.cq, async_events_completed).add(1),
            kind if is_srq_event(kind) => acks!(element.srq, events_completed).add(1),
            kind if is_qp_event(kind) => acks!(element.qp, events_completed).add(1),
            _ => {}
        }
    }
}

// The first field of each object is the program's view of it.
const _: () = assert!(std::mem::offset_of!(cq::Cq, abi) == 0);
