//! Where each message keeps its fields (IBA 12.6 and 12.11).

use super::fields::Fields;
use crate::message::{
    ADDITIONAL_INFO, DREQ_PRIVATE, Dreq, MRA_PRIVATE, Message, Mra, Path, Private, REJ_PRIVATE,
    REP_PRIVATE, REQ_PRIVATE, RTU_PRIVATE, Rej, Rep, Req, Rtu, SIDR_REP_PRIVATE, SIDR_REQ_PRIVATE,
    SidrRep, SidrReq,
};
use crate::reject::{Answered, Reason, SidrStatus};

const REQ: u16 = 0x10;
const MRA: u16 = 0x11;
const REJ: u16 = 0x12;
const REP: u16 = 0x13;
const RTU: u16 = 0x14;
const DREQ: u16 = 0x15;
const DREP: u16 = 0x16;
const SIDR_REQ: u16 = 0x17;
const SIDR_REP: u16 = 0x18;

/// The message of an attribute, with nothing in it.
pub(super) fn empty(attribute: u16) -> Option<Message> {
    Some(match attribute {
        REQ => Message::Req(Box::default()),
        MRA => Message::Mra(Mra {
            local_comm: Default::default(),
            remote_comm: Default::default(),
            answered: Answered(0),
            service_timeout: 0,
            private: Private::EMPTY,
        }),
        REJ => Message::Rej(Rej {
            local_comm: Default::default(),
            remote_comm: Default::default(),
            answered: Answered(0),
            reason: Reason(0),
            info: Private::EMPTY,
            info_len: 0,
            private: Private::EMPTY,
        }),
        REP => Message::Rep(Rep::default()),
        RTU => Message::Rtu(Rtu::default()),
        DREQ => Message::Dreq(Dreq::default()),
        DREP => Message::Drep(Rtu::default()),
        SIDR_REQ => Message::SidrReq(SidrReq::default()),
        SIDR_REP => Message::SidrRep(SidrRep {
            request: Default::default(),
            status: SidrStatus(0),
            qpn: 0,
            service_id: 0,
            qkey: 0,
            info: Private::EMPTY,
            info_len: 0,
            ece_vendor: 0,
            ece_options: 0,
            private: Private::EMPTY,
        }),
        _ => return None,
    })
}

/// Reads or writes a message; answers its attribute and modifier.
pub(super) fn describe(message: &mut Message, body: &mut impl Fields) -> (u16, u32) {
    match message {
        Message::Req(req) => {
            self::req(req, body);
            (REQ, req.ece_options)
        }
        Message::Mra(mra) => {
            body.int(0, 0, 32, &mut mra.local_comm.0);
            body.int(4, 0, 32, &mut mra.remote_comm.0);
            body.int(8, 0, 2, &mut mra.answered.0);
            body.int(9, 0, 5, &mut mra.service_timeout);
            body.private(10, MRA_PRIVATE, &mut mra.private);
            (MRA, 0)
        }
        Message::Rej(rej) => {
            body.int(0, 0, 32, &mut rej.local_comm.0);
            body.int(4, 0, 32, &mut rej.remote_comm.0);
            body.int(8, 0, 2, &mut rej.answered.0);
            body.int(9, 0, 7, &mut rej.info_len);
            body.int(10, 0, 16, &mut rej.reason.0);
            body.private(12, ADDITIONAL_INFO, &mut rej.info);
            body.private(84, REJ_PRIVATE, &mut rej.private);
            (REJ, 0)
        }
        Message::Rep(rep) => {
            self::rep(rep, body);
            (REP, rep.ece_options)
        }
        Message::Rtu(rtu) => {
            self::rtu(rtu, body);
            (RTU, 0)
        }
        Message::Drep(drep) => {
            self::rtu(drep, body);
            (DREP, 0)
        }
        Message::Dreq(dreq) => {
            body.int(0, 0, 32, &mut dreq.local_comm.0);
            body.int(4, 0, 32, &mut dreq.remote_comm.0);
            body.int(8, 0, 24, &mut dreq.remote_qpn);
            body.private(12, DREQ_PRIVATE, &mut dreq.private);
            (DREQ, 0)
        }
        Message::SidrReq(req) => {
            body.int(0, 0, 32, &mut req.request.0);
            body.int(4, 0, 16, &mut req.pkey);
            body.int(8, 0, 64, &mut req.service_id);
            body.private(16, SIDR_REQ_PRIVATE, &mut req.private);
            (SIDR_REQ, 0)
        }
        Message::SidrRep(rep) => {
            self::sidr_rep(rep, body);
            (SIDR_REP, rep.ece_options)
        }
    }
}

/// The options of enhanced connection establishment travel in the header.
pub(super) fn set_modifier(message: &mut Message, modifier: u32) {
    match message {
        Message::Req(req) => req.ece_options = modifier,
        Message::Rep(rep) => rep.ece_options = modifier,
        Message::SidrRep(rep) => rep.ece_options = modifier,
        _ => {}
    }
}

fn req(req: &mut Req, body: &mut impl Fields) {
    body.int(0, 0, 32, &mut req.local_comm.0);
    body.int(5, 0, 24, &mut req.ece_vendor);
    body.int(8, 0, 64, &mut req.service_id);
    body.int(16, 0, 64, &mut req.ca_guid);
    body.int(28, 0, 32, &mut req.qkey);
    body.int(32, 0, 24, &mut req.qpn);
    body.int(35, 0, 8, &mut req.responder_resources);
    body.int(36, 0, 24, &mut req.local_eecn);
    body.int(39, 0, 8, &mut req.initiator_depth);
    body.int(40, 0, 24, &mut req.remote_eecn);
    body.int(43, 0, 5, &mut req.remote_response_timeout);
    body.int(43, 5, 2, &mut req.transport);
    body.flag(43, 7, &mut req.flow_control);
    body.int(44, 0, 24, &mut req.psn);
    body.int(47, 0, 5, &mut req.local_response_timeout);
    body.int(47, 5, 3, &mut req.retry_count);
    body.int(48, 0, 16, &mut req.pkey);
    body.int(50, 0, 4, &mut req.mtu);
    body.flag(50, 4, &mut req.rdc_exists);
    body.int(50, 5, 3, &mut req.rnr_retry_count);
    body.int(51, 0, 4, &mut req.max_cm_retries);
    body.flag(51, 4, &mut req.srq);
    body.int(51, 5, 3, &mut req.extended_transport);
    path(&mut req.primary, 52, body);
    path(&mut req.alternate, 96, body);
    body.private(140, REQ_PRIVATE, &mut req.private);
}

fn path(path: &mut Path, at: usize, body: &mut impl Fields) {
    body.int(at, 0, 16, &mut path.local_lid);
    body.int(at + 2, 0, 16, &mut path.remote_lid);
    body.bytes(at + 4, &mut path.local_gid);
    body.bytes(at + 20, &mut path.remote_gid);
    body.int(at + 36, 0, 20, &mut path.flow_label);
    body.int(at + 39, 2, 6, &mut path.packet_rate);
    body.int(at + 40, 0, 8, &mut path.traffic_class);
    body.int(at + 41, 0, 8, &mut path.hop_limit);
    body.int(at + 42, 0, 4, &mut path.sl);
    body.flag(at + 42, 4, &mut path.subnet_local);
    body.int(at + 43, 0, 5, &mut path.ack_timeout);
}

fn rep(rep: &mut Rep, body: &mut impl Fields) {
    body.int(0, 0, 32, &mut rep.local_comm.0);
    body.int(4, 0, 32, &mut rep.remote_comm.0);
    body.int(8, 0, 32, &mut rep.qkey);
    body.int(12, 0, 24, &mut rep.qpn);
    body.int(16, 0, 24, &mut rep.local_eecn);
    body.int(20, 0, 24, &mut rep.psn);
    // The vendor lies in the bytes that three numbers of 24 bits leave free.
    let [_, mut high, mut middle, mut low] = rep.ece_vendor.to_be_bytes();
    body.int(15, 0, 8, &mut high);
    body.int(19, 0, 8, &mut middle);
    body.int(23, 0, 8, &mut low);
    rep.ece_vendor = u32::from_be_bytes([0, high, middle, low]);
    body.int(24, 0, 8, &mut rep.responder_resources);
    body.int(25, 0, 8, &mut rep.initiator_depth);
    body.int(26, 0, 5, &mut rep.target_ack_delay);
    body.int(26, 5, 2, &mut rep.failover);
    body.flag(26, 7, &mut rep.flow_control);
    body.int(27, 0, 3, &mut rep.rnr_retry_count);
    body.flag(27, 3, &mut rep.srq);
    body.int(28, 0, 64, &mut rep.ca_guid);
    body.private(36, REP_PRIVATE, &mut rep.private);
}

fn rtu(rtu: &mut Rtu, body: &mut impl Fields) {
    body.int(0, 0, 32, &mut rtu.local_comm.0);
    body.int(4, 0, 32, &mut rtu.remote_comm.0);
    body.private(8, RTU_PRIVATE, &mut rtu.private);
}

fn sidr_rep(rep: &mut SidrRep, body: &mut impl Fields) {
    body.int(0, 0, 32, &mut rep.request.0);
    body.int(4, 0, 8, &mut rep.status.0);
    body.int(5, 0, 8, &mut rep.info_len);
    body.int(8, 0, 24, &mut rep.qpn);
    // As in REP: the vendor fills what is left free.
    let [_, mut high, mut middle, mut low] = rep.ece_vendor.to_be_bytes();
    body.int(6, 0, 8, &mut high);
    body.int(7, 0, 8, &mut middle);
    body.int(11, 0, 8, &mut low);
    rep.ece_vendor = u32::from_be_bytes([0, high, middle, low]);
    body.int(12, 0, 64, &mut rep.service_id);
    body.int(20, 0, 32, &mut rep.qkey);
    body.private(24, ADDITIONAL_INFO, &mut rep.info);
    body.private(96, SIDR_REP_PRIVATE, &mut rep.private);
}
