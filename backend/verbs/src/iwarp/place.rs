//! Where a card has memory. Most find it by the address that they are told with it
//! (the iova); siw goes by where it is mapped. There a tenant's own address may be taken,
//! by another tenant or by masqd itself. So what peers may reach is mapped where its
//! owner has it plus a number of the session's own, which peers' masqds are told; and
//! everything else anywhere, because masqd itself translates what its tenants name.

/// What siw says it is (`vendor_id`).
const SIW: u32 = 0x62_6d74;
/// How many bits addresses of processes have.
const BITS: [u8; 2] = [47, 39];
/// Shifts are multiples of this.
const GRANULE: u64 = 2 << 20;

/// Whether a card finds memory by the address that it is told.
pub(crate) fn has_iova(vendor_id: u32) -> bool {
    vendor_id != SIW
}

/// What is to be added to addresses of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Bits of an address; 0: nothing is added.
    pub(crate) bits: u8,
    pub(crate) shift: u64,
}

impl Placement {
    /// One for a new session, by chance. Programs and masqd have their memory at the
    /// bottom, about two thirds up and at the top; shifted it is in between.
    pub(crate) fn draw() -> Self {
        let is_there = |bits: &u8| masq_memory::is_free_address(1 << (bits - 2));
        let bits = BITS.into_iter().find(is_there).unwrap_or(BITS[1]);
        let mut random = [0; 8];
        if getrandom::fill(&mut random).is_err() {
            random = std::process::id()
                .to_ne_bytes()
                .repeat(2)
                .try_into()
                .unwrap_or_default();
        }
        let sixteenth = 1u64 << (bits - 4);
        let shift = sixteenth + u64::from_ne_bytes(random) % (2 * sixteenth);
        Self {
            bits,
            shift: shift & !(GRANULE - 1),
        }
    }

    /// Where an address of the session's is. What is no address stays none.
    pub(crate) fn of(self, address: u64) -> u64 {
        if self.bits == 0 || address >> self.bits != 0 {
            return address;
        }
        address.wrapping_add(self.shift) & ((1 << self.bits) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Regions keep their length and their place in a page, unless they wrap.
        #[test]
        fn a_shifted_region_is_a_region(address in 0..1u64 << 39, len in 1..1u64 << 30) {
            let place = Placement { bits: 39, shift: 3 * GRANULE };
            let (first, last) = (place.of(address), place.of(address + len - 1));
            prop_assert_eq!(first % 4096, address % 4096);
            let wraps = (address + len - 1) >> 39 != 0 || last < first;
            prop_assert!(wraps || last - first == len - 1);
        }

        #[test]
        fn what_is_no_address_is_not_made_one(address in 1u64 << 47..) {
            let place = Placement { bits: 47, shift: GRANULE };
            prop_assert_eq!(place.of(address), address);
            prop_assert_eq!(Placement::default().of(address), address);
        }
    }

    #[test]
    fn sessions_lie_apart_and_away_from_where_processes_have_memory() {
        let (one, two) = (Placement::draw(), Placement::draw());
        assert_ne!(one.shift, two.shift);
        let top = 1u64 << one.bits;
        for usual in [0x40_0000, top / 3 * 2, top - (1 << 20)] {
            let at = one.of(usual);
            let part = at / (top / 16);
            assert!(
                (1..=3).contains(&part) || (11..=13).contains(&part),
                "{part}"
            );
        }
    }
}
