//! The driver's half of a split virtqueue, in shared memory (VIRTIO 1.2, 2.7).
//!
//! Descriptor table, rings and buffers lie in one region, as SPEC clause 3.3 asks.
//! What the device writes is believed only as far as it can do no harm here.
#![allow(unsafe_code, reason = "memory that the device writes too")]

use crate::DriverError;
use masq_regmem::{Arena, SharedRegion};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use vhost::VringConfigData;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE, EventFd};

/// Descriptor flag: another descriptor follows.
pub(crate) const DESC_NEXT: u16 = 1;
/// Descriptor flag: the device writes the buffer.
pub(crate) const DESC_WRITE: u16 = 2;
/// Flag of the available ring: no call is wanted.
const NO_INTERRUPT: u16 = 1;
/// Flag of the used ring: no kick is wanted.
const NO_NOTIFY: u16 = 1;

/// Bytes of a descriptor.
const DESC: usize = 16;
/// Buffers begin on a cache line.
const LINE: usize = 64;

/// One virtqueue with the buffers of all its descriptors, each `buffer_len` bytes.
#[derive(Debug)]
pub(crate) struct Vring {
    region: SharedRegion,
    size: u16,
    buffer_len: usize,
    /// The device's doorbell.
    pub(crate) kick: Arc<EventFd>,
    /// Signalled for each used buffer.
    pub(crate) call: Arc<EventFd>,
    next_avail: u16,
    next_used: u16,
}

impl Vring {
    /// A new call eventfd: what programs poll.
    pub(crate) fn new_call() -> Result<Arc<EventFd>, DriverError> {
        Ok(Arc::new(EventFd::new(EFD_CLOEXEC | EFD_SEMAPHORE)?))
    }

    /// A new kick eventfd.
    pub(crate) fn new_kick() -> Result<Arc<EventFd>, DriverError> {
        Ok(Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?))
    }

    /// A ring of `size` descriptors, a power of two.
    pub(crate) fn new(
        size: u16,
        buffer_len: usize,
        kick: Arc<EventFd>,
    ) -> Result<Self, DriverError> {
        debug_assert!(size.is_power_of_two());
        let len = Self::buffers(size) + usize::from(size) * buffer_len;
        Ok(Self {
            region: Arena::global()?.alloc_shared(len)?,
            size,
            buffer_len,
            kick,
            call: Self::new_call()?,
            next_avail: 0,
            next_used: 0,
        })
    }

    fn avail(size: u16) -> usize {
        usize::from(size) * DESC
    }

    fn used(size: u16) -> usize {
        (Self::avail(size) + 6 + 2 * usize::from(size)).next_multiple_of(4)
    }

    fn buffers(size: u16) -> usize {
        (Self::used(size) + 6 + 8 * usize::from(size)).next_multiple_of(LINE)
    }

    /// Addresses for SET_VRING_ADDR.
    pub(crate) fn config(&self) -> VringConfigData {
        let at = |offset: usize| (self.region.offset() + offset) as u64;
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: at(0),
            used_ring_addr: at(Self::used(self.size)),
            avail_ring_addr: at(Self::avail(self.size)),
            log_addr: None,
        }
    }

    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    fn u16_at(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: inside the region, aligned, and only accessed as an atomic.
        unsafe { AtomicU16::from_ptr(self.region.as_ptr().add(offset).cast()) }
    }

    fn u32_at(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: inside the region, aligned, and only accessed as an atomic.
        unsafe { AtomicU32::from_ptr(self.region.as_ptr().add(offset).cast()) }
    }

    fn u64_at(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: inside the region, aligned, and only accessed as an atomic.
        unsafe { AtomicU64::from_ptr(self.region.as_ptr().add(offset).cast()) }
    }

    fn buffer_offset(&self, index: u16) -> usize {
        Self::buffers(self.size) + usize::from(index % self.size) * self.buffer_len
    }

    /// Copies `parts` into the buffer of descriptor `index`; false if they do not fit.
    #[must_use]
    pub(crate) fn fill(&self, index: u16, parts: &[&[u8]]) -> bool {
        if parts.iter().map(|p| p.len()).sum::<usize>() > self.buffer_len {
            return false;
        }
        let mut at = self.buffer_offset(index);
        for part in parts {
            // SAFETY: the sum of the lengths fits, and the device does not write a
            // buffer that it was not given.
            unsafe {
                let to = self.region.as_ptr().add(at);
                std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
            }
            at += part.len();
        }
        true
    }

    /// Copies the start of the buffer of descriptor `index`, at most `len` bytes.
    pub(crate) fn copy_out(&self, index: u16, to: &mut [u8]) {
        let len = to.len().min(self.buffer_len);
        // SAFETY: inside the region; a device that still writes spoils only the copy.
        unsafe {
            let from = self.region.as_ptr().add(self.buffer_offset(index));
            std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), len);
        }
    }

    /// Sets descriptor `index` to its own buffer.
    pub(crate) fn describe(&self, index: u16, len: usize, flags: u16, next: u16) {
        let at = usize::from(index % self.size) * DESC;
        let addr = (self.region.offset() + self.buffer_offset(index)) as u64;
        let rest =
            (len.min(self.buffer_len) as u64) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.u64_at(at).store(addr, Ordering::Relaxed);
        self.u64_at(at + 8).store(rest, Ordering::Relaxed);
    }

    /// Makes the chain that begins at `head` available.
    pub(crate) fn publish(&mut self, head: u16) {
        let slot = usize::from(self.next_avail % self.size);
        let avail = Self::avail(self.size);
        self.u16_at(avail + 4 + 2 * slot)
            .store(head, Ordering::Relaxed);
        self.next_avail = self.next_avail.wrapping_add(1);
        self.u16_at(avail + 2)
            .store(self.next_avail, Ordering::Release);
    }

    /// Kicks the device, unless it said that it looks by itself.
    pub(crate) fn notify(&self) {
        // The index must be visible before the flag is read (VIRTIO 2.7.13.3.1).
        fence(Ordering::SeqCst);
        if self.u16_at(Self::used(self.size)).load(Ordering::Relaxed) & NO_NOTIFY == 0 {
            // A full counter wakes the device all the same.
            let _ = self.kick.write(1);
        }
    }

    /// Says whether used buffers are to be signalled.
    pub(crate) fn want_calls(&self, wanted: bool) {
        let flags = if wanted { 0 } else { NO_INTERRUPT };
        self.u16_at(Self::avail(self.size))
            .store(flags, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Takes the next used element: the head of its chain and the bytes written.
    pub(crate) fn pop(&mut self) -> Option<(u16, u32)> {
        let used = Self::used(self.size);
        if self.u16_at(used + 2).load(Ordering::Acquire) == self.next_used {
            return None;
        }
        let at = used + 4 + 8 * usize::from(self.next_used % self.size);
        self.next_used = self.next_used.wrapping_add(1);
        let head = self.u32_at(at).load(Ordering::Relaxed);
        let len = self.u32_at(at + 4).load(Ordering::Relaxed);
        Some(((head % u32::from(self.size)) as u16, len))
    }

    /// Used elements that wait to be taken.
    pub(crate) fn waiting(&self) -> u16 {
        let idx = self
            .u16_at(Self::used(self.size) + 2)
            .load(Ordering::Acquire);
        idx.wrapping_sub(self.next_used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_of_a_ring_are_apart_and_aligned() {
        for size in [1u16, 2, 8, 256, 1024] {
            let (avail, used) = (Vring::avail(size), Vring::used(size));
            let buffers = Vring::buffers(size);
            assert!(avail >= usize::from(size) * 16);
            assert!(used >= avail + 6 + 2 * usize::from(size) && used.is_multiple_of(4));
            assert!(buffers >= used + 6 + 8 * usize::from(size) && buffers.is_multiple_of(64));
        }
    }
}
