//! The port that needs no privilege: a UDP socket for each thread.
//!
//! The sockets of several threads share the host's address, and the kernel
//! chooses among them by the number of the queue pair. Groups have sockets of
//! their own, bound to the group's address.

pub(crate) mod socket;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use masq_wire::{Addresses, Flow, Mtu, TrafficClass};

use crate::desk::{Desk, Envelope, Id};
use crate::error::doing;
use crate::groups::Groups;
use crate::inbox::{inboxes, siblings};
use crate::interface::Interface;
use crate::sender::{Sender, knows_trains};
use crate::sys::control::number;
use crate::sys::{Arrival, ReceiveBatch, dropped};
use crate::{Config, Counters, Incoming, Path, Place, Port, PortError};

/// Room for any UDP datagram, aggregates included.
const STRIDE: usize = 64 << 10;
/// How often a group is looked at before the host is.
const GROUP_FIRST: usize = 7;
/// Packets of a batch at most.
const ROOM: usize = 4096;

/// A thread's UDP socket, and those of the groups that it joined.
pub struct UdpPort {
    config: Config,
    interface: Arc<Interface>,
    socket: OwnedFd,
    groups: Groups,
    /// Counts calls, to give each group its turn.
    turn: usize,
    sender: Sender,
    batch: ReceiveBatch,
    desk: Desk,
}

/// Opens the ports of all threads of a host, in the order of their numbers, in
/// the calling thread's network namespace.
///
/// # Errors
///
/// No interface has the address, or the system refuses: the port number is
/// taken, or no memory or descriptors are left.
pub fn open_udp(config: &Config) -> Result<Vec<UdpPort>, PortError> {
    config.check_threads()?;
    let interface = Arc::new(Interface::of(config.host)?);
    let inboxes = inboxes(config.threads)?;
    let mut ports = Vec::with_capacity(config.threads);
    for thread in 0..config.threads {
        let socket = socket::of_host(config, &interface)?;
        let offload = config.offload && knows_trains(socket.as_fd());
        socket::set_checksums(socket.as_fd(), config.host, offload)?;
        let scope = interface.index;
        ports.push(UdpPort {
            config: config.clone(),
            interface: Arc::clone(&interface),
            socket,
            groups: Groups::default(),
            turn: 0,
            sender: Sender::new(config.host, scope, offload),
            batch: ReceiveBatch::new(STRIDE).map_err(doing("have memory for packets"))?,
            desk: Desk::new(ROOM, siblings(&inboxes, thread)),
        });
    }
    if let [first, _, ..] = &ports[..] {
        socket::steer(first.socket.as_fd(), config.threads)?;
    }
    Ok(ports)
}

impl UdpPort {
    /// Receives from the host's socket, or from a group's; says how many
    /// datagrams.
    fn receive_from(&mut self, group: Option<usize>) -> usize {
        let (socket, address) = match group.and_then(|index| self.groups.get(index)) {
            Some((address, socket)) => (socket, address),
            None => (self.socket.as_fd(), self.config.host),
        };
        self.desk.counters.receive_calls += 1;
        // An error is either that nothing waits, or of no consequence: what
        // ICMP says of sent packets is not asked for.
        let count = self.batch.receive(socket).unwrap_or(0);
        for index in 0..count {
            if let Some(arrival) = self.batch.get(index) {
                judge(&mut self.desk, &arrival, address, group.is_some());
            }
        }
        count
    }
}

/// Cuts an aggregate into its packets and judges each.
fn judge(desk: &mut Desk, arrival: &Arrival<'_>, to: IpAddr, group: bool) {
    if arrival.truncated {
        desk.counters.truncated += 1;
        return;
    }
    let Some((from, src_port)) = arrival.from.read() else {
        return;
    };
    let Some(addresses) = Addresses::new(from, to) else {
        desk.counters.not_for_us += 1;
        return;
    };
    let mut envelope = Envelope {
        flow: Flow {
            addresses,
            src_port,
        },
        traffic_class: TrafficClass(0),
        hop_limit: 0,
        group,
    };
    let mut packet = arrival.bytes.len();
    for (level, kind, value) in arrival.control.messages() {
        let Some(value) = number(value) else {
            continue;
        };
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                envelope.traffic_class = TrafficClass(value as u8);
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                envelope.hop_limit = value as u8;
            }
            (libc::SOL_UDP, libc::UDP_GRO) if value > 0 => packet = value as usize,
            _ => {}
        }
    }
    if arrival.bytes.is_empty() {
        desk.take(&[], arrival.start, &envelope, Id::Hidden);
    }
    let starts = (arrival.start..).step_by(packet.max(1));
    for (bytes, start) in arrival.bytes.chunks(packet.max(1)).zip(starts) {
        desk.take(bytes, start, &envelope, Id::Hidden);
    }
}

impl Port for UdpPort {
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
        if self.groups.len() == 0 {
            self.receive_from(None);
            return self.desk.len();
        }
        // The groups take turns, each when the host has nothing; sometimes
        // before that, so that a busy host does not shut them out.
        self.turn = self.turn.wrapping_add(1);
        let group = |turn| Some(turn % self.groups.len());
        let (first, then) = if self.turn.is_multiple_of(GROUP_FIRST) {
            (group(self.turn / GROUP_FIRST), None)
        } else {
            (None, group(self.turn))
        };
        if self.receive_from(first) == 0 {
            self.receive_from(then);
        }
        self.desk.len()
    }

    fn packet(&self, index: usize) -> Option<Incoming<'_>> {
        self.desk
            .packet(index, |start, len| self.batch.bytes(start, len))
    }

    fn join(&mut self, group: IpAddr) -> io::Result<()> {
        let open = || socket::of_group(&self.config, &self.interface, group);
        self.groups.join(group, open)
    }

    fn leave(&mut self, group: IpAddr) {
        self.groups.leave(group);
    }

    fn set_strangers(&mut self, hosts: &[IpAddr]) {
        self.desk.set_strangers(hosts);
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.socket.as_fd())
            .chain(self.groups.sockets())
            .chain(self.desk.ready())
            .collect()
    }

    fn counters(&self) -> Counters {
        let mut counters = self.desk.counters;
        for socket in self.groups.sockets().chain([self.socket.as_fd()]) {
            counters.overrun += u64::from(dropped(socket));
        }
        counters
    }
}

#[cfg(test)]
mod tests;
