//! Proof that a queue pair of another host belongs to the peer that a program says.
//! A device whose packets bear no partition takes what the connected host sends under
//! the right number, so the number itself must be held against the endpoint.

use masq_device::SenderKey;
use masq_spec::verbs::Gid;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long an answer counts: the number may be given out again after that.
const FRESH: Duration = Duration::from_secs(2);
/// How often an unanswered question is asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// Questions and answers that are remembered.
const MOST: usize = 16_384;

/// What is known of a queue pair of another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Its masq says that it is of the endpoint with this GID.
    Of(Gid),
    /// Its masq says that it is nobody's of this tenant.
    Nobodys,
    /// Its masq is to be asked now.
    Ask,
    /// It was asked.
    Asked,
}

/// Questions and answers about queue pairs of other hosts.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    answers: HashMap<SenderKey, (Option<Gid>, Instant)>,
    asked: HashMap<SenderKey, Instant>,
}

impl Proofs {
    /// What is known; notes that it is asked for.
    pub(crate) fn look(&mut self, key: SenderKey, now: Instant) -> Proof {
        let is_fresh = |at: &Instant| now.duration_since(*at) < FRESH;
        match self.answers.get(&key).filter(|(_, at)| is_fresh(at)) {
            Some((Some(gid), _)) => return Proof::Of(*gid),
            Some((None, _)) => return Proof::Nobodys,
            None => {}
        }
        if self.asked.len() >= MOST {
            self.asked.clear();
        }
        let last = self.asked.get(&key);
        if last.is_some_and(|at| now.duration_since(*at) < AGAIN) {
            return Proof::Asked;
        }
        self.asked.insert(key, now);
        Proof::Ask
    }

    /// An answer, of which only one that was asked for counts.
    pub(crate) fn answered(&mut self, key: SenderKey, gid: Option<Gid>, now: Instant) {
        if self.asked.remove(&key).is_none() {
            return;
        }
        if self.answers.len() >= MOST {
            self.answers.clear();
        }
        self.answers.insert(key, (gid, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use masq_wire::{PKey, Qpn};

    const GID: Gid = [7; 16];

    fn key(qpn: u32) -> SenderKey {
        SenderKey {
            host: [192, 0, 2, 2].into(),
            partition: PKey(0x8001),
            qpn: Qpn::new(qpn),
        }
    }

    #[test]
    fn an_answer_counts_if_it_was_asked_for_and_for_a_while() {
        let mut proofs = Proofs::default();
        let now = Instant::now();
        proofs.answered(key(5), Some(GID), now);
        assert_eq!(proofs.look(key(5), now), Proof::Ask, "it was not asked for");
        assert_eq!(proofs.look(key(5), now), Proof::Asked);
        proofs.answered(key(5), Some(GID), now);
        assert_eq!(proofs.look(key(5), now), Proof::Of(GID));
        assert_eq!(proofs.look(key(5), now + FRESH), Proof::Ask);
    }

    #[test]
    fn a_lost_question_is_asked_again_and_nobodys_is_an_answer() {
        let mut proofs = Proofs::default();
        let now = Instant::now();
        assert_eq!(proofs.look(key(5), now), Proof::Ask);
        assert_eq!(proofs.look(key(5), now + AGAIN), Proof::Ask);
        proofs.answered(key(5), None, now + AGAIN);
        assert_eq!(proofs.look(key(5), now + AGAIN), Proof::Nobodys);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut proofs = Proofs::default();
        let now = Instant::now();
        for qpn in 0..3 * MOST as u32 {
            proofs.look(key(qpn), now);
            proofs.answered(key(qpn), None, now);
        }
        assert!(proofs.asked.len() <= MOST && proofs.answers.len() <= MOST);
    }
}
