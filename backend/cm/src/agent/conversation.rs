//! Conversations: how they begin and end, and the indexes over them.

use super::Agent;
use super::state::{BITS_24, DREQ_PATIENCE};
use super::state::{
    Conversation, MAX_ORPHANS, MAX_REFUSED, PATIENCE, QpnKey, RemoteKey, TIMEWAIT, Talk,
};
use crate::message::{CommId, Dreq, Message, Private, Rej, Rtu};
use crate::reject::{Answered, Reason};
use std::net::IpAddr;
use std::time::Instant;

impl Agent {
    /// A communication id that no conversation has, and that nobody guesses.
    pub(super) fn new_comm(&mut self) -> CommId {
        loop {
            let comm = CommId((self.next_random() >> 32) as u32);
            if comm.0 != 0 && !self.conversations.contains_key(&comm) {
                return comm;
            }
        }
    }

    /// A first PSN.
    pub(super) fn new_psn(&mut self) -> u32 {
        self.next_random() as u32 & BITS_24
    }

    fn qpn_key(comm: CommId, talk: &Conversation) -> QpnKey {
        (talk.local_qpn, talk.remote_qpn, talk.peer, comm)
    }

    fn remote_key(talk: &Conversation) -> Option<RemoteKey> {
        (!talk.initiator).then_some(RemoteKey {
            peer: talk.peer,
            comm: talk.remote,
            datagram: talk.datagram,
        })
    }

    /// Adds a conversation, of an id or resting.
    pub(super) fn insert_conversation(&mut self, comm: CommId, talk: Conversation) {
        if let Some(key) = Self::remote_key(&talk) {
            self.by_remote.insert(key, comm);
        }
        if let Some(id) = talk.id.and_then(|id| self.ids.get_mut(&id)) {
            id.conversation = Some(comm);
            id.conversed = true;
        }
        self.index(comm, &talk);
        self.conversations.insert(comm, Box::new(talk));
    }

    fn index(&mut self, comm: CommId, talk: &Conversation) {
        if talk.state.backs_qp() {
            self.by_qpn.insert(Self::qpn_key(comm, talk));
        }
        if talk.state.is_service() {
            self.services.insert((talk.peer, comm));
        }
        if let Some(deadline) = talk.deadline {
            self.timers.insert((deadline, comm));
        }
    }

    /// Changes a conversation and keeps the indexes in step.
    pub(super) fn change(
        &mut self,
        comm: CommId,
        change: impl FnOnce(&mut Conversation),
    ) -> Option<()> {
        let mut talk = self.conversations.remove(&comm)?;
        self.unindex(comm, &talk);
        change(&mut talk);
        self.index(comm, &talk);
        self.conversations.insert(comm, talk);
        Some(())
    }

    fn unindex(&mut self, comm: CommId, talk: &Conversation) {
        self.by_qpn.remove(&Self::qpn_key(comm, talk));
        self.services.remove(&(talk.peer, comm));
        if let Some(deadline) = talk.deadline {
            self.timers.remove(&(deadline, comm));
        }
    }

    /// Forgets a conversation.
    pub(super) fn remove_conversation(&mut self, comm: CommId) {
        let Some(talk) = self.conversations.remove(&comm) else {
            return;
        };
        self.unindex(comm, &talk);
        if let Some(key) = Self::remote_key(&talk)
            && self.by_remote.get(&key) == Some(&comm)
        {
            self.by_remote.remove(&key);
        }
        match talk.id {
            Some(id) => {
                if let Some(id) = self.ids.get_mut(&id) {
                    id.conversation = None;
                }
            }
            None => self.orphans = self.orphans.saturating_sub(1),
        }
    }

    /// Sends a message and repeats it until it is answered, for at most
    /// [`PATIENCE`].
    pub(super) fn send_until_answered(&mut self, now: Instant, comm: CommId, message: Message) {
        let Some(peer) = self.conversations.get(&comm).map(|talk| talk.peer) else {
            return;
        };
        let copy = Box::new(message.clone());
        self.change(comm, |talk| {
            let patience = if talk.state == Talk::DreqSent {
                DREQ_PATIENCE
            } else {
                PATIENCE
            };
            talk.deadline = Some(now + talk.interval());
            talk.give_up = Some(now + patience);
            talk.pending = Some(copy);
        });
        self.send(peer, message);
    }

    /// Moves to a state in which nothing is repeated.
    pub(super) fn settle(&mut self, comm: CommId, state: Talk) {
        self.change(comm, |talk| {
            talk.state = state;
            talk.deadline = None;
            talk.give_up = None;
            talk.pending = None;
        });
    }

    /// Lets the numbers of a conversation rest.
    pub(super) fn rest(&mut self, now: Instant, comm: CommId) {
        self.settle(comm, Talk::Timewait);
        self.change(comm, |talk| talk.deadline = Some(now + TIMEWAIT));
    }

    /// Sends a DREQ and waits for its answer.
    pub(super) fn send_dreq(&mut self, now: Instant, comm: CommId) {
        let Some(talk) = self.conversations.get(&comm) else {
            return;
        };
        let message = Message::Dreq(Dreq {
            local_comm: comm,
            remote_comm: talk.remote,
            remote_qpn: talk.remote_qpn,
            private: Private::EMPTY,
        });
        self.change(comm, |talk| talk.state = Talk::DreqSent);
        self.send_until_answered(now, comm, message);
    }

    /// Answers a DREQ and lets the conversation rest.
    pub(super) fn send_drep(&mut self, now: Instant, comm: CommId) {
        let Some(talk) = self.conversations.get(&comm) else {
            return;
        };
        let (peer, remote_comm) = (talk.peer, talk.remote);
        let answer = Rtu {
            local_comm: comm,
            remote_comm,
            private: Private::EMPTY,
        };
        self.send(peer, Message::Drep(answer));
        self.rest(now, comm);
    }

    /// Refuses what the peer sent last, or takes back what was sent to it.
    /// Answers what was sent.
    pub(super) fn send_rej(
        &mut self,
        comm: CommId,
        reason: Reason,
        private: Private,
    ) -> Option<Message> {
        let talk = self.conversations.get(&comm)?;
        let (peer, remote_comm) = (talk.peer, talk.remote);
        let answered = match talk.state {
            Talk::ReqSent | Talk::ReqReceived => Answered::REQ,
            Talk::RepReceived => Answered::REP,
            _ => Answered::OTHER,
        };
        // A timeout names the device, since the peer's id may not be known.
        let info = match reason {
            Reason::TIMEOUT => Private::new(&self.config.node_guid.to_be_bytes()),
            _ => Private::EMPTY,
        };
        let info_len = if reason == Reason::TIMEOUT { 8 } else { 0 };
        let rej = Rej {
            local_comm: comm,
            remote_comm,
            answered,
            reason,
            info,
            info_len,
            private,
        };
        self.send(peer, Message::Rej(rej.clone()));
        Some(Message::Rej(rej))
    }

    /// A conversation comes to nothing. What a peer asked for rests without its
    /// id, so that the same request, repeated or late, is not taken for a new one
    /// but gets the same answer.
    pub(super) fn come_to_nothing(&mut self, now: Instant, comm: CommId, answer: Option<Message>) {
        let talk = self.conversations.get(&comm);
        if talk.is_none_or(|talk| talk.initiator) || self.orphans >= MAX_REFUSED {
            return self.remove_conversation(comm);
        }
        self.settle(comm, Talk::Refused);
        self.change(comm, |talk| {
            talk.deadline = Some(now + PATIENCE);
            talk.pending = answer.map(Box::new);
        });
        self.orphan(comm);
    }

    /// The id of a conversation goes away: the peer is told.
    pub(super) fn abandon(&mut self, now: Instant, comm: CommId) {
        let Some(talk) = self.conversations.get(&comm) else {
            return;
        };
        let answer = match talk.state {
            Talk::ReqSent => self.send_rej(comm, Reason::TIMEOUT, Private::EMPTY),
            Talk::ReqReceived | Talk::RepSent | Talk::RepReceived => {
                self.send_rej(comm, Reason::CONSUMER, Private::EMPTY)
            }
            Talk::SidrReqReceived => self.refuse_service(comm, Private::EMPTY),
            Talk::SidrReqSent | Talk::Resolved => return self.remove_conversation(comm),
            Talk::Established => {
                self.send_dreq(now, comm);
                return self.orphan(comm);
            }
            Talk::DreqReceived => {
                self.send_drep(now, comm);
                return self.orphan(comm);
            }
            Talk::DreqSent | Talk::Timewait | Talk::Refused => return self.orphan(comm),
        };
        self.come_to_nothing(now, comm, answer);
    }

    /// Lets a conversation outlive its id, if there is room.
    fn orphan(&mut self, comm: CommId) {
        if self.orphans >= MAX_ORPHANS {
            return self.remove_conversation(comm);
        }
        let Some(talk) = self.conversations.get_mut(&comm) else {
            return;
        };
        if let Some(id) = talk.id.take() {
            self.orphans += 1;
            if let Some(id) = self.ids.get_mut(&id) {
                id.conversation = None;
            }
        }
    }

    /// The conversation that a message of `from` is about.
    pub(super) fn find(&mut self, from: IpAddr, local: CommId) -> Option<&Conversation> {
        let talk = self.conversations.get(&local).map(|talk| &**talk);
        talk.filter(|talk| talk.peer == from)
    }

    /// The same, for a peer's side that is known already.
    pub(super) fn find_both(
        &mut self,
        from: IpAddr,
        local: CommId,
        remote: CommId,
    ) -> Option<&Conversation> {
        self.find(from, local).filter(|talk| talk.remote == remote)
    }
}
