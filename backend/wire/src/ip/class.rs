//! The byte that IPv4 calls type of service and IPv6 traffic class.

/// Explicit congestion notification (RFC 3168).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// The sender does not react to marks.
    #[default]
    NotCapable = 0,
    /// ECT(1).
    Capable1 = 1,
    /// ECT(0): what RoCEv2 senders set.
    Capable0 = 2,
    /// Congestion was experienced: the receiver sends a CNP (A17.9).
    Congested = 3,
}

/// Differentiated services code point, six bits (RFC 2474).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dscp(u8);

impl Dscp {
    /// Keeps the low six bits.
    pub const fn new(value: u8) -> Self {
        Self(value & 0x3f)
    }

    /// The code point.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Both, as the byte in the header and in verbs' address vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TrafficClass(pub u8);

impl TrafficClass {
    /// Of its two parts.
    pub const fn new(dscp: Dscp, ecn: Ecn) -> Self {
        Self(dscp.0 << 2 | ecn as u8)
    }

    /// The high six bits.
    pub const fn dscp(self) -> Dscp {
        Dscp(self.0 >> 2)
    }

    /// The low two bits.
    pub const fn ecn(self) -> Ecn {
        match self.0 & 3 {
            0 => Ecn::NotCapable,
            1 => Ecn::Capable1,
            2 => Ecn::Capable0,
            _ => Ecn::Congested,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_make_up_the_byte() {
        for byte in 0..=255 {
            let class = TrafficClass(byte);
            assert_eq!(TrafficClass::new(class.dscp(), class.ecn()), class);
        }
        let class = TrafficClass::new(Dscp::new(26), Ecn::Capable0);
        assert_eq!(class, TrafficClass(106));
    }
}
