//! Calls that may wait for a plain host: so many at a time, in all and of one tenant, so
//! that hosts which do not answer one tenant hold up no other. The rest wait for their
//! turn.

use masq_cm::CommId;
use masq_wire::PKey;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Calls under way in all.
pub(in crate::bridge) const MOST_CALLS: usize = 64;
/// And of one tenant, which has a partition of its own.
pub(in crate::bridge) const MOST_OF_TENANT: usize = 16;

/// What is to be done with an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Connect it, for this conversation.
    Connect(CommId),
    /// End it, before its host has answered.
    End,
}

struct Place {
    tenant: u16,
    job: Job,
    /// Its place in the queue; None: it is under way.
    waits: Option<u64>,
}

#[derive(Default)]
pub(super) struct Turns {
    places: FxHashMap<u32, Place>,
    /// Of each tenant first come, first served.
    queue: BTreeMap<(u16, u64), u32>,
    under_way: BTreeMap<u16, usize>,
    all: usize,
    last: u64,
    /// Whose turn it was.
    turn: u16,
}

impl Turns {
    /// An id wants a turn; it has none yet.
    pub(super) fn wish(&mut self, tenant: PKey, id: u32, job: Job) {
        self.last += 1;
        let (tenant, waits) = (tenant.0, Some(self.last));
        self.queue.insert((tenant, self.last), id);
        self.places.insert(id, Place { tenant, job, waits });
    }

    /// What may begin now, one tenant after the other; it is under way then.
    pub(super) fn next(&mut self) -> Option<(u32, Job)> {
        if self.all >= MOST_CALLS {
            return None;
        }
        let (behind, before) = (
            self.tenants_from(self.turn.checked_add(1)),
            self.tenants_from(Some(0)),
        );
        let has_room = |t: &u16| self.under_way.get(t).is_none_or(|n| *n < MOST_OF_TENANT);
        let tenant = behind.chain(before).find(has_room)?;
        let (&key, &id) = self.queue.range((tenant, 0)..).next()?;
        self.queue.remove(&key);
        let place = self.places.get_mut(&id)?;
        place.waits = None;
        let job = place.job;
        *self.under_way.entry(tenant).or_default() += 1;
        self.all += 1;
        self.turn = tenant;
        Some((id, job))
    }

    /// Tenants that wait.
    fn tenants_from(&self, first: Option<u16>) -> impl Iterator<Item = u16> {
        let from = |tenant: u16| {
            let mut rest = self.queue.range((tenant, 0)..);
            rest.next().map(|((tenant, _), _)| *tenant)
        };
        let first = first.and_then(from);
        std::iter::successors(first, move |t| t.checked_add(1).and_then(from))
    }

    /// A call has returned; whose it was.
    pub(super) fn returned(&mut self, id: u32) -> Option<PKey> {
        if !self.is_under_way(id) {
            return None;
        }
        let tenant = self.places.remove(&id)?.tenant;
        self.all -= 1;
        if let Some(count) = self.under_way.get_mut(&tenant) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(&tenant);
            }
        }
        Some(PKey(tenant))
    }

    /// Whether the id waited for its turn; it does no more.
    pub(super) fn withdraw(&mut self, id: u32) -> bool {
        let Some(&Place { tenant, waits, .. }) = self.places.get(&id) else {
            return false;
        };
        let Some(number) = waits else {
            return false;
        };
        self.queue.remove(&(tenant, number));
        self.places.remove(&id);
        true
    }

    pub(super) fn is_under_way(&self, id: u32) -> bool {
        let place = self.places.get(&id);
        place.is_some_and(|place| place.waits.is_none())
    }

    /// Ids that only wait for their end.
    #[cfg(test)]
    pub(super) fn ends(&self) -> usize {
        let all = self.places.values();
        all.filter(|place| place.job == Job::End).count()
    }

    #[cfg(test)]
    pub(super) fn is_consistent(&self) -> bool {
        let under_way: usize = self.under_way.values().sum();
        under_way == self.all && self.places.len() == self.all + self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_have_their_turns_and_none_all_of_them() {
        let mut turns = Turns::default();
        for id in 0..100 {
            turns.wish(PKey(0x8001), id, Job::End);
        }
        let begun = std::iter::from_fn(|| turns.next()).count();
        assert_eq!(begun, MOST_OF_TENANT);
        // Others do not wait behind them.
        for id in 100..103 {
            turns.wish(PKey(0x8000 + id as u16), id, Job::End);
        }
        let begun: Vec<_> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!(begun.len(), 3);
        for id in 200..300 {
            turns.wish(PKey(id as u16), id, Job::End);
        }
        while turns.next().is_some() {}
        assert_eq!(turns.all, MOST_CALLS);
        assert!(turns.is_consistent());
        // A place is given to whoever has waited for it.
        assert_eq!(turns.returned(0), Some(PKey(0x8001)));
        assert_eq!(turns.returned(0), None);
        assert!(turns.next().is_some() && turns.next().is_none());
        assert!(turns.withdraw(99) && !turns.withdraw(99) && !turns.withdraw(1));
        assert!(turns.is_consistent());
    }
}
