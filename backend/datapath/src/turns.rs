//! Whose turn it is. Tenants take turns, then what a tenant has does: many queues
//! gain no tenant a larger share.

use masq_device::DomainKey;
use rustc_hash::FxHashMap;
use slab::Slab;
use std::collections::VecDeque;

/// The share of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane(usize);

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<usize>,
    members: u32,
}

/// Items that want a turn, by tenant. Whoever owns an item sees to it that it waits
/// at most once.
#[derive(Debug, Default)]
pub struct Turns {
    lanes: Slab<Waiting>,
    of_domain: FxHashMap<DomainKey, usize>,
    /// Lanes with items, each once.
    active: VecDeque<usize>,
}

impl Turns {
    /// A member of `domain` more.
    pub fn enter(&mut self, domain: DomainKey) -> Lane {
        let lanes = &mut self.lanes;
        let lane = *self
            .of_domain
            .entry(domain)
            .or_insert_with(|| lanes.insert(Waiting::default()));
        if let Some(waiting) = lanes.get_mut(lane) {
            waiting.members += 1;
        }
        Lane(lane)
    }

    /// A member less; with the last one its items are forgotten.
    pub fn leave(&mut self, domain: DomainKey) {
        let Some(lane) = self.of_domain.get(&domain).copied() else {
            return;
        };
        let Some(waiting) = self.lanes.get_mut(lane) else {
            return;
        };
        waiting.members = waiting.members.saturating_sub(1);
        if waiting.members == 0 {
            self.lanes.remove(lane);
            self.of_domain.remove(&domain);
            self.active.retain(|active| *active != lane);
        }
    }

    /// `item` wants a turn.
    #[inline]
    pub fn push(&mut self, lane: Lane, item: usize) {
        let Some(waiting) = self.lanes.get_mut(lane.0) else {
            return;
        };
        waiting.items.push_back(item);
        if waiting.items.len() == 1 {
            self.active.push_back(lane.0);
        }
    }

    /// The next item: of each tenant one, and then again.
    #[inline]
    pub fn pop(&mut self) -> Option<usize> {
        let lane = self.active.pop_front()?;
        let waiting = self.lanes.get_mut(lane)?;
        let item = waiting.items.pop_front();
        if !waiting.items.is_empty() {
            self.active.push_back(lane);
        }
        item
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        let lanes = self.active.iter().filter_map(|lane| self.lanes.get(*lane));
        lanes.map(|waiting| waiting.items.len()).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_with_many_items_gets_no_larger_share() {
        let mut turns = Turns::default();
        let (a, b) = (turns.enter(DomainKey(1)), turns.enter(DomainKey(2)));
        for item in 0..4 {
            turns.push(a, item);
        }
        turns.push(b, 10);
        turns.push(b, 11);
        let order: Vec<usize> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [0, 10, 1, 11, 2, 3]);
        assert!(turns.is_empty());
    }

    #[test]
    fn what_the_last_member_leaves_is_forgotten() {
        let mut turns = Turns::default();
        let lane = turns.enter(DomainKey(1));
        assert_eq!(turns.enter(DomainKey(1)), lane);
        turns.push(lane, 1);
        turns.leave(DomainKey(1));
        assert_eq!(turns.len(), 1);
        turns.leave(DomainKey(1));
        assert_eq!(turns.pop(), None);
        turns.push(lane, 2);
        assert!(turns.is_empty());
    }
}
