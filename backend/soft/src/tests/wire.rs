//! What only peers on other hosts have: packets that are nobody's, a network
//! that loses, hosts that vanish.

use super::harness::*;
use masq_datapath::Engine as _;
use masq_device::{Arrival, Destination, EndpointKey, MAD_LEN, Sender, SenderKey};
use masq_port::memory::{Faults, MemoryPort};
use masq_port::{Path, Port};
use masq_spec::event::AsyncEvent;
use masq_spec::queue::{SendOpcode as Op, WcFlags, WcStatus::*};
use masq_spec::verbs::{Gid, State};
use masq_wire::{
    Bth, Deth, Extended, Headers, Mtu, Opcode, PKey, Psn, QKey, Qpn, Reth, TrafficClass, build,
};
use std::net::{IpAddr, Ipv4Addr};

const PARTITION: PKey = PKey(0x8001);
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 66));

/// A host that writes its packets by hand.
fn other_host(w: &World, address: IpAddr) -> MemoryPort {
    let network = &w.wired.as_ref().unwrap().network;
    network.port(address, Mtu::B4096).unwrap()
}

fn inject(port: &mut MemoryPort, to: IpAddr, headers: &Headers, payload: &[u8]) {
    let path = Path {
        to,
        traffic_class: TrafficClass(0),
        hop_limit: 64,
    };
    let len = usize::from(headers.emit(payload.len()).unwrap().packet_len());
    let place = port.place(&path, len).unwrap();
    let (flow, ip_id) = (place.flow, place.ip_id);
    build(headers, &[payload], &flow, ip_id, place.buffer).unwrap();
    port.commit();
    port.flush();
}

fn bth(opcode: Opcode, qpn: u32, psn: u32) -> Bth {
    let mut bth = Bth::new(opcode, Qpn::new(qpn), Psn::new(psn));
    bth.pkey = PARTITION;
    bth
}

fn dropped(w: &World, reason: &str) -> u64 {
    w.engine.wire_report().unwrap().dropped[reason]
}

#[test]
fn every_opcode_survives_a_network_that_loses_repeats_and_turns_bits() {
    for seed in 0..40 {
        let mut w = World::new();
        w.wire_up(seed);
        w.spawn(1, 1);
        w.spawn(1, 2);
        w.wired.as_ref().unwrap().network.set_faults(Faults {
            lose: 30,
            duplicate: 20,
            reorder: 50,
            corrupt: 10,
            mark: 10,
        });
        let (mut a, mut b) = w.connected(QpOptions::of(RC));
        let (src, data) = w.pattern(0, 150_000, seed as u8);
        let back = w.register(0, 1, 150_000, ALL);
        let dst = w.register(1, 1, 300_000, ALL);
        let counter = w.register(1, 1, 8, ALL);
        w.recv(&mut b, 50, &[dst.sge(150_000, 150_000)]);
        w.recv(&mut b, 51, &[]);
        let write = Wr::new(Op::RdmaWrite, 1).sge(src.all());
        w.post(&mut a, &write.remote(dst.addr, dst.key));
        w.post(&mut a, &Wr::new(Op::Send, 2).sge(src.all()));
        let read = Wr::new(Op::RdmaRead, 3).sge(back.all());
        w.post(&mut a, &read.remote(dst.addr, dst.key));
        for id in 4..10 {
            let add = Wr::new(Op::FetchAdd, id).sge(back.sge(0, 8));
            w.post(&mut a, &add.remote(counter.addr, counter.key).atomic(1, 0));
        }
        let notify = Wr::new(Op::RdmaWriteWithImm, 10).imm(77);
        w.post(&mut a, &notify.remote(dst.addr, dst.key));
        w.pass(400_000_000);
        let expect: Vec<_> = (1..=10).map(|id| (id, Success)).collect();
        assert_eq!(a.cq.results(), expect, "seed {seed}");
        assert_eq!(b.rcq.results(), [(50, Success), (51, Success)]);
        assert!(w.read(1, dst.addr, 150_000) == data, "seed {seed}");
        assert!(w.read(1, dst.addr + 150_000, 150_000) == data);
        // The atomics came last and wrote what they found.
        assert_eq!(w.read_u64(0, back.addr), 5);
        assert!(w.read(0, back.addr + 8, 149_992) == data[8..]);
        assert_eq!(w.read_u64(1, counter.addr), 6);
    }
}

#[test]
fn what_was_acknowledged_completes_before_what_follows_arrives() {
    let mut w = World::pair_over_the_wire();
    let o = QpOptions::of(RC);
    let cq = w.cq(0, 16, None);
    let (mut a, mut b) = (w.qp_on(0, o, cq, cq), w.qp(1, o));
    w.connect(&a, o, 2, b.qpn);
    w.connect(&b, o, 1, a.qpn);
    w.recv(&mut a, 1, &[]);
    w.recv(&mut b, 2, &[]);
    w.post(&mut a, &Wr::new(Op::Send, 3));
    w.turn();
    // Both leave in one turn, and are received in one.
    let sent = w.engine.wire_report().unwrap().sent_packets;
    w.post(&mut b, &Wr::new(Op::Send, 4));
    w.turn();
    assert_eq!(w.engine.wire_report().unwrap().sent_packets, sent + 2);
    w.settle();
    assert_eq!(a.cq.results(), [(3, Success), (1, Success)]);
    assert_eq!(b.cq.results(), [(4, Success)]);
}

#[test]
fn a_turn_ends_where_a_train_does_and_the_next_pays_for_it() {
    // What the port in memory takes for a train.
    const TRAIN: u64 = 16;
    const TURN: u64 = 256 << 10;
    let mut w = World::pair_over_the_wire();
    let (mut a, _b) = w.connected(QpOptions::of(UC));
    let (src, _) = w.pattern(0, 20_000, 1);
    let dst = w.register(1, 1, 20_000, ALL);
    let mut sent = vec![w.engine.wire_report().unwrap().sent_packets];
    for id in 0..60 {
        let write = Wr::new(Op::RdmaWrite, id).sge(src.all());
        w.post_quietly(&mut a, &write.remote(dst.addr, dst.key));
    }
    w.ring_doorbell(&a);
    while w.turn() {
        sent.push(w.engine.wire_report().unwrap().sent_packets);
    }
    assert_eq!(a.cq.results().len(), 60);
    let of_turns: Vec<u64> = sent.windows(2).map(|two| two[1] - two[0]).collect();
    let last = of_turns.iter().rposition(|sent| *sent > 0).unwrap();
    let mut allowed = 0;
    let mut bytes = 0;
    for packets in &of_turns[..last] {
        assert!(packets.is_multiple_of(TRAIN), "{of_turns:?}");
        // A message of 20,000 bytes takes five packets.
        (allowed, bytes) = (allowed + TURN, bytes + packets * 4000);
        assert!(bytes <= allowed + TRAIN * 4096, "{of_turns:?}");
    }
    assert!(last >= 3, "{of_turns:?}");
}

#[test]
fn what_no_host_answers_ends_when_the_attributes_say() {
    let mut w = World::pair_over_the_wire();
    let mut options = QpOptions::of(RC);
    (options.timeout, options.retry_cnt) = (14, 3);
    let (mut a, _b) = w.connected(options);
    let (src, _) = w.pattern(0, 10_000, 1);
    w.wired.as_ref().unwrap().network.set_faults(Faults {
        lose: 1000,
        ..Faults::default()
    });
    w.post(&mut a, &Wr::new(Op::Send, 1).sge(src.all()));
    w.post(&mut a, &Wr::new(Op::Send, 2).sge(src.all()));
    // 4.096 µs × 2^14, four times.
    w.pass(4 * 67_108_864 - 1_000_000);
    assert_eq!(a.cq.results(), []);
    w.pass(2_000_000);
    assert_eq!(a.cq.results(), [(1, RetryExcErr), (2, WrFlushErr)]);
    assert_eq!(w.state(&a), State::Err);
}

#[test]
fn a_packet_counts_only_from_the_connected_host_in_its_partition() {
    let mut w = World::pair_over_the_wire();
    let (_a, mut b) = w.connected(QpOptions::of(RC));
    let (dst, before) = w.pattern(1, 4096, 3);
    w.recv(&mut b, 1, &[dst.all()]);
    let reth = Extended::Reth(Reth {
        address: dst.addr,
        rkey: masq_wire::RKey(dst.key),
        length: 4,
    });
    let write = |bth| Headers {
        bth,
        extended: reth,
    };
    // The right number, PSN and key, but from elsewhere.
    let mut other = other_host(&w, OTHER);
    inject(
        &mut other,
        HOST,
        &write(bth(Opcode::RcWriteOnly, b.qpn, 0)),
        b"evil",
    );
    w.settle();
    assert_eq!(dropped(&w, "wrong_host"), 1);
    // From the right host, but of another tenant.
    let mut same = other_host(&w, HOST);
    let mut foreign = bth(Opcode::RcWriteOnly, b.qpn, 0);
    foreign.pkey = PKey(0x8002);
    inject(&mut same, HOST, &write(foreign), b"evil");
    w.settle();
    assert_eq!(dropped(&w, "wrong_partition"), 1);
    inject(
        &mut other,
        HOST,
        &write(bth(Opcode::RcWriteOnly, b.qpn ^ 1, 0)),
        b"evil",
    );
    w.settle();
    assert_eq!(dropped(&w, "unknown_qp"), 1);
    assert_eq!(w.read(1, dst.addr, 4096), before);
    assert_eq!(w.state(&b), State::Rts);
    assert!(b.rcq.poll().is_none());
    // The same packet as the peer would send it: the test can fail.
    inject(
        &mut same,
        HOST,
        &write(bth(Opcode::RcWriteOnly, b.qpn, 0)),
        b"good",
    );
    w.settle();
    assert_eq!(w.read(1, dst.addr, 4), b"good");
}

#[test]
fn garbage_of_the_connected_host_harms_its_own_connection_at_most() {
    let mut w = World::pair_over_the_wire();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let (mut c, mut d) = w.connected(QpOptions::of(RC));
    let (src, data) = w.pattern(0, 9000, 3);
    let dst = w.register(1, 1, 9000, ALL);
    let mut same = other_host(&w, HOST);
    let mut random = 7u64;
    for _ in 0..3000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(99);
        let opcode = Opcode::from_code((random >> 40) as u8 % 0x40);
        let Some(opcode) = opcode else { continue };
        let headers = Headers {
            bth: bth(opcode, b.qpn, (random >> 50) as u32 % 16),
            extended: Extended::read(
                opcode.traits().layout,
                &random.to_ne_bytes().repeat(4)[..opcode.traits().layout.len()],
            )
            .unwrap(),
        };
        let len = (random >> 20) as usize % 300;
        let payload = vec![random as u8; if opcode.traits().payload { len } else { 0 }];
        inject(&mut same, HOST, &headers, &payload);
        w.turn();
    }
    w.settle();
    w.recv(&mut d, 1, &[dst.all()]);
    w.post(&mut c, &Wr::new(Op::Send, 2).sge(src.all()));
    w.pass(1_000_000);
    assert_eq!(c.cq.results(), [(2, Success)]);
    assert_eq!(d.rcq.results(), [(1, Success)]);
    assert!(w.read(1, dst.addr, 9000) == data);
    // Whatever became of the other one, it can be destroyed and nothing stays.
    let _ = (a.cq.drain(), b.rcq.drain());
    for qp in [&a, &b] {
        let s = w.procs[qp.proc].s;
        w.engine.destroy_qp(s, qp.handle).unwrap();
    }
    w.settle();
}

#[test]
fn the_first_packet_establishes_a_connection_in_rtr() {
    let mut w = World::pair_over_the_wire();
    let o = QpOptions::of(RC);
    let (mut a, mut b) = (w.qp(0, o), w.qp(1, o));
    w.connect(&a, o, 2, b.qpn);
    w.enter_init(&b, o);
    w.enter_rtr(&b, o, 1, a.qpn);
    w.recv(&mut b, 5, &[]);
    w.post(&mut a, &Wr::new(Op::Send, 1));
    w.settle();
    assert_eq!(a.cq.results(), [(1, Success)]);
    assert_eq!(b.rcq.results(), [(5, Success)]);
    assert_eq!(w.async_events(1), [(AsyncEvent::CommEst, b.handle)]);
}

#[test]
fn a_receiver_that_is_late_is_waited_for() {
    let mut w = World::pair_over_the_wire();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    for id in 0..20 {
        w.post(&mut a, &Wr::new(Op::Send, id).inline(b"x"));
    }
    let dst = w.register(1, 1, 4096, ALL);
    w.pass(50_000_000);
    assert_eq!(a.cq.results(), []);
    for id in 0..20 {
        w.recv(&mut b, id, &[dst.all()]);
    }
    w.pass(50_000_000);
    let expect: Vec<_> = (0..20).map(|id| (id, Success)).collect();
    assert_eq!(a.cq.results(), expect);
    assert_eq!(b.rcq.results(), expect);
}

#[test]
fn a_draining_queue_ends_what_it_began_and_says_so() {
    let mut w = World::pair_over_the_wire();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let dst = w.register(1, 1, 4096, ALL);
    w.recv(&mut b, 1, &[dst.all()]);
    w.post(&mut a, &Wr::new(Op::Send, 1).inline(b"1"));
    w.turn();
    let attr = masq_spec::verbs::QpAttr {
        qp_state: State::Sqd as u32,
        en_sqd_async_notify: 1,
        ..Default::default()
    };
    use masq_spec::verbs::QpMask;
    let mask = QpMask::STATE | QpMask::EN_SQD_ASYNC_NOTIFY;
    w.modify(&a, mask, attr, None).unwrap();
    w.post(&mut a, &Wr::new(Op::Send, 2).inline(b"2"));
    w.pass(1_000_000);
    assert_eq!(a.cq.results(), [(1, Success)]);
    assert_eq!(w.async_events(0), [(AsyncEvent::SqDrained, a.handle)]);
    w.recv(&mut b, 2, &[dst.all()]);
    w.enter(&a, State::Rts).unwrap();
    w.pass(1_000_000);
    assert_eq!(a.cq.results(), [(2, Success)]);
}

// --- datagrams ---

fn unknown(w: &World) -> Vec<SenderKey> {
    let inbox = &w.wired.as_ref().unwrap().inbox;
    std::iter::from_fn(|| inbox.pop())
        .filter_map(|arrival| match arrival {
            Arrival::UnknownSender { sender } => Some(sender),
            Arrival::Management { .. } | Arrival::Unreachable { .. } => None,
        })
        .collect()
}

#[test]
fn a_datagram_waits_until_its_sender_is_known_and_shows_its_virtual_address() {
    let mut w = World::pair_over_the_wire();
    w.wired.as_mut().unwrap().introduces = false;
    let (mut a, mut b) = w.connected(QpOptions::of(UD));
    let (src, data) = w.pattern(0, 1000, 4);
    let dst = w.register(1, 1, 4096, ALL);
    let ah = w.ah(0, 1, Destination::Host(HOST));
    for id in 0..3 {
        w.recv(&mut b, id, &[dst.all()]);
        let send = Wr::new(Op::SendWithImm, id).sge(src.all()).imm(9);
        w.post(&mut a, &send.addressed(ah, b.qpn, 0x1111));
    }
    w.settle();
    assert!(b.rcq.poll().is_none());
    assert_eq!(a.cq.results().len(), 3);
    // Asked once.
    let asked = unknown(&w);
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].host, asked[0].qpn.get()), (HOST, a.qpn));
    w.introduce(asked[0]);
    for id in 0..3 {
        let got = b.rcq.poll().unwrap();
        assert_eq!((got.wr_id, status(&got), got.byte_len), (id, Success, 1040));
        assert_eq!((got.src_qp, got.imm_data), (a.qpn, 9));
        assert_eq!(got.flags, (WcFlags::GRH | WcFlags::WITH_IMM).bits());
    }
    let grh = w.read(1, dst.addr, 40);
    assert_eq!(
        grh[32..40],
        [10, 0, 0, 1, 10, 0, 0, 2],
        "virtual addresses only"
    );
    assert!(w.read(1, dst.addr + 40, 1000) == data);
    // Known now.
    w.recv(&mut b, 7, &[dst.all()]);
    let send = Wr::new(Op::Send, 7).sge(src.all());
    w.post(&mut a, &send.addressed(ah, b.qpn, 0x1111));
    w.settle();
    assert_eq!(b.rcq.results(), [(7, Success)]);
}

#[test]
fn a_datagram_counts_only_if_the_policy_lets_its_sender_through() {
    let mut w = World::pair_over_the_wire();
    w.wired.as_mut().unwrap().introduces = false;
    let (mut a, mut b) = w.connected(QpOptions::of(UD));
    let dst = w.register(1, 1, 4096, ALL);
    let ah = w.ah(0, 1, Destination::Host(HOST));
    let key = SenderKey {
        host: HOST,
        partition: PARTITION,
        qpn: Qpn::new(a.qpn),
    };
    w.recv(&mut b, 1, &[dst.all()]);
    let mut send = |w: &mut World| {
        let send = Wr::new(Op::Send, 1).inline(b"hello");
        w.post(&mut a, &send.addressed(ah, b.qpn, 0x1111));
        w.settle();
    };
    let who = |reach: &[u32]| {
        Some(Sender {
            gid: gid_of(1),
            trusted: false,
            reach: reach.iter().copied().map(EndpointKey).collect(),
        })
    };
    w.engine.learn(key, who(&[1]));
    send(&mut w);
    w.engine.learn(key, None);
    send(&mut w);
    assert_eq!(dropped(&w, "refused_datagram"), 2);
    assert!(b.rcq.poll().is_none());
    w.engine.learn(key, who(&[1, 2]));
    send(&mut w);
    assert_eq!(b.rcq.results(), [(1, Success)]);
    // Forgotten: asked again.
    w.engine.forget_senders();
    send(&mut w);
    assert_eq!(unknown(&w), [key]);
}

#[test]
fn datagrams_of_unknown_senders_are_held_in_bounded_number() {
    let mut w = World::pair_over_the_wire();
    w.wired.as_mut().unwrap().introduces = false;
    let (_a, b) = w.connected(QpOptions::of(UD));
    let mut other = other_host(&w, OTHER);
    for n in 0..2000 {
        let headers = Headers {
            bth: bth(Opcode::UdSendOnly, b.qpn, 0),
            extended: Extended::Deth(Deth {
                qkey: QKey(0x1111),
                src_qpn: Qpn::new(n + 2),
            }),
        };
        inject(&mut other, HOST, &headers, &[0; 4000]);
        w.turn();
    }
    assert!(
        dropped(&w, "slow_memory") >= 900,
        "{:?}",
        w.engine.wire_report()
    );
    assert!(unknown(&w).len() <= 256);
}

#[test]
fn management_datagrams_go_to_the_control_side_and_come_from_it() {
    let mut w = World::pair_over_the_wire();
    let mut other = other_host(&w, OTHER);
    let mad = [7; MAD_LEN];
    let gsi = |qkey| Headers {
        bth: bth(Opcode::UdSendOnly, 1, 0),
        extended: Extended::Deth(Deth {
            qkey,
            src_qpn: Qpn::GSI,
        }),
    };
    inject(&mut other, HOST, &gsi(QKey::GSI), &mad);
    // A tenant's Q_Key, and a tenant's length.
    inject(&mut other, HOST, &gsi(QKey(0x1111)), &mad);
    inject(&mut other, HOST, &gsi(QKey::GSI), &mad[..100]);
    w.engine.clock.set(w.now);
    w.engine.turn();
    let inbox = std::sync::Arc::clone(&w.wired.as_ref().unwrap().inbox);
    let got = inbox.pop();
    assert_eq!(
        got,
        Some(Arrival::Management {
            from: OTHER,
            partition: PARTITION,
            mad: Box::new(mad),
        })
    );
    assert_eq!(inbox.pop(), None);
    assert!(w.engine.send_management(OTHER, PARTITION, &[9; MAD_LEN]));
    assert_eq!(other.receive(), 1);
    let got = other.packet(0).unwrap();
    assert_eq!(got.packet.payload(), [9; MAD_LEN]);
    assert_eq!(got.packet.deth().unwrap().qkey(), QKey::GSI);
}

#[test]
fn groups_span_hosts_within_a_tenant() {
    const GROUP: Gid = [0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 239, 1, 2, 3];
    let address = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));
    let mut w = World::pair_over_the_wire();
    w.wired.as_mut().unwrap().introduces = false;
    let o = QpOptions::of(UD);
    let (mut a, mut b) = w.connected(o);
    let stranger = w.spawn(2, 9);
    let mut c = w.qp(stranger, o);
    w.connect(&c, o, 9, 0);
    for qp in [&b, &c] {
        let s = w.procs[qp.proc].s;
        w.engine.attach_multicast(s, qp.handle, GROUP).unwrap();
    }
    let dst = w.register(1, 1, 4096, ALL);
    w.recv(&mut b, 1, &[dst.all()]);
    w.recv(&mut c, 1, &[]);
    let mut other = other_host(&w, OTHER);
    other.join(address).unwrap();
    // Out.
    let ah = w.ah(0, 1, Destination::Multicast(GROUP));
    let send = Wr::new(Op::Send, 1).inline(b"out");
    w.post(&mut a, &send.addressed(ah, 0xff_ffff, 0x1111));
    w.settle();
    assert_eq!(other.receive(), 1);
    let got = other.packet(0).unwrap();
    assert_eq!(
        (got.packet.payload(), got.packet.bth().dest_qpn()),
        (&b"out"[..], Qpn::MULTICAST)
    );
    assert_eq!(got.packet.bth().pkey(), PARTITION);
    // In.
    let key = SenderKey {
        host: OTHER,
        partition: PARTITION,
        qpn: Qpn::new(0x77),
    };
    let sender = Sender {
        gid: gid_of(3),
        trusted: false,
        reach: vec![EndpointKey(2), EndpointKey(9)],
    };
    w.engine.learn(key, Some(sender));
    let headers = Headers {
        bth: bth(Opcode::UdSendOnly, 0xff_ffff, 0),
        extended: Extended::Deth(Deth {
            qkey: QKey(0x1111),
            src_qpn: Qpn::new(0x77),
        }),
    };
    inject(&mut other, address, &headers, b"in");
    w.settle();
    let got = b.rcq.poll().unwrap();
    assert_eq!((got.byte_len, got.src_qp), (42, 0x77));
    assert_eq!(w.read(1, dst.addr + 40, 2), b"in");
    assert_eq!(w.read(1, dst.addr + 32, 8), [10, 0, 0, 3, 239, 1, 2, 3]);
    assert!(c.rcq.poll().is_none(), "another tenant's group");
    // Left.
    let s = w.procs[b.proc].s;
    w.engine.detach_multicast(s, b.handle, GROUP).unwrap();
    w.recv(&mut b, 2, &[dst.all()]);
    inject(&mut other, address, &headers, b"in");
    w.settle();
    assert!(b.rcq.poll().is_none());
}

#[test]
fn a_connection_stays_where_it_is_and_within_the_networks_mtu() {
    use masq_spec::verbs::{QpAttr, QpMask};
    let mut w = World::new();
    w.wire_up_with(1, Mtu::B1024);
    w.spawn(1, 1);
    let o = QpOptions::of(RC);
    let a = w.qp(0, o);
    w.enter_init(&a, o);
    let to_rtr = QpMask::STATE
        | QpMask::AV
        | QpMask::PATH_MTU
        | QpMask::DEST_QPN
        | QpMask::RQ_PSN
        | QpMask::MAX_DEST_RD_ATOMIC
        | QpMask::MIN_RNR_TIMER;
    let attr = QpAttr {
        qp_state: State::Rtr as u32,
        path_mtu: 5,
        ..QpAttr::default()
    };
    let there = Some(Destination::Host(HOST));
    assert!(w.modify(&a, to_rtr, attr, there).is_err(), "4096 on 1024");
    assert_eq!(w.state(&a), State::Init);
    let attr = QpAttr {
        path_mtu: 3,
        ..attr
    };
    w.modify(&a, to_rtr, attr, there).unwrap();
    w.enter_rts(&a, o);
    w.enter(&a, State::Sqd).unwrap();
    let here = Some(Destination::Endpoint(EndpointKey(1)));
    let moved = w.modify(&a, QpMask::STATE | QpMask::AV, attr_in(State::Sqd), here);
    assert!(moved.is_err());
    w.modify(&a, QpMask::STATE | QpMask::AV, attr_in(State::Sqd), there)
        .unwrap();
}

fn attr_in(state: State) -> masq_spec::verbs::QpAttr {
    masq_spec::verbs::QpAttr {
        qp_state: state as u32,
        ..Default::default()
    }
}
