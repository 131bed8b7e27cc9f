//! The doorbell page: device memory, mapped into the driver (SPEC clause 5).
#![allow(unsafe_code)] // mmap, atomics at raw pointers

use crate::MemoryError;
use masq_spec::doorbell::{ARMED, BITMAP, BITMAP_WORDS, PAGE_LEN, SUMMARY, SUMMARY_WORDS};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// A doorbell page and the sealed memfd that a driver maps.
#[derive(Debug)]
pub struct DoorbellPage {
    fd: OwnedFd,
    base: NonNull<u8>,
}

// SAFETY: the page is only reached through atomics.
unsafe impl Send for DoorbellPage {}
// SAFETY: as above.
unsafe impl Sync for DoorbellPage {}

impl DoorbellPage {
    /// Makes a zeroed page.
    ///
    /// # Errors
    /// [`MemoryError::Host`] if the host is out of descriptors or memory.
    pub fn new() -> Result<Self, MemoryError> {
        let host = MemoryError::host;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("masq-doorbell", flags).map_err(host("make a doorbell page"))?;
        ftruncate(&fd, PAGE_LEN as u64).map_err(host("size a doorbell page"))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&fd, seals).map_err(host("seal a doorbell page"))?;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                PAGE_LEN,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                &fd,
                0,
            )
        }
        .map_err(host("map a doorbell page"))?;
        let base = NonNull::new(base.cast()).ok_or(MemoryError::BadFile("mapped at zero"))?;
        Ok(Self { fd, base })
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset + 8 <= PAGE_LEN && offset.is_multiple_of(8));
        // SAFETY: aligned, inside the page, mapped as long as self.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// Says whether the device sleeps and wants a kick.
    #[inline]
    pub fn set_armed(&self, armed: bool) {
        // SAFETY: aligned, inside the page, mapped as long as self.
        let cell = unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(ARMED).cast()) };
        cell.store(u32::from(armed), Ordering::SeqCst);
    }

    /// Whether any slot may be rung; a load of one cache line.
    #[inline]
    pub fn is_rung(&self) -> bool {
        (0..SUMMARY_WORDS).any(|i| self.word(SUMMARY + i * 8).load(Ordering::Relaxed) != 0)
    }

    /// Takes the bits that are set among the first `slots` and calls `ring` with
    /// each slot. Others are left alone: bits without a queue pair cost a
    /// hostile driver's tenant nothing to set, and the device little to skip.
    #[inline]
    pub fn take(&self, slots: u32, mut ring: impl FnMut(u32)) {
        let end = (slots as usize).div_ceil(64).min(BITMAP_WORDS);
        for s in 0..SUMMARY_WORDS {
            let cell = self.word(SUMMARY + s * 8);
            if cell.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut words = cell.swap(0, Ordering::SeqCst);
            while words != 0 {
                let word = s * 64 + words.trailing_zeros() as usize;
                words &= words - 1;
                if word >= end {
                    break;
                }
                let mut bits = self.word(BITMAP + word * 8).swap(0, Ordering::SeqCst);
                // A driver that still saw its bit set has published its stamps.
                fence(Ordering::SeqCst);
                while bits != 0 {
                    ring((word * 64) as u32 + bits.trailing_zeros());
                    bits &= bits - 1;
                }
            }
        }
    }

    /// Sets the bit of `slot`, as a driver does; for tests and simulations.
    pub fn ring(&self, slot: u32) -> bool {
        let word = slot as usize / 64;
        if word >= BITMAP_WORDS {
            return false;
        }
        self.word(BITMAP + word * 8)
            .fetch_or(1 << (slot % 64), Ordering::SeqCst);
        self.word(SUMMARY + word / 64 * 8)
            .fetch_or(1 << (word % 64), Ordering::SeqCst);
        // SAFETY: aligned, inside the page, mapped as long as self.
        let armed = unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(ARMED).cast()) };
        armed.load(Ordering::SeqCst) != 0
    }
}

impl AsFd for DoorbellPage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for DoorbellPage {
    fn drop(&mut self) {
        // SAFETY: the page owns the mapping.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), PAGE_LEN) };
    }
}
