//! Keys and values.
//!
//! `PREFIX/v1/TENANT/ADDRESS` → `{"version":1,"endpoint":…,"class":…,"host":…}`. One key
//! for each address, so that etcd itself sees to it that an address has one holder.

use crate::{Entry, Slot};
use masq_policy::{EndpointName, TenantName};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The version of the format; another one lies below another part of the key.
const VERSION: u32 = 1;
/// The longest value.
const MAX_VALUE: usize = 1024;

#[derive(Serialize, Deserialize)]
struct Value {
    version: u32,
    endpoint: EndpointName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<EndpointName>,
    host: IpAddr,
}

/// What makes no sense about a key or its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the key is not TENANT/ADDRESS")]
    Key,
    #[error("the value has {0} bytes")]
    TooLong(usize),
    #[error("the value is of version {0}")]
    Version(u64),
    #[error("the value is not what version 1 has: {0}")]
    Value(String),
    #[error("no host can have the address {0}")]
    Host(IpAddr),
}

/// The keys of a prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// With the slash behind it.
    root: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            root: format!("{prefix}/v{VERSION}/"),
        }
    }

    /// The first key, and the one behind the last.
    pub(super) fn range(&self) -> (Vec<u8>, Vec<u8>) {
        let first = self.root.clone().into_bytes();
        let mut last = first.clone();
        // The root ends with a slash, which is followed by `0`.
        last.pop();
        last.push(b'/' + 1);
        (first, last)
    }

    pub(super) fn of(&self, slot: &Slot) -> Vec<u8> {
        format!("{}{}/{}", self.root, slot.tenant, slot.address).into_bytes()
    }

    pub(super) fn read(&self, key: &[u8]) -> Result<Slot, Malformed> {
        let text = std::str::from_utf8(key).map_err(|_| Malformed::Key)?;
        let rest = text.strip_prefix(&self.root).ok_or(Malformed::Key)?;
        let (tenant, address) = rest.split_once('/').ok_or(Malformed::Key)?;
        let slot = Slot {
            tenant: TenantName::new(tenant).map_err(|_| Malformed::Key)?,
            address: address.parse().map_err(|_| Malformed::Key)?,
        };
        // One address, one key: other spellings are none.
        let canonical = slot.address.to_canonical() == slot.address;
        if !canonical || self.of(&slot) != key {
            return Err(Malformed::Key);
        }
        Ok(slot)
    }
}

pub(super) fn write_value(entry: &Entry) -> Vec<u8> {
    let value = Value {
        version: VERSION,
        endpoint: entry.endpoint.clone(),
        class: entry.class.clone(),
        host: entry.host,
    };
    // Names and addresses can always be written.
    serde_json::to_vec(&value).unwrap_or_default()
}

pub(super) fn read_value(bytes: &[u8]) -> Result<Entry, Malformed> {
    #[derive(Deserialize)]
    struct Head {
        version: u64,
    }
    if bytes.len() > MAX_VALUE {
        return Err(Malformed::TooLong(bytes.len()));
    }
    let bad = |error: serde_json::Error| Malformed::Value(error.to_string());
    let head: Head = serde_json::from_slice(bytes).map_err(bad)?;
    if head.version != u64::from(VERSION) {
        return Err(Malformed::Version(head.version));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(bad)?;
    let host = value.host.to_canonical();
    if host.is_unspecified() || host.is_multicast() {
        return Err(Malformed::Host(host));
    }
    Ok(Entry {
        endpoint: value.endpoint,
        class: value.class,
        host,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> Keys {
        Keys::new("masq")
    }

    #[test]
    fn keys_and_values_read_what_they_write() {
        let entry = Entry {
            endpoint: "worker.x".parse().unwrap(),
            class: Some("worker".parse().unwrap()),
            host: "192.0.2.1".parse().unwrap(),
        };
        assert_eq!(read_value(&write_value(&entry)), Ok(entry));
        for address in ["10.0.0.1", "fd00::1"] {
            let slot = Slot {
                tenant: "blue".parse().unwrap(),
                address: address.parse().unwrap(),
            };
            let key = keys().of(&slot);
            assert_eq!(key, format!("masq/v1/blue/{address}").into_bytes());
            assert_eq!(keys().read(&key), Ok(slot));
            let (first, last) = keys().range();
            assert!(first < key && key < last);
        }
    }

    #[test]
    fn other_spellings_of_an_address_are_no_keys() {
        for key in [
            "masq/v1/blue/fd00:0::1",
            "masq/v1/blue/::ffff:10.0.0.1",
            "masq/v1/blue/10.0.0.1/",
            "masq/v1/blue",
            "masq/v1//10.0.0.1",
            "masq/v1/../10.0.0.1",
            "masq/v2/blue/10.0.0.1",
            "other/v1/blue/10.0.0.1",
        ] {
            assert_eq!(keys().read(key.as_bytes()), Err(Malformed::Key), "{key}");
        }
    }

    #[test]
    fn what_is_not_of_this_version_is_malformed_and_what_it_adds_is_not() {
        let read = |text: &str| read_value(text.as_bytes());
        let good = r#"{"version":1,"endpoint":"a","host":"192.0.2.1","more":[1]}"#;
        assert!(read(good).is_ok());
        assert_eq!(read(r#"{"version":2}"#), Err(Malformed::Version(2)));
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"version":1}"#,
            r#"{"version":1,"endpoint":"a/b","host":"192.0.2.1"}"#,
            r#"{"version":1,"endpoint":"a","host":"here"}"#,
            r#"{"version":1,"endpoint":"a","host":"0.0.0.0"}"#,
            r#"{"version":1,"endpoint":"a","host":"ff02::1"}"#,
            &format!(
                r#"{{"version":1,"endpoint":"a","host":"192.0.2.1","x":"{}"}}"#,
                "x".repeat(MAX_VALUE)
            ),
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            key in prop::collection::vec(any::<u8>(), 0..80),
            value in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let _ = keys().read(&key);
            let _ = keys().read(&[&b"masq/v1/"[..], &key].concat());
            let _ = read_value(&value);
        }
    }
}
