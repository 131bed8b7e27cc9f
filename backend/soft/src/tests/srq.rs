//! Shared receive queues.

use super::harness::*;
use masq_spec::event::AsyncEvent::*;
use masq_spec::queue::{SendOpcode as Op, WcStatus::*};
use masq_spec::verbs::State;

/// Pairs whose receivers share a queue.
fn shared(w: &mut World, count: usize) -> (u32, Ring, Vec<(TestQp, TestQp)>) {
    let (srq, ring) = w.srq(1, 64);
    let o = QpOptions::of(RC);
    let with_srq = QpOptions {
        srq: Some(srq),
        ..o
    };
    let pairs = (0..count)
        .map(|_| {
            let (a, b) = (w.qp(0, o), w.qp(1, with_srq));
            w.connect(&a, o, 2, b.qpn);
            w.connect(&b, with_srq, 1, a.qpn);
            (a, b)
        })
        .collect();
    (srq, ring, pairs)
}

#[test]
fn queue_pairs_share_receives_in_order() {
    let mut w = super::world();
    let (_, ring, mut pairs) = shared(&mut w, 2);
    let (src, data) = w.pattern(0, 100, 1);
    let dst = w.register(1, 1, 4096, ALL);
    let mut tail = 0;
    for n in 0..4 {
        post_recv(&ring, &mut tail, n, &[dst.sge(n * 100, 100)]);
    }
    for n in 0..4 {
        w.post(&mut pairs[n % 2].0, &Wr::new(Op::Send, 0).sge(src.all()));
        w.settle();
    }
    for (n, (_, b)) in pairs.iter_mut().enumerate() {
        let n = n as u64;
        assert_eq!(b.rcq.results(), [(n, Success), (n + 2, Success)]);
    }
    assert_eq!(w.read(1, dst.addr + 300, 100), data);
}

#[test]
fn the_limit_event_comes_once_when_fewer_are_left() {
    let mut w = super::world();
    let (srq, ring, mut pairs) = shared(&mut w, 1);
    let s = w.procs[1].s;
    let mut tail = 0;
    for n in 0..6 {
        post_recv(&ring, &mut tail, n, &[]);
    }
    w.engine.set_srq_limit(s, srq, 4).unwrap();
    assert_eq!(w.engine.query_srq(s, srq).unwrap().limit, 4);
    for n in 0..4 {
        w.post(&mut pairs[0].0, &Wr::new(Op::Send, 0));
        w.settle();
        // 5 and 4 are not fewer than 4; 3 is.
        let expect: &[_] = if n == 2 {
            &[(SrqLimitReached, srq)]
        } else {
            &[]
        };
        assert_eq!(w.async_events(1), expect);
    }
    assert_eq!(w.engine.query_srq(s, srq).unwrap().limit, 0);
    // Armed below the limit: due at once.
    w.engine.set_srq_limit(s, srq, 3).unwrap();
    assert_eq!(w.async_events(1), [(SrqLimitReached, srq)]);
    assert!(w.engine.set_srq_limit(s, srq, 65).is_err());
}

#[test]
fn the_last_receive_of_a_failed_queue_pair_is_told() {
    let mut w = super::world();
    let (srq, ring, mut pairs) = shared(&mut w, 2);
    let mut tail = 0;
    post_recv(&ring, &mut tail, 1, &[]);
    let b = pairs[0].1;
    w.enter(&b, State::Err).unwrap();
    w.settle();
    assert_eq!(w.async_events(1), [(QpLastWqeReached, b.handle)]);
    w.settle();
    // Receives of the SRQ are not flushed: they serve the others.
    assert!(pairs[0].1.rcq.poll().is_none());
    w.post(&mut pairs[1].0, &Wr::new(Op::Send, 0));
    w.settle();
    assert_eq!(pairs[1].1.rcq.results(), [(1, Success)]);
    let s = w.procs[1].s;
    assert!(w.engine.destroy_srq(s, srq).is_err(), "in use");
    for (_, b) in &pairs {
        w.engine.destroy_qp(s, b.handle).unwrap();
    }
    w.engine.destroy_srq(s, srq).unwrap();
}

#[test]
fn a_receive_held_in_mid_message_is_flushed_before_the_last_event() {
    let mut w = super::world();
    let (_, ring, mut pairs) = shared(&mut w, 1);
    let (src, _) = w.pattern(0, 4 << 20, 1);
    let dst = w.register(1, 1, 4 << 20, ALL);
    let mut tail = 0;
    post_recv(&ring, &mut tail, 3, &[dst.all()]);
    w.post(&mut pairs[0].0, &Wr::new(Op::Send, 0).sge(src.all()));
    w.turn();
    w.turn();
    let (a, b) = &mut pairs[0];
    w.enter(b, State::Err).unwrap();
    w.settle();
    assert_eq!(b.rcq.results(), [(3, WrFlushErr)]);
    assert_eq!(w.async_events(1), [(QpLastWqeReached, b.handle)]);
    w.pass(10_000_000_000);
    assert_eq!(a.cq.results(), [(0, RetryExcErr)]);
    assert!(b.rcq.poll().is_none());
}
