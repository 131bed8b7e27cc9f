//! Queue pairs (SPEC clause 9.7).

use super::AhAttr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Absent handle in a request that may name an object.
pub const NO_HANDLE: u32 = 0;

/// A ring in the driver's memory (clause 6.1).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Ring {
    /// Address of its header, in the shared file; a multiple of 64.
    pub addr: u64,
    /// Number of slots, a power of two; 0 if the ring is absent.
    pub slots: u32,
    /// Bytes of a slot, a power of two.
    pub stride: u32,
}
const _: () = assert!(size_of::<Ring>() == 16);

/// Types of queue pairs: the numbers of `enum ibv_qp_type`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub enum QpType {
    /// Reliable connected.
    #[serde(rename = "RC")]
    Rc = 2,
    /// Unreliable connected.
    #[serde(rename = "UC")]
    Uc = 3,
    /// Unreliable datagram.
    #[serde(rename = "UD")]
    Ud = 4,
}

impl QpType {
    /// The type with this number, if the device may offer it.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            2 => Self::Rc,
            3 => Self::Uc,
            4 => Self::Ud,
            _ => return None,
        })
    }
}

/// States of a queue pair: the numbers of `enum ibv_qp_state`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum State {
    #[default]
    Reset = 0,
    Init = 1,
    Rtr = 2,
    Rts = 3,
    Sqd = 4,
    Sqe = 5,
    Err = 6,
}

impl State {
    /// The state with this number, if there is one.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            0 => Self::Reset,
            1 => Self::Init,
            2 => Self::Rtr,
            3 => Self::Rts,
            4 => Self::Sqd,
            5 => Self::Sqe,
            6 => Self::Err,
            _ => return None,
        })
    }
}

/// Capacities of a queue pair, `ibv_qp_cap`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[allow(missing_docs)]
pub struct QpCaps {
    pub max_send_wr: u32,
    pub max_recv_wr: u32,
    pub max_send_sge: u32,
    pub max_recv_sge: u32,
    pub max_inline_data: u32,
    /// Zero.
    pub reserved: u32,
}

/// Creates a queue pair, in RESET.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CreateQp {
    /// Protection domain.
    pub pd: u32,
    /// A [`QpType`].
    pub qp_type: u32,
    /// Completion queue of sends.
    pub send_cq: u32,
    /// Completion queue of receives.
    pub recv_cq: u32,
    /// Shared receive queue, or [`NO_HANDLE`].
    pub srq: u32,
    /// 1: every send is signalled.
    pub sq_sig_all: u32,
    /// What the rings hold; kept exactly and answered by QUERY_QP.
    pub caps: QpCaps,
    /// Send ring: a stride of at least 64 + max(16 × max_send_sge,
    /// max_inline_data).
    pub sq: Ring,
    /// Receive ring: a stride of at least 16 + 16 × max_recv_sge; absent with
    /// an SRQ.
    pub rq: Ring,
}
const _: () = assert!(size_of::<CreateQp>() == 80);

/// The response to CREATE_QP.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct QpCreated {
    /// Handle.
    pub handle: u32,
    /// Number by which peers know it, 24 bits.
    pub qpn: u32,
    /// Its slot in the doorbell page.
    pub doorbell: u32,
    /// Zero.
    pub reserved: u32,
}

bitflags::bitflags! {
    /// What MODIFY_QP sets: the bits of `enum ibv_qp_attr_mask`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct QpMask: u32 {
        /// `state`.
        const STATE = 1 << 0;
        /// `cur_state`.
        const CUR_STATE = 1 << 1;
        /// `en_sqd_async_notify`.
        const EN_SQD_ASYNC_NOTIFY = 1 << 2;
        /// `access_flags`.
        const ACCESS_FLAGS = 1 << 3;
        /// `pkey_index`.
        const PKEY_INDEX = 1 << 4;
        /// `port`.
        const PORT = 1 << 5;
        /// `qkey`.
        const QKEY = 1 << 6;
        /// `av`.
        const AV = 1 << 7;
        /// `path_mtu`.
        const PATH_MTU = 1 << 8;
        /// `timeout`.
        const TIMEOUT = 1 << 9;
        /// `retry_cnt`.
        const RETRY_CNT = 1 << 10;
        /// `rnr_retry`.
        const RNR_RETRY = 1 << 11;
        /// `rq_psn`.
        const RQ_PSN = 1 << 12;
        /// `max_qp_rd_atomic`.
        const MAX_QP_RD_ATOMIC = 1 << 13;
        /// `alt_path`.
        const ALT_PATH = 1 << 14;
        /// `min_rnr_timer`.
        const MIN_RNR_TIMER = 1 << 15;
        /// `sq_psn`.
        const SQ_PSN = 1 << 16;
        /// `max_dest_rd_atomic`.
        const MAX_DEST_RD_ATOMIC = 1 << 17;
        /// `path_mig_state`.
        const PATH_MIG_STATE = 1 << 18;
        /// `cap`.
        const CAP = 1 << 19;
        /// `dest_qpn`.
        const DEST_QPN = 1 << 20;
        /// `rate_limit`.
        const RATE_LIMIT = 1 << 25;
    }
}

/// Attributes of a queue pair, `ibv_qp_attr`; in MODIFY_QP those that its
/// mask names, in the answer to QUERY_QP all.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct QpAttr {
    /// [`State`].
    pub qp_state: u32,
    /// [`State`] that the program believes in.
    pub cur_qp_state: u32,
    /// `ibv_mtu`.
    pub path_mtu: u32,
    /// `ibv_mig_state`.
    pub path_mig_state: u32,
    /// Q_Key.
    pub qkey: u32,
    /// First PSN expected.
    pub rq_psn: u32,
    /// First PSN sent.
    pub sq_psn: u32,
    /// Number of the peer's QP.
    pub dest_qp_num: u32,
    /// [`super::Access`] that peers have through this QP.
    pub qp_access_flags: u32,
    /// As created.
    pub caps: QpCaps,
    /// Primary path.
    pub ah: AhAttr,
    /// Alternate path.
    pub alt_ah: AhAttr,
    /// Index in the pkey table.
    pub pkey_index: u16,
    /// Of the alternate path.
    pub alt_pkey_index: u16,
    /// 1: an event when the queue has drained.
    pub en_sqd_async_notify: u8,
    /// 1: draining.
    pub sq_draining: u8,
    /// READs and atomics that it may have outstanding.
    pub max_rd_atomic: u8,
    /// READs and atomics that its peer may have outstanding.
    pub max_dest_rd_atomic: u8,
    /// Code of the RNR delay that it asks of its peer.
    pub min_rnr_timer: u8,
    /// Port.
    pub port_num: u8,
    /// Code of the local ACK timeout, 4.096 µs × 2^n.
    pub timeout: u8,
    /// Retries after a timeout.
    pub retry_cnt: u8,
    /// Retries after RNR; 7 means without end.
    pub rnr_retry: u8,
    /// Of the alternate path.
    pub alt_port_num: u8,
    /// Of the alternate path.
    pub alt_timeout: u8,
    /// 1: every send is signalled.
    pub sq_sig_all: u8,
    /// kbit/s; unsupported.
    pub rate_limit: u32,
}
const _: () = assert!(size_of::<QpAttr>() == 144);

/// Changes a queue pair.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ModifyQp {
    /// Queue pair.
    pub handle: u32,
    /// [`QpMask`].
    pub mask: u32,
    /// New values.
    pub attr: QpAttr,
}

/// The response to MODIFY_QP.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct QpState {
    /// The [`State`] it is in now.
    pub state: u32,
    /// Zero.
    pub reserved: u32,
}
