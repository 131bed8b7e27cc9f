//! A region in one piece: what an RDMA card registers must be contiguous in the
//! address space of the daemon.
#![allow(unsafe_code)] // mmap, mremap, munmap

use crate::region::MappedSegment;
use crate::{MemoryError, Region};
use masq_spec::device::PAGE_SIZE;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap_fixed, munmap};
use std::io;
use std::ptr::NonNull;

/// The windows of a region, mapped once more, side by side; unmapped on drop.
#[derive(Debug)]
pub struct Span {
    base: NonNull<u8>,
    len: usize,
    first: NonNull<u8>,
}

// SAFETY: an address range without thread affinity; only raw pointers come out.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// Maps a region in one piece.
    ///
    /// # Errors
    /// [`MemoryError::Scattered`]: a part is no window, or two parts share a page;
    /// [`MemoryError::Host`]: the host has no room for more mappings.
    pub fn of(region: &Region) -> Result<Self, MemoryError> {
        let page = PAGE_SIZE as usize;
        let host = |source: rustix::io::Errno| MemoryError::Host {
            what: "map a region in one piece",
            source: io::Error::from(source),
        };
        let mut parts = Vec::new();
        let (mut end, mut head) = (0, 0);
        for (n, segment) in region.segments().iter().enumerate() {
            let MappedSegment::Window { window, at, len } = segment else {
                return Err(MemoryError::Scattered);
            };
            let skipped = (*at % PAGE_SIZE) as usize;
            if n == 0 {
                head = skipped;
            } else if skipped != 0 || end % page != 0 {
                return Err(MemoryError::Scattered);
            }
            let pages = (skipped + *len as usize).next_multiple_of(page);
            let from = window.pointer(at - skipped as u64, pages as u64);
            let from = from.ok_or(MemoryError::Scattered)?;
            parts.push((from, (end / page) * page, pages));
            end += *len as usize + if n == 0 { skipped } else { 0 };
        }
        let len = end.next_multiple_of(page);
        if len == 0 {
            return Err(MemoryError::Scattered);
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), flags) };
        let base = NonNull::new(base.map_err(host)?.cast()).ok_or(MemoryError::Scattered)?;
        // SAFETY: the head lies in the first page.
        let first = unsafe { base.add(head) };
        let span = Self { base, len, first };
        for (from, offset, pages) in parts {
            // SAFETY: the source is a shared mapping that the region keeps, of which an
            // old size of 0 makes a second one; the target lies inside the range that
            // was reserved above, and belongs to nobody else.
            unsafe {
                let to = span.base.add(offset).as_ptr();
                mremap_fixed(
                    from.as_ptr().cast(),
                    0,
                    pages,
                    MremapFlags::MAYMOVE,
                    to.cast(),
                )
            }
            .map_err(host)?;
        }
        Ok(span)
    }

    /// Its first byte; those of the whole region follow.
    pub fn first(&self) -> NonNull<u8> {
        self.first
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // SAFETY: the span owns the range.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
