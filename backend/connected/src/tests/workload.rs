//! Random programs for the simulation, and the bytes that they move.

use crate::Request;
use masq_spec::queue::{SendOpcode, WcStatus};
use masq_transport::AtomicOp;
use masq_wire::{ImmDt, Mtu, RKey};

/// A key that is valid, for everything.
pub(super) const GOOD: RKey = RKey(0x1234_5600);
/// One that is not.
pub(super) const BAD: RKey = RKey(0x9999_9900);
/// From here on memory is constant: [`constant`].
pub(super) const CONSTANT: u64 = 1 << 40;
/// Four counters.
pub(super) const COUNTERS: u64 = 1 << 50;

/// SplitMix64.
#[derive(Clone)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True `n` times in a thousand.
    pub(super) fn permille(&mut self, n: u64) -> bool {
        self.below(1000) < n
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// A byte of a request's payload.
pub(super) fn pattern(id: u64, offset: u64) -> u8 {
    (id.wrapping_mul(151) ^ offset.wrapping_mul(7) ^ (offset >> 8)) as u8
}

/// A byte of constant memory.
pub(super) fn constant(addr: u64) -> u8 {
    (addr.wrapping_mul(13) ^ (addr >> 8)) as u8
}

/// What must come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Success,
    /// The value that an atomic finds.
    Finds(u64),
    /// A READ of what request `id` wrote.
    Wrote(u64),
    /// The connection ends with this.
    Fails(WcStatus),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) request: Request,
    pub(super) expect: Expect,
}

pub(super) fn request(id: u64, opcode: SendOpcode, length: u32, remote_addr: u64) -> Request {
    Request {
        id,
        opcode,
        length,
        remote_addr,
        rkey: GOOD,
        imm: ImmDt((id as u32).to_be_bytes()),
        invalidate: GOOD,
        compare_add: 0,
        swap: 0,
        fence: false,
        solicited: id.is_multiple_of(3),
    }
}

/// How many bytes a receive holds: a little more than the longest SEND.
pub(super) fn room(mtu: Mtu) -> u64 {
    7 * mtu.bytes() as u64
}

fn length(rng: &mut Rng, mtu: u32) -> u32 {
    match rng.below(8) {
        0 => 0,
        1 => 1 + rng.below(16) as u32,
        2 => mtu,
        3 => mtu * (2 + rng.below(4) as u32),
        4 => mtu + 1,
        _ => rng.below(u64::from(mtu) * 6) as u32,
    }
}

/// A random program of `count` requests, the last of which may be a faulty
/// one; returns it with the bytes that its WRITEs need at the peer.
pub(super) fn program(rng: &mut Rng, mtu: Mtu, count: u64, faulty: bool) -> (Vec<Step>, u64) {
    let mtu_bytes = mtu.bytes() as u32;
    let mut counters = [0u64; 4];
    let mut written: Vec<(u64, u64, u32)> = Vec::new();
    let (mut steps, mut ram) = (Vec::new(), 0u64);
    for id in 0..count {
        let length = length(rng, mtu_bytes);
        let mut step = Step {
            request: request(id, SendOpcode::Send, length, 0),
            expect: Expect::Success,
        };
        let r = &mut step.request;
        r.fence = rng.permille(100);
        match rng.below(16) {
            0..=2 => {}
            3 => r.opcode = SendOpcode::SendWithImm,
            4 => r.opcode = SendOpcode::SendWithInv,
            5..=8 => {
                r.opcode = rng.pick(&[SendOpcode::RdmaWrite, SendOpcode::RdmaWriteWithImm]);
                r.remote_addr = ram;
                written.push((id, ram, length));
                ram += u64::from(length);
            }
            9..=11 => {
                r.opcode = SendOpcode::RdmaRead;
                r.remote_addr = CONSTANT + rng.below(1 << 20);
                if mtu_bytes <= 512 && rng.permille(100) {
                    r.length = mtu_bytes * 70 + 5;
                }
                if let (Some((from, addr, len)), true) = (written.last(), rng.permille(300)) {
                    (r.remote_addr, r.length) = (*addr, *len);
                    step.expect = Expect::Wrote(*from);
                }
            }
            12..=14 => {
                let which = rng.below(4) as usize;
                r.opcode = rng.pick(&[SendOpcode::FetchAdd, SendOpcode::CompareSwap]);
                (r.length, r.remote_addr) = (8, COUNTERS + 8 * which as u64);
                step.expect = Expect::Finds(counters[which]);
                let op = if r.opcode == SendOpcode::FetchAdd {
                    r.compare_add = rng.next();
                    AtomicOp::FetchAdd { add: r.compare_add }
                } else {
                    let right = rng.permille(700);
                    r.compare_add = counters[which].wrapping_add(u64::from(!right));
                    r.swap = rng.next();
                    AtomicOp::CompareSwap {
                        compare: r.compare_add,
                        swap: r.swap,
                    }
                };
                counters[which] = op.apply(counters[which]);
            }
            _ => r.opcode = SendOpcode::LocalInv,
        }
        steps.push(step);
    }
    if faulty && let Some(step) = steps.last_mut() {
        break_it(rng, step, mtu);
    }
    (steps, ram)
}

fn break_it(rng: &mut Rng, step: &mut Step, mtu: Mtu) {
    let r = &mut step.request;
    let status = match rng.below(6) {
        0 => {
            (r.opcode, r.length) = (SendOpcode::Send, room(mtu) as u32 + 1);
            WcStatus::RemInvReqErr
        }
        1 => {
            (r.opcode, r.length, r.rkey) = (SendOpcode::RdmaWrite, 5000, BAD);
            WcStatus::RemAccessErr
        }
        2 => {
            (r.opcode, r.length, r.rkey) = (SendOpcode::RdmaRead, 5000, BAD);
            WcStatus::RemAccessErr
        }
        3 => {
            (r.opcode, r.length, r.remote_addr) = (SendOpcode::FetchAdd, 8, COUNTERS + 4);
            WcStatus::RemInvReqErr
        }
        4 => {
            (r.opcode, r.invalidate) = (SendOpcode::SendWithInv, BAD);
            r.length = r.length.min(room(mtu) as u32);
            WcStatus::RemAccessErr
        }
        _ => {
            (r.opcode, r.length) = (SendOpcode::FetchAdd, 4);
            WcStatus::LocLenErr
        }
    };
    step.expect = Expect::Fails(status);
}
