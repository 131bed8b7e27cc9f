//! What happens when nothing happens: messages are repeated, given up, and
//! numbers come to the end of their rest.

use super::Agent;
use super::state::{Queued, Talk};
use crate::message::{CommId, Private};
use crate::reject::Reason;
use crate::types::Event;
use std::net::IpAddr;
use std::time::Instant;

/// -ETIMEDOUT.
const TIMED_OUT: i32 = -110;

impl Agent {
    /// When [`Agent::on_timeout`] is to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|&(deadline, _)| deadline)
    }

    /// Does what is due at `now`.
    pub fn on_timeout(&mut self, now: Instant) {
        while let Some(&(deadline, comm)) = self.timers.first() {
            if deadline > now {
                break;
            }
            self.due(now, comm);
        }
    }

    fn due(&mut self, now: Instant, comm: CommId) {
        let Some(talk) = self.conversations.get(&comm) else {
            return;
        };
        match (talk.state, talk.pending.as_deref()) {
            (Talk::Timewait | Talk::Refused, _) => {
                let id = talk.id;
                self.remove_conversation(comm);
                if let Some(id) = id {
                    self.post(id, Queued::plain(Event::TimewaitExit, 0));
                }
            }
            (Talk::Resolved, _) => self.settle(comm, Talk::Resolved),
            (_, Some(message)) if talk.give_up.is_some_and(|end| now < end) => {
                let (peer, message) = (talk.peer, message.clone());
                self.change(comm, |talk| {
                    talk.deadline = Some(now + talk.interval()).min(talk.give_up);
                });
                self.send(peer, message);
            }
            (state, _) => self.exhausted(now, comm, state),
        }
    }

    /// What this agent last sent to `peer` in a conversation cannot reach it, and nobody
    /// need wait for an answer any longer.
    pub fn undeliverable(&mut self, now: Instant, peer: IpAddr, comm: CommId) {
        let state = self.find(peer, comm).map(|talk| talk.state);
        if let Some(state @ (Talk::ReqSent | Talk::RepSent | Talk::SidrReqSent)) = state {
            self.exhausted(now, comm, state);
        }
    }

    /// The peer never answered.
    fn exhausted(&mut self, now: Instant, comm: CommId, state: Talk) {
        match state {
            Talk::ReqSent | Talk::RepSent => {
                let id = self.conversations.get(&comm).and_then(|talk| talk.id);
                let answer = self.send_rej(comm, Reason::TIMEOUT, Private::EMPTY);
                self.come_to_nothing(now, comm, answer);
                if let Some(id) = id {
                    self.post(id, Queued::plain(Event::Unreachable, TIMED_OUT));
                }
            }
            Talk::SidrReqSent => self.unreachable(comm, TIMED_OUT, Private::EMPTY),
            Talk::DreqSent => {
                self.disconnected(comm, TIMED_OUT);
                self.rest(now, comm);
            }
            state => self.settle(comm, state),
        }
    }
}
