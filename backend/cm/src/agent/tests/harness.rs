//! Agents under virtual time, with a network that loses, repeats, delays and so
//! reorders as a seed says.

use crate::{Agent, Channel, Config, Event, Mad, Message, Output, Peer, PortSpace, Target};
use masq_spec::verbs::{CmAddress, CmEnded, CmEvent, CmParam, QpType};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What the network does, in percent.
#[derive(Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) loss: u64,
    pub(super) repeat: u64,
    pub(super) delay: u64,
}

pub(super) struct World {
    pub(super) agents: Vec<Agent>,
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) faults: Faults,
    /// Whom nothing reaches.
    pub(super) deaf: Option<usize>,
    random: u64,
    sequence: u64,
    flying: BTreeMap<(Instant, u64), (usize, usize, Message)>,
    /// Everything that was ever sent: from, to, message.
    pub(super) sent: Vec<(usize, usize, Message)>,
    /// Signals less events that were taken or voided.
    pub(super) signals: HashMap<(usize, Channel), i64>,
    pub(super) room: u64,
}

/// The channel `queue` of session `owner`.
pub(super) const fn channel(owner: u64, queue: u32) -> Channel {
    Channel { owner, queue }
}

/// The channel that tests use when one is enough.
pub(super) const CH: Channel = channel(1, 1);

pub(super) fn at(id: u32) -> Target {
    Target { channel: CH, id }
}

/// The address of the agent with this number.
pub(super) fn ip(agent: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, agent as u8 + 1])
}

/// Whose an address is: its own endpoint's.
pub(super) fn known(address: IpAddr) -> Option<Peer> {
    Some(Peer {
        address,
        gid: crate::address::gid_of(address),
    })
}

pub(super) fn address(ip: IpAddr, port: u16) -> CmAddress {
    std::net::SocketAddr::from((ip, port)).into()
}

/// A side with this queue pair and private data.
pub(super) fn param(qpn: u32, private: &[u8]) -> CmParam {
    let mut private_data = [0; 256];
    private_data[..private.len()].copy_from_slice(private);
    CmParam {
        qpn,
        qkey: 0,
        private_len: private.len() as u8,
        srq: 0,
        responder_resources: 4,
        initiator_depth: 2,
        flow_control: 1,
        retry_count: 6,
        rnr_retry_count: 5,
        reserved: 0,
        ece_vendor: 0,
        ece_options: 0,
        private_data,
    }
}

pub(super) fn kind(event: &CmEvent) -> Event {
    Event::from_raw(event.event).unwrap()
}

impl World {
    pub(super) fn new(count: usize, seed: u64) -> Self {
        let start = Instant::now();
        let agents = (0..count)
            .map(|number| {
                let mut link_local = [0; 16];
                link_local[0] = 0xfe;
                link_local[1] = 0x80;
                link_local[15] = number as u8 + 1;
                Agent::new(Config {
                    address: ip(number),
                    others: Vec::new(),
                    link_local,
                    node_guid: number as u64 + 0x1000,
                    mtu: 3,
                    max_rd_atomic: 16,
                    seed: seed.wrapping_mul(31).wrapping_add(number as u64),
                })
            })
            .collect();
        Self {
            agents,
            start,
            now: start,
            faults: Faults::default(),
            deaf: None,
            random: seed ^ 0x5555,
            sequence: 0,
            flying: BTreeMap::new(),
            sent: Vec::new(),
            signals: HashMap::new(),
            room: 1000,
        }
    }

    pub(super) fn random(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn chance(&mut self, percent: u64) -> bool {
        percent > 0 && self.random(100) < percent
    }

    /// Takes what an agent wants done.
    pub(super) fn pump(&mut self, agent: usize) {
        while let Some(output) = self.agents[agent].output() {
            match output {
                Output::Signal { channel, .. } => {
                    *self.signals.entry((agent, channel)).or_default() += 1;
                }
                Output::Send { to, message } => {
                    let Some(to) = (0..self.agents.len()).find(|&n| ip(n) == to) else {
                        continue;
                    };
                    // Whatever is said can be said in a MAD.
                    if self.faults.delay == 0 {
                        let mad = Mad {
                            transaction: self.sequence,
                            message: message.clone(),
                        };
                        assert_eq!(Mad::decode(&mad.encode()), Ok(mad));
                    }
                    self.sent.push((agent, to, message.clone()));
                    if self.deaf == Some(to) || self.chance(self.faults.loss) {
                        continue;
                    }
                    let copies = if self.chance(self.faults.repeat) {
                        2
                    } else {
                        1
                    };
                    for _ in 0..copies {
                        let delay = if self.chance(self.faults.delay) {
                            Duration::from_millis(self.random(6000))
                        } else {
                            Duration::from_micros(10)
                        };
                        self.sequence += 1;
                        let key = (self.now + delay, self.sequence);
                        self.flying.insert(key, (agent, to, message.clone()));
                    }
                }
            }
        }
    }

    /// Does the next thing that is due by `end`; whether there was one.
    pub(super) fn step(&mut self, end: Instant) -> bool {
        let flight = self.flying.first_key_value().map(|(key, _)| key.0);
        let timer = self.agents.iter().filter_map(Agent::next_timeout).min();
        let Some(next) = [flight, timer]
            .into_iter()
            .flatten()
            .min()
            .filter(|&at| at <= end)
        else {
            return false;
        };
        self.now = self.now.max(next);
        if flight.is_some_and(|at| at <= next) {
            if let Some((_, (from, to, message))) = self.flying.pop_first() {
                self.agents[to].receive(self.now, ip(from), message, self.room);
                self.pump(to);
            }
        } else {
            for agent in 0..self.agents.len() {
                self.agents[agent].on_timeout(self.now);
                self.pump(agent);
            }
        }
        true
    }

    /// Lets everything happen that happens without time passing (10 ms).
    pub(super) fn settle(&mut self) {
        let end = self.now + Duration::from_millis(10);
        while self.step(end) {}
        for agent in &self.agents {
            agent.check();
        }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
        for agent in &self.agents {
            agent.check();
        }
    }

    /// The next event of a channel, whose signal is taken.
    pub(super) fn event_of(&mut self, agent: usize, channel: Channel) -> Option<CmEvent> {
        let event = self.agents[agent].next_event(channel)?;
        *self
            .signals
            .get_mut(&(agent, channel))
            .expect("an event without a signal") -= 1;
        Some(event)
    }

    pub(super) fn event(&mut self, agent: usize) -> Option<CmEvent> {
        self.event_of(agent, CH)
    }

    /// The next event, which must be this one.
    pub(super) fn expect(&mut self, agent: usize, event: Event) -> CmEvent {
        let got = self.event(agent).unwrap_or_else(|| panic!("no {event:?}"));
        assert_eq!(kind(&got), event);
        got
    }

    pub(super) fn expect_none(&mut self, agent: usize) {
        let got = self.event(agent);
        assert!(
            got.is_none(),
            "an event too many: {:?}",
            got.map(|event| kind(&event))
        );
    }

    pub(super) fn destroy(&mut self, agent: usize, target: Target) -> CmEnded {
        let ended = self.agents[agent].destroy_id(self.now, target).unwrap();
        self.void(agent, target.channel, ended);
        self.pump(agent);
        ended
    }

    /// Takes signals back that are void.
    pub(super) fn void(&mut self, agent: usize, channel: Channel, ended: CmEnded) {
        self.pump(agent);
        *self.signals.entry((agent, channel)).or_default() -= i64::from(ended.dropped);
    }

    /// An id that listens on a port of the wildcard address.
    pub(super) fn listener(&mut self, agent: usize, space: PortSpace, port: u16) -> u32 {
        let agent = &mut self.agents[agent];
        let id = agent
            .create_id(CH, space, QpType::Rc, 7000 + u64::from(port))
            .unwrap();
        agent
            .bind(at(id), address(IpAddr::from([0, 0, 0, 0]), port))
            .unwrap();
        agent.listen(at(id), 0).unwrap();
        id
    }

    /// An id whose route to `ip(to)` is resolved, its events taken.
    pub(super) fn routed(&mut self, agent: usize, space: PortSpace, to: usize, port: u16) -> u32 {
        let one = &mut self.agents[agent];
        let id = one.create_id(CH, space, QpType::Rc, 9000).unwrap();
        one.resolve_addr(at(id), None, address(ip(to), port), known)
            .unwrap();
        one.resolve_route(at(id)).unwrap();
        self.pump(agent);
        self.expect(agent, Event::AddressResolved);
        self.expect(agent, Event::RouteResolved);
        id
    }

    pub(super) fn connect(&mut self, agent: usize, id: u32, param: &CmParam) {
        self.agents[agent].connect(self.now, at(id), param).unwrap();
        self.pump(agent);
    }

    pub(super) fn accept(&mut self, agent: usize, id: u32, uid: u64, param: &CmParam) {
        self.agents[agent]
            .accept(self.now, at(id), uid, Some(param))
            .unwrap();
        self.pump(agent);
    }

    pub(super) fn confirm(&mut self, agent: usize, id: u32) {
        self.agents[agent]
            .accept(self.now, at(id), 0, None)
            .unwrap();
        self.pump(agent);
    }

    /// A connection of agent 0 to agent 1, as the ids of both sides; nothing
    /// waits.
    pub(super) fn connected(&mut self) -> (u32, u32) {
        let listener = self.listener(1, PortSpace::Tcp, 7471);
        let active = self.routed(0, PortSpace::Tcp, 1, 7471);
        self.connect(0, active, &param(0x11, b"hello"));
        self.settle();
        let passive = self.expect(1, Event::ConnectRequest).id;
        assert_ne!(passive, listener);
        self.accept(1, passive, 42, &param(0x22, b"welcome"));
        self.settle();
        self.expect(0, Event::ConnectResponse);
        self.confirm(0, active);
        self.settle();
        assert_eq!(self.expect(1, Event::Established).uid, 42);
        (active, passive)
    }

    /// Ends all and waits: nothing may be left.
    pub(super) fn finish(mut self) {
        for agent in 0..self.agents.len() {
            for owner in 0..4 {
                self.agents[agent].close_owner(self.now, owner, usize::MAX);
                self.pump(agent);
            }
        }
        self.pass(Duration::from_secs(200));
        for agent in &self.agents {
            assert_eq!(agent.usage(), crate::Usage::default());
        }
        assert!(self.flying.is_empty());
    }
}
