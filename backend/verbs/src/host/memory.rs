//! Protection domains, memory regions and address handles.
#![allow(unsafe_code)] // calls of the host's libibverbs

use super::{Context, check, made};
use masq_verbs_abi::*;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

/// A protection domain of the card.
#[derive(Debug)]
pub(crate) struct Pd {
    pub(super) context: Arc<Context>,
    pub(super) ptr: NonNull<ibv_pd>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for Pd {}
// SAFETY: as above.
unsafe impl Sync for Pd {}

impl Pd {
    /// Allocates one.
    pub(crate) fn new(context: &Arc<Context>) -> io::Result<Arc<Self>> {
        // SAFETY: an open context.
        let ptr = made(unsafe { (context.library.ibv_alloc_pd)(context.ptr.as_ptr()) })?;
        Ok(Arc::new(Self {
            context: Arc::clone(context),
            ptr,
        }))
    }
}

impl Drop for Pd {
    fn drop(&mut self) {
        // SAFETY: its objects hold an Arc of it and are gone.
        let code = unsafe { (self.context.library.ibv_dealloc_pd)(self.ptr.as_ptr()) };
        released("protection domain", code);
    }
}

/// A memory region of the card. `M` is what keeps its pages mapped.
#[derive(Debug)]
pub(crate) struct Mr<M> {
    pd: Arc<Pd>,
    ptr: NonNull<ibv_mr>,
    memory: Option<M>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl<M: Send> Send for Mr<M> {}

impl<M> Mr<M> {
    /// Registers `len` bytes at `at`, which requests name from `iova` on.
    ///
    /// # Safety
    /// The bytes stay mapped as long as `memory` lives.
    pub(crate) unsafe fn new(
        pd: &Arc<Pd>,
        at: NonNull<u8>,
        len: u64,
        iova: u64,
        access: u32,
        memory: M,
    ) -> io::Result<Self> {
        let library = &pd.context.library;
        // SAFETY: mapped memory by contract; the kernel checks and pins it.
        let ptr = made(unsafe {
            (library.ibv_reg_mr_iova)(
                pd.ptr.as_ptr(),
                at.as_ptr().cast(),
                len as usize,
                iova,
                access,
            )
        })?;
        Ok(Self {
            pd: Arc::clone(pd),
            ptr,
            memory: Some(memory),
        })
    }

    pub(crate) fn lkey(&self) -> u32 {
        // SAFETY: a live region.
        unsafe { self.ptr.as_ref().lkey }
    }

    /// 0 on some cards, if peers have no rights.
    pub(crate) fn rkey(&self) -> u32 {
        // SAFETY: a live region.
        unsafe { self.ptr.as_ref().rkey }
    }

    /// What keeps its pages mapped.
    pub(crate) fn memory(&self) -> Option<&M> {
        self.memory.as_ref()
    }

    /// Deregisters it and gives its memory back.
    pub(crate) fn deregister(mut self) -> Option<M> {
        self.memory.take()
    }
}

impl<M> Drop for Mr<M> {
    fn drop(&mut self) {
        // SAFETY: a live region; afterwards the card does not reach the memory,
        // which is dropped after this.
        let code = unsafe { (self.pd.context.library.ibv_dereg_mr)(self.ptr.as_ptr()) };
        released("memory region", code);
    }
}

/// An address handle of the card.
#[derive(Debug)]
pub(crate) struct Ah {
    pd: Arc<Pd>,
    pub(super) ptr: NonNull<ibv_ah>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for Ah {}
// SAFETY: as above.
unsafe impl Sync for Ah {}

impl Ah {
    /// Creates one. Blocks while the neighbour is looked for, a second or so.
    pub(crate) fn new(pd: &Arc<Pd>, mut attr: ibv_ah_attr) -> io::Result<Self> {
        // SAFETY: a live domain, and a structure of ours.
        let ptr = made(unsafe { (pd.context.library.ibv_create_ah)(pd.ptr.as_ptr(), &mut attr) })?;
        Ok(Self {
            pd: Arc::clone(pd),
            ptr,
        })
    }
}

impl Drop for Ah {
    fn drop(&mut self) {
        // SAFETY: a live handle; requests that use it are posted with an Arc held.
        let code = unsafe { (self.pd.context.library.ibv_destroy_ah)(self.ptr.as_ptr()) };
        released("address handle", code);
    }
}

/// A card that is gone refuses to release what went with it.
pub(super) fn released(what: &'static str, code: libc::c_int) {
    if let Err(error) = check(code)
        && error.raw_os_error() != Some(libc::EIO)
    {
        tracing::warn!(what, %error, "the card does not release an object");
    }
}
