//! Bodies of the control commands (SPEC clause 9), by object.
//!
//! Numbers that programs see (access flags, QP types and states, attribute
//! masks, MTU codes) are those of the verbs API, so neither side translates.

mod address;
mod cm;
mod completion;
mod device;
mod memory;
mod qp;

pub use address::{AhAttr, CreateAh, Gid, GidEntry, GidTable, GidType, Multicast};
pub use cm::{
    CM_NO_EVENT, CmAccept, CmAddress, CmBind, CmConnect, CmCreateId, CmEnded, CmEvent, CmJoin,
    CmNumber, CmOption, CmParam, CmQpAttr, CmQpAttrs, CmRaised, CmReject, CmResolve, CmRoute,
    CmTarget, MAX_OPTION, MAX_PRIVATE_DATA,
};
pub use completion::{
    CqResized, CreateCq, CreateSrq, ModifySrq, NO_EVENT_QUEUE, ResizeCq, SrqAttr, SrqMask,
};
pub use device::{DeviceAttr, Hello, HelloReply, Join, PortAttr, QueryPort};
pub use memory::{
    Access, AllocMw, MAX_SEGMENTS, MrCreated, MwType, RegMr, ReregMask, ReregMr, Segment,
    SegmentKind,
};
pub use qp::{
    CreateQp, ModifyQp, NO_HANDLE, QpAttr, QpCaps, QpCreated, QpMask, QpState, QpType, Ring, State,
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A request that names one object of the session.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Handle {
    /// Handle within its kind; 0 is never one.
    pub handle: u32,
    /// Zero.
    pub reserved: u32,
}

/// The response to a creation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Created {
    /// Handle within its kind, valid in this session only.
    pub handle: u32,
    /// Zero.
    pub reserved: u32,
}
