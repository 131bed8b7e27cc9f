//! Whose datagrams arrive: a datagram names its sender's queue pair and host,
//! and the receiver is to see the sender's virtual address. The control side
//! knows; until it has said so a few datagrams are held.

use super::kept::KeptPacket;
use masq_device::{Sender, SenderKey};
use masq_transport::Nanos;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Senders that are remembered; beyond that all are asked for anew.
const MOST: usize = 65_536;
/// Datagrams that are held.
const HELD: usize = 1024;
/// How long, and how long it is believed that nobody sends from there.
const PATIENCE: Nanos = 1_000_000_000;

/// A datagram whose sender is not known yet.
pub(super) struct Held {
    pub(super) sender: SenderKey,
    pub(super) until: Nanos,
    pub(super) packet: KeptPacket,
}

/// What is known of a sender.
#[derive(Clone, Debug)]
enum Known {
    Asked,
    Sender(Arc<Sender>),
    NobodyUntil(Nanos),
}

/// What to do with a datagram.
pub(super) enum Whose {
    Sender(Arc<Sender>),
    /// Nobody knows: the control side is to be asked.
    Ask,
    /// It was asked already.
    Wait,
    Nobody,
}

#[derive(Default)]
pub(super) struct Senders {
    known: FxHashMap<SenderKey, Known>,
    held: VecDeque<Held>,
}

impl Senders {
    pub(super) fn whose(&mut self, key: SenderKey, now: Nanos) -> Whose {
        match self.known.get(&key) {
            Some(Known::Sender(sender)) => Whose::Sender(Arc::clone(sender)),
            Some(Known::Asked) => Whose::Wait,
            Some(Known::NobodyUntil(until)) if now < *until => Whose::Nobody,
            Some(Known::NobodyUntil(_)) | None => {
                if self.known.len() >= MOST {
                    self.known.clear();
                }
                self.known.insert(key, Known::Asked);
                Whose::Ask
            }
        }
    }

    /// The question was not heard: it is to be asked again.
    pub(super) fn not_asked(&mut self, key: SenderKey) {
        self.known.remove(&key);
    }

    pub(super) fn learn(&mut self, key: SenderKey, who: Option<Sender>, now: Nanos) {
        let known = match who {
            Some(sender) => Known::Sender(Arc::new(sender)),
            None => Known::NobodyUntil(now.saturating_add(PATIENCE)),
        };
        self.known.insert(key, known);
    }

    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// Holds a datagram; false: no room.
    pub(super) fn hold(&mut self, datagram: Held, now: Nanos) -> bool {
        while self.held.front().is_some_and(|held| held.until <= now) {
            if let Some(old) = self.held.pop_front() {
                // No answer came: the next datagram asks again.
                if let Some(Known::Asked) = self.known.get(&old.sender) {
                    self.known.remove(&old.sender);
                }
            }
        }
        if self.held.len() >= HELD {
            return false;
        }
        self.held.push_back(datagram);
        true
    }

    /// Takes the datagrams of a sender that is known now.
    pub(super) fn release(&mut self, key: SenderKey) -> VecDeque<Held> {
        let (of_it, others) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| held.sender == key);
        self.held = others;
        of_it
    }
}

impl Held {
    pub(super) fn until(now: Nanos) -> Nanos {
        now.saturating_add(PATIENCE)
    }
}
