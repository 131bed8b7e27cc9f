//! Packets that arrived: whose they are, and what follows from them.

use super::drive::has_complete;
use super::inbox::Inbox;
use super::land::{Home, Reach};
use super::pending::Pending;
use super::senders::Senders;
use super::{Link, Wire, WireCounters};
use crate::engine::Engine;
use crate::engine::objects::ReceiveName;
use masq_connected::{Arrival, Fate};
use masq_port::Incoming;
use masq_spec::event::AsyncEvent;
use masq_spec::queue::{Cqe, WcFlags, WcOpcode, WcStatus};
use masq_spec::verbs::{QpType, State};
use masq_transport::can_receive;
use masq_wire::{Ecn, Extended, Opcode, Qpn, Service};

/// What packets are judged with, besides the engine.
pub(super) struct Desk<'a> {
    pub(super) senders: &'a mut Senders,
    pub(super) inbox: &'a Inbox,
    pub(super) counters: &'a mut WireCounters,
}

impl<'a> Desk<'a> {
    pub(super) fn of(wire: &'a mut Wire) -> Self {
        Self {
            senders: &mut wire.senders,
            inbox: &wire.inbox,
            counters: &mut wire.counters,
        }
    }
}

impl Engine {
    /// A packet arrived.
    pub(super) fn arrived(&mut self, desk: &mut Desk<'_>, incoming: &Incoming<'_>) {
        let qpn = incoming.packet.bth().dest_qpn();
        if incoming.packet.traits().service == Service::Ud {
            return match qpn {
                Qpn::GSI => super::datagram::management(desk, incoming),
                _ => self.datagram_in(desk, incoming),
            };
        }
        let q = self.qpns.get(&qpn.get()).copied();
        let link = q.and_then(|q| self.qps.get_mut(q)?.link.take());
        let (Some(q), Some(mut link)) = (q, link) else {
            desk.counters.unknown_qp += 1;
            return;
        };
        if link.path.to != incoming.flow.addresses.src() {
            desk.counters.wrong_host += 1;
        } else if !link.partition.matches(incoming.packet.bth().pkey()) {
            desk.counters.wrong_partition += 1;
        } else {
            if self.taps.is_some() {
                self.show_arrival(q, incoming);
            }
            self.matched(q, &mut link, desk, incoming);
        }
        self.put_back(q, link);
    }

    /// A packet is of the connection of its queue pair.
    fn matched(&mut self, q: usize, link: &mut Link, desk: &mut Desk<'_>, incoming: &Incoming<'_>) {
        if link.pending.is_some() || !link.backlog.is_empty() {
            if !link.backlog.push(incoming) {
                desk.counters.no_room += 1;
            }
        } else {
            self.connected_in(q, link, desk, incoming);
            self.enqueue(q);
        }
    }

    /// A packet of the peer.
    pub(super) fn connected_in(
        &mut self,
        q: usize,
        link: &mut Link,
        desk: &mut Desk<'_>,
        incoming: &Incoming<'_>,
    ) {
        let packet = &incoming.packet;
        let (headers, payload) = (packet.headers(), packet.payload());
        if headers.bth.opcode == Opcode::Cnp {
            if let Some(requester) = &mut link.requester {
                requester.congestion();
            }
            return;
        }
        if incoming.traffic_class.ecn() == Ecn::Congested {
            link.responder.congestion(self.clock.now());
        }
        let is_request = headers.bth.opcode.is_request();
        // What the peer sends may answer what it acknowledged before, and programs that
        // take turns count on being told in that order.
        if is_request && link.requester.as_ref().is_some_and(has_complete) {
            self.complete_requests(q, link);
        }
        let Some(state) = self.qps.get(q).map(|qp| qp.state) else {
            return;
        };
        let mut job = None;
        let fate = if is_request {
            if !can_receive(state) && state != State::Err {
                return;
            }
            let mut reach = Reach {
                engine: self,
                q,
                payload,
                receive: &mut link.receive,
                job: &mut job,
            };
            let arrival = link.responder.handle(&headers, payload.len(), &mut reach);
            if let Some(job) = job {
                let is_atomic = matches!(headers.extended, Extended::Atomic(_));
                link.pending = Some(match is_atomic {
                    true => Pending::atomic(job),
                    false => Pending::request(job, headers.bth.psn, arrival),
                });
            } else {
                self.concluded(q, link, &arrival);
            }
            arrival.fate
        } else {
            let now = self.clock.now();
            let Some(requester) = &mut link.requester else {
                return;
            };
            let mut home = Home {
                engine: self,
                q,
                payload,
                posted: &link.posted,
                first: link.first,
                job: &mut job,
            };
            let fate = requester.handle(&headers, payload.len(), now, &mut home);
            link.pending = job.map(Pending::answer);
            fate
        };
        if fate == Fate::Dropped {
            desk.counters.senseless += 1;
        }
    }

    /// What follows from a packet that the responder took or refused.
    pub(super) fn concluded(&mut self, q: usize, link: &mut Link, arrival: &Arrival) {
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        let (session, handle) = (qp.session, qp.handle);
        let comes_to_life = arrival.established && qp.state == State::Rtr && !qp.established;
        qp.established |= arrival.established;
        if let Some(delivery) = arrival.delivery {
            qp.counters.rx_messages += 1;
            qp.counters.rx_bytes += u64::from(delivery.length);
            if delivery.receive {
                let mut flags = WcFlags::empty();
                flags.set(WcFlags::WITH_IMM, delivery.imm.is_some());
                flags.set(WcFlags::WITH_INV, delivery.invalidated.is_some());
                let imm = delivery.imm.map(|imm| u32::from_ne_bytes(imm.0));
                let opcode = match delivery.write {
                    true => WcOpcode::RecvRdmaWithImm,
                    false => WcOpcode::Recv,
                };
                let cqe = Cqe {
                    status: WcStatus::Success as u8,
                    opcode: opcode as u8,
                    flags: flags.bits(),
                    wr_id: link.receive.name.wr_id,
                    index: link.receive.name.index,
                    byte_len: delivery.length,
                    imm_data: imm.or(delivery.invalidated.map(|k| k.0)).unwrap_or(0),
                    qp_num: qp.qpn,
                    src_qp: qp.attr.dest_qp_num,
                    ..Cqe::default()
                };
                self.receive_complete(q, cqe, delivery.solicited);
            }
        }
        if comes_to_life {
            self.raise(session, AsyncEvent::CommEst, handle);
        }
        if let Some(failure) = arrival.failure {
            // Without a status the responder keeps the receive for the next
            // message.
            let receive = failure.receive.map(|_| link.receive);
            self.responder_fault(q, receive.as_ref(), failure.fault);
        }
        let is_lost = matches!(
            arrival.fate,
            Fate::NotReady | Fate::OutOfOrder | Fate::Faulty
        );
        if is_lost && self.is_unreliable(q) {
            self.count_dropped(q);
        }
    }

    fn is_unreliable(&self, q: usize) -> bool {
        self.qps.get(q).is_some_and(|qp| qp.qp_type == QpType::Uc)
    }

    /// Completes a receive.
    pub(super) fn receive_complete(&mut self, q: usize, cqe: Cqe, solicited: bool) {
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        if qp.given_back(ReceiveName::of(&cqe)) {
            let cq = qp.recv_cq;
            self.push_cqe(cq, cqe, solicited);
        }
    }
}
