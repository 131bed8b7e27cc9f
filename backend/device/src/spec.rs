//! Specifications of the objects of a device session.

use crate::EventSink;
use masq_memory::{DoorbellPage, MappedRing, Region, RemoteMemory};
use masq_spec::queue::SendOpcode;
use masq_spec::verbs::{Access, Gid, MwType, QpAttr, QpCaps, QpMask, QpType};
use masq_wire::PKey;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A handle within its kind and session; never 0.
pub type Handle = u32;

/// Names an isolation domain: a tenant. Queue pairs of different domains
/// never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainKey(pub u32);

/// Names an endpoint on this host, over all tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey(pub u32);

/// What the work requests of a session may do, by its tenant's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// Bit n stands for the opcode with number n.
    opcodes: u16,
    /// Remote rights that its memory windows may grant.
    pub window_access: Access,
}

impl Grants {
    /// Everything.
    pub const ALL: Self = Self {
        opcodes: u16::MAX,
        window_access: Access::all(),
    };

    /// These opcodes, and windows with these remote rights.
    pub fn new(opcodes: impl IntoIterator<Item = SendOpcode>, window_access: Access) -> Self {
        let opcodes = opcodes.into_iter().fold(0, |set, op| set | 1 << op as u8);
        Self {
            opcodes,
            window_access,
        }
    }

    /// Whether a work request with this opcode may be carried out.
    #[inline]
    pub fn allows(self, opcode: SendOpcode) -> bool {
        self.opcodes & 1 << opcode as u8 != 0
    }

    /// Whether a window may have these rights.
    pub fn allows_window(self, access: Access) -> bool {
        let remote = Access::REMOTE_READ | Access::REMOTE_WRITE | Access::REMOTE_ATOMIC;
        self.window_access.contains(access & remote)
    }
}

/// Begins a session.
pub struct SessionSpec {
    /// For logs: `tenant/endpoint#session`.
    pub label: String,
    /// Its tenant.
    pub domain: DomainKey,
    /// Its tenant's partition on the wire; None: it stays on this host.
    pub partition: Option<PKey>,
    /// Its endpoint.
    pub endpoint: EndpointKey,
    /// RoCEv2 GID of the endpoint, the source of its datagrams.
    pub gid: Gid,
    /// What its work requests may do.
    pub grants: Grants,
    /// Its doorbell page.
    pub doorbell: Arc<DoorbellPage>,
    /// Kick eventfd that the driver writes while the doorbell page says that
    /// the device sleeps. It was checked to be an eventfd; it is only ever
    /// watched (edge-triggered), never read.
    pub kick: Arc<OwnedFd>,
    /// Where its events go.
    pub events: Arc<dyn EventSink>,
    /// Its process memory, if the daemon may reach it.
    pub remote: Option<RemoteMemory>,
}

/// A memory region.
pub struct MrSpec {
    /// Handle.
    pub handle: Handle,
    /// Protection domain.
    pub pd: Handle,
    /// Rights.
    pub access: Access,
    /// Address by which requests name its first byte.
    pub iova: u64,
    /// Its bytes.
    pub region: Region,
}

/// A memory window.
pub struct MwSpec {
    /// Handle.
    pub handle: Handle,
    /// Protection domain.
    pub pd: Handle,
    /// Kind.
    pub mw_type: MwType,
}

/// A completion queue.
pub struct CqSpec {
    /// Handle.
    pub handle: Handle,
    /// Where completions go.
    pub ring: MappedRing,
    /// How many may wait.
    pub cqe: u32,
    /// Event queue of its completion channel.
    pub event_queue: Option<u32>,
    /// Completions carry the time.
    pub timestamps: bool,
    /// Overwrite instead of failing when full.
    pub ignore_overrun: bool,
}

/// A shared receive queue.
pub struct SrqSpec {
    /// Handle.
    pub handle: Handle,
    /// Protection domain.
    pub pd: Handle,
    /// Receives that may wait.
    pub max_wr: u32,
    /// Elements of a receive.
    pub max_sge: u32,
    /// Initial limit.
    pub limit: u32,
    /// Where receives come from.
    pub ring: MappedRing,
}

/// A queue pair.
pub struct QpSpec {
    /// Handle.
    pub handle: Handle,
    /// Protection domain.
    pub pd: Handle,
    /// Type.
    pub qp_type: QpType,
    /// Completion queue of sends.
    pub send_cq: Handle,
    /// Completion queue of receives.
    pub recv_cq: Handle,
    /// Shared receive queue.
    pub srq: Option<Handle>,
    /// Every send is signalled.
    pub sq_sig_all: bool,
    /// Capacities.
    pub caps: QpCaps,
    /// Send ring.
    pub sq: MappedRing,
    /// Receive ring, unless it has an SRQ.
    pub rq: Option<MappedRing>,
}

/// Where a path or address handle leads, after policy and renaming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// An endpoint of the same tenant on this host.
    Endpoint(EndpointKey),
    /// Another host, by its own address. The packets bear the partition of the
    /// tenant.
    Host(IpAddr),
    /// A multicast group of the tenant.
    Multicast(Gid),
}

/// A change of a queue pair.
pub struct QpChange {
    /// Which attributes.
    pub mask: QpMask,
    /// Their values.
    pub attr: QpAttr,
    /// Where `attr.ah` leads; present if the mask has AV.
    pub destination: Option<Destination>,
}

/// An address handle.
pub struct AhSpec {
    /// Handle.
    pub handle: Handle,
    /// Protection domain.
    pub pd: Handle,
    /// Where it leads.
    pub destination: Destination,
    /// Hop limit, traffic class and flow label for the receiver's GRH.
    pub attr: masq_spec::verbs::AhAttr,
    /// The only queue pairs there that it may reach; `None`: any.
    pub only: Option<Box<[u32]>>,
}

/// What a queue pair did. Bytes are of payload; messages of any opcode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct QpCounters {
    /// Requests completed as requester.
    pub tx_messages: u64,
    /// Payload bytes that they moved.
    pub tx_bytes: u64,
    /// Requests served as responder.
    pub rx_messages: u64,
    /// Payload bytes that they moved.
    pub rx_bytes: u64,
    /// Times that a peer had no receive posted.
    pub rnr_waits: u64,
    /// Times that a request was tried again because nobody answered.
    pub retries: u64,
    /// Requests of peers that were refused.
    pub remote_errors: u64,
    /// Datagrams and UC messages that found no taker.
    pub dropped: u64,
}

/// All that is known of a queue pair.
#[derive(Clone, Debug)]
pub struct QpReport {
    /// Attributes, capacities included.
    pub attr: QpAttr,
    /// Its number.
    pub qpn: u32,
    /// Its type.
    pub qp_type: QpType,
    /// Work requests posted and not completed.
    pub send_queue: u32,
    /// Counters.
    pub counters: QpCounters,
    /// Why it is in ERROR, in words.
    pub cause: Option<&'static str>,
}
