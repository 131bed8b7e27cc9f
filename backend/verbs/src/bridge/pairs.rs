//! Queue pairs of an iWARP card by number. The kernel's connection manager is told a
//! number and takes its time; meanwhile the number must not become another's, nor the
//! release of its queue pair wait for the kernel.

use crate::host::Qp;
use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Those that exist, and some that do no more.
#[derive(Default)]
pub(crate) struct Pairs {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    pairs: FxHashMap<u32, Weak<Qp>>,
    /// How many there may be before those that are gone are looked for.
    most: usize,
}

impl Pairs {
    pub(crate) fn insert(&self, qp: &Arc<Qp>) {
        self.insert_as(qp.qpn(), Arc::downgrade(qp));
    }

    pub(super) fn insert_as(&self, qpn: u32, qp: Weak<Qp>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.pairs.len() >= known.most {
            known.pairs.retain(|_, qp| qp.strong_count() > 0);
            known.most = 2 * known.pairs.len() + 64;
        }
        known.pairs.insert(qpn, qp);
    }

    /// The one that has this number now.
    pub(super) fn get(&self, qpn: u32) -> Option<Weak<Qp>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.pairs.get(&qpn).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_gone_are_not_kept() {
        let pairs = Pairs::default();
        for qpn in 0..1000 {
            pairs.insert_as(qpn, Weak::new());
        }
        let known = pairs.known.lock().unwrap();
        assert!(known.pairs.len() <= 64, "{}", known.pairs.len());
    }
}
