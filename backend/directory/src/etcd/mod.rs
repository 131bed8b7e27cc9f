//! etcd as the directory of a cluster.
//!
//! # Threads
//! 1. The *registrar* holds a lease, keeps it alive, and hangs this host's claims on it.
//!    A lease that is lost is replaced, and everything is claimed anew.
//! 2. The *watcher* lists what there is and then hears of each change. What it knows goes
//!    on counting while etcd is away.
//!
//! Both speak for themselves and share a small state behind a lock that is never held
//! across a call of the network.

mod api;
mod config;
mod record;
mod registrar;
mod watcher;

pub use config::{AddressError, EtcdConfig, SILENCE, TTL, Tls};

use crate::{Change, Claim, Conflict, Directory, Entry, Slot, State};
use api::{Api, ApiError};
use masq_policy::EndpointId;
use record::Keys;
use registrar::{Order, Registrar};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use watcher::Watcher;

/// Most addresses of other hosts that are known at a time.
const MAX_ENTRIES: usize = 1 << 17;
/// Malformed entries that are logged; the rest is counted.
const LOGGED: u64 = 100;
/// How long the end of masqd may wait for this host's entries to be removed.
const FAREWELL: Duration = Duration::from_secs(1);

/// Which thread speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Registrar,
    Watcher,
}

/// What was lost, since when, and why.
#[derive(Debug)]
struct Loss {
    since: Instant,
    error: String,
}

#[derive(Debug, Default)]
struct Inner {
    /// Of other hosts.
    entries: BTreeMap<Slot, Entry>,
    /// News that nobody has asked for yet.
    pending: BTreeMap<Slot, Option<Entry>>,
    /// Addresses that this host claims, or would like to.
    wanted: BTreeSet<Slot>,
    conflicts: BTreeMap<Slot, Conflict>,
    claims: usize,
    malformed: u64,
    losses: u64,
    registrar: Option<Loss>,
    watcher: Option<Loss>,
}

impl Inner {
    fn loss(&mut self, side: Side) -> &mut Option<Loss> {
        match side {
            Side::Registrar => &mut self.registrar,
            Side::Watcher => &mut self.watcher,
        }
    }
}

/// What the threads and the control side share.
struct Shared {
    place: String,
    host: IpAddr,
    keys: Keys,
    news: OwnedFd,
    stop: AtomicBool,
    inner: Mutex<Inner>,
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A call failed.
    fn lost(&self, side: Side, error: &ApiError) {
        let mut inner = self.inner();
        let was_away = inner.registrar.is_some() || inner.watcher.is_some();
        let known = inner.entries.len();
        let (since, error) = match inner.loss(side) {
            Some(loss) => (loss.since, error.to_string()),
            None => (Instant::now(), error.to_string()),
        };
        *inner.loss(side) = Some(Loss {
            since,
            error: error.clone(),
        });
        if !was_away {
            inner.losses += 1;
            drop(inner);
            tracing::error!(
                directory = self.place,
                error,
                known,
                "the directory is away; what is known goes on counting"
            );
        }
    }

    /// A call succeeded.
    fn reached(&self, side: Side) {
        let mut inner = self.inner();
        let before = inner.loss(side).take();
        if let Some(before) = before
            && inner.registrar.is_none()
            && inner.watcher.is_none()
        {
            let seconds = before.since.elapsed().as_secs();
            drop(inner);
            tracing::info!(directory = self.place, seconds, "the directory is back");
        }
    }

    /// What is known of an address now.
    fn learn(&self, slot: Slot, entry: Option<Entry>) {
        let mut inner = self.inner();
        let before = inner.entries.get(&slot);
        if before == entry.as_ref() {
            return;
        }
        match &entry {
            Some(_) if before.is_none() && inner.entries.len() >= MAX_ENTRIES => {
                inner.malformed += 1;
                return;
            }
            Some(entry) => inner.entries.insert(slot.clone(), entry.clone()),
            None => inner.entries.remove(&slot),
        };
        inner.pending.insert(slot, entry);
        drop(inner);
        let _ = rustix::io::write(&self.news, &1u64.to_ne_bytes());
    }

    fn count_malformed(&self, key: &[u8], why: &str) {
        let mut inner = self.inner();
        inner.malformed += 1;
        let count = inner.malformed;
        drop(inner);
        if count <= LOGGED {
            let key = String::from_utf8_lossy(key).escape_debug().to_string();
            tracing::warn!(directory = self.place, key, why, "an entry is passed over");
        }
    }
}

/// etcd, by the gateway for JSON that every member has on its client port.
pub struct Etcd {
    shared: Arc<Shared>,
    orders: Sender<Order>,
    /// Ends once the registrar has.
    ended: Receiver<()>,
}

impl Etcd {
    /// Begins to follow etcd; whether it is there or not, this returns at once.
    ///
    /// # Errors
    /// The host has no descriptor or thread left.
    pub fn start(config: EtcdConfig, host: IpAddr) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let shared = Arc::new(Shared {
            place: config.to_string(),
            host: host.to_canonical(),
            keys: Keys::new(&config.prefix),
            news: eventfd(0, flags)?,
            stop: AtomicBool::new(false),
            inner: Mutex::default(),
        });
        let (orders, inbox) = channel();
        let (end, ended) = channel();
        let ttl = config.ttl;
        let registrar = Registrar::new(Arc::clone(&shared), Api::new(config.clone()), ttl, inbox);
        let run = move || {
            registrar.run();
            drop(end);
        };
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        thread("masq-registrar").spawn(run)?;
        let watcher = Watcher::new(Arc::clone(&shared), Api::new(config), orders.clone());
        thread("masq-watcher").spawn(move || watcher.run())?;
        Ok(Self {
            shared,
            orders,
            ended,
        })
    }
}

impl Directory for Etcd {
    fn hears_others(&self) -> bool {
        true
    }

    fn announce(&self, claim: Claim) {
        let _ = self.orders.send(Order::Announce(claim));
    }

    fn withdraw(&self, id: &EndpointId) {
        let _ = self.orders.send(Order::Withdraw(id.clone()));
    }

    fn changes(&self) -> Vec<Change> {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&self.shared.news, &mut counter);
        let pending = std::mem::take(&mut self.shared.inner().pending);
        let changes = pending.into_iter();
        changes
            .map(|(slot, entry)| Change { slot, entry })
            .collect()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.news.as_fd())
    }

    fn state(&self) -> State {
        let inner = self.shared.inner();
        let losses = [&inner.registrar, &inner.watcher].into_iter().flatten();
        let loss = losses.min_by_key(|loss| loss.since);
        State {
            kind: "etcd",
            place: self.shared.place.clone(),
            away_seconds: loss.map(|loss| loss.since.elapsed().as_secs()),
            error: loss.map(|loss| loss.error.clone()),
            entries: inner.entries.len(),
            claims: inner.claims,
            conflicts: inner.conflicts.values().cloned().collect(),
            malformed_total: inner.malformed,
            losses_total: inner.losses,
        }
    }
}

impl Drop for Etcd {
    /// Gives up this host's entries, if etcd can be reached at once.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = self.orders.send(Order::Stop);
        let _ = self.ended.recv_timeout(FAREWELL);
    }
}

/// How long to wait after failures: longer each time, and not all hosts alike.
#[derive(Debug)]
struct Backoff {
    tries: u32,
    salt: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(2);

    fn new(host: IpAddr) -> Self {
        let bytes = host.to_string().into_bytes();
        let salt = bytes.iter().fold(7, |salt: u32, byte| {
            salt.wrapping_mul(31).wrapping_add(u32::from(*byte))
        });
        Self { tries: 0, salt }
    }

    fn reset(&mut self) {
        self.tries = 0;
    }

    fn next(&mut self) -> Duration {
        let wait = (Self::FIRST * (1 << self.tries.min(8))).min(Self::MOST);
        self.tries += 1;
        self.salt = self
            .salt
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        // Three quarters to five quarters.
        wait * 3 / 4 + wait * (self.salt >> 16) / (2 * u32::from(u16::MAX))
    }
}

#[cfg(test)]
mod real;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_ever_less_often_but_never_rarely() {
        let mut backoff = Backoff::new("192.0.2.1".parse().unwrap());
        let waits: Vec<_> = (0..40).map(|_| backoff.next()).collect();
        assert!(waits[0] < Duration::from_millis(130));
        assert!(waits[10] >= Duration::from_millis(1500));
        assert!(
            waits
                .iter()
                .all(|wait| *wait <= Duration::from_millis(2500))
        );
        let mut other = Backoff::new("192.0.2.2".parse().unwrap());
        assert_ne!(waits[39], (0..40).map(|_| other.next()).last().unwrap());
    }
}
