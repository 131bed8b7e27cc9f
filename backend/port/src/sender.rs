//! The batch that is being filled, and how it is sent through a UDP socket.
//!
//! Packets lie one behind the other in an arena. Consecutive packets of one
//! path and length are a train, which the kernel takes as one datagram and cuts
//! itself, so that most of the way through it is walked once a train; a shorter
//! packet may end a train. The kernel gives the packets of a train the
//! identifications 0, 1, 2 …, and 0 to a packet alone; so a packet's place
//! tells it before the packet is written.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use masq_wire::{Addresses, Dscp, Ecn, Flow, ICRC_LEN, Icrc, Packet, ROCE_PORT, TrafficClass};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::sys::address::RawAddress;
use crate::sys::control::Control;
use crate::sys::{Outgoing, send_batch, send_one};
use crate::train;
use crate::{Counters, MAX_PACKET, MIN_PACKET, Path, Place};

/// Bytes from which on a batch is full. It ends where a train does: a train that
/// is cut costs the kernel, and the receiver, one datagram more.
/// The caches still hold as many when the kernel copies them.
const FULL: usize = 48 << 10;
/// The same where one processor does everything: each call to the kernel may hand it to
/// the receiver, and changing between the two costs more than the caches do.
const FULL_ALONE: usize = 128 << 10;
/// The last train begins before a batch is full.
const LAST_TRAIN: usize = 64 << 10;
/// Trains of a batch.
const TRAINS: usize = 64;
/// Trains begin at a cache line.
const ALIGN: usize = 64;
/// What the sockets send unless told otherwise.
pub(crate) const DEFAULT_HOP_LIMIT: u8 = 64;
pub(crate) const DEFAULT_CLASS: TrafficClass = TrafficClass::new(Dscp::new(0), Ecn::Capable0);
/// How long a flush waits for room in the socket's buffer, in nanoseconds.
const PATIENCE: i64 = 1_000_000;

/// Consecutive packets that one datagram carries.
#[derive(Clone, Copy)]
struct Train {
    path: Path,
    to: RawAddress,
    control: Control,
    start: usize,
    len: usize,
    /// Length of each packet but the last.
    packet: usize,
    count: usize,
    /// A shorter packet has ended it.
    closed: bool,
}

/// A place that was given out and not committed.
#[derive(Clone, Copy)]
struct Placed {
    path: Path,
    start: usize,
    len: usize,
    joins: bool,
}

pub(crate) struct Sender {
    host: IpAddr,
    /// The interface, for link-local addresses.
    scope: u32,
    /// Bytes from which on a batch is full.
    full: usize,
    arena: Box<[u8]>,
    trains: Vec<Train>,
    placed: Option<Placed>,
    offload: bool,
}

impl Sender {
    /// With `offload` it makes trains.
    pub(crate) fn new(host: IpAddr, scope: u32, offload: bool) -> Self {
        let full = match std::thread::available_parallelism() {
            Ok(processors) if processors.get() == 1 => FULL_ALONE,
            _ => FULL,
        };
        Self {
            host,
            scope,
            full,
            arena: vec![0; full + LAST_TRAIN].into_boxed_slice(),
            trains: Vec::with_capacity(TRAINS),
            placed: None,
            offload,
        }
    }

    /// See [`Port::place`](crate::Port::place).
    pub(crate) fn place(
        &mut self,
        path: &Path,
        len: usize,
        counters: &mut Counters,
    ) -> Option<Place<'_>> {
        self.placed = None;
        let addresses = Addresses::new(self.host, path.to);
        let (Some(addresses), MIN_PACKET..=MAX_PACKET, 0) = (addresses, len, len % 4) else {
            counters.send_errors.other += 1;
            return None;
        };
        let last = self.trains.last();
        let end = last.map_or(0, |train| train.start + train.len);
        let joined = last.filter(|train| len <= train.packet && self.is_open(train, path));
        let ip_id = match (addresses, joined) {
            (Addresses::V4 { .. }, Some(train)) => train.count as u16,
            _ => 0,
        };
        let start = match joined {
            Some(_) => end,
            None if self.trains.len() == TRAINS || end >= self.full => return None,
            None => end.next_multiple_of(ALIGN),
        };
        let joins = joined.is_some();
        let buffer = self.arena.get_mut(start..start + len)?;
        self.placed = Some(Placed {
            path: *path,
            start,
            len,
            joins,
        });
        Some(Place {
            buffer,
            flow: Flow {
                addresses,
                src_port: ROCE_PORT,
            },
            ip_id,
        })
    }

    /// See [`Port::commit`](crate::Port::commit).
    pub(crate) fn commit(&mut self) {
        let Some(placed) = self.placed.take() else {
            return;
        };
        if placed.joins {
            if let Some(train) = self.trains.last_mut() {
                train.len += placed.len;
                train.count += 1;
                train.closed = placed.len < train.packet;
            }
            return;
        }
        self.trains.push(Train {
            path: placed.path,
            to: RawAddress::new(placed.path.to, ROCE_PORT, scope(placed.path.to, self.scope)),
            control: how(&placed.path),
            start: placed.start,
            len: placed.len,
            packet: placed.len,
            count: 1,
            closed: false,
        });
    }

    fn is_open(&self, train: &Train, path: &Path) -> bool {
        self.offload
            && !train.closed
            && train.count < train::longest(train.packet)
            && train.path == *path
    }

    /// See [`Port::continues`](crate::Port::continues).
    pub(crate) fn continues(&self, path: &Path) -> bool {
        let last = self.trains.last();
        last.is_some_and(|train| self.is_open(train, path))
    }

    /// See [`Port::flush`](crate::Port::flush).
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>, counters: &mut Counters) {
        self.placed = None;
        for train in self.trains.iter_mut().filter(|train| train.count > 1) {
            // No packet is longer than MAX_PACKET.
            let packet = (train.packet as u16).to_ne_bytes();
            train
                .control
                .push(libc::SOL_UDP, libc::UDP_SEGMENT, &packet);
        }
        let mut done = 0;
        let mut patient = true;
        while let Some(rest) = self.trains.get(done..).filter(|rest| !rest.is_empty()) {
            counters.send_calls += 1;
            let arena = &self.arena;
            let mut outgoing = rest.iter().map(|train| Outgoing {
                bytes: piece(arena, train.start, train.len),
                to: &train.to,
                control: &train.control,
            });
            let sent = match (rest.len(), outgoing.next()) {
                (1, Some(only)) => send_one(socket, only),
                (_, first) => send_batch(socket, first.into_iter().chain(outgoing)),
            };
            let error = match sent {
                Ok(sent @ 1..) => {
                    for train in rest.iter().take(sent) {
                        counters.sent.packets += train.count as u64;
                        counters.sent.bytes += train.len as u64;
                    }
                    done += sent;
                    continue;
                }
                Ok(0) => break,
                Err(error) => error,
            };
            match Errno::from_io_error(&error) {
                Some(Errno::INTR) => {}
                Some(Errno::AGAIN) if patient => {
                    patient = false;
                    wait_for_room(socket);
                }
                // What follows would not fit either.
                Some(Errno::AGAIN) => {
                    let left = rest.iter().map(|train| train.count as u64);
                    counters.send_errors.no_room += left.sum::<u64>();
                    break;
                }
                Some(Errno::IO | Errno::INVAL | Errno::MSGSIZE | Errno::OPNOTSUPP)
                    if self.trains.get(done).is_some_and(|train| train.count > 1) =>
                {
                    self.send_apart(done, socket, counters);
                    done += 1;
                }
                errno => {
                    let count = rest.first().map_or(0, |train| train.count as u64);
                    count_error(counters, errno, count);
                    done += 1;
                }
            }
        }
        self.trains.clear();
    }

    /// Sends a train that was refused packet by packet. If all go, no more
    /// trains are made: what is in the way (no support in a driver, IPsec)
    /// would refuse them all.
    fn send_apart(&mut self, index: usize, socket: BorrowedFd<'_>, counters: &mut Counters) {
        let Some(train) = self.trains.get(index) else {
            return;
        };
        let control = how(&train.path);
        let to = train.to;
        let bytes = self.arena.get_mut(train.start..train.start + train.len);
        let mut all_sent = true;
        for packet in bytes.unwrap_or(&mut []).chunks_mut(train.packet) {
            if let Some(addresses @ Addresses::V4 { .. }) = Addresses::new(self.host, train.path.to)
            {
                number_zero(packet, addresses);
            }
            counters.send_calls += 1;
            let outgoing = Outgoing {
                bytes: packet,
                to: &to,
                control: &control,
            };
            match send_one(socket, outgoing) {
                Ok(_) => {
                    counters.sent.add(packet.len());
                }
                Err(error) => {
                    count_error(counters, Errno::from_io_error(&error), 1);
                    all_sent = false;
                }
            }
        }
        self.offload &= !all_sent;
    }
}

/// The zone of an address, which only link-local ones have.
fn scope(address: IpAddr, interface: u32) -> u32 {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast() => interface,
        _ => 0,
    }
}

/// Control messages for what is not the sockets' default.
fn how(path: &Path) -> Control {
    let mut control = Control::EMPTY;
    let (level, class, hop_limit) = match path.to {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS, libc::IP_TTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::IPV6_HOPLIMIT),
    };
    if path.traffic_class != DEFAULT_CLASS {
        let value = i32::from(path.traffic_class.0).to_ne_bytes();
        control.push(level, class, &value);
    }
    if path.hop_limit != DEFAULT_HOP_LIMIT {
        let value = i32::from(path.hop_limit.max(1)).to_ne_bytes();
        control.push(level, hop_limit, &value);
    }
    control
}

/// Has a packet's ICRC cover the identification 0.
fn number_zero(packet: &mut [u8], addresses: Addresses) {
    let flow = Flow {
        addresses,
        src_port: ROCE_PORT,
    };
    let len = packet.len();
    let Ok(parsed) = Packet::parse(packet) else {
        return;
    };
    let mut icrc = Icrc::new(&flow, 0, parsed.bth(), len as u16);
    let after_bth = size_of_val(parsed.bth())..len - ICRC_LEN;
    icrc.update(packet.get(after_bth).unwrap_or(&[]));
    if let Some(trailer) = packet.last_chunk_mut() {
        *trailer = icrc.finish();
    }
}

fn piece(arena: &[u8], start: usize, len: usize) -> &[u8] {
    arena.get(start..start + len).unwrap_or(&[])
}

fn wait_for_room(socket: BorrowedFd<'_>) {
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: PATIENCE,
    };
    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
    let _ = poll(&mut polled, Some(&timeout));
}

fn count_error(counters: &mut Counters, errno: Option<Errno>, packets: u64) {
    let errors = &mut counters.send_errors;
    let counter = match errno {
        Some(Errno::MSGSIZE) => &mut errors.too_long,
        Some(
            Errno::NETUNREACH
            | Errno::HOSTUNREACH
            | Errno::NETDOWN
            | Errno::HOSTDOWN
            | Errno::ADDRNOTAVAIL,
        ) => &mut errors.unreachable,
        Some(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => &mut errors.no_room,
        Some(Errno::PERM | Errno::ACCESS) => &mut errors.refused,
        _ => &mut errors.other,
    };
    *counter += packets;
}

/// Whether the kernel knows trains.
pub(crate) fn knows_trains(socket: BorrowedFd<'_>) -> bool {
    let probe: io::Result<()> = crate::sys::set(socket, libc::SOL_UDP, libc::UDP_SEGMENT, &0i32);
    probe.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_never_full_within_a_train() {
        let path = Path {
            to: IpAddr::from([192, 0, 2, 1]),
            traffic_class: DEFAULT_CLASS,
            hop_limit: DEFAULT_HOP_LIMIT,
        };
        let mut counters = Counters::default();
        for mtu in [256, 512, 1024, 2048, 4096] {
            let mut sender = Sender::new(IpAddr::from([192, 0, 2, 2]), 0, true);
            let mut batches = 0;
            // WRITEs of 64 KiB: the first packet of each has a RETH.
            let lengths = (0..64 * 1024 / mtu).map(|n| if n == 0 { mtu + 32 } else { mtu + 16 });
            for len in lengths.cycle().take(1_000_000 / mtu) {
                if sender.place(&path, len, &mut counters).is_none() {
                    let train = *sender.trains.last().expect("it is full");
                    let is_complete = train.closed
                        || len > train.packet
                        || train.count == train::longest(train.packet);
                    assert!(is_complete, "{mtu}: {len} would have joined");
                    sender.trains.clear();
                    batches += 1;
                    assert!(sender.place(&path, len, &mut counters).is_some());
                }
                sender.commit();
            }
            assert!(batches > 5, "{mtu}: {batches}");
        }
        assert_eq!(counters, Counters::default());
    }
}
