//! Which services of this host's tenants plain hosts may ask for: a device whose QP1 is
//! the kernel's hears of requests only where it said that somebody listens.

use crate::devices::DeviceId;
use crate::fabric::service;
use crate::world::World;
use masq_device::PublishedService;
use masq_policy::{Home, Request, Tenant};
use masq_spec::verbs::QpType;
use masq_wire::PKey;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

impl World {
    /// Tells each device what plain hosts may ask for, if that has changed.
    pub(crate) fn publish_services(&mut self) {
        if !self.fabric.take_relistened() {
            return;
        }
        let devices = self.devices.iter();
        let networks: Vec<_> = devices
            .filter_map(|(on, device)| Some((on, device.network()?)))
            .collect();
        for (on, network) in networks {
            let services = self.services_of(on);
            let before = self.published.entry(on).or_default();
            if *before != services {
                before.clone_from(&services);
                network.set_services(services);
            }
        }
    }

    /// What endpoints of a device's tenants listen for, and a host outside may ask for.
    fn services_of(&self, on: DeviceId) -> Vec<PublishedService> {
        let tenants = self.policy.tenants();
        let own = tenants.filter(|tenant| self.devices.of(&self.policy, tenant.name()) == on);
        own.flat_map(|tenant| self.services_of_tenant(tenant))
            .collect()
    }

    fn services_of_tenant(&self, tenant: &Tenant) -> Vec<PublishedService> {
        let strangers: Vec<_> = tenant.endpoints().filter(|e| e.is_outside()).collect();
        let mut services = BTreeMap::<_, BTreeSet<IpAddr>>::new();
        if strangers.is_empty() {
            return Vec::new();
        }
        for endpoint in tenant.endpoints().filter(|e| !e.is_outside()) {
            let Some(to) = endpoint.address() else {
                continue;
            };
            for (space, port, qp_type) in self.fabric.services_at(endpoint.id(), to) {
                // A kernel's connection manager has no such services.
                if qp_type == QpType::Uc || space == masq_cm::PortSpace::Ipoib {
                    continue;
                }
                let may = strangers.iter().any(|stranger| {
                    let asked = Request::Connect {
                        from: stranger.id(),
                        to,
                        qp_type: crate::session::policy_type(qp_type),
                        service: service(space, port),
                    };
                    self.policy.decide(&asked).allowed
                });
                if may {
                    // The others are refused by control, which takes note of it.
                    let hosts = strangers.iter().filter_map(|e| match e.home() {
                        Home::Outside(host) => Some(*host),
                        _ => None,
                    });
                    services.entry((space, port)).or_default().extend(hosts);
                }
            }
        }
        let publish = |((space, port), hosts): ((masq_cm::PortSpace, u16), BTreeSet<IpAddr>)| {
            PublishedService {
                port_space: space.raw(),
                port,
                partition: PKey(tenant.partition().key()),
                hosts: hosts.into_iter().collect(),
            }
        };
        services.into_iter().map(publish).collect()
    }
}
