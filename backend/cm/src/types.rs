//! Who is who: channels, ids, port spaces, and what an agent says of them.

use crate::message::Message;
use masq_spec::verbs::{Gid, QpType};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

/// What an agent is told about its endpoint.
#[derive(Clone, Debug)]
pub struct Config {
    /// The endpoint's virtual address.
    pub address: IpAddr,
    /// Its further addresses, from index 5 of the GID table on.
    pub others: Vec<IpAddr>,
    /// Link-local GID, index 1 of the GID table; as an address it is the
    /// endpoint's link-local one.
    pub link_local: Gid,
    /// GUID of the virtual device.
    pub node_guid: u64,
    /// `ibv_mtu` of every path.
    pub mtu: u8,
    /// READs and atomics that a queue pair may have outstanding, either way.
    pub max_rd_atomic: u8,
    /// Where PSNs, communication ids and ephemeral ports come from; not to be
    /// guessed by peers.
    pub seed: u64,
}

/// Where a message comes from, which its sender cannot choose.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The endpoint's first address, by which it is known.
    pub address: IpAddr,
    /// Its further addresses, its link-local one included.
    pub others: &'a [IpAddr],
}

impl From<IpAddr> for Sender<'_> {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            others: &[],
        }
    }
}

impl Sender<'_> {
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        ip == self.address || self.others.contains(&ip)
    }
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The first address of the endpoint that has it.
    pub address: IpAddr,
    /// GID of the address that was asked for.
    pub gid: Gid,
}

/// An event channel: one event queue of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    /// The session.
    pub owner: u64,
    /// Its event queue.
    pub queue: u32,
}

impl Channel {
    /// The channels of a session.
    pub(crate) const fn all_of(owner: u64) -> RangeInclusive<Self> {
        let first = Self { owner, queue: 0 };
        let last = Self {
            owner,
            queue: u32::MAX,
        };
        RangeInclusive::new(first, last)
    }
}

/// An id, named through its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The channel that the id must belong to.
    pub channel: Channel,
    /// The id.
    pub id: u32,
}

/// Port spaces: the numbers of `enum rdma_ucm_port_space`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortSpace {
    /// Like TCP's ports: connections.
    Tcp,
    /// Like UDP's ports: datagram services.
    Udp,
    /// Any service of IBA.
    Ib,
    /// Datagrams with the Q_Key of IP over InfiniBand.
    Ipoib,
}

impl PortSpace {
    /// The port space with this number, if there is one.
    pub const fn from_raw(raw: u16) -> Option<Self> {
        Some(match raw {
            0x106 => Self::Tcp,
            0x111 => Self::Udp,
            0x13f => Self::Ib,
            0x2 => Self::Ipoib,
            _ => return None,
        })
    }

    /// Its number.
    pub const fn raw(self) -> u16 {
        match self {
            Self::Tcp => 0x106,
            Self::Udp => 0x111,
            Self::Ib => 0x13f,
            Self::Ipoib => 0x2,
        }
    }

    /// How policies and people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Ib => "ib",
            Self::Ipoib => "ipoib",
        }
    }
}

/// What an agent wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A message for the agent of another endpoint, or for this one's own.
    Send {
        /// Address of the peer's endpoint.
        to: IpAddr,
        /// The message.
        message: Message,
    },
    /// One event was queued: the channel's event queue is to be signalled once.
    Signal {
        /// Where it waits.
        channel: Channel,
        /// The id that it tells of.
        id: u32,
    },
}

/// A connection, a listener or a datagram service, as people and the policy see
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The id.
    pub id: u32,
    /// Session that it belongs to.
    pub owner: u64,
    /// Its state in a word.
    pub state: &'static str,
    /// Port space.
    pub port_space: PortSpace,
    /// Type of its queue pair.
    pub qp_type: QpType,
    /// Local address and port.
    pub source: SocketAddr,
    /// The peer's, unless it listens.
    pub destination: Option<SocketAddr>,
    /// Port of the service: the listener's.
    pub port: u16,
    /// Whether this side asked.
    pub initiator: bool,
    /// Its queue pair, 0 while unknown.
    pub local_qpn: u32,
    /// The peer's queue pair, 0 while unknown.
    pub remote_qpn: u32,
}

/// How much an agent keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Ids, those that arrived included.
    pub ids: usize,
    /// Conversations with peers, those that rest included.
    pub conversations: usize,
    /// Memberships of multicast groups.
    pub memberships: usize,
    /// Events that wait.
    pub events: usize,
    /// Ports that are held.
    pub ports: usize,
    /// Timers that run.
    pub timers: usize,
}

/// The numbers of `enum rdma_cm_event_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Event {
    AddressResolved = 0,
    AddressError = 1,
    RouteResolved = 2,
    RouteError = 3,
    ConnectRequest = 4,
    ConnectResponse = 5,
    ConnectError = 6,
    Unreachable = 7,
    Rejected = 8,
    Established = 9,
    Disconnected = 10,
    DeviceRemoval = 11,
    MulticastJoin = 12,
    MulticastError = 13,
    AddressChange = 14,
    TimewaitExit = 15,
}

impl Event {
    /// The event with this number, if there is one.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            0 => Self::AddressResolved,
            1 => Self::AddressError,
            2 => Self::RouteResolved,
            3 => Self::RouteError,
            4 => Self::ConnectRequest,
            5 => Self::ConnectResponse,
            6 => Self::ConnectError,
            7 => Self::Unreachable,
            8 => Self::Rejected,
            9 => Self::Established,
            10 => Self::Disconnected,
            11 => Self::DeviceRemoval,
            12 => Self::MulticastJoin,
            13 => Self::MulticastError,
            14 => Self::AddressChange,
            15 => Self::TimewaitExit,
            _ => return None,
        })
    }

    /// Its number.
    pub const fn raw(self) -> u32 {
        self as u32
    }
}
