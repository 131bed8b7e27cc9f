//! `etcd://[USER@]HOST:PORT[,HOST:PORT]/PREFIX`, or `etcds://` with TLS.

use std::fmt;
use std::time::Duration;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// The port of etcd's clients.
const PORT: u16 = 2379;
/// Below which keys lie, unless the address says otherwise.
const PREFIX: &str = "masq";
/// Most members that are named.
const MOST_MEMBERS: usize = 16;
const MOST_PREFIX: usize = 200;

/// How long after its end a host's entries stay.
pub const TTL: Duration = Duration::from_secs(5);

/// A watch that is silent for so long may be dead.
pub const SILENCE: Duration = Duration::from_secs(10);

/// Where etcd is.
#[derive(Clone)]
pub struct EtcdConfig {
    /// `HOST:PORT` of members, IPv6 addresses in brackets.
    pub members: Vec<String>,
    /// Below which keys lie; without slashes at its ends.
    pub prefix: String,
    /// Who asks, if etcd wants to know.
    pub user: Option<(String, String)>,
    /// How connections are encrypted, if they are.
    pub tls: Option<Tls>,
    /// How long after its end this host's entries stay.
    pub ttl: Duration,
    /// A watch that is silent for so long is begun again where it was.
    pub silence: Duration,
}

/// Whom to believe, and by what to be believed.
#[derive(Clone, Default)]
pub struct Tls {
    roots: Option<Vec<Certificate<'static>>>,
    client: Option<ClientCert>,
}

impl Tls {
    /// From PEM files: certificates of authorities instead of those that browsers know, and
    /// the certificate and key by which this host is known.
    ///
    /// # Errors
    /// Which of the files is none.
    pub fn new(ca: Option<&[u8]>, client: Option<(&[u8], &[u8])>) -> Result<Self, AddressError> {
        let roots = ca.map(|pem| certificates(pem).ok_or(AddressError::Pem("certificate")));
        let client = client.map(|(chain, key)| {
            let chain = certificates(chain).ok_or(AddressError::Pem("certificate"))?;
            let key = PrivateKey::from_pem(key).map_err(|_| AddressError::Pem("key"))?;
            Ok(ClientCert::new_with_certs(&chain, key))
        });
        Ok(Self {
            roots: roots.transpose()?,
            client: client.transpose()?,
        })
    }

    pub(super) fn config(&self) -> TlsConfig {
        let roots = match &self.roots {
            Some(roots) => RootCerts::new_with_certs(roots),
            None => RootCerts::WebPki,
        };
        TlsConfig::builder()
            .root_certs(roots)
            .client_cert(self.client.clone())
            .build()
    }
}

fn certificates(pem: &[u8]) -> Option<Vec<Certificate<'static>>> {
    let items = parse_pem(pem).collect::<Result<Vec<_>, _>>().ok()?;
    let found = items.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    Some(found.collect()).filter(|found: &Vec<_>| !found.is_empty())
}

/// Why a text is no address of a directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not `etcd://`.
    #[error("expected etcd://HOST:PORT[,HOST:PORT]/PREFIX")]
    Scheme,
    /// Without a member.
    #[error("no member of etcd is named; expected etcd://HOST:PORT[,HOST:PORT]/PREFIX")]
    NoMember,
    /// More than anybody has.
    #[error("at most {MOST_MEMBERS} members can be named")]
    TooMany,
    /// Not `HOST:PORT`.
    #[error("`{0}` is not HOST:PORT (an IPv6 address stands in brackets)")]
    Member(String),
    /// Not a path.
    #[error(
        "`{0}` cannot be a prefix of keys: it has up to {MOST_PREFIX} letters, digits, `-`, `_`, \
         `.` and `/`"
    )]
    Prefix(String),
    /// A password in the address would be seen by everybody who lists processes.
    #[error(
        "a password does not belong there, where others see it; put it into MASQ_ETCD_PASSWORD"
    )]
    Password,
    /// Not a PEM file with what belongs there.
    #[error("there is no {0} in the file; expected PEM")]
    Pem(&'static str),
    /// Files for TLS, but no TLS.
    #[error("certificates are for etcds://, which is encrypted")]
    NotEncrypted,
    /// A user without a password.
    #[error("user `{0}` needs a password; put it into MASQ_ETCD_PASSWORD")]
    NoPassword(String),
}

impl EtcdConfig {
    /// Reads an address; `password` is the named user's. With `etcds://`, the authorities
    /// are those that browsers know, unless [`EtcdConfig::tls`] is replaced.
    ///
    /// # Errors
    /// [`AddressError`] says what was expected.
    pub fn parse(text: &str, password: Option<String>) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        let tls = match scheme {
            "etcd" => None,
            "etcds" => Some(Tls::default()),
            _ => return Err(AddressError::Scheme),
        };
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, PREFIX));
        let (user, members) = match authority.rsplit_once('@') {
            Some((user, members)) => (Some(user), members),
            None => (None, authority),
        };
        let user = match user {
            Some(user) if user.contains(':') => return Err(AddressError::Password),
            Some(user) => {
                let no_password = || AddressError::NoPassword(user.escape_debug().to_string());
                Some((user.to_owned(), password.ok_or_else(no_password)?))
            }
            None => None,
        };
        let members: Vec<_> = members.split(',').filter(|m| !m.is_empty()).collect();
        match members.len() {
            0 => return Err(AddressError::NoMember),
            n if n > MOST_MEMBERS => return Err(AddressError::TooMany),
            _ => {}
        }
        let members = members.into_iter().map(member).collect::<Result<_, _>>()?;
        let prefix = match prefix.trim_matches('/') {
            "" => PREFIX,
            prefix => prefix,
        };
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
        if prefix.len() > MOST_PREFIX || !prefix.bytes().all(fits) {
            return Err(AddressError::Prefix(prefix.escape_debug().to_string()));
        }
        Ok(Self {
            members,
            prefix: prefix.to_owned(),
            user,
            tls,
            ttl: TTL,
            silence: SILENCE,
        })
    }
}

fn member(text: &str) -> Result<String, AddressError> {
    let bad = || AddressError::Member(text.escape_debug().to_string());
    // Colons of an IPv6 address are within brackets.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok()),
        _ => (text, Some(PORT)),
    };
    let port = port.filter(|port| *port > 0).ok_or_else(bad)?;
    let good = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            !host.is_empty() && host.bytes().all(fits)
        }
    };
    if good {
        Ok(format!("{host}:{port}"))
    } else {
        Err(bad())
    }
}

/// Without the password.
impl fmt::Display for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref();
        let user = user.map_or(String::new(), |(user, _)| format!("{user}@"));
        let scheme = if self.tls.is_some() { "etcds" } else { "etcd" };
        let members = self.members.join(",");
        write!(f, "{scheme}://{user}{members}/{}", self.prefix)
    }
}

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtcdConfig({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_members_and_a_prefix() {
        for (text, reads) in [
            ("etcd://a", "etcd://a:2379/masq"),
            ("etcd://a:1,b:2/x/y/", "etcd://a:1,b:2/x/y"),
            ("etcds://a", "etcds://a:2379/masq"),
            ("etcd://[fd00::1]", "etcd://[fd00::1]:2379/masq"),
            ("etcd://[fd00::1]:4/", "etcd://[fd00::1]:4/masq"),
            ("etcd://me@127.0.0.1:2379/p", "etcd://me@127.0.0.1:2379/p"),
        ] {
            let read = EtcdConfig::parse(text, Some("secret".into())).unwrap();
            assert_eq!(read.to_string(), reads);
            assert!(!format!("{read:?}").contains("secret"));
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for text in [
            "http://a:2379",
            "etcd://",
            "etcd://,/x",
            "etcd://a:b",
            "etcd://a:0",
            "etcd://fd00::1",
            "etcd://[fd00::1",
            "etcd://a b",
            "etcd://a/x y",
            "etcd://me:secret@a",
            "etcd://me@a",
        ] {
            let error = EtcdConfig::parse(text, None).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
