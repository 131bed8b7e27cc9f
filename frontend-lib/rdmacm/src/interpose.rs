//! The functions that librdmacm calls in place of the C library's: those that reach its
//! device, and those by which it allocates what it registers.
//!
//! Threads may be cancelled in them where they could be in the C library: `C-unwind`,
//! and no destructor is pending around a call that may block.
#![allow(
    unsafe_code,
    reason = "C functions, and calls of those that they replace"
)]

use crate::caller::Caller;
use crate::channel::Next;
use crate::decode::{MAX_COMMAND, Place, decode};
use crate::{CmError, os, table};
use libc::{c_char, c_int, c_uint, c_void, stat};
use masq_driver::Uncancelled;
use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The device of the connection manager.
const DEVICE: &CStr = c"/dev/infiniband/rdma_cm";

/// A function that is replaced.
pub(crate) struct Hook {
    /// Its name in the C library.
    pub(crate) name: &'static CStr,
    /// Ours.
    pub(crate) ours: fn() -> usize,
    /// What stood there: the C library's, or that of a library loaded before it.
    pub(crate) real: AtomicUsize,
    /// What the whole process calls by this name, or 0.
    pub(crate) usual: AtomicUsize,
}

macro_rules! hooks {
    ($($name:literal $hook:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block)+) => {
        /// All of them.
        pub(crate) static HOOKS: &[&Hook] = &[$(&$hook::HOOK,)+];
        $(
            mod $hook {
                use super::*;
                type Function = unsafe extern "C-unwind" fn($($ty),*) -> $ret;
                pub(crate) static HOOK: Hook = Hook {
                    name: $name,
                    ours: || ours as *const () as usize,
                    real: AtomicUsize::new(0),
                    usual: AtomicUsize::new(0),
                };
                /// The function that was replaced.
                ///
                /// # Safety
                /// As that function.
                unsafe fn real($($arg: $ty),*) -> $ret {
                    let address = HOOK.real.load(Ordering::Acquire);
                    // SAFETY: stored before `ours` is reachable; a function of this name.
                    let real: Function = unsafe { std::mem::transmute(address) };
                    // SAFETY: the caller's promise.
                    unsafe { real($($arg),*) }
                }
                unsafe extern "C-unwind" fn ours($($arg: $ty),*) -> $ret $body
            }
        )+
    };
}

// An argument that `open` was not given is passed on as it was found.
hooks! {
    c"open" open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
        // SAFETY: the caller's arguments.
        unsafe { opened(path, flags).unwrap_or_else(|| real(path, flags, mode)) }
    }
    c"open64" open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
        // SAFETY: the caller's arguments.
        unsafe { opened(path, flags).unwrap_or_else(|| real(path, flags, mode)) }
    }
    c"__open_2" open_2(path: *const c_char, flags: c_int) -> c_int {
        // SAFETY: the caller's arguments.
        unsafe { opened(path, flags).unwrap_or_else(|| real(path, flags)) }
    }
    c"__open64_2" open64_2(path: *const c_char, flags: c_int) -> c_int {
        // SAFETY: the caller's arguments.
        unsafe { opened(path, flags).unwrap_or_else(|| real(path, flags)) }
    }
    c"openat" openat(at: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
        // SAFETY: the caller's arguments.
        unsafe { opened(path, flags).unwrap_or_else(|| real(at, path, flags, mode)) }
    }
    c"openat64" openat64(at: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
        // SAFETY: the caller's arguments.
        unsafe { opened(path, flags).unwrap_or_else(|| real(at, path, flags, mode)) }
    }
    c"fstat" fstat(fd: c_int, to: *mut stat) -> c_int {
        // SAFETY: the caller's arguments.
        unsafe { dressed(fd, real(fd, to), to) }
    }
    c"fstat64" fstat64(fd: c_int, to: *mut stat) -> c_int {
        // SAFETY: the caller's arguments; with 64-bit pointers the structures are one.
        unsafe { dressed(fd, real(fd, to), to) }
    }
    c"__fxstat" fxstat(version: c_int, fd: c_int, to: *mut stat) -> c_int {
        // SAFETY: the caller's arguments.
        unsafe { dressed(fd, real(version, fd, to), to) }
    }
    c"__fxstat64" fxstat64(version: c_int, fd: c_int, to: *mut stat) -> c_int {
        // SAFETY: the caller's arguments.
        unsafe { dressed(fd, real(version, fd, to), to) }
    }
    c"close" close(fd: c_int) -> c_int {
        if table::close(fd) {
            return 0;
        }
        // SAFETY: the caller's argument.
        unsafe { real(fd) }
    }
    // The buffers of rsockets: whole pages, of which only parts are registered.
    c"posix_memalign" posix_memalign(to: *mut *mut c_void, alignment: usize, len: usize) -> c_int {
        // SAFETY: the caller's arguments.
        let failed = unsafe { real(to, alignment, len) };
        if failed == 0 {
            // SAFETY: written by the call.
            masq_regmem::claim(unsafe { *to } as usize, len);
        }
        failed
    }
    c"free" free(memory: *mut c_void) -> () {
        masq_regmem::disclaim(memory as usize);
        // SAFETY: the caller's argument.
        unsafe { real(memory) }
    }
    c"write" write(fd: c_int, from: *const c_void, len: usize) -> isize {
        // A cancellation point, as the system call is; the command itself is none.
        // SAFETY: no destructor is pending.
        unsafe { pthread_testcancel() };
        // The address of a local: what lies above it is the caller's.
        let mut token = [0u8; 8];
        let caller = Caller::new((&raw const token) as u64);
        let wait = match begin(fd, from as u64, len, caller) {
            // SAFETY: the caller's arguments.
            Begun::NotOurs => return unsafe { real(fd, from, len) },
            Begun::Answered => return len as isize,
            Begun::Failed(errno) => return failed(errno),
            Begun::Wait(wait) => wait,
            Begun::Closed => return failed(libc::EBADF),
        };
        loop {
            // SAFETY: a buffer of eight bytes.
            let n = unsafe { read(fd, token.as_mut_ptr().cast(), token.len()) };
            if n < 0 {
                return n;
            }
            match collect(fd, wait, caller) {
                Begun::Answered => return len as isize,
                Begun::Failed(errno) => return failed(errno),
                Begun::Closed if wait.may_sleep => loop {
                    // SAFETY: no arguments.
                    unsafe { pause() };
                },
                Begun::Closed => return failed(libc::EBADF),
                Begun::NotOurs | Begun::Wait(_) => {}
            }
        }
    }
}

unsafe extern "C-unwind" {
    // Declarations of our own: a thread may be cancelled in them.
    fn read(fd: c_int, to: *mut c_void, len: usize) -> isize;
    fn pause() -> c_int;
    fn pthread_testcancel();
}

/// A reader that waits for an event.
#[derive(Clone, Copy)]
struct Wait {
    response: Place,
    /// The descriptor is blocking.
    may_sleep: bool,
}

/// How far a write got. No destructor: threads are cancelled while one is kept.
#[derive(Clone, Copy)]
enum Begun {
    NotOurs,
    Answered,
    Wait(Wait),
    Failed(i32),
    /// Another thread closed the channel meanwhile. In the kernel, a reader that
    /// is inside then sleeps on: programs end with a thread in that state.
    Closed,
}

fn failed(errno: i32) -> isize {
    os::set_errno(errno);
    -1
}

fn begin(fd: c_int, from: u64, len: usize, caller: Caller) -> Begun {
    let _whole = Uncancelled::new();
    let Some(entry) = table::opened_as(fd) else {
        return Begun::NotOurs;
    };
    let mut bytes = [0; MAX_COMMAND];
    let Some(bytes) = bytes.get_mut(..len.min(MAX_COMMAND)) else {
        return Begun::Failed(libc::EINVAL);
    };
    let mut migrated_from = None;
    let command = caller.read(from, bytes).and_then(|()| decode(bytes, len));
    // Whatever else is written is written to this number's present owner, if the channel
    // was closed behind our back. A command that makes sense spares the question.
    if command.is_err() && table::find(fd).is_none() {
        return Begun::NotOurs;
    }
    let result = command.and_then(|command| {
        entry.channel.execute(&command, caller, |fd| {
            let other = table::find(fd).ok_or_else(|| match os::is_open(fd) {
                true => CmError::Malformed("descriptor of a channel"),
                false => CmError::NoDescriptor,
            })?;
            Ok(&migrated_from.insert(other).channel)
        })
    });
    match result {
        Ok(Next::Done) => Begun::Answered,
        Ok(Next::Wait(response)) => Begun::Wait(Wait {
            response,
            may_sleep: !os::is_nonblocking(fd),
        }),
        Err(error) => Begun::Failed(error.errno()),
    }
}

fn collect(fd: c_int, wait: Wait, caller: Caller) -> Begun {
    let _whole = Uncancelled::new();
    let Some(entry) = table::opened_as(fd) else {
        return Begun::Closed;
    };
    match entry.channel.collect(wait.response, caller) {
        Ok(true) => Begun::Answered,
        Ok(false) => Begun::Wait(wait),
        Err(_) if !table::leads_to(fd, &entry) => Begun::Closed,
        Err(error) => Begun::Failed(error.errno()),
    }
}

/// The answer to an `open` of the device inside an endpoint; `None` for all others.
///
/// # Safety
/// `path` is a C string, or NULL.
unsafe fn opened(path: *const c_char, flags: c_int) -> Option<c_int> {
    // SAFETY: the caller's promise.
    if path.is_null() || unsafe { CStr::from_ptr(path) } != DEVICE {
        return None;
    }
    let _whole = Uncancelled::new();
    let endpoint = masq_driver::socket_path()?;
    Some(match table::open(&endpoint, flags) {
        Ok(fd) => fd,
        Err(error) => {
            os::set_errno(error.errno());
            -1
        }
    })
}

/// Makes what `fstat` found of a channel look like the device.
///
/// # Safety
/// `to` is writable if `done` is 0.
unsafe fn dressed(fd: c_int, done: c_int, to: *mut stat) -> c_int {
    if done == 0 && table::find(fd).is_some() {
        let _whole = Uncancelled::new();
        // SAFETY: the caller's promise.
        unsafe {
            (*to).st_mode = libc::S_IFCHR | 0o666;
            (*to).st_rdev = device_number();
        }
    }
    done
}

/// The number of the real device, which librdmacm compares where there is one.
fn device_number() -> libc::dev_t {
    static NUMBER: OnceLock<libc::dev_t> = OnceLock::new();
    *NUMBER.get_or_init(|| {
        let real = std::fs::read_to_string("/sys/class/misc/rdma_cm/dev").ok();
        let number = real.and_then(|text| {
            let (major, minor) = text.trim().split_once(':')?;
            Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
        });
        // A dynamic number of miscellaneous devices.
        number.unwrap_or_else(|| libc::makedev(10, 255))
    })
}
