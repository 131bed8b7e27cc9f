//! Memory of a process mapped once more at addresses that follow from its own: for
//! cards that find memory by where it is mapped, and not by an address they are told.
#![allow(unsafe_code)] // mmap, mremap, munmap

use crate::region::MappedSegment;
use crate::{MemoryError, Region, Window};
use masq_spec::device::PAGE_SIZE;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap_fixed, munmap};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

/// Pages at an address that was asked for; unmapped on drop.
#[derive(Debug)]
struct Pages {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an address range without thread affinity; only raw pointers come out.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Reserves a range where nothing is mapped.
    fn reserve(at: u64, len: u64) -> Result<Self, MemoryError> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
        let place = std::ptr::without_provenance_mut(at as usize);
        // SAFETY: a fresh mapping where nothing is.
        let base = unsafe { mmap_anonymous(place, len as usize, ProtFlags::empty(), flags) };
        let base = base.map_err(MemoryError::host("map memory at a chosen address"))?;
        let base = NonNull::new(base.cast()).ok_or(MemoryError::BadRange { addr: at, len })?;
        let len = len as usize;
        Ok(Self { base, len })
    }

    /// Maps pages of a window there.
    fn map(window: &Window, from: u64, len: u64, at: u64) -> Result<Self, MemoryError> {
        let source = window.pointer(from, len);
        let source = source.ok_or(MemoryError::BadRange { addr: from, len })?;
        let pages = Self::reserve(at, len)?;
        // SAFETY: the source is a shared mapping, of which an old size of 0 makes a
        // second one; the target was reserved above and belongs to nobody else.
        let mapped = unsafe {
            let (to, flags) = (pages.base.as_ptr().cast(), MremapFlags::MAYMOVE);
            mremap_fixed(source.as_ptr().cast(), 0, len as usize, flags, to)
        };
        mapped.map_err(MemoryError::host("map memory at a chosen address"))?;
        Ok(pages)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range is its own.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Whether this process may have memory at `address`, and has none.
pub fn is_free_address(address: u64) -> bool {
    Pages::reserve(address, PAGE_SIZE).is_ok()
}

struct Range {
    end: u64,
    /// Where its first page lies in the shared file.
    source: u64,
    pages: Weak<Pages>,
}

/// What is mapped of one process. A page is mapped once, however many regions have
/// it.
#[derive(Default)]
pub struct Mirror {
    ranges: BTreeMap<u64, Range>,
}

/// A region's part of a [`Mirror`], which keeps it mapped.
#[derive(Debug)]
pub struct Mirrored {
    first: NonNull<u8>,
    _pages: Vec<Arc<Pages>>,
}

// SAFETY: an address without thread affinity, of pages that are kept.
unsafe impl Send for Mirrored {}
// SAFETY: as above.
unsafe impl Sync for Mirrored {}

impl Mirrored {
    /// The first byte; those of the whole region follow.
    pub fn first(&self) -> NonNull<u8> {
        self.first
    }
}

impl Mirror {
    /// Maps a region in one piece, its first byte at `address`.
    ///
    /// # Errors
    /// [`MemoryError::Scattered`]: a part is no window, or begins amid a page;
    /// [`MemoryError::BadRange`]: `address` is not in its page where the first byte is in
    /// its own, or other memory of the process is there; [`MemoryError::Host`]: other
    /// memory of this process is there, or it is no address.
    pub fn map(&mut self, region: &Region, address: u64) -> Result<Mirrored, MemoryError> {
        let (len, page) = (region.len(), PAGE_SIZE);
        let bad = || MemoryError::BadRange { addr: address, len };
        let first = usize::try_from(address).ok();
        let first = first.and_then(|at| NonNull::new(std::ptr::without_provenance_mut(at)));
        let first = first.ok_or_else(bad)?;
        self.ranges
            .retain(|_, range| range.pages.strong_count() > 0);
        let (mut pages, mut at) = (Vec::new(), address);
        for (n, segment) in region.segments().iter().enumerate() {
            let MappedSegment::Window {
                window,
                at: source,
                len,
            } = segment
            else {
                return Err(MemoryError::Scattered);
            };
            let head = source % page;
            if head != at % page {
                return Err(if n == 0 {
                    bad()
                } else {
                    MemoryError::Scattered
                });
            }
            let whole = (head + len).next_multiple_of(page);
            self.map_pages(window, source - head, whole, at - head, &mut pages)?;
            at = at.checked_add(*len).ok_or_else(bad)?;
        }
        Ok(Mirrored {
            first,
            _pages: pages,
        })
    }

    /// Maps what of these pages is not mapped yet.
    fn map_pages(
        &mut self,
        window: &Window,
        source: u64,
        len: u64,
        at: u64,
        kept: &mut Vec<Arc<Pages>>,
    ) -> Result<(), MemoryError> {
        let bad = MemoryError::BadRange { addr: at, len };
        let Some(end) = at.checked_add(len) else {
            return Err(bad);
        };
        let mut next = at;
        while next < end {
            let below = self.ranges.range(..=next).next_back();
            if let Some((start, range)) = below.filter(|(_, range)| range.end > next) {
                let has = range.source.wrapping_add(next - start);
                let pages = range.pages.upgrade();
                match pages.filter(|_| has == source + (next - at)) {
                    Some(pages) => kept.push(pages),
                    None => return Err(bad),
                }
                next = range.end;
                continue;
            }
            let above = self.ranges.range(next..).next();
            let until = above.map_or(end, |(start, _)| end.min(*start));
            let from = source + (next - at);
            let pages = Arc::new(Pages::map(window, from, until - next, next)?);
            let range = Range {
                end: until,
                source: from,
                pages: Arc::downgrade(&pages),
            };
            self.ranges.insert(next, range);
            kept.push(pages);
            next = until;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SharedFile, load_bytes, store_bytes};
    use masq_spec::verbs::{Segment, SegmentKind};
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

    const PAGES: u64 = 8;
    /// Where nothing is in a test's process.
    const FREE: u64 = 1 << 45;

    fn file() -> SharedFile {
        let fd = memfd_create("mirror", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, PAGES * PAGE_SIZE).unwrap();
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&fd, seals).unwrap();
        SharedFile::check(fd).unwrap()
    }

    /// A region of `[addr, addr + len)` whose bytes lie at `at` in the file.
    fn region(file: &SharedFile, addr: u64, len: u64, at: u64) -> Region {
        let segment = Segment {
            addr,
            len,
            at,
            kind: SegmentKind::Window as u32,
            reserved: 0,
        };
        Region::map(file, addr, len, &[segment]).unwrap()
    }

    fn first_byte(of: &Mirrored) -> u8 {
        let mut byte = [0];
        // SAFETY: mapped, at least a byte.
        unsafe { load_bytes(of.first(), &mut byte) };
        byte[0]
    }

    #[test]
    fn regions_that_share_pages_share_their_mapping() {
        let (file, mut mirror) = (file(), Mirror::default());
        let one = region(&file, 0x1010, 0x20, 0x1010);
        let two = region(&file, 0xff0, 0x2000, 0xff0);
        let at = FREE + 0x10_0000;
        let first = mirror.map(&one, at + 0x1010).unwrap();
        let second = mirror.map(&two, at + 0xff0).unwrap();
        assert_eq!(second.first().as_ptr() as u64, at + 0xff0);
        // SAFETY: inside the region's mapping.
        let shared = unsafe { second.first().add(0x20) };
        assert_eq!(shared, first.first());
        // SAFETY: as above.
        unsafe { store_bytes(shared, &[7]) };
        drop(second);
        assert_eq!(first_byte(&first), 7, "what one region has stays");
        drop(first);
        assert!(is_free_address(at + 0x1000) && is_free_address(at));
    }

    #[test]
    fn other_memory_is_not_mapped_over() {
        let (file, mut mirror) = (file(), Mirror::default());
        let at = FREE + 0x20_0000;
        let _kept = mirror.map(&region(&file, 0x1000, 0x1000, 0x1000), at + 0x1000);
        // The same address, and elsewhere in the file.
        let other = region(&file, 0x1000, 0x1000, 0x3000);
        assert!(mirror.map(&other, at + 0x1000).is_err());
        // Of another process.
        let mut stranger = Mirror::default();
        let same = region(&file, 0x1000, 0x1000, 0x1000);
        assert!(stranger.map(&same, at + 0x1000).is_err());
        assert!(mirror.map(&same, at + 0x1001).is_err(), "amid a page");
        assert!(mirror.map(&same, u64::MAX - 0xfff).is_err());
        assert!(mirror.map(&same, at + 0x1000).is_ok());
    }
}
