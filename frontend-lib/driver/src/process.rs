//! Which process this is, without a system call.
#![allow(
    unsafe_code,
    reason = "a page that the kernel clears in forked children"
)]

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The id of this process. It is kept on a page that every kind of fork gives the child
/// cleared, so that a child, however it was made, asks anew.
pub fn process_id() -> u32 {
    let Some(kept) = kept() else {
        return std::process::id();
    };
    match kept.load(Ordering::Relaxed) {
        0 => {
            let id = std::process::id();
            kept.store(id, Ordering::Relaxed);
            id
        }
        id => id,
    }
}

/// The page; `None` where the kernel cannot do that (before Linux 4.14).
fn kept() -> Option<&'static AtomicU32> {
    static PAGE: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: a new mapping of at least one page, which is never unmapped.
        unsafe {
            let page = libc::mmap(
                std::ptr::null_mut(),
                size_of::<AtomicU32>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if page == libc::MAP_FAILED {
                return None;
            }
            if libc::madvise(page, size_of::<AtomicU32>(), libc::MADV_WIPEONFORK) != 0 {
                libc::munmap(page, size_of::<AtomicU32>());
                return None;
            }
            Some(NonNull::new(page)?.cast::<AtomicU32>().as_ref())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_is_another_process() {
        assert_eq!(process_id(), std::process::id());
        // SAFETY: the child makes system calls and loads only, and ends.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                let differs = process_id() == libc::getpid() as u32;
                libc::_exit(i32::from(!differs));
            }
            let mut status = 0;
            libc::waitpid(child, &mut status, 0);
            assert_eq!(status, 0, "the child took itself for its parent");
        }
        assert_eq!(process_id(), std::process::id());
    }
}
