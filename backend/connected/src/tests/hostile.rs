//! Packets of an enemy who knows the queue pair: nothing panics, nothing grows,
//! and no byte is touched that was not checked.

use super::bench::*;
use super::workload::{BAD, GOOD, Rng, request};
use crate::*;
use masq_spec::queue::SendOpcode;
use masq_spec::verbs::{Access, QpType};
use masq_wire::{
    Aeth, AtomicAckEth, AtomicEth, Deth, Extended, Headers, Ieth, ImmDt, Layout, Msn, Mtu, Opcode,
    Psn, QKey, Qpn, Reth, Syndrome,
};

fn forged(rng: &mut Rng, near: u32) -> (Headers, usize) {
    let opcode = rng.pick(Opcode::ALL);
    let key = rng.pick(&[GOOD, GOOD, BAD]);
    let length = rng.pick(&[0, 1, 8, 256, 257, 1000, 1 << 31, u32::MAX]);
    let address = rng.pick(&[0, 8, 0x1000, u64::MAX, u64::MAX - 7]);
    let reth = Reth {
        address,
        rkey: key,
        length,
    };
    let imm = ImmDt([1, 2, 3, 4]);
    let aeth = Aeth {
        syndrome: Syndrome::from_code(rng.next() as u8),
        msn: Msn::new(rng.next() as u32),
    };
    let deth = Deth {
        qkey: QKey(1),
        src_qpn: Qpn::new(3),
    };
    // One in twenty has headers that its opcode does not.
    let layout = if rng.permille(50) {
        rng.pick(Opcode::ALL)
    } else {
        opcode
    }
    .traits()
    .layout;
    let extended = match layout {
        Layout::Plain => Extended::Plain,
        Layout::Imm => Extended::Imm(imm),
        Layout::Inv => Extended::Inv(Ieth { rkey: key }),
        Layout::Reth => Extended::Reth(reth),
        Layout::RethImm => Extended::RethImm(reth, imm),
        Layout::Aeth => Extended::Aeth(aeth),
        Layout::AtomicAck => Extended::AtomicAck(aeth, AtomicAckEth { original: 7 }),
        Layout::Atomic => Extended::Atomic(AtomicEth {
            address,
            rkey: key,
            swap_add: 1,
            compare: 0,
        }),
        Layout::Deth => Extended::Deth(deth),
        Layout::DethImm => Extended::DethImm(deth, imm),
        Layout::Cnp => Extended::Cnp,
    };
    let far = rng.next() as u32;
    let psn = rng.pick(&[
        near,
        near,
        near,
        near.wrapping_add(1),
        near.wrapping_sub(1),
        far,
    ]);
    let mut headers = packet(opcode, psn, extended);
    headers.bth.ack_request = rng.permille(500);
    headers.bth.solicited = rng.permille(500);
    let len = rng.pick(&[0, 1, 8, 256, 256, 257, 4096, usize::MAX]);
    (headers, len)
}

fn rounds() -> u64 {
    20_000
}

#[test]
fn forged_requests_hurt_nobody() {
    for seed in 0..rounds() {
        let mut rng = Rng(seed);
        let mut r = Responder::new(ResponderConfig {
            qp_type: rng.pick(&[QpType::Rc, QpType::Rc, QpType::Uc]),
            dest_qpn: Qpn::new(7),
            psn: Psn::new(0xff_fff0),
            mtu: Mtu::B256,
            max_dest_rd_atomic: rng.pick(&[0, 1, 4]),
            min_rnr_timer: 1,
            access: Access::from_bits_truncate(rng.next() as u32),
        });
        let mut log = Log {
            receives: rng.below(20) as u32,
            ..Log::default()
        };
        log.defer = rng.permille(300);
        let capacity = r.capacity();
        for _ in 0..60 {
            let (headers, len) = forged(&mut rng, r.expected_psn().get());
            r.handle(&headers, len, &mut log);
            for _ in 0..rng.below(4) {
                let Some(transmit) = r.poll_packet() else {
                    break;
                };
                assert!(transmit.payload.len() <= 256);
                if rng.permille(20) {
                    let fault = masq_transport::ResponderFault::Access;
                    r.gather_failed(transmit.headers.bth.psn, fault);
                }
            }
            if rng.permille(100) {
                let _ = r.atomic_done(Ok(1));
            }
            assert_eq!(r.capacity(), capacity, "seed {seed}");
        }
    }
}

#[test]
fn forged_responses_hurt_nobody() {
    const OPCODES: [SendOpcode; 5] = [
        SendOpcode::Send,
        SendOpcode::RdmaWriteWithImm,
        SendOpcode::RdmaRead,
        SendOpcode::FetchAdd,
        SendOpcode::LocalInv,
    ];
    for seed in 0..rounds() {
        let mut rng = Rng(seed);
        let mut config = requester_config();
        config.psn = Psn::new(0xff_fff0);
        let mut r = Requester::new(config);
        let capacity = r.capacity();
        let (mut sink, mut now, mut posted, mut completed) = (Sink::default(), 0, 0, 0);
        for _ in 0..60 {
            now += rng.below(1_000_000);
            if rng.permille(300) {
                let opcode = rng.pick(&OPCODES);
                let length = if opcode == SendOpcode::FetchAdd {
                    8
                } else {
                    600
                };
                posted += u64::from(r.post(request(posted, opcode, length, 0)).is_ok());
            }
            let near = r.next_psn().get().wrapping_sub(rng.below(4) as u32);
            let (headers, len) = forged(&mut rng, near);
            r.handle(&headers, len, now, &mut sink);
            for _ in 0..rng.below(4) {
                r.poll_packet(now);
            }
            if r.poll_local().is_some() {
                r.local_done(Ok(()));
            }
            if r.deadline().is_some_and(|at| at <= now) {
                r.expire(now);
            }
            while let Some(completion) = r.poll_completion() {
                assert_eq!(completion.id, completed, "seed {seed}: once, in order");
                completed += 1;
            }
            assert_eq!(r.capacity(), capacity, "seed {seed}");
        }
        r.flush();
        completed += completions(&mut r).len() as u64;
        assert_eq!(completed, posted, "seed {seed}");
        assert!(
            sink.landed
                .iter()
                .all(|(_, offset, len)| offset + len <= 600)
        );
    }
}
