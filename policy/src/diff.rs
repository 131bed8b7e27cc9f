//! What a new policy changes, so that a running daemon can apply it.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    model::{Class, Endpoint, Policy, Tenant},
    names::{EndpointId, HostName, TenantName},
};

/// What changed about an endpoint that both policies have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointChange {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Whether its addresses differ.
    pub addresses: bool,
    /// Whether its quotas, or those of its tenant, differ.
    pub quotas: bool,
    /// Whether its QP types, verbs or remote rights differ.
    pub permissions: bool,
    /// Whether its labels differ.
    pub labels: bool,
    /// Whether it lives elsewhere.
    pub host: bool,
}

/// The difference of two policies. Everything is sorted.
///
/// Connections are not listed: a daemon asks [`Policy::decide`] again for those it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PolicyDiff {
    /// Tenants of the new policy only.
    pub tenants_added: Vec<TenantName>,
    /// Tenants of the old policy only.
    pub tenants_removed: Vec<TenantName>,
    /// Endpoints of the new policy only, those of added tenants included.
    pub endpoints_added: Vec<EndpointId>,
    /// Endpoints of the old policy only, those of removed tenants included.
    pub endpoints_removed: Vec<EndpointId>,
    /// Endpoints of both that differ.
    pub endpoints_changed: Vec<EndpointChange>,
    /// Classes of the new policy only.
    pub classes_added: Vec<EndpointId>,
    /// Classes of the old policy only.
    pub classes_removed: Vec<EndpointId>,
    /// Classes of both whose containers begin otherwise, or must be others.
    pub classes_changed: Vec<EndpointId>,
    /// Tenants of both whose `addresses` or `containers` differ.
    pub places_changed: Vec<TenantName>,
    /// Hosts of one policy only, and those of both whose addresses differ.
    pub hosts_changed: Vec<HostName>,
    /// Tenants of both whose partitions differ.
    pub partitions_changed: Vec<TenantName>,
    /// Tenants of both that are on another device.
    pub devices_changed: Vec<TenantName>,
    /// Tenants of both whose rules or multicast groups differ.
    pub rules_changed: Vec<TenantName>,
}

impl PolicyDiff {
    /// Whether the policies mean the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Policy {
    /// What `new` changes about `old`.
    pub fn diff(old: &Self, new: &Self) -> PolicyDiff {
        let missing = |from: &Self, other: &Self| -> (Vec<_>, Vec<_>) {
            let tenants = from.tenants().map(Tenant::name);
            let endpoints = from.endpoints().map(Endpoint::id);
            (
                tenants
                    .filter(|name| other.tenant(name.as_str()).is_none())
                    .cloned()
                    .collect(),
                endpoints
                    .filter(|id| other.endpoint(id).is_none())
                    .cloned()
                    .collect(),
            )
        };
        let (tenants_added, endpoints_added) = missing(new, old);
        let (tenants_removed, endpoints_removed) = missing(old, new);
        let mut diff = PolicyDiff {
            tenants_added,
            tenants_removed,
            endpoints_added,
            endpoints_removed,
            ..PolicyDiff::default()
        };
        for class in classes(new) {
            match class_of(old, class.id()) {
                None => diff.classes_added.push(class.id().clone()),
                Some(before) if before != class => diff.classes_changed.push(class.id().clone()),
                Some(_) => {}
            }
        }
        let hosts: BTreeSet<_> = old.hosts.keys().chain(new.hosts.keys()).collect();
        let differs = |name: &&&HostName| old.hosts.get(**name) != new.hosts.get(**name);
        diff.hosts_changed = hosts.iter().filter(differs).copied().cloned().collect();
        let gone = classes(old).filter(|class| class_of(new, class.id()).is_none());
        diff.classes_removed = gone.map(|class| class.id().clone()).collect();
        for after in new.tenants() {
            let Some(before) = old.tenant(after.name.as_str()) else {
                continue;
            };
            if before.rules != after.rules || before.multicast != after.multicast {
                diff.rules_changed.push(after.name.clone());
            }
            if before.partition != after.partition {
                diff.partitions_changed.push(after.name.clone());
            }
            if before.device != after.device {
                diff.devices_changed.push(after.name.clone());
            }
            if before.addresses != after.addresses || before.containers != after.containers {
                diff.places_changed.push(after.name.clone());
            }
            let tenant_quotas = before.quotas != after.quotas;
            for new in after.endpoints() {
                let Some(old) = before.endpoint(new.id.name().as_str()) else {
                    continue;
                };
                let change = EndpointChange {
                    endpoint: new.id.clone(),
                    addresses: old.addresses != new.addresses,
                    quotas: tenant_quotas || old.quotas != new.quotas,
                    permissions: old.permissions != new.permissions,
                    labels: old.labels != new.labels,
                    host: old.home != new.home,
                };
                let EndpointChange {
                    endpoint: _,
                    addresses,
                    quotas,
                    permissions,
                    labels,
                    host,
                } = change;
                if addresses || quotas || permissions || labels || host {
                    diff.endpoints_changed.push(change);
                }
            }
        }
        diff
    }
}

fn classes(policy: &Policy) -> impl Iterator<Item = &Class> {
    policy.tenants().flat_map(Tenant::classes)
}

fn class_of<'p>(policy: &'p Policy, id: &EndpointId) -> Option<&'p Class> {
    policy
        .tenant(id.tenant().as_str())?
        .class(id.name().as_str())
}
