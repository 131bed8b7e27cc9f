//! What a data-path thread may ask of a port.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use masq_wire::{Flow, ICRC_LEN, MAX_HEADERS, Mtu, Packet, TrafficClass};

use crate::Counters;

/// Bytes of the longest packet: headers, 4096 bytes and ICRC.
pub const MAX_PACKET: usize = MAX_HEADERS + Mtu::B4096.bytes() + ICRC_LEN;

/// Bytes of the shortest packet: BTH and ICRC.
pub const MIN_PACKET: usize = 12 + ICRC_LEN;

/// Where a packet goes and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The host, or a group of IP multicast.
    pub to: IpAddr,
    /// DSCP and ECN.
    pub traffic_class: TrafficClass,
    /// Routers on the way, and one; 0 is sent as 1.
    pub hop_limit: u8,
}

/// A place for one packet in the batch that is being filled.
#[derive(Debug)]
pub struct Place<'a> {
    /// From the BTH to the ICRC, to be filled whole: it holds what an earlier
    /// packet left.
    pub buffer: &'a mut [u8],
    /// What the ICRC covers besides: addresses and UDP source port …
    pub flow: Flow,
    /// … and the IPv4 identification that the packet will bear.
    pub ip_id: u16,
}

/// A packet that arrived; its ICRC was checked as the port can.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Who sent it, to this host or to a group.
    pub flow: Flow,
    /// DSCP and ECN as they arrived.
    pub traffic_class: TrafficClass,
    /// What is left of the hop limit.
    pub hop_limit: u8,
    /// From the BTH to the ICRC.
    pub packet: Packet<'a>,
}

/// One thread's way to other hosts.
pub trait Port: Send {
    /// The address that packets bear as their source.
    fn host(&self) -> IpAddr;

    /// The largest path MTU whose packets fit the interface's MTU as it is now.
    fn mtu(&self) -> Mtu;

    /// Room for a packet of `len` bytes ([`MIN_PACKET`] to [`MAX_PACKET`], a
    /// multiple of 4), BTH and ICRC included. Nothing of it is sent before
    /// [`commit`](Self::commit); placing again without it takes the place back.
    ///
    /// None: the batch is full, flush first. A packet that no batch takes (its
    /// length, or an address of the other family) is counted and has none ever.
    fn place(&mut self, path: &Path, len: usize) -> Option<Place<'_>>;

    /// The last place is filled.
    fn commit(&mut self);

    /// Whether another packet as long as the last one would go with it, as one
    /// datagram: it costs much less than one that begins another.
    fn continues(&self, path: &Path) -> bool;

    /// Sends what was committed. What cannot be sent is counted and lost.
    fn flush(&mut self);

    /// Receives a batch, at most one system call's worth, in place of the last
    /// one; returns how many packets are held. What is wrong is counted and
    /// dropped, so that 0 does not mean that nothing waits.
    fn receive(&mut self) -> usize;

    /// A packet of the batch that was received last.
    fn packet(&self, index: usize) -> Option<Incoming<'_>>;

    /// Joins a group of IP multicast on the host's interface, in the network
    /// namespace where the port was opened: the caller must be in it.
    /// Repetitions are counted: as many [`leave`](Self::leave) undo them. What
    /// this host sends to a group does not come back to it.
    ///
    /// # Errors
    ///
    /// An address that is no group or of the other family, or what the system
    /// refuses.
    fn join(&mut self, group: IpAddr) -> io::Result<()>;

    /// Undoes one [`join`](Self::join).
    fn leave(&mut self, group: IpAddr);

    /// The hosts that are no masq, all of them: their IP identification is
    /// free.
    fn set_strangers(&mut self, hosts: &[IpAddr]);

    /// Readable, level-triggered, while something waits to be received. They
    /// change with [`join`](Self::join) and [`leave`](Self::leave).
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// What happened so far.
    fn counters(&self) -> Counters;
}
