//! Whether the backend is still there, and whom to wake when it is not.
#![allow(unsafe_code, reason = "poll, read and signal masks")]

use crate::DriverError;
use crate::event_queue::EventQueue;
use crate::process::process_id;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

/// The state of the connection, shared by all parts of a session.
#[derive(Debug)]
pub(crate) struct Liveness {
    gone: AtomicBool,
    /// The process that opened the session. A forked child shares its descriptors and
    /// must leave them alone; it opens a session of its own.
    owner: u32,
    /// A duplicate of the socket, to be polled for its end only.
    socket: OwnedFd,
    /// Event queues whose readers are woken when the backend is gone.
    wake: Mutex<Vec<Weak<EventQueue>>>,
    stop: EventFd,
}

impl Liveness {
    pub(crate) fn new(socket: OwnedFd) -> Result<Arc<Self>, DriverError> {
        Ok(Arc::new(Self {
            gone: AtomicBool::new(false),
            owner: process_id(),
            socket,
            wake: Mutex::new(Vec::new()),
            stop: EventFd::new(EFD_CLOEXEC)?,
        }))
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Whether the session is this process's own. Asked before any lock is taken: one
    /// that another thread held at the fork is held forever in the child.
    pub(crate) fn is_ours(&self) -> bool {
        self.owner == process_id()
    }

    fn wake(&self) -> MutexGuard<'_, Vec<Weak<EventQueue>>> {
        self.wake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the readers of `queue` woken when the backend hangs up.
    pub(crate) fn wakes(&self, queue: &Arc<EventQueue>) {
        let mut wake = self.wake();
        wake.push(Arc::downgrade(queue));
        if self.is_gone() {
            queue.wake_all();
        }
    }

    /// Undoes [`Liveness::wakes`].
    pub(crate) fn forgets(&self, queue: &EventQueue) {
        self.wake().retain(|q| !std::ptr::eq(q.as_ptr(), queue));
    }

    fn hung_up(&self) {
        self.gone.store(true, Ordering::Release);
        for queue in self.wake().iter().filter_map(Weak::upgrade) {
            queue.wake_all();
        }
    }

    /// Sleeps until `fd` is readable; false if the backend hung up meanwhile.
    pub(crate) fn wait_readable(&self, fd: RawFd) -> Result<bool, DriverError> {
        let mut fds = [
            interest(fd, libc::POLLIN),
            interest(self.socket.as_raw_fd(), libc::POLLRDHUP),
        ];
        poll(&mut fds)?;
        Ok(fds[1].revents == 0)
    }

    /// Ends the watching thread.
    pub(crate) fn stop(&self) {
        let _ = self.stop.write(1);
    }
}

fn interest(fd: RawFd, events: i16) -> libc::pollfd {
    libc::pollfd {
        fd,
        events,
        revents: 0,
    }
}

fn poll(fds: &mut [libc::pollfd]) -> io::Result<()> {
    loop {
        // SAFETY: a valid array of this length.
        let n = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
        if n >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// While it lives, the thread is not cancelled: a command that was begun is finished, as it
/// is in the kernel. Unwinding from the middle of one would end the process.
#[derive(Debug)]
#[must_use]
pub struct Uncancelled(libc::c_int);

unsafe extern "C" {
    fn pthread_setcancelstate(state: libc::c_int, old: *mut libc::c_int) -> libc::c_int;
}

impl Uncancelled {
    /// `PTHREAD_CANCEL_DISABLE`.
    const DISABLE: libc::c_int = 1;

    /// From now on.
    #[expect(clippy::new_without_default, reason = "it does something")]
    pub fn new() -> Self {
        let mut before = 0;
        // SAFETY: a place for the old state. This is no cancellation point.
        unsafe { pthread_setcancelstate(Self::DISABLE, &mut before) };
        Self(before)
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        let mut ours = 0;
        // SAFETY: as above; the state that was found.
        unsafe { pthread_setcancelstate(self.0, &mut ours) };
    }
}

/// Reads all of `buffer` from an eventfd that the program may have made nonblocking.
/// EINTR is the caller's to see, as with the kernel's verbs.
pub(crate) fn read_exact(fd: RawFd, buffer: &mut [u8; 8]) -> io::Result<()> {
    // SAFETY: a buffer of eight bytes.
    let n = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    if n == 8 {
        return Ok(());
    }
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    Err(io::Error::from_raw_os_error(libc::EIO))
}

/// Takes a token of an event descriptor if there is one now, whatever the program has
/// set the descriptor to.
pub(crate) fn take_token_now(fd: RawFd) -> bool {
    let _whole = Uncancelled::new();
    let mut token = [0u8; 8];
    let part = libc::iovec {
        iov_base: token.as_mut_ptr().cast(),
        iov_len: token.len(),
    };
    // SAFETY: one part of eight bytes; -1 is no offset.
    unsafe { libc::preadv2(fd, &part, 1, -1, libc::RWF_NOWAIT) == 8 }
}

/// Starts the thread that waits for the backend to hang up. It takes no signal: the
/// program's handlers must run where the program expects them.
pub(crate) fn start(alive: &Arc<Liveness>) -> Result<(), DriverError> {
    // SAFETY: both sets live on this stack; the mask is this thread's own.
    let old = unsafe {
        let (mut all, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        old
    };
    let keep = Arc::clone(alive);
    let started = std::thread::Builder::new()
        .name("masq-watch".into())
        .stack_size(64 << 10)
        .spawn(move || watch(&keep));
    // SAFETY: puts back what was there.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut()) };
    started?;
    Ok(())
}

fn watch(alive: &Liveness) {
    let mut fds = [
        interest(alive.socket.as_raw_fd(), libc::POLLRDHUP),
        interest(alive.stop.as_raw_fd(), libc::POLLIN),
    ];
    if poll(&mut fds).is_ok() && fds[1].revents == 0 {
        alive.hung_up();
    }
}
