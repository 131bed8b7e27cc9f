//! Queue pairs for a client: enough of the data path to be killed in it.

use crate::Client;
use crate::client::Reply;
use masq_spec::command::{Opcode, Status};
use masq_spec::doorbell::{ARMED, BITMAP, SUMMARY};
use masq_spec::queue::{Cqe, RecvWqe, SendFlags, SendOpcode, SendWqe, Sge, ring_len, stamp};
use masq_spec::verbs::{
    Access, AhAttr, CreateCq, CreateQp, Created, Gid, ModifyQp, MrCreated, NO_EVENT_QUEUE, QpAttr,
    QpCaps, QpCreated, QpMask, RegMr, Ring, Segment, SegmentKind, State,
};
use std::sync::atomic::Ordering;
use zerocopy::{FromBytes as _, IntoBytes as _};

/// The GID of an IPv4 address.
pub fn v4(address: [u8; 4]) -> Gid {
    let mut gid = [0; 16];
    gid[10..12].copy_from_slice(&[0xff, 0xff]);
    gid[12..].copy_from_slice(&address);
    gid
}

/// A ring.
pub fn ring_at(addr: u64, slots: u32, stride: u32) -> Ring {
    Ring {
        addr,
        slots,
        stride,
    }
}

/// A CQ without channel.
pub fn cq_request(ring: Ring, cqe: u32) -> CreateCq {
    CreateCq {
        ring,
        cqe,
        event_queue: NO_EVENT_QUEUE,
        comp_vector: 0,
        flags: 0,
    }
}

const SLOTS: u32 = 64;
const SEND_STRIDE: u32 = 128;
const RECV_STRIDE: u32 = 64;

/// A PD, a CQ, a QP and their rings.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// Protection domain.
    pub pd: u32,
    /// Completion queue.
    pub cq: u32,
    /// Queue pair.
    pub qp: u32,
    /// Its number.
    pub qpn: u32,
    slot: u32,
    sq: u64,
    rq: u64,
    cq_ring: u64,
    sent: u32,
    received: u32,
    polled: u32,
}

impl Client {
    /// A protection domain.
    pub fn alloc_pd(&mut self) -> u32 {
        created(&self.call(Opcode::AllocPd, &[]))
    }

    /// Asks for a queue pair of type `qp_type` on a PD and CQ.
    pub fn try_create_qp(&mut self, pd: u32, cq: u32, qp_type: u32) -> (Reply, u64, u64) {
        let sq = self.alloc(ring_len(SLOTS, SEND_STRIDE));
        let rq = self.alloc(ring_len(SLOTS, RECV_STRIDE));
        let request = qp_request(pd, cq, qp_type, sq, rq);
        (self.call(Opcode::CreateQp, request.as_bytes()), sq, rq)
    }

    /// A PD, a CQ and a queue pair.
    pub fn endpoint(&mut self, qp_type: u32) -> Endpoint {
        let pd = self.alloc_pd();
        let cq_ring = self.alloc(ring_len(SLOTS, 64));
        let request = cq_request(ring_at(cq_ring, SLOTS, 64), SLOTS);
        let cq = created(&self.call(Opcode::CreateCq, request.as_bytes()));
        let ((status, body), sq, rq) = self.try_create_qp(pd, cq, qp_type);
        assert_eq!(status, Status::Ok, "CREATE_QP");
        let made = QpCreated::read_from_bytes(&body).expect("a QpCreated");
        Endpoint {
            pd,
            cq,
            qp: made.handle,
            qpn: made.qpn,
            slot: made.doorbell,
            sq,
            rq,
            cq_ring,
            sent: 0,
            received: 0,
            polled: 0,
        }
    }

    /// Modifies a queue pair.
    pub fn modify(&mut self, qp: u32, mask: QpMask, attr: QpAttr) -> Status {
        let request = ModifyQp {
            handle: qp,
            mask: mask.bits(),
            attr,
        };
        self.call(Opcode::ModifyQp, request.as_bytes()).0
    }

    /// INIT.
    pub fn init(&mut self, qp: u32) -> Status {
        let attr = QpAttr {
            qp_state: State::Init as u32,
            port_num: 1,
            qp_access_flags: (Access::REMOTE_WRITE | Access::REMOTE_READ).bits(),
            ..Default::default()
        };
        let mask = QpMask::STATE | QpMask::PKEY_INDEX | QpMask::PORT | QpMask::ACCESS_FLAGS;
        self.modify(qp, mask, attr)
    }

    /// RTR towards a queue pair of an address.
    pub fn rtr(&mut self, qp: u32, to: Gid, qpn: u32) -> Status {
        let mask = QpMask::STATE
            | QpMask::AV
            | QpMask::PATH_MTU
            | QpMask::DEST_QPN
            | QpMask::RQ_PSN
            | QpMask::MAX_DEST_RD_ATOMIC
            | QpMask::MIN_RNR_TIMER;
        self.modify(qp, mask, rtr_attr(to, qpn))
    }

    /// RTR of a UC queue pair.
    pub fn rtr_uc(&mut self, qp: u32, to: Gid, qpn: u32) -> Status {
        let mask =
            QpMask::STATE | QpMask::AV | QpMask::PATH_MTU | QpMask::DEST_QPN | QpMask::RQ_PSN;
        self.modify(qp, mask, rtr_attr(to, qpn))
    }

    /// RTS.
    pub fn rts(&mut self, qp: u32) -> Status {
        let attr = QpAttr {
            qp_state: State::Rts as u32,
            timeout: 8,
            retry_cnt: 3,
            rnr_retry: 7,
            max_rd_atomic: 1,
            ..Default::default()
        };
        let mask = QpMask::STATE
            | QpMask::SQ_PSN
            | QpMask::TIMEOUT
            | QpMask::RETRY_CNT
            | QpMask::RNR_RETRY
            | QpMask::MAX_QP_RD_ATOMIC;
        self.modify(qp, mask, attr)
    }

    /// INIT, RTR, RTS.
    pub fn connect(&mut self, endpoint: &Endpoint, to: Gid, qpn: u32) {
        assert_eq!(self.init(endpoint.qp), Status::Ok, "INIT");
        assert_eq!(self.rtr(endpoint.qp, to, qpn), Status::Ok, "RTR");
        assert_eq!(self.rts(endpoint.qp), Status::Ok, "RTS");
    }

    /// Asks for a memory region.
    pub fn try_register(&mut self, pd: u32, addr: u64, len: u64, kind: SegmentKind) -> Reply {
        self.call(Opcode::RegMr, &reg_request(pd, addr, len, kind))
    }

    /// As [`Self::try_register`], without waiting for the answer.
    pub fn begin_register(&mut self, pd: u32, addr: u64, len: u64) {
        let body = reg_request(pd, addr, len, SegmentKind::Window);
        self.begin(Opcode::RegMr, &body);
    }

    /// A memory region in the shared file.
    pub fn register(&mut self, pd: u32, addr: u64, len: u64) -> MrCreated {
        let (status, body) = self.try_register(pd, addr, len, SegmentKind::Window);
        assert_eq!(status, Status::Ok, "REG_MR");
        MrCreated::read_from_bytes(&body).expect("an MrCreated")
    }

    /// Posts a send and rings.
    pub fn post_send(&mut self, endpoint: &mut Endpoint, wr_id: u64, sge: Sge) {
        self.post(endpoint, SendOpcode::Send, wr_id, sge, 0, 0);
    }

    /// Posts a request and rings.
    pub fn post(
        &mut self,
        endpoint: &mut Endpoint,
        opcode: SendOpcode,
        wr_id: u64,
        sge: Sge,
        remote_addr: u64,
        rkey: u32,
    ) {
        let wqe = SendWqe {
            opcode: opcode as u8,
            flags: SendFlags::SIGNALED.bits(),
            num_sge: 1,
            wr_id,
            remote_addr,
            rkey,
            ..Default::default()
        };
        let at = endpoint.sq + 64 + u64::from(endpoint.sent % SLOTS * SEND_STRIDE);
        self.memory.write(at + 4, &wqe.as_bytes()[4..]);
        self.memory.write(at + 64, sge.as_bytes());
        self.memory
            .u32(at)
            .store(stamp(endpoint.sent), Ordering::Release);
        endpoint.sent = endpoint.sent.wrapping_add(1);
        self.ring(endpoint.slot);
    }

    /// Rings a doorbell slot.
    pub fn ring(&self, slot: u32) {
        let page = self.doorbell.as_ref().expect("a doorbell page");
        let word = u64::from(slot / 64);
        page.u64(BITMAP as u64 + word * 8)
            .fetch_or(1 << (slot % 64), Ordering::SeqCst);
        page.u64(SUMMARY as u64 + word / 64 * 8)
            .fetch_or(1 << (word % 64), Ordering::SeqCst);
        if page.u32(ARMED as u64).load(Ordering::SeqCst) != 0 {
            let _ = rustix::io::write(&self.doorbell_kick, &1u64.to_ne_bytes());
        }
    }

    /// Posts a receive.
    pub fn post_recv(&mut self, endpoint: &mut Endpoint, wr_id: u64, sge: Sge) {
        let wqe = RecvWqe {
            stamp: 0,
            num_sge: 1,
            wr_id,
        };
        let at = endpoint.rq + 64 + u64::from(endpoint.received % SLOTS * RECV_STRIDE);
        self.memory.write(at + 4, &wqe.as_bytes()[4..]);
        self.memory.write(at + 16, sge.as_bytes());
        self.memory
            .u32(at)
            .store(stamp(endpoint.received), Ordering::Release);
        endpoint.received = endpoint.received.wrapping_add(1);
    }

    /// The next completion, if it comes.
    pub fn poll(&mut self, endpoint: &mut Endpoint) -> Option<Cqe> {
        let at = endpoint.cq_ring + 64 + u64::from(endpoint.polled % SLOTS * 64);
        let cell = self.memory.u32(at);
        if !crate::eventually(|| cell.load(Ordering::Acquire) == stamp(endpoint.polled)) {
            return None;
        }
        let cqe = Cqe::read_from_bytes(&self.memory.read(at, 64)).ok();
        endpoint.polled = endpoint.polled.wrapping_add(1);
        self.memory
            .u32(endpoint.cq_ring)
            .store(endpoint.polled, Ordering::Release);
        cqe
    }
}

/// A request for a queue pair with rings at `sq` and `rq`.
pub(crate) fn qp_request(pd: u32, cq: u32, qp_type: u32, sq: u64, rq: u64) -> CreateQp {
    CreateQp {
        pd,
        qp_type,
        send_cq: cq,
        recv_cq: cq,
        srq: 0,
        sq_sig_all: 0,
        caps: QpCaps {
            max_send_wr: SLOTS,
            max_recv_wr: SLOTS,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: 0,
            reserved: 0,
        },
        sq: ring_at(sq, SLOTS, SEND_STRIDE),
        rq: ring_at(rq, SLOTS, RECV_STRIDE),
    }
}

fn created((status, body): &Reply) -> u32 {
    assert_eq!(*status, Status::Ok, "the object was not made");
    Created::read_from_bytes(body).expect("a Created").handle
}

fn rtr_attr(to: Gid, qpn: u32) -> QpAttr {
    QpAttr {
        qp_state: State::Rtr as u32,
        path_mtu: 3,
        dest_qp_num: qpn,
        max_dest_rd_atomic: 1,
        min_rnr_timer: 12,
        ah: AhAttr {
            dgid: to,
            sgid_index: 3,
            hop_limit: 64,
            is_global: 1,
            port_num: 1,
            ..Default::default()
        },
        ..Default::default()
    }
}

fn reg_request(pd: u32, addr: u64, len: u64, kind: SegmentKind) -> Vec<u8> {
    let reg = RegMr {
        pd,
        access: (Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ).bits(),
        addr,
        len,
        iova: addr,
        segments: 1,
        reserved: 0,
    };
    let segment = Segment {
        addr,
        len,
        at: addr,
        kind: kind as u32,
        reserved: 0,
    };
    [reg.as_bytes(), segment.as_bytes()].concat()
}
