//! Protection domains, parent domains and thread domains.

use crate::context::Context;
use crate::errno;
use libc::c_int;
use masq_spec::command::Opcode;
use masq_spec::verbs::{Created, Handle};
use masq_verbs_abi::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// What `ibv_pd *` points to. A parent domain has the handle of its PD, so whatever is
/// created in it is created in that PD.
#[repr(C)]
struct Pd {
    abi: ibv_pd,
    parent: *mut Pd,
    /// Parent domains that were made of this PD.
    domains: AtomicU32,
}

/// A handle as a request.
pub(crate) fn handle(handle: u32) -> Handle {
    Handle {
        handle,
        reserved: 0,
    }
}

/// Allocates a protection domain.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_alloc_pd(context: *mut ibv_context) -> *mut ibv_pd {
    // SAFETY: the caller's context.
    let ctx = unsafe { Context::of(context) };
    match ctx.session.command::<_, Created>(Opcode::AllocPd, &()) {
        Ok(created) => new_pd(context, created.handle, std::ptr::null_mut()),
        Err(error) => errno::null(error.errno()),
    }
}

fn new_pd(context: *mut ibv_context, handle: u32, parent: *mut Pd) -> *mut ibv_pd {
    let pd = Box::new(Pd {
        abi: ibv_pd { context, handle },
        parent,
        domains: AtomicU32::new(0),
    });
    Box::into_raw(pd).cast()
}

/// Frees a protection or parent domain; EBUSY while something is in it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_dealloc_pd(pd: *mut ibv_pd) -> c_int {
    let pd: *mut Pd = pd.cast();
    // SAFETY: the caller's PD.
    let (this, ctx) = unsafe { (&*pd, Context::of((*pd).abi.context)) };
    if this.domains.load(Ordering::Acquire) != 0 {
        return libc::EBUSY;
    }
    // SAFETY: a parent outlives its domains, see above.
    if let Some(parent) = unsafe { this.parent.as_ref() } {
        parent.domains.fetch_sub(1, Ordering::Release);
    } else {
        let done = ctx.session.destroy(Opcode::DeallocPd, this.abi.handle);
        if let Err(error) = done {
            return error.errno();
        }
    }
    // SAFETY: made as a box, and the caller's last use.
    drop(unsafe { Box::from_raw(pd) });
    0
}

/// `ibv_alloc_parent_domain`. Queues lie in registered memory, so a program's own
/// allocators cannot be honoured: EOPNOTSUPP.
pub(crate) unsafe extern "C" fn alloc_parent_domain(
    context: *mut ibv_context,
    attr: *mut ibv_parent_domain_init_attr,
) -> *mut ibv_pd {
    // SAFETY: the caller's structure.
    let attr = unsafe { &*attr };
    let known = IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS | IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT;
    if attr.comp_mask & !known != 0 || attr.pd.is_null() {
        return errno::null(libc::EINVAL);
    }
    if attr.comp_mask & IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS != 0 {
        return errno::null(libc::EOPNOTSUPP);
    }
    let parent: *mut Pd = attr.pd.cast();
    // SAFETY: the caller's PD.
    let handle = unsafe {
        (*parent).domains.fetch_add(1, Ordering::AcqRel);
        (*parent).abi.handle
    };
    new_pd(context, handle, parent)
}

/// `ibv_alloc_td`: a promise of the program that needs nothing here.
pub(crate) unsafe extern "C" fn alloc_td(
    context: *mut ibv_context,
    attr: *mut ibv_td_init_attr,
) -> *mut ibv_td {
    // SAFETY: the caller's structure.
    if unsafe { (*attr).comp_mask } != 0 {
        return errno::null(libc::EINVAL);
    }
    Box::into_raw(Box::new(ibv_td { context }))
}

/// `ibv_dealloc_td`.
pub(crate) unsafe extern "C" fn dealloc_td(td: *mut ibv_td) -> c_int {
    // SAFETY: made by `alloc_td`, and the caller's last use.
    drop(unsafe { Box::from_raw(td) });
    0
}
