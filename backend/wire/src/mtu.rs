//! Path MTU and padding.

/// Path MTU: the payload of a full packet, as verbs and MADs number it (IBA
/// chapter 5 and 12.7). It counts no header.
#[doc(alias = "ibv_mtu")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mtu {
    /// 256 bytes.
    B256 = 1,
    /// 512 bytes.
    B512 = 2,
    /// 1024 bytes.
    B1024 = 3,
    /// 2048 bytes.
    B2048 = 4,
    /// 4096 bytes.
    B4096 = 5,
}

impl Mtu {
    /// All of them, the smallest first.
    pub const ALL: [Self; 5] = [
        Self::B256,
        Self::B512,
        Self::B1024,
        Self::B2048,
        Self::B4096,
    ];

    /// What RoCE adds at most to a full packet's payload between IP and the
    /// frame: UDP, BTH, RETH, ImmDt and ICRC.
    const OVERHEAD: usize = 8 + 12 + 16 + 4 + 4;

    /// The MTU of a code, 1 to 5.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::B256),
            2 => Some(Self::B512),
            3 => Some(Self::B1024),
            4 => Some(Self::B2048),
            5 => Some(Self::B4096),
            _ => None,
        }
    }

    /// Its code.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Payload bytes of a full packet.
    pub const fn bytes(self) -> usize {
        128 << (self as u8)
    }

    /// The largest MTU whose packets fit an interface of this MTU (bytes of an
    /// IP packet), with IPv6 or without; none below 320 (IPv4) or 340 (IPv6).
    pub fn fitting(interface: usize, ipv6: bool) -> Option<Self> {
        let room = interface.checked_sub(Self::OVERHEAD + if ipv6 { 40 } else { 20 })?;
        Self::ALL.into_iter().rev().find(|mtu| mtu.bytes() <= room)
    }
}

/// How many bytes bring a payload to a multiple of four (IBA 9.2.5).
pub const fn pad_count(payload: usize) -> usize {
    payload.wrapping_neg() & 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_for_powers_of_two() {
        let bytes: Vec<_> = Mtu::ALL.iter().map(|mtu| mtu.bytes()).collect();
        assert_eq!(bytes, [256, 512, 1024, 2048, 4096]);
        for mtu in Mtu::ALL {
            assert_eq!(Mtu::from_code(mtu.code()), Some(mtu));
        }
        assert_eq!(Mtu::from_code(0), None);
        assert_eq!(Mtu::from_code(6), None);
    }

    #[test]
    fn an_ethernet_of_1500_carries_1024_and_jumbo_frames_4096() {
        assert_eq!(Mtu::fitting(1500, false), Some(Mtu::B1024));
        assert_eq!(Mtu::fitting(1500, true), Some(Mtu::B1024));
        assert_eq!(Mtu::fitting(9000, true), Some(Mtu::B4096));
        assert_eq!(Mtu::fitting(4096 + 64, false), Some(Mtu::B4096));
        assert_eq!(Mtu::fitting(4096 + 64, true), Some(Mtu::B2048));
        assert_eq!(Mtu::fitting(319, false), None);
        assert_eq!(Mtu::fitting(340, true), Some(Mtu::B256));
    }

    #[test]
    fn padding_fills_up_to_four() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(pad_count), [0, 3, 2, 1, 0, 3]);
    }
}
