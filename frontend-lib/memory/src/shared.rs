//! Memory that is born in the memfd, for queues.
#![allow(unsafe_code)] // makes and ends mappings of its own

use crate::arena::{ARENA_SIZE, Arena, lock};
use crate::error::RegError;
use crate::span::{Span, page_up};
use crate::sys;

/// Page-aligned zeroed memory whose offset in the memfd is its address; never moved. Freed when
/// dropped. In a forked child it is a private copy.
#[derive(Debug)]
pub struct SharedRegion {
    arena: &'static Arena,
    span: Span,
}

impl SharedRegion {
    pub(crate) fn allocate(arena: &'static Arena, len: usize) -> Result<Self, RegError> {
        if len == 0 || len > ARENA_SIZE {
            return Err(RegError::BadRange { addr: 0, len });
        }
        let mut locked = lock();
        arena.check_alive()?;
        let fd = arena.memfd();
        let span = sys::map_anon(page_up(len), libc::PROT_NONE, libc::MAP_NORESERVE)
            .map_err(|_| RegError::NoMemory { addr: 0, len })?;
        let made = (|| {
            if span.end > ARENA_SIZE {
                return Err(RegError::NoMemory {
                    addr: span.start,
                    len,
                });
            }
            // A registration that outlived its memory may have left contents at these addresses.
            sys::punch(fd, span).map_err(|error| error.during("fallocate(PUNCH_HOLE)"))?;
            sys::allocate(fd, span).map_err(|_| RegError::NoMemory {
                addr: span.start,
                len,
            })?;
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: the kernel reserved these addresses for us just now.
            unsafe { sys::map_file_over(fd, span, prot) }.map_err(|error| error.during("mmap"))
        })();
        if let Err(error) = made {
            let _ = sys::punch(fd, span);
            // SAFETY: as above; nobody knows the range yet.
            unsafe { sys::unmap(span) };
            return Err(error);
        }
        locked.state.counts.add(span);
        Ok(Self { arena, span })
    }

    /// The first byte; aligned to a page. The offset in the memfd is the same number.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.span.start)
    }

    /// The first byte's address, which is its offset in the memfd.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.span.start
    }

    /// Bytes, a multiple of the page size.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.span.len()
    }
}

impl Drop for SharedRegion {
    fn drop(&mut self) {
        let mut locked = lock();
        // SAFETY: the region is ours, and its owner lets go of it.
        unsafe { sys::unmap(self.span) };
        // In a forked child the counts and the memfd are not those of this region.
        if self.arena.check_alive().is_ok() {
            for freed in locked.state.counts.remove(self.span) {
                let _ = sys::punch(self.arena.memfd(), freed);
            }
        }
    }
}
