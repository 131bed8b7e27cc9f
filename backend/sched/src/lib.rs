//! How masqd's threads share the cores with programs that poll.
#![allow(unsafe_code)] // sched_setattr, which no crate wraps

/// The shortest that Linux grants.
const SLICE_NS: u64 = 100_000;

/// `struct sched_attr`, its first version.
#[repr(C)]
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

/// Asks for a short scheduling slice for the calling thread, which does little and
/// then sleeps. Since Linux 6.12 such a thread, once woken, need not wait until a
/// program that polls memory without yielding has used up its own slice; older
/// kernels refuse or ignore it. It is the same share of the core, in smaller pieces.
pub fn shorten_slice() {
    let mut attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: 0,
        flags: 0,
        nice: 0,
        priority: 0,
        runtime: 0,
        deadline: 0,
        period: 0,
    };
    let size = attr.size;
    // SAFETY: both calls get a structure of the size that it names, for this
    // thread (0); the first fills it in, so that the second keeps the rest.
    unsafe {
        if libc::syscall(libc::SYS_sched_getattr, 0, &mut attr, size, 0) == 0 {
            attr.runtime = SLICE_NS;
            libc::syscall(libc::SYS_sched_setattr, 0, &attr, 0);
        }
    }
}
