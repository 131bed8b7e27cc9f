//! The conversations: what agents say and what the kernel tells, turned into what is
//! done and what agents hear. No I/O of its own, no clock.

mod agents;
mod kernel;
mod listen;
mod turns;

use self::turns::{Job, Turns};
#[cfg(test)]
pub(super) use self::turns::{MOST_CALLS, MOST_OF_TENANT};
use super::agreed::Agreed;
use super::thread::Counters;
use super::translate::{Names, of_request};
use crate::host::{Agreement, Parameters, Qp};
use masq_cm::{CommId, Mad, Message, PortSpace, Private, Rtu};
use masq_device::{Arrival, PublishedService};
use masq_wire::PKey;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
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
    /// Begins to connect, which may wait for the host: [`Desk::returned`] hears of it.
    /// `pair`: the queue pair, if the kernel connects it; kept until then.
    fn connect(&mut self, id: u32, parameters: Parameters, pair: Option<Arc<Qp>>);
    /// As [`Self::destroy`], of an id whose host has yet to answer; this waits too.
    fn end(&mut self, id: u32);
    fn accept(&mut self, id: u32, parameters: Option<&Parameters>) -> io::Result<()>;
    fn reject(&mut self, id: u32, private: &[u8]) -> io::Result<()>;
    fn disconnect(&mut self, id: u32) -> io::Result<()>;
    fn peer(&mut self, id: u32) -> io::Result<SocketAddr>;
    fn agreement(&mut self, id: u32) -> io::Result<Agreement>;
}

/// A call that has returned.
#[derive(Debug)]
pub(super) enum Returned {
    Connected(io::Result<()>),
    Ended,
}

/// Where a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The way to the host is looked for.
    Asking,
    /// The kernel connects, when it is its turn; the host has yet to answer.
    Calling,
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
    /// The queue pair that the kernel is to connect.
    pair: Option<Weak<Qp>>,
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
    turns: Turns,
    /// Ids to end when a call returns: their conversations have ended.
    ending: FxHashSet<u32>,
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
            turns: Turns::default(),
            ending: FxHashSet::default(),
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
        if self.turns.is_under_way(talk.id) {
            self.ending.insert(talk.id);
        } else if talk.state == State::Calling && !self.turns.withdraw(talk.id) {
            self.turns.wish(talk.partition, talk.id, Job::End);
            self.begin_calls();
        } else {
            self.manager.destroy(talk.id);
        }
    }

    /// Begins what may begin.
    fn begin_calls(&mut self) {
        while let Some((id, job)) = self.turns.next() {
            let Job::Connect(comm) = job else {
                self.manager.end(id);
                continue;
            };
            let talk = self.talks.get(&comm);
            let said = talk.and_then(|talk| talk.said.as_ref());
            let pair = talk.and_then(|talk| talk.pair.as_ref());
            let pair = pair.map(Weak::upgrade);
            match (said.and_then(of_request), pair) {
                (Some(parameters), None) => self.manager.connect(id, parameters, None),
                (Some(parameters), Some(pair @ Some(_))) => {
                    self.manager.connect(id, parameters, pair);
                }
                // It is gone; its number may be another's.
                (_, Some(None)) | (None, _) => {
                    self.turns.returned(id);
                    self.not_connected(id, &io::Error::from_raw_os_error(libc::ENOENT));
                }
            }
        }
    }

    /// A call has returned.
    pub(super) fn returned(&mut self, id: u32, what: Returned) {
        let Some(tenant) = self.turns.returned(id) else {
            return;
        };
        let has_ended = self.ending.remove(&id);
        match what {
            Returned::Connected(Ok(())) if has_ended => {
                self.turns.wish(tenant, id, Job::End);
            }
            Returned::Connected(Err(_)) if has_ended => self.manager.destroy(id),
            Returned::Connected(Err(error)) => self.not_connected(id, &error),
            Returned::Connected(Ok(())) | Returned::Ended => {}
        }
        self.begin_calls();
    }

    /// The kernel's manager is gone, with all ids.
    pub(super) fn forget_all(&mut self, now: Instant) {
        let talks: Vec<CommId> = self.talks.keys().copied().collect();
        for comm in talks {
            self.end(comm);
        }
        self.turns = Turns::default();
        self.ending.clear();
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

    /// Ids that are ended when they can be.
    #[cfg(test)]
    pub(super) fn ending(&self) -> usize {
        self.ending.len() + self.turns.ends()
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
            && self.turns.is_consistent()
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
