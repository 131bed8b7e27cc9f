//! Memory that is born in the memfd, for queues.
#![allow(unsafe_code)] // makes and ends mappings of its own

use crate::arena::{ARENA_SIZE, Arena, State, lock};
use crate::error::RegError;
use crate::slab::{LARGEST, Part};
use crate::span::{Span, page_size, page_up};
use crate::sys;

/// Zeroed memory whose offset in the memfd is its address; never moved. Freed when dropped. In
/// a forked child it is a private copy.
#[derive(Debug)]
pub struct SharedRegion(Place);

#[derive(Debug)]
enum Place {
    Part(Part),
    Own(Mapping),
}

/// A mapping of the memfd that this crate made.
#[derive(Debug)]
pub(crate) struct Mapping {
    arena: &'static Arena,
    span: Span,
}

impl SharedRegion {
    /// With `place`, a unit of a page, a small one begins there; larger ones begin a page.
    pub(crate) fn allocate(
        arena: &'static Arena,
        len: usize,
        place: Option<usize>,
    ) -> Result<Self, RegError> {
        if len == 0 || len > ARENA_SIZE {
            return Err(RegError::BadRange { addr: 0, len });
        }
        // Their ends take the lock, so they are dropped after it.
        let mut seen = Vec::new();
        let failed: Mapping;
        let mut locked = lock();
        arena.check_alive()?;
        let state = &mut *locked.state;
        if len <= LARGEST {
            let part = Part::take(arena, state, len, place, &mut seen)?;
            let region = Self(Place::Part(part));
            // SAFETY: the part is ours alone, mapped and backed.
            unsafe { region.as_ptr().write_bytes(0, region.len()) };
            return Ok(region);
        }
        let mapping = Mapping::reserve(arena, state, page_up(len), 1)?;
        if sys::allocate(arena.memfd(), mapping.span).is_err() {
            failed = mapping;
            let addr = failed.span.start;
            return Err(RegError::NoMemory { addr, len });
        }
        Ok(Self(Place::Own(mapping)))
    }

    fn span(&self) -> Span {
        match &self.0 {
            Place::Part(part) => part.span(),
            Place::Own(mapping) => mapping.span,
        }
    }

    /// The first byte; aligned to 256 bytes. The offset in the memfd is the same number.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.span().start)
    }

    /// The first byte's address, which is its offset in the memfd.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.span().start
    }

    /// Bytes, a multiple of 256.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.span().len()
    }
}

impl Mapping {
    /// Maps `len` bytes of the memfd, whole pages, at a multiple of `align`. They read as zeroes
    /// and have no storage yet.
    pub(crate) fn reserve(
        arena: &'static Arena,
        state: &mut State,
        len: usize,
        align: usize,
    ) -> Result<Self, RegError> {
        let fd = arena.memfd();
        let no_memory = RegError::NoMemory { addr: 0, len };
        let slack = if align > page_size() { align } else { 0 };
        let all = sys::map_anon(len + slack, libc::PROT_NONE, libc::MAP_NORESERVE);
        let all = all.map_err(|_| no_memory)?;
        let start = all.start.next_multiple_of(align);
        let span = Span::new(start, start + len);
        for margin in all.without(span) {
            // SAFETY: the kernel reserved these addresses for us just now.
            unsafe { sys::unmap(margin) };
        }
        let made = (|| {
            if span.end > ARENA_SIZE {
                return Err(RegError::NoMemory {
                    addr: span.start,
                    len,
                });
            }
            // A registration that outlived its memory may have left contents at these addresses.
            sys::punch(fd, span).map_err(|error| error.during("fallocate(PUNCH_HOLE)"))?;
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: as above.
            unsafe { sys::map_file_over(fd, span, prot) }.map_err(|error| error.during("mmap"))
        })();
        if let Err(error) = made {
            // SAFETY: as above; nobody knows the range yet.
            unsafe { sys::unmap(span) };
            return Err(error);
        }
        state.counts.add(span);
        Ok(Self { arena, span })
    }

    pub(crate) fn span(&self) -> Span {
        self.span
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut locked = lock();
        // SAFETY: the mapping is ours, and its owner lets go of it.
        unsafe { sys::unmap(self.span) };
        // In a forked child the counts and the memfd are not those of this mapping.
        if self.arena.check_alive().is_ok() {
            for freed in locked.state.counts.remove(self.span) {
                let _ = sys::punch(self.arena.memfd(), freed);
            }
        }
    }
}
