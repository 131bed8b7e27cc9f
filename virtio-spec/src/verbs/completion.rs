//! Completion queues and shared receive queues (SPEC clauses 9.5 and 9.6).

use super::Ring;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `event_queue` of a CQ without a completion channel.
pub const NO_EVENT_QUEUE: u32 = u32::MAX;

/// Creates a completion queue.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CreateCq {
    /// The ring; `stride` is [`crate::queue::CQE_LEN`].
    pub ring: Ring,
    /// Completions that may wait (`cqe`); at most `ring.slots`.
    pub cqe: u32,
    /// Event virtqueue of its completion channel, or [`NO_EVENT_QUEUE`].
    pub event_queue: u32,
    /// Below `num_comp_vectors` (1).
    pub comp_vector: u32,
    /// Bit 0: write timestamps. Bit 1: an overrun is ignored.
    pub flags: u32,
}
impl CreateCq {
    /// [`Self::flags`]: write timestamps.
    pub const TIMESTAMP: u32 = 1;
    /// [`Self::flags`]: the oldest entry is overwritten when the CQ is full.
    pub const IGNORE_OVERRUN: u32 = 2;
}

/// Replaces the ring of a CQ. From the response on, the device writes the new
/// ring, from running index [`CqResized::first_index`]; what it wrote before
/// remains to be polled in the old one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ResizeCq {
    /// Completion queue.
    pub handle: u32,
    /// New `cqe`.
    pub cqe: u32,
    /// New ring.
    pub ring: Ring,
}

/// The response to RESIZE_CQ.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CqResized {
    /// Running index of the first entry in the new ring; the old ring is valid
    /// below it.
    pub first_index: u32,
    /// Zero.
    pub reserved: u32,
}

/// Creates a shared receive queue.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CreateSrq {
    /// Protection domain.
    pub pd: u32,
    /// Receives that may wait; at most `ring.slots`.
    pub max_wr: u32,
    /// Elements of a receive.
    pub max_sge: u32,
    /// Initial limit.
    pub limit: u32,
    /// The ring of receive slots.
    pub ring: Ring,
}

bitflags::bitflags! {
    /// What MODIFY_SRQ changes: the bits of `enum ibv_srq_attr_mask`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SrqMask: u32 {
        /// Size (unsupported).
        const MAX_WR = 1;
        /// Limit: arms one SRQ_LIMIT_REACHED event.
        const LIMIT = 2;
    }
}

/// Changes a shared receive queue.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ModifySrq {
    /// Shared receive queue.
    pub handle: u32,
    /// [`SrqMask`].
    pub mask: u32,
    /// New size.
    pub max_wr: u32,
    /// New limit.
    pub limit: u32,
}

/// Attributes of a shared receive queue.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SrqAttr {
    /// As created.
    pub max_wr: u32,
    /// As created.
    pub max_sge: u32,
    /// Armed limit; 0 once it fired.
    pub limit: u32,
    /// Zero.
    pub reserved: u32,
}
