//! Device identity, feature bits and configuration space (SPEC clause 2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The virtio device id of an RDMA device: assigned by the VIRTIO
/// specification, which defines nothing else about it (clause 2.1).
pub const DEVICE_ID: u32 = 42;

/// The version of SPEC.md that this crate implements: major in the high half.
/// Different majors cannot talk; a backend accepts a lower minor.
pub const SPEC_VERSION: u32 = 0x0001_0000;

/// Identifier of the work-queue and completion layouts of [`crate::queue`]
/// (clause 6.1). A backend may offer other layouts in the future.
pub const QUEUE_LAYOUT_MASQ: u32 = 1;

/// Index of the control virtqueue (clause 3.1).
pub const CONTROL_QUEUE: u8 = 0;
/// Index of the asynchronous-event virtqueue (clause 3.2).
pub const ASYNC_EVENT_QUEUE: u8 = 1;
/// Index of the first virtqueue that may serve a completion channel.
pub const FIRST_EVENT_QUEUE: u8 = 2;
/// Virtqueues of one connection; vhost-user carries an 8-bit index.
pub const MAX_QUEUES: usize = 256;
/// Largest size of a virtqueue.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// Shared-memory region id under which the doorbell page is mapped
/// (clause 5.1).
pub const SHMID_DOORBELL: u8 = 0;

/// Unit in which memory is shared: windows begin and end on it (clause 4.1).
pub const PAGE_SIZE: u64 = 4096;
/// Exclusive upper end of the address space that a memory region may name.
pub const MAX_ADDRESS: u64 = 1 << 47;

bitflags::bitflags! {
    /// Feature bits (clause 2.2). Bits 0–23 belong to the device type.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// Unreliable connected queue pairs.
        const UC = 1 << 0;
        /// Unreliable datagram queue pairs and address handles.
        const UD = 1 << 1;
        /// Compare-and-swap and fetch-and-add.
        const ATOMIC = 1 << 2;
        /// Shared receive queues.
        const SRQ = 1 << 3;
        /// Memory windows, types 1 and 2.
        const MEMORY_WINDOW = 1 << 4;
        /// Multicast groups for UD.
        const MULTICAST = 1 << 5;
        /// RESIZE_CQ.
        const RESIZE_CQ = 1 << 6;
        /// Memory outside the shared file may be registered (clause 4.3).
        const REMOTE_MEMORY = 1 << 7;
        /// Extended reliable connected (reserved, not offered).
        const XRC = 1 << 8;
        /// The transport is iWARP: no immediate data, READs into one element, and
        /// programs see an RNIC.
        const IWARP = 1 << 9;
        /// VHOST_USER_F_PROTOCOL_FEATURES.
        const PROTOCOL_FEATURES = 1 << 30;
        /// VIRTIO_F_VERSION_1.
        const VERSION_1 = 1 << 32;
    }
}

impl Features {
    /// Bits without which no session can be opened.
    pub const REQUIRED: Self = Self::VERSION_1;
}

/// A version string as both sides exchange it: UTF-8, zero padded.
pub type VersionText = [u8; 32];

/// Pads or cuts `text` to the fixed width of a [`VersionText`].
pub fn version_text(text: &str) -> VersionText {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    out
}

/// The text of a [`VersionText`], lossily, without its padding.
pub fn version_str(text: &VersionText) -> String {
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned()
}

/// Device configuration space (clause 2.3), read by VHOST_USER_GET_CONFIG
/// before anything else.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// [`SPEC_VERSION`] of the backend.
    pub spec_version: u32,
    /// Layout of the queues, see [`QUEUE_LAYOUT_MASQ`].
    pub queue_layout: u32,
    /// EUI-64 of the device; stable over restarts.
    pub node_guid: u64,
    /// PCI-style vendor id that programs see.
    pub vendor_id: u32,
    /// Part id that programs see; some choose their data path by it.
    pub vendor_part_id: u32,
    /// Hardware revision that programs see.
    pub hw_ver: u32,
    /// Event virtqueues that one connection may set up, beyond the first two.
    pub max_event_queues: u32,
    /// Bytes of the doorbell page.
    pub doorbell_len: u32,
    /// Bytes that a control request or response may hold.
    pub max_command_len: u32,
    /// Device name that programs see, zero padded.
    pub device_name: [u8; 32],
    /// Version of the backend, for messages to people.
    pub backend_version: VersionText,
}
const _: () = assert!(size_of::<Config>() == 104);
