//! Rings in tenant memory (SPEC clause 6).
#![allow(unsafe_code)] // atomics and copies at raw pointers

use crate::{MemoryError, SharedFile, Window, copy};
use masq_spec::queue::{
    HDR_CQ_ARM, HDR_CQ_CONSUMER, HDR_DEVICE_INDEX, HDR_RECEIVE_BELL, MAX_SLOTS, MAX_STRIDE,
    RING_HEADER, ring_len,
};
use masq_spec::verbs::Ring;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A ring whose geometry was checked and whose memory is mapped.
#[derive(Clone, Debug)]
pub struct MappedRing {
    window: Arc<Window>,
    base: NonNull<u8>,
    mask: u32,
    stride: u32,
}

// SAFETY: `base` points into `window`, which is Send and Sync and kept alive.
unsafe impl Send for MappedRing {}
// SAFETY: as above; all access is atomic or a copy of racing bytes.
unsafe impl Sync for MappedRing {}

impl MappedRing {
    /// Maps `ring` of `file`.
    ///
    /// # Errors
    /// [`MemoryError::BadRange`] if the geometry breaks clause 6.1.
    pub fn map(file: &SharedFile, ring: Ring) -> Result<Self, MemoryError> {
        let bad = MemoryError::BadRange {
            addr: ring.addr,
            len: u64::from(ring.slots),
        };
        let geometry_ok = ring.slots.is_power_of_two()
            && ring.slots <= MAX_SLOTS
            && ring.stride.is_power_of_two()
            && (32..=MAX_STRIDE).contains(&ring.stride)
            && ring.addr.is_multiple_of(64);
        if !geometry_ok {
            return Err(bad);
        }
        let len = ring_len(ring.slots, ring.stride);
        let window = file.ring_window(ring.addr, len)?;
        let base = window.pointer(ring.addr, len).ok_or(bad)?;
        Ok(Self {
            window,
            base,
            mask: ring.slots - 1,
            stride: ring.stride,
        })
    }

    /// Number of slots.
    pub fn slots(&self) -> u32 {
        self.mask + 1
    }

    /// Bytes of a slot.
    pub fn stride(&self) -> u32 {
        self.stride
    }

    /// The window that holds the ring.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    fn slot(&self, index: u32) -> NonNull<u8> {
        let offset = RING_HEADER + u64::from(index & self.mask) * u64::from(self.stride);
        // SAFETY: the masked slot lies inside the ring, which was checked to
        // lie inside the window.
        unsafe { self.base.add(offset as usize) }
    }

    fn stamp_cell(&self, index: u32) -> &AtomicU32 {
        // SAFETY: slots are aligned to 32 bytes at least, and stay mapped as
        // long as self.
        unsafe { AtomicU32::from_ptr(self.slot(index).as_ptr().cast()) }
    }

    fn header(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset + 4 <= RING_HEADER as usize);
        // SAFETY: the header is 64-byte aligned and inside the window.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset & 60).cast()) }
    }

    /// Whether the driver published the slot with this running index.
    #[inline]
    pub fn is_published(&self, index: u32) -> bool {
        self.stamp_cell(index).load(Ordering::Acquire) == masq_spec::queue::stamp(index)
    }

    /// Copies the first `out.len()` bytes of a slot, once. Longer than the
    /// stride: the rest of `out` is untouched.
    #[inline]
    pub fn read(&self, index: u32, offset: usize, out: &mut [u8]) {
        let room = (self.stride as usize).saturating_sub(offset);
        let len = out.len().min(room);
        if let Some(out) = out.get_mut(..len) {
            // SAFETY: offset + len is at most the stride.
            unsafe { copy::load_bytes(self.slot(index).add(offset), out) };
        }
    }

    /// Where the bytes of a slot lie, for inline data of `len` bytes.
    pub fn slot_bytes(&self, index: u32, offset: usize, len: usize) -> Option<NonNull<u8>> {
        if offset.checked_add(len)? > self.stride as usize {
            return None;
        }
        // SAFETY: offset + len is at most the stride.
        Some(unsafe { self.slot(index).add(offset) })
    }

    /// Writes a slot, then its stamp: `bytes` without its first four.
    #[inline]
    pub fn publish(&self, index: u32, bytes: &[u8]) {
        let len = bytes.len().min(self.stride as usize);
        if let Some(body) = bytes.get(4..len) {
            // SAFETY: 4 + body is at most the stride.
            unsafe { copy::store_bytes(self.slot(index).add(4), body) };
        }
        self.stamp_cell(index)
            .store(masq_spec::queue::stamp(index), Ordering::Release);
    }

    /// Tells the driver that work below `index` is done with.
    #[inline]
    pub fn set_device_index(&self, index: u32) {
        self.header(HDR_DEVICE_INDEX)
            .store(index, Ordering::Release);
    }

    /// Tells the driver which doorbell slot posted receives need, if any.
    pub fn set_receive_bell(&self, slot: Option<u32>) {
        let word = slot.map_or(0, |slot| slot.wrapping_add(1));
        self.header(HDR_RECEIVE_BELL).store(word, Ordering::SeqCst);
    }

    /// Begins the ring of a resized CQ at running index `first`: what the
    /// driver had polled, and the arming that still waits (clause 6.6).
    pub fn begin_cq(&self, first: u32, consumer: u32, arm: u32) {
        self.header(HDR_CQ_CONSUMER)
            .store(consumer, Ordering::Release);
        self.header(HDR_CQ_ARM).store(arm, Ordering::SeqCst);
        // The stamp of the highest index is 0, as in a ring never written.
        if u32::MAX - first < self.slots() {
            self.stamp_cell(u32::MAX).store(1 << 31, Ordering::Release);
        }
    }

    /// A header word.
    #[inline]
    pub fn load_header(&self, offset: usize) -> u32 {
        self.header(offset).load(Ordering::Acquire)
    }
}
