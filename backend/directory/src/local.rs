//! Which of the hosts this one is.

use masq_policy::{Endpoint, Home, HostName, Policy};
use std::fmt;
use std::net::IpAddr;

/// This host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalHost {
    /// Its name in the policy, if it has one there.
    pub name: Option<HostName>,
    /// Its own address on the network between hosts, never IPv4-mapped.
    pub address: IpAddr,
}

/// Why a policy does not go with what this host is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Nobody said which host this is.
    #[error(
        "the policy names hosts ({0}), but not which one this is\n  start masqd with --host NAME"
    )]
    NotSaid(String),
    /// The policy does not know the name.
    #[error("--host {asked}: the policy has no such host; {known}")]
    Unknown {
        /// As asked for.
        asked: String,
        /// What there is.
        known: String,
    },
    /// The policy has hosts, and this address is none of theirs.
    #[error("--host {asked}: no host of the policy has this address; it has: {known}")]
    UnknownAddress {
        /// As asked for.
        asked: IpAddr,
        /// What there is.
        known: String,
    },
    /// A host has one address as long as masqd runs.
    #[error(
        "the policy gives this host, {name}, another address: {new} instead of {old}\n  start masqd again"
    )]
    Moved {
        /// This host.
        name: String,
        /// Until now.
        old: IpAddr,
        /// By the new policy.
        new: IpAddr,
    },
    /// Packets could not be told apart.
    #[error(
        "tenants `{0}` and `{1}` have the same partition {2} by chance, so their packets \
         cannot be told apart\n  write `pkey: 0x8001`, or another that is free, in one of them, \
         on all hosts"
    )]
    SharedPartition(String, String, String),
}

impl LocalHost {
    /// The host that `--host` names: a name of the policy's, or an address.
    ///
    /// # Errors
    /// [`HostError`]; the policy names hosts and nothing was said, or something else.
    pub fn find(policy: &Policy, asked: Option<&str>) -> Result<Option<Self>, HostError> {
        let Some(asked) = asked else {
            Self::check(None, policy)?;
            return Ok(None);
        };
        let host = match asked.parse::<IpAddr>() {
            Ok(address) => {
                let address = address.to_canonical();
                let host = policy.host_at(address);
                Self {
                    name: host.map(|host| host.name().clone()),
                    address,
                }
            }
            Err(_) => {
                let host = policy.host(asked).ok_or_else(|| HostError::Unknown {
                    asked: asked.escape_debug().to_string(),
                    known: known(policy),
                })?;
                Self {
                    name: Some(host.name().clone()),
                    address: host.address(),
                }
            }
        };
        Self::check(Some(&host), policy)?;
        Ok(Some(host))
    }

    /// Whether this host can live by a policy.
    ///
    /// # Errors
    /// [`HostError`] says why it cannot.
    pub fn check(this: Option<&Self>, policy: &Policy) -> Result<(), HostError> {
        let Some(this) = this else {
            return match policy.hosts().len() {
                0 => Ok(()),
                _ => Err(HostError::NotSaid(names(policy))),
            };
        };
        if let Some(name) = &this.name {
            match policy.host(name.as_str()) {
                Some(host) if host.address() == this.address => {}
                Some(host) => {
                    return Err(HostError::Moved {
                        name: name.to_string(),
                        old: this.address,
                        new: host.address(),
                    });
                }
                None => {
                    return Err(HostError::Unknown {
                        asked: name.to_string(),
                        known: known(policy),
                    });
                }
            }
        } else if policy.hosts().len() > 0 && policy.host_at(this.address).is_none() {
            return Err(HostError::UnknownAddress {
                asked: this.address,
                known: names(policy),
            });
        }
        match policy.shared_partition() {
            None => Ok(()),
            Some((one, other)) => Err(HostError::SharedPartition(
                one.name().to_string(),
                other.name().to_string(),
                one.partition().to_string(),
            )),
        }
    }

    /// Whether an endpoint can live here: the policy does not say that it lives elsewhere.
    pub fn may_have(this: Option<&Self>, endpoint: &Endpoint) -> bool {
        match endpoint.home() {
            Home::Anywhere => true,
            Home::Host(host) => this.is_some_and(|this| this.address == host.address()),
            _ => false,
        }
    }
}

impl fmt::Display for LocalHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.address),
            None => self.address.fmt(f),
        }
    }
}

fn names(policy: &Policy) -> String {
    let names: Vec<_> = policy.hosts().map(ToString::to_string).collect();
    names.join(", ")
}

fn known(policy: &Policy) -> String {
    match policy.hosts().len() {
        0 => "it names none; say the address of this host, or name it under `hosts`".into(),
        _ => format!("it has: {}", names(policy)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(hosts: &str) -> Policy {
        let text = format!(
            "version: 1\nhosts: {hosts}\ntenants: {{t: {{endpoints: {{a: {{address: 10.0.0.1}}}}}}}}"
        );
        Policy::parse("p", &text).unwrap()
    }

    #[test]
    fn a_host_is_found_by_its_name_or_its_address() {
        let two = policy("{alpha: {address: 192.0.2.1}, beta: {address: 192.0.2.2}}");
        let beta = LocalHost::find(&two, Some("beta")).unwrap().unwrap();
        assert_eq!(beta.to_string(), "beta (192.0.2.2)");
        for address in ["192.0.2.2", "::ffff:192.0.2.2"] {
            assert_eq!(LocalHost::find(&two, Some(address)), Ok(Some(beta.clone())));
        }
        let none = policy("{}");
        let found = LocalHost::find(&none, Some("192.0.2.2")).unwrap().unwrap();
        assert_eq!(found.to_string(), "192.0.2.2");
        assert_eq!(LocalHost::find(&none, None), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_there_is() {
        let two = policy("{alpha: {address: 192.0.2.1}, beta: {address: 192.0.2.2}}");
        for (asked, part) in [
            (None, "alpha (192.0.2.1), beta (192.0.2.2)"),
            (Some("gamma"), "it has: alpha"),
            (Some("192.0.2.3"), "no host of the policy"),
        ] {
            let error = LocalHost::find(&two, asked).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let error = LocalHost::find(&policy("{}"), Some("gamma")).unwrap_err();
        assert!(error.to_string().contains("under `hosts`"), "{error}");
    }

    #[test]
    fn a_running_host_keeps_its_address() {
        let alpha = LocalHost::find(&policy("{alpha: {address: 192.0.2.1}}"), Some("alpha"));
        let alpha = alpha.unwrap();
        let moved = policy("{alpha: {address: 192.0.2.9}}");
        let error = LocalHost::check(alpha.as_ref(), &moved).unwrap_err();
        assert!(matches!(error, HostError::Moved { .. }));
        let gone = LocalHost::check(alpha.as_ref(), &policy("{}")).unwrap_err();
        assert!(matches!(gone, HostError::Unknown { .. }));
    }

    #[test]
    fn tenants_that_share_a_partition_keep_a_host_from_the_wire() {
        let text = "version: 1\ntenants: {team-175: {endpoints: {a: {address: 10.0.0.1}}}, \
                    team-261: {endpoints: {a: {address: 10.0.0.1}}}}";
        let policy = Policy::parse("p", text).unwrap();
        assert_eq!(LocalHost::find(&policy, None), Ok(None));
        let error = LocalHost::find(&policy, Some("192.0.2.1")).unwrap_err();
        assert!(matches!(error, HostError::SharedPartition(..)));
    }
}
