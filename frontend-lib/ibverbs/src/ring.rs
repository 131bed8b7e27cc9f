//! Rings of work and completions in registered memory (SPEC clause 6).

use masq_driver::DriverError;
use masq_regmem::{Arena, SharedRegion};
use masq_spec::queue::{HDR_DEVICE_INDEX, HDR_RECEIVE_BELL, RING_HEADER, ring_len, stamp};
use masq_spec::verbs::Ring;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where one ring lies. The memory is its owner's ([`SharedRegion`]).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingMemory {
    base: *mut u8,
    slots: u32,
    stride: u32,
}

// SAFETY: it is only a description; whoever uses it holds the queue's lock.
unsafe impl Send for RingMemory {}

/// Slots and stride of a ring for `entries` of at least `bytes` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    slots: u32,
    stride: u32,
}

impl Shape {
    /// Both are rounded up to powers of two.
    pub(crate) fn new(entries: u32, bytes: u32) -> Self {
        Self {
            slots: entries.max(1).next_power_of_two(),
            stride: bytes.next_power_of_two(),
        }
    }

    fn len(self) -> usize {
        ring_len(self.slots, self.stride) as usize
    }
}

/// Allocates rings beside each other.
pub(crate) fn allocate<const N: usize>(
    shapes: [Shape; N],
) -> Result<(SharedRegion, [RingMemory; N]), DriverError> {
    let aligned = |shape: Shape| shape.len().next_multiple_of(RING_HEADER as usize);
    let total = shapes.iter().map(|s| aligned(*s)).sum();
    let region = Arena::global()?.alloc_shared(total)?;
    let mut at = 0;
    let rings = shapes.map(|shape| {
        let ring = RingMemory {
            // SAFETY: the sum of the lengths is that of the region.
            base: unsafe { region.as_ptr().add(at) },
            slots: shape.slots,
            stride: shape.stride,
        };
        at += aligned(shape);
        ring
    });
    Ok((region, rings))
}

impl RingMemory {
    /// How commands name the ring.
    pub(crate) fn describe(&self) -> Ring {
        Ring {
            addr: self.base as u64,
            slots: self.slots,
            stride: self.stride,
        }
    }

    /// A word of the header.
    #[inline]
    pub(crate) fn header(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset + 4 <= RING_HEADER as usize);
        // SAFETY: inside the header, aligned; accessed only as an atomic.
        unsafe { AtomicU32::from_ptr(self.base.add(offset).cast()) }
    }

    /// The slot with running index `index`.
    #[inline]
    pub(crate) fn slot(&self, index: u32) -> *mut u8 {
        let slot = index & (self.slots - 1);
        // SAFETY: `slot` is below the number of slots.
        unsafe {
            let first = self.base.add(RING_HEADER as usize);
            first.add(slot as usize * self.stride as usize)
        }
    }

    #[inline]
    fn stamp_at(&self, index: u32) -> &AtomicU32 {
        // SAFETY: a slot begins with its stamp, aligned.
        unsafe { AtomicU32::from_ptr(self.slot(index).cast()) }
    }

    /// Whether slot `index` was published by the other side.
    #[inline]
    pub(crate) fn is_valid(&self, index: u32) -> bool {
        self.stamp_at(index).load(Ordering::Acquire) == stamp(index)
    }

    /// Hands slot `index` to the other side.
    #[inline]
    pub(crate) fn publish(&self, index: u32) {
        self.stamp_at(index).store(stamp(index), Ordering::Release);
    }

    /// Makes every slot invalid and rewinds the device's index.
    pub(crate) fn reset(&self) {
        for index in 0..self.slots {
            self.stamp_at(index).store(0, Ordering::Release);
        }
        self.header(HDR_DEVICE_INDEX).store(0, Ordering::Release);
        self.header(HDR_RECEIVE_BELL).store(0, Ordering::Release);
    }
}

/// The space of a work queue: who has which running indexes.
#[derive(Debug)]
pub(crate) struct WorkRing {
    pub(crate) memory: RingMemory,
    /// Work requests that may wait, as the program asked.
    max_wr: u32,
    posted: u32,
    /// The device's index when it was last read.
    done: u32,
}

impl WorkRing {
    pub(crate) fn new(memory: RingMemory, max_wr: u32) -> Self {
        Self {
            memory,
            max_wr,
            posted: 0,
            done: 0,
        }
    }

    /// Running index of the next work request.
    #[inline]
    pub(crate) fn posted(&self) -> u32 {
        self.posted
    }

    /// The next free slot; `None` when `max_wr` requests wait.
    #[inline]
    pub(crate) fn next_slot(&mut self) -> Option<*mut u8> {
        if self.posted.wrapping_sub(self.done) >= self.max_wr {
            let index = self.memory.header(HDR_DEVICE_INDEX);
            self.done = index.load(Ordering::Acquire);
            if self.posted.wrapping_sub(self.done) >= self.max_wr {
                return None;
            }
        }
        Some(self.memory.slot(self.posted))
    }

    /// Counts the slot of [`WorkRing::next_slot`] without publishing it.
    #[inline]
    pub(crate) fn take(&mut self) {
        self.posted = self.posted.wrapping_add(1);
    }

    /// Publishes the slot of [`WorkRing::next_slot`].
    #[inline]
    pub(crate) fn commit(&mut self) {
        self.memory.publish(self.posted);
        self.take();
    }

    /// Publishes what was taken since `first`.
    pub(crate) fn publish_since(&mut self, first: u32) {
        let mut index = first;
        while index != self.posted {
            self.memory.publish(index);
            index = index.wrapping_add(1);
        }
    }

    /// Gives back what was taken since `first`.
    pub(crate) fn rewind(&mut self, first: u32) {
        self.posted = first;
    }

    /// Empty, as after creation.
    pub(crate) fn reset(&mut self) {
        self.memory.reset();
        self.posted = 0;
        self.done = 0;
    }
}
