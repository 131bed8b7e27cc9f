//! Sequence numbers that do not wrap.

use masq_wire::Psn;

/// A packet's number, counted on beyond 24 bits; its low 24 bits are the PSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seq(u64);

impl Seq {
    /// The first number of a connection. One turn of the PSN is added, so that
    /// there are numbers before it.
    pub(crate) fn first(psn: Psn) -> Self {
        Self((1 << 24) + u64::from(psn.get()))
    }

    /// The PSN.
    pub(crate) fn psn(self) -> Psn {
        // Psn keeps the low 24 bits.
        Psn::new(self.0 as u32)
    }

    /// The number with this PSN that is nearest to `self` (IBA 9.7.1).
    pub(crate) fn nearest(self, psn: Psn) -> Self {
        let distance = psn.since(self.psn());
        Self(self.0.saturating_add_signed(i64::from(distance)))
    }

    /// The number `count` later. 64 bits do not run out.
    pub(crate) fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How far it is after `other`, 0 if it is before.
    pub(crate) fn since(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }

    /// The number before it.
    pub(crate) fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}
