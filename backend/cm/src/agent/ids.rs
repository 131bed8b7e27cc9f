//! Ids: created, ended, moved to another channel.

use super::Agent;
use super::state::{Id, Phase};
use crate::error::CmError;
use crate::types::{Channel, Event, Output, PortSpace, Target};
use masq_spec::verbs::{CmEnded, QpType};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

impl Agent {
    /// Creates an id. As on Linux the port space decides the type of the queue
    /// pair, but for [`PortSpace::Ib`].
    ///
    /// # Errors
    /// [`CmError::NoMemory`] if every number is taken.
    pub fn create_id(
        &mut self,
        channel: Channel,
        port_space: PortSpace,
        qp_type: QpType,
        uid: u64,
    ) -> Result<u32, CmError> {
        let qp_type = match port_space {
            PortSpace::Tcp => QpType::Rc,
            PortSpace::Udp | PortSpace::Ipoib => QpType::Ud,
            PortSpace::Ib => qp_type,
        };
        self.insert_id(Id {
            channel,
            uid,
            named: true,
            announced: true,
            port_space,
            qp_type,
            phase: Phase::Idle,
            holds_port: false,
            conversed: false,
            reuse: false,
            family_only: None,
            tos: 0,
            ack_timeout: None,
            source: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            destination: None,
            peer: None,
            dgid: [0; 16],
            reported: 0,
            backlog: 0,
            events: VecDeque::new(),
            conversation: None,
            groups: Vec::new(),
        })
    }

    /// Adds an id under a new number.
    pub(super) fn insert_id(&mut self, id: Id) -> Result<u32, CmError> {
        if self.ids.len() >= u32::MAX as usize / 2 {
            return Err(CmError::NoMemory);
        }
        let number = loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != 0 && !self.ids.contains_key(&self.last_id) {
                break self.last_id;
            }
        };
        self.channels
            .entry(id.channel)
            .or_default()
            .ids
            .insert(number);
        self.ids.insert(number, Box::new(id));
        Ok(number)
    }

    /// Ends an id, whatever its state. The peer of its connection is told. Its
    /// events that wait are dropped, and requests among them are refused.
    ///
    /// # Errors
    /// [`CmError::NoSuchId`], [`CmError::OtherChannel`].
    pub fn destroy_id(&mut self, now: Instant, target: Target) -> Result<CmEnded, CmError> {
        self.id(target)?;
        Ok(self.end_id(now, target.id))
    }

    pub(super) fn end_id(&mut self, now: Instant, number: u32) -> CmEnded {
        let mut ended = CmEnded {
            reported: 0,
            dropped: 0,
        };
        let Some(comm) = self.ids.get(&number).map(|id| id.conversation) else {
            return ended;
        };
        if let Some(comm) = comm {
            self.abandon(now, comm);
        }
        let Some(mut id) = self.ids.remove(&number) else {
            return ended;
        };
        ended.reported = id.reported;
        if id.phase == Phase::Listening {
            self.relistened.insert((id.port_space, id.source.port()));
        }
        if id.holds_port {
            self.ports.release(id.port_space, id.source.port(), number);
        }
        for group in id.groups.drain(..) {
            self.memberships.remove(&group);
        }
        if let Some(channel) = self.channels.get_mut(&id.channel) {
            channel.ids.remove(&number);
        }
        for sequence in id.events.drain(..) {
            let Some(event) = self.unqueue(id.channel, sequence) else {
                continue;
            };
            ended.dropped += 1;
            if event.event == Event::ConnectRequest {
                self.end_id(now, event.id);
            }
        }
        self.drop_channel_if_empty(id.channel);
        ended
    }

    /// Moves an id and its events that wait to another channel of the same
    /// session. Answers how many events were handed out by now, and how many
    /// were moved: these are signalled again, on the new channel.
    ///
    /// # Errors
    /// [`CmError::NoSuchId`], [`CmError::OtherChannel`]; [`CmError::Invalid`]
    /// for a channel of another session.
    pub fn migrate(&mut self, target: Target, to: Channel) -> Result<CmEnded, CmError> {
        let id = self.id_mut(target)?;
        if to.owner != target.channel.owner {
            return Err(CmError::Invalid);
        }
        let mut ended = CmEnded {
            reported: id.reported,
            dropped: 0,
        };
        if to == target.channel {
            return Ok(ended);
        }
        id.channel = to;
        let waiting = id.events.clone();
        self.move_to(target.channel, to, target.id);
        for sequence in waiting {
            let Some(event) = self.unqueue(target.channel, sequence) else {
                continue;
            };
            let named = event.id;
            // A request takes the id that it announces along.
            if event.event == Event::ConnectRequest {
                self.move_to(target.channel, to, named);
            }
            self.channels
                .entry(to)
                .or_default()
                .events
                .insert(sequence, event);
            self.output.push_back(Output::Signal {
                channel: to,
                id: named,
            });
            ended.dropped += 1;
        }
        self.drop_channel_if_empty(target.channel);
        Ok(ended)
    }

    fn move_to(&mut self, from: Channel, to: Channel, number: u32) {
        let Some(id) = self.ids.get_mut(&number) else {
            return;
        };
        id.channel = to;
        if let Some(channel) = self.channels.get_mut(&from) {
            channel.ids.remove(&number);
        }
        self.channels.entry(to).or_default().ids.insert(number);
    }

    /// A channel was closed: its ids end, at most `most` of them. Whether all have; to be
    /// called again if not.
    pub fn close_channel(&mut self, now: Instant, channel: Channel, most: usize) -> bool {
        self.end_ids_of(now, channel, &mut { most })
    }

    /// A session ended: its ids end, at most `most` of them, and their peers are told.
    /// Whether all have; to be called again if not.
    pub fn close_owner(&mut self, now: Instant, owner: u64, most: usize) -> bool {
        let mut left = most;
        while let Some((&channel, _)) = self.channels.range(Channel::all_of(owner)).next() {
            if !self.end_ids_of(now, channel, &mut left) {
                return false;
            }
        }
        true
    }

    fn end_ids_of(&mut self, now: Instant, channel: Channel, left: &mut usize) -> bool {
        while let Some(number) = self
            .channels
            .get(&channel)
            .and_then(|c| c.ids.first().copied())
        {
            if *left == 0 {
                return false;
            }
            *left -= 1;
            self.end_id(now, number);
        }
        self.channels.remove(&channel);
        true
    }
}
