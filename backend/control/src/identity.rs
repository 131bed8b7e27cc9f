//! Who is at the other end of a socket, by the kernel's word.
#![allow(unsafe_code)] // getsockopt(SO_PEERPIDFD), which no crate wraps yet

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// `SO_PEERPIDFD` of Linux 6.5.
const SO_PEERPIDFD: i32 = 77;

/// A connected process.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    /// Readable once the process has ended.
    pub(crate) pidfd: OwnedFd,
}

impl Peer {
    /// The process that connected `socket`.
    pub(crate) fn of(socket: &UnixStream) -> io::Result<Self> {
        // The raw number: it is 0 for a process of another pid namespace.
        let cred = getsockopt(socket, PeerCredentials)?;
        let pid = cred.pid();
        let pidfd = match peer_pidfd(socket.as_fd()) {
            Ok(pidfd) => pidfd,
            // Before 6.5 the number must do; it is checked again by whoever opens the
            // memory of the process. Other errors say that the process has ended: then
            // its number may be another's.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOPROTOOPT) => {
                let pid = rustix::process::Pid::from_raw(pid).ok_or_else(|| {
                    io::Error::other("the process is in a pid namespace that masqd does not see")
                })?;
                rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            pid,
            uid: cred.uid(),
            pidfd,
        })
    }
}

fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut fd: i32 = -1;
    let mut len = size_of::<i32>() as nix::libc::socklen_t;
    // SAFETY: the option writes one descriptor number of that length.
    let result = unsafe {
        nix::libc::getsockopt(
            socket.as_raw_fd(),
            nix::libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut len,
        )
    };
    if result != 0 || fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether `fd` is an eventfd: anything else could block whoever writes to it.
pub(crate) fn is_eventfd(fd: BorrowedFd<'_>) -> bool {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(link).is_ok_and(|target| target.as_os_str() == "anon_inode:[eventfd]")
}
