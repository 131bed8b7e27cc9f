//! Requests that were carried out before (IBA 9.7.5.1): SENDs and WRITEs are
//! acknowledged again, READs are executed again, atomics are answered with what
//! they found. Nothing here looks at, or touches, the message that is arriving.

use super::replies::Data;
use super::{Executed, Responder};
use crate::request::packets_of;
use crate::sequence::Seq;
use masq_wire::{AtomicEth, Extended, Headers, Operation, Reth, Syndrome};

impl Responder {
    pub(super) fn duplicate(&mut self, seq: Seq, headers: &Headers) {
        let operation = headers.bth.opcode.traits().operation;
        match (operation, headers.extended) {
            (Operation::Send | Operation::Write, _) => self.acknowledge_again(seq),
            (Operation::ReadRequest, Extended::Reth(reth)) => self.read_again(seq, reth),
            (_, Extended::Atomic(eth)) => self.atomic_again(seq, operation, eth),
            _ => {}
        }
    }

    /// Acknowledges all that is complete, but nothing from the next READ or
    /// atomic on: an ACK with its PSN would say that its data were delivered.
    fn acknowledge_again(&mut self, seq: Seq) {
        let next = self.resources.iter().find(|r| r.first > seq);
        let (end, msn) = match next {
            Some(resource) => (resource.first, resource.msn_before),
            None => (self.expected, self.msn),
        };
        let ack = Syndrome::Ack(self.credits);
        self.replies.push_ack(end.before(), ack, msn);
    }

    /// Reads again what was asked for before, or a tail of it. Access is
    /// checked when the bytes are gathered.
    fn read_again(&mut self, seq: Seq, asked: Reth) {
        let mut known = self.resources.iter();
        let Some(known) = known.find(|r| r.first <= seq && seq < r.end) else {
            return;
        };
        let Executed::Read(reth) = known.what else {
            return;
        };
        let mtu = self.config.mtu;
        let skipped = seq.since(known.first) * mtu.bytes() as u64;
        let left = u64::from(reth.length).saturating_sub(skipped);
        let asked_len = u64::from(asked.length);
        // All that is left, or full packets of it.
        let is_part = asked_len == left
            || (0 < asked_len && asked_len < left && asked_len.is_multiple_of(mtu.bytes() as u64));
        let address = reth.address.wrapping_add(skipped);
        if asked.rkey == reth.rkey && asked.address == address && is_part {
            let data = Data {
                first: known.first,
                start: seq,
                next: seq,
                end: seq.plus(packets_of(asked.length, mtu)),
                what: known.what,
                msn: known.msn_before.next(),
                repeats: true,
            };
            self.replies.push_data(data);
        }
    }

    fn atomic_again(&mut self, seq: Seq, asked: Operation, eth: AtomicEth) {
        let Some(known) = self.resources.iter().find(|r| r.first == seq) else {
            return;
        };
        let same = matches!(known.what, Executed::Atomic { operation, addr, .. }
            if operation == asked && addr == eth.address);
        if same {
            let data = Data {
                first: seq,
                start: seq,
                next: seq,
                end: known.end,
                what: known.what,
                msn: known.msn_before.next(),
                repeats: true,
            };
            self.replies.push_data(data);
        }
    }
}
