//! Rules: who may connect to whom, for what, and how a rule is named in logs.

use std::{fmt, ops::RangeInclusive, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};

use crate::{
    address::{Cidr, VirtualAddress},
    model::{Endpoint, Labels},
    names::{EndpointName, TenantName},
    sets::{QpType, QpTypes},
};

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Lets the request pass.
    Allow,
    /// Refuses it.
    Deny,
}

/// An rdma_cm port space.
#[doc(alias = "rdma_port_space")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PortSpace {
    /// `RDMA_PS_TCP`.
    Tcp,
    /// `RDMA_PS_UDP`.
    Udp,
    /// `RDMA_PS_IB`.
    Ib,
    /// `RDMA_PS_IPOIB`.
    Ipoib,
}

impl PortSpace {
    /// Every port space.
    pub const ALL: &'static [Self] = &[Self::Tcp, Self::Udp, Self::Ib, Self::Ipoib];

    /// The word that the policy file uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Ib => "ib",
            Self::Ipoib => "ipoib",
        }
    }
}

/// What a connection is made by, and for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Plain verbs: the program exchanged QP numbers by itself.
    Verbs,
    /// rdma_cm, to a port.
    RdmaCm {
        /// The port space.
        space: PortSpace,
        /// The port in host byte order.
        port: u16,
    },
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verbs => f.write_str("verbs"),
            Self::RdmaCm { space, port } => write!(f, "rdma_cm/{}/{port}", space.name()),
        }
    }
}

impl Serialize for Service {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl FromStr for Service {
    type Err = ServiceError;

    /// Reads `verbs` or `rdma_cm/SPACE/PORT`.
    fn from_str(text: &str) -> Result<Self, ServiceError> {
        match text.parse()? {
            ServiceMatch::Verbs => Ok(Self::Verbs),
            ServiceMatch::RdmaCm {
                space: Some(space),
                ports,
            } if ports.start() == ports.end() => Ok(Self::RdmaCm {
                space,
                port: *ports.start(),
            }),
            _ => Err(ServiceError),
        }
    }
}

/// The text is not a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected `verbs`, `rdma_cm`, `rdma_cm/tcp` or `rdma_cm/tcp/7471` (tcp, udp, ib or ipoib)")]
pub struct ServiceError;

/// The services that a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServiceMatch {
    /// Every service.
    Any,
    /// Plain verbs.
    Verbs,
    /// rdma_cm.
    RdmaCm {
        /// One port space, or all of them.
        space: Option<PortSpace>,
        /// The ports, in host byte order.
        ports: RangeInclusive<u16>,
    },
}

impl ServiceMatch {
    /// Whether `service` is one of these.
    pub fn matches(&self, service: Service) -> bool {
        match (self, service) {
            (Self::Any, _) | (Self::Verbs, Service::Verbs) => true,
            (Self::RdmaCm { space, ports }, Service::RdmaCm { space: asked, port }) => {
                space.is_none_or(|space| space == asked) && ports.contains(&port)
            }
            _ => false,
        }
    }

    /// Whether everything that `other` matches is matched here.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (Self::Verbs, Self::Verbs) => true,
            (
                Self::RdmaCm { space, ports },
                Self::RdmaCm {
                    space: other,
                    ports: inner,
                },
            ) => {
                (space.is_none() || space == other)
                    && ports.start() <= inner.start()
                    && inner.end() <= ports.end()
            }
            _ => false,
        }
    }
}

impl FromStr for ServiceMatch {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, ServiceError> {
        let mut parts = text.split('/');
        match parts.next() {
            Some("any") if text == "any" => return Ok(Self::Any),
            Some("verbs") if text == "verbs" => return Ok(Self::Verbs),
            Some("rdma_cm") => {}
            _ => return Err(ServiceError),
        }
        let space = match parts.next() {
            None => None,
            Some(word) => {
                let found = PortSpace::ALL
                    .iter()
                    .copied()
                    .find(|space| space.name() == word);
                Some(found.ok_or(ServiceError)?)
            }
        };
        let port = |text: &str| -> Result<u16, ServiceError> {
            let number = crate::quotas::parse_count(text).ok_or(ServiceError)?;
            u16::try_from(number).map_err(|_| ServiceError)
        };
        let ports = match parts.next() {
            None => 0..=u16::MAX,
            Some(range) => match range.split_once('-') {
                None => port(range)?..=port(range)?,
                Some((first, last)) => port(first)?..=port(last)?,
            },
        };
        if ports.is_empty() || parts.next().is_some() {
            return Err(ServiceError);
        }
        Ok(Self::RdmaCm { space, ports })
    }
}

impl fmt::Display for ServiceMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Verbs => f.write_str("verbs"),
            Self::RdmaCm { space, ports } => {
                f.write_str("rdma_cm")?;
                let Some(space) = space else { return Ok(()) };
                write!(f, "/{}", space.name())?;
                match (*ports.start(), *ports.end()) {
                    (0, u16::MAX) => Ok(()),
                    (first, last) if first == last => write!(f, "/{first}"),
                    (first, last) => write!(f, "/{first}-{last}"),
                }
            }
        }
    }
}

/// Which endpoints of the rule's own tenant a rule's `from` or `to` means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Every endpoint of the tenant.
    Any,
    /// The endpoint of that name, or every instance of the class of that name.
    Endpoint(EndpointName),
    /// The endpoint at that address.
    Address(VirtualAddress),
    /// The endpoints with an address that lies in the network.
    Network(Cidr),
    /// The endpoints that carry all of these labels.
    Labels(Labels),
}

impl Selector {
    /// Whether `endpoint`, of the same tenant, is meant.
    pub fn matches(&self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Any => true,
            Self::Endpoint(name) => endpoint.is_called(name),
            Self::Address(address) => endpoint.addresses().contains(address),
            Self::Network(cidr) => endpoint.addresses().iter().any(|at| cidr.contains(*at)),
            Self::Labels(labels) => labels
                .iter()
                .all(|(key, value)| endpoint.labels().get(key) == Some(value)),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Endpoint(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Network(cidr) => cidr.fmt(f),
            Self::Labels(labels) => {
                f.write_str("labels ")?;
                for (i, (key, value)) in labels.iter().enumerate() {
                    write!(f, "{}{key}={value}", if i > 0 { "," } else { "" })?;
                }
                Ok(())
            }
        }
    }
}

/// Separated by commas, for messages.
pub(crate) fn list<T: fmt::Display>(items: &[T]) -> String {
    items
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A rule's identity within a policy: its tenant and its place in the tenant's list.
///
/// Displays as `blue rule 2 "a-to-b"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleId {
    pub(crate) tenant: TenantName,
    pub(crate) index: usize,
    pub(crate) name: Option<Arc<str>>,
}

impl RuleId {
    /// The tenant whose rule it is.
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// Place in the tenant's list, from 1.
    pub fn number(&self) -> usize {
        self.index + 1
    }

    /// The rule's name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rule {}", self.tenant, self.number())?;
        self.name
            .as_ref()
            .map_or(Ok(()), |name| write!(f, " \"{name}\""))
    }
}

impl Serialize for RuleId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// One rule of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(crate) id: RuleId,
    pub(crate) from: Vec<Selector>,
    pub(crate) to: Vec<Selector>,
    pub(crate) both_ways: bool,
    pub(crate) qp_types: QpTypes,
    pub(crate) services: Vec<ServiceMatch>,
    pub(crate) action: Action,
}

/// Why a rule does not match a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    From,
    To,
    Neither,
    QpType,
    Service,
}

impl Rule {
    /// The rule's identity.
    pub fn id(&self) -> &RuleId {
        &self.id
    }

    /// The initiators it speaks of: those that any of the selectors means.
    pub fn from(&self) -> &[Selector] {
        &self.from
    }

    /// The targets it speaks of: those that any of the selectors means.
    pub fn to(&self) -> &[Selector] {
        &self.to
    }

    /// Whether it speaks of connections from its `to` to its `from` as well.
    pub fn both_ways(&self) -> bool {
        self.both_ways
    }

    /// The queue pair types it speaks of.
    pub fn qp_types(&self) -> QpTypes {
        self.qp_types
    }

    /// The services it speaks of.
    pub fn services(&self) -> &[ServiceMatch] {
        &self.services
    }

    /// What it does when it matches.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The first reason for which the rule does not match, `None` if it does.
    pub(crate) fn mismatch(
        &self,
        from: &Endpoint,
        to: &Endpoint,
        qp_type: QpType,
        service: Service,
    ) -> Option<Mismatch> {
        let means =
            |selectors: &[Selector], endpoint| selectors.iter().any(|s| s.matches(endpoint));
        let forward = (means(&self.from, from), means(&self.to, to));
        let backward = self.both_ways && means(&self.to, from) && means(&self.from, to);
        if !backward && forward != (true, true) {
            return Some(match forward {
                _ if self.both_ways => Mismatch::Neither,
                (false, _) => Mismatch::From,
                (true, _) => Mismatch::To,
            });
        }
        if !self.qp_types.contains(qp_type) {
            return Some(Mismatch::QpType);
        }
        if !self.services.iter().any(|s| s.matches(service)) {
            return Some(Mismatch::Service);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_read_what_they_write() {
        for text in [
            "any",
            "verbs",
            "rdma_cm",
            "rdma_cm/tcp",
            "rdma_cm/udp/7",
            "rdma_cm/ib/7000-7999",
        ] {
            assert_eq!(text.parse::<ServiceMatch>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "tcp",
            "any/1",
            "verbs/tcp",
            "rdma_cm/",
            "rdma_cm/sctp",
            "rdma_cm/tcp/65536",
            "rdma_cm/tcp/9-1",
            "rdma_cm/tcp/1/2",
            "rdma_cm/tcp/+1",
            "rdma_cm/tcp/1-2-3",
        ] {
            assert!(bad.parse::<ServiceMatch>().is_err(), "{bad:?} was accepted");
        }
        assert!(
            "rdma_cm/tcp".parse::<Service>().is_err(),
            "a request names one port"
        );
    }

    #[test]
    fn a_service_matches_its_own_space_and_ports() {
        let asked = |port| Service::RdmaCm {
            space: PortSpace::Tcp,
            port,
        };
        let rule: ServiceMatch = "rdma_cm/tcp/7000-7999".parse().unwrap();
        assert!(rule.matches(asked(7000)) && rule.matches(asked(7999)));
        assert!(
            !rule.matches(asked(6999))
                && !rule.matches(asked(8000))
                && !rule.matches(Service::Verbs)
        );
        assert!(
            !"rdma_cm/udp"
                .parse::<ServiceMatch>()
                .unwrap()
                .matches(asked(7000))
        );
    }
}
