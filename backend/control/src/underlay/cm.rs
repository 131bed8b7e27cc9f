//! rdma_cm between hosts: communication management on QP1 (IBA chapter 12).
//!
//! Between two masqs a request names virtual addresses in its private data, as
//! rdma_cm does (Annex A11), and hosts everywhere else. A plain host knows hosts
//! only: towards it an endpoint has this host's address, and a request of it is
//! for the first endpoint, by name, that listens for the service and that the
//! policy lets it reach.

use crate::devices::DeviceId;
use crate::fabric::service;
use crate::refusal::Refused;
use crate::world::World;
use masq_cm::{Asked, CommId, Mad, Message, Reason, Sender};
use masq_policy::{EndpointId, Request};
use masq_wire::PKey;
use std::net::IpAddr;

impl World {
    /// Sends a message of an agent to an endpoint of another host.
    pub(crate) fn send_elsewhere(
        &mut self,
        from: &EndpointId,
        peer: &EndpointId,
        host: IpAddr,
        mut message: Message,
    ) {
        let (Some(this), Some(partition)) = (self.this.clone(), self.partition_by_policy(from))
        else {
            return;
        };
        if self.policy.endpoint(peer).is_some_and(|e| e.is_outside()) {
            message.readdress(this.address, host);
            if matches!(message, Message::SidrRep(_)) {
                // It may send datagrams to its service from now on.
                self.forget_senders();
            }
        }
        // Ids of a tenant that was given another device take their leave by the old one.
        let on = self.fabric.device_of(from);
        self.send_cm(
            on.unwrap_or_else(|| self.device_of(from)),
            host,
            partition,
            message,
        );
    }

    fn send_cm(&self, on: DeviceId, host: IpAddr, partition: PKey, mut message: Message) {
        let Some(this) = &self.this else { return };
        message.route(this.address, host, partition.0);
        let mad = Mad {
            transaction: message.transaction(),
            message,
        };
        self.send_mad(on, host, partition, &mad.encode());
    }

    /// A message of another host.
    pub(super) fn on_cm(
        &mut self,
        on: DeviceId,
        from: IpAddr,
        partition: PKey,
        mut message: Message,
    ) {
        if let Some(asked) = message.asked() {
            match self.receiver_of(on, from, partition, &asked) {
                Ok((source, peer, to)) => {
                    message.readdress(source, to);
                    self.arrive_elsewhere(&peer, source, message);
                }
                Err(Unheard::Refused(reason, text)) => {
                    if let Some(answer) = message.refusal(reason, &text) {
                        self.send_cm(on, from, partition, answer);
                    }
                }
                Err(Unheard::Misplaced) => {
                    self.counters(on).misplaced += 1;
                    tracing::debug!(host = %from, ?asked, "not from where it says");
                }
            }
            return;
        }
        let comm = message.receiver_comm();
        match comm.and_then(|comm| self.conversation_of(on, from, partition, comm)) {
            Some((id, peer)) => self.arrive_elsewhere(&id, peer, message),
            None => self.counters(on).misplaced += 1,
        }
    }

    /// A message of an agent of this host cannot reach its host.
    pub(super) fn on_undeliverable(
        &mut self,
        on: DeviceId,
        host: IpAddr,
        partition: PKey,
        message: &Message,
    ) {
        let Some(comm) = message.sender_comm() else {
            return;
        };
        if let Some((id, peer)) = self.conversation_of(on, host, partition, comm) {
            // An endpoint that is gone has nobody waiting.
            let _ = self.with_agent(&id, |agent, now| agent.undeliverable(now, peer, comm));
        }
    }

    fn arrive_elsewhere(&mut self, id: &EndpointId, source: IpAddr, message: Message) {
        let sender = Sender {
            address: source,
            others: &[],
        };
        self.arrive(id, sender, message);
        self.settle(id);
    }

    /// Who a request is for: the asker's address, the endpoint, and its address.
    fn receiver_of(
        &mut self,
        on: DeviceId,
        from: IpAddr,
        partition: PKey,
        asked: &Asked,
    ) -> Result<(IpAddr, EndpointId, IpAddr), Unheard> {
        for tenant in self.tenants_of(on, partition) {
            let Some(tenant) = self.policy.tenant(tenant.as_str()) else {
                continue;
            };
            if let Some(outside) = tenant.endpoint_at(from).filter(|e| e.is_outside()) {
                let outside = outside.id().clone();
                return self.published(from, &outside, asked);
            }
            let source = self.canonical_in(tenant.name(), asked.source.ip());
            let Some(asker) = tenant.endpoint_at(source) else {
                continue;
            };
            if self.host_of(asker) != Some(from) {
                continue;
            }
            let asker = asker.id().clone();
            let to = self.canonical_in(asker.tenant(), asked.destination);
            let tenant = self.policy.tenant(asker.tenant().as_str());
            let receiver = tenant.and_then(|tenant| tenant.endpoint_at(to));
            let Some(receiver) = receiver.filter(|e| self.host_of(e).is_none()) else {
                let text = format!("{to} is not on this host");
                return Err(Unheard::Refused(Reason::INVALID_SERVICE_ID, text));
            };
            let receiver = receiver.id().clone();
            self.may_ask(&asker, to, asked)?;
            return Ok((source, receiver, to));
        }
        Err(Unheard::Misplaced)
    }

    /// The endpoint that serves a plain host, which knows this host's address only.
    fn published(
        &mut self,
        from: IpAddr,
        outside: &EndpointId,
        asked: &Asked,
    ) -> Result<(IpAddr, EndpointId, IpAddr), Unheard> {
        let this = self.this.as_ref().map(|this| this.address);
        if asked.source.ip() != from || Some(asked.destination) != this {
            return Err(Unheard::Misplaced);
        }
        let tenant = self.policy.tenant(outside.tenant().as_str());
        let endpoints = tenant.into_iter().flat_map(|tenant| tenant.endpoints());
        let listening: Vec<(EndpointId, IpAddr)> = endpoints
            .filter_map(|endpoint| {
                let to = endpoint.address()?;
                let listens = self.fabric.listens(endpoint.id(), asked, to);
                listens.then(|| (endpoint.id().clone(), to))
            })
            .collect();
        let mut answer = Err(Unheard::Refused(
            Reason::INVALID_SERVICE_ID,
            "nobody listens".into(),
        ));
        for (peer, to) in listening {
            match self.may_ask(outside, to, asked) {
                Ok(()) => return Ok((from, peer, to)),
                Err(refused) => answer = Err(refused),
            }
        }
        answer
    }

    /// Asks the policy for a request of another host.
    fn may_ask(&mut self, from: &EndpointId, to: IpAddr, asked: &Asked) -> Result<(), Unheard> {
        let request = Request::Connect {
            from,
            to,
            qp_type: crate::session::policy_type(asked.qp_type),
            service: service(asked.port_space, asked.port),
        };
        self.decide(&request).map(drop).map_err(|refused: Refused| {
            let text = refused.reason.to_string();
            let refused = refused.about(format!("request of {}", asked.source));
            self.refusals.record(from, 0, "cm_request", &refused);
            Unheard::Refused(Reason::UNSUPPORTED, text)
        })
    }

    /// The conversation with a host that an agent of this host has by this name: whose,
    /// and with whom.
    fn conversation_of(
        &self,
        on: DeviceId,
        from: IpAddr,
        partition: PKey,
        comm: CommId,
    ) -> Option<(EndpointId, IpAddr)> {
        let tenants = self.tenants_of(on, partition);
        self.fabric.conversations(comm).find(|(id, peer)| {
            let tenant = self.policy.tenant(id.tenant().as_str());
            let peer = tenant.and_then(|tenant| tenant.endpoint_at(*peer));
            tenants.contains(id.tenant())
                && peer.is_some_and(|peer| self.host_of(peer) == Some(from))
        })
    }
}

/// Why a request reaches nobody.
enum Unheard {
    /// The asker is told.
    Refused(Reason, String),
    /// It is not from where it says: no answer.
    Misplaced,
}
