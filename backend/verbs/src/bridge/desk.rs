//! The conversations: what agents say and what the kernel tells, turned into what is
//! done and what agents hear. No I/O of its own, no clock.

use super::agreed::Agreed;
use super::thread::Counters;
use super::translate::{Asking, Names, of_acceptance, of_request, of_service};
use crate::host::{Agreement, Parameters, Told};
use masq_cm::{Asked, CommId, Event, Mad, Message, PortSpace, Private, Rtu, SidrStatus};
use masq_device::{Arrival, PublishedService};
use masq_wire::PKey;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Conversations with all plain hosts.
const MOST: usize = 16_384;
/// Requests of one plain host that wait for an answer.
const MOST_REQUESTS: usize = 256;
/// Requests that the kernel keeps for a listener.
const BACKLOG: u32 = 1024;
/// When nobody waits for an answer any more: later than agents and kernels give up.
const PATIENCE: Duration = Duration::from_secs(90);
/// When a side that was told of the end need not agree any more: later than an agent.
const FAREWELL: Duration = Duration::from_secs(10);
/// When a port that could not be had is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The host's connection manager. Ids are numbers; one ends by `destroy`.
pub(super) trait Manager {
    /// `port`: of the service that the id is for, which its events name.
    fn create(&mut self, space: PortSpace, port: u16) -> io::Result<u32>;
    fn destroy(&mut self, id: u32);
    fn bind(&mut self, id: u32, address: SocketAddr) -> io::Result<()>;
    fn listen(&mut self, id: u32, backlog: u32) -> io::Result<()>;
    fn resolve_address(&mut self, id: u32, from: IpAddr, to: SocketAddr) -> io::Result<()>;
    fn resolve_route(&mut self, id: u32) -> io::Result<()>;
    fn connect(&mut self, id: u32, parameters: &Parameters) -> io::Result<()>;
    fn accept(&mut self, id: u32, parameters: Option<&Parameters>) -> io::Result<()>;
    fn reject(&mut self, id: u32, private: &[u8]) -> io::Result<()>;
    fn disconnect(&mut self, id: u32) -> io::Result<()>;
    fn peer(&mut self, id: u32) -> io::Result<SocketAddr>;
    fn agreement(&mut self, id: u32) -> io::Result<Agreement>;
}

/// Where a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The way to the host is looked for, then its answer awaited.
    Asking,
    /// The host accepted; the agent has yet to confirm.
    Answered,
    /// The host asked; the agent has yet to answer.
    Asked,
    /// The agent accepted; the host has yet to confirm.
    Accepted,
    Established,
    /// The agent wants to end it.
    Leaving,
    /// The host wants to end it.
    Left,
}

/// A conversation of an agent with a plain host.
#[derive(Debug)]
struct Talk {
    id: u32,
    host: IpAddr,
    partition: PKey,
    /// The agent's name for it; 0 while unknown.
    agent: CommId,
    datagram: bool,
    state: State,
    /// The host's queue pair, or what stands for it.
    remote_qpn: u32,
    /// The agent's request or acceptance.
    said: Option<Message>,
    /// What the agent is told again if it asks again.
    told: Option<Message>,
    deadline: Option<Instant>,
}

type AgentKey = (IpAddr, CommId, bool);

#[derive(Debug)]
struct Listener {
    /// None: it could not be had.
    id: Option<u32>,
    try_again: Option<Instant>,
}

/// All conversations of one device with plain hosts.
pub(super) struct Desk<M> {
    pub(super) manager: M,
    /// This host's address.
    host: IpAddr,
    agreed: Arc<Agreed>,
    counters: Arc<Counters>,
    talks: FxHashMap<CommId, Talk>,
    last: u32,
    by_id: FxHashMap<u32, CommId>,
    by_agent: FxHashMap<AgentKey, CommId>,
    /// Requests that wait for an answer.
    asked: FxHashMap<IpAddr, usize>,
    deadlines: BTreeSet<(Instant, CommId)>,
    services: Vec<PublishedService>,
    listeners: BTreeMap<(PortSpace, u16), Listener>,
    heard: VecDeque<Arrival>,
}

impl<M: Manager> Desk<M> {
    pub(super) fn new(
        manager: M,
        host: IpAddr,
        agreed: Arc<Agreed>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            manager,
            host,
            agreed,
            counters,
            talks: FxHashMap::default(),
            last: 0,
            by_id: FxHashMap::default(),
            by_agent: FxHashMap::default(),
            asked: FxHashMap::default(),
            deadlines: BTreeSet::new(),
            services: Vec::new(),
            listeners: BTreeMap::new(),
            heard: VecDeque::new(),
        }
    }

    /// What control is to hear next.
    pub(super) fn heard(&mut self) -> Option<Arrival> {
        self.heard.pop_front()
    }

    /// When [`Self::on_time`] is to be called next.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let talks = self.deadlines.first().map(|(time, _)| *time);
        let listeners = self.listeners.values().filter_map(|l| l.try_again);
        talks.into_iter().chain(listeners).min()
    }

    /// Ends what has waited too long, and tries ports again.
    pub(super) fn on_time(&mut self, now: Instant) {
        while let Some(&(time, comm)) = self.deadlines.first() {
            if time > now {
                break;
            }
            self.end(comm);
        }
        let due = |listener: &Listener| listener.try_again.is_some_and(|time| time <= now);
        let late: Vec<_> = self.listeners.iter().filter(|(_, l)| due(l)).collect();
        let late: Vec<_> = late.into_iter().map(|(service, _)| *service).collect();
        for (space, port) in late {
            self.listen(now, space, port);
        }
    }

    /// Serves these services from now on, and no others.
    pub(super) fn set_services(&mut self, now: Instant, services: Vec<PublishedService>) {
        let wanted: BTreeSet<_> = services
            .iter()
            .filter_map(|service| Some((PortSpace::from_raw(service.port_space)?, service.port)))
            .collect();
        self.services = services;
        let gone: Vec<_> = self.listeners.keys().copied().collect();
        for service in gone.into_iter().filter(|s| !wanted.contains(s)) {
            if let Some(Listener { id: Some(id), .. }) = self.listeners.remove(&service) {
                self.manager.destroy(id);
            }
        }
        for (space, port) in wanted {
            if !self.listeners.contains_key(&(space, port)) {
                self.listen(now, space, port);
            }
        }
    }

    fn listen(&mut self, now: Instant, space: PortSpace, port: u16) {
        let address = SocketAddr::new(self.host, port);
        let made = self.manager.create(space, port).and_then(|id| {
            let bound = self.manager.bind(id, address);
            let listens = bound.and_then(|()| self.manager.listen(id, BACKLOG));
            listens.inspect_err(|_| self.manager.destroy(id))?;
            Ok(id)
        });
        let is_new = !self.listeners.contains_key(&(space, port));
        let listener = match made {
            Ok(id) => Listener {
                id: Some(id),
                try_again: None,
            },
            Err(error) => {
                if is_new {
                    let space = space.name();
                    tracing::warn!(
                        %error, %address, space,
                        "plain hosts cannot reach a tenant's rdma_cm service: the host's \
                         connection manager does not listen there (EADDRINUSE: another \
                         program of this host does)"
                    );
                }
                Listener {
                    id: None,
                    try_again: Some(now + AGAIN),
                }
            }
        };
        self.listeners.insert((space, port), listener);
    }

    /// Talks with these hosts only.
    pub(super) fn set_hosts(&mut self, hosts: &[IpAddr]) {
        let strange = self.talks.iter();
        let strange: Vec<CommId> = strange
            .filter(|(_, talk)| !hosts.contains(&talk.host))
            .map(|(comm, _)| *comm)
            .collect();
        for comm in strange {
            self.end(comm);
        }
    }

    /// An agent says something to a plain host.
    pub(super) fn say(&mut self, now: Instant, host: IpAddr, partition: PKey, message: Message) {
        match message {
            Message::Rej(rej) if rej.remote_comm == CommId(0) => {
                // It gave up before it heard an answer.
                if let Some(&comm) = self.by_agent.get(&(host, rej.local_comm, false)) {
                    self.end(comm);
                }
            }
            // So a refusal calls itself whose request reached no agent.
            Message::Rej(_) => self.reply(now, host, partition, message),
            // No agent calls a conversation so.
            message if message.sender_comm() == Some(CommId(0)) => {}
            Message::Req(_) | Message::SidrReq(_) => self.ask(now, host, partition, message),
            Message::Mra(_) => {}
            Message::Dreq(dreq) => {
                let names = Names {
                    local: dreq.remote_comm,
                    remote: dreq.local_comm,
                };
                self.leave(now, host, partition, names);
            }
            message => self.reply(now, host, partition, message),
        }
    }

    /// What an agent says in a conversation, if there is such a one.
    fn reply(&mut self, now: Instant, host: IpAddr, partition: PKey, message: Message) {
        let Some(comm) = message.receiver_comm() else {
            return;
        };
        let agent = message.sender_comm();
        let known = self.talks.get(&comm).is_some_and(|talk| {
            let same = agent.is_none_or(|a| talk.agent == CommId(0) || talk.agent == a);
            talk.host == host && talk.partition == partition && same
        });
        match (known, &message) {
            (true, _) => self.answer(now, comm, message),
            // The host withdrew its request.
            (false, Message::Rep(rep)) => {
                let names = Names {
                    local: comm,
                    remote: rep.local_comm,
                };
                self.hear(host, partition, names.rej_unknown());
            }
            (false, _) => {}
        }
    }

    /// A request of an agent, for the first time or again.
    fn ask(&mut self, now: Instant, host: IpAddr, partition: PKey, message: Message) {
        let datagram = matches!(message, Message::SidrReq(_));
        let Some(agent) = message.sender_comm() else {
            return;
        };
        if let Some(&comm) = self.by_agent.get(&(host, agent, datagram)) {
            return self.tell_again(comm);
        }
        let talk = Talk {
            id: 0,
            host,
            partition,
            agent,
            datagram,
            state: State::Asking,
            remote_qpn: 0,
            said: None,
            told: None,
            deadline: Some(now + PATIENCE),
        };
        let Some(asked) = message.asked().filter(|_| self.talks.len() < MOST) else {
            self.counters.not_asked.fetch_add(1, Ordering::Relaxed);
            return self.unreachable(&talk, &message);
        };
        match self.begin(host, &asked) {
            Ok(id) => {
                let said = Some(message);
                self.insert(Talk { id, said, ..talk });
            }
            Err(error) => {
                tracing::debug!(%error, %host, "the host's connection manager refuses");
                self.unreachable(&talk, &message);
            }
        }
    }

    fn begin(&mut self, host: IpAddr, asked: &Asked) -> io::Result<u32> {
        let id = self.manager.create(asked.port_space, asked.port)?;
        let to = SocketAddr::new(host, asked.port);
        let resolves = self.manager.resolve_address(id, self.host, to);
        resolves.inspect_err(|_| self.manager.destroy(id))?;
        Ok(id)
    }

    /// What an agent says in a conversation.
    fn answer(&mut self, now: Instant, comm: CommId, message: Message) {
        let Some(talk) = self.talks.get_mut(&comm) else {
            return;
        };
        let (id, state) = (talk.id, talk.state);
        match (message, state) {
            (Message::Rep(rep), State::Asked) if !talk.datagram => {
                let parameters = of_acceptance(&rep);
                talk.agent = rep.local_comm;
                talk.said = Some(Message::Rep(rep));
                let agent = (talk.host, talk.agent, false);
                self.by_agent.insert(agent, comm);
                self.go_on(now, comm, State::Accepted, Some(PATIENCE));
                if let Err(error) = self.manager.accept(id, Some(&parameters)) {
                    tracing::debug!(%error, "an acceptance was refused");
                    self.refused(comm, 0, &Parameters::default());
                }
            }
            (Message::Rep(_), State::Established) => self.tell_again(comm),
            (Message::Rtu(_), State::Answered) => {
                self.go_on(now, comm, State::Established, None);
                if let Err(error) = self.manager.accept(id, None) {
                    // The host gave up meanwhile.
                    tracing::debug!(%error, "a confirmation was refused");
                    self.left(now, comm);
                }
            }
            (Message::Rej(rej), _) => {
                if matches!(state, State::Asked | State::Accepted | State::Answered) {
                    let _ = self.manager.reject(id, rej.private.bytes());
                }
                self.end(comm);
            }
            (Message::SidrRep(rep), State::Asked) if talk.datagram => {
                let done = match rep.status {
                    SidrStatus::VALID => self.manager.accept(id, Some(&of_service(&rep))),
                    _ => self.manager.reject(id, rep.private.bytes()),
                };
                if let Err(error) = done {
                    tracing::debug!(%error, "an answer of a datagram service was refused");
                }
                self.end(comm);
            }
            (Message::Drep(_), State::Left) => {
                // Agrees; an error means that there is nothing left to agree to.
                let _ = self.manager.disconnect(id);
                self.end(comm);
            }
            _ => {}
        }
    }

    /// An agent wants to end a conversation. `names`: as this side says them.
    fn leave(&mut self, now: Instant, host: IpAddr, partition: PKey, names: Names) {
        let comm = names.local;
        let talk = self.talks.get(&comm);
        let known = talk.filter(|t| t.host == host && t.agent == names.remote);
        let state = known.map(|talk| (talk.id, talk.state));
        match state {
            Some((id, State::Answered | State::Accepted | State::Established)) => {
                if self.manager.disconnect(id).is_ok() {
                    return self.go_on(now, comm, State::Leaving, Some(FAREWELL));
                }
            }
            // It says so again.
            Some((_, State::Leaving)) => return,
            Some((id, State::Left)) => {
                let _ = self.manager.disconnect(id);
            }
            Some(_) | None => {}
        }
        self.hear(host, partition, drep(names));
        if state.is_some() {
            self.end(comm);
        }
    }

    /// Something happened to an id of the kernel.
    pub(super) fn on_event(&mut self, now: Instant, told: Told) {
        if told.event == Event::ConnectRequest {
            return self.on_request(now, &told);
        }
        if told.event == Event::DeviceRemoval
            && let Some(listener) = self.listeners.values_mut().find(|l| l.id == Some(told.id))
        {
            self.manager.destroy(told.id);
            listener.id = None;
            listener.try_again = Some(now + AGAIN);
            return;
        }
        let Some(&comm) = self.by_id.get(&told.id) else {
            return;
        };
        let Some((state, datagram)) = self.talks.get(&comm).map(|t| (t.state, t.datagram)) else {
            return;
        };
        match (told.event, state) {
            (Event::AddressResolved, State::Asking) => {
                if self.manager.resolve_route(told.id).is_err() {
                    self.lost(comm);
                }
            }
            (Event::RouteResolved, State::Asking) => self.connect(comm, told.id),
            (Event::ConnectResponse, State::Asking) => self.accepted(now, comm, &told),
            // A datagram service was named; or iWARP, which confirms by itself.
            (Event::Established, State::Asking) if datagram => {
                self.named(comm, SidrStatus::VALID, &told.parameters);
            }
            (Event::Established, State::Asking) => self.accepted(now, comm, &told),
            (Event::Established, State::Accepted) => {
                self.go_on(now, comm, State::Established, None);
                let rtu = |names: Names| {
                    Message::Rtu(Rtu {
                        local_comm: names.local,
                        remote_comm: names.remote,
                        private: Private::EMPTY,
                    })
                };
                self.tell(comm, rtu);
            }
            (Event::Unreachable, State::Asking) if datagram && told.status > 0 => {
                let status = SidrStatus(told.status.min(255) as u8);
                self.named(comm, status, &told.parameters);
            }
            (
                Event::AddressError | Event::RouteError | Event::ConnectError | Event::Unreachable,
                State::Asking | State::Accepted,
            ) => self.lost(comm),
            (Event::Rejected | Event::ConnectError | Event::Unreachable, state) => match state {
                State::Asking | State::Asked | State::Accepted | State::Answered => {
                    self.refused(comm, told.status, &told.parameters);
                }
                _ => self.left(now, comm),
            },
            (Event::Disconnected, State::Leaving) => {
                // Otherwise the agent waits as long as the kernel did, for nothing.
                if told.status != -libc::ETIMEDOUT {
                    self.tell(comm, drep);
                }
                self.end(comm);
            }
            (Event::Disconnected, _) => self.left(now, comm),
            (Event::DeviceRemoval, State::Asking) => self.lost(comm),
            (Event::DeviceRemoval, _) => {
                self.left(now, comm);
                self.end(comm);
            }
            _ => {}
        }
    }

    /// A plain host asks for a service.
    fn on_request(&mut self, now: Instant, told: &Told) {
        let id = told.id;
        let (Some(listener), Ok(peer)) = (told.service, self.manager.peer(id)) else {
            return self.manager.destroy(id);
        };
        let host = peer.ip();
        let of_listener = |s: &&PublishedService| {
            PortSpace::from_raw(s.port_space) == Some(listener.0) && s.port == listener.1
        };
        let mut services = self.services.iter().filter(of_listener);
        let service = services.find(|service| service.hosts.contains(&host));
        let waiting = self.asked.get(&host).copied().unwrap_or_default();
        let counter = match service {
            None => &self.counters.unknown_host,
            Some(_) if waiting >= MOST_REQUESTS || self.talks.len() >= MOST => {
                &self.counters.too_many
            }
            Some(service) => {
                let partition = service.partition;
                return self.take_on(now, listener, peer, partition, told);
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let _ = self.manager.reject(id, b"masq: not served");
        self.manager.destroy(id);
    }

    fn take_on(
        &mut self,
        now: Instant,
        (space, port): (PortSpace, u16),
        peer: SocketAddr,
        partition: PKey,
        told: &Told,
    ) {
        let datagram = space == PortSpace::Udp;
        let mut talk = Talk {
            id: told.id,
            host: peer.ip(),
            partition,
            agent: CommId(0),
            datagram,
            state: State::Asked,
            remote_qpn: 0,
            said: None,
            told: None,
            deadline: Some(now + PATIENCE),
        };
        let asking = Asking {
            comm: self.new_comm(),
            peer,
            host: self.host,
            space,
            port,
        };
        let message = if datagram {
            asking.sidr_req(&told.parameters)
        } else {
            let Ok(agreed) = self.manager.agreement(told.id) else {
                return self.manager.destroy(told.id);
            };
            talk.remote_qpn = self.agree(asking.comm, peer.ip(), None, &agreed);
            asking.req(&told.parameters, &agreed, talk.remote_qpn)
        };
        *self.asked.entry(talk.host).or_default() += 1;
        let host = talk.host;
        self.insert_as(asking.comm, talk);
        self.hear(host, partition, message);
    }

    /// Notes what a queue pair is to be set to; the number by which the agent knows the
    /// host's queue pair. iWARP has neither.
    fn agree(&self, comm: CommId, host: IpAddr, own: Option<u32>, agreed: &Agreement) -> u32 {
        if agreed.remote_qpn == 0 {
            return comm.0 & 0xff_ffff;
        }
        self.agreed.insert(comm, host, own, *agreed);
        agreed.remote_qpn
    }

    fn connect(&mut self, comm: CommId, id: u32) {
        let said = self.talks.get(&comm).and_then(|talk| talk.said.as_ref());
        let Some(parameters) = said.and_then(of_request) else {
            return;
        };
        if let Err(error) = self.manager.connect(id, &parameters) {
            tracing::debug!(%error, "the host's connection manager does not connect");
            match error.raw_os_error() {
                // iWARP hears at once that nobody listens.
                Some(libc::ECONNREFUSED) => {
                    let reason = i32::from(masq_cm::Reason::INVALID_SERVICE_ID.0);
                    self.refused(comm, reason, &Parameters::default());
                }
                _ => self.lost(comm),
            }
        }
    }

    /// The host accepted a connection.
    fn accepted(&mut self, now: Instant, comm: CommId, told: &Told) {
        let Ok(agreed) = self.manager.agreement(told.id) else {
            return self.lost(comm);
        };
        let Some(talk) = self.talks.get(&comm) else {
            return;
        };
        let own = match &talk.said {
            Some(Message::Req(req)) => Some(req.qpn),
            _ => None,
        };
        let qpn = self.agree(comm, talk.host, own, &agreed);
        // iWARP has confirmed already.
        let state = match told.event {
            Event::Established => State::Established,
            _ => State::Answered,
        };
        if let Some(talk) = self.talks.get_mut(&comm) {
            talk.remote_qpn = qpn;
        }
        self.go_on(now, comm, state, None);
        self.tell(comm, |names| names.rep(&told.parameters, &agreed, qpn));
    }

    /// A datagram service was named, or refused; there is no more to it.
    fn named(&mut self, comm: CommId, status: SidrStatus, told: &Parameters) {
        self.tell(comm, |names| names.sidr_rep(status, told));
        self.end(comm);
    }

    fn refused(&mut self, comm: CommId, status: i32, told: &Parameters) {
        // Who has not answered is not known by name yet, and hears it when it does.
        self.tell(comm, |names| names.rej(status, told));
        self.end(comm);
    }

    /// The host does not answer.
    fn lost(&mut self, comm: CommId) {
        let Some(mut talk) = self.talks.remove(&comm) else {
            return;
        };
        if let Some(said) = talk.said.take() {
            self.unreachable(&talk, &said);
        }
        self.talks.insert(comm, talk);
        self.end(comm);
    }

    /// The host ended a connection.
    fn left(&mut self, now: Instant, comm: CommId) {
        let Some(talk) = self.talks.get(&comm) else {
            return;
        };
        match talk.state {
            State::Left => return,
            State::Asked => return self.end(comm),
            _ => {}
        }
        let own = match &talk.said {
            Some(Message::Req(req)) => req.qpn,
            Some(Message::Rep(rep)) => rep.qpn,
            _ => 0,
        };
        self.go_on(now, comm, State::Left, Some(FAREWELL));
        self.tell(comm, |names| {
            Message::Dreq(masq_cm::Dreq {
                local_comm: names.local,
                remote_comm: names.remote,
                remote_qpn: own,
                private: Private::EMPTY,
            })
        });
    }

    /// Says something to the agent, and again if it asks again.
    fn tell(&mut self, comm: CommId, message: impl FnOnce(Names) -> Message) {
        let Some(talk) = self.talks.get_mut(&comm) else {
            return;
        };
        if talk.agent == CommId(0) {
            return;
        }
        let message = message(Names {
            local: comm,
            remote: talk.agent,
        });
        talk.told = Some(message.clone());
        let (host, partition) = (talk.host, talk.partition);
        self.hear(host, partition, message);
    }

    fn tell_again(&mut self, comm: CommId) {
        let Some(talk) = self.talks.get(&comm) else {
            return;
        };
        if let Some(message) = talk.told.clone() {
            self.hear(talk.host, talk.partition, message);
        }
    }

    fn hear(&mut self, from: IpAddr, partition: PKey, message: Message) {
        let mad = encode(message);
        self.heard.push_back(Arrival::Management {
            from,
            partition,
            mad,
        });
    }

    fn unreachable(&mut self, talk: &Talk, message: &Message) {
        self.heard.push_back(Arrival::Unreachable {
            host: talk.host,
            partition: talk.partition,
            mad: encode(message.clone()),
        });
    }

    fn new_comm(&mut self) -> CommId {
        loop {
            self.last = self.last.wrapping_add(1);
            let comm = CommId(self.last);
            if comm.0 & 0xff_ffff != 0 && !self.talks.contains_key(&comm) {
                return comm;
            }
        }
    }

    fn insert(&mut self, talk: Talk) {
        let comm = self.new_comm();
        self.insert_as(comm, talk);
    }

    fn insert_as(&mut self, comm: CommId, talk: Talk) {
        self.by_id.insert(talk.id, comm);
        if talk.agent != CommId(0) {
            let agent = (talk.host, talk.agent, talk.datagram);
            self.by_agent.insert(agent, comm);
        }
        if let Some(deadline) = talk.deadline {
            self.deadlines.insert((deadline, comm));
        }
        self.talks.insert(comm, talk);
    }

    /// Moves a conversation to another state, for so long.
    fn go_on(&mut self, now: Instant, comm: CommId, state: State, most: Option<Duration>) {
        let Some(talk) = self.talks.get_mut(&comm) else {
            return;
        };
        if let Some(deadline) = talk.deadline.take() {
            self.deadlines.remove(&(deadline, comm));
        }
        talk.deadline = most.map(|most| now + most);
        self.deadlines
            .extend(talk.deadline.map(|time| (time, comm)));
        let was = std::mem::replace(&mut talk.state, state);
        let host = talk.host;
        if was == State::Asked {
            self.no_longer_asked(host);
        }
    }

    fn no_longer_asked(&mut self, host: IpAddr) {
        if let Some(count) = self.asked.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.asked.remove(&host);
            }
        }
    }

    /// Ends a conversation and its id; the kernel tells the host, if it has to be told.
    fn end(&mut self, comm: CommId) {
        let Some(talk) = self.talks.remove(&comm) else {
            return;
        };
        self.by_id.remove(&talk.id);
        let agent = (talk.host, talk.agent, talk.datagram);
        if self.by_agent.get(&agent) == Some(&comm) {
            self.by_agent.remove(&agent);
        }
        if let Some(deadline) = talk.deadline {
            self.deadlines.remove(&(deadline, comm));
        }
        if talk.state == State::Asked {
            self.no_longer_asked(talk.host);
        }
        self.agreed.remove(comm, talk.host, talk.remote_qpn);
        self.manager.destroy(talk.id);
    }

    /// The kernel's manager is gone, with all ids.
    pub(super) fn forget_all(&mut self, now: Instant) {
        let talks: Vec<CommId> = self.talks.keys().copied().collect();
        for comm in talks {
            self.end(comm);
        }
        for listener in self.listeners.values_mut() {
            listener.id = None;
            listener.try_again = Some(now + AGAIN);
        }
    }

    /// Conversations, and listeners that listen.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        let listening = self.listeners.values().filter(|l| l.id.is_some());
        (self.talks.len(), listening.count())
    }

    /// Whether all indexes tell of the same conversations.
    #[cfg(test)]
    pub(super) fn is_consistent(&self) -> bool {
        let asked = self.talks.values().filter(|t| t.state == State::Asked);
        let timed = self.talks.values().filter(|t| t.deadline.is_some());
        self.by_id.len() == self.talks.len()
            && self.by_agent.len() <= self.talks.len()
            && self.asked.values().sum::<usize>() == asked.count()
            && self.deadlines.len() == timed.count()
    }
}

fn drep(names: Names) -> Message {
    Message::Drep(Rtu {
        local_comm: names.local,
        remote_comm: names.remote,
        private: Private::EMPTY,
    })
}

fn encode(message: Message) -> Box<[u8; masq_device::MAD_LEN]> {
    let mad = Mad {
        transaction: message.transaction(),
        message,
    };
    Box::new(mad.encode())
}
