//! Datagram services: SIDR_REQ and SIDR_REP instead of a connection (IBA 12.11).

use super::Agent;
use super::attr::PORT;
use super::connect::{PKEY, private_of};
use super::receive::Refusal;
use super::state::{
    BITS_24, Conversation, DEFAULT_QKEY, HOP_LIMIT, Id, PATIENCE, Queued, Talk, Told,
};
use crate::address::{IP_HEADER, IpHeader};
use crate::error::CmError;
use crate::message::{
    CommId, Message, Private, SIDR_REP_PRIVATE, SIDR_REQ_PRIVATE, SidrRep, SidrReq,
};
use crate::reject::SidrStatus;
use crate::types::{Event, Sender};
use masq_spec::verbs::{AhAttr, CmParam, Gid, QpType};
use std::net::IpAddr;
use std::time::Instant;

/// Bytes of a program's private data in a SIDR_REQ.
pub(super) const MAX_SIDR_REQ: usize = SIDR_REQ_PRIVATE - IP_HEADER;

impl Agent {
    pub(super) fn sidr_req(
        comm: CommId,
        service_id: u64,
        header: &IpHeader,
        private: &[u8],
    ) -> Message {
        let private = Private::new(&header.with::<SIDR_REQ_PRIVATE>(private));
        Message::SidrReq(SidrReq {
            request: comm,
            pkey: PKEY,
            service_id,
            private,
        })
    }

    fn sidr_rep(request: CommId, service_id: u64, status: SidrStatus) -> SidrRep {
        SidrRep {
            request,
            status,
            qpn: 0,
            service_id,
            qkey: 0,
            info: Private::EMPTY,
            info_len: 0,
            ece_vendor: 0,
            ece_options: 0,
            private: Private::EMPTY,
        }
    }

    /// Refuses a request that was never taken on.
    pub(super) fn refuse_request(&mut self, to: IpAddr, req: &SidrReq, status: SidrStatus) {
        let rep = Self::sidr_rep(req.request, req.service_id, status);
        self.send(to, Message::SidrRep(rep));
    }

    /// Refuses a request on behalf of its id.
    pub(super) fn refuse_service(&mut self, comm: CommId, private: Private) -> Option<Message> {
        let talk = self.conversations.get(&comm)?;
        let (to, remote, service) = (talk.peer, talk.remote, talk.service);
        let rep = SidrRep {
            private,
            ..Self::sidr_rep(remote, service, SidrStatus::REJECTED)
        };
        self.send(to, Message::SidrRep(rep.clone()));
        Some(Message::SidrRep(rep))
    }

    /// Names the queue pair of a service. The answer is kept for as long as the
    /// peer may ask again.
    pub(super) fn accept_datagram(
        &mut self,
        now: Instant,
        comm: CommId,
        param: Option<&CmParam>,
    ) -> Result<(), CmError> {
        let talk = self.conversations.get(&comm).ok_or(CmError::Invalid)?;
        if talk.state != Talk::SidrReqReceived {
            return Err(CmError::Invalid);
        }
        let mut rep = Self::sidr_rep(talk.remote, talk.service, SidrStatus::VALID);
        rep.qkey = DEFAULT_QKEY;
        if let Some(param) = param {
            rep.private = Private::new(private_of(param, SIDR_REP_PRIVATE)?);
            rep.qpn = param.qpn & BITS_24;
            rep.ece_vendor = param.ece_vendor & BITS_24;
            rep.ece_options = param.ece_options;
            if param.qkey != 0 {
                rep.qkey = param.qkey;
            }
        }
        let (to, qpn) = (talk.peer, rep.qpn);
        let message = Message::SidrRep(rep);
        let copy = Box::new(message.clone());
        self.change(comm, |talk| {
            talk.state = Talk::Resolved;
            talk.local_qpn = qpn;
            talk.deadline = Some(now + PATIENCE);
            talk.pending = Some(copy);
        });
        self.send(to, message);
        Ok(())
    }

    /// The peer named its queue pair, or refused.
    pub(super) fn receive_sidr_rep(&mut self, from: IpAddr, rep: SidrRep) {
        let Some(talk) = self.find(from, rep.request) else {
            return;
        };
        if talk.state != Talk::SidrReqSent {
            return;
        }
        let Some(number) = talk.id else { return };
        if rep.status != SidrStatus::VALID {
            return self.unreachable(rep.request, i32::from(rep.status.0), rep.private);
        }
        let Some(id) = self.ids.get(&number) else {
            return;
        };
        let ah = self.path_to(id, id.dgid);
        self.change(rep.request, |talk| talk.remote_qpn = rep.qpn & BITS_24);
        self.settle(rep.request, Talk::Resolved);
        let told = Told {
            qpn: rep.qpn & BITS_24,
            qkey: rep.qkey,
            private_len: SIDR_REP_PRIVATE as u8,
            ece_vendor: rep.ece_vendor,
            ece_options: rep.ece_options,
            ..Told::default()
        };
        self.post(
            number,
            Queued {
                datagram: true,
                told,
                private: rep.private,
                ah: Some(Box::new(ah)),
                ..Queued::plain(Event::Established, 0)
            },
        );
    }

    /// A service was refused: its conversation ends and the id is told.
    pub(super) fn unreachable(&mut self, comm: CommId, status: i32, private: Private) {
        let id = self.conversations.get(&comm).and_then(|talk| talk.id);
        self.remove_conversation(comm);
        if let Some(id) = id {
            let told = Told {
                private_len: SIDR_REP_PRIVATE as u8,
                ..Told::default()
            };
            let event = Queued::plain(Event::Unreachable, status);
            self.post(
                id,
                Queued {
                    datagram: true,
                    told,
                    private,
                    ..event
                },
            );
        }
    }

    /// A request for a service: a new id, unless nobody listens.
    pub(super) fn receive_sidr_req(&mut self, sender: &Sender<'_>, req: SidrReq, room: u64) {
        let from = sender.address;
        let key = super::RemoteKey {
            peer: from,
            comm: req.request,
            datagram: true,
        };
        if let Some(&comm) = self.by_remote.get(&key) {
            // Asked before: answered again, if it was answered.
            let answer = self
                .conversations
                .get(&comm)
                .and_then(|talk| talk.pending.as_deref());
            if let Some(answer) = answer.cloned() {
                self.send(from, answer);
            }
            return;
        }
        let arrival = match self.arrival(sender, req.service_id, req.private.bytes(), room) {
            Ok(arrival) if arrival.qp_type == QpType::Ud => arrival,
            Ok(_) | Err(Refusal::NobodyListens) => {
                return self.refuse_request(from, &req, SidrStatus::UNSUPPORTED);
            }
            Err(Refusal::NoRoom) => return self.refuse_request(from, &req, SidrStatus::NO_QP),
        };
        let talk = Self::service_conversation(from, arrival.local.port(), &req);
        let told = Told {
            private_len: MAX_SIDR_REQ as u8,
            ..Told::default()
        };
        self.arrive(arrival, talk, told, 0);
    }

    /// The address handle of a path.
    pub(super) fn path_to(&self, id: &Id, dgid: Gid) -> AhAttr {
        AhAttr {
            dgid,
            sgid_index: self.sgid_index(id.source.ip()),
            hop_limit: HOP_LIMIT,
            traffic_class: id.tos,
            is_global: 1,
            port_num: PORT,
            ..AhAttr::default()
        }
    }

    fn service_conversation(from: IpAddr, port: u16, req: &SidrReq) -> Conversation {
        Conversation {
            id: None,
            state: Talk::SidrReqReceived,
            remote: req.request,
            peer: from,
            initiator: false,
            datagram: true,

            port,
            service: req.service_id,
            local_qpn: 0,
            remote_qpn: 0,
            sq_psn: 0,
            rq_psn: 0,
            responder_resources: 0,
            initiator_depth: 0,
            retry_count: 0,
            rnr_retry_count: 0,
            ack_timeout: 0,
            mtu: 0,
            deadline: None,
            give_up: None,
            pending: None,
        }
    }
}
