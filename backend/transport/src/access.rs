//! Who may touch which memory (IBA 10.6.3, 10.6.7.2).

use masq_spec::verbs::Access;

/// What an access wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The owner's device reads (gather of a send).
    LocalRead,
    /// The owner's device writes (scatter of a receive or of a READ).
    LocalWrite,
    /// A peer reads.
    RemoteRead,
    /// A peer writes.
    RemoteWrite,
    /// A peer does an atomic.
    RemoteAtomic,
}

impl Need {
    /// The right that it takes.
    pub const fn right(self) -> Access {
        match self {
            Self::LocalRead => Access::empty(),
            Self::LocalWrite => Access::LOCAL_WRITE,
            Self::RemoteRead => Access::REMOTE_READ,
            Self::RemoteWrite => Access::REMOTE_WRITE,
            Self::RemoteAtomic => Access::REMOTE_ATOMIC,
        }
    }

    const fn is_remote(self) -> bool {
        matches!(
            self,
            Self::RemoteRead | Self::RemoteWrite | Self::RemoteAtomic
        )
    }
}

/// Who may use a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyScope {
    /// A memory region: local and remote use, any QP of the PD.
    Region,
    /// A bound window of type 1: remote use, any QP of the PD.
    Window,
    /// A bound window of type 2: remote use, through one QP.
    WindowOfQp(u32),
    /// A window that is not bound, or a key that was invalidated.
    Invalid,
}

/// What the key table knows of a key. `P` names a protection domain.
#[derive(Clone, Copy, Debug)]
pub struct KeyFacts<P> {
    /// The whole key, its consumer's byte included.
    pub key: u32,
    /// Protection domain.
    pub pd: P,
    /// Use.
    pub scope: KeyScope,
    /// Rights.
    pub access: Access,
    /// Address of the first byte.
    pub base: u64,
    /// Bytes.
    pub len: u64,
}

/// Why an access is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// The key belongs to another protection domain.
    #[error("key of another protection domain")]
    OtherDomain,
    /// The key is stale, not bound, or of another QP.
    #[error("key is not valid here")]
    Invalid,
    /// The right was not granted.
    #[error("right not granted")]
    NoRight,
    /// The range leaves the region or window.
    #[error("outside the region")]
    OutOfBounds,
}

/// Checks an access of `len` bytes at `addr` by `key`, through QP `qpn` of
/// `pd`, and returns its offset from the start of the region or window.
///
/// The protection domain is the first check: whoever guesses a key of another
/// domain learns nothing about it.
///
/// # Errors
/// The first rule that is broken.
#[inline]
pub fn check_key<P: PartialEq>(
    facts: &KeyFacts<P>,
    pd: &P,
    qpn: u32,
    key: u32,
    addr: u64,
    len: u64,
    need: Need,
) -> Result<u64, KeyFault> {
    if facts.pd != *pd {
        return Err(KeyFault::OtherDomain);
    }
    let usable = match facts.scope {
        KeyScope::Region => true,
        KeyScope::Window => need.is_remote(),
        KeyScope::WindowOfQp(owner) => need.is_remote() && owner == qpn,
        KeyScope::Invalid => false,
    };
    if facts.key != key || !usable {
        return Err(KeyFault::Invalid);
    }
    if !facts.access.contains(need.right()) {
        return Err(KeyFault::NoRight);
    }
    let offset = addr.checked_sub(facts.base).ok_or(KeyFault::OutOfBounds)?;
    match offset.checked_add(len) {
        Some(end) if end <= facts.len => Ok(offset),
        _ => Err(KeyFault::OutOfBounds),
    }
}
