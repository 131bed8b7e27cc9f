//! Messages of peers. Each is answered or dropped as IBA 12.9.8 says; none is
//! trusted: it counts only if it comes from the conversation's peer and names
//! both sides' communication ids.

use super::Agent;
use super::state::{
    BITS_24, Conversation, Id, MRA_CODE, Phase, Queued, RemoteKey, Talk, Told, code_time,
};
use crate::address::{IpHeader, gid_of, service_port};
use crate::message::{
    CommId, Dreq, Message, Mra, Private, REJ_PRIVATE, REP_PRIVATE, REQ_PRIVATE, Rej, Rep, Req, Rtu,
};
use crate::reject::{Answered, Reason};
use crate::types::{Event, PortSpace, Sender};
use masq_spec::verbs::QpType;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Bytes of private data that the event of a request shows.
const REQ_SHOWN: u8 = (REQ_PRIVATE - crate::address::IP_HEADER) as u8;

/// A request that somebody listens for.
pub(super) struct Arrival {
    pub(super) listener: u32,
    pub(super) qp_type: QpType,
    pub(super) port_space: PortSpace,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) private: Private,
}

/// Why a request is not taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NobodyListens,
    NoRoom,
}

impl Agent {
    /// A message of the endpoint `from`. At most `room` further ids may come into being by it; without
    /// room a request is refused (reason 3).
    pub fn receive<'a>(
        &mut self,
        now: Instant,
        from: impl Into<Sender<'a>>,
        message: Message,
        room: u64,
    ) {
        let sender = from.into();
        let from = sender.address;
        match message {
            Message::Req(req) => self.receive_req(&sender, &req, room),
            Message::Mra(mra) => self.receive_mra(now, from, &mra),
            Message::Rej(rej) => self.receive_rej(now, from, rej),
            Message::Rep(rep) => self.receive_rep(from, rep),
            Message::Rtu(rtu) => {
                let talk = self.find_both(from, rtu.remote_comm, rtu.local_comm);
                if talk.is_some_and(|talk| talk.state == Talk::RepSent) {
                    self.established(rtu.remote_comm);
                }
            }
            Message::Dreq(dreq) => self.receive_dreq(now, from, &dreq),
            Message::Drep(drep) => {
                let talk = self.find_both(from, drep.remote_comm, drep.local_comm);
                if talk.is_some_and(|talk| talk.state == Talk::DreqSent) {
                    self.disconnected(drep.remote_comm, 0);
                    self.rest(now, drep.remote_comm);
                }
            }
            Message::SidrReq(req) => self.receive_sidr_req(&sender, req, room),
            Message::SidrRep(rep) => self.receive_sidr_rep(from, rep),
        }
    }

    /// Who listens for a service. The IP header must tell the truth: the sender's
    /// address, and one of this endpoint's.
    pub(super) fn arrival(
        &self,
        from: &Sender<'_>,
        service: u64,
        private: &[u8],
        room: u64,
    ) -> Result<Arrival, Refusal> {
        let nobody = Refusal::NobodyListens;
        let (port_space, port) = service_port(service).ok_or(nobody)?;
        let (header, private) = IpHeader::split(private).ok_or(nobody)?;
        let (remote, local) = (header.source, header.destination);
        if !from.has(remote.ip()) || self.own(local) != Some(local) {
            return Err(nobody);
        }
        let listener = self.ports.listener(port_space, port, local).ok_or(nobody)?;
        let id = self.ids.get(&listener).ok_or(nobody)?;
        if room == 0 || id.backlog == 0 {
            return Err(Refusal::NoRoom);
        }
        Ok(Arrival {
            listener,
            qp_type: id.qp_type,
            port_space,
            local: SocketAddr::new(local, port),
            remote,
            private: Private::new(private),
        })
    }

    /// Takes a request on: a new id, and CONNECT_REQUEST for the listener.
    pub(super) fn arrive(&mut self, arrival: Arrival, talk: Conversation, told: Told, tos: u8) {
        let Some(listener) = self.ids.get_mut(&arrival.listener) else {
            return;
        };
        listener.backlog = listener.backlog.saturating_sub(1);
        let (uid, new) = (
            listener.uid,
            Id {
                channel: listener.channel,
                uid: 0,
                named: false,
                announced: false,
                port_space: arrival.port_space,
                qp_type: arrival.qp_type,
                phase: Phase::Connecting,
                holds_port: false,
                conversed: true,
                reuse: false,
                family_only: None,
                tos,
                ack_timeout: listener.ack_timeout,
                source: arrival.local,
                destination: Some(arrival.remote),
                peer: Some(talk.peer),
                dgid: gid_of(arrival.remote.ip()),
                reported: 0,
                backlog: 0,
                events: VecDeque::new(),
                conversation: None,
                groups: Vec::new(),
            },
        );
        let Ok(id) = self.insert_id(new) else { return };
        let comm = self.new_comm();
        self.insert_conversation(
            comm,
            Conversation {
                id: Some(id),
                ..talk
            },
        );
        self.queue(Queued {
            owner: arrival.listener,
            id,
            uid,
            datagram: arrival.qp_type == QpType::Ud,
            told,
            private: arrival.private,
            ..Queued::plain(Event::ConnectRequest, 0)
        });
    }

    fn receive_req(&mut self, sender: &Sender<'_>, req: &Req, room: u64) {
        let from = sender.address;
        let key = RemoteKey {
            peer: from,
            comm: req.local_comm,
            datagram: false,
        };
        if let Some(&comm) = self.by_remote.get(&key) {
            return self.req_again(from, comm);
        }
        let refuse = |agent: &mut Self, reason| {
            agent.refuse_unknown(from, CommId(0), req.local_comm, Answered::REQ, reason);
        };
        let arrival = match self.arrival(sender, req.service_id, req.private.bytes(), room) {
            Ok(arrival) => arrival,
            Err(Refusal::NobodyListens) => return refuse(self, Reason::INVALID_SERVICE_ID),
            Err(Refusal::NoRoom) => return refuse(self, Reason::NO_RESOURCES),
        };
        let transport = match req.transport {
            0 => Some(QpType::Rc),
            1 => Some(QpType::Uc),
            _ => None,
        };
        if transport != Some(arrival.qp_type) {
            return refuse(self, Reason::INVALID_TRANSPORT);
        }
        let mtu = if (1..=5).contains(&req.mtu) {
            req.mtu
        } else {
            self.config.mtu
        };
        let talk = Conversation {
            id: None,
            state: Talk::ReqReceived,
            remote: req.local_comm,
            peer: from,
            initiator: false,
            datagram: false,
            port: arrival.local.port(),
            service: req.service_id,
            local_qpn: 0,
            remote_qpn: req.qpn & BITS_24,
            sq_psn: req.psn & BITS_24,
            rq_psn: self.new_psn(),
            responder_resources: req.initiator_depth,
            initiator_depth: req.responder_resources,
            retry_count: req.retry_count.min(7),
            rnr_retry_count: req.rnr_retry_count.min(7),
            ack_timeout: req.primary.ack_timeout.min(31),
            mtu: mtu.min(self.config.mtu),
            deadline: None,
            give_up: None,
            pending: None,
        };
        let told = Told {
            qpn: talk.remote_qpn,
            qkey: 0,
            private_len: REQ_SHOWN,
            srq: req.srq,
            responder_resources: talk.responder_resources,
            initiator_depth: talk.initiator_depth,
            flow_control: req.flow_control,
            retry_count: talk.retry_count,
            rnr_retry_count: talk.rnr_retry_count,
            ece_vendor: req.ece_vendor,
            ece_options: req.ece_options,
        };
        self.arrive(arrival, talk, told, req.primary.traffic_class);
    }

    /// A REQ once more: its sender is asked for patience, or told again.
    fn req_again(&mut self, from: IpAddr, comm: CommId) {
        let Some(talk) = self.conversations.get(&comm) else {
            return;
        };
        let remote_comm = talk.remote;
        match (talk.state, talk.pending.as_deref()) {
            (Talk::ReqReceived, _) => self.send_mra(from, comm, remote_comm, Answered::REQ),
            (Talk::RepSent | Talk::Refused, Some(answer)) => {
                let answer = answer.clone();
                self.send(from, answer);
            }
            _ => {}
        }
    }

    fn send_mra(&mut self, to: IpAddr, local: CommId, remote: CommId, answered: Answered) {
        let mra = Mra {
            local_comm: local,
            remote_comm: remote,
            answered,
            service_timeout: MRA_CODE,
            private: Private::EMPTY,
        };
        self.send(to, Message::Mra(mra));
    }

    /// Refuses what belongs to no conversation.
    fn refuse_unknown(
        &mut self,
        to: IpAddr,
        local_comm: CommId,
        remote_comm: CommId,
        answered: Answered,
        reason: Reason,
    ) {
        let rej = Rej {
            local_comm,
            remote_comm,
            answered,
            reason,
            info: Private::EMPTY,
            info_len: 0,
            private: Private::EMPTY,
        };
        self.send(to, Message::Rej(rej));
    }

    fn receive_mra(&mut self, now: Instant, from: IpAddr, mra: &Mra) {
        let comm = mra.remote_comm;
        let Some(talk) = self.find(from, comm) else {
            return;
        };
        let expected = match talk.state {
            Talk::ReqSent => mra.answered == Answered::REQ,
            Talk::RepSent => mra.answered == Answered::REP && talk.remote == mra.local_comm,
            _ => false,
        };
        if expected {
            let patience = code_time(mra.service_timeout).max(talk.interval());
            self.change(comm, |talk| {
                talk.deadline = Some(now + patience).min(talk.give_up);
            });
        }
    }

    fn receive_rep(&mut self, from: IpAddr, rep: Rep) {
        let comm = rep.remote_comm;
        let state = self
            .find(from, comm)
            .map(|talk| (talk.state, talk.remote == rep.local_comm));
        let number = match state {
            Some((Talk::ReqSent, _)) => self.conversations.get(&comm).and_then(|talk| talk.id),
            Some((Talk::RepReceived, true)) => {
                return self.send_mra(from, comm, rep.local_comm, Answered::REP);
            }
            Some((Talk::Established, true)) => return self.send_rtu(comm),
            Some((_, true)) => return,
            Some((_, false)) | None => None,
        };
        let Some(number) = number else {
            return self.refuse_unknown(
                from,
                comm,
                rep.local_comm,
                Answered::REP,
                Reason::INVALID_COMM_ID,
            );
        };
        let told = Told {
            qpn: rep.qpn & BITS_24,
            qkey: 0,
            private_len: REP_PRIVATE as u8,
            srq: rep.srq,
            responder_resources: rep.initiator_depth,
            initiator_depth: rep.responder_resources,
            flow_control: rep.flow_control,
            retry_count: 0,
            rnr_retry_count: rep.rnr_retry_count.min(7),
            ece_vendor: rep.ece_vendor,
            ece_options: rep.ece_options,
        };
        self.settle(comm, Talk::RepReceived);
        self.change(comm, |talk| {
            talk.remote = rep.local_comm;
            talk.remote_qpn = told.qpn;
            talk.sq_psn = rep.psn & BITS_24;
            talk.responder_resources = told.responder_resources;
            talk.initiator_depth = told.initiator_depth;
            talk.rnr_retry_count = told.rnr_retry_count;
        });
        let event = Queued::plain(Event::ConnectResponse, 0);
        self.post(
            number,
            Queued {
                told,
                private: rep.private,
                ..event
            },
        );
    }

    fn receive_rej(&mut self, now: Instant, from: IpAddr, rej: Rej) {
        let comm = if rej.remote_comm.0 != 0 {
            rej.remote_comm
        } else {
            // Who gave up before it was answered does not know this side's id.
            let key = RemoteKey {
                peer: from,
                comm: rej.local_comm,
                datagram: false,
            };
            match self.by_remote.get(&key) {
                Some(&comm) if rej.reason == Reason::TIMEOUT => comm,
                _ => return,
            }
        };
        let Some(talk) = self.find(from, comm) else {
            return;
        };
        let both = rej.local_comm == talk.remote;
        match talk.state {
            Talk::ReqSent => self.rejected(now, comm, rej.reason, rej.private),
            Talk::ReqReceived | Talk::RepSent | Talk::RepReceived if both => {
                self.rejected(now, comm, rej.reason, rej.private);
            }
            // The peer gave up while its last message was on its way.
            Talk::Established | Talk::DreqSent | Talk::DreqReceived
                if both && rej.remote_comm.0 != 0 =>
            {
                self.disconnected(comm, 0);
                self.rest(now, comm);
            }
            _ => {}
        }
    }

    /// A conversation that was rejected ends, and the id is told.
    fn rejected(&mut self, now: Instant, comm: CommId, reason: Reason, private: Private) {
        self.tell_rejected(comm, reason, private);
        self.come_to_nothing(now, comm, None);
    }

    pub(super) fn tell_rejected(&mut self, comm: CommId, reason: Reason, private: Private) {
        if let Some(id) = self.conversations.get(&comm).and_then(|talk| talk.id) {
            let told = Told {
                private_len: REJ_PRIVATE as u8,
                ..Told::default()
            };
            let event = Queued::plain(Event::Rejected, i32::from(reason.0));
            self.post(
                id,
                Queued {
                    told,
                    private,
                    ..event
                },
            );
        }
    }

    fn receive_dreq(&mut self, now: Instant, from: IpAddr, dreq: &Dreq) {
        let comm = dreq.remote_comm;
        let Some(talk) = self.find_both(from, comm, dreq.local_comm) else {
            let drep = Rtu {
                local_comm: comm,
                remote_comm: dreq.local_comm,
                private: Private::EMPTY,
            };
            return self.send(from, Message::Drep(drep));
        };
        match talk.state {
            Talk::RepSent | Talk::RepReceived | Talk::Established => {
                self.settle(comm, Talk::DreqReceived);
                self.disconnected(comm, 0);
            }
            // Both want it: no program needs to be asked.
            Talk::DreqSent => {
                self.disconnected(comm, 0);
                self.send_drep(now, comm);
            }
            Talk::Timewait => {
                let drep = Rtu {
                    local_comm: comm,
                    remote_comm: dreq.local_comm,
                    private: Private::EMPTY,
                };
                self.send(from, Message::Drep(drep));
            }
            _ => {}
        }
    }
}
