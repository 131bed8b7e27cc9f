//! The underlay: what masqd says to other hosts, and hears from them, by
//! management datagrams (QP1). Communication management goes between agents here
//! and there, and to plain hosts; a question of ours asks another masq whose
//! queue pair sends a datagram.
//!
//! A host is believed in what concerns its own endpoints, and nothing else: the
//! tenant is the partition's, and an address counts only from the host where the
//! directory has it. What arrives at a device is for the tenants of that device, and goes
//! back by it.

mod cm;
mod owners;
mod proof;
mod services;
mod whose;

use crate::devices::DeviceId;
use crate::world::World;
use masq_device::{Arrival, MAD_LEN, Network, Sender, SenderKey};
use masq_policy::{EndpointId, Home, QpType, Request, Service, TenantName, VirtualAddress};
use masq_wire::{PKey, Qpn};
use proof::Proof;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use whose::Whose;

pub(crate) use owners::Owners;
pub(crate) use proof::Proofs;
pub(crate) use services::Publication;

/// What came of datagrams from other hosts that were not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnderlayCounters {
    /// Not a management datagram that masq speaks.
    pub(crate) unknown: u64,
    /// Of a host, partition or address that does not belong together.
    pub(crate) misplaced: u64,
}

impl World {
    /// Something arrived for the control side.
    pub(crate) fn on_arrival(&mut self, on: DeviceId, arrival: Arrival) {
        match arrival {
            Arrival::Management {
                from,
                partition,
                mad,
            } => self.on_management(on, from, partition, &mad),
            Arrival::Unreachable {
                host,
                partition,
                mad,
            } => {
                if let Ok(mad) = masq_cm::Mad::decode(&mad[..]) {
                    self.on_undeliverable(on, host, partition, &mad.message);
                }
            }
            Arrival::UnknownSender { sender } => self.on_unknown_sender(on, sender),
        }
    }

    fn on_management(&mut self, on: DeviceId, from: IpAddr, partition: PKey, mad: &[u8; MAD_LEN]) {
        if let Ok(mad) = masq_cm::Mad::decode(mad) {
            return self.on_cm(on, from, partition, mad.message);
        }
        match Whose::decode(mad) {
            Some(Whose::Question(qpn)) => self.on_question(on, from, partition, qpn),
            Some(Whose::Answer(..)) if self.tenants_of(on, partition).is_empty() => {
                // It was not asked by this device.
                self.counters(on).misplaced += 1;
            }
            Some(Whose::Answer(qpn, gid)) => {
                let sender = SenderKey {
                    host: from,
                    partition,
                    qpn,
                };
                self.proofs.answered(sender, gid, Instant::now());
                let who = gid
                    .and_then(|gid| self.sender_of(on, sender, VirtualAddress::from_gid(gid).ip()));
                self.learn(on, sender, who);
            }
            None => {
                self.counters(on).unknown += 1;
                tracing::debug!(host = %from, "a management datagram that masq does not speak");
            }
        }
    }

    /// A datagram came of a queue pair that the device does not know.
    fn on_unknown_sender(&mut self, on: DeviceId, sender: SenderKey) {
        let tenants: Vec<TenantName> = self.tenants_of(on, sender.partition);
        for tenant in &tenants {
            if self.is_outside(tenant, sender.host) {
                let who = self.sender_of(on, sender, sender.host);
                return self.learn(on, sender, who);
            }
        }
        if tenants.is_empty() || !self.is_masq(sender.host) {
            self.counters(on).misplaced += 1;
            return self.learn(on, sender, None);
        }
        self.send_mad(
            on,
            sender.host,
            sender.partition,
            &Whose::Question(sender.qpn).encode(),
        );
    }

    /// Another masq asks whose a queue pair of this host is.
    fn on_question(&mut self, on: DeviceId, from: IpAddr, partition: PKey, qpn: Qpn) {
        if !self.is_masq(from) {
            self.counters(on).misplaced += 1;
            return;
        }
        let owner = self.owners.of((on, qpn.get())).cloned();
        let owner = owner.filter(|id| self.partition(id).is_some_and(|own| own.matches(partition)));
        let gid = owner.and_then(|id| self.gids(&id)).map(|gids| gids.first());
        self.send_mad(on, from, partition, &Whose::Answer(qpn, gid).encode());
    }

    /// Whether the queue pair `qpn` on `host` belongs to `peer`, as far as the device
    /// does not see to it by itself; None: not known yet.
    pub(crate) fn is_peers(
        &mut self,
        own: &EndpointId,
        peer: &EndpointId,
        host: IpAddr,
        qpn: u32,
    ) -> Option<bool> {
        let on = self.device_of(own);
        if self.devices.get(on).separates_hosts() {
            return Some(true);
        }
        // Of a plain host the policy says that it is one endpoint, whole.
        let endpoint = self.policy.endpoint(peer)?;
        if endpoint.is_outside() {
            return Some(true);
        }
        let gids: Vec<_> = endpoint.addresses().iter().map(|a| a.gid()).collect();
        let sender = SenderKey {
            host,
            partition: self.partition(own)?,
            qpn: Qpn::new(qpn & 0xff_ffff),
        };
        match self.proofs.look(sender, Instant::now()) {
            Proof::Of(gid) => Some(gids.contains(&gid)),
            Proof::Nobodys => Some(false),
            Proof::Asked => None,
            Proof::Ask => {
                let question = Whose::Question(sender.qpn).encode();
                self.send_mad(on, host, sender.partition, &question);
                None
            }
        }
    }

    /// What receivers are to see of a queue pair of the endpoint at `address`, if
    /// that endpoint lives where its datagrams come from.
    fn sender_of(&mut self, on: DeviceId, sender: SenderKey, address: IpAddr) -> Option<Sender> {
        let tenants = self.tenants_of(on, sender.partition);
        let found = tenants.iter().find_map(|tenant| {
            let endpoint = self.policy.tenant(tenant.as_str())?.endpoint_at(address)?;
            (self.host_of(endpoint) == Some(sender.host)).then(|| endpoint.clone())
        });
        let Some(endpoint) = found else {
            self.counters(on).misplaced += 1;
            return None;
        };
        let from = endpoint.id().clone();
        let local: Vec<(EndpointId, IpAddr)> = self
            .policy
            .tenant(from.tenant().as_str())?
            .endpoints()
            .filter(|peer| self.host_of(peer).is_none())
            .filter_map(|peer| Some((peer.id().clone(), peer.address()?)))
            .collect();
        // The sender's own masq has asked the policy for each address handle;
        // nobody has asked for a plain host, nor for the members of a group.
        let reached: Vec<EndpointId> = local
            .into_iter()
            .filter(|(peer, to)| {
                let asked = Request::Connect {
                    from: &from,
                    to: *to,
                    qp_type: QpType::Ud,
                    service: Service::Verbs,
                };
                let agreed = || {
                    self.fabric
                        .datagram_services(peer, address)
                        .next()
                        .is_some()
                };
                self.policy.decide(&asked).allowed || agreed()
            })
            .map(|(peer, _)| peer)
            .collect();
        let mut reach: Vec<_> = reached.iter().map(|peer| self.endpoint_key(peer)).collect();
        reach.sort_unstable();
        Some(Sender {
            gid: VirtualAddress::new(address).gid(),
            trusted: !endpoint.is_outside(),
            reach,
        })
    }

    /// What is counted of a device.
    fn counters(&mut self, on: DeviceId) -> &mut UnderlayCounters {
        self.underlay.entry(on).or_default()
    }

    fn learn(&self, on: DeviceId, sender: SenderKey, who: Option<Sender>) {
        if let Some(network) = self.network(on) {
            network.learn(sender, who);
        }
    }

    /// Tells each device which hosts are no masq, of those that its tenants know.
    pub(crate) fn name_strangers(&self) {
        for (on, device) in self.devices.iter() {
            let Some(network) = device.network() else {
                continue;
            };
            let hosts = self.policy.endpoints().filter_map(|e| match e.home() {
                Home::Outside(host) if self.device_of(e.id()) == on => Some(*host),
                _ => None,
            });
            network.set_strangers(hosts.collect());
        }
    }

    fn send_mad(&self, on: DeviceId, to: IpAddr, partition: PKey, mad: &[u8; MAD_LEN]) {
        let Some(network) = self.network(on) else {
            return;
        };
        // As if it were lost: whoever waits for it asks again.
        if let Err(error) = network.send(to, partition, mad) {
            tracing::debug!(host = %to, %error, "a management datagram was not sent");
        }
    }

    /// The tenants that the partition of a packet of a device may stand for.
    fn tenants_of(&self, on: DeviceId, partition: PKey) -> Vec<TenantName> {
        self.policy
            .tenants()
            .filter(|tenant| PKey(tenant.partition().key()).matches(partition))
            .filter(|tenant| self.devices.of(&self.policy, tenant.name()) == on)
            .map(|tenant| tenant.name().clone())
            .collect()
    }

    fn is_outside(&self, tenant: &TenantName, host: IpAddr) -> bool {
        let tenant = self.policy.tenant(tenant.as_str());
        let endpoint = tenant.and_then(|tenant| tenant.endpoint_at(host));
        endpoint.is_some_and(|endpoint| endpoint.is_outside())
    }

    /// Whether another masq is there, by the policy or by what the directory says
    /// of endpoints.
    fn is_masq(&self, host: IpAddr) -> bool {
        let is_this = self.this.as_ref().is_some_and(|this| this.address == host);
        let is_named = self.policy.host_at(host).is_some();
        let lives_there = || {
            self.policy
                .endpoints()
                .any(|e| matches!(e.home(), Home::Elsewhere(at) if *at == host))
        };
        !is_this
            && (is_named
                || lives_there()
                || self.view.entries().any(|(_, entry)| entry.host == host))
    }

    /// The network of a device, if it has one.
    pub(crate) fn network(&self, on: DeviceId) -> Option<Arc<dyn Network>> {
        self.devices.get(on).network()
    }
}
