//! Small regions, cut from larger ones: a queue pair's rings are a few hundred bytes, and a
//! mapping for each would cost system calls here and in the backend.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::arena::{Arena, SHARED_PAGE, State};
use crate::error::RegError;
use crate::shared::Mapping;
use crate::span::{Span, page_down, page_size, page_up};
use crate::sys;

/// Bytes of a chunk, and its alignment: the backend maps it as a whole, once.
pub(crate) const CHUNK: usize = 256 << 10;
/// Regions of more are mappings of their own.
pub(crate) const LARGEST: usize = 32 << 10;
/// What regions are rounded up to; no two share a cache line.
pub(crate) const UNIT: usize = 256;
const UNITS: usize = CHUNK / UNIT;
/// Units of the unit of sharing.
const UNITS_OF_PAGE: usize = SHARED_PAGE / UNIT;

/// One chunk. It is freed with the last region in it.
#[derive(Debug)]
pub(crate) struct Chunk {
    mapping: Mapping,
    /// A bit for each unit in use. Set under the arena's lock, cleared without.
    used: [AtomicU64; UNITS / 64],
    /// How many units are not in use.
    free: AtomicUsize,
    /// A bit for each page that has storage; smaller pages than 4 KiB do not exist.
    backed: AtomicU64,
}

/// The chunks that have regions, weakly: a forked child forgets them without a lock.
#[derive(Debug, Default)]
pub(crate) struct Slab(Vec<Weak<Chunk>>);

impl Slab {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }
}

/// Part of a chunk.
#[derive(Debug)]
pub(crate) struct Part {
    chunk: Arc<Chunk>,
    first: usize,
    units: usize,
}

impl Part {
    /// Takes `len` bytes, at most [`LARGEST`], of a chunk with room, or of a new one; if `place`
    /// is given, such that they begin in that unit of a page. A chunk's end takes the lock that
    /// the caller holds: what was looked at goes to `seen`, to be dropped without it.
    pub(crate) fn take(
        arena: &'static Arena,
        state: &mut State,
        len: usize,
        place: Option<usize>,
        seen: &mut Vec<Arc<Chunk>>,
    ) -> Result<Self, RegError> {
        let units = len.div_ceil(UNIT);
        state.slab.0.retain(|chunk| chunk.strong_count() > 0);
        // The newest first: it most likely has room.
        let found = state.slab.0.iter().rev().find_map(|chunk| {
            let chunk = chunk.upgrade()?;
            seen.push(Arc::clone(&chunk));
            Some((chunk.find(units, place)?, chunk))
        });
        let (first, chunk) = match found {
            Some(found) => found,
            None => {
                let chunk = Arc::new(Chunk {
                    mapping: Mapping::reserve(arena, state, CHUNK, CHUNK)?,
                    used: [const { AtomicU64::new(0) }; UNITS / 64],
                    free: AtomicUsize::new(UNITS),
                    backed: AtomicU64::new(0),
                });
                state.slab.0.push(Arc::downgrade(&chunk));
                seen.push(Arc::clone(&chunk));
                (place.unwrap_or(0), chunk)
            }
        };
        chunk.back(arena, first * UNIT, units * UNIT)?;
        for unit in first..first + units {
            chunk
                .word(unit)
                .fetch_or(1 << (unit % 64), Ordering::Relaxed);
        }
        chunk.free.fetch_sub(units, Ordering::Relaxed);
        Ok(Self {
            chunk,
            first,
            units,
        })
    }

    pub(crate) fn span(&self) -> Span {
        let start = self.chunk.mapping.span().start + self.first * UNIT;
        Span::new(start, start + self.units * UNIT)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        for unit in self.first..self.first + self.units {
            let bit = 1 << (unit % 64);
            self.chunk.word(unit).fetch_and(!bit, Ordering::Release);
        }
        self.chunk.free.fetch_add(self.units, Ordering::Relaxed);
    }
}

impl Chunk {
    fn word(&self, unit: usize) -> &AtomicU64 {
        // `unit` is below UNITS.
        &self.used[unit / 64 % (UNITS / 64)]
    }

    /// The first of `units` free ones in a row, at that place in its page.
    fn find(&self, units: usize, place: Option<usize>) -> Option<usize> {
        let fits = |first: usize| place.is_none_or(|place| first % UNITS_OF_PAGE == place);
        if self.free.load(Ordering::Relaxed) < units {
            return None;
        }
        let mut free = 0;
        for first in (0..UNITS).step_by(64) {
            // Whoever freed it has written for the last time.
            let used = self.word(first).load(Ordering::Acquire);
            if used == u64::MAX {
                free = 0;
                continue;
            }
            for bit in 0..64 {
                free = if used >> bit & 1 != 0 { 0 } else { free + 1 };
                if free >= units && fits(first + bit + 1 - units) {
                    return Some(first + bit + 1 - units);
                }
            }
        }
        None
    }

    /// Sees to it that the bytes have storage: what is missing later is a fatal fault.
    fn back(&self, arena: &Arena, at: usize, len: usize) -> Result<(), RegError> {
        let pages = Span::new(page_down(at), page_up(at + len));
        let number = |at: usize| at / page_size();
        let wanted = (number(pages.start)..number(pages.end)).fold(0u64, |bits, page| {
            bits | 1u64.checked_shl(page as u32).unwrap_or(0)
        });
        if self.backed.load(Ordering::Relaxed) & wanted == wanted {
            return Ok(());
        }
        let start = self.mapping.span().start;
        let span = Span::new(start + pages.start, start + pages.end);
        sys::allocate(arena.memfd(), span).map_err(|_| RegError::NoMemory {
            addr: span.start,
            len,
        })?;
        self.backed.fetch_or(wanted, Ordering::Relaxed);
        Ok(())
    }
}
