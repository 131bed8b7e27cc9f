//! Many datagrams in one system call.
#![allow(unsafe_code)] // sendmmsg and recvmmsg, which rustix lacks

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::address::RawAddress;
use super::control::Control;

/// Datagrams that one call sends at most.
const SEND: usize = 64;

/// A datagram, or a train of them, to be sent.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) to: &'a RawAddress,
    pub(crate) control: &'a Control,
}

/// Sends one datagram without waiting. Without control messages it is the
/// cheapest call that there is.
pub(crate) fn send_one(socket: BorrowedFd<'_>, outgoing: Outgoing<'_>) -> io::Result<usize> {
    if outgoing.control.len() != 0 {
        return send_batch(socket, std::iter::once(outgoing));
    }
    // SAFETY: the kernel reads the bytes and the address during the call, of
    // the lengths that they have.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            outgoing.bytes.as_ptr().cast(),
            outgoing.bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            outgoing.to.as_bytes().as_ptr().cast(),
            outgoing.to.len(),
        )
    };
    match sent {
        0.. => Ok(1),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends datagrams without waiting; says how many were sent. The error is that
/// of the first.
pub(crate) fn send_batch<'a>(
    socket: BorrowedFd<'_>,
    outgoing: impl Iterator<Item = Outgoing<'a>>,
) -> io::Result<usize> {
    let mut pieces = [const { MaybeUninit::<libc::iovec>::uninit() }; SEND];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; SEND];
    let mut count = 0;
    for ((out, piece), header) in outgoing.zip(&mut pieces).zip(&mut headers) {
        let piece = piece.write(libc::iovec {
            iov_base: out.bytes.as_ptr().cast_mut().cast(),
            iov_len: out.bytes.len(),
        });
        let control = out.control.len();
        header.write(libc::mmsghdr {
            msg_hdr: libc::msghdr {
                msg_name: out.to.as_bytes().as_ptr().cast_mut().cast(),
                msg_namelen: out.to.len(),
                msg_iov: piece,
                msg_iovlen: 1,
                msg_control: match control {
                    0 => ptr::null_mut(),
                    _ => out.control.bytes().as_ptr().cast_mut().cast(),
                },
                msg_controllen: control,
                msg_flags: 0,
            },
            msg_len: 0,
        });
        count += 1;
    }
    // SAFETY: the first `count` headers were written. What they point to
    // outlives the call: bytes, addresses and control messages are borrowed
    // for 'a, `pieces` is ours. The kernel writes `msg_len` alone.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// A datagram, or an aggregate of them, that was received.
#[derive(Clone, Copy)]
pub(crate) struct Arrival<'a> {
    /// Where it begins in the arena.
    pub(crate) start: usize,
    pub(crate) bytes: &'a [u8],
    pub(crate) from: &'a RawAddress,
    pub(crate) control: &'a Control,
    pub(crate) truncated: bool,
}

/// Datagrams that one call receives at most.
pub(crate) const RECEIVE: usize = 32;

/// Room for the datagrams of one call.
pub(crate) struct ReceiveBatch {
    arena: memmap2::MmapMut,
    stride: usize,
    slots: Box<[Slot]>,
    count: usize,
    /// How many the next call asks for. A call that finds fewer than it asks
    /// for looks once more in vain, which a packet alone should not pay for.
    ask: usize,
}

#[derive(Clone, Copy)]
struct Slot {
    address: RawAddress,
    control: Control,
    len: usize,
    truncated: bool,
}

impl ReceiveBatch {
    /// Room for [`RECEIVE`] datagrams of at most `stride` bytes.
    pub(crate) fn new(stride: usize) -> io::Result<Self> {
        let arena = memmap2::MmapMut::map_anon(RECEIVE * stride)?;
        // Fewer TLB misses; no matter if the kernel has no such pages.
        let _ = arena.advise(memmap2::Advice::HugePage);
        let slot = Slot {
            address: RawAddress::EMPTY,
            control: Control::EMPTY,
            len: 0,
            truncated: false,
        };
        Ok(Self {
            arena,
            stride,
            slots: vec![slot; RECEIVE].into_boxed_slice(),
            count: 0,
            ask: 1,
        })
    }

    /// Receives what waits, without waiting, in place of the last batch; says
    /// how many datagrams.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.count = 0;
        let ask = std::mem::replace(&mut self.ask, 1);
        let mut pieces = [const { MaybeUninit::<libc::iovec>::uninit() }; RECEIVE];
        let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; RECEIVE];
        let mut room = 0;
        let buffers = self.arena.chunks_exact_mut(self.stride);
        let slots = buffers.zip(&mut self.slots).take(ask);
        for (((buffer, slot), piece), header) in slots.zip(&mut pieces).zip(&mut headers) {
            let piece = piece.write(libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            });
            header.write(libc::mmsghdr {
                msg_hdr: libc::msghdr {
                    msg_name: slot.address.as_mut_bytes().as_mut_ptr().cast(),
                    msg_namelen: RawAddress::LEN as u32,
                    msg_iov: piece,
                    msg_iovlen: 1,
                    msg_control: slot.control.bytes_mut().as_mut_ptr().cast(),
                    msg_controllen: Control::LEN,
                    msg_flags: 0,
                },
                msg_len: 0,
            });
            room += 1;
        }
        // SAFETY: the first `room` headers were written. Each leads to a piece
        // of the arena, an address and a control buffer of the lengths that it
        // tells; all are borrowed from `self`, which is ours for the call, and
        // no two headers share them.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr().cast(),
                room,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        self.count = received.min(room as usize);
        self.ask = (2 * self.count).clamp(1, RECEIVE);
        for (slot, header) in self.slots.iter_mut().zip(&headers).take(self.count) {
            // SAFETY: no more than the first `room`, which were written.
            let header = unsafe { header.assume_init_ref() };
            slot.len = (header.msg_len as usize).min(self.stride);
            slot.control.set_len(header.msg_hdr.msg_controllen);
            slot.truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        }
        Ok(self.count)
    }

    /// A datagram of the last batch.
    pub(crate) fn get(&self, index: usize) -> Option<Arrival<'_>> {
        let slot = self.slots.get(..self.count)?.get(index)?;
        let start = index * self.stride;
        Some(Arrival {
            start,
            bytes: self.bytes(start, slot.len)?,
            from: &slot.address,
            control: &slot.control,
            truncated: slot.truncated,
        })
    }

    /// A piece of the arena.
    pub(crate) fn bytes(&self, start: usize, len: usize) -> Option<&[u8]> {
        self.arena.get(start..start.checked_add(len)?)
    }
}
