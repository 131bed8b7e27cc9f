//! Whose a queue pair is, and for a while after its end whose it was: a program
//! may send its datagrams and end before another host has asked whose they are.

use crate::devices::DeviceId;
use masq_policy::EndpointId;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a queue pair is remembered: longer than a host holds a datagram.
const MEMORY: Duration = Duration::from_secs(5);
/// Queue pairs that are remembered at most.
const MOST: usize = 65_536;

/// A queue pair of this host: each device numbers its own.
type Number = (DeviceId, u32);

/// Queue pairs by number.
#[derive(Default)]
pub(crate) struct Owners {
    /// And when it ended.
    known: HashMap<Number, (EndpointId, Option<Instant>)>,
    /// Those that ended, in that order.
    ended: VecDeque<(Instant, Number)>,
}

impl Owners {
    pub(crate) fn begin(&mut self, qpn: Number, owner: &EndpointId) {
        self.known.insert(qpn, (owner.clone(), None));
    }

    pub(crate) fn end(&mut self, qpn: Number, now: Instant) {
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

    pub(crate) fn of(&self, qpn: Number) -> Option<&EndpointId> {
        self.known.get(&qpn).map(|(owner, _)| owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_pair_is_remembered_for_a_while_and_no_longer() {
        let (a, b) = ("blue/a".parse().unwrap(), "blue/b".parse().unwrap());
        let on = DeviceId::default();
        let mut owners = Owners::default();
        let start = Instant::now();
        owners.begin((on, 1), &a);
        owners.begin((on, 2), &a);
        owners.end((on, 1), start);
        owners.end((on, 2), start);
        assert_eq!(owners.of((on, 1)), Some(&a));
        // Given out again.
        owners.begin((on, 2), &b);
        owners.begin((on, 3), &b);
        owners.end((on, 3), start + 2 * MEMORY);
        assert_eq!(owners.of((on, 1)), None);
        assert_eq!(owners.of((on, 2)), Some(&b));
        assert_eq!(owners.of((on, 3)), Some(&b));
    }

    #[test]
    fn devices_may_give_out_the_same_number() {
        let (a, b) = ("blue/a".parse().unwrap(), "red/a".parse().unwrap());
        let [one, other] = [0, 1].map(DeviceId::from_raw);
        let mut owners = Owners::default();
        owners.begin((one, 17), &a);
        owners.begin((other, 17), &b);
        assert_eq!(owners.of((one, 17)), Some(&a));
        assert_eq!(owners.of((other, 17)), Some(&b));
    }
}
