//! The GID table of a guest's device.

use anyhow::Context as _;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Place in a GID table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GidIndex(pub u16);

impl fmt::Display for GidIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A RoCEv2 entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gid {
    /// Its place.
    pub index: GidIndex,
    /// The address that it is made of; IPv4 mapped into IPv6 is given as IPv4.
    pub address: IpAddr,
}

/// The RoCEv2 entries of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GidTable(Vec<Gid>);

/// Prints a table of the device `$1` as [`GidTable::parse`] reads it.
pub(crate) const LIST: &str = r#"
cd "/sys/class/infiniband/$1/ports/1"
for index in $(seq 0 31); do
    type=$(cat gid_attrs/types/$index 2>/dev/null) || continue
    echo "$index $(cat gids/$index) $type"
done"#;

impl GidTable {
    pub(crate) fn parse(text: &str) -> Self {
        let entries = text.lines().filter_map(|line| {
            let (index, rest) = line.split_once(' ')?;
            let (gid, kind) = rest.split_once(' ')?;
            if kind != "RoCE v2" {
                return None;
            }
            Some(Gid {
                index: GidIndex(index.parse().ok()?),
                address: gid.parse::<Ipv6Addr>().ok()?.to_canonical(),
            })
        });
        Self(entries.collect())
    }

    /// The entry of this address.
    ///
    /// # Errors
    /// There is none.
    pub fn of(&self, address: IpAddr) -> anyhow::Result<GidIndex> {
        let found = self.0.iter().find(|gid| gid.address == address);
        found
            .map(|gid| gid.index)
            .with_context(|| format!("no GID of {address} in {:?}", self.0))
    }

    /// All of them.
    pub fn entries(&self) -> &[Gid] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0 fe80:0000:0000:0000:0000:00ff:fe00:0001 RoCE v2\n\
                        1 0000:0000:0000:0000:0000:ffff:0a4d:0001 IB/RoCE v1\n\
                        2 0000:0000:0000:0000:0000:ffff:0a4d:0001 RoCE v2\n";

    #[test]
    fn an_address_is_found_at_its_rocev2_entry() {
        let table = GidTable::parse(TEXT);
        let v4 = "10.77.0.1".parse().unwrap();
        assert_eq!(table.of(v4).unwrap(), GidIndex(2));
        let v6 = "fe80::ff:fe00:1".parse().unwrap();
        assert_eq!(table.of(v6).unwrap(), GidIndex(0));
        assert!(table.of("10.77.0.2".parse().unwrap()).is_err());
    }
}
