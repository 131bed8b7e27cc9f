//! Which services of this host's tenants plain hosts may ask for: a device whose QP1 is
//! the kernel's hears of requests only where it said that somebody listens.
//!
//! A tenant may listen thousands of times. What changes is looked at alone, so many
//! services in one turn; and the devices are told everything together, the more there is
//! the less often.

use crate::devices::DeviceId;
use crate::fabric::{ServiceOf, service};
use crate::refusal::Refused;
use crate::world::World;
use masq_cm::PortSpace;
use masq_device::PublishedService;
use masq_policy::{EndpointId, Home, Request, Tenant, TenantName};
use masq_spec::command::Status;
use masq_spec::device::Features;
use masq_spec::verbs::QpType;
use masq_wire::PKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Services that are looked at in one turn: a millisecond's work, and more than programs
/// can change in one.
const MOST_LOOKED_AT: usize = 1024;
/// How long the devices are left alone for each service that they were told of; twenty times
/// what it takes to tell them.
const REST_OF_EACH: Duration = Duration::from_micros(10);
/// Ports below are the system's: who has one of a host is taken for its administrator's.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// What plain hosts may ask for, and what the devices know of it.
#[derive(Default)]
pub(crate) struct Publication {
    /// Services that a plain host may ask for, and who listens for them.
    offered: BTreeMap<(TenantName, PortSpace, u16), BTreeSet<EndpointId>>,
    /// Whether this, or who the plain hosts are, has changed since the devices were told.
    changed: bool,
    told: HashMap<DeviceId, Vec<PublishedService>>,
    /// Until when the devices are left alone.
    rests_until: Option<Instant>,
}

impl World {
    /// Tells each device what plain hosts may ask for, if that has changed.
    pub(crate) fn publish_services(&mut self, now: Instant) {
        for _ in 0..MOST_LOOKED_AT {
            let Some(service) = self.fabric.take_relistened() else {
                break;
            };
            self.look_at(service);
        }
        let publication = &mut self.publication;
        if !publication.changed || publication.rests_until.is_some_and(|until| now < until) {
            return;
        }
        publication.changed = false;
        let mut told = 0;
        let devices = self.devices.iter();
        let networks: Vec<_> = devices
            .filter_map(|(on, device)| Some((on, device.network()?)))
            .collect();
        for (on, network) in networks {
            let services = self.services_of(on);
            told += services.len() as u32;
            let before = self.publication.told.entry(on).or_default();
            if *before != services {
                before.clone_from(&services);
                network.set_services(services);
            }
        }
        self.publication.rests_until = Some(now + REST_OF_EACH * told);
    }

    /// When [`publish_services`](Self::publish_services) has something to do.
    pub(crate) fn next_publication(&self, now: Instant) -> Option<Instant> {
        if self.fabric.has_relistened() {
            return Some(now);
        }
        let publication = &self.publication;
        publication
            .changed
            .then(|| publication.rests_until.unwrap_or(now))
    }

    /// Notes that others may ask for what a tenant's endpoints listen for, or those of all
    /// tenants; or that they have other hosts.
    pub(crate) fn note_relistened(&mut self, tenant: Option<&TenantName>) {
        self.fabric.note_relistened(tenant);
        self.publication.changed = true;
    }

    /// Looks whether a plain host may ask for what an endpoint listens for.
    fn look_at(&mut self, of: ServiceOf) {
        let is_offered = self.is_offered(&of);
        let (id, space, port) = of;
        let key = (id.tenant().clone(), space, port);
        let publication = &mut self.publication;
        if is_offered {
            let listeners = publication.offered.entry(key).or_default();
            publication.changed |= listeners.is_empty();
            listeners.insert(id);
        } else if let Some(listeners) = publication.offered.get_mut(&key) {
            listeners.remove(&id);
            if listeners.is_empty() {
                publication.offered.remove(&key);
                publication.changed = true;
            }
        }
    }

    fn is_offered(&mut self, of: &ServiceOf) -> bool {
        let (id, space, port) = of;
        let Some(tenant) = self.policy.tenant(id.tenant().as_str()) else {
            return false;
        };
        let Some(to) = self.policy.endpoint(id).and_then(|e| e.address()) else {
            return false;
        };
        // A kernel's connection manager has no such services.
        let served = self.fabric.service_at(of, to);
        let served = served.filter(|t| *t != QpType::Uc && *space != PortSpace::Ipoib);
        let Some(qp_type) = served else {
            return false;
        };
        let may = strangers(tenant).any(|(stranger, _)| {
            let asked = Request::Connect {
                from: stranger,
                to,
                qp_type: crate::session::policy_type(qp_type),
                service: service(*space, *port),
            };
            self.policy.decide(&asked).allowed
        });
        let features = self.carrier(id).features();
        if may && *port < FIRST_UNPRIVILEGED && features.contains(Features::IWARP) {
            let reason = "on an iWARP card it would be a TCP port of this host below 1024: plain \
                          hosts cannot ask for it";
            let refused = Refused::new(Status::Denied, "privileged port", reason);
            let refused = refused.about(format!("rdma_cm/{}/{port}", space.name()));
            self.refusals.record(id, 0, "cm_publish", &refused);
            return false;
        }
        may
    }

    /// What endpoints of a device's tenants listen for, and a host outside may ask for.
    fn services_of(&self, on: DeviceId) -> Vec<PublishedService> {
        let mut services = Vec::new();
        for tenant in self.policy.tenants() {
            if self.devices.of(&self.policy, tenant.name()) != on {
                continue;
            }
            // The first of its services by order.
            let first = (tenant.name().clone(), PortSpace::Tcp, 0);
            let of_tenant = self.publication.offered.range(first..);
            let of_tenant = of_tenant.take_while(|((of, ..), _)| of == tenant.name());
            // Of those that may not ask for one, control refuses the requests, and takes note.
            let hosts: BTreeSet<IpAddr> = strangers(tenant).map(|(_, host)| host).collect();
            let hosts: Vec<IpAddr> = hosts.into_iter().collect();
            services.extend(of_tenant.map(|((_, space, port), _)| PublishedService {
                port_space: space.raw(),
                port: *port,
                partition: PKey(tenant.partition().key()),
                hosts: hosts.clone(),
            }));
        }
        services
    }
}

/// The plain hosts that a tenant knows.
fn strangers(tenant: &Tenant) -> impl Iterator<Item = (&EndpointId, IpAddr)> {
    tenant.endpoints().filter_map(|e| match e.home() {
        Home::Outside(host) => Some((e.id(), *host)),
        _ => None,
    })
}
