//! States: flush, drain, reset, destroy, close, in the middle of things.

use super::harness::*;
use masq_datapath::Engine as _;
use masq_device::Destination;
use masq_spec::event::AsyncEvent::*;
use masq_spec::queue::{SendFlags, SendOpcode as Op, WcStatus::*};
use masq_spec::verbs::{QpAttr, QpMask, State};

/// A transfer of 4 MiB from a to b, begun and not ended.
fn in_mid_message(op: Op) -> (World, TestQp, TestQp, Mr) {
    let mut w = World::pair_of_processes();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let (src, _) = w.pattern(0, 4 << 20, 1);
    let dst = w.register(1, 1, 4 << 20, ALL);
    w.recv(&mut b, 50, &[dst.all()]);
    w.recv(&mut b, 51, &[dst.all()]);
    let wr = Wr::new(op, 1).sge(src.all()).remote(dst.addr, dst.key);
    w.post(&mut a, &wr);
    w.post(&mut a, &Wr::new(Op::Send, 2).flags(SendFlags::empty()));
    for _ in 0..4 {
        w.turn();
    }
    assert!(a.cq.poll().is_none() && b.rcq.poll().is_none());
    (w, a, b, dst)
}

#[test]
fn error_flushes_sends_and_receives_in_order() {
    let mut w = World::pair_of_processes();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    for n in 0..5 {
        w.recv(&mut b, n, &[]);
        w.post_quietly(&mut b, &Wr::new(Op::Send, 10 + n).flags(SendFlags::empty()));
    }
    w.enter(&b, State::Err).unwrap();
    w.settle();
    let flushed = |from| {
        (from..from + 5)
            .map(|n| (n, WrFlushErr))
            .collect::<Vec<_>>()
    };
    assert_eq!(b.rcq.results(), flushed(0));
    assert_eq!(b.cq.results(), flushed(10));
    assert_eq!(w.async_events(1), []);
    // What is posted afterwards is flushed too.
    w.recv(&mut b, 9, &[]);
    w.post(&mut b, &Wr::new(Op::Send, 19));
    w.settle();
    assert_eq!(b.rcq.results(), [(9, WrFlushErr)]);
    assert_eq!(b.cq.results(), [(19, WrFlushErr)]);
    assert!(a.cq.poll().is_none());
}

#[test]
fn the_operator_may_fail_a_queue_pair() {
    let mut w = World::pair_of_processes();
    let (mut a, _b) = w.connected(QpOptions::of(RC));
    w.recv(&mut a, 1, &[]);
    let s = w.procs[0].s;
    w.engine.fail_qp(s, a.handle, "because").unwrap();
    w.settle();
    assert_eq!(w.async_events(0), [(QpFatal, a.handle)]);
    assert_eq!(a.rcq.results(), [(1, WrFlushErr)]);
    assert_eq!(
        w.engine.query_qp(s, a.handle).unwrap().cause,
        Some("because")
    );
}

#[test]
fn a_failed_sender_flushes_and_the_receiver_keeps_its_receive_until_its_own_end() {
    for op in [Op::Send, Op::RdmaWriteWithImm] {
        let (mut w, mut a, mut b, _) = in_mid_message(op);
        w.enter(&a, State::Err).unwrap();
        w.settle();
        assert_eq!(a.cq.results(), [(1, WrFlushErr), (2, WrFlushErr)]);
        assert!(b.rcq.poll().is_none());
        w.enter(&b, State::Err).unwrap();
        w.settle();
        assert_eq!(b.rcq.results(), [(50, WrFlushErr), (51, WrFlushErr)]);
    }
}

#[test]
fn a_failed_receiver_flushes_the_receive_in_use_first() {
    let (mut w, mut a, mut b, dst) = in_mid_message(Op::Send);
    w.enter(&b, State::Err).unwrap();
    let copied = w.read(1, dst.addr, 4 << 20);
    w.settle();
    assert_eq!(b.rcq.results(), [(50, WrFlushErr), (51, WrFlushErr)]);
    w.pass(10_000_000_000);
    assert_eq!(a.cq.results(), [(1, RetryExcErr), (2, WrFlushErr)]);
    assert_eq!(
        w.read(1, dst.addr, 4 << 20),
        copied,
        "written after the flush"
    );
}

#[test]
fn a_destroyed_receiver_is_not_written_to_again() {
    let (mut w, mut a, mut b, dst) = in_mid_message(Op::RdmaWrite);
    let s = w.procs[1].s;
    w.engine.destroy_qp(s, b.handle).unwrap();
    let copied = w.read(1, dst.addr, 4 << 20);
    // The index of the slab is used again, by a queue pair of another peer.
    let (mut x, mut y) = w.connected(QpOptions::of(RC));
    w.recv(&mut y, 1, &[dst.all()]);
    w.post(&mut x, &Wr::new(Op::Send, 1));
    w.pass(10_000_000_000);
    assert_eq!(a.cq.results(), [(1, RetryExcErr), (2, WrFlushErr)]);
    assert_eq!(w.read(1, dst.addr, 4 << 20), copied);
    assert_eq!(y.rcq.results(), [(1, Success)]);
    assert!(b.rcq.poll().is_none());
}

#[test]
fn a_destroyed_sender_leaves_its_peer_alone() {
    let (mut w, a, mut b, _) = in_mid_message(Op::Send);
    let s = w.procs[0].s;
    w.engine.destroy_qp(s, a.handle).unwrap();
    w.settle();
    assert_eq!(w.state(&b), State::Rts);
    assert!(b.rcq.poll().is_none());
}

#[test]
fn a_receiver_that_was_reset_gets_nothing_of_the_old_message() {
    let (mut w, mut a, mut b, dst) = in_mid_message(Op::Send);
    let o = QpOptions::of(RC);
    w.enter(&b, State::Reset).unwrap();
    let ring = b.rq.unwrap();
    ring.clear();
    b.rq_tail = 0;
    w.connect(&b, o, 1, a.qpn);
    let copied = w.read(1, dst.addr, 4 << 20);
    w.settle();
    assert_eq!(w.read(1, dst.addr, 4 << 20), copied, "into the old receive");
    assert!(
        b.rcq.poll().is_none(),
        "completed a receive of before the reset"
    );
    // It begins anew after the timeout, into a receive of now.
    let fresh = w.register(1, 1, 4 << 20, ALL);
    w.recv(&mut b, 60, &[fresh.all()]);
    w.recv(&mut b, 61, &[]);
    w.pass(4096 << 14);
    assert_eq!(b.rcq.results(), [(60, Success), (61, Success)]);
    assert_eq!(a.cq.results(), [(1, Success)]);
}

#[test]
fn reset_clears_what_was_posted_and_counts_from_zero() {
    let mut w = World::pair_of_processes();
    let o = QpOptions::of(RC);
    let (mut a, mut b) = w.connected(o);
    for n in 0..3 {
        w.recv(&mut a, n, &[]);
    }
    // Waits for a receive of b.
    w.post(&mut a, &Wr::new(Op::Send, 1));
    w.settle();
    w.enter(&a, State::Reset).unwrap();
    a.sq.clear();
    a.rq.unwrap().clear();
    (a.sq_tail, a.rq_tail) = (0, 0);
    w.recv(&mut b, 7, &[]);
    w.pass(1_000_000_000);
    assert!(a.cq.poll().is_none() && a.rcq.poll().is_none() && b.rcq.poll().is_none());
    w.connect(&a, o, 2, b.qpn);
    w.post(&mut a, &Wr::new(Op::Send, 2));
    w.settle();
    assert_eq!(a.cq.results(), [(2, Success)]);
    assert_eq!(b.rcq.results(), [(7, Success)]);
}

#[test]
fn a_drained_send_queue_says_so_once_its_request_is_done() {
    let (mut w, mut a, _b, _) = in_mid_message(Op::RdmaWrite);
    let attr = QpAttr {
        qp_state: State::Sqd as u32,
        en_sqd_async_notify: 1,
        ..QpAttr::default()
    };
    let mask = QpMask::STATE | QpMask::EN_SQD_ASYNC_NOTIFY;
    w.modify(&a, mask, attr, None).unwrap();
    w.turn();
    assert_eq!(w.async_events(0), [], "not drained yet");
    w.settle();
    assert_eq!(a.cq.results(), [(1, Success)]);
    assert_eq!(w.async_events(0), [(SqDrained, a.handle)]);
    w.post(&mut a, &Wr::new(Op::RdmaWrite, 3));
    w.settle();
    assert!(a.cq.poll().is_none(), "nothing new in SQD");
    let s = w.procs[0].s;
    assert_eq!(w.engine.query_qp(s, a.handle).unwrap().attr.sq_draining, 0);
    w.enter(&a, State::Rts).unwrap();
    w.settle();
    // 2 was sent unsignalled.
    assert_eq!(a.cq.results(), [(3, Success)]);
}

#[test]
fn a_process_that_vanishes_is_a_silent_peer() {
    for op in [Op::Send, Op::RdmaWrite] {
        let (mut w, mut a, _b, _) = in_mid_message(op);
        let s = w.procs[1].s;
        let remains = w.engine.close(s);
        drop(remains);
        // Another process takes its place in every table.
        let third = w.spawn(1, 2);
        assert_eq!(w.procs[third].s, s);
        let _stranger = w.qp(third, QpOptions::of(RC));
        w.pass(10_000_000_000);
        assert_eq!(a.cq.results(), [(1, RetryExcErr), (2, WrFlushErr)]);
        assert_eq!(w.events(third), []);
    }
}

#[test]
fn a_process_that_vanishes_in_the_middle_of_its_own_message_leaves_nothing() {
    let (mut w, _a, mut b, _) = in_mid_message(Op::RdmaRead);
    let s = w.procs[0].s;
    drop(w.engine.close(s));
    w.settle();
    assert!(!w.engine.has_work());
    assert_eq!(w.state(&b), State::Rts);
    assert!(b.rcq.poll().is_none());
    assert_eq!(w.engine.counts().0, 1, "queue pairs");
    let s = w.procs[1].s;
    drop(w.engine.close(s));
    assert_eq!(w.engine.counts(), (0, 0, 0, 0, 0));
}

#[test]
fn ud_and_uc_stop_sending_after_an_error_and_recover() {
    for qp_type in [UC, UD] {
        let mut w = World::pair_of_processes();
        let (mut a, mut b) = w.connected(QpOptions::of(qp_type));
        let ah = w.ah(0, 1, Destination::Endpoint(masq_device::EndpointKey(2)));
        let dst = w.register(1, 1, 4096, ALL);
        w.recv(&mut b, 1, &[dst.all()]);
        w.recv(&mut a, 77, &[]);
        let mut bad = Wr::new(Op::Send, 1);
        bad.opcode = 99;
        w.post(&mut a, &bad);
        w.post(&mut a, &Wr::new(Op::Send, 2));
        w.settle();
        assert_eq!(a.cq.results(), [(1, LocQpOpErr), (2, WrFlushErr)]);
        assert_eq!(w.state(&a), State::Sqe);
        assert!(a.rcq.poll().is_none(), "receives live on");
        w.enter(&a, State::Rts).unwrap();
        w.post(&mut a, &Wr::new(Op::Send, 3).addressed(ah, b.qpn, 0x1111));
        w.settle();
        assert_eq!(a.cq.results(), [(3, Success)]);
        assert_eq!(b.rcq.results(), [(1, Success)]);
    }
}

#[test]
fn data_in_rtr_is_taken_and_told() {
    let mut w = World::pair_of_processes();
    let o = QpOptions::of(RC);
    let (mut a, mut b) = (w.qp(0, o), w.qp(1, o));
    w.connect(&a, o, 2, b.qpn);
    w.enter_init(&b, o);
    w.recv(&mut b, 1, &[]);
    w.recv(&mut b, 2, &[]);
    w.enter_rtr(&b, o, 1, a.qpn);
    w.post(&mut b, &Wr::new(Op::Send, 9));
    w.post(&mut a, &Wr::new(Op::Send, 1));
    w.post(&mut a, &Wr::new(Op::Send, 2));
    w.settle();
    assert_eq!(b.rcq.results(), [(1, Success), (2, Success)]);
    assert_eq!(w.async_events(1), [(CommEst, b.handle)]);
    assert!(b.cq.poll().is_none(), "nothing is sent in RTR");
    w.recv(&mut a, 3, &[]);
    w.enter_rts(&b, o);
    w.settle();
    assert_eq!(b.cq.results(), [(9, Success)]);
}
