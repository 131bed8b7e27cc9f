//! Where a card has memory. Most find it by the address that they are told with it
//! (the iova); siw goes by where it is mapped. There a tenant's own address may be taken,
//! by another tenant or by masqd itself. So what peers may reach is mapped where its
//! owner has it plus a number of the session's own, which peers' masqds are told, at
//! addresses that masqd keeps for that alone; and everything else anywhere, because masqd
//! itself translates what its tenants name.

use masq_memory::Reserve;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// What siw says it is (`vendor_id`).
const SIW: u32 = 0x62_6d74;
/// How many bits addresses of processes have.
const BITS: [u8; 3] = [39, 47, 48];
/// Where what peers may reach is mapped, in 32nds of all addresses. Programs have their
/// memory in the lowest 16th, about one third up (if their stack is unlimited), about two
/// thirds up, and in the highest 16th; with any shift it lies here. masqd has its own in the
/// same places, and nothing here.
const RESERVED: [Range<u64>; 3] = [1..8, 13..17, 22..30];
/// The least and the most that is added, likewise.
const SHIFTS: Range<u64> = 3..5;
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
    /// One for a new session, by chance.
    pub(crate) fn draw() -> Self {
        let bits = bits();
        let mut random = [0; 8];
        if getrandom::fill(&mut random).is_err() {
            random = std::process::id()
                .to_ne_bytes()
                .repeat(2)
                .try_into()
                .unwrap_or_default();
        }
        let (least, most) = (part(SHIFTS.start, bits), part(SHIFTS.end, bits));
        let shift = least + u64::from_ne_bytes(random) % (most - least);
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

/// So many 32nds of all addresses.
fn part(of_32: u64, bits: u8) -> u64 {
    of_32 << (bits - 5)
}

/// How many bits the addresses of this process have: its stack is at their top.
fn bits() -> u8 {
    let here = 0u8;
    let top = (&raw const here).addr() as u64;
    let fits = |bits: &&u8| top >> **bits == 0;
    BITS.iter().find(fits).copied().unwrap_or(BITS[2])
}

/// The addresses that are kept for what peers may reach, from the first call on; `None` if
/// they could not be had.
pub(crate) fn reserve() -> Option<&'static Arc<Reserve>> {
    static RESERVE: OnceLock<Option<Arc<Reserve>>> = OnceLock::new();
    let reserved = || {
        let bits = bits();
        let ranges = RESERVED.map(|range| part(range.start, bits)..part(range.end, bits));
        Reserve::new(&ranges)
            .inspect_err(|error| {
                tracing::error!(%error, "peers cannot reach memory over cards that go by where it is");
            })
            .ok()
    };
    RESERVE.get_or_init(reserved).as_ref()
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
    fn what_programs_have_lies_where_masqd_keeps_room_for_it() {
        let (one, two) = (Placement::draw(), Placement::draw());
        assert_ne!(one.shift, two.shift);
        let (top, reserve) = (1u64 << one.bits, reserve().unwrap());
        let heap = Box::new(0u8);
        let own = [
            (&raw const *heap).addr() as u64,
            "a constant".as_ptr().addr() as u64,
            (&raw const top).addr() as u64,
        ];
        for address in own {
            assert!(
                !reserve.contains(address),
                "{address:#x} is this process's own"
            );
        }
        for _ in 0..100 {
            let place = Placement::draw();
            let usual = [
                0x1_0000,
                0x40_0000,
                top / 3,
                top / 3 * 2,
                top / 32 * 22,
                top / 16 * 15,
                top - 4096,
            ];
            for address in usual.into_iter().chain(own) {
                let at = place.of(address);
                assert!(reserve.contains(at), "{address:#x} is at {at:#x}");
            }
        }
    }
}
