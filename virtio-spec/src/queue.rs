//! Work queues and completion queues in the driver's memory (SPEC clause 6).
//!
//! A ring is a 64-byte header followed by `slots` slots of `stride` bytes,
//! both powers of two. A slot carries a **stamp**: the slot belongs to the
//! consumer once its stamp equals the slot's running index plus one, modulo
//! 2^32 (clause 6.2). The stamp is stored last, with release order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes before the first slot of any ring.
pub const RING_HEADER: u64 = 64;
/// Most slots of any ring.
pub const MAX_SLOTS: u32 = 1 << 22;
/// Largest stride of a work-queue slot.
pub const MAX_STRIDE: u32 = 4096;
/// Bytes of a CQE and stride of a CQ.
pub const CQE_LEN: u32 = 64;

/// Header of SQ, RQ and SRQ: u32 running index of work the device is through
/// with; its slots may be reused (clause 6.3). Written by the device.
pub const HDR_DEVICE_INDEX: usize = 0;
/// Header of RQ and SRQ: u32, the doorbell slot that a driver rings after it
/// posted receives, plus one; 0: none (clause 5.4). Written by the device.
pub const HDR_RECEIVE_BELL: usize = 4;
/// Header of a CQ: u32 running index up to which the driver has polled
/// (clause 6.6). Written by the driver.
pub const HDR_CQ_CONSUMER: usize = 0;
/// Header of a CQ: u32 arm word, `serial << 2 | ArmKind` (clause 6.7).
/// Written by the driver; a changed word arms the CQ once.
pub const HDR_CQ_ARM: usize = 4;

/// Low bits of the arm word: the next completion of any kind.
pub const ARM_ANY: u32 = 2;
/// Low bits of the arm word: the next solicited or failed completion.
pub const ARM_SOLICITED: u32 = 1;

/// The stamp that makes the slot with running index `index` valid.
pub const fn stamp(index: u32) -> u32 {
    index.wrapping_add(1)
}

/// Bytes of a whole ring.
pub const fn ring_len(slots: u32, stride: u32) -> u64 {
    RING_HEADER + slots as u64 * stride as u64
}

/// A scatter/gather element, as `ibv_sge`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Sge {
    /// Address in the memory region (its iova space).
    pub addr: u64,
    /// Bytes; 0 is none (clause 6.4).
    pub length: u32,
    /// Local key.
    pub lkey: u32,
}
const _: () = assert!(size_of::<Sge>() == 16);

/// First 64 bytes of a send-queue slot (clause 6.4); `num_sge` elements of
/// [`Sge`] or `inline_len` bytes of data follow.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SendWqe {
    /// See the module's text.
    pub stamp: u32,
    /// A [`SendOpcode`].
    pub opcode: u8,
    /// [`SendFlags`].
    pub flags: u8,
    /// Scatter/gather elements that follow, unless INLINE.
    pub num_sge: u8,
    /// Zero.
    pub reserved0: u8,
    /// Returned in the completion.
    pub wr_id: u64,
    /// Immediate data (network order, opaque), or the rkey to invalidate, or
    /// for BIND_MW the new key of the window.
    pub imm_data: u32,
    /// Bytes of inline data that follow, if INLINE.
    pub inline_len: u32,
    /// Remote address; for BIND_MW the address that the window begins at.
    pub remote_addr: u64,
    /// Remote key; for BIND_MW the current key of the window.
    pub rkey: u32,
    /// UD: handle of the address handle. BIND_MW: lkey of the region.
    pub ah: u32,
    /// Atomics: compare or add operand. BIND_MW: length of the window.
    /// UD: remote QPN in the low half, Q_Key in the high half.
    pub compare_add: u64,
    /// Atomics: swap operand. BIND_MW: access flags of the window.
    pub swap: u64,
    /// Zero.
    pub reserved1: u64,
}
const _: () = assert!(size_of::<SendWqe>() == 64);

/// Offset of the elements or inline data in a send slot.
pub const SEND_DATA: usize = 64;

/// First 16 bytes of a receive slot (clause 6.5); `num_sge` [`Sge`] follow.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct RecvWqe {
    /// See the module's text.
    pub stamp: u32,
    /// Scatter elements that follow.
    pub num_sge: u32,
    /// Returned in the completion.
    pub wr_id: u64,
}
const _: () = assert!(size_of::<RecvWqe>() == 16);

/// Offset of the elements in a receive slot.
pub const RECV_DATA: usize = 16;

/// Opcodes of a send slot: the numbers of `enum ibv_wr_opcode`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[allow(missing_docs)]
pub enum SendOpcode {
    RdmaWrite = 0,
    RdmaWriteWithImm = 1,
    Send = 2,
    SendWithImm = 3,
    RdmaRead = 4,
    CompareSwap = 5,
    FetchAdd = 6,
    LocalInv = 7,
    BindMw = 8,
    SendWithInv = 9,
}

impl SendOpcode {
    /// The opcode with this number, if there is one.
    pub const fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            0 => Self::RdmaWrite,
            1 => Self::RdmaWriteWithImm,
            2 => Self::Send,
            3 => Self::SendWithImm,
            4 => Self::RdmaRead,
            5 => Self::CompareSwap,
            6 => Self::FetchAdd,
            7 => Self::LocalInv,
            8 => Self::BindMw,
            9 => Self::SendWithInv,
            _ => return None,
        })
    }
}

bitflags::bitflags! {
    /// Flags of a send slot: the bits of `enum ibv_send_flags`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SendFlags: u8 {
        /// Wait for earlier READs and atomics of the queue.
        const FENCE = 1;
        /// Report a completion.
        const SIGNALED = 2;
        /// Ask for an event at the receiver.
        const SOLICITED = 4;
        /// Data is in the slot.
        const INLINE = 8;
    }
}

/// A completion queue entry (clause 6.6).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Cqe {
    /// See the module's text.
    pub stamp: u32,
    /// A [`WcStatus`].
    pub status: u8,
    /// A [`WcOpcode`].
    pub opcode: u8,
    /// [`WcFlags`].
    pub flags: u16,
    /// From the work request.
    pub wr_id: u64,
    /// Bytes moved.
    pub byte_len: u32,
    /// Immediate data (network order, opaque) or invalidated rkey.
    pub imm_data: u32,
    /// Local QPN.
    pub qp_num: u32,
    /// UD: the sender's QPN.
    pub src_qp: u32,
    /// Finer reason of a failure; numbers of the backend.
    pub vendor_err: u32,
    /// Zero on Ethernet.
    pub slid: u16,
    /// Service level.
    pub sl: u8,
    /// Zero on Ethernet.
    pub dlid_path_bits: u8,
    /// Nanoseconds of CLOCK_REALTIME at completion, if the CQ asked for it.
    pub timestamp: u64,
    /// Zero.
    pub reserved0: u64,
    /// Running index of the request in its send queue, or of the receive in its
    /// receive queue.
    pub index: u32,
    /// Zero.
    pub reserved1: u32,
}
const _: () = assert!(size_of::<Cqe>() == CQE_LEN as usize);

/// Completion status: the numbers of `enum ibv_wc_status`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[allow(missing_docs)]
pub enum WcStatus {
    Success = 0,
    LocLenErr = 1,
    LocQpOpErr = 2,
    LocEecOpErr = 3,
    LocProtErr = 4,
    WrFlushErr = 5,
    MwBindErr = 6,
    BadRespErr = 7,
    LocAccessErr = 8,
    RemInvReqErr = 9,
    RemAccessErr = 10,
    RemOpErr = 11,
    RetryExcErr = 12,
    RnrRetryExcErr = 13,
    FatalErr = 19,
    RespTimeoutErr = 20,
    GeneralErr = 21,
}

/// Completion opcode: the numbers of `enum ibv_wc_opcode`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[allow(missing_docs)]
pub enum WcOpcode {
    Send = 0,
    RdmaWrite = 1,
    RdmaRead = 2,
    CompSwap = 3,
    FetchAdd = 4,
    BindMw = 5,
    LocalInv = 6,
    Recv = 128,
    RecvRdmaWithImm = 129,
}

bitflags::bitflags! {
    /// Completion flags: the bits of `enum ibv_wc_flags`, and SOLICITED.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct WcFlags: u16 {
        /// A GRH lies in the first 40 bytes of the receive buffer.
        const GRH = 1;
        /// `imm_data` is immediate data.
        const WITH_IMM = 2;
        /// `imm_data` is the rkey that was invalidated.
        const WITH_INV = 8;
    }
}
