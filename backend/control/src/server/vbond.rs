//! vBond: addresses and GIDs of endpoints that are containers, in step with the
//! containers' network namespaces and with the policy.

use super::Server;
use super::containers::{Container, ContainerKey};
use masq_policy::{EndpointId, MAX_ADDRESSES, Placement, Policy, TenantName, VirtualAddress};
use masq_spec::event::AsyncEvent;
use std::net::IpAddr;

impl Server {
    /// A network namespace has other addresses now.
    pub(super) fn on_addresses(&mut self, key: ContainerKey, addresses: Vec<IpAddr>) {
        let Some(container) = self.containers.get_mut(key) else {
            return;
        };
        if container.addresses != addresses {
            container.addresses = addresses;
            self.apply_addresses(key);
        }
    }

    /// vBond: brings an instance's addresses and GIDs in step with its container's.
    fn apply_addresses(&mut self, key: ContainerKey) {
        let Some(container) = self.containers.get(key) else {
            return;
        };
        let (id, wanted) = (container.endpoint.clone(), container.addresses.clone());
        let of = |policy: &Policy| policy.endpoint(&id).map(|e| e.addresses().to_vec());
        let before = of(&self.world.policy).unwrap_or_default();
        let refused = self
            .world
            .change_policy(id.tenant(), |policy| policy.set_addresses(&id, &wanted));
        let after = of(&self.world.policy).unwrap_or_default();
        if before == after {
            return;
        }
        for (address, why) in refused {
            tracing::warn!(endpoint = %id, %address, %why, "an address is passed over");
        }
        let list: Vec<_> = after.iter().map(|address| address.ip()).collect();
        tracing::info!(endpoint = %id, addresses = ?list, "addresses changed");
        self.write_addresses(&id);
        let lost_first = !before.is_empty() && before.first() != after.first();
        let conns = self.conns.iter().filter(|(_, c)| *c.endpoint() == id);
        let conns: Vec<usize> = conns.map(|(index, _)| index).collect();
        for index in conns {
            if lost_first {
                // Everything that it is connected by is gone.
                self.close(index, "its address at GID index 3 is gone");
            } else if let Some(session) = self.conns.get_mut(index).and_then(|c| c.session_mut()) {
                session.readdress(&self.world);
                session.raise(AsyncEvent::GidChange, 1);
            }
        }
        self.world.forget_moved();
        self.world.readdress_agent(&id);
        self.recheck_tenant(id.tenant());
        self.announce(&id);
        // Each has room for so many only, so this ends.
        let lost = before
            .into_iter()
            .filter(|address| !after.contains(address));
        self.offer_addresses(&id, &lost.collect::<Vec<_>>());
        self.follow_view(id.tenant());
    }

    /// Writes down what the endpoint's addresses are: for its containers, and for a masqd
    /// after this one.
    pub(super) fn write_addresses(&self, id: &EndpointId) {
        let Some(gids) = self.world.gids(id) else {
            return;
        };
        for key in self.containers.keys(|c| c.endpoint == *id) {
            let Some(container) = self.containers.get(key) else {
                continue;
            };
            let record = container.record(&self.world.policy);
            let name = &self.world.identity.name;
            let written = container.dir.write_sysfs(name, &gids);
            if let Err(error) = written.and_then(|()| container.dir.write_record(&record)) {
                tracing::warn!(endpoint = %id, %error, "the container's directory is not in step");
            }
        }
    }

    /// Other containers of the tenant may have what `id` had until now, if they have room:
    /// one that gave up another for it would start a chain.
    pub(super) fn offer_addresses(&mut self, id: &EndpointId, had: &[VirtualAddress]) {
        let has_room = |id: &EndpointId| {
            let endpoint = self.world.policy.endpoint(id);
            endpoint.is_some_and(|e| e.addresses().len() < MAX_ADDRESSES)
        };
        let wants = |c: &Container| {
            let mut own = c.addresses.iter().map(|ip| VirtualAddress::new(*ip));
            c.endpoint.tenant() == id.tenant()
                && c.endpoint != *id
                && has_room(&c.endpoint)
                && own.any(|address| had.contains(&address))
        };
        for key in self.containers.keys(wants) {
            self.apply_addresses(key);
        }
    }

    /// Whom the sessions of a tenant may reach, after its endpoints changed.
    pub(super) fn recheck_tenant(&mut self, tenant: &TenantName) {
        self.world.recheck_connections();
        for (_, conn) in &mut self.conns {
            if conn.endpoint().tenant() == tenant
                && let Some(session) = conn.session_mut()
            {
                session.recheck(&mut self.world);
            }
        }
        self.world.forget_senders();
    }

    /// Makes the containers' endpoints part of a policy that is about to be in force;
    /// those that it has no place for are returned, with the reasons. What an endpoint has
    /// it keeps; only then may others have what they were refused.
    pub(super) fn carry_over(&self, policy: &mut Policy) -> Vec<(ContainerKey, String)> {
        let (mut left, mut carried) = (Vec::new(), Vec::new());
        for key in self.containers.keys(|_| true) {
            let Some(container) = self.containers.get(key) else {
                continue;
            };
            let placed = container.place_again(policy).and_then(|()| {
                let template = container.placement.template(policy);
                self.check_home(template)
            });
            if let Err(reason) = placed {
                left.push((key, reason));
                continue;
            }
            let Placement::InstanceOf(class) = &container.placement else {
                continue;
            };
            let name = container.endpoint.name().clone();
            if policy
                .endpoint(&container.endpoint)
                .is_some_and(|e| e.class().is_some())
            {
                continue;
            }
            match policy.add_instance(class, name) {
                Ok(id) => {
                    let now = self.world.policy.endpoint(&id);
                    let has = now.map_or(&[][..], |endpoint| endpoint.addresses());
                    let has: Vec<_> = has.iter().map(|address| address.ip()).collect();
                    policy.set_addresses(&id, &has);
                    carried.push(key);
                }
                Err(error) => left.push((key, error.to_string())),
            }
        }
        for container in carried
            .into_iter()
            .filter_map(|key| self.containers.get(key))
        {
            policy.set_addresses(&container.endpoint, &container.addresses);
        }
        left
    }
}
