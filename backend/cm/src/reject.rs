//! Why a message was refused (IBA 12.6.7.2).

/// Reason of a REJ. Peers may send any number; those that this agent sends or
/// understands have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reason(pub u16);

impl Reason {
    /// No resources: here the listener's backlog or a quota.
    pub const NO_RESOURCES: Self = Self(3);
    /// The sender gave up waiting.
    pub const TIMEOUT: Self = Self(4);
    /// The request is not supported: here the policy forbids it.
    pub const UNSUPPORTED: Self = Self(5);
    /// The communication id is not known.
    pub const INVALID_COMM_ID: Self = Self(6);
    /// Nobody listens.
    pub const INVALID_SERVICE_ID: Self = Self(8);
    /// Not a transport that the listener takes.
    pub const INVALID_TRANSPORT: Self = Self(9);
    /// The connection is a stale one.
    pub const STALE_CONNECTION: Self = Self(10);
    /// The program's own refusal.
    pub const CONSUMER: Self = Self(28);
    /// The program refuses the ECE options.
    pub const VENDOR_OPTION: Self = Self(35);
}

/// Which message a REJ or an MRA answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Answered(pub u8);

impl Answered {
    /// A REQ.
    pub const REQ: Self = Self(0);
    /// A REP.
    pub const REP: Self = Self(1);
    /// Something else, or nothing.
    pub const OTHER: Self = Self(2);
}

/// Status of a SIDR_REP (IBA 12.11.2): 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SidrStatus(pub u8);

impl SidrStatus {
    /// The service is here.
    pub const VALID: Self = Self(0);
    /// Nobody listens.
    pub const UNSUPPORTED: Self = Self(1);
    /// Refused by the program or by the policy.
    pub const REJECTED: Self = Self(2);
    /// No queue pair for it: here the backlog or a quota.
    pub const NO_QP: Self = Self(3);
}
