//! SET_BACKEND_REQ_FD: the one message that is answered on another socket, the
//! back channel, by sending the doorbell page (SPEC clause 5.1). The tenant
//! may have filled that socket and may clear its O_NONBLOCK at any time, so it
//! is written with a flag of the call.

use crate::wire::HEADER;
use masq_memory::DoorbellPage;
use masq_spec::device::SHMID_DOORBELL;
use masq_spec::doorbell::PAGE_LEN;
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketType, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vm_memory::ByteValued;

/// SET_BACKEND_REQ_FD.
pub(super) const REQUEST: u32 = 21;
/// SHMEM_MAP.
const SHMEM_MAP: u32 = 9;
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// Takes the message, whose body has `len` bytes, from the socket. Returns
/// whether an acknowledgement is wanted, and the back channel.
pub(super) fn receive(socket: impl AsFd, len: usize) -> io::Result<(bool, OwnedFd)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; HEADER + len];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        flags,
    )?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    if got.bytes != bytes.len() || fds.len() != 1 {
        return Err(bad());
    }
    let flags = bytes.get(4..8).and_then(|raw| raw.try_into().ok());
    let flags = flags.map(u32::from_ne_bytes).ok_or_else(bad)?;
    if flags & 3 != VERSION || flags & REPLY != 0 {
        return Err(bad());
    }
    let channel = fds.pop().ok_or_else(bad)?;
    if socket_domain(&channel)? != AddressFamily::UNIX
        || socket_type(&channel)? != SocketType::STREAM
    {
        return Err(bad());
    }
    Ok((flags & NEED_REPLY != 0, channel))
}

/// Sends the doorbell page, without waiting.
pub(super) fn send_page(channel: impl AsFd, page: &DoorbellPage) -> io::Result<()> {
    let map = VhostUserMMap {
        shmid: SHMID_DOORBELL,
        len: PAGE_LEN as u64,
        flags: VhostUserMMapFlags::WRITABLE.bits(),
        ..Default::default()
    };
    let fds = [page.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    send(channel, SHMEM_MAP, VERSION, map.as_slice(), &mut control)
}

/// Acknowledges the message.
pub(super) fn acknowledge(socket: impl AsFd) -> io::Result<()> {
    let mut none = SendAncillaryBuffer::default();
    send(socket, REQUEST, VERSION | REPLY, &[0; 8], &mut none)
}

fn send(
    socket: impl AsFd,
    code: u32,
    flags: u32,
    body: &[u8],
    control: &mut SendAncillaryBuffer<'_, '_, '_>,
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    for word in [code, flags, body.len() as u32] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(body);
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = sendmsg(socket, &[IoSlice::new(&bytes)], control, flags)?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WouldBlock.into())
    }
}
