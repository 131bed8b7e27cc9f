//! The port that checks every ICRC in full: it reads frames in a ring that it
//! shares with the kernel, without a system call, and sees the IPv4
//! identification. It needs CAP_NET_RAW.
//!
//! A UDP socket sends, and keeps port 4791 so that the host does not answer with
//! ICMP; what comes to it is dropped. Frames are seen before the host's firewall
//! and reverse path filter.
//!
//! A train may come in one frame, if nothing on its way cut it (veth, virtio)
//! or the interface joined its packets again. Such frames bear the first
//! packet's identification, and the others count up from it, or all have the
//! same.

pub(crate) mod filter;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use masq_wire::{
    Addresses, Datagram, Flow, Ipv4Bytes, Ipv6Bytes, Mtu, ParseError, ROCE_PORT, TrafficClass,
    UDP_LEN, UdpBytes,
};
use rustix::net::{RecvFlags, recv};
use zerocopy::FromBytes;

use crate::desk::{Desk, Envelope, Id};
use crate::error::doing;
use crate::groups::Groups;
use crate::inbox::{inboxes, siblings};
use crate::interface::Interface;
use crate::sender::{Sender, knows_trains};
use crate::sys::{Frame, OFFLOAD_LEN, Offload, Ring, attach_filter, packet_drops};
use crate::udp::socket;
use crate::{Config, Counters, Incoming, Path, Place, Port, PortError};

/// Frames of a batch.
const FRAMES: usize = 64;
/// Long frames of a batch, each fetched by a system call, and their room.
const COPIES: usize = 4;
const COPY: usize = 66 << 10;
/// Packets of a batch: a long frame may have very short ones.
const ROOM: usize = 4096;
/// The kind of [`Offload`] that stands for a train.
const TRAIN: u8 = 5;
/// A flag in that kind.
const ECN: u8 = 0x80;

/// Looks that find nothing before the socket is asked for an error.
const ERROR_EVERY: u32 = 256;

/// A thread's ring, and the socket by which it sends.
pub struct RawPort {
    config: Config,
    interface: Arc<Interface>,
    socket: OwnedFd,
    /// They keep the memberships; what comes to their sockets is dropped.
    groups: Groups,
    sender: Sender,
    ring: Ring,
    copies: Box<[u8]>,
    desk: Desk,
    /// Looks that found nothing, in a row.
    idle: u32,
    /// Frames that found no room; the kernel forgets them when asked.
    dropped: AtomicU64,
}

/// Opens the ports of all threads of a host, in the order of their numbers, in
/// the calling thread's network namespace.
///
/// # Errors
///
/// As [`open_udp`](crate::open_udp); and the process has no CAP_NET_RAW.
pub fn open_raw(config: &Config) -> Result<Vec<RawPort>, PortError> {
    config.check_threads()?;
    let interface = Arc::new(Interface::of(config.host)?);
    let inboxes = inboxes(config.threads)?;
    let nothing = filter::nothing();
    let open = |thread| {
        let socket = socket::of_host(config, &interface)?;
        attach_filter(socket.as_fd(), &nothing).map_err(doing("filter a socket"))?;
        let offload = config.offload && knows_trains(socket.as_fd());
        socket::set_checksums(socket.as_fd(), config.host, offload)?;
        let filter = filter::roce(config.host, thread, config.threads);
        let ipv6 = config.host.is_ipv6();
        let ring = Ring::open(interface.index, ipv6, &filter, config.buffer)
            .map_err(doing("open a packet socket (it needs CAP_NET_RAW)"))?;
        Ok(RawPort {
            config: config.clone(),
            interface: Arc::clone(&interface),
            socket,
            groups: Groups::default(),
            sender: Sender::new(config.host, interface.index, offload),
            ring,
            copies: vec![0; COPIES * COPY].into_boxed_slice(),
            desk: Desk::new(ROOM, siblings(&inboxes, thread)),
            idle: 0,
            dropped: AtomicU64::new(0),
        })
    };
    (0..config.threads).map(open).collect()
}

impl RawPort {
    /// A piece of a frame that is held: the copies are behind the ring.
    fn bytes<'a>(ring: &'a Ring, copies: &'a [u8], start: usize, len: usize) -> Option<&'a [u8]> {
        match start.checked_sub(ring.len()) {
            Some(start) => copies.get(start..start.checked_add(len)?),
            None => ring.bytes(start, len),
        }
    }

    /// Fetches the frame that is next in the socket's queue.
    fn fetch(&mut self, nth: usize, frame: &mut Frame) -> Option<()> {
        let from = nth * COPY;
        let to = self.copies.get_mut(from..from + COPY)?;
        self.desk.counters.receive_calls += 1;
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let mut take = || recv(self.ring.socket(), &mut *to, flags);
        // An interface that goes down leaves an error, which is told instead of the frame;
        // if the frame stayed in the queue, each later one would be taken for the next.
        let (_, len) = take().or_else(|_| take()).ok()?;
        frame.truncated = len > to.len();
        let (offload, _) = Offload::read_from_prefix(to).ok()?;
        frame.offload = offload;
        let before = OFFLOAD_LEN + frame.link_len;
        frame.start = self.ring.len() + from + before;
        frame.len = len.min(COPY).checked_sub(before)?;
        Some(())
    }

    /// An interface that goes down leaves an error on the socket, which would
    /// wake whoever sleeps until it is taken.
    fn stay_idle(&mut self) {
        self.idle = self.idle.wrapping_add(1);
        if self.idle.is_multiple_of(ERROR_EVERY) {
            let _ = rustix::net::sockopt::socket_error(self.ring.socket());
        }
    }

    fn judge(&mut self, frame: &Frame) {
        if frame.truncated {
            self.desk.counters.truncated += 1;
            return;
        }
        let Some(bytes) = Self::bytes(&self.ring, &self.copies, frame.start, frame.len) else {
            self.desk.counters.truncated += 1;
            return;
        };
        let opened = match open(bytes) {
            Ok(opened) => opened,
            Err(error) => return self.desk.counters.count_malformed(error),
        };
        let to = opened.envelope.flow.addresses.dst();
        let group = to.is_multicast();
        if !self.groups.contain(to) && to != self.config.host {
            self.desk.counters.not_for_us += 1;
            return;
        }
        let envelope = Envelope {
            group,
            ..opened.envelope
        };
        let start = frame.start + opened.payload_at;
        let payload = opened.payload;
        let segment = usize::from(frame.offload.segment);
        if frame.offload.kind & !ECN != TRAIN || segment == 0 {
            match Datagram::parse(bytes) {
                Ok(datagram) if datagram.icrc_is_right() => {
                    self.desk.keep(datagram.packet(), start, &envelope);
                }
                Ok(_) => self.desk.counters.bad_icrc += 1,
                Err(error) => self.desk.counters.count_malformed(error),
            }
            return;
        }
        let starts = (start..).step_by(segment);
        for ((packet, start), index) in payload.chunks(segment).zip(starts).zip(0..) {
            let id = Id::Seen(opened.id, opened.id.wrapping_add(index));
            self.desk.take(packet, start, &envelope, id);
        }
    }
}

/// What stands in front of a packet or a train.
struct Opened<'a> {
    envelope: Envelope,
    id: u16,
    payload: &'a [u8],
    payload_at: usize,
}

/// Reads IP and UDP headers, which a train has once.
fn open(bytes: &[u8]) -> Result<Opened<'_>, ParseError> {
    let version = bytes.first().ok_or(ParseError::Truncated)? >> 4;
    let (addresses, traffic_class, hop_limit, id, rest): (_, TrafficClass, _, _, _) = match version
    {
        4 => {
            let (ip, rest) = Ipv4Bytes::parse(bytes)?;
            let ip = ip.to_ipv4();
            let (src, dst) = (ip.src, ip.dst);
            (Addresses::V4 { src, dst }, ip.class, ip.ttl, ip.id, rest)
        }
        6 => {
            let (ip, rest) = Ipv6Bytes::parse(bytes)?;
            let ip = ip.to_ipv6();
            let (src, dst) = (ip.src, ip.dst);
            (Addresses::V6 { src, dst }, ip.class, ip.hop_limit, 0, rest)
        }
        other => return Err(ParseError::IpVersion(other)),
    };
    let (udp, payload) = UdpBytes::ref_from_prefix(rest).map_err(|_| ParseError::Truncated)?;
    if udp.dst_port() != ROCE_PORT {
        return Err(ParseError::NotRoce(udp.dst_port()));
    }
    if usize::from(udp.udp_len()) != rest.len() {
        return Err(ParseError::UdpLength);
    }
    let header = match addresses {
        Addresses::V4 { .. } => size_of::<Ipv4Bytes>(),
        Addresses::V6 { .. } => size_of::<Ipv6Bytes>(),
    };
    Ok(Opened {
        envelope: Envelope {
            flow: Flow {
                addresses,
                src_port: udp.src_port(),
            },
            traffic_class,
            hop_limit,
            group: false,
        },
        id,
        payload,
        payload_at: header + UDP_LEN,
    })
}

impl Port for RawPort {
    fn host(&self) -> IpAddr {
        self.config.host
    }

    fn mtu(&self) -> Mtu {
        self.interface.path_mtu()
    }

    fn place(&mut self, path: &Path, len: usize) -> Option<Place<'_>> {
        self.sender.place(path, len, &mut self.desk.counters)
    }

    fn commit(&mut self) {
        self.sender.commit();
    }

    fn continues(&self, path: &Path) -> bool {
        self.sender.continues(path)
    }

    fn flush(&mut self) {
        self.sender
            .flush(self.socket.as_fd(), &mut self.desk.counters);
    }

    fn receive(&mut self) -> usize {
        self.desk.clear();
        self.ring.release();
        let mut copies = 0;
        for _ in 0..FRAMES {
            if copies == COPIES {
                break;
            }
            let Some(mut frame) = self.ring.take() else {
                break;
            };
            if frame.copied {
                if self.fetch(copies, &mut frame).is_none() {
                    self.desk.counters.truncated += 1;
                    continue;
                }
                copies += 1;
            }
            self.judge(&frame);
        }
        match self.desk.len() {
            0 => self.stay_idle(),
            _ => self.idle = 0,
        }
        self.desk.len()
    }

    fn packet(&self, index: usize) -> Option<Incoming<'_>> {
        self.desk.packet(index, |start, len| {
            Self::bytes(&self.ring, &self.copies, start, len)
        })
    }

    fn join(&mut self, group: IpAddr) -> io::Result<()> {
        self.groups.join(group, || {
            let socket = socket::of_group(&self.config, &self.interface, group)?;
            attach_filter(socket.as_fd(), &filter::nothing())?;
            Ok(socket)
        })
    }

    fn leave(&mut self, group: IpAddr) {
        self.groups.leave(group);
    }

    fn set_strangers(&mut self, _: &[IpAddr]) {
        // Nobody's identification is hidden here.
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.ring.socket())
            .chain(self.desk.ready())
            .collect()
    }

    fn counters(&self) -> Counters {
        let more = u64::from(packet_drops(self.ring.socket()));
        let mut counters = self.desk.counters;
        counters.overrun += self.dropped.fetch_add(more, Ordering::Relaxed) + more;
        counters
    }
}

#[cfg(test)]
mod tests;
