//! What is done with each packet that arrived, whichever way: its ICRC is
//! checked, it is counted, and it is kept or handed over to the port of its
//! queue pair's thread.

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use masq_wire::{Flow, IcrcCheck, Packet, TrafficClass};

use crate::inbox::{Inbox, Siblings, Visitor};
use crate::{Counters, Incoming, train};

/// A packet in the arena of the port that holds it.
#[derive(Clone, Copy)]
struct Held {
    start: usize,
    len: usize,
    flow: Flow,
    traffic_class: TrafficClass,
    hop_limit: u8,
}

/// How a packet arrived.
#[derive(Clone, Copy)]
pub(crate) struct Envelope {
    pub(crate) flow: Flow,
    pub(crate) traffic_class: TrafficClass,
    pub(crate) hop_limit: u8,
    /// Sent to a group: every thread that joined has its own copy.
    pub(crate) group: bool,
}

pub(crate) struct Desk {
    held: Vec<Held>,
    visitors: Vec<Box<Visitor>>,
    heard: u64,
    siblings: Option<Siblings>,
    strangers: HashSet<IpAddr>,
    pub(crate) counters: Counters,
}

/// The identification that a packet's ICRC must cover, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Id {
    /// A UDP socket hides it: it is judged by who the sender is.
    Hidden,
    /// It is one of these, by what was read in the IPv4 header.
    Seen(u16, u16),
}

impl Desk {
    /// A desk for at most `room` packets at a time.
    pub(crate) fn new(room: usize, siblings: Option<Siblings>) -> Self {
        Self {
            held: Vec::with_capacity(room),
            visitors: match siblings {
                Some(_) => Inbox::room(),
                None => Vec::new(),
            },
            heard: 0,
            siblings,
            strangers: HashSet::new(),
            counters: Counters::default(),
        }
    }

    pub(crate) fn set_strangers(&mut self, hosts: &[IpAddr]) {
        self.strangers = hosts.iter().copied().collect();
    }

    /// Lets go of the last batch and takes what siblings handed over.
    pub(crate) fn clear(&mut self) {
        self.held.clear();
        if let Some(inbox) = self.inbox().cloned() {
            inbox.give_back(self.visitors.drain(..));
            inbox.take(&mut self.visitors, &mut self.heard);
            for visitor in &self.visitors {
                self.counters.received.add(visitor.bytes().len());
            }
        }
    }

    /// Packets held.
    pub(crate) fn len(&self) -> usize {
        self.held.len() + self.visitors.len()
    }

    fn inbox(&self) -> Option<&Arc<Inbox>> {
        let siblings = self.siblings.as_ref()?;
        siblings.inboxes.get(siblings.mine)
    }

    /// What becomes readable when a sibling handed something over.
    pub(crate) fn ready(&self) -> Option<BorrowedFd<'_>> {
        self.inbox().map(|inbox| inbox.ready.as_fd())
    }

    /// Judges a packet at `start` of the arena.
    pub(crate) fn take(&mut self, bytes: &[u8], start: usize, envelope: &Envelope, id: Id) {
        let packet = match Packet::parse(bytes) {
            Ok(packet) => packet,
            Err(error) => return self.counters.count_malformed(error),
        };
        let right = match (packet.check_icrc(&envelope.flow), id) {
            (IcrcCheck::Wrong, _) => false,
            (IcrcCheck::Right, Id::Hidden) => true,
            (IcrcCheck::RightWithId(solved), Id::Hidden) => {
                usize::from(solved) < train::longest(bytes.len())
                    || self.strangers.contains(&envelope.flow.addresses.src())
            }
            (IcrcCheck::Right, Id::Seen(one, other)) => one == 0 || other == 0,
            (IcrcCheck::RightWithId(solved), Id::Seen(one, other)) => {
                solved == one || solved == other
            }
        };
        if !right {
            self.counters.bad_icrc += 1;
            return;
        }
        self.keep(&packet, start, envelope);
    }

    /// Keeps a packet whose ICRC is right, or hands it over.
    pub(crate) fn keep(&mut self, packet: &Packet<'_>, start: usize, envelope: &Envelope) {
        let bytes = packet.as_bytes();
        if let Some(siblings) = &self.siblings
            && !envelope.group
        {
            let threads = siblings.inboxes.len().max(1);
            let owner = packet.bth().dest_qpn().get() as usize % threads;
            if owner != siblings.mine
                && let Some(inbox) = siblings.inboxes.get(owner)
            {
                let Envelope {
                    flow,
                    traffic_class,
                    hop_limit,
                    ..
                } = *envelope;
                if inbox.put(flow, traffic_class, hop_limit, bytes) {
                    inbox.ring();
                    self.counters.handed_over += 1;
                } else {
                    self.counters.overrun += 1;
                }
                return;
            }
        }
        if self.held.len() == self.held.capacity() {
            self.counters.overrun += 1;
            return;
        }
        self.counters.received.add(bytes.len());
        self.held.push(Held {
            start,
            len: bytes.len(),
            flow: envelope.flow,
            traffic_class: envelope.traffic_class,
            hop_limit: envelope.hop_limit,
        });
    }

    /// A packet of the batch; `arena` finds bytes by place and length.
    pub(crate) fn packet<'a>(
        &'a self,
        index: usize,
        arena: impl FnOnce(usize, usize) -> Option<&'a [u8]>,
    ) -> Option<Incoming<'a>> {
        if let Some(held) = self.held.get(index) {
            return Some(Incoming {
                flow: held.flow,
                traffic_class: held.traffic_class,
                hop_limit: held.hop_limit,
                packet: Packet::parse(arena(held.start, held.len)?).ok()?,
            });
        }
        let visitor = self.visitors.get(index.checked_sub(self.held.len())?)?;
        Some(Incoming {
            flow: visitor.flow,
            traffic_class: visitor.traffic_class,
            hop_limit: visitor.hop_limit,
            packet: Packet::parse(visitor.bytes()).ok()?,
        })
    }
}
