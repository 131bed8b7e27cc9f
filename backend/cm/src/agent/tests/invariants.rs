//! The invariants of `super`, checked from inside.

use super::super::Agent;
use super::super::state::{Phase, Talk};

impl Agent {
    /// Panics if an invariant is broken.
    pub(super) fn check(&self) {
        let mut members = 0;
        let mut waiting = 0;
        for (number, id) in &self.ids {
            let channel = &self.channels[&id.channel];
            assert!(
                channel.ids.contains(number),
                "an id is in the set of its channel"
            );
            if let Some(comm) = id.conversation {
                let talk = &self.conversations[&comm];
                assert_eq!(talk.id, Some(*number), "the conversation names its id back");
                assert!(id.conversed);
            }
            for sequence in &id.events {
                assert_eq!(channel.events[sequence].owner, *number);
            }
            assert!(id.events.iter().is_sorted());
            waiting += id.events.len();
            assert_eq!(id.holds_port, id.holds_port && id.phase != Phase::Idle);
            for group in &id.groups {
                assert_eq!(self.memberships[group].id, *number);
            }
            members += id.groups.len();
        }
        assert_eq!(members, self.memberships.len());
        let held = self.ids.values().filter(|id| id.holds_port).count();
        assert_eq!(self.ports.holders(), held);
        let mut ids = 0;
        let mut events = 0;
        for channel in self.channels.values() {
            assert!(
                !channel.ids.is_empty() || !channel.events.is_empty(),
                "an empty channel"
            );
            ids += channel.ids.len();
            events += channel.events.len();
        }
        assert_eq!((ids, events), (self.ids.len(), waiting));
        let (mut orphans, mut timers, mut backing, mut services, mut remote) = (0, 0, 0, 0, 0);
        for (comm, talk) in &self.conversations {
            match talk.id {
                Some(id) => assert_eq!(self.ids[&id].conversation, Some(*comm)),
                None => {
                    assert!(matches!(
                        talk.state,
                        Talk::DreqSent | Talk::Timewait | Talk::Refused
                    ));
                    assert!(talk.deadline.is_some(), "an orphan comes to its end");
                    orphans += 1;
                }
            }
            if let Some(deadline) = talk.deadline {
                assert!(self.timers.contains(&(deadline, *comm)));
                timers += 1;
            }
            backing += usize::from(talk.state.backs_qp());
            services += usize::from(talk.state.is_service());
            remote += usize::from(!talk.initiator);
        }
        assert_eq!(orphans, self.orphans);
        assert_eq!(timers, self.timers.len());
        assert_eq!(backing, self.by_qpn.len());
        assert_eq!(services, self.services.len());
        assert_eq!(remote, self.by_remote.len());
    }
}
