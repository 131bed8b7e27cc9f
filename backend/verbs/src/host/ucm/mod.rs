//! The host's connection manager, by the kernel's own interface
//! (`<rdma/rdma_user_cm.h>`): ids and their events, without queue pairs.
//!
//! Not by librdmacm: it keeps each device open that an id was ever bound to, and a
//! driver that cannot let go of its users (rdma_rxe, siw) then waits for masqd's end
//! when its device is taken away.

mod address;
mod channel;
mod commands;
mod events;
mod id;

pub(crate) use channel::{USER_CM, UserCm};
pub(crate) use id::CmId;

use masq_cm::{Event, PortSpace};

/// One side of a connection or of a datagram service, given and told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) qpn: u32,
    pub(crate) qkey: u32,
    pub(crate) private: Vec<u8>,
    pub(crate) srq: bool,
    pub(crate) responder_resources: u8,
    pub(crate) initiator_depth: u8,
    pub(crate) flow_control: bool,
    pub(crate) retry_count: u8,
    pub(crate) rnr_retry_count: u8,
    /// Vendor and options of enhanced connection establishment.
    pub(crate) ece: (u32, u32),
}

/// What happened to an id. A request names its new id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) id: u32,
    /// What the id is for; of a request, what its listener listens for.
    pub(crate) service: Option<(PortSpace, u16)>,
    pub(crate) event: Event,
    /// A reason, a status or a negative error.
    pub(crate) status: i32,
    pub(crate) parameters: Parameters,
}

/// What the kernel would set an id's queue pair to; zeros of iWARP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreement {
    pub(crate) remote_qpn: u32,
    /// First PSN of this side, which the kernel has chosen and told the peer.
    pub(crate) rq_psn: u32,
    /// First PSN of the peer.
    pub(crate) sq_psn: u32,
    /// `ibv_mtu`.
    pub(crate) mtu: u8,
    /// Code of the local ACK timeout.
    pub(crate) timeout: u8,
}

fn is_datagrams(space: PortSpace) -> bool {
    matches!(space, PortSpace::Udp | PortSpace::Ipoib)
}
