//! Connection management (SPEC clause 9.9): rdma_cm by virtual address. Numbers
//! that programs see (port spaces, events, options, reject reasons) are those of
//! the rdma_cm API, so neither side translates.

use super::{AhAttr, Gid, QpAttr};
use std::net::{SocketAddr, SocketAddrV6};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most bytes of private data in any message of a connection's making.
pub const MAX_PRIVATE_DATA: usize = 256;
/// Most bytes of the value of an option.
pub const MAX_OPTION: usize = 512;

/// Which id of which event channel a command is about; an id is reached through
/// its own channel only.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CmTarget {
    /// Event queue that carries the channel's events.
    pub channel: u32,
    /// The id; 0 in commands that are about the channel itself.
    pub id: u32,
}

/// A socket address.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CmAddress {
    /// 2 IPv4, 10 IPv6, 0 none: Linux's address families.
    pub family: u16,
    /// Port, a number of this machine's order.
    pub port: u16,
    /// Scope of a link-local IPv6 address.
    pub scope: u32,
    /// The address in network order; IPv4 in the first four bytes.
    pub ip: [u8; 16],
}
const _: () = assert!(size_of::<CmAddress>() == 24);

const INET: u16 = 2;
const INET6: u16 = 10;

impl CmAddress {
    /// The address, if its family is known.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self.family {
            INET => {
                let [a, b, c, d, ..] = self.ip;
                Some(SocketAddr::from(([a, b, c, d], self.port)))
            }
            INET6 => {
                let v6 = SocketAddrV6::new(self.ip.into(), self.port, 0, self.scope);
                Some(SocketAddr::V6(v6))
            }
            _ => None,
        }
    }
}

impl From<SocketAddr> for CmAddress {
    fn from(address: SocketAddr) -> Self {
        let mut ip = [0; 16];
        let (family, scope) = match address {
            SocketAddr::V4(v4) => {
                ip[..4].copy_from_slice(&v4.ip().octets());
                (INET, 0)
            }
            SocketAddr::V6(v6) => {
                ip = v6.ip().octets();
                (INET6, v6.scope_id())
            }
        };
        Self {
            family,
            port: address.port(),
            scope,
            ip,
        }
    }
}

/// Creates an id.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmCreateId {
    /// Event queue that carries its events.
    pub channel: u32,
    /// `enum rdma_ucm_port_space`.
    pub port_space: u16,
    /// A [`super::QpType`].
    pub qp_type: u8,
    /// Zero.
    pub reserved: u8,
    /// The program's name for it, told in its events.
    pub uid: u64,
}

/// The response to the end of an id or of a membership.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmEnded {
    /// Its events that were handed out by CM_GET_EVENT.
    pub reported: u32,
    /// Its events that were signalled and dropped: as many entries and counts of
    /// the channel's event queue are void.
    pub dropped: u32,
}

/// The response to commands of an id that return nothing else.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmRaised {
    /// Events that the command raised on its own channel: the device did not
    /// signal them, the driver counts them itself.
    pub events: u32,
    /// Zero.
    pub reserved: u32,
}

/// Binds an id to a local address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmBind {
    /// The id.
    pub target: CmTarget,
    /// Local address; port 0 takes a free one.
    pub address: CmAddress,
}

/// Finds the destination.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmResolve {
    /// The id.
    pub target: CmTarget,
    /// Local address, or family 0.
    pub source: CmAddress,
    /// Destination.
    pub destination: CmAddress,
    /// How long to try.
    pub timeout_ms: u32,
    /// Zero.
    pub reserved: u32,
}

/// An id and one number: CM_RESOLVE_ROUTE the milliseconds to try, CM_LISTEN the
/// backlog, CM_NOTIFY an `ibv_event_type`, CM_QP_ATTR a [`super::State`],
/// CM_MIGRATE the new channel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmNumber {
    /// The id.
    pub target: CmTarget,
    /// The number.
    pub number: u32,
    /// Zero.
    pub reserved: u32,
}

/// The response to CM_QUERY.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CmRoute {
    /// Local address and port.
    pub source: CmAddress,
    /// Destination.
    pub destination: CmAddress,
    /// GID of the local address.
    pub sgid: Gid,
    /// GID of the destination.
    pub dgid: Gid,
    /// 1: the id is bound to the device.
    pub bound: u8,
    /// 1: the route is resolved.
    pub paths: u8,
    /// Traffic class of the path, from the type of service.
    pub traffic_class: u8,
    /// `ibv_mtu` of the path.
    pub mtu: u8,
    /// Code of the packet lifetime, 4.096 µs × 2^n.
    pub lifetime: u8,
    /// `ibv_rate` of the path.
    pub rate: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Zero.
    pub reserved: u8,
}
const _: () = assert!(size_of::<CmRoute>() == 88);

/// What each side says of its end of a connection, `rdma_conn_param`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmParam {
    /// Queue pair.
    pub qpn: u32,
    /// Q_Key (datagrams).
    pub qkey: u32,
    /// Bytes of `private_data` that count.
    pub private_len: u8,
    /// 1: the queue pair uses an SRQ.
    pub srq: u8,
    /// READs and atomics that the peer may have outstanding.
    pub responder_resources: u8,
    /// READs and atomics that this side will have outstanding.
    pub initiator_depth: u8,
    /// End-to-end flow control.
    pub flow_control: u8,
    /// Retries after a timeout.
    pub retry_count: u8,
    /// Retries after RNR.
    pub rnr_retry_count: u8,
    /// Zero.
    pub reserved: u8,
    /// Enhanced connection establishment: vendor.
    pub ece_vendor: u32,
    /// Enhanced connection establishment: options.
    pub ece_options: u32,
    /// For the peer program.
    pub private_data: [u8; MAX_PRIVATE_DATA],
}
const _: () = assert!(size_of::<CmParam>() == 280);

/// Asks the peer for a connection, or for the queue pair of a datagram service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmConnect {
    /// The id.
    pub target: CmTarget,
    /// This side.
    pub param: CmParam,
}

/// Accepts a request, or (without parameters) confirms the peer's acceptance.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmAccept {
    /// The id.
    pub target: CmTarget,
    /// The program's name for it from now on, if there are parameters.
    pub uid: u64,
    /// 1: `param` counts.
    pub has_param: u32,
    /// Zero.
    pub reserved: u32,
    /// This side.
    pub param: CmParam,
}

/// Refuses a request.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmReject {
    /// The id.
    pub target: CmTarget,
    /// Reason, IBA 12.6.7.2: 28 the consumer's own, as is 0; 35 the ECE options.
    pub reason: u8,
    /// Bytes of `private_data` that count.
    pub private_len: u8,
    /// Zero.
    pub reserved: [u8; 6],
    /// For the peer program.
    pub private_data: [u8; MAX_PRIVATE_DATA],
}

/// Sets an option; `len` bytes of its value follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmOption {
    /// The id.
    pub target: CmTarget,
    /// `RDMA_OPTION_ID` or `RDMA_OPTION_IB`.
    pub level: u32,
    /// Within the level.
    pub name: u32,
    /// Bytes of the value that follow, at most [`MAX_OPTION`].
    pub len: u32,
    /// Zero.
    pub reserved: u32,
}

/// Joins a multicast group.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmJoin {
    /// The id.
    pub target: CmTarget,
    /// The program's name for the membership, told in its events.
    pub uid: u64,
    /// Group.
    pub group: CmAddress,
    /// `RDMA_MC_JOIN_FLAG_*`.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a queue pair is to be set to for one state.
#[repr(C)]
#[derive(
    Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CmQpAttr {
    /// Zero.
    pub reserved: u32,
    /// [`super::QpMask`] of what is set.
    pub mask: u32,
    /// What the queue pair is to be set to.
    pub attr: QpAttr,
}

/// The response to CM_QP_ATTR: the state that was asked for, and whatever else is
/// known, so that a driver need not ask again.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CmQpAttrs {
    /// Bit n: the attributes for the [`super::State`] n are here.
    pub known: u32,
    /// Zero.
    pub reserved: u32,
    /// For INIT, RTR and RTS.
    pub states: [CmQpAttr; 3],
}
const _: () = assert!(size_of::<CmQpAttrs>() == 464);

impl CmQpAttrs {
    /// The attributes for a state, if they are here.
    pub fn get(&self, state: u32) -> Option<&CmQpAttr> {
        let known = self
            .known
            .checked_shr(state)
            .is_some_and(|bits| bits & 1 != 0);
        let at = (state as usize).checked_sub(1)?;
        self.states.get(at).filter(|_| known)
    }
}

/// [`CmEvent::event`] when the channel has none.
pub const CM_NO_EVENT: u32 = u32::MAX;

/// The response to CM_GET_EVENT.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmEvent {
    /// The program's name for the id, the listener or the membership.
    pub uid: u64,
    /// The id; of a connection request, the new one.
    pub id: u32,
    /// `enum rdma_cm_event_type`, or [`CM_NO_EVENT`].
    pub event: u32,
    /// 0, a negative errno, or the reason of a rejection.
    pub status: i32,
    /// 1: `param` and `ah` tell of a datagram service or a group.
    pub datagram: u32,
    /// The peer's side.
    pub param: CmParam,
    /// Where the datagram service or the group is.
    pub ah: AhAttr,
    /// What CM_QUERY of the id would answer now.
    pub route: CmRoute,
}
const _: () = assert!(size_of::<CmEvent>() == 424);
