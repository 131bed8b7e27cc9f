//! Memory in the memfd that stands in for a part of the program's that cannot be there.
#![allow(unsafe_code)] // copies between memory of the program and a mapping of our own

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use crate::arena::{Arena, SHARED_PAGE};
use crate::error::RegError;
use crate::merge::{Merge, WORD};
use crate::shared::SharedRegion;
use crate::slab::UNIT;
use crate::span::Span;
use crate::sys;

/// A copy of part of the program's memory that the backend reads and writes in its place. It lies
/// in the memfd, at the same offset in its page as the original. Whoever holds it decides when
/// which way is copied.
#[derive(Debug)]
pub struct StandIn {
    /// The original.
    bytes: Range<usize>,
    /// Address of the copy, and its offset in the memfd.
    at: usize,
    merge: Option<Merge>,
    _memory: SharedRegion,
}

impl StandIn {
    /// A stand-in for `len` bytes at `addr`, zeroed.
    ///
    /// # Errors
    /// [`RegError::BadRange`] for an empty or wrapping range, [`RegError::NoMemory`].
    pub fn new(arena: &'static Arena, addr: usize, len: usize) -> Result<Self, RegError> {
        let bad = RegError::BadRange { addr, len };
        let place = addr % SHARED_PAGE;
        let room = len.checked_add(place);
        let (Some(room), Some(end)) = (room, addr.checked_add(len)) else {
            return Err(bad);
        };
        if len == 0 {
            return Err(bad);
        }
        // A small one begins in the right unit; a larger one gets the whole first page.
        let small = place % UNIT + len;
        let needed = if small <= crate::slab::LARGEST {
            small
        } else {
            room
        };
        let memory = SharedRegion::allocate(arena, needed, Some(place / UNIT))?;
        let start = memory.offset();
        let at = start + (addr.wrapping_sub(start) % SHARED_PAGE);
        debug_assert!(at + len <= start + memory.len());
        Ok(Self {
            bytes: addr..end,
            at,
            merge: None,
            _memory: memory,
        })
    }

    /// The bytes that it stands in for.
    #[must_use]
    pub fn bytes(&self) -> Range<usize> {
        self.bytes.clone()
    }

    /// Where it lies: its address, and the offset in the memfd.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// The part of `range` that it stands in for, as offset from its beginning and length.
    fn part(&self, range: Range<usize>) -> (usize, usize) {
        let start = range.start.max(self.bytes.start);
        let end = range.end.min(self.bytes.end);
        (
            start.saturating_sub(self.bytes.start),
            end.saturating_sub(start),
        )
    }

    fn original(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.bytes.start)
    }

    fn copy(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.at)
    }

    /// Copies what it stands in for of `range` from the program, for the backend to read. Nothing
    /// happens once it is merged: [`Self::merge`] does that.
    ///
    /// # Safety
    /// The original is mapped.
    pub unsafe fn fetch(&self, range: Range<usize>) {
        let (offset, len) = self.part(range);
        if self.merge.is_none() && len > 0 {
            // SAFETY: both hold the part; the caller's promise.
            unsafe {
                let (from, to) = (self.original().add(offset), self.copy().add(offset));
                std::ptr::copy_nonoverlapping(from, to, len);
            }
        }
    }

    /// Copies what it stands in for of `range` to the program, after a request wrote it.
    ///
    /// # Safety
    /// The original is mapped and writable.
    pub unsafe fn deliver(&mut self, range: Range<usize>) {
        let (offset, len) = self.part(range);
        if len == 0 {
            return;
        }
        // SAFETY: the caller's promise.
        let (ours, theirs) = unsafe { self.words() };
        let skip = self.bytes.start % WORD;
        if let Some(merge) = &mut self.merge {
            merge.take(skip + offset..skip + offset + len, ours, theirs);
            return;
        }
        // SAFETY: both hold the part; the caller's promise.
        unsafe {
            let (from, to) = (self.copy().add(offset), self.original().add(offset));
            std::ptr::copy_nonoverlapping(from, to, len);
        }
    }

    /// Fills it from the program; from now on [`Self::merge`] keeps both in step.
    ///
    /// # Safety
    /// The original is mapped.
    pub unsafe fn begin_merging(&mut self) {
        if self.merge.is_none() {
            let skip = self.bytes.start % WORD;
            // SAFETY: the caller's promise.
            let (ours, theirs) = unsafe { self.words() };
            self.merge = Some(Merge::begin(skip..skip + self.bytes.len(), ours, theirs));
        }
    }

    /// Brings both in step: what peers wrote since the last time goes to the program, and what
    /// the program wrote to the stand-in. Nothing happens before [`Self::begin_merging`].
    ///
    /// # Safety
    /// The original is mapped, and writable if the backend may write it.
    pub unsafe fn merge(&mut self) {
        // SAFETY: the caller's promise.
        let (ours, theirs) = unsafe { self.words() };
        if let Some(merge) = &mut self.merge {
            merge.run(ours, theirs);
        }
    }

    /// Whether the original is still mapped: programs give memory back without ending its
    /// registration.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        let pages = Span::new(self.bytes.start, self.bytes.end).outer_pages();
        sys::is_mapped(pages)
    }

    /// The words that the original and the copy touch. They lie in the same pages as the bytes;
    /// those around the bytes are read, and replaced by what they are.
    ///
    /// # Safety
    /// The original is mapped while they are used.
    unsafe fn words<'a>(&self) -> (&'a [AtomicU64], &'a [AtomicU64]) {
        let skip = self.bytes.start % WORD;
        let count = (skip + self.bytes.len()).div_ceil(WORD);
        // SAFETY: the copy has the original's place in its page, so both are aligned alike and
        // a word crosses no page. Accessed as atomics; the program's own stores may come between.
        unsafe {
            let ours = self.original().sub(skip).cast();
            let theirs = self.copy().sub(skip).cast();
            (
                std::slice::from_raw_parts(ours, count),
                std::slice::from_raw_parts(theirs, count),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &mut [u8]) -> StandIn {
        StandIn::new(
            Arena::global().unwrap(),
            bytes.as_ptr() as usize,
            bytes.len(),
        )
        .unwrap()
    }

    fn copy(stand_in: &StandIn) -> &'static mut [u8] {
        // SAFETY: the stand-in's memory, of which no other reference is used meanwhile.
        unsafe { std::slice::from_raw_parts_mut(stand_in.copy(), stand_in.bytes.len()) }
    }

    #[test]
    fn it_has_its_originals_place_in_the_page_and_overlaps_no_other() {
        let arena = Arena::global().unwrap();
        let mut all: Vec<StandIn> = Vec::new();
        for (addr, len) in [
            (0x10_0010, 16),
            (0x10_0010, 16),
            (0x10_0ff8, 4096),
            (0x10_0fff, 1),
            (0x10_0800, 32 << 10),
            (0x10_00ff, (32 << 10) - 255),
            (0x10_00ff, (32 << 10) - 254),
            (0x10_0abc, 200 << 10),
        ] {
            let new = StandIn::new(arena, addr, len).unwrap();
            assert_eq!(new.at() % 4096, addr % 4096);
            let end = new.at() + len;
            assert!(
                all.iter()
                    .all(|old| { end <= old.at() || old.at() + old.bytes().len() <= new.at() })
            );
            copy(&new).fill(0xab); // it is mapped
            all.push(new);
        }
        assert!(StandIn::new(arena, 0x1000, 0).is_err());
        assert!(StandIn::new(arena, usize::MAX, 2).is_err());
    }

    #[test]
    fn only_the_bytes_of_a_request_are_copied() {
        let mut program = *b"program";
        let mut stand_in = of(&mut program);
        let start = stand_in.bytes().start;
        // SAFETY: the original lives; here and below.
        unsafe { stand_in.fetch(start - 9..start + 3) };
        assert_eq!(copy(&stand_in), b"pro\0\0\0\0");
        copy(&stand_in).copy_from_slice(b"STANDIN");
        // SAFETY: as above.
        unsafe { stand_in.deliver(start + 4..start + 100) };
        assert_eq!(&program, b"progDIN");
        // SAFETY: as above.
        unsafe { stand_in.deliver(start - 9..start) };
        assert_eq!(&program, b"progDIN");
    }

    #[test]
    fn memory_that_is_gone_is_known_to_be() {
        let page = crate::sys::map_anon(4096, libc::PROT_READ, 0).unwrap();
        let stand_in = StandIn::new(Arena::global().unwrap(), page.start + 10, 100).unwrap();
        assert!(stand_in.is_mapped());
        // SAFETY: mapped above, and used by nobody.
        unsafe { crate::sys::unmap(page) };
        assert!(!stand_in.is_mapped());
    }

    #[test]
    fn a_merged_one_follows_both_sides() {
        let mut program = *b"-program-";
        let mut stand_in = of(&mut program[1..8]);
        // SAFETY: the original lives; here and below.
        unsafe { stand_in.begin_merging() };
        assert_eq!(copy(&stand_in), b"program");
        copy(&stand_in)[0] = b'P';
        program[7] = b'M';
        // SAFETY: as above.
        unsafe { stand_in.merge() };
        assert_eq!(copy(&stand_in), b"PrograM");
        assert_eq!(&program, b"-PrograM-");
    }
}
