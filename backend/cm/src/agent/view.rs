//! What people and the policy see.

use super::Agent;
use super::state::{Id, Phase, Talk};
use crate::message::CommId;
use crate::types::{Channel, PortSpace, Usage, View};
use masq_spec::verbs::QpType;
use std::net::IpAddr;

impl Agent {
    /// Listeners, connections and datagram services, in no order.
    pub fn views(&self) -> impl Iterator<Item = View> + '_ {
        self.ids
            .iter()
            .filter_map(|(&number, id)| self.view(number, id))
    }

    /// The connection that backs a queue pair. The passive side's own queue pair
    /// is told only with its acceptance, after it was connected: until then a
    /// request of that peer's queue pair stands for it.
    pub fn by_qpn(&self, local_qpn: u32, peer: IpAddr, remote_qpn: u32) -> Option<View> {
        [local_qpn, 0].into_iter().find_map(|local| {
            let first = (local, remote_qpn, peer, CommId(0));
            let last = (local, remote_qpn, peer, CommId(u32::MAX));
            self.by_qpn.range(first..=last).find_map(|key| {
                let talk = self.conversations.get(&key.3)?;
                let number = talk.id?;
                if local != local_qpn && talk.state != Talk::ReqReceived {
                    return None;
                }
                self.view(number, self.ids.get(&number)?)
            })
        })
    }

    /// Datagram services that this agent was told of by `peer`, or was asked for
    /// by it.
    pub fn resolved_to(&self, peer: IpAddr) -> impl Iterator<Item = View> + '_ {
        let range = (peer, CommId(0))..=(peer, CommId(u32::MAX));
        self.services.range(range).filter_map(|(_, comm)| {
            let number = self.conversations.get(comm)?.id?;
            self.view(number, self.ids.get(&number)?)
        })
    }

    /// A service for which somebody has begun or ceased to listen since it was last named
    /// here.
    pub fn relistened(&mut self) -> Option<(PortSpace, u16)> {
        self.relistened.pop_first()
    }

    /// Services that somebody listens for, in no order.
    pub fn services(&self) -> impl Iterator<Item = (PortSpace, u16)> + '_ {
        self.ports.served()
    }

    /// What serves those who ask for a service at one of its addresses.
    pub fn service_at(&self, space: PortSpace, port: u16, ip: IpAddr) -> Option<QpType> {
        let id = self.ports.listener(space, port, ip)?;
        Some(self.ids.get(&id)?.qp_type)
    }

    /// How many ids a session has, those that arrived included.
    pub fn ids_of(&self, owner: u64) -> usize {
        let channels = self.channels.range(Channel::all_of(owner));
        channels.map(|(_, channel)| channel.ids.len()).sum()
    }

    /// How much is kept.
    pub fn usage(&self) -> Usage {
        Usage {
            ids: self.ids.len(),
            conversations: self.conversations.len(),
            memberships: self.memberships.len(),
            events: self
                .channels
                .values()
                .map(|channel| channel.events.len())
                .sum(),
            ports: self.ports.len(),
            timers: self.timers.len(),
        }
    }

    fn view(&self, number: u32, id: &Id) -> Option<View> {
        let talk = id
            .conversation
            .and_then(|comm| self.conversations.get(&comm));
        let listens = id.phase == Phase::Listening;
        if talk.is_none() && !listens {
            return None;
        }
        Some(View {
            id: number,
            owner: id.channel.owner,
            state: talk.map_or("listening", |talk| talk.state.name()),
            port_space: id.port_space,
            qp_type: id.qp_type,
            source: id.source,
            destination: id.destination.filter(|_| !listens),
            port: talk.map_or(id.source.port(), |talk| talk.port),
            initiator: talk.is_some_and(|talk| talk.initiator),
            local_qpn: talk.map_or(0, |talk| talk.local_qpn),
            remote_qpn: talk.map_or(0, |talk| talk.remote_qpn),
        })
    }
}
