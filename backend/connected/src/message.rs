//! The packets of one message, for whoever shows what peers of one host say to
//! each other without any.

use crate::Request;
use crate::request::Slot;
use crate::sequence::Seq;
use masq_spec::verbs::QpType;
use masq_transport::Kind;
use masq_wire::{Aeth, Bth, Extended, Headers, Msn, Mtu, Opcode, Psn, Qpn};

/// A message as a requester would cut it.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    slot: Slot,
    psn: Psn,
    mtu: Mtu,
    unreliable: bool,
    to: Qpn,
}

impl Message {
    /// `psn` is that of its first packet, `to` the responder's number.
    pub fn new(request: Request, qp_type: QpType, psn: Psn, mtu: Mtu, to: Qpn) -> Self {
        Self {
            slot: Slot::new(request, Seq::first(psn), mtu, Msn::new(0)),
            psn,
            mtu,
            unreliable: qp_type == QpType::Uc,
            to,
        }
    }

    /// Numbers that it takes: its packets, or the responses to its READ.
    pub fn packets(&self) -> u64 {
        self.slot.packets
    }

    /// The payload of a full packet.
    pub fn mtu(&self) -> Mtu {
        self.mtu
    }

    /// How many messages it is for a responder, who counts READ requests.
    pub fn count(&self) -> u32 {
        self.slot.ssn.get()
    }

    /// The PSN of the packet at `index`.
    pub fn psn(&self, index: u64) -> Psn {
        self.psn.plus(index as u32 & 0xff_ffff)
    }

    /// Offset and length of the payload with number `index`.
    pub fn piece(&self, index: u64) -> (u32, u32) {
        self.slot.piece(index, self.mtu)
    }

    /// The first number of the READ request that asks for `index`, and the first
    /// after it.
    pub fn asked_at(&self, index: u64) -> (u64, u64) {
        let first = match self.slot.kind {
            Kind::Read => index - index % crate::request::READ_SEGMENT,
            _ => index,
        };
        (first, first + self.slot.step(first))
    }

    /// The headers of the request at `index`. An ACK is asked for by the last.
    pub fn headers(&self, index: u64) -> Headers {
        let mut headers = self.slot.headers(index, self.mtu, self.unreliable, self.to);
        headers.bth.ack_request =
            !self.unreliable && index + self.slot.step(index) >= self.slot.packets;
        headers
    }

    /// The headers of the response to a READ with number `index`; `back` is the
    /// requester's number.
    pub fn response(&self, index: u64, aeth: Aeth, back: Qpn) -> Headers {
        let (first, end) = self.asked_at(index);
        let opcode = read_response(index == first, index + 1 >= end);
        let extended = match opcode {
            Opcode::RcReadResponseMiddle => Extended::Plain,
            _ => Extended::Aeth(aeth),
        };
        let mut bth = Bth::new(opcode, back, self.psn(index));
        bth.mig_req = true;
        Headers { bth, extended }
    }
}

/// The opcode of a response by its place in the answer to a READ request.
pub(crate) fn read_response(first: bool, last: bool) -> Opcode {
    match (first, last) {
        (true, true) => Opcode::RcReadResponseOnly,
        (true, false) => Opcode::RcReadResponseFirst,
        (false, true) => Opcode::RcReadResponseLast,
        (false, false) => Opcode::RcReadResponseMiddle,
    }
}
