//! A mapping of a range of the shared file.
#![allow(unsafe_code)] // mmap, munmap

use crate::{MemoryError, SharedFile};
use masq_spec::device::PAGE_SIZE;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::ptr::NonNull;

/// A mapped, page-aligned range of a [`SharedFile`]; unmapped on drop.
#[derive(Debug)]
pub struct Window {
    base: NonNull<u8>,
    addr: u64,
    len: u64,
}

// SAFETY: a window is an address range without thread affinity; all access
// goes through raw pointers under the crate's second invariant.
unsafe impl Send for Window {}
// SAFETY: as above; `&Window` only yields raw pointers.
unsafe impl Sync for Window {}

impl Window {
    /// Maps the pages around `[addr, addr + len)`. With `populate`, pages are
    /// faulted in now, by the calling thread, and not by a data-path thread.
    ///
    /// # Errors
    /// [`MemoryError::BadRange`], or [`MemoryError::Host`] when the host has no
    /// room for another mapping.
    pub fn map(
        file: &SharedFile,
        addr: u64,
        len: u64,
        populate: bool,
    ) -> Result<Self, MemoryError> {
        let (start, len) = file.pages(addr, len)?;
        let mut flags = MapFlags::SHARED | MapFlags::NORESERVE;
        if populate {
            flags |= MapFlags::POPULATE;
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
                file,
                start,
            )
        }
        .map_err(MemoryError::host("map a window"))?;
        let base = NonNull::new(base.cast()).ok_or(MemoryError::BadRange { addr, len })?;
        Ok(Self {
            base,
            addr: start,
            len,
        })
    }

    /// Faults the pages around `[addr, addr + len)` in, as far as the host can.
    pub(crate) fn populate_part(&self, addr: u64, len: u64) {
        let first = addr & !(PAGE_SIZE - 1);
        let len = (addr + len).next_multiple_of(PAGE_SIZE) - first;
        if let Some(start) = self.pointer(first, len) {
            // SAFETY: the range lies inside the mapping, which self owns. What is
            // not there now is there when it is first touched.
            let _ = unsafe {
                madvise(
                    start.as_ptr().cast(),
                    len as usize,
                    Advice::LinuxPopulateWrite,
                )
            };
        }
    }

    /// Faults all its pages in, as far as the host can; stops between two
    /// pieces when `go_on` says no.
    pub fn populate(&self, mut go_on: impl FnMut() -> bool) {
        const PIECE: u64 = 16 << 20;
        let mut at = 0;
        while at < self.len && go_on() {
            let len = PIECE.min(self.len - at);
            // SAFETY: the piece lies inside the mapping, which self owns.
            let done = unsafe {
                let start = self.base.add(at as usize).as_ptr();
                madvise(start.cast(), len as usize, Advice::LinuxPopulateWrite)
            };
            if done.is_err() {
                // Pages come one by one then, when they are first touched.
                return;
            }
            at += len;
        }
    }

    /// Address of its first byte in the tenant.
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Bytes, a multiple of the page size.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never true: a window has at least a page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Where tenant address `addr` is mapped, if `[addr, addr + len)` is inside.
    pub fn pointer(&self, addr: u64, len: u64) -> Option<NonNull<u8>> {
        let offset = addr.checked_sub(self.addr)?;
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: offset is at most the length of the mapping.
        Some(unsafe { self.base.add(offset as usize) })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: this window owns the mapping, and pointers into it are only
        // used by holders of the window.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len as usize) };
    }
}
