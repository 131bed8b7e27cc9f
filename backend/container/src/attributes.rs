//! mount_setattr(2), which no crate of ours wraps.
#![allow(unsafe_code)] // A system call by number, with a structure that lives on the stack.

use rustix::fd::{AsFd, AsRawFd as _};
use rustix::mount::MountAttrFlags;
use std::io;
use std::mem::size_of;

/// Sets `flags` on the one mount `mount`, detached or not, and makes it private: nothing
/// is mounted into it from elsewhere.
pub(crate) fn set(mount: impl AsFd, flags: MountAttrFlags) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: flags.bits().into(),
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string, the structure is initialised, of the size that is
    // said, and only read; both outlive the call. The descriptor is borrowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
