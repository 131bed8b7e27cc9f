//! Whose a queue pair is, and for a while after its end whose it was: a program
//! may send its datagrams and end before another host has asked whose they are.

use masq_policy::EndpointId;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a queue pair is remembered: longer than a host holds a datagram.
const MEMORY: Duration = Duration::from_secs(5);
/// Queue pairs that are remembered at most.
const MOST: usize = 65_536;

/// Queue pairs by number.
#[derive(Default)]
pub(crate) struct Owners {
    /// And when it ended.
    known: HashMap<u32, (EndpointId, Option<Instant>)>,
    /// Those that ended, in that order.
    ended: VecDeque<(Instant, u32)>,
}

impl Owners {
    pub(crate) fn begin(&mut self, qpn: u32, owner: &EndpointId) {
        self.known.insert(qpn, (owner.clone(), None));
    }

    pub(crate) fn end(&mut self, qpn: u32, now: Instant) {
        if let Some((_, ended)) = self.known.get_mut(&qpn) {
            *ended = Some(now);
            self.ended.push_back((now, qpn));
        }
        while let Some((when, qpn)) = self.ended.front().copied() {
            let is_old = now.duration_since(when) > MEMORY;
            if !is_old && self.ended.len() <= MOST {
                return;
            }
            self.ended.pop_front();
            // Unless the number was given out again.
            if self
                .known
                .get(&qpn)
                .is_some_and(|(_, ended)| *ended == Some(when))
            {
                self.known.remove(&qpn);
            }
        }
    }

    pub(crate) fn of(&self, qpn: u32) -> Option<&EndpointId> {
        self.known.get(&qpn).map(|(owner, _)| owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_pair_is_remembered_for_a_while_and_no_longer() {
        let (a, b) = ("blue/a".parse().unwrap(), "blue/b".parse().unwrap());
        let mut owners = Owners::default();
        let start = Instant::now();
        owners.begin(1, &a);
        owners.begin(2, &a);
        owners.end(1, start);
        owners.end(2, start);
        assert_eq!(owners.of(1), Some(&a));
        // Given out again.
        owners.begin(2, &b);
        owners.begin(3, &b);
        owners.end(3, start + 2 * MEMORY);
        assert_eq!(owners.of(1), None);
        assert_eq!(owners.of(2), Some(&b));
        assert_eq!(owners.of(3), Some(&b));
    }
}
