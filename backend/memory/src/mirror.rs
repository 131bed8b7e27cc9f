//! Memory of a process mapped once more at addresses that follow from its own: for
//! cards that find memory by where it is mapped, and not by an address they are told.
#![allow(unsafe_code)] // an address that is sent between threads

use crate::region::MappedSegment;
use crate::reserve::Pages;
use crate::{MemoryError, Region, Reserve, Window};
use masq_spec::device::PAGE_SIZE;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

struct Range {
    end: u64,
    /// Where its first page lies in the shared file.
    source: u64,
    pages: Weak<Pages>,
}

/// What is mapped of one process. A page is mapped once, however many regions have
/// it.
pub struct Mirror {
    reserve: Arc<Reserve>,
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
    /// One that maps nothing yet, and will at these addresses only.
    pub fn new(reserve: &Arc<Reserve>) -> Self {
        Self {
            reserve: Arc::clone(reserve),
            ranges: BTreeMap::new(),
        }
    }

    /// Maps a region in one piece, its first byte at `address`.
    ///
    /// # Errors
    /// [`MemoryError::Scattered`]: a part is no window, or begins amid a page;
    /// [`MemoryError::BadRange`]: `address` is not in its page where the first byte is in
    /// its own, is not reserved, or is in use for something else; [`MemoryError::Host`]: no
    /// more mappings.
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
            let pages = Arc::new(Pages::map(&self.reserve, window, from, until - next, next)?);
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
    /// Where nothing is in a test's process; each test has its own.
    const FREE: u64 = 1 << 45;
    const RESERVED: u64 = 0x10_0000;

    /// What is reserved, and its first address.
    fn reserve(test: u64) -> (Arc<Reserve>, u64) {
        let at = FREE + test * 2 * RESERVED;
        let reserve = Reserve::new(std::slice::from_ref(&(at..at + RESERVED)));
        (reserve.unwrap(), at)
    }

    /// Whether something else of this process could be at an address.
    fn is_free(at: u64) -> bool {
        Reserve::new(std::slice::from_ref(&(at..at + PAGE_SIZE))).is_ok()
    }

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
        let (reserve, at) = reserve(0);
        let (file, mut mirror) = (file(), Mirror::new(&reserve));
        let one = region(&file, 0x1010, 0x20, 0x1010);
        let two = region(&file, 0xff0, 0x2000, 0xff0);
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
        // Nothing else gets there meanwhile, and regions do again.
        assert!(!is_free(at + 0x1000) && !is_free(at));
        mirror.map(&two, at + 0xff0).unwrap();
        drop((mirror, reserve));
        assert!(is_free(at + 0x1000) && is_free(at));
    }

    #[test]
    fn other_memory_is_not_mapped_over() {
        let (reserve, at) = reserve(1);
        let (file, mut mirror) = (file(), Mirror::new(&reserve));
        let _kept = mirror.map(&region(&file, 0x1000, 0x1000, 0x1000), at + 0x1000);
        // The same address, and elsewhere in the file.
        let other = region(&file, 0x1000, 0x1000, 0x3000);
        assert!(mirror.map(&other, at + 0x1000).is_err());
        // Of another process.
        let mut stranger = Mirror::new(&reserve);
        let same = region(&file, 0x1000, 0x1000, 0x1000);
        assert!(stranger.map(&same, at + 0x1000).is_err());
        assert!(mirror.map(&same, at + 0x1001).is_err(), "amid a page");
        assert!(mirror.map(&same, u64::MAX - 0xfff).is_err());
        assert!(mirror.map(&same, at + 0x1000).is_ok());
    }

    /// A tenant chooses addresses: it gets at none that is not kept for it.
    #[test]
    fn nothing_is_mapped_beside_what_is_reserved() {
        let (reserve, at) = reserve(2);
        let (file, mut mirror) = (file(), Mirror::new(&reserve));
        let page = region(&file, 0, PAGE_SIZE, 0);
        let two = region(&file, 0, 2 * PAGE_SIZE, 0);
        let end = at + RESERVED;
        assert!(is_free(at - PAGE_SIZE) && is_free(end) && is_free(FREE / 2));
        for (what, region, address) in [
            ("before", &page, at - PAGE_SIZE),
            ("behind", &page, end),
            ("across the beginning", &two, at - PAGE_SIZE),
            ("across the end", &two, end - PAGE_SIZE),
            ("elsewhere", &page, FREE / 2),
        ] {
            let refused = mirror.map(region, address);
            assert!(
                matches!(refused, Err(MemoryError::BadRange { .. })),
                "{what}"
            );
        }
        mirror.map(&page, at).unwrap();
        mirror.map(&page, end - PAGE_SIZE).unwrap();
    }
}
