//! Whether a whole vhost-user message waits, so that reading it cannot block.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;
use rustix::net::{RecvFlags, recv};
use std::io;
use std::os::fd::AsFd;

/// Bytes of a vhost-user header.
pub(crate) const HEADER: usize = 12;
/// Largest message that is taken.
const MAX_MESSAGE: usize = 4096;

/// What waits on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Nothing.
    Nothing,
    /// A message that is not complete.
    Part,
    /// A complete message: its request code and the bytes of its body.
    Message(u32, usize),
    /// The end.
    Closed,
    /// Something that is no message.
    Garbage,
}

/// Looks without taking.
pub(crate) fn peek(socket: impl AsFd) -> io::Result<Waiting> {
    let mut header = [0; HEADER];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let got = match recv(&socket, &mut header, flags) {
        Ok((_, 0)) => return Ok(Waiting::Closed),
        Ok((_, got)) => got,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Waiting::Nothing),
        Err(rustix::io::Errno::CONNRESET) => return Ok(Waiting::Closed),
        Err(error) => return Err(error.into()),
    };
    if got < HEADER {
        return Ok(Waiting::Part);
    }
    let [c0, c1, c2, c3, _, _, _, _, s0, s1, s2, s3] = header;
    let code = u32::from_ne_bytes([c0, c1, c2, c3]);
    let size = u32::from_ne_bytes([s0, s1, s2, s3]) as usize;
    if size > MAX_MESSAGE {
        return Ok(Waiting::Garbage);
    }
    let waiting = ioctl_fionread(&socket)? as usize;
    Ok(if waiting >= HEADER + size {
        Waiting::Message(code, size)
    } else {
        Waiting::Part
    })
}

/// Whether an answer of any length fits the socket's buffer, so that writing
/// it cannot block: poll says so while less than a quarter is in use.
pub(crate) fn has_room(socket: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}
