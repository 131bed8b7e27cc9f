//! Which queue pairs are to be connected and how far each is: decisions alone, no
//! system call.
//!
//! One side of a connection is *active*, by a rule that both compute. Both say hello
//! until they know that the other one is ready; then the active side connects, and
//! the passive side accepts what it expects and nothing else. A failed request would
//! cost a queue pair (siw moves it to ERROR), so none is made before the other side
//! is ready. The passive side may send only when it has heard that the active side is
//! connected (RFC 5044, 7.1.2; siw takes early data for a broken reply).
//!
//! Each side has a nonce. What does not repeat it changes nothing: it is answered, as
//! often as it asks, so that the true peer learns it; whoever speaks from the peer's
//! address and does not receive there never does.

use super::place::Placement;
use super::words::{Hello, Names, Nonce, Request};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// First and longest time between two hellos.
const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);
/// How long a passive side that is connected waits to hear that the other one is.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that are being made at a time, in all and to one host.
pub(super) const MOST_CONNECTING: usize = 64;
const MOST_TO_HOST: usize = 16;

/// A queue pair of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    pub(crate) host: IpAddr,
    pub(crate) qpn: u32,
}

impl End {
    /// Whether this side connects to the other one, rather than that one to this.
    pub(crate) fn is_active(self, peer: Self) -> bool {
        self < peer
    }
}

/// A queue pair of this host that is to be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) qpn: u32,
    /// Where the card has what peers may reach.
    pub(crate) place: Placement,
    /// What the peer has to repeat.
    pub(crate) nonce: Nonce,
}

/// READs that may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Depths {
    /// Asked of the peer (ORD, `max_rd_atomic`).
    pub(crate) asked: u8,
    /// Served (IRD, `max_dest_rd_atomic`).
    pub(crate) served: u8,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// For the other side to be ready.
    Waiting,
    /// A request is under way.
    Connecting,
    /// The passive side accepted a request.
    Accepted,
    /// The passive side is connected, and has not heard that the active one is.
    Met,
    /// Both are.
    Connected,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send a hello.
    Say(IpAddr, Hello),
    /// Make the connection of this queue pair.
    Connect(u32),
    /// Its work requests may go to the card.
    Tell(u32),
    /// It is not connected, and will not be.
    Fail(u32, &'static str),
}

/// Why a request was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// It is not of a masqd.
    Malformed,
    /// No queue pair expects it.
    Unexpected,
}

struct Entry<P> {
    own: Own,
    peer: End,
    depths: Depths,
    stage: Stage,
    /// Hellos said in vain.
    tries: u32,
    /// When to say the next one.
    due: Option<Instant>,
    /// Since when it has been in its stage.
    since: Instant,
    /// The active side is connected.
    heard: bool,
    /// The peer's nonce, and where its card has what may be reached there: of who has
    /// repeated this side's nonce.
    told: Option<(Nonce, Placement)>,
    payload: P,
}

impl<P> Entry<P> {
    fn names(&self) -> Names {
        Names {
            own: self.own.qpn,
            peer: self.peer.qpn,
            place: self.own.place,
        }
    }

    fn peers_nonce(&self) -> Option<Nonce> {
        self.told.map(|(nonce, _)| nonce)
    }

    fn go(&mut self, load: &mut Load, stage: Stage, (now, due): (Instant, Option<Instant>)) {
        load.moved(self.peer.host, self.stage, stage);
        (self.stage, self.since, self.due) = (stage, now, due);
    }
}

/// How many connections are being made, in all and to each host.
#[derive(Default)]
struct Load {
    all: usize,
    to_host: FxHashMap<IpAddr, usize>,
}

impl Load {
    fn has_room(&self, host: IpAddr) -> bool {
        let to_host = self.to_host.get(&host).copied().unwrap_or_default();
        self.all < MOST_CONNECTING && to_host < MOST_TO_HOST
    }

    fn moved(&mut self, host: IpAddr, from: Stage, to: Stage) {
        let counts = |stage| stage == Stage::Connecting;
        if counts(to) && !counts(from) {
            self.all += 1;
            *self.to_host.entry(host).or_default() += 1;
        } else if counts(from) && !counts(to) {
            self.all -= 1;
            if let Some(count) = self.to_host.get_mut(&host) {
                *count -= 1;
                if *count == 0 {
                    self.to_host.remove(&host);
                }
            }
        }
    }
}

/// Queue pairs of one card that are connected, or are to be. `P` is what goes with
/// one.
pub(crate) struct Table<P> {
    host: IpAddr,
    entries: FxHashMap<u32, Entry<P>>,
    load: Load,
    pub(crate) actions: VecDeque<Action>,
    /// Hellos that no queue pair expects, or that repeat a wrong nonce.
    pub(crate) unexpected: u64,
}

impl<P> Table<P> {
    pub(crate) fn new(host: IpAddr) -> Self {
        Self {
            host,
            entries: FxHashMap::default(),
            load: Load::default(),
            actions: VecDeque::new(),
            unexpected: 0,
        }
    }

    fn is_active(&self, qpn: u32, peer: End) -> bool {
        let own = End {
            host: self.host,
            qpn,
        };
        own.is_active(peer)
    }

    /// A queue pair is in RTR.
    pub(crate) fn join(&mut self, own: Own, peer: End, depths: Depths, payload: P, now: Instant) {
        let asks = self.is_active(own.qpn, peer);
        self.leave(own.qpn);
        self.entries.insert(
            own.qpn,
            Entry {
                own,
                peer,
                depths,
                stage: Stage::Waiting,
                tries: 0,
                due: asks.then_some(now + FIRST),
                since: now,
                heard: false,
                told: None,
                payload,
            },
        );
        self.say(own.qpn, asks);
    }

    /// It may have more READs under way. Too late, once it is being connected.
    pub(crate) fn set_asked(&mut self, qpn: u32, asked: u8) {
        if let Some(entry) = self.entries.get_mut(&qpn) {
            entry.depths.asked = asked;
        }
    }

    /// Forgets a queue pair.
    pub(crate) fn leave(&mut self, qpn: u32) -> Option<(Stage, P)> {
        let entry = self.entries.remove(&qpn)?;
        self.load
            .moved(entry.peer.host, entry.stage, Stage::Waiting);
        Some((entry.stage, entry.payload))
    }

    /// Forgets all.
    pub(crate) fn leave_all(&mut self) -> Vec<(u32, P)> {
        self.actions.clear();
        self.load = Load::default();
        let all = self.entries.drain();
        all.map(|(qpn, entry)| (qpn, entry.payload)).collect()
    }

    pub(crate) fn stage(&self, qpn: u32) -> Option<Stage> {
        self.entries.get(&qpn).map(|entry| entry.stage)
    }

    pub(crate) fn payload(&self, qpn: u32) -> Option<&P> {
        self.entries.get(&qpn).map(|entry| &entry.payload)
    }

    /// Where the peer's card has what may be reached there.
    pub(crate) fn peers_place(&self, qpn: u32) -> Placement {
        let told = self.entries.get(&qpn).and_then(|entry| entry.told);
        told.map_or_else(Placement::default, |(_, place)| place)
    }

    /// Whom a queue pair is to be connected to, and with what READs.
    pub(crate) fn peer(&self, qpn: u32) -> Option<(End, Depths)> {
        let entry = self.entries.get(&qpn)?;
        Some((entry.peer, entry.depths))
    }

    /// What a request of this queue pair says; none before its peer has repeated its
    /// nonce.
    pub(crate) fn request(&self, qpn: u32) -> Option<Request> {
        let entry = self.entries.get(&qpn)?;
        Some(Request {
            names: entry.names(),
            nonce: entry.own.nonce,
            echo: entry.peers_nonce()?,
        })
    }

    fn say(&mut self, qpn: u32, asks: bool) {
        let entry = self.entries.get(&qpn);
        let echo = entry.and_then(Entry::peers_nonce);
        self.say_to(qpn, asks, echo);
    }

    fn say_to(&mut self, qpn: u32, asks: bool, echo: Option<Nonce>) {
        let Some(entry) = self.entries.get(&qpn) else {
            return;
        };
        let hello = Hello {
            names: entry.names(),
            nonce: entry.own.nonce,
            echo,
            connected: entry.stage == Stage::Connected,
            asks,
        };
        self.actions.push_back(Action::Say(entry.peer.host, hello));
    }

    /// The other side said hello, or somebody in its name.
    pub(crate) fn heard(&mut self, from: IpAddr, hello: Hello, now: Instant) {
        let qpn = hello.names.peer;
        let peer = End {
            host: from,
            qpn: hello.names.own,
        };
        let active = self.is_active(qpn, peer);
        let Some(entry) = self.entries.get_mut(&qpn).filter(|e| e.peer == peer) else {
            self.unexpected += 1;
            return;
        };
        let is_waiting = entry.stage == Stage::Waiting;
        if hello.echo != Some(entry.own.nonce) {
            // Nothing is kept of it: the true peer learns the nonce from the answer.
            self.unexpected += u64::from(hello.echo.is_some());
            let asks = active && is_waiting;
            if hello.asks || asks {
                self.say_to(qpn, asks, Some(hello.nonce));
            }
            return;
        }
        if is_waiting {
            entry.told = Some((hello.nonce, hello.names.place));
        } else if entry.peers_nonce() != Some(hello.nonce) {
            // Of what the peer's queue pair was before.
            return;
        }
        match (active, entry.stage) {
            (true, Stage::Waiting) => {
                // With too much under way it is asked again.
                if self.load.has_room(from) {
                    entry.go(&mut self.load, Stage::Connecting, (now, None));
                    self.actions.push_back(Action::Connect(qpn));
                }
                return;
            }
            (false, _) if hello.connected => {
                entry.heard = true;
                if entry.stage == Stage::Met {
                    self.connected(qpn, now);
                }
            }
            _ => {}
        }
        if hello.asks {
            self.say(qpn, false);
        }
    }

    /// A request came; the queue pair that expects it, and its depths.
    pub(crate) fn requested(
        &mut self,
        from: IpAddr,
        private: &[u8],
        now: Instant,
    ) -> Result<(u32, Depths), Stranger> {
        let request = Request::decode(private).ok_or(Stranger::Malformed)?;
        let qpn = request.names.peer;
        let peer = End {
            host: from,
            qpn: request.names.own,
        };
        let active = self.is_active(qpn, peer);
        let entry = self.entries.get_mut(&qpn);
        let expects = |e: &&mut Entry<P>| {
            let is_its = e.peer == peer && e.own.nonce == request.echo;
            is_its && e.stage == Stage::Waiting && !active
        };
        let entry = entry.filter(expects).ok_or(Stranger::Unexpected)?;
        entry.told = Some((request.nonce, request.names.place));
        entry.go(&mut self.load, Stage::Accepted, (now, None));
        Ok((qpn, entry.depths))
    }

    /// A request did not reach the other side, which costs nothing.
    pub(crate) fn try_again(&mut self, qpn: u32, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&qpn) {
            entry.tries = entry.tries.saturating_add(4);
            let due = now + pause(entry.tries);
            entry.go(&mut self.load, Stage::Waiting, (now, Some(due)));
        }
    }

    /// The card is connected.
    pub(crate) fn established(&mut self, qpn: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(&qpn) else {
            return;
        };
        match entry.stage {
            Stage::Connecting => {
                self.connected(qpn, now);
                self.say(qpn, false);
            }
            Stage::Accepted if entry.heard => self.connected(qpn, now),
            Stage::Accepted => {
                entry.tries = 0;
                let due = now + FIRST;
                entry.go(&mut self.load, Stage::Met, (now, Some(due)));
            }
            Stage::Waiting | Stage::Met | Stage::Connected => {}
        }
    }

    fn connected(&mut self, qpn: u32, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&qpn) {
            entry.go(&mut self.load, Stage::Connected, (now, None));
            self.actions.push_back(Action::Tell(qpn));
        }
    }

    /// The connection ended, or was not made.
    pub(crate) fn fail(&mut self, qpn: u32, cause: &'static str) {
        if self.entries.contains_key(&qpn) {
            self.actions.push_back(Action::Fail(qpn, cause));
        }
    }

    /// Says what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        let is_due = |entry: &Entry<P>| entry.due.is_some_and(|due| due <= now);
        let due = self.entries.iter_mut().filter(|(_, entry)| is_due(entry));
        let mut said = Vec::new();
        for (qpn, entry) in due {
            entry.tries = entry.tries.saturating_add(1);
            entry.due = Some(now + pause(entry.tries));
            let waits_in_vain =
                entry.stage == Stage::Met && now.duration_since(entry.since) > PATIENCE;
            if waits_in_vain {
                entry.due = None;
            }
            said.push((*qpn, waits_in_vain));
        }
        for (qpn, waits_in_vain) in said {
            match waits_in_vain {
                true => self.fail(qpn, "the peer's masqd does not say that it is connected"),
                false => self.say(qpn, true),
            }
        }
    }

    /// When something is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.due).min()
    }
}

/// Doubles from the first to the longest.
fn pause(tries: u32) -> Duration {
    FIRST.saturating_mul(1 << tries.min(10)).min(LONGEST)
}

#[cfg(test)]
mod tests;
