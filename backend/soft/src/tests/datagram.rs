//! Unreliable datagrams.

use super::harness::*;
use masq_device::{Destination, EndpointKey};
use masq_spec::queue::{SendOpcode as Op, WcFlags, WcStatus::*};
use masq_spec::verbs::{Access, State};

const QKEY: u32 = 0x1111;

fn world() -> (World, TestQp, TestQp, u32) {
    let mut w = World::pair_of_processes();
    let (a, b) = w.connected(QpOptions::of(UD));
    let ah = w.ah(0, 1, Destination::Endpoint(EndpointKey(2)));
    (w, a, b, ah)
}

#[test]
fn a_datagram_arrives_behind_its_header() {
    let (mut w, mut a, mut b, ah) = world();
    let (src, data) = w.pattern(0, 4096, 1);
    let dst = w.register(1, 1, 8192, ALL);
    w.recv(&mut b, 1, &[dst.sge(0, 20), dst.sge(100, 4116)]);
    let wr = Wr::new(Op::SendWithImm, 2)
        .sge(src.sge(0, 1000))
        .sge(src.sge(1000, 3096));
    w.post(&mut a, &wr.imm(0x77).addressed(ah, b.qpn, QKEY));
    w.settle();
    assert_eq!(a.cq.results(), [(2, Success)]);
    let got = b.rcq.poll().unwrap();
    assert_eq!(
        (got.byte_len, got.imm_data, got.src_qp),
        (4136, 0x77, a.qpn)
    );
    assert_eq!(got.flags, (WcFlags::GRH | WcFlags::WITH_IMM).bits());
    assert_eq!((got.qp_num, got.sl), (b.qpn, 2));
    assert_eq!(w.read(1, dst.addr + 120, 4096), data);
    assert_eq!(w.counters(&b).rx_bytes, 4096);
}

#[test]
fn a_handle_for_a_service_reaches_the_services_queue_pair_only() {
    let (mut w, mut a, mut b, _) = world();
    let (_, mut other) = w.connected(QpOptions::of(UD));
    w.only = Some([b.qpn].into());
    let ah = w.ah(0, 1, Destination::Endpoint(EndpointKey(2)));
    let dst = w.register(1, 1, 8192, ALL);
    for qp in [&mut b, &mut other] {
        w.recv(qp, 1, &[dst.all()]);
    }
    for qpn in [other.qpn, b.qpn] {
        let wr = Wr::new(Op::Send, 2).inline(&[5; 100]);
        w.post(&mut a, &wr.addressed(ah, qpn, QKEY));
    }
    w.settle();
    assert_eq!(a.cq.results(), [(2, Success), (2, Success)]);
    assert_eq!(w.counters(&a).dropped, 1);
    assert_eq!(b.rcq.poll().map(|cqe| cqe.byte_len), Some(140));
    assert!(
        other.rcq.poll().is_none(),
        "another queue pair of the endpoint"
    );
}

#[test]
fn the_header_of_an_ipv4_datagram_is_true() {
    let (mut w, mut a, mut b, ah) = world();
    let dst = w.register(1, 1, 8192, ALL);
    w.recv(&mut b, 1, &[dst.all()]);
    w.post(
        &mut a,
        &Wr::new(Op::Send, 2)
            .inline(&[5; 100])
            .addressed(ah, b.qpn, QKEY),
    );
    w.settle();
    let grh = w.read(1, dst.addr, 40);
    assert_eq!(grh[..20], [0; 20]);
    let ip = &grh[20..];
    assert_eq!((ip[0], ip[1], ip[8], ip[9]), (0x45, 3, 7, 17));
    // IPv4, UDP, BTH, DETH, payload, ICRC.
    assert_eq!(
        u16::from_be_bytes([ip[2], ip[3]]),
        20 + 8 + 12 + 8 + 100 + 4
    );
    assert_eq!(ip[12..16], [10, 0, 0, 1]);
    assert_eq!(ip[16..20], [10, 0, 0, 2]);
    let sum: u32 = ip
        .chunks(2)
        .map(|p| u32::from(p[0]) << 8 | u32::from(p[1]))
        .sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "checksum");
}

#[test]
fn the_header_of_an_ipv6_datagram_is_true() {
    let mut w = World::new();
    let gids = [[0xfd; 16], [0xfe; 16]];
    w.spawn_with(1, 1, gids[0], None);
    w.spawn_with(1, 2, gids[1], None);
    let (mut a, mut b) = w.connected(QpOptions::of(UD));
    let ah = w.ah(0, 1, Destination::Endpoint(EndpointKey(2)));
    let dst = w.register(1, 1, 8192, ALL);
    w.recv(&mut b, 1, &[dst.all()]);
    w.post(
        &mut a,
        &Wr::new(Op::Send, 2)
            .inline(&[5; 100])
            .addressed(ah, b.qpn, QKEY),
    );
    w.settle();
    let grh = w.read(1, dst.addr, 40);
    let first = u32::from_be_bytes([grh[0], grh[1], grh[2], grh[3]]);
    assert_eq!(first, 6 << 28 | 3 << 20 | 0xabcde);
    assert_eq!(u16::from_be_bytes([grh[4], grh[5]]), 8 + 12 + 8 + 100 + 4);
    assert_eq!((grh[6], grh[7]), (17, 7));
    assert_eq!(grh[8..24], gids[0]);
    assert_eq!(grh[24..], gids[1]);
}

/// Sends one datagram that must vanish without a trace at the receiver.
fn dropped(make: impl FnOnce(&mut World, &TestQp, &TestQp, u32) -> Wr) {
    let (mut w, mut a, mut b, ah) = world();
    let dst = w.register(1, 1, 8192, ALL);
    w.recv(&mut b, 1, &[dst.all()]);
    let wr = make(&mut w, &a, &b, ah).inline(b"hello");
    w.post(&mut a, &wr);
    w.settle();
    assert_eq!(a.cq.results(), [(wr.wqe.wr_id, Success)]);
    assert_eq!(w.counters(&a).dropped, 1);
    assert!(b.rcq.poll().is_none());
    assert_eq!(w.async_events(1), []);
}

#[test]
fn a_datagram_that_nobody_takes_is_dropped() {
    let wr = || Wr::new(Op::Send, 1);
    dropped(|_, _, b, ah| wr().addressed(ah, b.qpn, QKEY + 1));
    dropped(|_, _, b, ah| wr().addressed(ah, b.qpn ^ 1, QKEY));
    dropped(|w, _, b, _| {
        let wrong = w.ah(0, 1, Destination::Endpoint(EndpointKey(1)));
        wr().addressed(wrong, b.qpn, QKEY)
    });
    dropped(|w, _, b, ah| {
        w.enter(b, State::Reset).unwrap();
        wr().addressed(ah, b.qpn, QKEY)
    });
    dropped(|w, _, _, ah| {
        let rc = w.qp(1, QpOptions::of(RC));
        w.connect(&rc, QpOptions::of(RC), 1, 5);
        wr().addressed(ah, rc.qpn, QKEY)
    });
    // Same endpoint key, other tenant.
    dropped(|w, _, _, ah| {
        let red = w.spawn(2, 2);
        let mut o = w.qp(red, QpOptions::of(UD));
        w.connect(&o, QpOptions::of(UD), 0, 0);
        w.recv(&mut o, 1, &[]);
        wr().addressed(ah, o.qpn, QKEY)
    });
}

/// How long a message without a receive is held.
const HOLD: u64 = 100_000_000;

#[test]
fn a_datagram_waits_a_little_for_a_receive_and_is_then_dropped() {
    let (mut w, mut a, mut b, ah) = world();
    let dst = w.register(1, 1, 8192, ALL);
    let qpn = b.qpn;
    let send = |id| {
        Wr::new(Op::Send, id)
            .inline(b"hello")
            .addressed(ah, qpn, QKEY)
    };
    w.post(&mut a, &send(0));
    w.settle();
    assert_eq!(a.cq.results(), [(0, Success)], "nobody ever received here");
    w.recv(&mut b, 7, &[dst.all()]);
    w.post(&mut a, &send(7));
    w.settle();
    assert_eq!(a.cq.results(), [(7, Success)]);
    assert_eq!(b.rcq.results(), [(7, Success)]);
    w.post(&mut a, &send(1));
    w.settle();
    assert!(a.cq.poll().is_none(), "held, not dropped");
    w.recv(&mut b, 1, &[dst.all()]);
    w.settle();
    assert_eq!(a.cq.results(), [(1, Success)]);
    assert_eq!(b.rcq.results(), [(1, Success)]);

    w.post(&mut a, &send(2));
    w.pass(HOLD);
    assert_eq!(a.cq.results(), [(2, Success)]);
    assert_eq!(w.counters(&a).dropped, 2);
    // A receiver that let one starve costs its senders no more time.
    w.post(&mut a, &send(3));
    w.settle();
    assert_eq!(a.cq.results(), [(3, Success)]);
    assert_eq!(w.counters(&a).dropped, 3);
    // Until it takes one again.
    w.recv(&mut b, 4, &[dst.all()]);
    w.post(&mut a, &send(4));
    w.settle();
    assert_eq!(b.rcq.results(), [(4, Success)]);
    w.post(&mut a, &send(5));
    w.settle();
    assert_eq!(a.cq.results(), [(4, Success)], "the fifth is held");
}

#[test]
fn a_controlled_qkey_stands_for_the_senders_own() {
    let (mut w, mut a, mut b, ah) = world();
    let dst = w.register(1, 1, 8192, ALL);
    w.recv(&mut b, 1, &[dst.all()]);
    w.post(&mut a, &Wr::new(Op::Send, 1).addressed(ah, b.qpn, 1 << 31));
    w.settle();
    assert_eq!(b.rcq.results(), [(1, Success)]);
}

#[test]
fn a_datagram_is_at_most_the_mtu() {
    let (mut w, mut a, b, ah) = world();
    let (src, _) = w.pattern(0, 8192, 1);
    w.post(
        &mut a,
        &Wr::new(Op::Send, 1)
            .sge(src.sge(0, 4097))
            .addressed(ah, b.qpn, QKEY),
    );
    w.settle();
    assert_eq!(a.cq.results(), [(1, LocLenErr)]);
    assert_eq!(w.state(&a), State::Sqe);
}

#[test]
fn an_address_handle_serves_its_domain_and_session() {
    for n in 0..3 {
        let (mut w, mut a, mut b, ah) = world();
        let bad = match n {
            0 => w.ah(0, 2, Destination::Endpoint(EndpointKey(2))),
            1 => w.ah(1, 1, Destination::Endpoint(EndpointKey(2))) + 1000,
            _ => {
                let s = w.procs[0].s;
                w.engine.destroy_ah(s, ah).unwrap();
                ah
            }
        };
        w.recv(&mut b, 1, &[]);
        w.post(&mut a, &Wr::new(Op::Send, 1).addressed(bad, b.qpn, QKEY));
        w.settle();
        assert_eq!(a.cq.results(), [(1, LocQpOpErr)]);
        assert!(b.rcq.poll().is_none());
    }
}

#[test]
fn a_bad_receive_of_a_datagram_fails_its_owner_only() {
    let (mut w, mut a, mut b, ah) = world();
    let fixed = w.register(1, 1, 4096, ALL - Access::LOCAL_WRITE);
    w.recv(&mut b, 1, &[fixed.all()]);
    w.post(&mut a, &Wr::new(Op::Send, 1).addressed(ah, b.qpn, QKEY));
    w.settle();
    assert_eq!(a.cq.results(), [(1, Success)]);
    assert_eq!(b.rcq.results(), [(1, LocProtErr)]);
    assert_eq!(w.state(&b), State::Err);
}

#[test]
fn a_queue_pair_may_send_to_itself() {
    let (mut w, mut a, _, _) = world();
    let ah = w.ah(0, 1, Destination::Endpoint(EndpointKey(1)));
    let (mr, _) = w.pattern(0, 4096, 1);
    w.recv(&mut a, 1, &[mr.all()]);
    let wr = Wr::new(Op::Send, 2)
        .inline(b"self")
        .addressed(ah, a.qpn, QKEY);
    w.post(&mut a, &wr);
    w.settle();
    assert_eq!(a.rcq.results(), [(1, Success)]);
    assert_eq!(w.read(0, mr.addr + 40, 4), b"self");
}
