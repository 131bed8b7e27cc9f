//! The end of a connection, by either program or by the policy.

use super::Agent;
use super::state::{Phase, Queued, Talk};
use crate::error::CmError;
use crate::message::{CommId, Private};
use crate::reject::Reason;
use crate::types::{Event, Target};
use masq_spec::verbs::QpType;
use std::time::Instant;

/// `IBV_EVENT_COMM_EST`.
const COMM_EST: u32 = 4;

impl Agent {
    /// Disconnects, or agrees to the peer's wish. As on Linux it is no error
    /// where there was a connection that ended, or where there is none yet.
    ///
    /// # Errors
    /// [`CmError::Invalid`] for datagrams, and for an id that never connected.
    pub fn disconnect(&mut self, now: Instant, target: Target) -> Result<(), CmError> {
        let id = self.id(target)?;
        if id.qp_type == QpType::Ud || !id.conversed {
            return Err(CmError::Invalid);
        }
        let Some(comm) = id.conversation else {
            return Ok(());
        };
        match self.conversations.get(&comm).map(|talk| talk.state) {
            Some(Talk::Established) => self.send_dreq(now, comm),
            Some(Talk::DreqReceived) => self.send_drep(now, comm),
            _ => {}
        }
        Ok(())
    }

    /// The program's queue pair had an event: COMM_EST (data came before the
    /// peer's confirmation) establishes.
    ///
    /// # Errors
    /// [`CmError::Invalid`] for other events, and where there is no connection
    /// that was accepted.
    pub fn notify(&mut self, _now: Instant, target: Target, event: u32) -> Result<(), CmError> {
        let id = self.id(target)?;
        let comm = id.conversation.ok_or(CmError::Invalid)?;
        let state = self.conversations.get(&comm).map(|talk| talk.state);
        match (event, state) {
            (COMM_EST, Some(Talk::RepSent)) => self.established(comm),
            // The confirmation was faster.
            (COMM_EST, Some(Talk::Established)) => {}
            _ => return Err(CmError::Invalid),
        }
        Ok(())
    }

    /// Tells the id, once, that it is no longer connected.
    pub(super) fn disconnected(&mut self, comm: CommId, status: i32) {
        let Some(number) = self.conversations.get(&comm).and_then(|talk| talk.id) else {
            return;
        };
        let Some(id) = self.ids.get_mut(&number) else {
            return;
        };
        if id.phase == Phase::Connecting {
            id.phase = Phase::Disconnected;
            self.post(number, Queued::plain(Event::Disconnected, status));
        }
    }

    /// The policy takes a connection away: the peer gets a DREQ, the id
    /// DISCONNECTED. What is not established yet is rejected with reason 5 on
    /// both sides; a datagram service is forgotten.
    pub fn cut(&mut self, now: Instant, id: u32) {
        let Some(comm) = self.ids.get(&id).and_then(|id| id.conversation) else {
            return;
        };
        let Some(state) = self.conversations.get(&comm).map(|talk| talk.state) else {
            return;
        };
        match state {
            Talk::Established => {
                self.send_dreq(now, comm);
                self.disconnected(comm, 0);
            }
            Talk::ReqSent | Talk::ReqReceived | Talk::RepSent | Talk::RepReceived => {
                // Before the peer's id is known it is found by a timeout only.
                let reason = match state {
                    Talk::ReqSent => Reason::TIMEOUT,
                    _ => Reason::UNSUPPORTED,
                };
                let answer = self.send_rej(comm, reason, Private::EMPTY);
                self.tell_rejected(comm, Reason::UNSUPPORTED, Private::EMPTY);
                self.come_to_nothing(now, comm, answer);
            }
            Talk::DreqReceived => self.send_drep(now, comm),
            Talk::SidrReqReceived => {
                let answer = self.refuse_service(comm, Private::EMPTY);
                self.come_to_nothing(now, comm, answer);
            }
            Talk::SidrReqSent => self.unreachable(comm, 2, Private::EMPTY),
            Talk::Resolved => self.remove_conversation(comm),
            Talk::DreqSent | Talk::Timewait | Talk::Refused => {}
        }
    }
}
