//! Write protection of pages while they move, by userfaultfd.
//!
//! Threads that store to a protected page sleep in the kernel, and retry when woken: by then the
//! page's replacement is mapped. Nobody reads the descriptor, so nothing needs a helper thread.
//! It is opened for each move and closed after: closing wakes everyone and ends all protection,
//! whatever went wrong before.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use crate::span::Span;
use crate::sys::{self, Errno, SysResult};

/// How well stores of other threads are guarded during a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreGuard {
    /// Stores by programs and by the kernel (system calls in flight) both wait.
    Full,
    /// Stores by programs wait; a system call that writes to the page just then fails with EFAULT.
    UserMode,
    /// Neither waits: a store during the copy of its page may be lost.
    None,
}

#[derive(Clone, Copy)]
enum Source {
    SystemCall { flags: i32 },
    Device,
}

#[derive(Clone, Copy)]
struct Support {
    source: Source,
    guard: StoreGuard,
    features: u64,
}

/// An open userfaultfd.
pub(crate) struct Uffd {
    fd: OwnedFd,
    features: u64,
}

static SUPPORT: OnceLock<Option<Support>> = OnceLock::new();

/// What this process may use; asked of the kernel once.
fn support() -> Option<Support> {
    *SUPPORT.get_or_init(|| {
        [
            (
                Source::SystemCall {
                    flags: libc::O_CLOEXEC,
                },
                StoreGuard::Full,
            ),
            (Source::Device, StoreGuard::Full),
            (
                Source::SystemCall {
                    flags: libc::O_CLOEXEC | USER_MODE_ONLY,
                },
                StoreGuard::UserMode,
            ),
        ]
        .into_iter()
        .find_map(|(source, guard)| {
            let fd = open(source).ok()?;
            let mut api = Api {
                api: UFFD_API,
                ..Api::default()
            };
            control(&fd, UFFDIO_API, &mut api).ok()?;
            (api.features & FEATURE_WRITE_PROTECT != 0).then_some(Support {
                source,
                guard,
                features: api.features,
            })
        })
    })
}

/// How well this process guards stores of its other threads during a move.
pub(crate) fn store_guard() -> StoreGuard {
    support().map_or(StoreGuard::None, |support| support.guard)
}

fn open(source: Source) -> SysResult<OwnedFd> {
    match source {
        Source::SystemCall { flags } => sys::userfaultfd(flags),
        Source::Device => {
            let device = sys::open(c"/dev/userfaultfd", libc::O_RDWR)?;
            sys::ioctl_new_fd(device.as_fd(), IOC_NEW, libc::O_CLOEXEC as usize)
        }
    }
}

impl Uffd {
    /// None where the kernel or a filter denies it for good. An error, such as a lack of
    /// descriptors, is no reason to move without a guard.
    pub(crate) fn open() -> SysResult<Option<Self>> {
        let Some(support) = support() else {
            return Ok(None);
        };
        let features = support.features & (FEATURE_WRITE_PROTECT | FEATURE_SHMEM | FEATURE_EMPTY);
        let fd = open(support.source)?;
        let mut api = Api {
            api: UFFD_API,
            features,
            ioctls: 0,
        };
        control(&fd, UFFDIO_API, &mut api)?;
        Ok(Some(Self { fd, features }))
    }

    /// Whether shared memory can be protected too.
    pub(crate) fn covers_shared(&self) -> bool {
        self.features & FEATURE_SHMEM != 0
    }

    /// Makes `span` protectable. EBUSY: the program itself serves its faults.
    pub(crate) fn watch(&self, span: Span) -> SysResult<()> {
        let mut register = Register {
            start: span.start as u64,
            len: span.len() as u64,
            mode: 2,
            ioctls: 0,
        };
        control(&self.fd, UFFDIO_REGISTER, &mut register)
    }

    /// From here on stores to `span` wait.
    pub(crate) fn protect(&self, span: Span) -> SysResult<()> {
        if self.features & FEATURE_EMPTY == 0 {
            // Without that feature a page that is not there yet would escape the protection.
            sys::advise(span, libc::MADV_POPULATE_READ)?;
        }
        self.write_protect(span, 1)
    }

    /// Takes the protection back and wakes who waits.
    pub(crate) fn unprotect(&self, span: Span) {
        let _ = self.write_protect(span, 0);
    }

    fn write_protect(&self, span: Span, mode: u64) -> SysResult<()> {
        loop {
            let mut request = WriteProtect {
                start: span.start as u64,
                len: span.len() as u64,
                mode,
            };
            match control(&self.fd, UFFDIO_WRITEPROTECT, &mut request) {
                // The mappings change under it, in another thread.
                Err(Errno(libc::EAGAIN)) => {}
                other => return other,
            }
        }
    }

    /// Wakes whoever waits for a page of `span`, whose mapping has been replaced.
    pub(crate) fn wake(&self, span: Span) {
        let mut range = Range {
            start: span.start as u64,
            len: span.len() as u64,
        };
        let _ = control(&self.fd, UFFDIO_WAKE, &mut range);
    }
}

#[allow(unsafe_code)] // ioctls with the structures below
fn control<T>(fd: &OwnedFd, request: u64, arg: &mut T) -> SysResult<()> {
    // SAFETY: each request above is paired with its structure; they change protections only.
    unsafe { sys::ioctl(fd.as_fd(), request, arg) }.map(drop)
}

#[repr(C)]
#[derive(Default)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct WriteProtect {
    start: u64,
    len: u64,
    mode: u64,
}

// linux/userfaultfd.h
const UFFD_API: u64 = 0xAA;
const USER_MODE_ONLY: i32 = 1;
const FEATURE_WRITE_PROTECT: u64 = 1 << 0;
/// Shared memory can be write-protected (5.19).
const FEATURE_SHMEM: u64 = 1 << 12;
/// Pages that are not there yet can be write-protected (6.4).
const FEATURE_EMPTY: u64 = 1 << 13;

const fn request(direction: u64, number: u64, size: usize) -> u64 {
    (direction << 30) | ((size as u64) << 16) | (UFFD_API << 8) | number
}

const UFFDIO_API: u64 = request(3, 0x3F, size_of::<Api>());
const UFFDIO_REGISTER: u64 = request(3, 0x00, size_of::<Register>());
const UFFDIO_WAKE: u64 = request(2, 0x02, size_of::<Range>());
const UFFDIO_WRITEPROTECT: u64 = request(3, 0x06, size_of::<WriteProtect>());
/// `USERFAULTFD_IOC_NEW`
const IOC_NEW: u64 = request(0, 0x00, 0);
