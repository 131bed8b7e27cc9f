//! Whether a whole vhost-user message waits, so that reading it cannot block.

use rustix::io::ioctl_fionread;
use rustix::net::{RecvFlags, recv};
use std::io;
use std::os::fd::AsFd;

/// Bytes of a vhost-user header.
const HEADER: usize = 12;
/// Largest message that is taken.
const MAX_MESSAGE: usize = 4096;

/// What waits on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Nothing.
    Nothing,
    /// A message that is not complete.
    Part,
    /// A complete message.
    Message,
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
    let size = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if size > MAX_MESSAGE {
        return Ok(Waiting::Garbage);
    }
    let waiting = ioctl_fionread(&socket)? as usize;
    Ok(if waiting >= HEADER + size {
        Waiting::Message
    } else {
        Waiting::Part
    })
}
