//! The lease, and what hangs on it.

use super::api::{Api, ApiError, Claimed, KeyValue};
use super::record::{read_value, write_value};
use super::{Backoff, Shared, Side};
use crate::{Claim, Conflict, Entry, Slot};
use masq_policy::EndpointId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often a claim that lost is tried again if nothing is heard of the other.
const RETRY: Duration = Duration::from_secs(10);

/// What the registrar is asked to do.
#[derive(Debug)]
pub(super) enum Order {
    Announce(Claim),
    Withdraw(EndpointId),
    /// Somebody else did something to a key of this host's, or to one that it wants.
    Look(Slot),
    Stop,
}

/// Owns the lease.
pub(super) struct Registrar {
    shared: Arc<Shared>,
    api: Api,
    ttl: Duration,
    orders: Receiver<Order>,
    claims: HashMap<EndpointId, Claim>,
    /// The addresses of `claims`.
    wanted: BTreeMap<Slot, (EndpointId, Entry)>,
    lease: Option<i64>,
    /// When it is to be kept alive.
    renewal: Instant,
    /// Keys that hang on the lease, with what they say.
    held: BTreeMap<Slot, Entry>,
    /// Keys that others have, and when to ask again.
    lost_to: BTreeMap<Slot, Instant>,
    /// Keys whose state is not known, since a call about them failed.
    unsure: BTreeSet<Slot>,
}

impl Registrar {
    pub(super) fn new(
        shared: Arc<Shared>,
        api: Api,
        ttl: Duration,
        orders: Receiver<Order>,
    ) -> Self {
        Self {
            shared,
            api,
            ttl,
            orders,
            claims: HashMap::new(),
            wanted: BTreeMap::new(),
            lease: None,
            renewal: Instant::now(),
            held: BTreeMap::new(),
            lost_to: BTreeMap::new(),
            unsure: BTreeSet::new(),
        }
    }

    pub(super) fn run(mut self) {
        let mut backoff = Backoff::new(self.shared.host);
        let mut wait = Duration::ZERO;
        loop {
            if !self.take_orders(wait) {
                break;
            }
            wait = match self.turn() {
                Ok(()) => {
                    backoff.reset();
                    self.shared.reached(Side::Registrar);
                    self.until_next()
                }
                Err(error) => {
                    self.shared.lost(Side::Registrar, &error);
                    backoff.next()
                }
            };
            self.tell();
        }
        if let Some(lease) = self.lease {
            let _ = self.api.revoke(lease);
        }
    }

    fn until_next(&self) -> Duration {
        let retries = self.lost_to.values().copied();
        let next = retries.chain([self.renewal]).min();
        next.map_or(RETRY, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Waits for orders and takes all there are. False when it is time to stop.
    fn take_orders(&mut self, wait: Duration) -> bool {
        let mut changed = false;
        let mut next = self.orders.recv_timeout(wait);
        loop {
            match next {
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Ok(Order::Announce(claim)) => {
                    self.claims.insert(claim.id.clone(), claim);
                    changed = true;
                }
                Ok(Order::Withdraw(id)) => {
                    self.claims.remove(&id);
                    changed = true;
                }
                Ok(Order::Look(slot)) => {
                    self.lost_to.remove(&slot);
                    if self.held.remove(&slot).is_some() {
                        self.unsure.insert(slot);
                    }
                }
                Err(RecvTimeoutError::Timeout) => break,
            }
            next = self.orders.recv_timeout(Duration::ZERO);
        }
        if changed {
            self.list_wanted();
        }
        true
    }

    fn list_wanted(&mut self) {
        self.wanted.clear();
        for claim in self.claims.values() {
            for address in &claim.addresses {
                let slot = Slot {
                    tenant: claim.id.tenant().clone(),
                    address: address.to_canonical(),
                };
                let entry = Entry {
                    endpoint: claim.id.name().clone(),
                    class: claim.class.clone(),
                    host: self.shared.host,
                };
                self.wanted.insert(slot, (claim.id.clone(), entry));
            }
        }
        self.lost_to
            .retain(|slot, _| self.wanted.contains_key(slot));
        let slots = self.wanted.keys().cloned().collect();
        self.shared.inner().wanted = slots;
    }

    /// Brings etcd in step with what is wanted.
    fn turn(&mut self) -> Result<(), ApiError> {
        self.keep_lease()?;
        let mut given_up: BTreeSet<Slot> = self.held.keys().cloned().collect();
        given_up.extend(std::mem::take(&mut self.unsure));
        given_up.retain(|slot| !self.wanted.contains_key(slot));
        for slot in given_up {
            self.held.remove(&slot);
            // Until it is known to be gone.
            self.unsure.insert(slot.clone());
            if let Some(lease) = self.lease {
                self.api.delete(&self.shared.keys.of(&slot), lease)?;
            }
            self.unsure.remove(&slot);
            self.keep_lease()?;
        }
        let now = Instant::now();
        let is_due = |slot: &Slot| self.lost_to.get(slot).is_none_or(|at| *at <= now);
        let missing = self
            .wanted
            .iter()
            .filter(|(slot, (_, entry))| self.held.get(*slot) != Some(entry) && is_due(slot));
        let missing: Vec<_> = missing
            .map(|(s, (id, e))| (s.clone(), id.clone(), e.clone()))
            .collect();
        for (slot, id, entry) in missing {
            self.unsure.insert(slot.clone());
            self.claim(&slot, &id, &entry)?;
            self.unsure.remove(&slot);
            self.keep_lease()?;
        }
        Ok(())
    }

    /// Keeps the lease alive if it is time to, and takes a new one if it has ended.
    fn keep_lease(&mut self) -> Result<(), ApiError> {
        if let Some(lease) = self.lease {
            if Instant::now() < self.renewal {
                return Ok(());
            }
            if self.api.keep_alive(lease)? {
                self.renewal = Instant::now() + self.ttl / 3;
                return Ok(());
            }
            tracing::warn!(
                directory = self.shared.place,
                "the lease has ended; this host registers again"
            );
            self.lease = None;
            self.held.clear();
            self.lost_to.clear();
        }
        self.lease = Some(self.api.grant(self.ttl)?);
        self.renewal = Instant::now() + self.ttl / 3;
        Ok(())
    }

    fn claim(&mut self, slot: &Slot, id: &EndpointId, entry: &Entry) -> Result<(), ApiError> {
        let Some(lease) = self.lease else {
            return Ok(());
        };
        let (key, value) = (self.shared.keys.of(slot), write_value(entry));
        let mut claimed = self.api.create(&key, &value, lease)?;
        if let Claimed::Taken(old) = &claimed
            && self.is_own(old)
        {
            let in_step = old.lease.0 == lease && old.value.0 == value;
            claimed = match in_step {
                true => Claimed::Done,
                false => self.api.replace(old, &value, lease)?,
            };
        }
        match claimed {
            Claimed::Done => {
                self.lost_to.remove(slot);
                self.held.insert(slot.clone(), entry.clone());
                if self.shared.inner().conflicts.remove(slot).is_some() {
                    tracing::info!(endpoint = %id, address = %slot.address, "other hosts reach it by this address now");
                }
            }
            Claimed::Taken(by) => self.lose(slot, id, &by),
        }
        Ok(())
    }

    /// What this host said itself, perhaps before it was started again.
    fn is_own(&self, old: &KeyValue) -> bool {
        read_value(&old.value.0).is_ok_and(|entry| entry.host == self.shared.host)
    }

    fn lose(&mut self, slot: &Slot, id: &EndpointId, by: &KeyValue) {
        let later = Instant::now() + RETRY;
        self.held.remove(slot);
        let Ok(holder) = read_value(&by.value.0) else {
            // Gone again, or malformed, which the watcher says.
            let soon = Instant::now() + Duration::from_millis(100);
            let at = if by.key.0.is_empty() { soon } else { later };
            self.lost_to.insert(slot.clone(), at);
            return;
        };
        self.lost_to.insert(slot.clone(), later);
        let conflict = Conflict {
            slot: slot.clone(),
            wanted_by: id.clone(),
            host: holder.host,
            endpoint: holder.endpoint,
        };
        let mut inner = self.shared.inner();
        let before = inner.conflicts.insert(slot.clone(), conflict.clone());
        drop(inner);
        if before.as_ref() != Some(&conflict) {
            tracing::warn!(
                endpoint = %id, address = %slot.address, host = %conflict.host,
                holder = %conflict.endpoint,
                "another host has registered this address; until it gives it up, other hosts do not reach this endpoint by it"
            );
        }
    }

    fn tell(&self) {
        let mut inner = self.shared.inner();
        inner.claims = self.held.len();
        inner.conflicts.retain(|slot, conflict| {
            let wanted = self.wanted.get(slot);
            wanted.is_some_and(|(id, _)| *id == conflict.wanted_by)
        });
    }
}
