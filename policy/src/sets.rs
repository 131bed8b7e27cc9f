//! The small closed sets of the policy language: QP types, verbs, remote rights.

use std::{fmt, ops, str::FromStr};

use serde::{Serialize, Serializer};

macro_rules! flag_set {
    (
        $(#[$flag_doc:meta])* enum $Flag:ident { $($(#[$doc:meta])* $Variant:ident = $text:literal,)+ }
        $(#[$set_doc:meta])* struct $Set:ident;
    ) => {
        $(#[$flag_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $Flag { $($(#[$doc])* $Variant,)+ }

        impl $Flag {
            /// Every value, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$Variant,)+];

            /// The word that the policy file uses.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$Variant => $text,)+ }
            }

            const fn bit(self) -> u16 {
                1 << self as u16
            }
        }

        impl fmt::Display for $Flag {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $Flag {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|flag| flag.name() == text).ok_or(UnknownWord)
            }
        }

        impl Serialize for $Flag {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.name())
            }
        }

        $(#[$set_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $Set(u16);

        impl $Set {
            /// The empty set.
            pub const NONE: Self = Self(0);
            /// The full set.
            pub const ALL: Self = Self($($Flag::$Variant.bit() |)+ 0);

            /// Whether `flag` is a member.
            pub const fn contains(self, flag: $Flag) -> bool {
                self.0 & flag.bit() != 0
            }

            /// The set with `flag` added.
            #[must_use]
            pub const fn with(self, flag: $Flag) -> Self {
                Self(self.0 | flag.bit())
            }

            /// The members that `other` lacks.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// Whether there is no member.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Whether every member is one of `other`.
            pub const fn is_subset(self, other: Self) -> bool {
                self.0 & !other.0 == 0
            }

            /// The members in the order of the reference.
            pub fn iter(self) -> impl Iterator<Item = $Flag> {
                $Flag::ALL.iter().copied().filter(move |flag| self.contains(*flag))
            }
        }

        impl From<$Flag> for $Set {
            fn from(flag: $Flag) -> Self {
                Self(flag.bit())
            }
        }

        impl FromIterator<$Flag> for $Set {
            fn from_iter<I: IntoIterator<Item = $Flag>>(flags: I) -> Self {
                flags.into_iter().fold(Self::NONE, Self::with)
            }
        }

        impl ops::BitOr for $Set {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl fmt::Display for $Set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.is_empty() {
                    return f.write_str("none");
                }
                for (i, flag) in self.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    f.write_str(flag.name())?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $Set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{{{self}}}")
            }
        }

        impl Serialize for $Set {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_seq(self.iter())
            }
        }
    };
}

/// The word names no member of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown word")]
pub struct UnknownWord;

flag_set! {
    /// A queue pair type that a policy can speak of. Raw packet QPs are never offered.
    #[doc(alias = "ibv_qp_type")]
    enum QpType {
        /// Reliable connection.
        Rc = "RC",
        /// Unreliable connection.
        Uc = "UC",
        /// Unreliable datagram.
        Ud = "UD",
        /// Extended reliable connection, either side.
        Xrc = "XRC",
    }
    /// A set of [`QpType`].
    struct QpTypes;
}

flag_set! {
    /// An operation that a tenant may or may not use.
    #[doc(alias = "ibv_wr_opcode")]
    enum Verb {
        /// SEND and SEND_WITH_IMM.
        Send = "send",
        /// SEND_WITH_INV, which invalidates an rkey of the receiver.
        SendInv = "send_inv",
        /// RDMA WRITE and WRITE_WITH_IMM.
        Write = "write",
        /// RDMA READ.
        Read = "read",
        /// Compare-and-swap and fetch-and-add.
        Atomic = "atomic",
        /// Binding a memory window, by work request or by `ibv_bind_mw`.
        BindMw = "bind_mw",
        /// Invalidating one's own rkey by work request.
        LocalInv = "local_inv",
        /// Creating a shared receive queue.
        CreateSrq = "create_srq",
        /// Attaching a UD queue pair to a multicast group, and sending to one.
        Multicast = "multicast",
    }
    /// A set of [`Verb`].
    struct Verbs;
}

flag_set! {
    /// One right that a memory region can grant to the peer.
    #[doc(alias = "ibv_access_flags")]
    enum RemoteRight {
        /// `IBV_ACCESS_REMOTE_READ`.
        Read = "read",
        /// `IBV_ACCESS_REMOTE_WRITE`.
        Write = "write",
        /// `IBV_ACCESS_REMOTE_ATOMIC`.
        Atomic = "atomic",
    }
    /// The set of rights that a memory region or window grants to the peer.
    struct RemoteAccess;
}

impl RemoteAccess {
    /// Remote read alone.
    pub const READ: Self = Self(RemoteRight::Read.bit());
    /// Remote write alone.
    pub const WRITE: Self = Self(RemoteRight::Write.bit());
    /// Remote atomic alone.
    pub const ATOMIC: Self = Self(RemoteRight::Atomic.bit());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_no_more() {
        let set = QpTypes::from(QpType::Rc).with(QpType::Ud);
        assert_eq!(set.iter().collect::<Vec<_>>(), [QpType::Rc, QpType::Ud]);
        assert!(!set.contains(QpType::Uc));
        assert!(set.is_subset(QpTypes::ALL) && !QpTypes::ALL.is_subset(set));
        assert_eq!(set.to_string(), "RC, UD");
        assert_eq!(RemoteAccess::NONE.to_string(), "none");
        assert_eq!(
            (RemoteAccess::READ | RemoteAccess::WRITE).without(RemoteAccess::READ),
            RemoteAccess::WRITE
        );
    }
}
