//! Names of tenants and endpoints, and the pair that identifies an endpoint.
//!
//! A name becomes a path component (`DIR/endpoints/TENANT/NAME`) and a word in log
//! lines, so its alphabet is small on purpose.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest tenant or endpoint name in bytes: a DNS label.
pub const MAX_NAME_LEN: usize = 63;

/// Words that a rule's `from` and `to`, or a set, give a meaning of their own.
const RESERVED: &[&str] = &["any", "all", "none", "self"];

/// Why a text is not a name or an endpoint id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is longer than [`MAX_NAME_LEN`].
    #[error("a name has at most {MAX_NAME_LEN} characters, this one has {0}")]
    TooLong(usize),
    /// A character other than a letter, a digit, `-`, `_` or `.`.
    #[error("a name consists of ASCII letters, digits, `-`, `_` and `.`, not {0:?}")]
    BadCharacter(char),
    /// The first character is not a letter or digit (so `.`, `..` and `-x` are no names).
    #[error("a name begins with a letter or a digit, not {0:?}")]
    BadStart(char),
    /// The word means something else in a rule.
    #[error("it is a word of the policy language")]
    Reserved,
    /// The text reads as an IP address, so a rule that used it would be ambiguous.
    #[error("a name must not look like an IP address")]
    LooksLikeAddress,
    /// An endpoint id without the slash between tenant and endpoint.
    #[error("an endpoint is written TENANT/NAME, as in `blue/a`")]
    NoSlash,
}

fn check_name(text: &str) -> Result<(), NameError> {
    let first = text.chars().next().ok_or(NameError::Empty)?;
    if let Some(c) = text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
    {
        return Err(NameError::BadCharacter(c));
    }
    if !first.is_ascii_alphanumeric() {
        return Err(NameError::BadStart(first));
    }
    if text.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong(text.len()));
    }
    if RESERVED.contains(&text) {
        return Err(NameError::Reserved);
    }
    // 10.0.0.256 too: whoever wrote it meant an address.
    if text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(NameError::LooksLikeAddress);
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $Name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $Name(Arc<str>);

        impl $Name {
            /// Checks `text` and makes it a name.
            ///
            /// # Errors
            /// [`NameError`] says which rule of names the text breaks.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check_name(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Borrow<str> for $Name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $Name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl Serialize for $Name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $Name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(&String::deserialize(d)?).map_err(de::Error::custom)
            }
        }
    };
}

name_type! {
    /// The name of a tenant.
    TenantName
}
name_type! {
    /// The name of an endpoint within its tenant.
    EndpointName
}

name_type! {
    /// The name of a host.
    HostName
}
name_type! {
    /// The name of one of masqd's devices: `soft`, or a card's own.
    DeviceName
}

/// An endpoint of a tenant, written `TENANT/NAME`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId {
    tenant: TenantName,
    name: EndpointName,
}

impl EndpointId {
    /// The endpoint `name` of `tenant`; whether a policy knows it is another question.
    pub fn new(tenant: TenantName, name: EndpointName) -> Self {
        Self { tenant, name }
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// The name within the tenant.
    pub fn name(&self) -> &EndpointName {
        &self.name
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.tenant, self.name))
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}/{}\"", self.tenant, self.name)
    }
}

impl FromStr for EndpointId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (tenant, name) = text.split_once('/').ok_or(NameError::NoSlash)?;
        Ok(Self {
            tenant: tenant.parse()?,
            name: name.parse()?,
        })
    }
}

impl Serialize for EndpointId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EndpointId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_path_components() {
        for good in ["a", "web-1", "A.b_c", "0", &"x".repeat(63)] {
            assert_eq!(TenantName::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "a b",
            "a\0",
            "ä",
            "any",
            "self",
            "10.0.0.1",
            "10.0.256",
            &"x".repeat(64),
        ] {
            assert!(TenantName::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn endpoint_id_reads_what_it_writes() {
        let id: EndpointId = "blue/a".parse().unwrap();
        assert_eq!(id.tenant().as_str(), "blue");
        assert_eq!(id.to_string(), "blue/a");
        for bad in ["blue", "blue/", "/a", "blue/a/b", "../a"] {
            assert!(bad.parse::<EndpointId>().is_err(), "{bad:?} was accepted");
        }
    }
}
