//! vBond: the GID table that follows from an endpoint's virtual address. Its
//! order is Linux's: link-local v1 and v2, then the address v1 and v2, so that
//! index 3 is always the RoCEv2 GID of the address.

use masq_policy::{EndpointId, VirtualAddress};
use masq_spec::verbs::{Gid, GidEntry, GidType};

/// Length of the table; indexes from 4 on are empty.
pub(crate) const TABLE_LEN: u32 = 16;

/// The GIDs of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GidTable {
    eui64: [u8; 8],
    address: Gid,
}

impl GidTable {
    pub(crate) fn new(id: &EndpointId, address: VirtualAddress) -> Self {
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
            address: address.gid(),
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

    pub(crate) fn address(&self) -> Gid {
        self.address
    }

    pub(crate) fn entries(&self) -> [GidEntry; 4] {
        let entry = |index, gid, gid_type: GidType| GidEntry {
            gid,
            index,
            gid_type: gid_type as u32,
        };
        [
            entry(0, self.link_local(), GidType::RoceV1),
            entry(1, self.link_local(), GidType::RoceV2),
            entry(2, self.address, GidType::RoceV1),
            entry(3, self.address, GidType::RoceV2),
        ]
    }

    /// Whether a path may start from this index.
    pub(crate) fn is_usable(index: u8) -> bool {
        index < 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_three_is_the_address_and_guids_are_stable_and_distinct() {
        let address = VirtualAddress::new("10.0.0.1".parse().unwrap());
        let table = |name: &str| GidTable::new(&name.parse().unwrap(), address);
        let entries = table("blue/a").entries();
        assert_eq!(entries[3].gid[10..], [0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(entries[3].gid_type, GidType::RoceV2 as u32);
        assert_eq!(table("blue/a"), table("blue/a"));
        assert_ne!(table("blue/a").node_guid(), table("red/a").node_guid());
    }
}
