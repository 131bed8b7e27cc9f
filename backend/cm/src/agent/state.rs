//! What an agent keeps: ids (what programs see) and conversations (what peers
//! see), and the constants of both.

use crate::message::{CommId, Message, Private};
use crate::types::{Channel, Event, PortSpace};
use masq_spec::verbs::{AhAttr, Gid, QpType};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The time that a code of 5 bits stands for: 4.096 µs × 2^code.
pub(crate) const fn code_time(code: u8) -> Duration {
    Duration::from_nanos(4096u64 << (code & 31))
}

/// Code of the time that either side has to answer: 4.3 s.
pub(crate) const RESPONSE_CODE: u8 = 20;
/// How often a REQ, a REP or a SIDR_REQ is repeated.
pub(crate) const RETRIES: u8 = 15;
/// When a side that gets no answer gives up, an MRA's patience included:
/// 16 × 4.3 s = 68.7 s.
pub(crate) const PATIENCE: Duration =
    Duration::from_nanos((4096u64 << RESPONSE_CODE) * (RETRIES as u64 + 1));
/// Code of the patience that an MRA asks for: 68.7 s, as Linux.
pub(crate) const MRA_CODE: u8 = 24;
/// Code of the time after which a DREQ is repeated: 2.1 s.
const DREQ_CODE: u8 = 19;
/// When a side that wants to disconnect no longer waits: 4 × 2.1 s = 8.6 s. A
/// peer's program that was told needs no more, and what ends is unusable anyway.
pub(crate) const DREQ_PATIENCE: Duration = Duration::from_nanos((4096u64 << DREQ_CODE) * 4);
/// Code of the lifetime of a packet, as Linux has it for RoCE.
pub(crate) const PACKET_LIFETIME: u8 = 16;
/// Code of the local ACK timeout: 0.5 s.
pub(crate) const ACK_TIMEOUT: u8 = PACKET_LIFETIME + 1;
/// Code of the delay before this side acknowledges.
pub(crate) const TARGET_ACK_DELAY: u8 = 15;
/// How long the numbers of a connection rest: 1.07 s.
pub(crate) const TIMEWAIT: Duration = Duration::from_nanos(4096u64 << (ACK_TIMEOUT + 1));
/// Conversations that outlive their ids (they repeat a DREQ, or rest); what is
/// more is forgotten at once.
pub(crate) const MAX_ORPHANS: usize = 4096;
/// Of these, those with requests that were refused: they serve peers, and must
/// not take the place of a DREQ.
pub(crate) const MAX_REFUSED: usize = MAX_ORPHANS / 2;
/// Longest backlog, and the one of who asks for none.
pub(crate) const MAX_BACKLOG: u32 = 1024;
/// Events of an id that may wait before a new attempt to resolve is refused. Linux
/// refuses a second attempt while the first is under way.
pub(crate) const MAX_WAITING: usize = 8;
/// Groups that an id may be a member of.
pub(crate) const MAX_GROUPS: usize = 1024;
/// Groups that all ids of an endpoint together may be members of: a membership and its
/// event are memory of the host, which the number of ids alone would not bound.
pub(crate) const MAX_MEMBERSHIPS: usize = 4 * MAX_GROUPS;
/// Q_Key of UDP, and of IP over InfiniBand here.
pub(crate) const DEFAULT_QKEY: u32 = 0x0123_4567;
/// Hop limit of every path.
pub(crate) const HOP_LIMIT: u8 = 64;
/// Numbers of queue pairs and PSNs have 24 bits.
pub(crate) const BITS_24: u32 = 0xff_ffff;

/// How far an id's program has come, as cma counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Bound,
    AddressResolved,
    RouteResolved,
    Listening,
    /// A connection was asked for or by the peer; what became of it is the
    /// conversation's state.
    Connecting,
    /// Was connected.
    Disconnected,
}

/// An id of rdma_cm.
#[derive(Debug)]
pub(crate) struct Id {
    pub(crate) channel: Channel,
    pub(crate) uid: u64,
    /// Whether `uid` is set: an id that arrived has none until it is accepted.
    pub(crate) named: bool,
    /// Whether the program was told of it.
    pub(crate) announced: bool,
    pub(crate) port_space: PortSpace,
    pub(crate) qp_type: QpType,
    pub(crate) phase: Phase,
    pub(crate) holds_port: bool,
    /// Whether it ever had a conversation.
    pub(crate) conversed: bool,
    pub(crate) reuse: bool,
    pub(crate) family_only: Option<bool>,
    pub(crate) tos: u8,
    pub(crate) ack_timeout: Option<u8>,
    pub(crate) source: SocketAddr,
    pub(crate) destination: Option<SocketAddr>,
    /// The first address of the endpoint that `destination` leads to.
    pub(crate) peer: Option<IpAddr>,
    pub(crate) dgid: Gid,
    /// Events that were handed out.
    pub(crate) reported: u32,
    /// Requests that a listener may yet queue.
    pub(crate) backlog: u32,
    /// Its events that wait, by sequence number.
    pub(crate) events: VecDeque<u64>,
    pub(crate) conversation: Option<CommId>,
    pub(crate) groups: Vec<u32>,
}

impl Id {
    /// Whether its wildcard would mean its own family only.
    pub(crate) fn family_only(&self, ip: IpAddr) -> bool {
        self.family_only.unwrap_or(ip.is_ipv4())
    }
}

/// Where the conversation with a peer is (IBA 12.9.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Talk {
    ReqSent,
    ReqReceived,
    RepSent,
    RepReceived,
    Established,
    DreqSent,
    DreqReceived,
    Timewait,
    SidrReqSent,
    SidrReqReceived,
    /// Refused by either side: repeated requests get the same answer.
    Refused,
    /// A datagram service was asked for and named.
    Resolved,
}

impl Talk {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ReqSent | Self::SidrReqSent => "connecting",
            Self::ReqReceived | Self::SidrReqReceived => "requested",
            Self::RepSent => "accepting",
            Self::RepReceived => "accepted",
            Self::Established => "established",
            Self::DreqSent | Self::DreqReceived => "disconnecting",
            Self::Timewait | Self::Refused => "timewait",
            Self::Resolved => "resolved",
        }
    }

    /// Whether the peer's queue pair is known and may be used.
    pub(crate) const fn backs_qp(self) -> bool {
        matches!(
            self,
            Self::ReqReceived
                | Self::RepSent
                | Self::RepReceived
                | Self::Established
                | Self::DreqSent
                | Self::DreqReceived
        )
    }

    /// Whether it is a service that address handles may lead to.
    pub(crate) const fn is_service(self) -> bool {
        matches!(self, Self::SidrReqReceived | Self::Resolved)
    }
}

/// A conversation with the agent of a peer.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// Its id; none when it outlives it.
    pub(crate) id: Option<u32>,
    pub(crate) state: Talk,
    /// Chosen by the peer; 0 while unknown.
    pub(crate) remote: CommId,
    pub(crate) peer: IpAddr,
    pub(crate) initiator: bool,
    pub(crate) datagram: bool,
    /// Port of the service.
    pub(crate) port: u16,
    pub(crate) service: u64,
    pub(crate) local_qpn: u32,
    pub(crate) remote_qpn: u32,
    pub(crate) sq_psn: u32,
    pub(crate) rq_psn: u32,
    pub(crate) responder_resources: u8,
    pub(crate) initiator_depth: u8,
    pub(crate) retry_count: u8,
    pub(crate) rnr_retry_count: u8,
    pub(crate) ack_timeout: u8,
    pub(crate) mtu: u8,
    /// When something is to be done.
    pub(crate) deadline: Option<Instant>,
    /// When it is no longer repeated.
    pub(crate) give_up: Option<Instant>,
    /// What is repeated until it is answered.
    pub(crate) pending: Option<Box<Message>>,
}

impl Conversation {
    /// After how long its message is repeated.
    pub(crate) const fn interval(&self) -> Duration {
        code_time(match self.state {
            Talk::DreqSent => DREQ_CODE,
            _ => RESPONSE_CODE,
        })
    }
}

/// A peer's conversation as it is found by what the peer sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RemoteKey {
    pub(crate) peer: IpAddr,
    pub(crate) comm: CommId,
    pub(crate) datagram: bool,
}

/// A conversation as it is found by its queue pairs.
pub(crate) type QpnKey = (u32, u32, IpAddr, CommId);

/// The part of `rdma_conn_param` or `rdma_ud_param` that an event tells.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) qpn: u32,
    pub(crate) qkey: u32,
    /// Length of the private data's field.
    pub(crate) private_len: u8,
    pub(crate) srq: bool,
    pub(crate) responder_resources: u8,
    pub(crate) initiator_depth: u8,
    pub(crate) flow_control: bool,
    pub(crate) retry_count: u8,
    pub(crate) rnr_retry_count: u8,
    pub(crate) ece_vendor: u32,
    pub(crate) ece_options: u32,
}

/// An event before it is handed out.
#[derive(Debug)]
pub(crate) struct Queued {
    /// The id that it is counted for: a listener, of a connection request.
    pub(crate) owner: u32,
    /// The id that it names.
    pub(crate) id: u32,
    pub(crate) uid: u64,
    pub(crate) event: Event,
    pub(crate) status: i32,
    pub(crate) datagram: bool,
    pub(crate) membership: Option<u32>,
    pub(crate) told: Told,
    pub(crate) private: Private,
    pub(crate) ah: Option<Box<AhAttr>>,
}

impl Queued {
    /// An event that says nothing but its name.
    pub(crate) fn plain(event: Event, status: i32) -> Self {
        Self {
            owner: 0,
            id: 0,
            uid: 0,
            event,
            status,
            datagram: false,
            membership: None,
            told: Told::default(),
            private: Private::EMPTY,
            ah: None,
        }
    }
}

/// What hangs on an event channel.
#[derive(Debug, Default)]
pub(crate) struct ChannelState {
    pub(crate) ids: BTreeSet<u32>,
    pub(crate) events: BTreeMap<u64, Queued>,
}

/// A membership of a multicast group.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) id: u32,
    pub(crate) reported: u32,
}
