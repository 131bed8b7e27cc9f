//! Memory regions and windows (SPEC clauses 4 and 9.4).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags::bitflags! {
    /// Access rights: the bits of `enum ibv_access_flags`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Access: u32 {
        /// The device may write for its owner (receives, READ responses).
        const LOCAL_WRITE = 1;
        /// Peers may WRITE.
        const REMOTE_WRITE = 1 << 1;
        /// Peers may READ.
        const REMOTE_READ = 1 << 2;
        /// Peers may do atomics.
        const REMOTE_ATOMIC = 1 << 3;
        /// Windows may be bound to the region.
        const MW_BIND = 1 << 4;
        /// Addresses in the region or window count from its start.
        const ZERO_BASED = 1 << 5;
        /// Only a hint; pages are never pinned.
        const ON_DEMAND = 1 << 6;
        /// Only a hint.
        const HUGETLB = 1 << 7;
        /// Only a hint.
        const RELAXED_ORDERING = 1 << 20;
    }
}

/// Most segments of a memory region.
pub const MAX_SEGMENTS: usize = 128;

/// Registers `[addr, addr + len)`; `segments` × [`Segment`] follow, in address
/// order, without gaps, covering just that range.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RegMr {
    /// Protection domain.
    pub pd: u32,
    /// [`Access`].
    pub access: u32,
    /// Where the memory is in the address space of the driver.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Address by which work requests name the first byte.
    pub iova: u64,
    /// Number of segments.
    pub segments: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<RegMr>() == 40);

/// Where a piece of a region is found.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// In the shared file.
    Window = 0,
    /// Only in the address space of the process (clause 4.3).
    Remote = 1,
}

/// A piece of a region.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Segment {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Of a window: where its first byte is in the shared file, with the same offset
    /// in its page as `addr`. Else zero.
    pub at: u64,
    /// A [`SegmentKind`].
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Segment>() == 32);

/// The response to REG_MR, REREG_MR and ALLOC_MW.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MrCreated {
    /// Handle of the region or window.
    pub handle: u32,
    /// Local key (0 for a window).
    pub lkey: u32,
    /// Remote key; its low 8 bits belong to the consumer of a type-2 window.
    pub rkey: u32,
    /// Zero.
    pub reserved: u32,
}

bitflags::bitflags! {
    /// What REREG_MR changes: the bits of `enum ibv_rereg_mr_flags`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ReregMask: u32 {
        /// Address, length, iova and segments.
        const TRANSLATION = 1;
        /// Protection domain.
        const PD = 2;
        /// Access rights.
        const ACCESS = 4;
    }
}

/// Changes a region; its handle stays, and its keys unless the translation
/// changes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReregMr {
    /// Region.
    pub handle: u32,
    /// [`ReregMask`].
    pub mask: u32,
    /// New values where `mask` says so, else ignored.
    pub new: RegMr,
}
const _: () = assert!(size_of::<ReregMr>() == 48);

/// Kinds of memory windows: the numbers of `enum ibv_mw_type`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MwType {
    /// Bound by BIND_MW with a key that the device picks.
    Type1 = 1,
    /// Bound by BIND_MW with a key that the program picks; tied to one QP.
    Type2 = 2,
}

/// Allocates a memory window.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AllocMw {
    /// Protection domain.
    pub pd: u32,
    /// A [`MwType`].
    pub mw_type: u32,
}
