//! Between connection managers: the agent of each endpoint, the messages that
//! they send each other, the events that they raise, their time and their quota.
//!
//! A message names its receiver by an address of the sender's tenant, so that no
//! agent can reach another tenant's, whatever it says.

use crate::devices::DeviceId;
use crate::ledger::{Exceeded, Kind};
use crate::notifier::Notifier;
use crate::refusal::Refused;
use crate::world::World;
use masq_cm::{Agent, Channel, Config, Message, Output, Peer, PortSpace, Sender, View};
use masq_policy::{EndpointId, Service, TenantName, VirtualAddress};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// `IBV_MTU_4096`: the largest, since nothing is cut into packets on one host that
/// Messages that one call may lead to: far beyond what any does.
const MOST_MESSAGES: u32 = 8 << 20;
/// Ids that end in one turn, when their channel or their session does: a millisecond's work.
pub(crate) const MOST_ENDED: usize = 256;

/// What an endpoint listens for, or did.
pub(crate) type ServiceOf = (EndpointId, PortSpace, u16);

/// An agent and what is kept for it.
struct Member {
    agent: Agent,
    address: IpAddr,
    /// The device whose limits it tells peers.
    on: DeviceId,
    /// Ids that its endpoint's quota was charged with.
    charged: u64,
    /// When it wants to be woken, as noted in [`Fabric::times`].
    timeout: Option<Instant>,
}

/// The connection managers of this host.
#[derive(Default)]
pub(crate) struct Fabric {
    members: HashMap<EndpointId, Member>,
    /// Who hears of the events of a session's channels.
    sessions: HashMap<u64, Arc<Notifier>>,
    times: BTreeSet<(Instant, EndpointId)>,
    /// The channel whose command is being served, and the events raised on it:
    /// its program counts them itself.
    serving: Option<(Channel, u32)>,
    /// Services for which an endpoint may have begun or ceased to listen, or of which others
    /// may ask again whether they may.
    relistened: BTreeSet<ServiceOf>,
    /// Sessions that have ended, and ids of theirs that have not yet.
    leaving: VecDeque<(EndpointId, u64)>,
}

impl Fabric {
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.times.first().map(|(time, _)| *time)
    }

    /// Whether ids of ended sessions are left to end.
    pub(crate) fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Has a session hear of the events of its channels.
    pub(crate) fn enter(&mut self, session: u64, notifier: &Arc<Notifier>) {
        self.sessions
            .entry(session)
            .or_insert_with(|| Arc::clone(notifier));
    }

    /// The device that an endpoint's agent began on.
    pub(crate) fn device_of(&self, id: &EndpointId) -> Option<DeviceId> {
        self.members.get(id).map(|member| member.on)
    }

    /// Ids and listeners of an endpoint.
    pub(crate) fn views(&self, id: &EndpointId) -> Vec<View> {
        let member = self.members.get(id);
        member.map_or_else(Vec::new, |m| m.agent.views().collect())
    }

    /// The connection that a queue pair belongs to, if the connection manager
    /// made one.
    pub(crate) fn by_qpn(
        &self,
        id: &EndpointId,
        qpn: u32,
        peer: IpAddr,
        peer_qpn: u32,
    ) -> Option<View> {
        let agent = &self.members.get(id)?.agent;
        agent.by_qpn(qpn, peer, peer_qpn)
    }

    /// Datagram services between an endpoint and a peer that they agreed on.
    pub(crate) fn datagram_services(
        &self,
        id: &EndpointId,
        peer: IpAddr,
    ) -> impl Iterator<Item = View> + '_ {
        let member = self.members.get(id);
        member
            .into_iter()
            .flat_map(move |m| m.agent.resolved_to(peer))
    }

    /// Whether somebody of an endpoint listens for what is asked.
    pub(crate) fn listens(&self, id: &EndpointId, asked: &masq_cm::Asked, to: IpAddr) -> bool {
        let member = self.members.get(id);
        member.is_some_and(|m| m.agent.listens(asked.port_space, asked.port, to))
    }

    /// What serves those who ask for a service at an endpoint's address.
    pub(crate) fn service_at(
        &self,
        (id, space, port): &ServiceOf,
        to: IpAddr,
    ) -> Option<masq_spec::verbs::QpType> {
        self.members.get(id)?.agent.service_at(*space, *port, to)
    }

    /// Notes that others may ask for what a tenant's endpoints listen for; all tenants', if
    /// none is named.
    pub(crate) fn note_relistened(&mut self, tenant: Option<&TenantName>) {
        let members = self.members.iter();
        for (id, member) in members.filter(|(id, _)| tenant.is_none_or(|t| t == id.tenant())) {
            let services = member.agent.services();
            let services = services.map(|(space, port)| (id.clone(), space, port));
            self.relistened.extend(services);
        }
    }

    /// A service that has to be looked at again.
    pub(crate) fn take_relistened(&mut self) -> Option<ServiceOf> {
        self.relistened.pop_first()
    }

    /// Whether services have to be looked at again.
    pub(crate) fn has_relistened(&self) -> bool {
        !self.relistened.is_empty()
    }

    /// The conversations that have this name, with the address of their peers. Each
    /// agent chooses its own at random.
    pub(crate) fn conversations(
        &self,
        comm: masq_cm::CommId,
    ) -> impl Iterator<Item = (EndpointId, IpAddr)> + '_ {
        self.members
            .iter()
            .filter_map(move |(id, member)| Some((id.clone(), member.agent.peer_of(comm)?)))
    }

    /// The ids that a session holds.
    pub(crate) fn count(&self, id: &EndpointId, session: u64) -> usize {
        let member = self.members.get(id);
        member.map_or(0, |m| m.agent.ids_of(session))
    }

    fn signal(&mut self, channel: Channel, id: u32) {
        match &mut self.serving {
            Some((own, raised)) if *own == channel => *raised += 1,
            _ => {
                if let Some(notifier) = self.sessions.get(&channel.owner) {
                    notifier.connection(channel.queue, id);
                }
            }
        }
    }

    fn note_time(&mut self, id: &EndpointId) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let next = member.agent.next_timeout();
        let before = std::mem::replace(&mut member.timeout, next);
        if before == next {
            return;
        }
        if let Some(before) = before {
            self.times.remove(&(before, id.clone()));
        }
        if let Some(next) = next {
            self.times.insert((next, id.clone()));
        }
    }
}

/// The service that a connection is for.
pub(crate) fn service(space: masq_cm::PortSpace, port: u16) -> Service {
    let space = match space {
        masq_cm::PortSpace::Tcp => masq_policy::PortSpace::Tcp,
        masq_cm::PortSpace::Udp => masq_policy::PortSpace::Udp,
        masq_cm::PortSpace::Ib => masq_policy::PortSpace::Ib,
        masq_cm::PortSpace::Ipoib => masq_policy::PortSpace::Ipoib,
    };
    Service::RdmaCm { space, port }
}

impl World {
    /// Calls the connection manager of an endpoint, and sees to what follows.
    pub(crate) fn with_agent<R>(
        &mut self,
        id: &EndpointId,
        call: impl FnOnce(&mut Agent, Instant) -> R,
    ) -> Result<R, Refused> {
        let member = self.member(id).ok_or_else(|| {
            Refused::new(
                masq_spec::command::Status::Gone,
                "policy",
                "the endpoint is gone",
            )
        })?;
        let result = call(&mut member.agent, Instant::now());
        self.settle(id);
        Ok(result)
    }

    /// The same for a command about an id of `channel`; the events that it raises
    /// there are counted, not signalled.
    pub(crate) fn with_channel<R>(
        &mut self,
        id: &EndpointId,
        channel: Channel,
        call: impl FnOnce(&mut Agent, Instant) -> R,
    ) -> Result<(R, u32), Refused> {
        self.fabric.serving = Some((channel, 0));
        let result = self.with_agent(id, call);
        let raised = self.fabric.serving.take().map_or(0, |(_, raised)| raised);
        Ok((result?, raised))
    }

    /// Charges an id that a program is about to create.
    pub(crate) fn charge_cm_id(&mut self, id: &EndpointId) -> Result<(), Refused> {
        self.charge(id, Kind::CmIds, 1)?;
        match self.member(id) {
            Some(member) => member.charged += 1,
            None => self.ledger.refund(id, Kind::CmIds, 1),
        }
        Ok(())
    }

    /// Ends the ids of a session, the first of them at once; their peers hear of it.
    pub(crate) fn leave_fabric(&mut self, id: &EndpointId, session: u64) {
        if self.fabric.sessions.remove(&session).is_some() {
            self.fabric.leaving.push_back((id.clone(), session));
            self.end_some_ids();
        }
    }

    /// Goes on ending the ids of sessions that have ended: so many that others need not
    /// wait for long.
    pub(crate) fn end_some_ids(&mut self) {
        let Some((id, session)) = self.fabric.leaving.pop_front() else {
            return;
        };
        if let Some(member) = self.fabric.members.get_mut(&id) {
            let all = member
                .agent
                .close_owner(Instant::now(), session, MOST_ENDED);
            self.settle(&id);
            if !all {
                self.fabric.leaving.push_back((id, session));
            }
        }
    }

    /// Lets go of endpoints that the policy took away, or gave another address or device;
    /// their sessions are closed.
    pub(crate) fn forget_moved(&mut self) {
        let policy = Arc::clone(&self.policy);
        let is_moved = |id: &EndpointId, member: &Member| {
            policy.endpoint(id).and_then(|e| e.address()) != Some(member.address)
                || self.devices.of(&policy, id.tenant()) != member.on
        };
        let moved: Vec<EndpointId> = self
            .fabric
            .members
            .iter()
            .filter(|(id, member)| is_moved(id, member))
            .map(|(id, _)| id.clone())
            .collect();
        for id in moved {
            if let Some(member) = self.fabric.members.remove(&id) {
                let services = member.agent.services();
                let services = services.map(|(space, port)| (id.clone(), space, port));
                self.fabric.relistened.extend(services);
                self.ledger.refund(&id, Kind::CmIds, member.charged);
                if let Some(time) = member.timeout {
                    self.fabric.times.remove(&(time, id));
                }
            }
        }
    }

    /// Serves the agents whose time has come.
    pub(crate) fn on_cm_time(&mut self, now: Instant) {
        while let Some((time, id)) = self.fabric.times.first().cloned() {
            if time > now {
                return;
            }
            self.fabric.times.pop_first();
            if let Some(member) = self.fabric.members.get_mut(&id) {
                member.timeout = None;
                member.agent.on_timeout(now);
            }
            self.settle(&id);
        }
    }

    fn member(&mut self, id: &EndpointId) -> Option<&mut Member> {
        if !self.fabric.members.contains_key(id) {
            let gids = self.gids(id)?;
            let address = self.policy.endpoint(id)?.address()?;
            let mut seed = [0; 8];
            getrandom::fill(&mut seed).ok()?;
            let on = self.device_of(id);
            let device = self.devices.get(on);
            let attributes = device.attributes();
            let agent = Agent::new(Config {
                address,
                others: self.others(id),
                link_local: gids.link_local(),
                node_guid: gids.node_guid(),
                mtu: device.mtu().code(),
                max_rd_atomic: attributes.max_qp_rd_atom.min(255) as u8,
                seed: u64::from_ne_bytes(seed),
            });
            let member = Member {
                agent,
                address,
                on,
                charged: 0,
                timeout: None,
            };
            self.fabric.members.insert(id.clone(), member);
        }
        self.fabric.members.get_mut(id)
    }

    /// An endpoint's addresses behind the first.
    fn others(&self, id: &EndpointId) -> Vec<IpAddr> {
        let endpoint = self.policy.endpoint(id);
        let all = endpoint.map_or(&[][..], |endpoint| endpoint.addresses());
        all.iter().skip(1).map(|address| address.ip()).collect()
    }

    /// Tells an endpoint's agent of its addresses; the first has not changed.
    pub(crate) fn readdress_agent(&mut self, id: &EndpointId) {
        let others = self.others(id);
        if let Some(member) = self.fabric.members.get_mut(id) {
            member.agent.set_others(others);
        }
    }

    /// The endpoint of `id`'s tenant that has an address, its link-local one
    /// included, and the address by which the policy knows it.
    pub(crate) fn peer_at(&self, id: &EndpointId, address: IpAddr) -> Option<(EndpointId, Peer)> {
        let gid = VirtualAddress::new(address).gid();
        let tenant = self.policy.tenant(id.tenant().as_str())?;
        let address = self.address_of(id, gid);
        let endpoint = tenant.endpoint_at(address)?;
        Some((endpoint.id().clone(), Peer { address, gid }))
    }

    /// Delivers what an agent says, and what others answer, until all are quiet.
    pub(crate) fn settle(&mut self, first: &EndpointId) {
        let mut waiting = VecDeque::from([first.clone()]);
        let mut messages = 0;
        while let Some(id) = waiting.pop_front() {
            while let Some(output) = self
                .fabric
                .members
                .get_mut(&id)
                .and_then(|m| m.agent.output())
            {
                match output {
                    Output::Signal { channel, id } => self.fabric.signal(channel, id),
                    Output::Send { to, message } => {
                        messages += 1;
                        if messages > MOST_MESSAGES {
                            tracing::error!(endpoint = %id, "messages of connection managers were dropped");
                            continue;
                        }
                        if let Some(peer) = self.deliver(&id, to, message)
                            && !waiting.contains(&peer)
                        {
                            waiting.push_back(peer);
                        }
                    }
                }
            }
            self.reconcile(&id);
            self.fabric.note_time(&id);
        }
    }

    /// Hands a message to the agent at `to`; whose it is.
    fn deliver(&mut self, from: &EndpointId, to: IpAddr, message: Message) -> Option<EndpointId> {
        let (peer, _) = self.peer_at(from, to)?;
        if let Some(host) = self.host_of(self.policy.endpoint(&peer)?) {
            self.send_elsewhere(from, &peer, host, message);
            return None;
        }
        let source = self.fabric.members.get(from)?.address;
        let mut others = self.others(from);
        others.extend(self.gids(from).map(|gids| IpAddr::from(gids.link_local())));
        let sender = Sender {
            address: source,
            others: &others,
        };
        self.arrive(&peer, sender, message);
        Some(peer)
    }

    /// Hands a message to an agent of this host.
    pub(crate) fn arrive(&mut self, peer: &EndpointId, sender: Sender<'_>, message: Message) {
        let room = self.left(peer, Kind::CmIds);
        if room == 0
            && matches!(message, Message::Req(_) | Message::SidrReq(_))
            && let Err(exceeded) = self.ledger.charge(&self.policy, peer, Kind::CmIds, 1)
        {
            self.refuse_arrival(peer, sender.address, exceeded);
        }
        if let Some(member) = self.member(peer) {
            member.agent.receive(Instant::now(), sender, message, room);
        }
        self.reconcile(peer);
    }

    fn refuse_arrival(&mut self, id: &EndpointId, from: IpAddr, exceeded: Exceeded) {
        let refused = Refused::from(exceeded).about(format!("request of {from}"));
        self.refusals.record(id, 0, "cm_request", &refused);
    }

    /// Charges the ids that came into being by messages, refunds those that ended.
    fn reconcile(&mut self, id: &EndpointId) {
        let Some(member) = self.fabric.members.get_mut(id) else {
            return;
        };
        while let Some((space, port)) = member.agent.relistened() {
            self.fabric.relistened.insert((id.clone(), space, port));
        }
        let (now, before) = (member.agent.len() as u64, member.charged);
        if now < before {
            member.charged = now;
            self.ledger.refund(id, Kind::CmIds, before - now);
        } else if now > before
            && self
                .ledger
                .charge(&self.policy, id, Kind::CmIds, now - before)
                .is_ok()
        {
            member.charged = now;
        }
    }

    /// Asks the policy once more for a connection. The side that asked for it does; for a
    /// host outside, which asks nobody, this one.
    fn recheck_connection(
        &self,
        id: &EndpointId,
        view: &View,
        peer: IpAddr,
    ) -> Result<(), Refused> {
        let (from, to) = if view.initiator {
            (id.clone(), self.canonical(id, peer))
        } else {
            let peer = self.peer_at(id, peer).map(|(peer, _)| peer);
            let outside = peer.filter(|p| self.policy.endpoint(p).is_some_and(|e| e.is_outside()));
            let own = self.policy.endpoint(id).and_then(|own| own.address());
            match outside.zip(own) {
                Some(ends) => ends,
                None => return Ok(()),
            }
        };
        let asked = masq_policy::Request::Connect {
            from: &from,
            to,
            qp_type: crate::session::policy_type(view.qp_type),
            service: service(view.port_space, view.port),
        };
        self.decide(&asked).map(drop)
    }

    /// Cuts the connections that the policy no longer allows. Both sides are told.
    pub(crate) fn recheck_connections(&mut self) -> u64 {
        let mut cut = 0;
        let ids: Vec<EndpointId> = self.fabric.members.keys().cloned().collect();
        for id in ids {
            for view in self.fabric.views(&id) {
                let Some(destination) = view.destination else {
                    continue;
                };
                let Err(refused) = self.recheck_connection(&id, &view, destination.ip()) else {
                    continue;
                };
                if self.is_only_left(&id, destination.ip(), &refused) {
                    continue;
                }
                let refused = refused.about(format!("id {} -> {destination}", view.id));
                self.refusals
                    .record(&id, view.owner, "cm_connection", &refused);
                cut += 1;
                let _ = self.with_agent(&id, |agent, now| agent.cut(now, view.id));
            }
        }
        cut
    }
}
