//! The decision: a request and a policy in, a verdict out; no clock, no I/O, no state.

use std::{fmt, net::IpAddr};

use serde::{Serialize, Serializer};

use crate::{
    address::VirtualAddress,
    model::{Endpoint, Policy, Tenant},
    names::{EndpointId, TenantName},
    rule::{Action, RuleId, Service},
    sets::{QpType, RemoteAccess, Verb},
};

/// What an endpoint asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request<'a> {
    /// To connect a queue pair to `to`, or to make an address handle for it. With a multicast
    /// group as `to`: to send to the group.
    Connect {
        /// Who asks.
        from: &'a EndpointId,
        /// The virtual address, of the asker's own tenant.
        to: IpAddr,
        /// The queue pair's type.
        qp_type: QpType,
        /// What the connection is made by.
        service: Service,
    },
    /// To create a queue pair.
    CreateQp {
        /// Who asks.
        endpoint: &'a EndpointId,
        /// The queue pair's type.
        qp_type: QpType,
    },
    /// To register memory that grants `remote` to peers.
    RegisterMemory {
        /// Who asks.
        endpoint: &'a EndpointId,
        /// What the region would grant.
        remote: RemoteAccess,
    },
    /// To attach a UD queue pair to a multicast group.
    JoinMulticast {
        /// Who asks.
        endpoint: &'a EndpointId,
        /// The group, IPv4-mapped or not.
        group: IpAddr,
    },
    /// To use an operation at all.
    Verb {
        /// Who asks.
        endpoint: &'a EndpointId,
        /// The operation.
        verb: Verb,
    },
}

impl<'a> Request<'a> {
    /// Who asks.
    pub fn endpoint(&self) -> &'a EndpointId {
        match self {
            Self::Connect { from: endpoint, .. }
            | Self::CreateQp { endpoint, .. }
            | Self::RegisterMemory { endpoint, .. }
            | Self::JoinMulticast { endpoint, .. }
            | Self::Verb { endpoint, .. } => endpoint,
        }
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect {
                from,
                to,
                qp_type,
                service,
            } => {
                write!(f, "{from} -> {to} ({qp_type}, service {service})")
            }
            Self::CreateQp { endpoint, qp_type } => {
                write!(f, "{endpoint} creates a {qp_type} queue pair")
            }
            Self::RegisterMemory { endpoint, remote } => {
                write!(
                    f,
                    "{endpoint} registers memory with remote access: {remote}"
                )
            }
            Self::JoinMulticast { endpoint, group } => write!(f, "{endpoint} joins group {group}"),
            Self::Verb { endpoint, verb } => write!(f, "{endpoint} uses {verb}"),
        }
    }
}

/// What decided, as it appears in logs and counters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RuleRef {
    /// A rule of the tenant: `blue rule 2 "a-to-b"`.
    Rule(RuleId),
    /// An endpoint may reach itself: `self`.
    OwnAddress,
    /// No rule matched: `default deny`.
    DefaultDeny,
    /// The asker or the target is unknown: `no such endpoint`.
    NoSuchEndpoint,
    /// A setting of the tenant or the endpoint: `blue qp_types`.
    Setting {
        /// The tenant.
        tenant: TenantName,
        /// The setting's key in the policy file.
        key: &'static str,
    },
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(id) => id.fmt(f),
            Self::OwnAddress => f.write_str("self"),
            Self::DefaultDeny => f.write_str("default deny"),
            Self::NoSuchEndpoint => f.write_str("no such endpoint"),
            Self::Setting { tenant, key } => write!(f, "{tenant} {key}"),
        }
    }
}

impl Serialize for RuleRef {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Why, in words: the `Display` is one clause for a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The rule matched and did what it says.
    RuleMatched(Action),
    /// The asker's own address, and no rule speaks of it.
    OwnAddress,
    /// The tenant or endpoint that asks is not in the policy.
    UnknownEndpoint(EndpointId),
    /// The tenant has no endpoint at the address; other tenants' do not count.
    NoEndpointAt {
        /// The asker's tenant.
        tenant: TenantName,
        /// The address.
        address: VirtualAddress,
    },
    /// The tenant's rules do not speak of the connection.
    NoRuleMatched {
        /// Who asked.
        from: EndpointId,
        /// Whose address it is.
        to: EndpointId,
    },
    /// Every thing asked for is allowed by the setting.
    SettingAllows,
    /// The queue pair type is not among the endpoint's.
    QpTypeNotAllowed(QpType),
    /// The operation is not among the endpoint's.
    VerbNotAllowed(Verb),
    /// These remote rights may not be granted.
    RemoteAccessNotAllowed(RemoteAccess),
    /// The address is not a multicast group.
    NotMulticast(VirtualAddress),
    /// The group lies in none of the tenant's networks of groups.
    GroupNotAllowed(VirtualAddress),
    /// Only UD reaches multicast groups.
    MulticastNeedsUd(QpType),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RuleMatched(Action::Allow) => f.write_str("the rule allows it"),
            Self::RuleMatched(Action::Deny) => f.write_str("the rule denies it"),
            Self::OwnAddress => f.write_str("an endpoint may reach itself"),
            Self::UnknownEndpoint(id) => write!(f, "the policy has no endpoint {id}"),
            Self::NoEndpointAt { tenant, address } => {
                write!(
                    f,
                    "tenant {tenant} has no endpoint with the address {address}"
                )
            }
            Self::NoRuleMatched { from, to } => write!(f, "no rule allows {from} to reach {to}"),
            Self::SettingAllows => f.write_str("the endpoint's settings allow it"),
            Self::QpTypeNotAllowed(qp_type) => {
                write!(f, "queue pairs of type {qp_type} are not allowed")
            }
            Self::VerbNotAllowed(verb) => write!(f, "the verb {verb} is not allowed"),
            Self::RemoteAccessNotAllowed(rights) => {
                write!(f, "memory may not grant remote access: {rights}")
            }
            Self::NotMulticast(address) => write!(f, "{address} is not a multicast group"),
            Self::GroupNotAllowed(group) => write!(f, "the multicast group {group} is not allowed"),
            Self::MulticastNeedsUd(qp_type) => {
                write!(f, "multicast groups are reached by UD, not by {qp_type}")
            }
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// The answer to a [`Request`].
///
/// Displays as `denied by default deny: no rule allows red/b to reach red/a`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[must_use]
pub struct Verdict {
    /// Whether the request may go on.
    pub allowed: bool,
    /// What decided.
    pub rule: RuleRef,
    /// Why.
    pub reason: Reason,
}

impl Verdict {
    pub(crate) fn allow(rule: RuleRef, reason: Reason) -> Self {
        Self {
            allowed: true,
            rule,
            reason,
        }
    }

    pub(crate) fn deny(rule: RuleRef, reason: Reason) -> Self {
        Self {
            allowed: false,
            rule,
            reason,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.allowed { "allowed" } else { "denied" };
        write!(f, "{word} by {}: {}", self.rule, self.reason)
    }
}

/// What is known before the rules are asked.
pub(crate) enum Stage<'p> {
    /// The verdict, without them.
    Decided(Verdict),
    /// They decide.
    Rules(Connection<'p>),
}

/// A connection between two endpoints of one tenant that only its rules can decide.
pub(crate) struct Connection<'p> {
    pub(crate) tenant: &'p Tenant,
    pub(crate) from: &'p Endpoint,
    pub(crate) to: &'p Endpoint,
    /// Whether an endpoint reaches itself.
    pub(crate) itself: bool,
}

impl Policy {
    /// Decides a request. Pure: the same policy and request give the same verdict.
    pub fn decide(&self, request: &Request<'_>) -> Verdict {
        decide(self, request)
    }

    /// Everything that precedes the rules: either a verdict, or a connection for the rules.
    pub(crate) fn before_rules(&self, request: &Request<'_>) -> Stage<'_> {
        let id = request.endpoint();
        let found = self
            .tenant(id.tenant().as_str())
            .and_then(|tenant| Some((tenant, tenant.endpoint(id.name().as_str())?)));
        let Some((tenant, endpoint)) = found else {
            return Stage::Decided(Verdict::deny(
                RuleRef::NoSuchEndpoint,
                Reason::UnknownEndpoint(id.clone()),
            ));
        };
        let (key, refusal) = match *request {
            Request::CreateQp { qp_type, .. } => ("qp_types", bad_type(endpoint, qp_type)),
            Request::Verb { verb, .. } => ("verbs", bad_verb(endpoint, verb)),
            Request::RegisterMemory { remote, .. } => {
                let excess = remote.without(endpoint.remote_access());
                let refusal =
                    (!excess.is_empty()).then_some(Reason::RemoteAccessNotAllowed(excess));
                ("remote_access", refusal)
            }
            Request::JoinMulticast { group, .. } => group_refusal(tenant, endpoint, group),
            Request::Connect { to, qp_type, .. } => {
                if let Some(reason) = bad_type(endpoint, qp_type) {
                    ("qp_types", Some(reason))
                } else if to.to_canonical().is_multicast() {
                    match qp_type {
                        QpType::Ud => group_refusal(tenant, endpoint, to),
                        _ => ("multicast", Some(Reason::MulticastNeedsUd(qp_type))),
                    }
                } else if let Some(to) = tenant.endpoint_at(to) {
                    return Stage::Rules(Connection {
                        tenant,
                        from: endpoint,
                        to,
                        itself: endpoint.id == to.id,
                    });
                } else {
                    let (tenant, address) = (tenant.name().clone(), VirtualAddress::new(to));
                    let reason = Reason::NoEndpointAt { tenant, address };
                    return Stage::Decided(Verdict::deny(RuleRef::NoSuchEndpoint, reason));
                }
            }
        };
        let rule = RuleRef::Setting {
            tenant: tenant.name().clone(),
            key,
        };
        Stage::Decided(match refusal {
            None => Verdict::allow(rule, Reason::SettingAllows),
            Some(reason) => Verdict::deny(rule, reason),
        })
    }
}

/// Decides a request; [`Policy::decide`] is the same as a method.
pub fn decide(policy: &Policy, request: &Request<'_>) -> Verdict {
    let connection = match policy.before_rules(request) {
        Stage::Rules(connection) => connection,
        Stage::Decided(verdict) => return verdict,
    };
    let Request::Connect {
        from,
        to,
        qp_type,
        service,
    } = *request
    else {
        // Only a connection gets past `before_rules`; refusing is the safe answer to a bug.
        let reason = Reason::UnknownEndpoint(request.endpoint().clone());
        return Verdict::deny(RuleRef::DefaultDeny, reason);
    };
    let tenant = connection.tenant;
    let slots = tenant
        .by_name
        .get(from.name().as_str())
        .zip(tenant.by_address.get(&VirtualAddress::new(to)));
    let number =
        slots.and_then(|(from, to)| tenant.index.first_match(*from, *to, qp_type, service));
    connection.verdict(number)
}

impl Connection<'_> {
    /// The refusal of a queue pair type that the asker may not use.
    pub(crate) fn bad_type(&self, qp_type: QpType) -> Option<Verdict> {
        let rule = RuleRef::Setting {
            tenant: self.tenant.name().clone(),
            key: "qp_types",
        };
        bad_type(self.from, qp_type).map(|reason| Verdict::deny(rule, reason))
    }

    /// The verdict when `number` is the first rule that matches.
    pub(crate) fn verdict(&self, number: Option<usize>) -> Verdict {
        if let Some(rule) = number.and_then(|number| self.tenant.rules.get(number)) {
            let allowed = rule.action == Action::Allow;
            let (rule, reason) = (
                RuleRef::Rule(rule.id.clone()),
                Reason::RuleMatched(rule.action),
            );
            return Verdict {
                allowed,
                rule,
                reason,
            };
        }
        if self.itself {
            return Verdict::allow(RuleRef::OwnAddress, Reason::OwnAddress);
        }
        let (from, to) = (self.from.id.clone(), self.to.id.clone());
        Verdict::deny(RuleRef::DefaultDeny, Reason::NoRuleMatched { from, to })
    }
}

fn bad_type(endpoint: &Endpoint, qp_type: QpType) -> Option<Reason> {
    (!endpoint.qp_types().contains(qp_type)).then_some(Reason::QpTypeNotAllowed(qp_type))
}

fn bad_verb(endpoint: &Endpoint, verb: Verb) -> Option<Reason> {
    (!endpoint.verbs().contains(verb)).then_some(Reason::VerbNotAllowed(verb))
}

/// The setting that speaks of a multicast group, and why it refuses it, if it does.
fn group_refusal(
    tenant: &Tenant,
    endpoint: &Endpoint,
    group: IpAddr,
) -> (&'static str, Option<Reason>) {
    if let Some(reason) = bad_verb(endpoint, Verb::Multicast) {
        return ("verbs", Some(reason));
    }
    let group = VirtualAddress::new(group);
    if !group.ip().is_multicast() {
        return ("multicast", Some(Reason::NotMulticast(group)));
    }
    let allowed = tenant.multicast.iter().any(|cidr| cidr.contains(group));
    (
        "multicast",
        (!allowed).then_some(Reason::GroupNotAllowed(group)),
    )
}
