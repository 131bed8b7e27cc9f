//! What other hosts say.

use super::api::{Api, ApiError, KeyValue};
use super::record::read_value;
use super::registrar::Order;
use super::{Backoff, Shared, Side};
use crate::Slot;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Keys that are asked for at a time.
const PAGE: u32 = 1000;

/// Follows the keys of the prefix.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    api: Api,
    registrar: Sender<Order>,
}

impl Watcher {
    pub(super) fn new(shared: Arc<Shared>, api: Api, registrar: Sender<Order>) -> Self {
        Self {
            shared,
            api,
            registrar,
        }
    }

    pub(super) fn run(mut self) {
        let mut backoff = Backoff::new(self.shared.host);
        while !self.shared.is_stopping() {
            if let Err(error) = self.follow(&mut backoff) {
                self.shared.lost(Side::Watcher, &error);
                std::thread::sleep(backoff.next());
            }
        }
    }

    /// Lists everything and follows it from there, until a call fails, or until etcd has
    /// forgotten what comes next: then everything is listed again.
    fn follow(&mut self, backoff: &mut Backoff) -> Result<(), ApiError> {
        let (first, last) = self.shared.keys.range();
        let mut next = self.list()? + 1;
        loop {
            let mut watch = self.api.watch(&first, &last, next)?;
            backoff.reset();
            self.shared.reached(Side::Watcher);
            while let Some(watched) = watch.next()? {
                if self.shared.is_stopping() {
                    return Ok(());
                }
                if watched.canceled {
                    let reason = watched.cancel_reason;
                    tracing::info!(directory = self.shared.place, reason, "listing it anew");
                    return Ok(());
                }
                for event in &watched.events {
                    next = next.max(event.kv.mod_revision.0 + 1);
                    if event.is_delete() {
                        self.removed(&event.kv.key.0);
                    } else {
                        self.seen(&event.kv);
                    }
                }
            }
            // A member that has lost the others would be silent too: this asks a majority.
            let now = self.api.range(&first, &last, 1, 0)?;
            if now.header.revision.0 + 1 < next {
                tracing::warn!(
                    directory = self.shared.place,
                    "it was set back; listing it anew"
                );
                return Ok(());
            }
        }
    }

    /// Learns everything there is; the revision at which it was so.
    fn list(&mut self) -> Result<i64, ApiError> {
        let (mut first, last) = self.shared.keys.range();
        let (mut revision, mut present) = (0, BTreeSet::new());
        loop {
            let page = self.api.range(&first, &last, PAGE, revision)?;
            if revision == 0 {
                revision = page.header.revision.0;
            }
            for kv in &page.kvs {
                present.extend(self.seen(kv));
            }
            match page.kvs.last() {
                Some(kv) if page.more => {
                    first.clone_from(&kv.key.0);
                    first.push(0);
                }
                _ => break,
            }
        }
        let inner = self.shared.inner();
        let known = inner.entries.keys().chain(&inner.wanted);
        let gone: Vec<Slot> = known.filter(|s| !present.contains(*s)).cloned().collect();
        drop(inner);
        for slot in gone {
            self.gone(slot);
        }
        Ok(revision)
    }

    /// A key has a value; which address it speaks of.
    fn seen(&self, kv: &KeyValue) -> Option<Slot> {
        let slot = match self.shared.keys.read(&kv.key.0) {
            Ok(slot) => slot,
            Err(why) => {
                self.shared.count_malformed(&kv.key.0, &why.to_string());
                return None;
            }
        };
        match read_value(&kv.value.0) {
            // What this host said itself.
            Ok(entry) if entry.host == self.shared.host => {
                self.shared.learn(slot.clone(), None);
            }
            Ok(entry) => {
                self.shared.learn(slot.clone(), Some(entry));
                self.look(&slot);
            }
            Err(why) => {
                self.shared.count_malformed(&kv.key.0, &why.to_string());
                self.shared.learn(slot.clone(), None);
                self.look(&slot);
            }
        }
        Some(slot)
    }

    fn removed(&self, key: &[u8]) {
        if let Ok(slot) = self.shared.keys.read(key) {
            self.gone(slot);
        }
    }

    fn gone(&self, slot: Slot) {
        self.look(&slot);
        self.shared.learn(slot, None);
    }

    /// Has the registrar look at a key that this host wants.
    fn look(&self, slot: &Slot) {
        if self.shared.inner().wanted.contains(slot) {
            let _ = self.registrar.send(Order::Look(slot.clone()));
        }
    }
}
