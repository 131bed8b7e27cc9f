//! Whether userfaultfd may be used.
#![allow(unsafe_code)] // userfaultfd(2)

use rustix::mm::UserfaultfdFlags;

/// What faults the descriptor would see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Those of the kernel too.
    Full,
    /// Those of programs only (UFFD_USER_MODE_ONLY).
    User,
}

/// Opens a descriptor and closes it at once.
pub(super) fn opens(mode: Mode) -> bool {
    let flags = match mode {
        Mode::Full => UserfaultfdFlags::CLOEXEC,
        // A flag that the crate has no name for.
        Mode::User => UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::from_bits_retain(1),
    };
    // SAFETY: no range is registered with the descriptor, so it changes nothing.
    unsafe { rustix::mm::userfaultfd(flags) }.is_ok()
}
