//! One half of a queue pair at a time, by hand.

use super::workload::GOOD;
use crate::*;
use masq_spec::queue::WcStatus;
use masq_spec::verbs::{Access, QpType};
use masq_transport::{AtomicOp, Need, ResponderFault};
use masq_wire::{Aeth, Bth, Extended, Headers, Msn, Mtu, Opcode, Psn, Qpn, RKey, Reth, Syndrome};

pub(super) fn requester_config() -> RequesterConfig {
    RequesterConfig {
        qp_type: QpType::Rc,
        dest_qpn: Qpn::new(7),
        psn: Psn::new(0),
        mtu: Mtu::B256,
        max_rd_atomic: 4,
        timeout: 14,
        retry_cnt: 7,
        rnr_retry: 7,
        depth: 64,
        window: (32, 512),
    }
}

pub(super) fn responder_config() -> ResponderConfig {
    ResponderConfig {
        qp_type: QpType::Rc,
        dest_qpn: Qpn::new(7),
        psn: Psn::new(0),
        mtu: Mtu::B256,
        max_dest_rd_atomic: 2,
        min_rnr_timer: 12,
        access: Access::REMOTE_READ | Access::REMOTE_WRITE | Access::REMOTE_ATOMIC,
    }
}

pub(super) fn responder() -> Responder {
    Responder::new(responder_config())
}

/// Memory that takes everything and remembers what was done to it.
#[derive(Default)]
pub(super) struct Log {
    pub(super) receives: u32,
    pub(super) placed: Vec<(u64, u32)>,
    pub(super) received: Vec<(u64, u32)>,
    pub(super) atomics: u64,
    pub(super) credits: Option<u32>,
    /// Range of the last check.
    pub(super) checked: (u64, u64),
    pub(super) defer: bool,
}

impl Memory for Log {
    fn take_receive(&mut self) -> Option<u64> {
        self.receives = self.receives.checked_sub(1)?;
        Some(4096)
    }

    fn place_receive(&mut self, offset: u64, len: u32) -> Result<(), ResponderFault> {
        assert!(offset + u64::from(len) <= 4096, "inside the receive");
        self.received.push((offset, len));
        Ok(())
    }

    fn check(&mut self, _: Need, key: RKey, addr: u64, len: u32) -> Result<(), ResponderFault> {
        let end = addr
            .checked_add(u64::from(len))
            .ok_or(ResponderFault::Access)?;
        self.checked = (addr, end);
        if key == GOOD {
            Ok(())
        } else {
            Err(ResponderFault::Access)
        }
    }

    fn place(&mut self, _: RKey, addr: u64, len: u32) -> Result<(), ResponderFault> {
        let (from, to) = self.checked;
        assert!(
            from <= addr && addr + u64::from(len) <= to,
            "what was checked"
        );
        self.placed.push((addr, len));
        Ok(())
    }

    fn atomic(&mut self, _: RKey, _: u64, _: AtomicOp) -> Result<Option<u64>, ResponderFault> {
        self.atomics += 1;
        Ok((!self.defer).then_some(self.atomics))
    }

    fn invalidate(&mut self, _: RKey) -> Result<(), ResponderFault> {
        Ok(())
    }

    fn credits(&self) -> Option<u32> {
        self.credits
    }
}

/// Takes all that lands.
#[derive(Default)]
pub(super) struct Sink {
    pub(super) landed: Vec<(u64, u32, u32)>,
    pub(super) atomics: Vec<(u64, u64)>,
}

impl Landing for Sink {
    fn place(&mut self, id: u64, offset: u32, len: u32) -> Result<(), WcStatus> {
        self.landed.push((id, offset, len));
        Ok(())
    }

    fn place_atomic(&mut self, id: u64, original: u64) -> Result<(), WcStatus> {
        self.atomics.push((id, original));
        Ok(())
    }
}

pub(super) fn packet(opcode: Opcode, psn: u32, extended: Extended) -> Headers {
    let mut bth = Bth::new(opcode, Qpn::new(7), Psn::new(psn));
    bth.ack_request = bth.opcode.is_request() && opcode.traits().position.ends();
    Headers { bth, extended }
}

pub(super) fn reth(address: u64, length: u32) -> Extended {
    Extended::Reth(Reth {
        address,
        rkey: GOOD,
        length,
    })
}

pub(super) fn answer(psn: u32, syndrome: Syndrome, msn: u32) -> Headers {
    let msn = Msn::new(msn);
    packet(
        Opcode::RcAcknowledge,
        psn,
        Extended::Aeth(Aeth { syndrome, msn }),
    )
}

pub(super) fn ack(psn: u32) -> Headers {
    answer(psn, Syndrome::ACK, 0)
}

/// Opcode, PSN and payload of all that wants to be sent.
pub(super) fn replies(responder: &mut Responder) -> Vec<(Opcode, u32, Payload)> {
    std::iter::from_fn(|| responder.poll_packet())
        .map(|t| (t.headers.bth.opcode, t.headers.bth.psn.get(), t.payload))
        .collect()
}

pub(super) fn syndrome(transmit: &Transmit) -> Option<(Syndrome, u32)> {
    match transmit.headers.extended {
        Extended::Aeth(aeth) => Some((aeth.syndrome, aeth.msn.get())),
        _ => None,
    }
}

/// Opcodes and PSNs of all that wants to be sent.
pub(super) fn sends(requester: &mut Requester, now: u64) -> Vec<(Opcode, u32)> {
    std::iter::from_fn(|| requester.poll_packet(now))
        .map(|t| (t.headers.bth.opcode, t.headers.bth.psn.get()))
        .collect()
}

pub(super) fn completions(requester: &mut Requester) -> Vec<(u64, WcStatus)> {
    std::iter::from_fn(|| requester.poll_completion())
        .map(|c| (c.id, c.status))
        .collect()
}
