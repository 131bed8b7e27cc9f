//! System calls, made without libc's wrappers.
//!
//! Middleware patches the `mmap`, `munmap`, `mremap` and `madvise` entries of every library to
//! invalidate its registration caches; a mapping made from inside a verb must not call it back.
//! So everything here goes through `syscall(2)` itself. Nothing here allocates: callers run while
//! pages of the program are write-protected.
#![allow(unsafe_code)] // the whole purpose: each call below states its own reason

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::RegError;
use crate::span::Span;

/// An errno value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

pub(crate) type SysResult<T> = Result<T, Errno>;

impl Errno {
    pub(crate) fn during(self, call: &'static str) -> RegError {
        RegError::System {
            call,
            errno: self.0,
        }
    }
}

fn check(ret: libc::c_long) -> SysResult<usize> {
    if ret == -1 {
        // SAFETY: errno of this thread is always readable.
        return Err(Errno(unsafe { *libc::__errno_location() }));
    }
    // Addresses and counts come back as the same bits.
    Ok(ret as usize)
}

fn check_fd(ret: libc::c_long) -> SysResult<OwnedFd> {
    let fd = check(ret)?;
    // SAFETY: the kernel just gave us this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

pub(crate) fn page_size() -> usize {
    // SAFETY: takes no pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

// --- mappings ---------------------------------------------------------------------------------

/// New private anonymous memory anywhere.
pub(crate) fn map_anon(len: usize, prot: i32, extra_flags: i32) -> SysResult<Span> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | extra_flags;
    // SAFETY: without MAP_FIXED the kernel picks free addresses; no existing memory changes.
    let start =
        check(unsafe { libc::syscall(libc::SYS_mmap, 0usize, len, prot, flags, -1isize, 0usize) })?;
    Ok(Span::new(start, start + len))
}

/// Memory that stays common to this process and the child it is about to fork.
fn map_shared_anon(len: usize) -> SysResult<Span> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: without MAP_FIXED the kernel picks free addresses; no existing memory changes.
    let start =
        check(unsafe { libc::syscall(libc::SYS_mmap, 0usize, len, prot, flags, -1isize, 0usize) })?;
    Ok(Span::new(start, start + len))
}

/// Maps `fd` shared somewhere.
fn map_file(fd: BorrowedFd<'_>, len: usize, offset: usize) -> SysResult<Span> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: without MAP_FIXED the kernel picks free addresses; no existing memory changes.
    let start = check(unsafe {
        libc::syscall(
            libc::SYS_mmap,
            0usize,
            len,
            prot,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            offset,
        )
    })?;
    Ok(Span::new(start, start + len))
}

/// Replaces `span` by a shared mapping of `fd` at the same offset as its address.
///
/// # Safety
/// `span` must be whole pages whose contents the file already holds, or memory that the caller
/// owns.
pub(crate) unsafe fn map_file_over(fd: BorrowedFd<'_>, span: Span, prot: i32) -> SysResult<()> {
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    // SAFETY: the caller answers for what was mapped there.
    check(unsafe {
        libc::syscall(
            libc::SYS_mmap,
            span.start,
            span.len(),
            prot,
            flags,
            fd.as_raw_fd(),
            span.start,
        )
    })
    .map(drop)
}

/// Replaces `span` by inaccessible memory, which nothing else can then be mapped into by chance.
///
/// # Safety
/// The caller owns `span`, or nobody may use it any more.
pub(crate) unsafe fn map_none_over(span: Span) -> SysResult<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the caller answers for what was mapped there.
    check(unsafe {
        libc::syscall(
            libc::SYS_mmap,
            span.start,
            span.len(),
            libc::PROT_NONE,
            flags,
            -1isize,
            0usize,
        )
    })
    .map(drop)
}

/// Moves the pages at `from` to `to`, replacing what is mapped there, in one step.
///
/// # Safety
/// The caller owns `from`; `to` must be pages whose contents `from` already holds.
pub(crate) unsafe fn remap_over(from: Span, to: usize) -> SysResult<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: the caller answers for both ranges.
    check(unsafe {
        libc::syscall(
            libc::SYS_mremap,
            from.start,
            from.len(),
            from.len(),
            flags,
            to,
        )
    })
    .map(drop)
}

/// A mapping that nobody but its owner knows, gone when dropped.
pub(crate) struct OwnMapping(Span);

impl OwnMapping {
    pub(crate) fn new(len: usize) -> SysResult<Self> {
        map_anon(len, libc::PROT_READ | libc::PROT_WRITE, 0).map(Self)
    }

    /// A second view of the file at `part`.
    pub(crate) fn view(fd: BorrowedFd<'_>, part: Span) -> SysResult<Self> {
        map_file(fd, part.len(), part.start).map(Self)
    }

    pub(crate) fn span(&self) -> Span {
        self.0
    }
}

impl Drop for OwnMapping {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the mapping.
        unsafe { unmap(self.0) };
    }
}

/// # Safety
/// The caller owns `span` and uses it no more.
pub(crate) unsafe fn unmap(span: Span) {
    if !span.is_empty() {
        // SAFETY: the caller owns the range. It cannot fail but for lack of mapping slots, and
        // then the range merely stays reserved.
        unsafe { libc::syscall(libc::SYS_munmap, span.start, span.len()) };
    }
}

/// Changes the protection of memory that this crate made and the program does not see yet.
pub(crate) fn protect(span: Span, prot: i32) -> SysResult<()> {
    // SAFETY: used on temporary mappings of this crate only; a protection changes no contents.
    check(unsafe { libc::syscall(libc::SYS_mprotect, span.start, span.len(), prot) }).map(drop)
}

/// Advice that never changes contents (see [`crate::vmflags`]), or a populate request.
pub(crate) fn advise(span: Span, advice: i32) -> SysResult<()> {
    debug_assert!(advice != libc::MADV_DONTNEED && advice != libc::MADV_REMOVE);
    // SAFETY: the callers' advice values change neither contents nor protection.
    check(unsafe { libc::syscall(libc::SYS_madvise, span.start, span.len(), advice) }).map(drop)
}

/// Whether all of `span`, whole pages, is mapped.
pub(crate) fn is_mapped(span: Span) -> bool {
    // SAFETY: MS_ASYNC starts nothing; the call says ENOMEM for a hole.
    check(unsafe { libc::syscall(libc::SYS_msync, span.start, span.len(), libc::MS_ASYNC) }).is_ok()
}

pub(crate) fn lock_pages(span: Span, on_fault: bool) -> SysResult<()> {
    let flags = if on_fault { libc::MLOCK_ONFAULT } else { 0 };
    // SAFETY: locking changes no contents.
    check(unsafe { libc::syscall(libc::SYS_mlock2, span.start, span.len(), flags) }).map(drop)
}

// --- NUMA policy ------------------------------------------------------------------------------

const MAX_NODES: usize = 1024;
const MPOL_F_ADDR: usize = 1 << 1;

/// A NUMA memory policy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct NumaPolicy {
    mode: i32,
    nodes: [u64; MAX_NODES / 64],
}

impl NumaPolicy {
    pub(crate) const DEFAULT: Self = Self {
        mode: libc::MPOL_DEFAULT,
        nodes: [0; MAX_NODES / 64],
    };

    /// The node that the thread runs on.
    pub(crate) const LOCAL: Self = Self {
        mode: libc::MPOL_LOCAL,
        nodes: [0; MAX_NODES / 64],
    };

    /// The policy of the mapping at `addr`; none where the kernel or a filter does not say.
    pub(crate) fn of(addr: usize) -> Option<Self> {
        let mut policy = Self::DEFAULT;
        // SAFETY: both pointers are to locals of the stated sizes; the address is only looked up.
        check(unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut policy.mode,
                policy.nodes.as_mut_ptr(),
                MAX_NODES,
                addr,
                MPOL_F_ADDR,
            )
        })
        .ok()?;
        Some(policy)
    }

    pub(crate) fn apply(&self, span: Span) -> SysResult<()> {
        let no_nodes = self.nodes.iter().all(|&word| word == 0);
        let nodes = if no_nodes {
            std::ptr::null()
        } else {
            self.nodes.as_ptr()
        };
        let max = if no_nodes { 0 } else { MAX_NODES };
        // SAFETY: the node mask is a local of MAX_NODES bits; a policy changes no contents.
        check(unsafe {
            libc::syscall(
                libc::SYS_mbind,
                span.start,
                span.len(),
                self.mode,
                nodes,
                max,
                0,
            )
        })
        .map(drop)
    }
}

// --- files ------------------------------------------------------------------------------------

/// Which file a descriptor or mapping is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) dev_major: u32,
    pub(crate) dev_minor: u32,
    pub(crate) inode: u64,
}

pub(crate) fn memfd(name: &CStr) -> SysResult<OwnedFd> {
    let base = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string.
    let create =
        |flags: u32| unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags) };
    // Kernels before 6.3 do not know MFD_NOEXEC_SEAL.
    check_fd(create(base | libc::MFD_NOEXEC_SEAL)).or_else(|_| check_fd(create(base)))
}

/// Another descriptor of the same file, at `lowest` or above where the limit allows.
pub(crate) fn dup_above(fd: OwnedFd, lowest: i32) -> OwnedFd {
    // SAFETY: takes no pointers.
    let dup = unsafe {
        libc::syscall(
            libc::SYS_fcntl,
            fd.as_raw_fd(),
            libc::F_DUPFD_CLOEXEC,
            lowest,
        )
    };
    check_fd(dup).unwrap_or(fd)
}

/// Puts another file under the number of `old`.
pub(crate) fn replace_fd(old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> SysResult<()> {
    // SAFETY: takes no pointers; `old` stays a valid descriptor.
    check(unsafe {
        libc::syscall(
            libc::SYS_dup3,
            new.as_raw_fd(),
            old.as_raw_fd(),
            libc::O_CLOEXEC,
        )
    })
    .map(drop)
}

pub(crate) fn truncate(fd: BorrowedFd<'_>, len: usize) -> SysResult<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_ftruncate, fd.as_raw_fd(), len) }).map(drop)
}

pub(crate) fn add_seals(fd: BorrowedFd<'_>, seals: i32) -> SysResult<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_ADD_SEALS, seals) })
        .map(drop)
}

pub(crate) fn file_size_limited(below: usize) -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a local of the right type.
    let ret = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    ret == 0 && limit.rlim_cur != libc::RLIM_INFINITY && limit.rlim_cur < below as u64
}

/// The soft limit on the main stack, which is also the default size of a thread's stack.
pub(crate) fn stack_limit() -> Option<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a local of the right type.
    let ret = unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) };
    if ret != 0 || limit.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    usize::try_from(limit.rlim_cur).ok()
}

pub(crate) fn file_id(fd: BorrowedFd<'_>) -> SysResult<FileId> {
    // SAFETY: an all-zero stat is a valid value of plain integers.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a local of the right type.
    let ret = unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) };
    check(libc::c_long::from(ret))?;
    Ok(FileId {
        dev_major: libc::major(stat.st_dev),
        dev_minor: libc::minor(stat.st_dev),
        inode: stat.st_ino,
    })
}

/// Gives the range storage, charged to this process.
pub(crate) fn allocate(fd: BorrowedFd<'_>, span: Span) -> SysResult<()> {
    // SAFETY: takes no pointers.
    check(unsafe {
        libc::syscall(
            libc::SYS_fallocate,
            fd.as_raw_fd(),
            0,
            span.start,
            span.len(),
        )
    })
    .map(drop)
}

/// Gives the range's storage back; it then reads as zeroes.
pub(crate) fn punch(fd: BorrowedFd<'_>, span: Span) -> SysResult<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: takes no pointers.
    check(unsafe {
        libc::syscall(
            libc::SYS_fallocate,
            fd.as_raw_fd(),
            mode,
            span.start,
            span.len(),
        )
    })
    .map(drop)
}

/// Copies the memory at `span` into the file at the offset equal to its address.
pub(crate) fn write_from_memory(fd: BorrowedFd<'_>, span: Span) -> SysResult<()> {
    let mut at = span.start;
    while at < span.end {
        // SAFETY: the kernel only reads the range, and answers EFAULT where it cannot.
        let ret =
            unsafe { libc::syscall(libc::SYS_pwrite64, fd.as_raw_fd(), at, span.end - at, at) };
        match check(ret) {
            Ok(0) => return Err(Errno(libc::EIO)),
            Ok(done) => at += done,
            Err(Errno(libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Copies the file at `offset` into the memory at `to`.
///
/// # Safety
/// The caller owns `to`.
pub(crate) unsafe fn read_to_memory(fd: BorrowedFd<'_>, to: Span, offset: usize) -> SysResult<()> {
    let mut done = 0;
    while done < to.len() {
        // SAFETY: the caller owns the range written to.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_pread64,
                fd.as_raw_fd(),
                to.start + done,
                to.len() - done,
                offset + done,
            )
        };
        match check(ret) {
            Ok(0) => return Err(Errno(libc::EIO)),
            Ok(count) => done += count,
            Err(Errno(libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Copies memory to memory of the same length.
///
/// # Safety
/// The caller owns `to`; `from` is readable.
pub(crate) unsafe fn copy(from: Span, to: Span) {
    // SAFETY: the caller answers for both; they do not overlap, being two mappings.
    unsafe {
        std::ptr::copy_nonoverlapping(from.start as *const u8, to.start as *mut u8, to.len());
    }
}

pub(crate) fn open(path: &CStr, flags: i32) -> SysResult<OwnedFd> {
    // SAFETY: the path is a C string.
    check_fd(unsafe {
        libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags | libc::O_CLOEXEC,
            0,
        )
    })
}

pub(crate) fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> SysResult<usize> {
    loop {
        // SAFETY: the buffer is valid for its length.
        let ret =
            unsafe { libc::syscall(libc::SYS_read, fd.as_raw_fd(), buf.as_mut_ptr(), buf.len()) };
        match check(ret) {
            Err(Errno(libc::EINTR)) => {}
            other => return other,
        }
    }
}

pub(crate) fn write(fd: BorrowedFd<'_>, buf: &[u8]) -> SysResult<usize> {
    // SAFETY: the buffer is valid for its length.
    check(unsafe { libc::syscall(libc::SYS_write, fd.as_raw_fd(), buf.as_ptr(), buf.len()) })
}

pub(crate) fn rewind(fd: BorrowedFd<'_>) -> SysResult<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_lseek, fd.as_raw_fd(), 0, libc::SEEK_SET) }).map(drop)
}

pub(crate) fn read_directory(fd: BorrowedFd<'_>, buf: &mut [u8]) -> SysResult<usize> {
    // SAFETY: the buffer is valid for its length.
    check(unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            fd.as_raw_fd(),
            buf.as_mut_ptr(),
            buf.len(),
        )
    })
}

/// An ioctl whose argument is a C structure of plain integers.
///
/// # Safety
/// `request` must be one whose argument is exactly `T`, and what it does to memory must be the
/// caller's to do.
pub(crate) unsafe fn ioctl<T>(fd: BorrowedFd<'_>, request: u64, arg: &mut T) -> SysResult<usize> {
    // SAFETY: the argument is a valid, exclusive reference of the request's type.
    check(unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            fd.as_raw_fd(),
            request,
            std::ptr::from_mut(arg),
        )
    })
}

/// An ioctl that takes a number and returns a descriptor.
pub(crate) fn ioctl_new_fd(fd: BorrowedFd<'_>, request: u64, arg: usize) -> SysResult<OwnedFd> {
    // SAFETY: takes no pointers.
    check_fd(unsafe { libc::syscall(libc::SYS_ioctl, fd.as_raw_fd(), request, arg) })
}

pub(crate) fn userfaultfd(flags: i32) -> SysResult<OwnedFd> {
    // SAFETY: takes no pointers.
    check_fd(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })
}

pub(crate) fn pipe() -> SysResult<(OwnedFd, OwnedFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    // SAFETY: the pointer is to two integers.
    check(unsafe { libc::syscall(libc::SYS_pipe2, fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let [read, write] = fds;
    // SAFETY: the kernel just gave us both.
    Ok(unsafe { (OwnedFd::from_raw_fd(read), OwnedFd::from_raw_fd(write)) })
}

/// Waits until `fd` is readable or hung up; false when `millis` pass first.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, millis: i32) -> bool {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd is given.
    unsafe { libc::poll(&raw mut poll, 1, millis) > 0 }
}

// --- threads ----------------------------------------------------------------------------------

/// Where the thread `tid` keeps its list of robust mutexes: inside its thread descriptor, which
/// the C library lays at the top of the thread's stack.
pub(crate) fn robust_list_of(tid: i32) -> Option<usize> {
    let mut head = 0usize;
    let mut len = 0usize;
    // SAFETY: both pointers are to locals.
    check(unsafe { libc::syscall(libc::SYS_get_robust_list, tid, &raw mut head, &raw mut len) })
        .ok()?;
    (head != 0).then_some(head)
}

/// Two words of this process's memory; `None` if they cannot be read.
pub(crate) fn read_own_words(addr: usize) -> Option<[usize; 2]> {
    let mut words = [0usize; 2];
    let to = libc::iovec {
        iov_base: words.as_mut_ptr().cast(),
        iov_len: size_of_val(&words),
    };
    let from = libc::iovec {
        iov_base: addr as *mut libc::c_void,
        iov_len: size_of_val(&words),
    };
    // SAFETY: the kernel checks both sides; `words` takes that many bytes.
    let n = unsafe { libc::process_vm_readv(libc::getpid(), &to, 1, &from, 1, 0) };
    (n == size_of_val(&words) as isize).then_some(words)
}

/// Asks the kernel, to say whether this thread is the process's main thread.
pub(crate) fn process_id() -> i32 {
    // SAFETY: takes no pointers.
    unsafe { libc::syscall(libc::SYS_getpid) as i32 }
}

const SIGSET_BYTES: usize = 8;

/// All signals of this thread are held back while this lives: a handler that ran on the moving
/// thread could touch a page that only this thread can unprotect, or call fork under its lock.
pub(crate) struct SignalsBlocked {
    old: u64,
}

impl SignalsBlocked {
    pub(crate) fn new() -> Self {
        let all = u64::MAX;
        let mut old = 0u64;
        // The C library's wrapper leaves its two internal signals unblocked; this does not.
        // SAFETY: both masks are of SIGSET_BYTES.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const all,
                &raw mut old,
                SIGSET_BYTES,
            )
        };
        Self { old }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the mask is of SIGSET_BYTES.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const self.old,
                0usize,
                SIGSET_BYTES,
            )
        };
    }
}

/// Registers process-wide fork handlers.
pub(crate) fn at_fork(
    prepare: unsafe extern "C" fn(),
    parent: unsafe extern "C" fn(),
    child: unsafe extern "C" fn(),
) -> SysResult<()> {
    // SAFETY: the handlers are static functions of this library, which the C library forgets when
    // the library is unloaded.
    match unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) } {
        0 => Ok(()),
        error => Err(Errno(error)),
    }
}

/// A flag that stays common to this process and the children it forks.
pub(crate) struct SharedFlag {
    page: Span,
}

impl SharedFlag {
    pub(crate) fn new() -> SysResult<Self> {
        Ok(Self {
            page: map_shared_anon(page_size())?,
        })
    }

    fn atomic(&self) -> &AtomicU32 {
        // SAFETY: the page is readable, writable and aligned, and lives as long as `self`.
        unsafe { &*(self.page.start as *const AtomicU32) }
    }

    pub(crate) fn set(&self) {
        self.atomic().store(1, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.atomic().load(Ordering::Acquire) == 1
    }
}

impl Drop for SharedFlag {
    fn drop(&mut self) {
        // SAFETY: the page is ours, and `self` was its only user in this process.
        unsafe { unmap(self.page) };
    }
}
