//! What a data-path device offers to the control side of masqd. The control
//! side has checked handles, quotas and policy; the device carries data.
//!
//! A device serves many [`Session`]s. Within one, objects are named by the
//! handles that the control side chose. Calls that take something away
//! (deregister, destroy, modify to ERROR, close) return only when the data path
//! has let go of it.

#![forbid(unsafe_code)]

mod capture;
mod network;
mod spec;

pub use capture::{Capture, CaptureSpec, CaptureView, CapturedPacket, MAX_SNAP, MIN_SNAP};
pub use network::{Arrival, MAD_LEN, Network, PublishedService, Sender, SenderKey, WireReport};
pub use spec::{
    AhSpec, CqSpec, Destination, DomainKey, EndpointKey, Grants, Handle, MrSpec, MwSpec, QpChange,
    QpCounters, QpReport, QpSpec, SessionSpec, SrqSpec,
};

use masq_memory::{MappedRing, Region};
use masq_spec::command::Status;
use masq_spec::device::Features;
use masq_spec::event::AsyncEvent;
use masq_spec::verbs::{Access, DeviceAttr, Gid, SrqAttr, State};
use masq_wire::Mtu;
use std::sync::Arc;

/// Why a device refuses.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The tenant's fault: the request contradicts the object's state.
    #[error("{0}")]
    Invalid(&'static str),
    /// Something that this device does not do.
    #[error("not supported by this device: {0}")]
    Unsupported(&'static str),
    /// A table of the device is full.
    #[error("the device is out of {0}")]
    Exhausted(&'static str),
    /// Another object uses it.
    #[error("still in use by {0}")]
    Busy(&'static str),
    /// A helper still reaches the process's memory; ask again soon.
    #[error("not let go of yet")]
    Again,
    /// Nobody answers there.
    #[error("{0}: no answer")]
    Unreachable(&'static str),
    /// The session or the device is gone.
    #[error("the device is gone")]
    Gone,
}

impl DeviceError {
    /// The status that the tenant gets.
    pub fn status(&self) -> Status {
        match self {
            Self::Invalid(_) => Status::Invalid,
            Self::Unsupported(_) => Status::Unsupported,
            Self::Exhausted(_) => Status::NoMemory,
            Self::Busy(_) | Self::Again => Status::Busy,
            Self::Unreachable(_) => Status::Unreachable,
            Self::Gone => Status::Gone,
        }
    }
}

/// Result of a device call.
pub type Result<T> = std::result::Result<T, DeviceError>;

/// Takes the events of one session. Called by a data-path thread, so it must
/// neither block nor wait for the tenant.
pub trait EventSink: Send + Sync {
    /// CQ `cq` has what its arming asked for.
    fn completion(&self, event_queue: u32, cq: Handle);
    /// Something happened to `element`: a handle of the kind that the event
    /// speaks of, or the port number.
    fn asynchronous(&self, kind: AsyncEvent, element: u32);
}

/// How a device carries the payload of a tenant's work requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPathKind {
    /// masqd's own threads copy it, or put it into packets.
    DirectCopy,
    /// masqd's threads hand the work requests to a card, which reaches the tenant's memory
    /// itself.
    Relay,
}

impl std::fmt::Display for DataPathKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::DirectCopy => "direct copy",
            Self::Relay => "relay",
        })
    }
}

/// A device.
pub trait Device: Send + Sync {
    /// Its name in logs and in `masqd --device`.
    fn name(&self) -> &str;
    /// What it can do, before quotas.
    fn attributes(&self) -> DeviceAttr;
    /// Feature bits that it serves.
    fn features(&self) -> Features;
    /// How it carries payload.
    fn data_path(&self) -> DataPathKind {
        DataPathKind::DirectCopy
    }
    /// The largest path MTU of its port.
    fn mtu(&self) -> Mtu {
        self.network().map_or(Mtu::B4096, |network| network.mtu())
    }
    /// Whether it sees by itself that a connection to another host meets a queue pair
    /// of the same tenant: by the partition in the packets. If not, the control side
    /// asks the other masq whose the queue pair is.
    fn separates_hosts(&self) -> bool {
        true
    }
    /// The way to other hosts; None: it serves this host only.
    fn network(&self) -> Option<Arc<dyn Network>> {
        None
    }
    /// Begins a session.
    ///
    /// # Errors
    /// [`DeviceError::Exhausted`] or [`DeviceError::Gone`].
    fn open(&self, spec: SessionSpec) -> Result<Box<dyn Session>>;
    /// Shows an endpoint's traffic from now on, whether it has sessions or not.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] or [`DeviceError::Gone`].
    fn capture(&self, spec: CaptureSpec) -> Result<Box<dyn Capture>> {
        let _ = spec;
        Err(DeviceError::Unsupported("captures"))
    }
}

/// One frontend process on a device. Dropping it closes it: every object is
/// released, and peers notice as if the process had vanished.
///
/// Errors are those of [`DeviceError`], and its own documentation says which
/// request breaks which rule.
#[allow(clippy::missing_errors_doc)]
pub trait Session: Send {
    /// Replaces what its work requests may do, from the next one on.
    fn set_grants(&mut self, grants: Grants) -> Result<()>;
    /// Replaces the GID that datagrams of this session come from.
    fn set_gid(&mut self, gid: Gid) -> Result<()>;
    /// Registers memory and returns its key (lkey and rkey). [`DeviceError::Again`]: it is
    /// being pinned; the caller asks [`Self::registered`] until it is, or has it
    /// [deregistered](Self::deregister).
    fn register(&mut self, mr: MrSpec) -> Result<u32>;
    /// What became of a registration that takes long.
    fn registered(&mut self, mr: Handle) -> Result<u32> {
        let _ = mr;
        Err(DeviceError::Invalid("nothing is being registered"))
    }
    /// Revokes the region; no access happens after the return. Gives back the
    /// region, so that the caller unmaps it. [`DeviceError::Again`]: its key is
    /// revoked already, but a helper still reaches memory outside the windows;
    /// the caller asks again until it has let go, which a deadline bounds.
    fn deregister(&mut self, mr: Handle) -> Result<Region>;
    /// Changes the protection domain and the rights of a region, and returns
    /// its key, which stays. What was checked before may still be carried out.
    fn change_mr(&mut self, mr: Handle, pd: Handle, access: Access) -> Result<u32> {
        let _ = (mr, pd, access);
        Err(DeviceError::Unsupported("changing a memory region"))
    }
    /// Allocates a memory window and returns its first rkey.
    fn alloc_mw(&mut self, mw: MwSpec) -> Result<u32>;
    /// Revokes a memory window.
    fn dealloc_mw(&mut self, mw: Handle) -> Result<()>;
    /// Creates a completion queue.
    fn create_cq(&mut self, cq: CqSpec) -> Result<()>;
    /// Moves a CQ to another ring; returns the first running index there.
    /// [`DeviceError::Again`]: sends are about to complete that may not fit.
    fn resize_cq(&mut self, cq: Handle, ring: MappedRing, cqe: u32) -> Result<u32>;
    /// Destroys a CQ that no queue pair uses.
    fn destroy_cq(&mut self, cq: Handle) -> Result<()>;
    /// Creates a shared receive queue.
    fn create_srq(&mut self, srq: SrqSpec) -> Result<()>;
    /// Arms the limit event.
    fn set_srq_limit(&mut self, srq: Handle, limit: u32) -> Result<()>;
    /// Attributes.
    fn query_srq(&mut self, srq: Handle) -> Result<SrqAttr>;
    /// Destroys an SRQ that no queue pair uses.
    fn destroy_srq(&mut self, srq: Handle) -> Result<()>;
    /// Creates a queue pair in RESET; returns its number and doorbell slot.
    fn create_qp(&mut self, qp: QpSpec) -> Result<(u32, u32)>;
    /// Applies a change whole or not at all; returns the new state.
    /// [`DeviceError::Again`]: a neighbour is being looked for; the caller asks
    /// again until it is found or the device says [`DeviceError::Unreachable`].
    fn modify_qp(&mut self, qp: Handle, change: QpChange) -> Result<State>;
    /// Attributes and counters.
    fn query_qp(&mut self, qp: Handle) -> Result<QpReport>;
    /// Moves a QP to ERROR on the operator's behalf: flush, and QP_FATAL.
    fn fail_qp(&mut self, qp: Handle) -> Result<()>;
    /// Destroys a QP; nothing of it is touched after the return.
    fn destroy_qp(&mut self, qp: Handle) -> Result<()>;
    /// Creates an address handle. [`DeviceError::Again`] as in [`Self::modify_qp`].
    fn create_ah(&mut self, ah: AhSpec) -> Result<()>;
    /// Forgets an address handle.
    fn destroy_ah(&mut self, ah: Handle) -> Result<()>;
    /// Names the endpoints of its tenant that multicast datagrams of this
    /// session may reach: those that the policy lets it reach by UD, its own
    /// among them if so. Replaces what was named before; to be called again
    /// when the policy changes. Until the first call: its own endpoint only.
    fn set_multicast_reach(&mut self, allowed: Vec<EndpointKey>) -> Result<()>;
    /// Adds a UD queue pair to a multicast group of its tenant.
    fn attach_multicast(&mut self, qp: Handle, group: Gid) -> Result<()>;
    /// Takes it out.
    fn detach_multicast(&mut self, qp: Handle, group: Gid) -> Result<()>;
}
