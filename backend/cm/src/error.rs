//! Why a call was refused.

use masq_spec::command::Status;

/// Why a call was refused; nothing was changed. Each is the caller's fault or
/// the state of the id, never this crate's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmError {
    /// No id, or no membership, has this number.
    #[error("no such id")]
    NoSuchId,
    /// The id belongs to another channel.
    #[error("the id belongs to another channel")]
    OtherChannel,
    /// A parameter is out of its range, or the id's state does not allow it.
    #[error("not allowed in this state, or a parameter is out of range")]
    Invalid,
    /// Another id has the port.
    #[error("the port is taken")]
    AddressInUse,
    /// The endpoint does not have this address.
    #[error("the endpoint does not have this address")]
    AddressNotAvailable,
    /// There is no connection yet, or no more.
    #[error("not connected")]
    NotConnected,
    /// An option that this connection manager does not know.
    #[error("not supported")]
    Unsupported,
    /// Ports, ids or memberships are used up.
    #[error("used up")]
    NoMemory,
}

impl CmError {
    /// How the command ends (SPEC clause 8.2).
    pub const fn status(&self) -> Status {
        match self {
            Self::NoSuchId => Status::NoSuchObject,
            Self::OtherChannel | Self::Invalid => Status::Invalid,
            Self::AddressInUse => Status::AddressInUse,
            Self::AddressNotAvailable => Status::AddressNotAvailable,
            Self::NotConnected => Status::NotConnected,
            Self::Unsupported => Status::Unsupported,
            Self::NoMemory => Status::NoMemory,
        }
    }
}
