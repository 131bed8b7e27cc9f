//! Numbers of the transport that must not be taken for one another.

use core::fmt;

const MASK: u32 = 0xff_ffff;

/// A counter of 24 bits that wraps around. There is no total order, so none is
/// derived: two values compare by the shorter way around (IBA 9.7.1).
macro_rules! serial {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $name(u32);

        impl $name {
            /// Keeps the low 24 bits.
            pub const fn new(value: u32) -> Self {
                Self(value & MASK)
            }

            /// The value, below 2^24.
            pub const fn get(self) -> u32 {
                self.0
            }

            /// The value `count` later.
            #[must_use]
            pub const fn plus(self, count: u32) -> Self {
                Self::new(self.0.wrapping_add(count))
            }

            /// The value `count` earlier.
            #[must_use]
            pub const fn minus(self, count: u32) -> Self {
                Self::new(self.0.wrapping_sub(count))
            }

            /// The value that follows.
            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }

            /// How far `self` is after `other`, the shorter way around:
            /// −2^23 ≤ distance < 2^23, negative when `self` is before it.
            pub const fn since(self, other: Self) -> i32 {
                // Shifted up, so that the sign of 24 bits is that of 32.
                (self.0.wrapping_sub(other.0) << 8) as i32 >> 8
            }

            /// Whether `self` is later than `other`.
            pub const fn is_after(self, other: Self) -> bool {
                self.since(other) > 0
            }

            /// Whether `self` is earlier than `other`; of two values that are
            /// 2^23 apart, each is before the other.
            pub const fn is_before(self, other: Self) -> bool {
                self.since(other) < 0
            }

            /// Whether `self` is one of the `count` values from `first` on
            /// (`count` ≤ 2^24).
            pub const fn is_within(self, first: Self, count: u32) -> bool {
                (self.0.wrapping_sub(first.0) & MASK) < count
            }

            pub(crate) const fn from_be(bytes: [u8; 3]) -> Self {
                Self(u24(bytes))
            }

            pub(crate) const fn to_be(self) -> [u8; 3] {
                be24(self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#08x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

serial! {
    /// Packet sequence number (IBA 9.2.10, 9.7.1).
    Psn
}

serial! {
    /// Message sequence number: how many messages a responder has completed
    /// (IBA 9.7.7.1).
    Msn
}

pub(crate) const fn u24([a, b, c]: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, a, b, c])
}

pub(crate) const fn be24(value: u32) -> [u8; 3] {
    let [_, a, b, c] = value.to_be_bytes();
    [a, b, c]
}

/// Queue pair number, 24 bits (IBA 9.2.8).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Qpn(u32);

impl Qpn {
    /// The general services interface, which takes MADs (IBA chapter 13).
    pub const GSI: Self = Self(1);
    /// The destination of multicast (IBA 10.5).
    pub const MULTICAST: Self = Self(MASK);

    /// Keeps the low 24 bits.
    pub const fn new(value: u32) -> Self {
        Self(value & MASK)
    }

    /// The number, below 2^24.
    pub const fn get(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_be(bytes: [u8; 3]) -> Self {
        Self(u24(bytes))
    }

    pub(crate) const fn to_be(self) -> [u8; 3] {
        be24(self.0)
    }
}

impl fmt::Debug for Qpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Qpn({:#08x})", self.0)
    }
}

/// Partition key (IBA 9.2.7, 10.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PKey(pub u16);

impl PKey {
    /// The default partition with full membership: the one that RoCE has (A16).
    pub const DEFAULT: Self = Self(0xffff);

    /// Whether the key grants full membership.
    pub const fn is_full_member(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// Whether packets may pass between holders of these keys: the same
    /// partition, which is not 0, and one of them a full member (IBA 10.9).
    pub const fn matches(self, other: Self) -> bool {
        self.0 & 0x7fff != 0
            && (self.0 ^ other.0) & 0x7fff == 0
            && (self.is_full_member() || other.is_full_member())
    }
}

/// Queue key of a datagram (IBA 9.3, 10.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct QKey(pub u32);

impl QKey {
    /// The well-known key of QP 1 (IBA chapter 16).
    pub const GSI: Self = Self(0x8001_0000);

    /// Whether only a privileged sender may use it: the high bit of a work
    /// request's key, which is then replaced by the queue pair's own.
    pub const fn is_privileged(self) -> bool {
        self.0 & 0x8000_0000 != 0
    }
}

/// Remote key of a memory region or window (IBA 9.3, 10.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RKey(pub u32);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_distance_takes_one_number_to_the_other(a: u32, b: u32) {
            let (a, b) = (Psn::new(a), Psn::new(b));
            let distance = a.since(b);
            prop_assert!((-(1 << 23)..1 << 23).contains(&distance));
            prop_assert_eq!(b.plus(distance as u32), a);
            prop_assert_eq!(a.minus(distance as u32), b);
        }

        #[test]
        fn order_is_kept_across_the_wrap(start: u32, count in 1u32..1 << 23) {
            let first = Psn::new(start);
            let later = first.plus(count);
            prop_assert!(later.is_after(first) && !later.is_before(first));
            prop_assert!(first.is_before(later) && !first.is_after(later));
            prop_assert_eq!(later.since(first), count as i32);
            prop_assert!(later.is_within(first, count + 1));
            prop_assert!(!later.is_within(first, count));
        }

        #[test]
        fn twenty_four_bits_survive_the_wire(value: u32) {
            prop_assert_eq!(Psn::from_be(Psn::new(value).to_be()).get(), value & 0xff_ffff);
            prop_assert_eq!(Qpn::from_be(Qpn::new(value).to_be()).get(), value & 0xff_ffff);
        }
    }

    #[test]
    fn the_number_after_the_last_is_zero() {
        assert_eq!(Psn::new(0xff_ffff).next(), Psn::new(0));
        assert_eq!(Psn::new(0).minus(1), Psn::new(0xff_ffff));
        assert_eq!(Psn::new(0).since(Psn::new(0xff_ffff)), 1);
    }

    #[test]
    fn half_the_circle_is_before() {
        let (a, b) = (Psn::new(0), Psn::new(1 << 23));
        assert!(a.is_before(b) && b.is_before(a));
    }

    #[test]
    fn two_limited_members_do_not_talk() {
        assert!(PKey(0xffff).matches(PKey(0x7fff)));
        assert!(PKey(0x7fff).matches(PKey(0xffff)));
        assert!(!PKey(0x7fff).matches(PKey(0x7fff)));
        assert!(!PKey(0x8001).matches(PKey(0x8002)));
        assert!(!PKey(0x8000).matches(PKey(0x8000)));
    }
}
