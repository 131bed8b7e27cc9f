//! Addresses of this process that are kept free for mappings at chosen places: who chooses
//! is a tenant, and must get at no others.
#![allow(unsafe_code)] // mmap, mremap, munmap

use crate::{MemoryError, Window};
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap_fixed, munmap};
use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ranges of addresses that nothing else gets, without memory behind them.
#[derive(Debug)]
pub struct Reserve {
    ranges: Vec<Range<u64>>,
    /// What is in use, with its end.
    taken: Mutex<BTreeMap<u64, u64>>,
}

impl Reserve {
    /// Reserves ranges that begin and end with pages.
    ///
    /// # Errors
    /// [`MemoryError::Host`]: something is there already, or those are no addresses.
    pub fn new(ranges: &[Range<u64>]) -> Result<Arc<Self>, MemoryError> {
        let mut reserve = Self {
            ranges: Vec::with_capacity(ranges.len()),
            taken: Mutex::default(),
        };
        for range in ranges {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
            let (place, len) = (place(range.start), length(range));
            // SAFETY: a fresh mapping where nothing is, which nobody may touch.
            let base = unsafe { mmap_anonymous(place, len, ProtFlags::empty(), flags) };
            let base = base.map_err(MemoryError::host("reserve addresses"))?;
            // A kernel that does not know the flag takes the address for a hint.
            if base != place {
                // SAFETY: mapped above.
                let _ = unsafe { munmap(base, len) };
                let source = rustix::io::Errno::EXIST;
                return Err(MemoryError::host("reserve addresses")(source));
            }
            reserve.ranges.push(range.clone());
        }
        Ok(Arc::new(reserve))
    }

    /// Whether an address is one of those reserved.
    pub fn contains(&self, address: u64) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has nobody else get `[at, end)`, if it is reserved and nobody has a part of it.
    fn take(&self, at: u64, end: u64) -> bool {
        let mut ranges = self.ranges.iter();
        if !ranges.any(|range| range.start <= at && at < end && end <= range.end) {
            return false;
        }
        let mut taken = self.taken();
        let below = taken.range(..end).next_back();
        if below.is_some_and(|(_, other)| *other > at) {
            return false;
        }
        taken.insert(at, end);
        true
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        for range in &self.ranges {
            // SAFETY: reserved by it; who has pages there keeps it alive.
            let _ = unsafe { munmap(place(range.start), length(range)) };
        }
    }
}

fn length(range: &Range<u64>) -> usize {
    range.end.saturating_sub(range.start) as usize
}

/// An address as the kernel is told it.
fn place(at: u64) -> *mut std::ffi::c_void {
    std::ptr::without_provenance_mut(at as usize)
}

/// Pages of a window at a reserved address, which is reserved again on drop.
#[derive(Debug)]
pub(crate) struct Pages {
    reserve: Arc<Reserve>,
    at: u64,
    end: u64,
}

impl Pages {
    /// Maps pages of a window.
    ///
    /// # Errors
    /// [`MemoryError::BadRange`]: the window has no such pages, or the place is not reserved
    /// or in use; [`MemoryError::Host`]: no more mappings.
    pub(crate) fn map(
        reserve: &Arc<Reserve>,
        window: &Window,
        from: u64,
        len: u64,
        at: u64,
    ) -> Result<Self, MemoryError> {
        let source = window.pointer(from, len);
        let source: NonNull<u8> = source.ok_or(MemoryError::BadRange { addr: from, len })?;
        let bad = MemoryError::BadRange { addr: at, len };
        let Some(end) = at.checked_add(len) else {
            return Err(bad);
        };
        if !reserve.take(at, end) {
            return Err(bad);
        }
        // From here on the drop gives the place back.
        let pages = Self {
            reserve: Arc::clone(reserve),
            at,
            end,
        };
        // SAFETY: the source is a shared mapping, of which an old size of 0 makes a
        // second one; the target is reserved, and taken above.
        let mapped = unsafe {
            let flags = MremapFlags::MAYMOVE;
            mremap_fixed(source.as_ptr().cast(), 0, len as usize, flags, place(at))
        };
        mapped.map_err(MemoryError::host("map memory at a chosen address"))?;
        Ok(pages)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let (at, len) = (place(self.at), (self.end - self.at) as usize);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the range is its own.
        let reserved = unsafe { mmap_anonymous(at, len, ProtFlags::empty(), flags) };
        if reserved.is_ok() {
            self.reserve.taken().remove(&self.at);
        } else {
            // Whoever may have these addresses by now keeps them: they stay taken.
            // SAFETY: as above.
            let _ = unsafe { munmap(at, len) };
        }
    }
}
