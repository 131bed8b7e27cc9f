//! The passive side: listens, accepts, refuses. Also the confirmation of an
//! acceptance, which is an accept without parameters.

use super::Agent;
use super::connect::private_of;
use super::state::{BITS_24, MAX_BACKLOG, Phase, Queued, TARGET_ACK_DELAY, Talk};
use crate::error::CmError;
use crate::message::{CommId, Message, Private, REJ_PRIVATE, REP_PRIVATE, Rep, Rtu};
use crate::reject::Reason;
use crate::types::{Event, Target};
use masq_spec::verbs::{CmParam, QpType};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

impl Agent {
    /// Lets an id take requests; at most `backlog` of them wait, 1024 if it is 0
    /// or more. An id that is not bound gets a free port.
    ///
    /// # Errors
    /// [`CmError::Invalid`] in another state, [`CmError::AddressInUse`] if
    /// somebody shares the port.
    pub fn listen(&mut self, target: Target, backlog: u32) -> Result<(), CmError> {
        if self.id(target)?.phase == Phase::Idle {
            self.bind_to(target, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        }
        let id = self.id(target)?;
        if id.phase != Phase::Bound {
            return Err(CmError::Invalid);
        }
        let service = (id.port_space, id.source.port());
        self.ports.listen(service.0, service.1, target.id)?;
        self.relistened.insert(service);
        let id = self.id_mut(target)?;
        id.reuse = false;
        id.phase = Phase::Listening;
        id.backlog = if (1..=MAX_BACKLOG).contains(&backlog) {
            backlog
        } else {
            MAX_BACKLOG
        };
        Ok(())
    }

    /// Accepts a request; without parameters, confirms the peer's acceptance.
    /// With parameters the id is known as `uid` from now on.
    ///
    /// # Errors
    /// [`CmError::Invalid`] if there is nothing to accept (any more), or too much
    /// private data. As on Linux a request that could not be accepted is refused
    /// then.
    pub fn accept(
        &mut self,
        now: Instant,
        target: Target,
        uid: u64,
        param: Option<&CmParam>,
    ) -> Result<(), CmError> {
        let id = self.id(target)?;
        if id.phase != Phase::Connecting {
            return Err(CmError::Invalid);
        }
        let datagram = id.qp_type == QpType::Ud;
        let comm = id.conversation.ok_or(CmError::Invalid)?;
        let done = match param {
            _ if datagram => self.accept_datagram(now, comm, param),
            Some(param) => self.send_rep(now, comm, param),
            None => self.confirm(comm),
        };
        if done.is_err() {
            // Nothing to refuse is no further error.
            let _ = self.refuse(now, comm, Reason::CONSUMER, Private::EMPTY);
        } else if param.is_some() {
            let id = self.id_mut(target)?;
            id.uid = uid;
            id.named = true;
        }
        done
    }

    fn send_rep(&mut self, now: Instant, comm: CommId, param: &CmParam) -> Result<(), CmError> {
        let private = Private::new(private_of(param, REP_PRIVATE)?);
        let talk = self.conversations.get(&comm).ok_or(CmError::Invalid)?;
        if talk.state != Talk::ReqReceived {
            return Err(CmError::Invalid);
        }
        let message = Message::Rep(Rep {
            local_comm: comm,
            remote_comm: talk.remote,
            qpn: param.qpn & BITS_24,
            ece_vendor: param.ece_vendor & BITS_24,
            ece_options: param.ece_options,
            // The program's queue pair may be in RTR already.
            psn: talk.rq_psn,
            responder_resources: param.responder_resources,
            initiator_depth: param.initiator_depth,
            target_ack_delay: TARGET_ACK_DELAY,
            flow_control: param.flow_control != 0,
            rnr_retry_count: param.rnr_retry_count.min(7),
            srq: param.srq != 0,
            ca_guid: self.config.node_guid,
            private,
            ..Rep::default()
        });
        self.change(comm, |talk| {
            talk.state = Talk::RepSent;
            talk.local_qpn = param.qpn & BITS_24;
            talk.responder_resources = param.responder_resources;
            talk.initiator_depth = param.initiator_depth;
        });
        self.send_until_answered(now, comm, message);
        Ok(())
    }

    fn confirm(&mut self, comm: CommId) -> Result<(), CmError> {
        let talk = self.conversations.get(&comm).ok_or(CmError::Invalid)?;
        if talk.state != Talk::RepReceived {
            return Err(CmError::Invalid);
        }
        self.settle(comm, Talk::Established);
        self.send_rtu(comm);
        Ok(())
    }

    pub(super) fn send_rtu(&mut self, comm: CommId) {
        let Some(talk) = self.conversations.get(&comm) else {
            return;
        };
        let (peer, remote_comm) = (talk.peer, talk.remote);
        let rtu = Rtu {
            local_comm: comm,
            remote_comm,
            private: Private::EMPTY,
        };
        self.send(peer, Message::Rtu(rtu));
    }

    /// Refuses a request, or an acceptance that was not confirmed yet. Reason 0
    /// is the program's own (28); the only other that is a program's to give is
    /// 35, so that none can pass for the policy's or the protocol's.
    ///
    /// # Errors
    /// [`CmError::Invalid`] for other reasons, if there is nothing to refuse (any
    /// more), or too much private data.
    pub fn reject(
        &mut self,
        now: Instant,
        target: Target,
        reason: u8,
        private: &[u8],
    ) -> Result<(), CmError> {
        let id = self.id(target)?;
        let datagram = id.qp_type == QpType::Ud;
        let comm = id.conversation.ok_or(CmError::Invalid)?;
        let most = if datagram {
            crate::message::SIDR_REP_PRIVATE
        } else {
            REJ_PRIVATE
        };
        if private.len() > most {
            return Err(CmError::Invalid);
        }
        let reason = match Reason(u16::from(reason)) {
            Reason(0) => Reason::CONSUMER,
            own @ (Reason::CONSUMER | Reason::VENDOR_OPTION) => own,
            _ => return Err(CmError::Invalid),
        };
        self.refuse(now, comm, reason, Private::new(private))
    }

    fn refuse(
        &mut self,
        now: Instant,
        comm: CommId,
        reason: Reason,
        private: Private,
    ) -> Result<(), CmError> {
        let talk = self.conversations.get(&comm).ok_or(CmError::Invalid)?;
        let answer = match talk.state {
            Talk::SidrReqReceived => self.refuse_service(comm, private),
            Talk::ReqReceived | Talk::RepReceived | Talk::RepSent => {
                self.send_rej(comm, reason, private)
            }
            _ => return Err(CmError::Invalid),
        };
        self.come_to_nothing(now, comm, answer);
        Ok(())
    }

    /// The peer confirmed, or the program saw data arrive.
    pub(super) fn established(&mut self, comm: CommId) {
        let Some(id) = self.conversations.get(&comm).map(|talk| talk.id) else {
            return;
        };
        self.settle(comm, Talk::Established);
        if let Some(id) = id {
            self.post(id, Queued::plain(Event::Established, 0));
        }
    }
}
