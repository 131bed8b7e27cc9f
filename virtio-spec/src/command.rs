//! Control commands: framing, opcodes and status codes (SPEC clause 8).
//!
//! A command is one descriptor chain on the control queue: device-readable
//! bytes, a [`RequestHeader`] and the body of its opcode, then device-writable
//! bytes, a [`ResponseHeader`] and the body of its opcode.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most bytes of a request, and of a response, header included.
pub const MAX_COMMAND_LEN: usize = 4096;
/// Most descriptors of a chain on the control queue.
pub const MAX_CHAIN: usize = 8;

/// Start of every request.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RequestHeader {
    /// An [`Opcode`].
    pub opcode: u16,
    /// Zero.
    pub flags: u16,
    /// Bytes of the body that follows.
    pub len: u32,
}
const _: () = assert!(size_of::<RequestHeader>() == 8);

/// Start of every response.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ResponseHeader {
    /// A [`Status`].
    pub status: u32,
    /// Bytes of the body that follows; 0 unless the status is OK.
    pub len: u32,
}
const _: () = assert!(size_of::<ResponseHeader>() == 8);

macro_rules! raw_enum {
    ($(#[$meta:meta])* $name:ident: $raw:ty { $($(#[$doc:meta])* $variant:ident = $value:expr,)+ }) => {
        $(#[$meta])*
        #[repr($raw)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$doc])* $variant = $value,)+ }
        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The value with this number, if there is one.
            pub const fn from_raw(raw: $raw) -> Option<Self> {
                match raw { $($value => Some(Self::$variant),)+ _ => None }
            }
            /// Its number.
            pub const fn raw(self) -> $raw { self as $raw }
        }
    };
}

raw_enum! {
    /// What a command asks for (clause 8.3). The request and response bodies
    /// are the structures of [`crate::verbs`] named in each line.
    Opcode: u16 {
        /// `Hello` → `HelloReply`; must come first.
        Hello = 0x0001,
        /// `Join` → nothing: adds this connection to an existing session.
        Join = 0x0002,
        /// nothing → `DeviceAttr`.
        QueryDevice = 0x0010,
        /// `QueryPort` → `PortAttr`.
        QueryPort = 0x0011,
        /// nothing → `GidTable`, then `count` × `GidEntry`.
        QueryGidTable = 0x0012,
        /// nothing → `Created`.
        AllocPd = 0x0020,
        /// `Handle` → nothing.
        DeallocPd = 0x0021,
        /// `RegMr`, then `segments` × `Segment` → `MrCreated`.
        RegMr = 0x0030,
        /// `Handle` → nothing; no access happens after the response.
        DeregMr = 0x0031,
        /// `ReregMr`, then `segments` × `Segment` → `MrCreated`.
        ReregMr = 0x0032,
        /// `AllocMw` → `MrCreated`.
        AllocMw = 0x0038,
        /// `Handle` → nothing.
        DeallocMw = 0x0039,
        /// `CreateCq` → `Created`.
        CreateCq = 0x0040,
        /// `Handle` → nothing.
        DestroyCq = 0x0041,
        /// `ResizeCq` → `CqResized`.
        ResizeCq = 0x0042,
        /// `CreateSrq` → `Created`.
        CreateSrq = 0x0050,
        /// `Handle` → nothing.
        DestroySrq = 0x0051,
        /// `ModifySrq` → nothing.
        ModifySrq = 0x0052,
        /// `Handle` → `SrqAttr`.
        QuerySrq = 0x0053,
        /// `CreateQp` → `QpCreated`.
        CreateQp = 0x0060,
        /// `Handle` → nothing.
        DestroyQp = 0x0061,
        /// `ModifyQp` → `QpState`.
        ModifyQp = 0x0062,
        /// `Handle` → `QpAttr`.
        QueryQp = 0x0063,
        /// `CreateAh` → `Created`.
        CreateAh = 0x0070,
        /// `Handle` → nothing.
        DestroyAh = 0x0071,
        /// `Multicast` → nothing.
        AttachMcast = 0x0078,
        /// `Multicast` → nothing.
        DetachMcast = 0x0079,
        /// `CmCreateId` → `Created`.
        CmCreateId = 0x0080,
        /// `CmTarget` → `CmEnded`.
        CmDestroyId = 0x0081,
        /// `CmBind` → `CmRaised`.
        CmBind = 0x0082,
        /// `CmResolve` → `CmRaised`.
        CmResolveAddr = 0x0083,
        /// `CmNumber` → `CmRaised`.
        CmResolveRoute = 0x0084,
        /// `CmTarget` → `CmRoute`.
        CmQuery = 0x0085,
        /// `CmConnect` → `CmRaised`.
        CmConnect = 0x0086,
        /// `CmNumber` → `CmRaised`.
        CmListen = 0x0087,
        /// `CmAccept` → `CmRaised`.
        CmAccept = 0x0088,
        /// `CmReject` → `CmRaised`.
        CmReject = 0x0089,
        /// `CmTarget` → `CmRaised`.
        CmDisconnect = 0x008a,
        /// `CmNumber` → `CmQpAttrs`.
        CmQpAttr = 0x008b,
        /// `CmTarget` → `CmEvent`.
        CmGetEvent = 0x008c,
        /// `CmOption`, then `len` bytes → `CmRaised`.
        CmSetOption = 0x008d,
        /// `CmNumber` → `CmRaised`.
        CmNotify = 0x008e,
        /// `CmJoin` → `Created`.
        CmJoin = 0x008f,
        /// `CmTarget` → `CmEnded`.
        CmLeave = 0x0090,
        /// `CmNumber` → `CmEnded`.
        CmMigrate = 0x0091,
        /// `CmTarget` → nothing; ends the channel's ids.
        CmCloseChannel = 0x0092,
    }
}

raw_enum! {
    /// How a command ended (clause 8.2).
    Status: u32 {
        /// Done.
        Ok = 0,
        /// The request is malformed or contradicts the object's state (EINVAL).
        Invalid = 1,
        /// The tenant's policy forbids it (EPERM).
        Denied = 2,
        /// A quota or the host's memory is exhausted (ENOMEM).
        NoMemory = 3,
        /// The device does not offer it (EOPNOTSUPP).
        Unsupported = 4,
        /// Other objects still use the object (EBUSY).
        Busy = 5,
        /// Memory that cannot be reached (EFAULT).
        Fault = 6,
        /// No such handle in this session (ENOENT).
        NoSuchObject = 7,
        /// The peer's address is not known (EHOSTUNREACH).
        Unreachable = 8,
        /// The peer took too long (ETIMEDOUT).
        TimedOut = 9,
        /// The session is closing (ENODEV).
        Gone = 10,
        /// The backend failed (EIO).
        Internal = 11,
        /// The versions cannot talk to each other (EPROTO).
        Version = 12,
        /// An attribute is out of the device's range (ERANGE).
        OutOfRange = 13,
        /// The local port is taken (EADDRINUSE).
        AddressInUse = 14,
        /// The endpoint does not have the address (EADDRNOTAVAIL).
        AddressNotAvailable = 15,
        /// Not connected (ENOTCONN).
        NotConnected = 16,
    }
}

impl Status {
    /// The Linux errno that a verbs library returns for this status.
    pub const fn errno(self) -> i32 {
        match self {
            Self::Ok => 0,
            Self::Invalid => 22,
            Self::Denied => 1,
            Self::NoMemory => 12,
            Self::Unsupported => 95,
            Self::Busy => 16,
            Self::Fault => 14,
            Self::NoSuchObject => 2,
            Self::Unreachable => 113,
            Self::TimedOut => 110,
            Self::Gone => 19,
            Self::Internal => 5,
            Self::Version => 71,
            Self::OutOfRange => 34,
            Self::AddressInUse => 98,
            Self::AddressNotAvailable => 99,
            Self::NotConnected => 107,
        }
    }
}
