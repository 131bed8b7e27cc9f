//! Events on event virtqueues (SPEC clause 7).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One event: the device fills one device-writable buffer of this size and
/// signals the queue's call eventfd once (clause 7.1).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Event {
    /// [`COMPLETION`], [`CONNECTION`] or an asynchronous event: the numbers of
    /// `enum ibv_event_type`.
    pub kind: u32,
    /// Handle of the CQ, QP or SRQ, the id, or the port number.
    pub element: u32,
    /// Zero.
    pub reserved: u64,
}
const _: () = assert!(size_of::<Event>() == 16);

/// A CQ has a completion that its arming asked for.
pub const COMPLETION: u32 = 0x1_0000;

/// An id of a connection-management channel has an event for CM_GET_EVENT.
pub const CONNECTION: u32 = 0x2_0000;

/// Asynchronous events that the device raises; values of `ibv_event_type`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AsyncEvent {
    /// A CQ overflowed or cannot be written.
    CqErr = 0,
    /// A QP went to ERROR for a reason with no completion of its own.
    QpFatal = 1,
    /// A remote request was malformed.
    QpReqErr = 2,
    /// A remote request broke an access rule.
    QpAccessErr = 3,
    /// Data arrived in RTR.
    CommEst = 4,
    /// The send queue drained.
    SqDrained = 5,
    /// The device is gone.
    DeviceFatal = 8,
    /// The port came up.
    PortActive = 9,
    /// The port went down.
    PortErr = 10,
    /// An SRQ failed.
    SrqErr = 14,
    /// An SRQ fell below its limit.
    SrqLimitReached = 15,
    /// A QP on an SRQ consumed its last receive after going to ERROR.
    QpLastWqeReached = 16,
    /// The GID table changed.
    GidChange = 18,
}
