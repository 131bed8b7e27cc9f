//! ACK extended transport header (IBA 9.3.5): the answer of a reliable
//! responder.
//!
//! ```text
//!  0: syndrome: 0 | kind(2) | value(5) | MSN (24)
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Msn;

/// How many more receives the responder offers, as an ACK codes it (IBA
/// 9.7.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credits(u8);

impl Credits {
    /// The responder does not count: no limit.
    pub const UNLIMITED: Self = Self(31);

    /// Keeps the low five bits.
    pub const fn from_code(code: u8) -> Self {
        Self(code & 31)
    }

    /// The five bits.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// The largest code that promises no more than `count`.
    pub fn at_most(count: u32) -> Self {
        let code = (0..31u8).rev().find(|code| match Self(*code).count() {
            Some(promised) => promised <= count,
            None => false,
        });
        Self(code.unwrap_or(0))
    }

    /// The count; none for no limit.
    pub const fn count(self) -> Option<u32> {
        match self.0 {
            31 => None,
            code @ 0..=3 => Some(code as u32),
            // Two codes for each doubling: 2^n and 3 × 2^(n−1).
            code if code % 2 == 0 => Some(1 << (code / 2)),
            code => Some(3 << ((code - 3) / 2)),
        }
    }
}

/// The code of the least delay before a retry, in an RNR NAK; `masq-transport`
/// has the delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RnrTimer(u8);

impl RnrTimer {
    /// Keeps the low five bits.
    pub const fn from_code(code: u8) -> Self {
        Self(code & 31)
    }

    /// The five bits.
    pub const fn code(self) -> u8 {
        self.0
    }
}

/// Why a responder refused a request (IBA 9.7.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NakCode {
    /// A packet before this one is missing.
    PsnSequence = 0,
    /// The request is malformed, too long, or of a kind not taken.
    InvalidRequest = 1,
    /// Key, right or range.
    RemoteAccess = 2,
    /// The responder failed.
    RemoteOperation = 3,
    /// RD only.
    InvalidRdRequest = 4,
}

/// What an AETH says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syndrome {
    /// Everything up to the PSN arrived.
    Ack(Credits),
    /// No receive was posted.
    RnrNak(RnrTimer),
    /// Refused.
    Nak(NakCode),
    /// A code without a meaning: the packet is to be dropped (IBA 9.9.2).
    Reserved(u8),
}

impl Syndrome {
    /// An ACK of a responder that does not count receives.
    pub const ACK: Self = Self::Ack(Credits::UNLIMITED);

    /// What a syndrome byte says.
    pub const fn from_code(code: u8) -> Self {
        match (code >> 5, code & 31) {
            (0, value) => Self::Ack(Credits(value)),
            (1, value) => Self::RnrNak(RnrTimer(value)),
            (3, 0) => Self::Nak(NakCode::PsnSequence),
            (3, 1) => Self::Nak(NakCode::InvalidRequest),
            (3, 2) => Self::Nak(NakCode::RemoteAccess),
            (3, 3) => Self::Nak(NakCode::RemoteOperation),
            (3, 4) => Self::Nak(NakCode::InvalidRdRequest),
            _ => Self::Reserved(code),
        }
    }

    /// The byte that says it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ack(credits) => credits.0,
            Self::RnrNak(timer) => 0x20 | timer.0,
            Self::Nak(nak) => 0x60 | nak as u8,
            Self::Reserved(code) => code,
        }
    }
}

/// The header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aeth {
    /// ACK or NAK.
    pub syndrome: Syndrome,
    /// How many messages the responder completed.
    pub msn: Msn,
}

/// The header as it lies in a packet.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct AethBytes {
    syndrome: u8,
    msn: [u8; 3],
}

impl AethBytes {
    /// ACK or NAK.
    pub const fn syndrome(&self) -> Syndrome {
        Syndrome::from_code(self.syndrome)
    }

    /// Message sequence number.
    pub const fn msn(&self) -> Msn {
        Msn::from_be(self.msn)
    }
}

impl From<Aeth> for AethBytes {
    fn from(aeth: Aeth) -> Self {
        Self {
            syndrome: aeth.syndrome.code(),
            msn: aeth.msn.to_be(),
        }
    }
}

impl From<&AethBytes> for Aeth {
    fn from(bytes: &AethBytes) -> Self {
        Self {
            syndrome: bytes.syndrome(),
            msn: bytes.msn(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_syndrome_survives_its_meaning() {
        for code in 0..=255 {
            assert_eq!(Syndrome::from_code(code).code(), code);
        }
    }

    #[test]
    fn the_kinds_lie_where_the_specification_puts_them() {
        assert_eq!(Syndrome::from_code(0x1f), Syndrome::ACK);
        assert_eq!(Syndrome::from_code(0x2c), Syndrome::RnrNak(RnrTimer(12)));
        assert_eq!(
            Syndrome::from_code(0x60),
            Syndrome::Nak(NakCode::PsnSequence)
        );
        assert_eq!(
            Syndrome::from_code(0x64),
            Syndrome::Nak(NakCode::InvalidRdRequest)
        );
        for reserved in [0x40, 0x65, 0x7f, 0x80, 0xff] {
            assert_eq!(Syndrome::from_code(reserved), Syndrome::Reserved(reserved));
        }
    }

    #[test]
    fn credit_codes_double_every_second_step() {
        let counts: Vec<_> = (0..32)
            .map(|code| Credits::from_code(code).count())
            .collect();
        let first = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64].map(Some);
        assert_eq!(counts[..13], first);
        assert_eq!(counts[29..], [Some(24576), Some(32768), None]);
    }

    #[test]
    fn no_more_credits_are_promised_than_there_are() {
        for count in (0..200).chain([32767, 32768, 1 << 20]) {
            let credits = Credits::at_most(count);
            assert!(credits.count().unwrap() <= count);
            if let Some(more) = Credits::from_code(credits.code() + 1).count() {
                assert!(more > count);
            }
        }
    }
}
