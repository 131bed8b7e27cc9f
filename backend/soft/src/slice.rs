//! The scheduling slice of a thread (`sched_setattr(2)`, Linux 6.12 on).
#![allow(unsafe_code)] // a system call that no crate wraps

use std::io;
use std::time::Duration;

/// `struct sched_attr`, first version.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks for slices of this length for the calling thread; its nice value stays.
pub(crate) fn set(slice: Duration) -> io::Result<()> {
    // SCHED_FLAG_KEEP_PARAMS would keep the slice too, so the value is read.
    // SAFETY: no memory is passed.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        nice,
        runtime: slice.as_nanos() as u64,
        ..SchedAttr::default()
    };
    // SAFETY: the structure is of the size that it says, and is only read.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
