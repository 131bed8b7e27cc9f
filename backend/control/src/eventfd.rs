//! Signals eventfds that tenants hold too, without ever waiting for them.
//!
//! A write to an eventfd blocks while its counter is full, and a tenant can fill its own
//! and switch O_NONBLOCK off, for both ends. What the kernel signals by itself never
//! blocks: an asynchronous read that names an eventfd adds one to it when it is done
//! (io_submit(2), IOCB_FLAG_RESFD). A read of /dev/null is done at once.
#![allow(unsafe_code)] // io_setup(2) and its kin, which no crate wraps with an eventfd

use nix::libc;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Requests whose completions may wait to be taken.
const MOST: u32 = 512;
/// After how many requests their completions are taken, all at once.
const TAKE_AFTER: u32 = 128;
/// `IOCB_CMD_PREAD` and `IOCB_FLAG_RESFD` of linux/aio_abi.h.
const READ: u16 = 0;
const NAMES_EVENTFD: u32 = 1;

/// `struct io_event` of linux/aio_abi.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Completion {
    data: u64,
    request: u64,
    result: i64,
    result2: i64,
}

/// The process's asynchronous context.
pub(crate) struct Signaller {
    context: libc::c_ulong,
    null: File,
    submitted: AtomicU32,
}

/// None: this kernel has no asynchronous I/O, or no more contexts.
pub(crate) fn signaller() -> Option<&'static Signaller> {
    static SIGNALLER: OnceLock<Option<Signaller>> = OnceLock::new();
    let made = SIGNALLER.get_or_init(|| {
        let made = Signaller::new();
        made.inspect_err(|error| tracing::debug!(%error, "events take a thread of their own"))
            .ok()
    });
    made.as_ref()
}

impl Signaller {
    fn new() -> io::Result<Self> {
        let null = File::open("/dev/null")?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes the context's name to the variable, which outlives
        // the call and is 0, as it demands.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, MOST, &raw mut context) };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            context,
            null,
            submitted: AtomicU32::new(0),
        })
    }

    /// Adds one to an eventfd; one that is full stays full.
    ///
    /// # Errors
    /// Not an eventfd, or the kernel is out of memory.
    pub(crate) fn add_one(&self, eventfd: &impl AsFd) -> io::Result<()> {
        let count = self.submitted.fetch_add(1, Ordering::Relaxed);
        if count % TAKE_AFTER == TAKE_AFTER - 1 {
            self.take_completions();
        }
        match self.submit(eventfd) {
            // Others submit as well, and may have been quicker than whoever took.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                self.take_completions();
                self.submit(eventfd)
            }
            result => result,
        }
    }

    fn submit(&self, eventfd: &impl AsFd) -> io::Result<()> {
        // SAFETY: all its fields are integers, for which zero is a value.
        let mut request: libc::iocb = unsafe { std::mem::zeroed() };
        request.aio_lio_opcode = READ;
        request.aio_fildes = self.null.as_raw_fd() as u32;
        request.aio_flags = NAMES_EVENTFD;
        request.aio_resfd = eventfd.as_fd().as_raw_fd() as u32;
        let mut requests = [&raw mut request];
        // SAFETY: one pointer to one request, which the kernel reads and marks during
        // the call only; no memory is read into (0 bytes). The context lives as long as
        // the process, and both descriptors are open.
        let taken = unsafe {
            libc::syscall(
                libc::SYS_io_submit,
                self.context,
                1 as libc::c_long,
                requests.as_mut_ptr(),
            )
        };
        match taken {
            1 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn take_completions(&self) {
        let mut taken = [Completion::default(); TAKE_AFTER as usize];
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: room for as many completions as are asked for; it does not wait.
        unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                0 as libc::c_long,
                taken.len() as libc::c_long,
                taken.as_mut_ptr(),
                &raw const at_once,
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    fn count(fd: &impl AsFd) -> u64 {
        let mut bytes = [0; 8];
        rustix::io::read(fd, &mut bytes).unwrap();
        u64::from_ne_bytes(bytes)
    }

    #[test]
    fn each_signal_counts_from_whatever_thread() {
        let signaller = Signaller::new().unwrap();
        let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..3 * MOST).for_each(|_| signaller.add_one(&fd).unwrap()));
            }
        });
        assert_eq!(count(&fd), u64::from(4 * 3 * MOST));
    }

    #[test]
    fn an_eventfd_that_would_block_a_writer_does_not_block_this() {
        let signaller = Signaller::new().unwrap();
        let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        for _ in 0..3 {
            signaller.add_one(&fd).unwrap();
        }
        assert_eq!(count(&fd), u64::MAX);
    }

    #[test]
    fn what_is_no_eventfd_is_refused() {
        let signaller = Signaller::new().unwrap();
        let file = File::open("/dev/null").unwrap();
        let error = signaller.add_one(&file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
