//! Which IPv4 identification makes an ICRC right.
//!
//! A UDP socket hides the identification from its receiver, yet the ICRC
//! covers it. A CRC is linear: the ICRC with identification `i` differs from
//! that with 0 by `i · x^k` modulo the CRC's polynomial P, where `k` depends
//! on the packet's length only. Since x has an inverse modulo P, so has x^k:
//! the difference times x^-k *is* the identification, if its degree is below
//! 16, and otherwise there is none. One multiplication replaces 65,536 CRCs.

/// P, the polynomial of Ethernet's CRC, in the CRC's bit order: the high bit
/// is the coefficient of x^0. The term x^32 is left out.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// `a · x` modulo P.
pub(crate) const fn times_x(a: u32) -> u32 {
    (a >> 1) ^ (POLYNOMIAL & (a & 1).wrapping_neg())
}

/// `a / x` modulo P: [`times_x`] undone. P has the terms x^32 and x^0, so the
/// high bit tells whether P was added.
const fn over_x(a: u32) -> u32 {
    let reduced = a >> 31;
    ((a ^ (POLYNOMIAL & reduced.wrapping_neg())) << 1) | reduced
}

/// `a · b` modulo P.
const fn times(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        product ^= b & ((a >> bit) & 1).wrapping_neg();
        b = times_x(b);
    }
    product
}

/// Bytes between the identification and the UDP payload: the rest of the IPv4
/// header, and the UDP header.
const BEFORE_PAYLOAD: usize = 14 + 8;

/// Enough for the longest packet: BTH, extended headers and 4096 bytes.
const ENTRIES: usize = (4096 + 40) / 4 + 1;

/// At `n`: x^-k for packets with `4 · n` bytes between UDP header and ICRC,
/// where k = 8 × (the bytes after the identification) + its own 16 bits.
static INVERSES: [u32; ENTRIES] = {
    // The high bit is x^0, that is 1.
    let mut inverse = 1 << 31;
    let mut bits = 16 + 8 * BEFORE_PAYLOAD;
    while bits > 0 {
        inverse = over_x(inverse);
        bits -= 1;
    }
    let mut table = [0; ENTRIES];
    let mut entry = 0;
    while entry < ENTRIES {
        table[entry] = inverse;
        let mut bits = 32;
        while bits > 0 {
            inverse = over_x(inverse);
            bits -= 1;
        }
        entry += 1;
    }
    table
};

/// The IPv4 identification of a packet whose ICRC is `found`, when it would be
/// `with_zero` for identification 0. `covered` counts the bytes from the BTH up
/// to the ICRC.
///
/// None if no identification explains the difference, or if the packet's
/// length is not a multiple of four or above that of 4096 bytes of payload. A
/// random difference is explained with a chance of 2^-16.
pub fn solve_ip_id(found: [u8; 4], with_zero: [u8; 4], covered: usize) -> Option<u16> {
    if !covered.is_multiple_of(4) {
        return None;
    }
    let difference = u32::from_le_bytes(found) ^ u32::from_le_bytes(with_zero);
    let id = times(difference, *INVERSES.get(covered / 4)?);
    // In the CRC's order a field's first byte is the low one.
    u16::try_from(id).ok().map(u16::swap_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn division_undoes_multiplication(a: u32) {
            prop_assert_eq!(over_x(times_x(a)), a);
            prop_assert_eq!(times_x(over_x(a)), a);
        }

        #[test]
        fn multiplication_is_that_of_a_field_of_polynomials(a: u32, b: u32, c: u32) {
            let x = 1 << 30;
            prop_assert_eq!(times(a, 1 << 31), a);
            prop_assert_eq!(times(a, x), times_x(a));
            prop_assert_eq!(times(a, b), times(b, a));
            prop_assert_eq!(times(a, b ^ c), times(a, b) ^ times(a, c));
        }
    }

    #[test]
    fn lengths_that_no_packet_has_have_no_solution() {
        let (found, zero) = ([1, 2, 3, 4], [1, 2, 3, 4]);
        assert_eq!(solve_ip_id(found, zero, 16), Some(0));
        assert_eq!(solve_ip_id(found, zero, 17), None);
        assert_eq!(solve_ip_id(found, zero, 4096 + 40), Some(0));
        assert_eq!(solve_ip_id(found, zero, 4096 + 44), None);
    }
}
