//! Work requests and their packets (IBA 9.3, 9.7.3, 9.8.3).

use crate::sequence::Seq;
use masq_spec::queue::{SendOpcode, WcStatus};
use masq_transport::{Kind, rules};
use masq_wire::{
    AtomicEth, Bth, Extended, Headers, Ieth, ImmDt, Msn, Mtu, Opcode, Position, Qpn, RKey, Reth,
};

/// Largest message (IBA 9.7.7).
pub(crate) const MAX_MESSAGE: u32 = 1 << 31;

/// Packets that one READ request asks for at most. A longer READ becomes
/// several requests, which a responder cannot tell from one that was resumed:
/// the PSNs are the same. So what a READ has under way is bounded, and a loss
/// costs no more than that. The cuts never move, because a responder may refuse
/// to repeat what crosses the end of what it was asked for at first.
pub const READ_SEGMENT: u64 = 64;

/// A work request, as it was taken off the send queue.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The caller's name for it: completions, payloads and landings bear it.
    pub id: u64,
    /// Operation.
    pub opcode: SendOpcode,
    /// Payload bytes; 8 for atomics.
    pub length: u32,
    /// Where at the peer.
    pub remote_addr: u64,
    /// By which key of the peer.
    pub rkey: RKey,
    /// Immediate data, as it travels.
    pub imm: ImmDt,
    /// The peer's key to invalidate.
    pub invalidate: RKey,
    /// What an atomic compares with, or adds.
    pub compare_add: u64,
    /// What an atomic stores.
    pub swap: u64,
    /// Begins when earlier READs and atomics are complete (IBA 10.8.3.3).
    pub fence: bool,
    /// Raises a solicited event at the peer.
    pub solicited: bool,
}

/// A request in the requester's queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) request: Request,
    pub(crate) kind: Kind,
    /// Number of its first packet.
    pub(crate) first: Seq,
    /// Numbers that it takes; 0 for what sends nothing.
    pub(crate) packets: u64,
    /// Which message of the connection it is, as the responder counts them.
    pub(crate) ssn: Msn,
    /// Fails with this when everything before it is complete.
    pub(crate) error: Option<WcStatus>,
    /// A local operation that was carried out.
    pub(crate) executed: bool,
}

/// Numbers that a message of this length takes.
pub(crate) fn packets_of(length: u32, mtu: Mtu) -> u64 {
    u64::from(length).div_ceil(mtu.bytes() as u64).max(1)
}

impl Slot {
    pub(crate) fn new(request: Request, first: Seq, mtu: Mtu, last_ssn: Msn) -> Self {
        let kind = rules(request.opcode).kind;
        let packets = match kind {
            Kind::Local => 0,
            Kind::Atomic => 1,
            _ => packets_of(request.length, mtu),
        };
        // A responder counts READ requests, not work requests.
        let messages = match kind {
            Kind::Local => 0,
            Kind::Read => packets.div_ceil(READ_SEGMENT),
            _ => 1,
        };
        Self {
            request,
            kind,
            first,
            packets,
            // Far below 2^32.
            ssn: last_ssn.plus(messages as u32),
            error: None,
            executed: false,
        }
    }

    /// The first number after it.
    pub(crate) fn end(&self) -> Seq {
        self.first.plus(self.packets)
    }

    /// Whether it is answered by data, not by an ACK.
    pub(crate) fn is_answered_by_data(&self) -> bool {
        matches!(self.kind, Kind::Read | Kind::Atomic)
    }

    /// Whether it waits for a receive of the peer.
    pub(crate) fn takes_receive(&self) -> bool {
        rules(self.request.opcode).takes_receive
    }

    /// Numbers that the packet at `index` takes: for a READ the responses that
    /// it asks for.
    pub(crate) fn step(&self, index: u64) -> u64 {
        match self.kind {
            Kind::Read => {
                let cut = (index / READ_SEGMENT + 1) * READ_SEGMENT;
                cut.min(self.packets).saturating_sub(index)
            }
            _ => 1,
        }
    }

    /// Offset and length of the payload with number `index`.
    pub(crate) fn piece(&self, index: u64, mtu: Mtu) -> (u32, u32) {
        let (mtu, length) = (mtu.bytes() as u64, u64::from(self.request.length));
        let offset = (index * mtu).min(length);
        let len = (length - offset).min(mtu);
        // Neither exceeds the length, which has 32 bits.
        (offset as u32, len as u32)
    }

    /// The headers of the packet at `index`, AckReq aside.
    pub(crate) fn headers(&self, index: u64, mtu: Mtu, unreliable: bool, to: Qpn) -> Headers {
        let request = &self.request;
        let position = match (index == 0, index + 1 >= self.packets) {
            (true, true) => Position::Only,
            (true, false) => Position::First,
            (false, true) => Position::Last,
            (false, false) => Position::Middle,
        };
        let (offset, _) = self.piece(index, mtu);
        let reth = Reth {
            address: request.remote_addr.wrapping_add(u64::from(offset)),
            rkey: request.rkey,
            length: request.length,
        };
        let (opcode, extended) = match self.kind {
            Kind::Read => {
                let left = request.length - offset;
                let asked = self.step(index) * mtu.bytes() as u64;
                let length = u64::from(left).min(asked) as u32;
                (
                    Opcode::RcReadRequest,
                    Extended::Reth(Reth { length, ..reth }),
                )
            }
            Kind::Atomic => self.atomic(),
            Kind::Write => self.write(position, reth),
            Kind::Send | Kind::Local => self.send(position),
        };
        let opcode = match unreliable {
            // UC's opcodes lie at the same places (IBA 9.2.1).
            true => Opcode::from_code(opcode.code() | 0x20).unwrap_or(opcode),
            false => opcode,
        };
        let mut bth = Bth::new(opcode, to, self.first.plus(index).psn());
        bth.solicited = request.solicited && position.ends() && self.takes_receive();
        bth.mig_req = true;
        Headers { bth, extended }
    }

    fn send(&self, position: Position) -> (Opcode, Extended) {
        let imm = Extended::Imm(self.request.imm);
        let inv = Extended::Inv(Ieth {
            rkey: self.request.invalidate,
        });
        match (position, self.request.opcode) {
            (Position::First, _) => (Opcode::RcSendFirst, Extended::Plain),
            (Position::Middle, _) => (Opcode::RcSendMiddle, Extended::Plain),
            (Position::Last, SendOpcode::SendWithImm) => (Opcode::RcSendLastImm, imm),
            (Position::Last, SendOpcode::SendWithInv) => (Opcode::RcSendLastInv, inv),
            (Position::Last, _) => (Opcode::RcSendLast, Extended::Plain),
            (Position::Only, SendOpcode::SendWithImm) => (Opcode::RcSendOnlyImm, imm),
            (Position::Only, SendOpcode::SendWithInv) => (Opcode::RcSendOnlyInv, inv),
            (Position::Only, _) => (Opcode::RcSendOnly, Extended::Plain),
        }
    }

    fn write(&self, position: Position, reth: Reth) -> (Opcode, Extended) {
        let imm = self.request.imm;
        let with_imm = self.request.opcode == SendOpcode::RdmaWriteWithImm;
        match (position, with_imm) {
            (Position::First, _) => (Opcode::RcWriteFirst, Extended::Reth(reth)),
            (Position::Middle, _) => (Opcode::RcWriteMiddle, Extended::Plain),
            (Position::Last, false) => (Opcode::RcWriteLast, Extended::Plain),
            (Position::Last, true) => (Opcode::RcWriteLastImm, Extended::Imm(imm)),
            (Position::Only, false) => (Opcode::RcWriteOnly, Extended::Reth(reth)),
            (Position::Only, true) => (Opcode::RcWriteOnlyImm, Extended::RethImm(reth, imm)),
        }
    }

    fn atomic(&self) -> (Opcode, Extended) {
        let request = &self.request;
        let is_swap = request.opcode == SendOpcode::CompareSwap;
        let eth = AtomicEth {
            address: request.remote_addr,
            rkey: request.rkey,
            swap_add: if is_swap {
                request.swap
            } else {
                request.compare_add
            },
            compare: if is_swap { request.compare_add } else { 0 },
        };
        let opcode = match is_swap {
            true => Opcode::RcCompareSwap,
            false => Opcode::RcFetchAdd,
        };
        (opcode, Extended::Atomic(eth))
    }
}
