//! The doorbell page (SPEC clause 5), mapped from the backend.
#![allow(unsafe_code, reason = "memory that the device reads and writes")]

use masq_spec::doorbell::{ARMED, BITMAP, MAX_SLOTS, PAGE_LEN, SUMMARY};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use vmm_sys_util::eventfd::EventFd;

#[derive(Debug)]
struct Page(*mut u8);

// SAFETY: the page is only accessed through atomics.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped by `Doorbell::map` with this length; nobody holds it now.
        unsafe { libc::munmap(self.0.cast(), PAGE_LEN) };
    }
}

/// Tells the device of work on a send queue.
#[derive(Clone, Debug)]
pub struct Doorbell {
    page: Arc<Page>,
    kick: Arc<EventFd>,
}

impl Doorbell {
    /// Maps the page that `fd` holds at `offset`.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: u64, kick: Arc<EventFd>) -> io::Result<Self> {
        let offset = i64::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new shared mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = Arc::new(Page(at.cast()));
        Ok(Self { page, kick })
    }

    fn u64_at(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset + 8 <= PAGE_LEN);
        // SAFETY: `offset` is inside the page and a multiple of 8.
        unsafe { AtomicU64::from_ptr(self.page.0.add(offset).cast()) }
    }

    /// Whether the device wants a kick, which the caller then gives: of all who see it
    /// asleep, only one.
    fn take_armed(&self) -> bool {
        // SAFETY: inside the page, aligned.
        let word = unsafe { AtomicU32::from_ptr(self.page.0.add(ARMED).cast()) };
        word.load(Ordering::Relaxed) == 1 && word.swap(0, Ordering::AcqRel) == 1
    }

    /// Rings for doorbell slot `slot` after work was published on its queue. A system
    /// call happens only if the device sleeps.
    #[inline]
    pub fn ring(&self, slot: u32) {
        let slot = slot % MAX_SLOTS;
        let (word, bit) = ((slot / 64) as usize, 1u64 << (slot % 64));
        // The published work before the test of the bit: a device that clears the bit
        // looks at the queue afterwards.
        fence(Ordering::SeqCst);
        let bitmap = self.u64_at(BITMAP + word * 8);
        if bitmap.load(Ordering::Relaxed) & bit == 0
            && bitmap.fetch_or(bit, Ordering::AcqRel) & bit == 0
        {
            let summary = self.u64_at(SUMMARY + word / 64 * 8);
            summary.fetch_or(1 << (word % 64), Ordering::AcqRel);
        }
        // The bit before the test of the arming, for a device that falls asleep now.
        fence(Ordering::SeqCst);
        if self.take_armed() {
            let _ = self.kick.write(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsFd as _, FromRawFd as _};
    use std::os::unix::fs::FileExt as _;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    fn armed(page: &File) -> u32 {
        let mut word = [0; 4];
        page.read_exact_at(&mut word, ARMED as u64).unwrap();
        u32::from_ne_bytes(word)
    }

    #[test]
    fn of_many_posts_to_a_device_that_sleeps_the_first_kicks() {
        // SAFETY: a plain system call with a constant name.
        let fd = unsafe { libc::memfd_create(c"doorbell".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: just made, and owned by nobody else.
        let page = unsafe { File::from_raw_fd(fd) };
        page.set_len(PAGE_LEN as u64).unwrap();
        let kick = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let doorbell = Doorbell::map(page.as_fd(), 0, Arc::clone(&kick)).unwrap();

        doorbell.ring(3);
        assert!(kick.read().is_err(), "nobody sleeps");

        for _ in 0..2 {
            page.write_all_at(&1u32.to_ne_bytes(), ARMED as u64)
                .unwrap();
            for slot in 0..5 {
                doorbell.ring(slot);
            }
            assert_eq!(armed(&page), 0);
            assert_eq!(kick.read().unwrap(), 1);
        }
    }
}
