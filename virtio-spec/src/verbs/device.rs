//! Session, device and port (SPEC clauses 9.1 and 9.2).

use crate::device::VersionText;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First request of a session.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Hello {
    /// [`crate::device::SPEC_VERSION`] of the frontend.
    pub spec_version: u32,
    /// Layout the frontend will use, see [`crate::device::QUEUE_LAYOUT_MASQ`].
    pub queue_layout: u32,
    /// Version of the frontend, for messages to people.
    pub frontend_version: VersionText,
    /// Name of the program, for people; nothing depends on it.
    pub program: [u8; 32],
}

/// Answer to [`Hello`]; also sent with status VERSION, so that both versions
/// can be named in the refusal.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HelloReply {
    /// Spec version of the backend.
    pub spec_version: u32,
    /// Zero.
    pub reserved: u32,
    /// Identifies the session in logs and in [`Join`].
    pub session: u64,
    /// Whoever presents it may join further connections to the session.
    pub secret: [u8; 16],
    /// Version of the backend, for messages to people.
    pub backend_version: VersionText,
}

/// Adds the event queues of this connection to an existing session.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Join {
    /// From [`HelloReply`].
    pub session: u64,
    /// From [`HelloReply`].
    pub secret: [u8; 16],
    /// Event queue `q` of this connection is named `base + q` in CREATE_CQ;
    /// a multiple of 256, unused so far.
    pub base: u32,
    /// Zero.
    pub reserved: u32,
}

/// Limits and capabilities, `ibv_device_attr(_ex)`; what is not here is fixed
/// by clause 9.2.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[allow(missing_docs)]
pub struct DeviceAttr {
    pub max_mr_size: u64,
    pub page_size_cap: u64,
    /// `ibv_device_cap_flags`.
    pub device_cap_flags: u64,
    pub max_qp: u32,
    pub max_qp_wr: u32,
    pub max_sge: u32,
    pub max_sge_rd: u32,
    pub max_cq: u32,
    pub max_cqe: u32,
    pub max_mr: u32,
    pub max_pd: u32,
    pub max_qp_rd_atom: u32,
    pub max_qp_init_rd_atom: u32,
    pub max_res_rd_atom: u32,
    /// `ibv_atomic_cap`.
    pub atomic_cap: u32,
    pub max_mw: u32,
    pub max_mcast_grp: u32,
    pub max_mcast_qp_attach: u32,
    pub max_total_mcast_qp_attach: u32,
    pub max_ah: u32,
    pub max_srq: u32,
    pub max_srq_wr: u32,
    pub max_srq_sge: u32,
    pub max_inline_data: u32,
    pub local_ca_ack_delay: u32,
}
const _: () = assert!(size_of::<DeviceAttr>() == 112);

/// Which port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct QueryPort {
    /// 1.
    pub port: u32,
    /// Zero.
    pub reserved: u32,
}

/// State of the port, `ibv_port_attr`; what is not here is fixed by
/// clause 9.2.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[allow(missing_docs)]
pub struct PortAttr {
    /// `ibv_port_state`.
    pub state: u32,
    /// `ibv_mtu`.
    pub max_mtu: u32,
    /// `ibv_mtu`.
    pub active_mtu: u32,
    pub gid_tbl_len: u32,
    pub port_cap_flags: u32,
    pub max_msg_sz: u32,
    pub pkey_tbl_len: u32,
    pub active_width: u32,
    pub active_speed: u32,
    /// `ibv_phys_state` number.
    pub phys_state: u32,
}
