//! The active side: asks for a connection.

use super::Agent;
use super::datagram::MAX_SIDR_REQ;
use super::state::{
    ACK_TIMEOUT, BITS_24, Conversation, HOP_LIMIT, Phase, Queued, RESPONSE_CODE, RETRIES, Talk,
    Told,
};
use crate::address::{IpHeader, service_id};
use crate::error::CmError;
use crate::message::{
    CommId, Message, Path, Private, REJ_PRIVATE, REQ_PRIVATE, Req, SIDR_REP_PRIVATE,
};
use crate::reject::{Reason, SidrStatus};
use crate::types::{Event, Target};
use masq_spec::verbs::{CmParam, QpType};
use std::time::Instant;

/// Bytes of a program's private data in a REQ.
const MAX_REQ: usize = REQ_PRIVATE - crate::address::IP_HEADER;
/// LIDs mean nothing on Ethernet; this one is what Linux puts there.
const NO_LID: u16 = 0xffff;
/// The default partition.
pub(super) const PKEY: u16 = 0xffff;

/// The program's private data, if it is at most `most` bytes.
pub(super) fn private_of(param: &CmParam, most: usize) -> Result<&[u8], CmError> {
    let bytes = param.private_data.get(..usize::from(param.private_len));
    bytes
        .filter(|bytes| bytes.len() <= most)
        .ok_or(CmError::Invalid)
}

impl Agent {
    /// Asks the peer for a connection, or for the queue pair of a datagram
    /// service.
    ///
    /// # Errors
    /// [`CmError::Invalid`] unless the route is resolved, or if there is too much
    /// private data.
    pub fn connect(
        &mut self,
        now: Instant,
        target: Target,
        param: &CmParam,
    ) -> Result<(), CmError> {
        let id = self.id(target)?;
        if id.phase != Phase::RouteResolved {
            return Err(CmError::Invalid);
        }
        let datagram = id.qp_type == QpType::Ud;
        let private = private_of(param, if datagram { MAX_SIDR_REQ } else { MAX_REQ })?;
        let destination = id.destination.ok_or(CmError::Invalid)?;
        let header = IpHeader {
            source: id.source,
            destination: destination.ip(),
        };
        let talk = Conversation {
            id: Some(target.id),
            state: if datagram {
                Talk::SidrReqSent
            } else {
                Talk::ReqSent
            },
            remote: CommId(0),
            peer: id.peer.ok_or(CmError::Invalid)?,
            initiator: true,
            datagram,

            port: destination.port(),
            service: service_id(id.port_space, destination.port()),
            local_qpn: param.qpn & BITS_24,
            remote_qpn: 0,
            sq_psn: 0,
            rq_psn: 0,
            responder_resources: param.responder_resources,
            initiator_depth: param.initiator_depth,
            retry_count: param.retry_count.min(7),
            rnr_retry_count: param.rnr_retry_count.min(7),
            ack_timeout: ACK_TIMEOUT,
            mtu: self.config.mtu,
            deadline: None,
            give_up: None,
            pending: None,
        };
        let comm = self.new_comm();
        let message = if datagram {
            Self::sidr_req(comm, talk.service, &header, private)
        } else {
            let private = Private::new(&header.with::<REQ_PRIVATE>(private));
            self.req(target, comm, &talk, param, private)?
        };
        let mut talk = talk;
        if let Message::Req(req) = &message {
            talk.rq_psn = req.psn;
        }
        self.id_mut(target)?.phase = Phase::Connecting;
        self.insert_conversation(comm, talk);
        self.send_until_answered(now, comm, message);
        Ok(())
    }

    fn req(
        &mut self,
        target: Target,
        comm: CommId,
        talk: &Conversation,
        param: &CmParam,
        private: Private,
    ) -> Result<Message, CmError> {
        let psn = self.new_psn();
        let id = self.id(target)?;
        Ok(Message::Req(Box::new(Req {
            local_comm: comm,
            ece_vendor: param.ece_vendor & BITS_24,
            ece_options: param.ece_options,
            service_id: talk.service,
            ca_guid: self.config.node_guid,
            qpn: talk.local_qpn,
            responder_resources: talk.responder_resources,
            initiator_depth: talk.initiator_depth,
            remote_response_timeout: RESPONSE_CODE,
            transport: if id.qp_type == QpType::Uc { 1 } else { 0 },
            flow_control: param.flow_control != 0,
            psn,
            local_response_timeout: RESPONSE_CODE,
            retry_count: talk.retry_count,
            pkey: PKEY,
            mtu: talk.mtu,
            rnr_retry_count: talk.rnr_retry_count,
            max_cm_retries: RETRIES,
            srq: param.srq != 0,
            primary: Path {
                local_lid: NO_LID,
                remote_lid: NO_LID,
                local_gid: self.source_gid(id),
                remote_gid: id.dgid,
                traffic_class: id.tos,
                hop_limit: HOP_LIMIT,
                ack_timeout: id.ack_timeout.unwrap_or(ACK_TIMEOUT),
                ..Path::default()
            },
            private,
            ..Req::default()
        })))
    }

    /// Instead of [`Agent::connect`], when the policy says no: the id is told so,
    /// with a text that its program can show.
    ///
    /// # Errors
    /// [`CmError::Invalid`] unless the route is resolved.
    pub fn forbid(&mut self, target: Target, text: &str) -> Result<(), CmError> {
        let id = self.id_mut(target)?;
        if id.phase != Phase::RouteResolved {
            return Err(CmError::Invalid);
        }
        id.phase = Phase::Connecting;
        id.conversed = true;
        let datagram = id.qp_type == QpType::Ud;
        let (event, status, field) = if datagram {
            (
                Event::Unreachable,
                i32::from(SidrStatus::REJECTED.0),
                SIDR_REP_PRIVATE,
            )
        } else {
            (
                Event::Rejected,
                i32::from(Reason::UNSUPPORTED.0),
                REJ_PRIVATE,
            )
        };
        let mut len = text.len().min(field);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        let private = Private::new(text.as_bytes().get(..len).unwrap_or_default());
        let told = Told {
            private_len: field as u8,
            ..Told::default()
        };
        self.post(
            target.id,
            Queued {
                datagram,
                told,
                private,
                ..Queued::plain(event, status)
            },
        );
        Ok(())
    }
}
