//! Hosts, the endpoints that live on them, and the partitions that tell tenants apart on
//! the wire.

use std::{fmt, net::IpAddr};

use serde::{Serialize, Serializer};

use crate::names::{HostName, TenantName};

/// A host that runs masqd.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Host {
    pub(crate) name: HostName,
    pub(crate) address: IpAddr,
}

impl Host {
    /// The name.
    pub fn name(&self) -> &HostName {
        &self.name
    }

    /// Its own address on the network between hosts, never IPv4-mapped.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.address)
    }
}

/// Where an endpoint lives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Home {
    /// Wherever it is registered.
    #[default]
    Anywhere,
    /// On this host, by the policy.
    Host(Host),
    /// It is itself a host, with this address, and not under masq.
    Outside(IpAddr),
    /// On the host with this address, by the directory: an instance of a class.
    Elsewhere(IpAddr),
}

impl Home {
    pub(crate) fn is_anywhere(&self) -> bool {
        *self == Self::Anywhere
    }

    /// In words, as they follow the name of an endpoint.
    pub(crate) fn describe(&self) -> Option<String> {
        match self {
            Self::Anywhere => None,
            Self::Host(host) => Some(format!("lives on host {host}")),
            Self::Outside(address) => Some(format!(
                "is the host {address} itself, which no masqd watches over"
            )),
            Self::Elsewhere(address) => Some(format!("lives on the host {address}")),
        }
    }
}

/// A tenant's partition on the wire: a P_Key with the full-member bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(u16);

/// Says that its holder is a full member.
pub(crate) const FULL_MEMBER: u16 = 0x8000;

impl Partition {
    /// The default partition: that of hosts which know no other.
    pub const DEFAULT: Self = Self(0xffff);

    /// The partition with this P_Key; `None` without the full-member bit, and for 0x8000,
    /// which is none (IBA 10.9).
    pub fn new(key: u16) -> Option<Self> {
        (key > FULL_MEMBER).then_some(Self(key))
    }

    /// The P_Key.
    pub fn key(self) -> u16 {
        self.0
    }

    /// That of a tenant whose policy names none: the same on each host, and in each
    /// version of masq. Never the default one.
    pub(crate) fn derived(tenant: &TenantName) -> Self {
        const CHOICES: u64 = (Partition::DEFAULT.0 - FULL_MEMBER - 1) as u64;
        let fnv = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let bytes = tenant.as_str().bytes();
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325, fnv);
        // The low bits of FNV are its weak ones.
        let choice = (hash ^ (hash >> 32)) % CHOICES;
        Self(FULL_MEMBER + 1 + choice as u16)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

impl Serialize for Partition {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u16(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derived(name: &str) -> Partition {
        Partition::derived(&TenantName::new(name).unwrap())
    }

    #[test]
    fn a_partition_has_the_member_bit_and_a_number() {
        assert_eq!(Partition::new(0xffff), Some(Partition::DEFAULT));
        assert_eq!(Partition::new(0x8001).unwrap().to_string(), "0x8001");
        for none in [0, 1, 0x7fff, 0x8000] {
            assert_eq!(Partition::new(none), None);
        }
    }

    /// Hosts with different versions of masq must agree.
    #[test]
    fn derived_partitions_never_change() {
        let keys = ["blue", "red", "storage", "t"].map(|name| derived(name).key());
        assert_eq!(keys, [44743, 64786, 62379, 65506]);
    }

    #[test]
    fn derived_partitions_are_spread_and_never_the_default() {
        let keys: std::collections::BTreeSet<_> =
            (0..2000).map(|n| derived(&format!("tenant-{n}"))).collect();
        // 2000 of 32766 at random: about 60 meet another.
        assert!(keys.len() > 1850, "{}", keys.len());
        assert!(!keys.contains(&Partition::DEFAULT));
    }
}
