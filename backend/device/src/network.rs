//! What a device that reaches other hosts offers besides sessions: management
//! datagrams (QP1), and who sends the datagrams that arrive.

use crate::{EndpointKey, Result};
use masq_spec::verbs::Gid;
use masq_wire::{Mtu, PKey, Qpn};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// Bytes of a management datagram (IBA 13.4.2).
pub const MAD_LEN: usize = 256;

/// Something for the control side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A management datagram for QP1.
    Management {
        /// Host that sent it.
        from: IpAddr,
        /// Its partition.
        partition: PKey,
        /// Its bytes.
        mad: Box<[u8; MAD_LEN]>,
    },
    /// What was given to [`Network::send`] cannot reach its host.
    Unreachable {
        /// That host.
        host: IpAddr,
        /// The partition that it was sent with.
        partition: PKey,
        /// The management datagram.
        mad: Box<[u8; MAD_LEN]>,
    },
    /// A datagram came of a queue pair that is not known; a few are held for a
    /// moment until [`Network::learn`] says whose it is.
    UnknownSender {
        /// Where from.
        sender: SenderKey,
    },
}

/// A queue pair of another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SenderKey {
    /// Its host.
    pub host: IpAddr,
    /// Its partition.
    pub partition: PKey,
    /// Its number.
    pub qpn: Qpn,
}

/// Whose datagrams a queue pair of another host sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// GID that receivers see.
    pub gid: Gid,
    /// Its host has asked the policy for each of its destinations.
    pub trusted: bool,
    /// Endpoints of this host that the policy lets it reach, in order: by groups,
    /// and unless it is trusted, at all.
    pub reach: Vec<EndpointKey>,
}

impl Sender {
    /// Whether the policy lets it reach an endpoint of this host.
    pub fn reaches(&self, endpoint: EndpointKey) -> bool {
        self.reach.binary_search(&endpoint).is_ok()
    }
}

/// A service of rdma_cm that hosts which are no masq may ask this host for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedService {
    /// Port space, by the number of `enum rdma_ucm_port_space`.
    pub port_space: u16,
    /// Its port there.
    pub port: u16,
    /// Partition of the tenant whose service it is.
    pub partition: PKey,
    /// The hosts that the tenant knows; control decides whether one may.
    pub hosts: Vec<IpAddr>,
}

/// What a device did on the wire since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct WireReport {
    /// Packets sent.
    pub sent_packets: u64,
    /// Their bytes, from BTH to ICRC.
    pub sent_bytes: u64,
    /// Packets received whole.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// System calls that sent.
    pub send_calls: u64,
    /// System calls that received, or looked.
    pub receive_calls: u64,
    /// Packets that were not sent, by the reason.
    pub not_sent: BTreeMap<&'static str, u64>,
    /// Packets that were dropped on arrival, by the reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

impl WireReport {
    /// Adds what another data-path thread did.
    pub fn add(&mut self, other: &Self) {
        self.sent_packets += other.sent_packets;
        self.sent_bytes += other.sent_bytes;
        self.received_packets += other.received_packets;
        self.received_bytes += other.received_bytes;
        self.send_calls += other.send_calls;
        self.receive_calls += other.receive_calls;
        let maps = [
            (&mut self.not_sent, &other.not_sent),
            (&mut self.dropped, &other.dropped),
        ];
        for (own, more) in maps {
            for (reason, count) in more {
                *own.entry(reason).or_default() += count;
            }
        }
    }
}

/// The way to other hosts. Calls are bounded and never wait for the network.
pub trait Network: Send + Sync {
    /// This host's address there.
    fn host(&self) -> IpAddr;
    /// The largest path MTU that fits.
    fn mtu(&self) -> Mtu;
    /// Sends a management datagram from QP1.
    ///
    /// # Errors
    /// [`DeviceError::Exhausted`](crate::DeviceError::Exhausted): no room now, as if it were lost.
    fn send(&self, to: IpAddr, partition: PKey, mad: &[u8; MAD_LEN]) -> Result<()>;
    /// The next arrival.
    fn receive(&self) -> Option<Arrival>;
    /// Readable while [`receive`](Self::receive) has something.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// Tells whose a queue pair is; None: nobody's, or nobody's any more.
    fn learn(&self, sender: SenderKey, who: Option<Sender>);
    /// Forgets all senders: the policy or the directory has changed.
    fn forget_senders(&self);
    /// Names the hosts that are no masq: their packets are checked as far as
    /// they can be.
    fn set_strangers(&self, hosts: Vec<IpAddr>);
    /// Names the services that hosts which are no masq may ask for, instead of those
    /// before. A device that has QP1 itself hears of every request, and needs no names.
    fn set_services(&self, services: Vec<PublishedService>) {
        let _ = services;
    }
    /// What it did so far.
    fn report(&self) -> WireReport;
}
