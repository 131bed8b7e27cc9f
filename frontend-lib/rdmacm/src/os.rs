//! What the system is asked about descriptors, errno and fork.
#![allow(unsafe_code, reason = "system calls")]

use crate::table::{self, Held};
use std::cell::RefCell;
use std::os::fd::RawFd;
use std::sync::Once;

/// What a descriptor leads to, as far as a stranger can be told from an eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    mode: u32,
}

/// What `fd` leads to; `None` if it is closed.
pub(crate) fn identity(fd: RawFd) -> Option<Identity> {
    // SAFETY: all zeros are a value of it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a structure of the right type.
    let done = unsafe { libc::fstat(fd, &mut stat) };
    (done == 0).then_some(Identity {
        device: stat.st_dev,
        inode: stat.st_ino,
        mode: stat.st_mode,
    })
}

/// Gives a new descriptor, which is close-on-exec and blocking, the flags of `open`.
pub(crate) fn apply_open_flags(fd: RawFd, flags: i32) {
    // SAFETY: no pointers.
    unsafe {
        if flags & libc::O_CLOEXEC == 0 {
            libc::fcntl(fd, libc::F_SETFD, 0);
        }
        if flags & libc::O_NONBLOCK != 0 {
            libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
        }
    }
}

/// Whether `fd` is open.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: no pointers.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Whether reading `fd` never sleeps.
pub(crate) fn is_nonblocking(fd: RawFd) -> bool {
    // SAFETY: no pointers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_NONBLOCK != 0
}

/// Sets errno.
pub(crate) fn set_errno(value: i32) {
    // SAFETY: the location is this thread's own.
    unsafe { *libc::__errno_location() = value }
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

extern "C" fn before_fork() {
    let held = table::hold();
    // A thread that forks from its last destructors holds no lock over the fork.
    let _ = HELD.try_with(|slot| slot.replace(Some(held)));
}

extern "C" fn after_fork() {
    let _ = HELD.try_with(|slot| slot.take());
}

/// Has the locks held over forks. To be called after the handlers of registered memory
/// are installed: those take their locks later then, as sessions do.
pub(crate) fn install_fork_handlers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: functions that live as long as the library, which is never unloaded.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) };
    });
}
