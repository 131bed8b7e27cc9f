//! The connection manager of one endpoint: what it keeps, and how its parts are
//! found. Each other file is one group of calls.
//!
//! Invariants:
//! 1. An id is in the set of its channel; a channel without ids and events does
//!    not exist.
//! 2. An id names at most one conversation, which names the id back. A
//!    conversation without an id repeats its DREQ or rests, and is counted.
//! 3. A conversation is in the timers exactly if it has a deadline, in the index
//!    of queue pairs exactly if its state backs them, in that of services
//!    exactly if it is one.
//! 4. An event that waits is listed by the id that it is counted for, and was
//!    signalled once.

mod accept;
mod attr;
mod connect;
mod conversation;
mod datagram;
mod disconnect;
mod events;
mod ids;
mod multicast;
mod options;
mod receive;
mod resolve;
mod state;
mod timers;
mod view;

#[cfg(test)]
mod tests;

use crate::error::CmError;
use crate::message::{CommId, Message};
use crate::ports::Ports;
use crate::types::{Channel, Config, Output, PortSpace, Target};
use rustc_hash::FxHashMap;
use state::{ChannelState, Conversation, Id, Membership, QpnKey, RemoteKey};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

/// The connection manager of one endpoint.
pub struct Agent {
    config: Config,
    random: u64,
    ids: FxHashMap<u32, Box<Id>>,
    last_id: u32,
    channels: BTreeMap<Channel, ChannelState>,
    last_event: u64,
    memberships: FxHashMap<u32, Membership>,
    last_membership: u32,
    ports: Ports,
    /// Ports that somebody listens at, or did, since they were last asked for.
    relistened: BTreeSet<(PortSpace, u16)>,
    conversations: FxHashMap<CommId, Box<Conversation>>,

    orphans: usize,
    /// Conversations that a peer began. Keyed by what peers choose, so by order:
    /// a hash could be aimed at.
    by_remote: BTreeMap<RemoteKey, CommId>,
    by_qpn: BTreeSet<QpnKey>,
    services: BTreeSet<(IpAddr, CommId)>,
    timers: BTreeSet<(Instant, CommId)>,
    output: VecDeque<Output>,
}

impl Agent {
    /// An agent without ids.
    pub fn new(config: Config) -> Self {
        let mut agent = Self {
            random: config.seed,
            config,
            ids: FxHashMap::default(),
            last_id: 0,
            channels: BTreeMap::new(),
            last_event: 0,
            memberships: FxHashMap::default(),
            last_membership: 0,
            ports: Ports::new(0),
            relistened: BTreeSet::new(),
            conversations: FxHashMap::default(),

            orphans: 0,
            by_remote: BTreeMap::new(),
            by_qpn: BTreeSet::new(),
            services: BTreeSet::new(),
            timers: BTreeSet::new(),
            output: VecDeque::new(),
        };
        agent.ports = Ports::new(agent.next_random());

        agent
    }

    /// Ids, those that arrived included.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// What is to be sent or signalled next. To be called until it answers
    /// `None` after every other call.
    pub fn output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    pub(crate) fn conversation(&self, comm: CommId) -> Option<&Conversation> {
        self.conversations.get(&comm).map(|talk| &**talk)
    }

    pub(crate) fn listener(&self, space: PortSpace, port: u16, ip: IpAddr) -> Option<u32> {
        self.ports.listener(space, port, ip)
    }

    fn send(&mut self, to: IpAddr, message: Message) {
        self.output.push_back(Output::Send { to, message });
    }

    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The id, if it is the channel's and the program was told of it.
    fn id(&self, target: Target) -> Result<&Id, CmError> {
        let id = self.ids.get(&target.id).filter(|id| id.announced);
        let id = id.ok_or(CmError::NoSuchId)?;
        if id.channel != target.channel {
            return Err(CmError::OtherChannel);
        }
        Ok(id)
    }

    fn id_mut(&mut self, target: Target) -> Result<&mut Id, CmError> {
        let id = self.ids.get_mut(&target.id).filter(|id| id.announced);
        let id = id.ok_or(CmError::NoSuchId)?;
        if id.channel != target.channel {
            return Err(CmError::OtherChannel);
        }
        Ok(id)
    }

    fn link_local(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self.config.link_local))
    }

    /// The endpoint's addresses in the order of their GIDs, behind the link-local one.
    fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        std::iter::once(self.config.address).chain(self.config.others.iter().copied())
    }

    /// Has other further addresses from now on. What is connected by one that is gone
    /// stays: ending it is the business of whoever took the address away.
    pub fn set_others(&mut self, others: Vec<IpAddr>) {
        self.config.others = others;
    }

    /// The address of this endpoint that `ip` means, if it means one.
    fn own(&self, ip: IpAddr) -> Option<IpAddr> {
        if ip.is_loopback() {
            Some(self.config.address)
        } else if ip == self.link_local() || self.addresses().any(|own| own == ip) {
            Some(ip)
        } else {
            None
        }
    }

    /// The index of the RoCEv2 GID of one of the endpoint's addresses.
    fn sgid_index(&self, ip: IpAddr) -> u8 {
        let place = self.addresses().position(|own| own == ip);
        place.map_or(1, |place| place as u8 * 2 + 3)
    }
}
