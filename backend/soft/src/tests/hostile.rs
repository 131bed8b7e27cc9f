//! Drivers that write garbage, and tenants that want more than their share.

use super::harness::*;
use masq_datapath::Engine as _;
use masq_spec::doorbell::{ARMED, BITMAP, PAGE_LEN};
use masq_spec::queue::{SendOpcode as Op, Sge, WcStatus::*, stamp};
use masq_spec::verbs::{MwType, State};
use proptest::prelude::*;
use std::sync::atomic::Ordering;

/// One thing that a hostile driver does.
#[derive(Clone, Debug)]
enum Deed {
    /// Bytes anywhere in a ring, stamps and header included.
    Garbage {
        ring: usize,
        at: u16,
        bytes: Vec<u8>,
    },
    /// A slot that the device will take, of arbitrary content.
    Request {
        ring: usize,
        slot: Vec<u8>,
    },
    /// A request of sound form with arbitrary numbers.
    Sane {
        qp: usize,
        opcode: u8,
        flags: u8,
        num_sge: u8,
        key: usize,
        offset: u64,
        length: u32,
        numbers: (u64, u64),
    },
    /// Arbitrary bits in the doorbell page.
    Doorbells {
        at: u16,
        word: u64,
    },
    Turn,
}

fn deed() -> impl Strategy<Value = Deed> {
    let blob = |max| prop::collection::vec(any::<u8>(), 1..max);
    let length = prop_oneof![0u32..64, 0u32..8192, any::<u32>()];
    let offset = prop_oneof![0u64..64, 0u64..8192, any::<u64>()];
    prop_oneof![
        (any::<usize>(), any::<u16>(), blob(64)).prop_map(|(ring, at, bytes)| Deed::Garbage {
            ring,
            at,
            bytes
        }),
        (any::<usize>(), blob(512)).prop_map(|(ring, slot)| Deed::Request { ring, slot }),
        (
            any::<usize>(),
            0u8..12,
            any::<u8>(),
            0u8..10,
            any::<usize>(),
            offset,
            length,
            any::<(u64, u64)>()
        )
            .prop_map(
                |(qp, opcode, flags, num_sge, key, offset, length, numbers)| Deed::Sane {
                    qp,
                    opcode,
                    flags,
                    num_sge,
                    key,
                    offset,
                    length,
                    numbers
                }
            ),
        (any::<u16>(), any::<u64>()).prop_map(|(at, word)| Deed::Doorbells { at, word }),
        Just(Deed::Turn),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn garbage_in_every_writable_byte_harms_its_writer_only(
        deeds in prop::collection::vec(deed(), 1..120)
    ) {
        let mut w = World::pair_of_processes();
        let bystander = w.spawn(1, 3);
        // Victims: another tenant, and another connection of the same tenant.
        let (red, red_peer) = (w.spawn(2, 1), w.spawn(2, 2));
        let (mut v1, mut v2) = w.connected_at(red, 1, red_peer, 2, QpOptions::of(RC));
        let (mut v3, mut v4) = w.connected_at(1, 2, bystander, 3, QpOptions::of(RC));
        let secrets: Vec<Mr> = [1, bystander, red]
            .into_iter()
            .map(|p| {
                // Registered with all rights, in a domain of their own.
                let mr = w.register(p, 7, 8192, ALL);
                w.write(p, mr.addr, &bytes(8192, p as u8));
                mr
            })
            .collect();

        let mut qps = Vec::new();
        for qp_type in [RC, UC, UD, RC] {
            qps.push(w.connected(QpOptions::of(qp_type)).0);
        }
        let loop_to_self = w.qp(0, QpOptions::of(RC));
        w.connect(&loop_to_self, QpOptions::of(RC), 1, loop_to_self.qpn);
        qps.push(loop_to_self);
        let own = w.register(0, 1, 8192, ALL);
        let mut keys = vec![own.key, w.alloc_mw(0, 1, MwType::Type1).1];
        keys.push(w.alloc_mw(0, 1, MwType::Type2).1);
        keys.extend(secrets.iter().map(|mr| mr.key));
        let rings: Vec<Ring> = qps
            .iter()
            .flat_map(|qp| [Some(qp.sq), qp.rq, Some(qp.cq.ring), Some(qp.rcq.ring)])
            .flatten()
            .collect();

        for deed in deeds {
            match deed {
                Deed::Garbage { ring, at, bytes } => {
                    let spec = rings[ring % rings.len()].spec;
                    let len = u64::from(spec.slots * spec.stride) + 64;
                    let at = u64::from(at) % (len - bytes.len() as u64);
                    w.write(0, spec.addr + at, &bytes);
                }
                Deed::Request { ring, slot } => {
                    let ring = rings[ring % rings.len()];
                    let head = ring.header(0).load(Ordering::Relaxed);
                    let at = ring.spec.addr
                        + 64
                        + u64::from(head & (ring.spec.slots - 1)) * u64::from(ring.spec.stride);
                    let len = slot.len().min(ring.spec.stride as usize);
                    w.write(0, at, &slot[..len]);
                    w.write(0, at, &stamp(head).to_ne_bytes());
                }
                Deed::Sane { qp, opcode, flags, num_sge, key, offset, length, numbers } => {
                    let n = qp % qps.len();
                    let qp = &mut qps[n];
                    let key = keys[key % keys.len()];
                    let addr = own.addr.wrapping_add(offset);
                    let sge = Sge { addr, length, lkey: key };
                    let mut wr = Wr::new(Op::Send, numbers.0);
                    wr.opcode = opcode;
                    wr.sges = vec![sge; usize::from(num_sge)];
                    let mut wr = wr.remote(addr, key).atomic(numbers.0, numbers.1);
                    wr.wqe.imm_data = numbers.1 as u32;
                    wr.wqe.ah = key;
                    wr.flags = masq_spec::queue::SendFlags::from_bits_retain(flags & 7);
                    if qp.sq_tail.wrapping_sub(qp.sq.header(0).load(Ordering::Relaxed)) < 64 {
                        w.post(qp, &wr);
                    }
                    if let Some(rq) = qp.rq {
                        post_recv(&rq, &mut qp.rq_tail, 1, &[sge, sge]);
                    }
                }
                Deed::Doorbells { at, word } => {
                    let page = &w.procs[0].doorbell;
                    w.doorbell_bytes(page, usize::from(at) % (PAGE_LEN - 8), word);
                }
                Deed::Turn => {
                    w.now += 1_000_000;
                    w.turn();
                }
            }
        }
        // The others go about their business meanwhile.
        for (a, b) in [(&mut v1, &mut v2), (&mut v3, &mut v4)] {
            let (src, data) = w.pattern(a.proc, 100_000, 5);
            let dst = w.register(b.proc, 1, 100_000, ALL);
            w.recv(b, 1, &[dst.all()]);
            w.post(a, &Wr::new(Op::Send, 1).sge(src.all()));
            for _ in 0..200 {
                w.turn();
            }
            prop_assert_eq!(a.cq.results(), [(1, Success)]);
            prop_assert_eq!(b.rcq.results(), [(1, Success)]);
            prop_assert_eq!(w.read(b.proc, dst.addr, 100_000), data);
        }
        for (mr, p) in secrets.iter().zip([1, bystander, red]) {
            prop_assert_eq!(w.read(p, mr.addr, 8192), bytes(8192, p as u8));
        }
        for p in [bystander, red, red_peer] {
            prop_assert_eq!(w.events(p), []);
        }
        for qp in &qps {
            w.enter(qp, State::Reset).unwrap();
        }
        let s = w.procs[0].s;
        drop(w.engine.close(s));
        w.now += 100_000_000_000;
        for _ in 0..1000 {
            w.turn();
        }
        prop_assert!(!w.engine.has_work());
    }
}

#[test]
fn bits_of_slots_that_do_not_exist_are_nothing() {
    let mut w = World::pair_of_processes();
    let (mut a, _b) = w.connected(QpOptions::of(RC));
    for slot in 0..16384 {
        w.procs[0].doorbell.ring(slot);
    }
    w.post(&mut a, &Wr::new(Op::RdmaWrite, 1));
    w.settle();
    assert_eq!(a.cq.results(), [(1, Success)]);
    // The device neither needs nor believes the armed word.
    w.doorbell_bytes(&w.procs[0].doorbell, ARMED, u64::MAX);
    w.doorbell_bytes(&w.procs[0].doorbell, BITMAP, 1);
    w.settle();
}

/// Posts `count` writes of 1 MiB on each of `qps` pairs of a tenant.
fn greedy(w: &mut World, domain: u32, qps: usize) -> Vec<TestQp> {
    let (p, q) = (w.spawn(domain, 1), w.spawn(domain, 2));
    let src = w.register(p, 1, 1 << 20, ALL);
    let dst = w.register(q, 1, 1 << 20, ALL);
    (0..qps)
        .map(|_| {
            let (mut a, _) = w.connected_at(p, 1, q, 2, QpOptions::of(RC));
            for n in 0..8 {
                let wr = Wr::new(Op::RdmaWrite, n).sge(src.all());
                w.post(&mut a, &wr.remote(dst.addr, dst.key));
            }
            a
        })
        .collect()
}

fn moved(w: &mut World, qps: &[TestQp]) -> usize {
    qps.iter().map(|a| w.counters(a).tx_bytes as usize).sum()
}

#[test]
fn a_tenant_with_many_queue_pairs_does_not_hold_up_one_with_few() {
    let mut w = World::new();
    let _many = greedy(&mut w, 1, 100);
    let (p, q) = (w.spawn(2, 1), w.spawn(2, 2));
    let (mut a, mut b) = w.connected_at(p, 1, q, 2, QpOptions::of(RC));
    w.turn();
    for n in 0..20 {
        w.recv(&mut b, n, &[]);
        w.post(&mut a, &Wr::new(Op::Send, n));
        // Its doorbell is seen in the next turn, and served in that turn.
        w.turn();
        assert_eq!(a.cq.results(), [(n, Success)]);
    }
}

#[test]
fn tenants_share_the_bytes_evenly_whatever_their_number_of_queue_pairs() {
    let mut w = World::new();
    let many = greedy(&mut w, 1, 32);
    let few = greedy(&mut w, 2, 4);
    for _ in 0..100 {
        w.turn();
    }
    let (many, few) = (moved(&mut w, &many), moved(&mut w, &few));
    // Whole messages are counted: some are under way.
    assert!(few + (4 << 20) >= many, "{few} against {many}");
}

#[test]
fn one_turn_is_bounded_for_each_tenant() {
    let mut w = World::new();
    let p = w.spawn(1, 1);
    let own = w.register(p, 1, 8 << 20, ALL);
    w.write(p, own.addr, &vec![7; 4 << 20]);
    let o = QpOptions::of(RC);
    let mut qps: Vec<_> = (0..60).map(|_| w.qp(p, o)).collect();
    for (n, qp) in qps.iter_mut().enumerate() {
        w.connect(qp, o, 1, qp.qpn);
        let at = (n as u64) * 65536;
        let wr = Wr::new(Op::RdmaWrite, 1).sge(own.sge(at, 65536));
        w.post(qp, &wr.remote(own.addr + (4 << 20) + at, own.key));
    }
    w.turn();
    let copied = w
        .read(p, own.addr + (4 << 20), 4 << 20)
        .iter()
        .filter(|b| **b == 7)
        .count();
    assert_eq!(copied, 256 << 10);
}

#[test]
fn a_small_message_is_not_held_up_by_large_ones_of_its_own_tenant() {
    let mut w = World::new();
    let _many = greedy(&mut w, 1, 10);
    let (mut a, mut b) = w.connected_at(0, 1, 1, 2, QpOptions::of(RC));
    w.recv(&mut b, 1, &[]);
    w.post(&mut a, &Wr::new(Op::Send, 1));
    // 11 queue pairs of 64 KiB each, 4 in a turn.
    for _ in 0..4 {
        w.turn();
    }
    assert_eq!(a.cq.results(), [(1, Success)]);
}

#[test]
fn a_session_that_was_silent_for_long_is_heard_among_many() {
    let mut w = World::new();
    let o = QpOptions::of(RC);
    let mut qps = Vec::new();
    for endpoint in 0..200 {
        let p = w.spawn(1, endpoint);
        let qp = w.qp(p, o);
        w.connect(&qp, o, endpoint, qp.qpn);
        qps.push(qp);
    }
    w.settle();
    for (n, qp) in qps.iter_mut().enumerate() {
        w.post(qp, &Wr::new(Op::RdmaWrite, n as u64));
        assert!(w.engine.has_work());
        let mut turns = 0;
        while qp.cq.poll().is_none() {
            w.turn();
            turns += 1;
            assert!(turns < 20);
        }
    }
}

#[test]
fn many_waits_for_receives_are_looked_at_in_turn() {
    let mut w = World::pair_of_processes();
    let o = QpOptions::of(RC);
    let mut pairs: Vec<_> = (0..300).map(|_| w.connected(o)).collect();
    for (a, _) in &mut pairs {
        w.post(a, &Wr::new(Op::Send, 1));
    }
    w.settle();
    for (_, b) in &mut pairs {
        w.recv(b, 2, &[]);
    }
    for _ in 0..10 {
        w.turn();
    }
    for (a, b) in &mut pairs {
        assert_eq!(a.cq.results(), [(1, Success)]);
        assert_eq!(b.rcq.results(), [(2, Success)]);
    }
}
