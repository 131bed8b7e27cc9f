//! Receivers that are not ready and peers that are silent.

use super::harness::*;
use masq_spec::queue::{SendOpcode as Op, WcStatus::*};
use masq_spec::verbs::State;

const MS: u64 = 1_000_000;

/// RNR code 12 is 0.64 ms.
fn rnr(rnr_retry: u8) -> QpOptions {
    QpOptions {
        rnr_retry,
        ..QpOptions::of(RC)
    }
}

#[test]
fn without_rnr_retries_the_first_refusal_fails() {
    let mut w = World::pair_of_processes();
    let (mut a, mut b) = w.connected(rnr(0));
    w.post(&mut a, &Wr::new(Op::Send, 1));
    w.settle();
    assert_eq!(a.cq.results(), [(1, RnrRetryExcErr)]);
    assert_eq!(w.state(&a), State::Err);
    assert_eq!(w.state(&b), State::Rts, "the responder goes on");
    assert!(b.rcq.poll().is_none());
}

#[test]
fn rnr_retries_run_out_after_as_many_delays() {
    let mut w = World::pair_of_processes();
    let (mut a, _b) = w.connected(rnr(3));
    let start = w.now;
    w.post(&mut a, &Wr::new(Op::RdmaWriteWithImm, 1));
    w.settle();
    for n in 1..=3 {
        assert!(a.cq.poll().is_none());
        assert_eq!(w.engine.next_timer(), Some(start + n * 640_000));
        w.now = start + n * 640_000;
        w.settle();
    }
    assert_eq!(a.cq.results(), [(1, RnrRetryExcErr)]);
    assert_eq!(w.counters(&a).rnr_waits, 3);
}

#[test]
fn rnr_retry_seven_has_no_end() {
    let mut w = World::pair_of_processes();
    let (mut a, mut b) = w.connected(rnr(7));
    w.post(&mut a, &Wr::new(Op::Send, 1));
    w.pass(1000 * MS);
    assert!(a.cq.poll().is_none());
    assert!(w.counters(&a).rnr_waits > 1000);
    w.recv(&mut b, 2, &[]);
    w.settle();
    assert_eq!(a.cq.results(), [(1, Success)]);
    assert_eq!(b.rcq.results(), [(2, Success)]);
}

#[test]
fn a_receive_that_gets_posted_ends_the_wait_at_once() {
    let mut w = World::pair_of_processes();
    let (mut a, mut b) = w.connected(rnr(1));
    w.post(&mut a, &Wr::new(Op::Send, 1));
    w.settle();
    w.recv(&mut b, 2, &[]);
    w.settle();
    assert_eq!(a.cq.results(), [(1, Success)], "no time has passed");
    // The counter starts anew with the next request.
    w.post(&mut a, &Wr::new(Op::Send, 3));
    w.settle();
    assert!(a.cq.poll().is_none());
    w.now += 640_000;
    w.settle();
    assert_eq!(a.cq.results(), [(3, RnrRetryExcErr)]);
}

#[test]
fn losing_the_race_for_a_shared_receive_costs_no_retry() {
    let mut w = World::pair_of_processes();
    let (srq, ring) = w.srq(1, 64);
    let o = rnr(1);
    let with_srq = QpOptions {
        srq: Some(srq),
        ..o
    };
    let mut pairs = Vec::new();
    for _ in 0..3 {
        let (a, b) = (w.qp(0, o), w.qp(1, with_srq));
        w.connect(&a, o, 2, b.qpn);
        w.connect(&b, with_srq, 1, a.qpn);
        pairs.push((a, b));
    }
    for (a, _) in &mut pairs {
        w.post(a, &Wr::new(Op::Send, 1));
    }
    w.settle();
    let mut tail = 0;
    for _ in 0..3 {
        post_recv(&ring, &mut tail, 9, &[]);
        w.settle();
        w.now += 1000;
    }
    for (a, _) in &mut pairs {
        assert_eq!(a.cq.results(), [(1, Success)]);
    }
}

#[test]
fn a_silent_peer_ends_the_request_after_its_timeouts() {
    // 4.096 µs × 2^14 = 67.1 ms, for the first try and each of 3 more.
    let o = QpOptions {
        retry_cnt: 3,
        ..QpOptions::of(RC)
    };
    let timeout = 4096u64 << 14;
    for case in 0..4 {
        let mut w = World::pair_of_processes();
        let (mut a, mut b) = w.connected(o);
        match case {
            // Gone; in ERROR; back in RESET; connected to another.
            0 => {
                let s = w.procs[1].s;
                w.engine.destroy_qp(s, b.handle).unwrap();
            }
            1 => {
                w.enter(&b, State::Err).unwrap();
            }
            2 => {
                w.enter(&b, State::Reset).unwrap();
            }
            _ => {
                w.enter(&b, State::Reset).unwrap();
                w.connect(&b, o, 1, a.qpn ^ 1);
                w.recv(&mut b, 1, &[]);
            }
        }
        let start = w.now;
        w.post(&mut a, &Wr::new(Op::Send, 1));
        w.post(&mut a, &Wr::new(Op::Send, 2));
        w.pass(4 * timeout - 1);
        assert!(a.cq.poll().is_none(), "case {case}");
        w.pass(1);
        assert_eq!(w.now, start + 4 * timeout);
        assert_eq!(a.cq.results(), [(1, RetryExcErr), (2, WrFlushErr)]);
        assert_eq!(w.counters(&a).retries, 5);
        assert!(b.rcq.results().iter().all(|r| r.1 == WrFlushErr));
    }
}

#[test]
fn a_peer_that_comes_back_before_the_last_timeout_is_served() {
    let o = QpOptions::of(RC);
    let mut w = World::pair_of_processes();
    let (mut a, mut b) = (w.qp(0, o), w.qp(1, o));
    w.connect(&a, o, 2, b.qpn);
    w.post(&mut a, &Wr::new(Op::Send, 1));
    w.pass(5 * (4096 << 14));
    w.connect(&b, o, 1, a.qpn);
    w.recv(&mut b, 2, &[]);
    w.pass(4096 << 14);
    assert_eq!(a.cq.results(), [(1, Success)]);
    assert_eq!(b.rcq.results(), [(2, Success)]);
}

#[test]
fn timeout_zero_waits_for_ever() {
    let o = QpOptions {
        timeout: 0,
        ..QpOptions::of(RC)
    };
    let mut w = World::pair_of_processes();
    let (mut a, b) = w.connected(o);
    w.enter(&b, State::Err).unwrap();
    w.post(&mut a, &Wr::new(Op::Send, 1));
    w.pass(100_000 * MS);
    assert!(a.cq.poll().is_none());
    assert_eq!(w.engine.next_timer(), None, "it costs no wake-ups");
    w.enter(&a, State::Err).unwrap();
    w.settle();
    assert_eq!(a.cq.results(), [(1, WrFlushErr)]);
}

#[test]
fn connections_are_mutual() {
    // b is connected to a, but a third names b as its peer.
    let o = QpOptions {
        retry_cnt: 0,
        ..QpOptions::of(RC)
    };
    let mut w = World::pair_of_processes();
    let (_a, mut b) = w.connected(o);
    let mut c = w.qp(0, o);
    w.connect(&c, o, 2, b.qpn);
    w.recv(&mut b, 1, &[]);
    w.post(&mut c, &Wr::new(Op::Send, 1));
    w.pass(1000 * MS);
    assert_eq!(c.cq.results(), [(1, RetryExcErr)]);
    assert!(b.rcq.poll().is_none());
}

#[test]
fn queue_pairs_of_different_tenants_or_types_never_meet() {
    let o = QpOptions {
        retry_cnt: 0,
        ..QpOptions::of(RC)
    };
    let mut w = World::new();
    let (blue, red) = (w.spawn(1, 1), w.spawn(2, 2));
    let (mut a, mut b) = w.connected_at(blue, 1, red, 2, o);
    w.recv(&mut b, 1, &[]);
    w.post(&mut a, &Wr::new(Op::Send, 1));
    w.pass(1000 * MS);
    assert_eq!(a.cq.results(), [(1, RetryExcErr)]);
    let c = w.spawn(1, 3);
    let uc = QpOptions::of(UC);
    let (mut x, mut y) = (w.qp(blue, o), w.qp(c, uc));
    w.connect(&x, o, 3, y.qpn);
    w.connect(&y, uc, 1, x.qpn);
    w.recv(&mut y, 1, &[]);
    w.post(&mut x, &Wr::new(Op::Send, 1));
    w.pass(1000 * MS);
    assert_eq!(x.cq.results(), [(1, RetryExcErr)]);
    assert!(b.rcq.poll().is_none() && y.rcq.poll().is_none());
}

#[test]
fn waits_that_were_given_up_leave_no_timers_behind() {
    // A timeout of 2.4 hours, begun and given up again and again.
    let o = QpOptions {
        timeout: 31,
        ..QpOptions::of(RC)
    };
    let mut w = World::pair_of_processes();
    let mut a = w.qp(0, o);
    for _ in 0..5000 {
        w.connect(&a, o, 2, 99);
        w.post(&mut a, &Wr::new(Op::Send, 1));
        w.settle();
        w.enter(&a, State::Reset).unwrap();
        a.sq.clear();
        a.sq_tail = 0;
    }
    assert!(w.engine.timers_len() <= 2048);
}
