//! What other hosts say, held against the policy.

use crate::{Change, Entry, Slot};
use masq_policy::{EndpointId, EndpointName, Home, Policy, TenantName, VirtualAddress};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// Why an entry is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ignored {
    /// The policy has no such tenant.
    #[error("the policy has no such tenant")]
    Tenant,
    /// The policy names hosts, and this one is none of them.
    #[error("the policy has no host with the address {0}")]
    Host(IpAddr),
    /// The policy has no such endpoint.
    #[error("the policy has no endpoint {0}")]
    Endpoint(EndpointId),
    /// The policy has no such class.
    #[error("the policy has no endpoint {0} with `address: auto`")]
    Class(EndpointId),
    /// The policy gives the endpoint other addresses.
    #[error("the policy gives {0} another address")]
    Address(EndpointId),
    /// The tenant may not have the address.
    #[error("it lies outside the `addresses` of the tenant")]
    Outside,
    /// A fixed endpoint has the address.
    #[error("by the policy, {0} has it")]
    Fixed(EndpointId),
    /// The policy says that it lives elsewhere.
    #[error("by the policy, {0} {1}")]
    Home(EndpointId, String),
}

/// Instances of another host, as the policy is to have them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    class: EndpointName,
    host: IpAddr,
    addresses: BTreeSet<IpAddr>,
}

/// All that other hosts said.
#[derive(Clone, Debug, Default)]
pub struct View {
    tenants: BTreeMap<TenantName, BTreeMap<IpAddr, Entry>>,
}

impl View {
    /// Takes news.
    pub fn apply(&mut self, change: Change) {
        let Slot { tenant, address } = change.slot;
        match change.entry {
            Some(entry) => {
                self.tenants
                    .entry(tenant)
                    .or_default()
                    .insert(address, entry);
            }
            None => {
                if let Some(entries) = self.tenants.get_mut(&tenant) {
                    entries.remove(&address);
                    if entries.is_empty() {
                        self.tenants.remove(&tenant);
                    }
                }
            }
        }
    }

    /// What is said, believed or not.
    pub fn entries(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.tenants.iter().flat_map(|(tenant, entries)| {
            entries.iter().map(|(address, entry)| {
                let (tenant, address) = (tenant.clone(), *address);
                (Slot { tenant, address }, entry)
            })
        })
    }

    /// The host that has an address of a tenant, if the policy lets it.
    pub fn lookup(&self, policy: &Policy, tenant: &TenantName, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        let entry = self.tenants.get(tenant)?.get(&address)?;
        judge(policy, tenant, address, entry).ok()?;
        Some(entry.host)
    }

    /// Why an entry is not believed, if it is not.
    pub fn judge(&self, policy: &Policy, slot: &Slot) -> Option<Ignored> {
        let entry = self.tenants.get(&slot.tenant)?.get(&slot.address)?;
        judge(policy, &slot.tenant, slot.address, entry).err()
    }

    /// The tenants that a policy with these entries has to be brought in step for.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantName> {
        self.tenants.keys()
    }

    /// Brings the instances that live on other hosts into a policy, and those that no
    /// longer do out of it. True if that changed it.
    ///
    /// An instance has the name that its own host gives it, unless another has that name
    /// here: then with the hash of its host behind it.
    pub fn bring_in_step(&self, policy: &mut Policy, tenant: &TenantName) -> bool {
        let mut wanted = self.wanted(policy, tenant);
        let mut changed = false;
        let mut has: BTreeMap<EndpointName, BTreeSet<IpAddr>> = BTreeMap::new();
        for (name, class, host, addresses) in elsewhere(policy, tenant) {
            let stays = wanted.get(&name);
            if stays.is_some_and(|w| w.host == host && Some(&w.class) == class.as_ref()) {
                has.insert(name, addresses);
            } else {
                policy.remove_instance(&EndpointId::new(tenant.clone(), name));
                changed = true;
            }
        }
        wanted.retain(|name, instance| {
            if has.contains_key(name) {
                return true;
            }
            let class = EndpointId::new(tenant.clone(), instance.class.clone());
            let added = policy.add_instance_elsewhere(&class, name.clone(), instance.host);
            changed |= added.is_ok();
            added.is_ok()
        });
        let mut set = |name: &EndpointName, addresses: &BTreeSet<IpAddr>| {
            let id = EndpointId::new(tenant.clone(), name.clone());
            let list: Vec<_> = addresses.iter().copied().collect();
            policy.set_addresses(&id, &list);
        };
        // First what is given up: another may have it now.
        for (name, before) in &mut has {
            let Some(instance) = wanted.get(name) else {
                continue;
            };
            let kept: BTreeSet<_> = before.intersection(&instance.addresses).copied().collect();
            if kept != *before {
                set(name, &kept);
                *before = kept;
                changed = true;
            }
        }
        for (name, instance) in &wanted {
            if has.get(name) != Some(&instance.addresses) {
                set(name, &instance.addresses);
                changed = true;
            }
        }
        changed
    }

    /// The instances of other hosts that a policy is to have, by the names that they get.
    fn wanted(&self, policy: &Policy, tenant: &TenantName) -> BTreeMap<EndpointName, Wanted> {
        let mut instances: BTreeMap<(&EndpointName, IpAddr), Wanted> = BTreeMap::new();
        for (address, entry) in self.tenants.get(tenant).into_iter().flatten() {
            let Some(class) = &entry.class else {
                continue;
            };
            if judge(policy, tenant, *address, entry).is_ok() {
                let instance = instances.entry((&entry.endpoint, entry.host));
                let instance = instance.or_insert_with(|| Wanted {
                    class: class.clone(),
                    host: entry.host,
                    addresses: BTreeSet::new(),
                });
                instance.addresses.insert(*address);
            }
        }
        let mut named = BTreeMap::new();
        for ((name, host), instance) in instances {
            let is_taken = |name: &EndpointName| {
                let found = policy.tenant(tenant.as_str()).map(|tenant| {
                    let here = tenant.endpoint(name.as_str());
                    let here = here.is_some_and(|e| !matches!(e.home(), Home::Elsewhere(_)));
                    here || tenant.class(name.as_str()).is_some()
                });
                found.unwrap_or(false)
            };
            let free = |name: &EndpointName, named: &BTreeMap<_, _>| {
                !is_taken(name) && !named.contains_key(name)
            };
            if free(name, &named) {
                named.insert(name.clone(), instance);
            } else if let Some(name) = distinct(name, host)
                && free(&name, &named)
            {
                named.insert(name, instance);
            }
        }
        named
    }
}

/// `name` with the hash of a host behind it.
fn distinct(name: &EndpointName, host: IpAddr) -> Option<EndpointName> {
    let fnv = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = host.to_string().bytes().fold(0x811c_9dc5, fnv);
    let suffix = format!("-{hash:08x}");
    let room = masq_policy::MAX_NAME_LEN - suffix.len();
    let head = name.as_str().get(..room).unwrap_or(name.as_str());
    EndpointName::new(&format!("{head}{suffix}")).ok()
}

/// The instances of other hosts that a policy has.
fn elsewhere(
    policy: &Policy,
    tenant: &TenantName,
) -> Vec<(EndpointName, Option<EndpointName>, IpAddr, BTreeSet<IpAddr>)> {
    let endpoints = policy.tenant(tenant.as_str());
    let endpoints = endpoints.into_iter().flat_map(|tenant| tenant.endpoints());
    let found = endpoints.filter_map(|endpoint| match endpoint.home() {
        Home::Elsewhere(host) => {
            let addresses = endpoint.addresses().iter().map(|a| a.ip()).collect();
            let name = endpoint.id().name().clone();
            Some((name, endpoint.class().cloned(), *host, addresses))
        }
        _ => None,
    });
    found.collect()
}

fn judge(
    policy: &Policy,
    tenant: &TenantName,
    address: IpAddr,
    entry: &Entry,
) -> Result<(), Ignored> {
    let known = policy.tenant(tenant.as_str()).ok_or(Ignored::Tenant)?;
    if policy.hosts().len() > 0 && policy.host_at(entry.host).is_none() {
        return Err(Ignored::Host(entry.host));
    }
    let id = || EndpointId::new(tenant.clone(), entry.endpoint.clone());
    let at_home = |home: &Home, id: EndpointId| match home {
        Home::Anywhere => Ok(()),
        Home::Host(host) if host.address() == entry.host => Ok(()),
        Home::Host(host) => Err(Ignored::Home(id, format!("lives on host {host}"))),
        _ => Err(Ignored::Home(id, "is a host outside".into())),
    };
    if let Some(class) = &entry.class {
        let class_id = EndpointId::new(tenant.clone(), class.clone());
        let class = known.class(class.as_str());
        let class = class.ok_or_else(|| Ignored::Class(class_id.clone()))?;
        at_home(class.template().home(), class_id)?;
        let address = VirtualAddress::new(address);
        let networks = known.addresses().unwrap_or_default();
        if !networks.iter().any(|network| network.contains(address)) {
            return Err(Ignored::Outside);
        }
        return match known.endpoint_at(address.ip()) {
            Some(holder) if holder.class().is_none() => Err(Ignored::Fixed(holder.id().clone())),
            _ => Ok(()),
        };
    }
    let endpoint = known.endpoint(entry.endpoint.as_str());
    let endpoint = endpoint.filter(|endpoint| endpoint.class().is_none());
    let endpoint = endpoint.ok_or_else(|| Ignored::Endpoint(id()))?;
    at_home(endpoint.home(), id())?;
    if !endpoint.addresses().contains(&VirtualAddress::new(address)) {
        return Err(Ignored::Address(id()));
    }
    Ok(())
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.endpoint, self.host)
    }
}

#[cfg(test)]
mod tests;
