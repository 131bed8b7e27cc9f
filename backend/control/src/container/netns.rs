//! A container's network namespace: a netlink socket within it.
//!
//! Entering a namespace changes the thread that enters it, and in a user namespace the
//! whole process must have one thread, so a short-lived process of its own does it and
//! sends the socket back. The socket stays in the namespace in which it was made.

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

/// First argument of masqd by which it is this helper.
pub const NETNS_HELPER: &str = "netns-helper";

/// How long the helper may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Multicast groups of rtnetlink(7): RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;
/// Most bytes of one reply; the kernel sends at most 32 KiB at once.
const REPLY: usize = 64 << 10;
/// Most parts of a dump that are looked at.
const MOST_REPLIES: usize = 64;
/// Most addresses that are told.
const MOST_ADDRESSES: usize = 64;
/// Of netlink(7): the addresses changed while they were told.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// What the process does that was started as [`NETNS_HELPER`]: standard input is a
/// pidfd, standard output a socket on which the netlink socket is sent.
///
/// # Errors
/// What could not be done, for standard error.
pub fn netns_helper() -> io::Result<()> {
    let (pidfd, out) = (std::io::stdin(), std::io::stdout());
    let net = ThreadNameSpaceType::NETWORK;
    if move_into_thread_name_spaces(pidfd.as_fd(), net).is_err() {
        // Its user namespace gives the right to enter the others.
        move_into_thread_name_spaces(pidfd.as_fd(), net | ThreadNameSpaceType::USER)?;
    }
    let netlink = listen()?;
    let fds = [netlink.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(
        out.as_fd(),
        &[IoSlice::new(b"n")],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// A netlink socket in the namespace of the caller, which hears of addresses.
fn listen() -> io::Result<OwnedFd> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, ADDRESS_GROUPS))?;
    Ok(netlink)
}

/// A netlink socket in the network namespace of a process, which hears of addresses that
/// come and go there.
pub(super) fn open(pidfd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(PATIENCE))?;
    let mut helper = Command::new("/proc/self/exe")
        .arg(NETNS_HELPER)
        .env_clear()
        .stdin(Stdio::from(pidfd.try_clone_to_owned()?))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::null())
        .spawn()?;
    let received = receive(&ours);
    if received.is_err() {
        let _ = helper.kill();
    }
    let _ = helper.wait();
    received
}

fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.ok_or_else(|| io::ErrorKind::PermissionDenied.into())
}

/// What a namespace has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dump {
    /// In the order of its interfaces, those that are not usable yet left out.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether they changed meanwhile: some of the above may be gone already.
    pub(super) changed: bool,
}

/// The addresses of the namespace. Does not wait.
pub(super) fn addresses(netlink: BorrowedFd<'_>) -> io::Result<Dump> {
    // News that were not read may fill the socket: forget them, the dump is newer.
    discard(netlink);
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let asked = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(asked));
    message.finalize();
    let mut request = vec![0; message.buffer_len()];
    message.serialize(&mut request);
    send(netlink, &request, SendFlags::NOSIGNAL)?;
    let mut found = Dump::default();
    let mut reply = vec![0; REPLY];
    for _ in 0..MOST_REPLIES {
        let length = match recv(netlink, reply.as_mut_slice(), RecvFlags::empty()) {
            Ok((length, _)) => length,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => continue,
            Err(Errno::NOBUFS) => {
                found.changed = true;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if read_part(reply.get(..length).unwrap_or_default(), &mut found) {
            break;
        }
    }
    found.addresses.truncate(MOST_ADDRESSES);
    Ok(found)
}

/// Takes what waits on the socket away, at most a bufferful.
fn discard(netlink: BorrowedFd<'_>) {
    let mut buffer = [0; 4096];
    for _ in 0..1024 {
        match recv(netlink, &mut buffer[..], RecvFlags::empty()) {
            Ok(_) | Err(Errno::INTR | Errno::NOBUFS) => {}
            Err(_) => return,
        }
    }
}

/// Reads one datagram of a dump; true if it was the last.
fn read_part(mut part: &[u8], found: &mut Dump) -> bool {
    while !part.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(part) else {
            return true;
        };
        let length = (message.header.length as usize).next_multiple_of(4);
        let flags = message.header.flags;
        match message.payload {
            // News of the namespace come between the parts of a dump.
            NetlinkPayload::InnerMessage(_) if flags & NLM_F_MULTIPART == 0 => {
                found.changed = true;
            }
            NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return true,
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                found.changed |= flags & NLM_F_DUMP_INTR != 0;
                found.addresses.extend(usable(&address));
            }
            _ => {}
        }
        part = part.get(length.max(4)..).unwrap_or_default();
    }
    false
}

/// The address of the message, unless the kernel still asks around whether it is taken.
fn usable(message: &AddressMessage) -> Option<IpAddr> {
    let (mut local, mut address) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed;
    // On a point-to-point link `address` is the peer's.
    local.or(address).filter(|_| !flags.intersects(unusable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_the_same_addresses_as_often_as_it_is_asked() {
        let netlink = listen().unwrap();
        let first = addresses(netlink.as_fd()).unwrap().addresses;
        assert_eq!(addresses(netlink.as_fd()).unwrap().addresses, first);
        let out = Command::new("ip")
            .args(["-o", "addr", "show", "up"])
            .output();
        let Ok(out) = out else {
            eprintln!("there is no ip(8): left out");
            return;
        };
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        for ip in first.iter().filter(|ip| ip.is_ipv4()) {
            assert!(
                text.contains(&format!("inet {ip}")),
                "{ip} is not in\n{text}"
            );
        }
        assert!(!text.contains("127.0.0.1") || first.contains(&IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn what_is_no_netlink_message_ends_the_reading() {
        let mut found = Dump::default();
        assert!(read_part(&[0xff; 40], &mut found));
        assert!(read_part(&[0; 16], &mut found));
        assert!(!read_part(&[], &mut found));
        assert_eq!(found, Dump::default());
    }

    #[test]
    fn what_comes_between_the_parts_of_a_dump_is_told_from_them() {
        let message = |flags, last: u8| {
            let mut address = AddressMessage::default();
            address
                .attributes
                .push(AddressAttribute::Local([10, 0, 0, last].into()));
            let mut header = NetlinkHeader::default();
            header.flags = flags;
            let new = RouteNetlinkMessage::NewAddress(address);
            let mut message = NetlinkMessage::new(header, NetlinkPayload::from(new));
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            bytes
        };
        let read = |part: &[u8]| {
            let mut found = Dump::default();
            assert!(!read_part(part, &mut found));
            (found.addresses.len(), found.changed)
        };
        assert_eq!(read(&message(NLM_F_MULTIPART, 1)), (1, false));
        let with_news = [message(NLM_F_MULTIPART, 1), message(0, 2)].concat();
        assert_eq!(read(&with_news), (1, true));
        let interrupted = message(NLM_F_MULTIPART | NLM_F_DUMP_INTR, 1);
        assert_eq!(read(&interrupted), (1, true));
    }
}
