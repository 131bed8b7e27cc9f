//! Endpoints that come and go with their containers.

use std::net::IpAddr;

use crate::{
    address::VirtualAddress,
    host::Home,
    model::{Endpoint, Policy, Tenant},
    names::{EndpointId, EndpointName},
};

/// Most addresses of an instance: a GID table has room for no more.
pub const MAX_ADDRESSES: usize = 7;

/// Why an address of a container did not become its endpoint's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressRefusal {
    /// Another endpoint of the tenant has it.
    #[error("{0} has it")]
    Held(EndpointId),
    /// The policy does not give it to the tenant.
    #[error("it lies outside the `addresses` of the tenant")]
    Outside,
    /// The GID table is full.
    #[error("an endpoint has at most {MAX_ADDRESSES} addresses")]
    TooMany,
}

/// Why there is no such instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// The policy has no such class.
    #[error("the policy has no endpoint {0} with `address: auto`")]
    NoClass(EndpointId),
    /// An endpoint has that name already.
    #[error("there is an endpoint {0} already")]
    Exists(EndpointId),
}

/// Addresses that an instance could not have, with the reasons.
pub type Refused = Vec<(IpAddr, AddressRefusal)>;

impl Policy {
    /// Adds an instance of `class`, named `name`, without addresses; its place in the
    /// rules is that of its class. Takes time in proportion to the tenant's rules.
    ///
    /// # Errors
    /// [`InstanceError`]; nothing changes then.
    pub fn add_instance(
        &mut self,
        class: &EndpointId,
        name: EndpointName,
    ) -> Result<EndpointId, InstanceError> {
        let no_class = || InstanceError::NoClass(class.clone());
        let tenant = self.tenants.get_mut(class.tenant()).ok_or_else(no_class)?;
        let template = tenant.class(class.name().as_str()).ok_or_else(no_class)?;
        let id = EndpointId::new(class.tenant().clone(), name);
        if tenant.endpoint(id.name().as_str()).is_some()
            || tenant.class(id.name().as_str()).is_some()
        {
            return Err(InstanceError::Exists(id));
        }
        let endpoint = Endpoint {
            id: id.clone(),
            class: Some(class.name().clone()),
            ..template.template.clone()
        };
        tenant.index.push(&endpoint, &tenant.rules);
        tenant
            .by_name
            .insert(id.name().clone(), tenant.endpoints.len());
        tenant.endpoints.push(endpoint);
        Ok(id)
    }

    /// Adds an instance that lives on another host, as [`Self::add_instance`] does. It is
    /// known by the same name there.
    ///
    /// # Errors
    /// [`InstanceError`]; nothing changes then.
    pub fn add_instance_elsewhere(
        &mut self,
        class: &EndpointId,
        name: EndpointName,
        host: IpAddr,
    ) -> Result<EndpointId, InstanceError> {
        let id = self.add_instance(class, name)?;
        let tenant = self.tenants.get_mut(id.tenant());
        let endpoint = tenant.and_then(|tenant| tenant.endpoints.last_mut());
        if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.id == id) {
            endpoint.home = Home::Elsewhere(host.to_canonical());
        }
        Ok(id)
    }

    /// Gives an instance those of `addresses` that it may have; the others are returned.
    /// Link-local and loopback addresses are passed over. The first IPv4 address comes
    /// first, so that it is at GID index 3. Fixed endpoints do not change; instances of
    /// other hosts lose what one of this host is given.
    pub fn set_addresses(&mut self, id: &EndpointId, addresses: &[IpAddr]) -> Refused {
        let Some(tenant) = self.tenants.get_mut(id.tenant()) else {
            return Vec::new();
        };
        let Some(slot) = tenant.instance(id) else {
            return Vec::new();
        };
        tenant.by_address.retain(|_, holder| *holder != slot);
        tenant.take_from_elsewhere(slot, addresses);
        let (fit, refused) = tenant.admit(addresses);
        for address in &fit {
            tenant.by_address.insert(*address, slot);
        }
        if let Some(endpoint) = tenant.endpoints.get_mut(slot) {
            endpoint.addresses = fit;
            tenant.index.update(slot, endpoint, &tenant.rules);
        }
        refused
    }

    /// Removes an instance; fixed endpoints stay.
    pub fn remove_instance(&mut self, id: &EndpointId) {
        let Some(tenant) = self.tenants.get_mut(id.tenant()) else {
            return;
        };
        let Some(slot) = tenant.instance(id) else {
            return;
        };
        tenant.endpoints.swap_remove(slot);
        tenant.index.swap_remove(slot);
        tenant.by_name.remove(id.name());
        tenant.by_address.retain(|_, holder| *holder != slot);
        let last = tenant.endpoints.len();
        if let Some(moved) = tenant.endpoints.get(slot) {
            tenant.by_name.insert(moved.id.name().clone(), slot);
        }
        for holder in tenant.by_address.values_mut().filter(|h| **h == last) {
            *holder = slot;
        }
    }
}

impl Tenant {
    fn instance(&self, id: &EndpointId) -> Option<usize> {
        let slot = *self.by_name.get(id.name())?;
        self.endpoints.get(slot)?.class.is_some().then_some(slot)
    }

    /// Takes addresses that the instance in `slot` is to have from those of other hosts, if
    /// it lives here: its own host sees that it has them.
    fn take_from_elsewhere(&mut self, slot: usize, wanted: &[IpAddr]) {
        let is_elsewhere = |endpoint: &Endpoint| matches!(endpoint.home, Home::Elsewhere(_));
        if self.endpoints.get(slot).is_none_or(is_elsewhere) {
            return;
        }
        for address in wanted.iter().map(|ip| VirtualAddress::new(*ip)) {
            let Some(holder) = self.by_address.get(&address).copied() else {
                continue;
            };
            let endpoint = self.endpoints.get_mut(holder);
            if let Some(endpoint) = endpoint.filter(|endpoint| is_elsewhere(endpoint)) {
                endpoint.addresses.retain(|has| *has != address);
                self.index.update(holder, endpoint, &self.rules);
                self.by_address.remove(&address);
            }
        }
    }

    fn admit(&self, addresses: &[IpAddr]) -> (Vec<VirtualAddress>, Refused) {
        let mut fit: Vec<VirtualAddress> = Vec::new();
        let mut refused = Vec::new();
        let mut ordered: Vec<_> = addresses
            .iter()
            .map(|ip| VirtualAddress::new(*ip))
            .collect();
        ordered.sort_by_key(|address| !address.ip().is_ipv4());
        for address in ordered {
            let link_local = match address.ip() {
                IpAddr::V4(v4) => v4.is_link_local(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            if link_local || address.unfit_for_endpoint().is_some() || fit.contains(&address) {
                continue;
            }
            let holder = self.by_address.get(&address);
            let within = |network: &crate::address::Cidr| network.contains(address);
            if !self.addresses.iter().flatten().any(within) {
                refused.push((address.ip(), AddressRefusal::Outside));
            } else if let Some(holder) = holder.and_then(|slot| self.endpoints.get(*slot)) {
                refused.push((address.ip(), AddressRefusal::Held(holder.id.clone())));
            } else if fit.len() >= MAX_ADDRESSES {
                refused.push((address.ip(), AddressRefusal::TooMany));
            } else {
                fit.push(address);
            }
        }
        (fit, refused)
    }
}
