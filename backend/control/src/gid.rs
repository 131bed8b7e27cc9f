//! vBond: the GID table that follows from an endpoint's virtual addresses. Its
//! order is Linux's: link-local v1 and v2, then each address v1 and v2. IPv4
//! addresses come first, so that index 3 is always the RoCEv2 GID of the first.

use masq_policy::{EndpointId, MAX_ADDRESSES, VirtualAddress};
use masq_spec::verbs::{Gid, GidEntry, GidType};

/// Length of the table; indexes behind the last address are empty.
pub(crate) const TABLE_LEN: u32 = 16;

// The policy allows just as many addresses as there is room for.
const _: () = assert!(TABLE_LEN as usize == 2 * (1 + MAX_ADDRESSES));

/// The GIDs of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GidTable {
    eui64: [u8; 8],
    addresses: Vec<Gid>,
}

impl GidTable {
    pub(crate) fn new(id: &EndpointId, addresses: &[VirtualAddress]) -> Self {
        // A locally administered MAC that depends on the name only (FNV-1a),
        // so that GUID and link-local GID survive restarts.
        let hash = id
            .to_string()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let h = hash.to_be_bytes();
        // EUI-64 of MAC 02:h1:…, its universal/local bit inverted (RFC 4291).
        Self {
            eui64: [0x00, h[1], h[2], 0xff, 0xfe, h[3], h[4], h[5]],
            addresses: addresses
                .iter()
                .take(MAX_ADDRESSES)
                .map(|a| a.gid())
                .collect(),
        }
    }

    pub(crate) fn node_guid(&self) -> u64 {
        u64::from_be_bytes(self.eui64)
    }

    pub(crate) fn link_local(&self) -> Gid {
        let mut gid = [0; 16];
        gid[..2].copy_from_slice(&[0xfe, 0x80]);
        gid[8..].copy_from_slice(&self.eui64);
        gid
    }

    /// The GID at index 3; the unspecified one while there is no address.
    pub(crate) fn first(&self) -> Gid {
        self.addresses.first().copied().unwrap_or_default()
    }

    pub(crate) fn entries(&self) -> Vec<GidEntry> {
        let gids = std::iter::once(self.link_local()).chain(self.addresses.iter().copied());
        let both = gids.flat_map(|gid| [(gid, GidType::RoceV1), (gid, GidType::RoceV2)]);
        (0u32..)
            .zip(both)
            .map(|(index, (gid, gid_type))| GidEntry {
                gid,
                index,
                gid_type: gid_type as u32,
            })
            .collect()
    }

    /// Whether a path may start from this index.
    pub(crate) fn is_usable(&self, index: u8) -> bool {
        usize::from(index) < 2 + 2 * self.addresses.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_three_is_the_address_and_guids_are_stable_and_distinct() {
        let address = VirtualAddress::new("10.0.0.1".parse().unwrap());
        let table = |name: &str| GidTable::new(&name.parse().unwrap(), &[address]);
        let entries = table("blue/a").entries();
        assert_eq!(entries[3].gid[10..], [0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(entries[3].gid_type, GidType::RoceV2 as u32);
        assert_eq!(table("blue/a"), table("blue/a"));
        assert_ne!(table("blue/a").node_guid(), table("red/a").node_guid());
    }

    #[test]
    fn each_address_has_two_entries_and_none_is_usable_beyond_the_last() {
        let id = "blue/a".parse().unwrap();
        let two = ["10.0.0.1", "fd00::1"].map(|a| VirtualAddress::new(a.parse().unwrap()));
        let table = GidTable::new(&id, &two);
        assert_eq!(table.entries().len(), 6);
        assert_eq!(table.entries()[5].gid[..2], [0xfd, 0]);
        assert!(table.is_usable(5) && !table.is_usable(6));
        let none = GidTable::new(&id, &[]);
        assert_eq!(none.entries().len(), 2);
        assert!(!none.is_usable(3));
        assert_eq!(none.first(), [0; 16]);
    }
}
