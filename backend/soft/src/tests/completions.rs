//! Completion queues: order, arming, overrun, resizing.

use super::harness::*;
use masq_spec::event::AsyncEvent::*;
use masq_spec::queue::{
    ARM_ANY, ARM_SOLICITED, CQE_LEN, HDR_CQ_CONSUMER, SendFlags, SendOpcode as Op, WcStatus::*,
};
use masq_spec::verbs::State;
use std::sync::atomic::Ordering;

/// b receives on a CQ with event queue 5.
fn armed_pair(w: &mut World) -> (TestQp, TestQp) {
    let o = QpOptions::of(RC);
    let a = w.qp(0, o);
    let (cq, rcq) = (w.cq(1, 64, None), w.cq(1, 64, Some(5)));
    let b = w.qp_on(1, o, cq, rcq);
    w.connect(&a, o, 2, b.qpn);
    w.connect(&b, o, 1, a.qpn);
    (a, b)
}

fn send(w: &mut World, a: &mut TestQp, b: &mut TestQp, flags: SendFlags) {
    w.recv(b, 0, &[]);
    w.post(a, &Wr::new(Op::Send, 0).flags(flags));
    w.settle();
}

#[test]
fn a_cq_that_is_armed_tells_once() {
    let mut w = super::world();
    let (mut a, mut b) = armed_pair(&mut w);
    let event = Event::Completion {
        queue: 5,
        cq: b.rcq.handle,
    };
    send(&mut w, &mut a, &mut b, SendFlags::empty());
    assert_eq!(w.events(1), [], "not armed");
    b.rcq.arm(ARM_ANY);
    send(&mut w, &mut a, &mut b, SendFlags::empty());
    assert_eq!(w.events(1), [event]);
    send(&mut w, &mut a, &mut b, SendFlags::SOLICITED);
    assert_eq!(w.events(1), [], "once");
    b.rcq.arm(ARM_ANY);
    b.rcq.arm(ARM_ANY);
    send(&mut w, &mut a, &mut b, SendFlags::empty());
    assert_eq!(w.events(1), [event]);
}

#[test]
fn an_arming_for_solicited_completions_waits_for_one() {
    let mut w = super::world();
    let (mut a, mut b) = armed_pair(&mut w);
    b.rcq.arm(ARM_SOLICITED);
    send(&mut w, &mut a, &mut b, SendFlags::empty());
    assert_eq!(w.events(1), []);
    send(&mut w, &mut a, &mut b, SendFlags::SOLICITED);
    assert_eq!(w.events(1).len(), 1);
    // A failed completion counts as solicited.
    b.rcq.arm(ARM_SOLICITED);
    w.recv(&mut b, 1, &[]);
    w.enter(&b, State::Err).unwrap();
    w.settle();
    assert_eq!(w.events(1).len(), 1);
}

#[test]
fn a_full_cq_fails_with_every_queue_pair_on_it() {
    let mut w = super::world();
    let o = QpOptions::of(RC);
    let cq = w.cq(0, 4, None);
    let (mut a, c) = (w.qp_on(0, o, cq, cq), w.qp_on(0, o, cq, cq));
    let b = w.qp(1, o);
    w.connect(&a, o, 2, b.qpn);
    w.connect(&b, o, 1, a.qpn);
    for n in 0..6 {
        w.post(&mut a, &Wr::new(Op::RdmaWrite, n));
    }
    w.settle();
    let mut events = w.async_events(0);
    assert_eq!(events.remove(0), (CqErr, cq.handle));
    events.sort_by_key(|e| e.1);
    assert_eq!(events, [(QpFatal, a.handle), (QpFatal, c.handle)]);
    assert_eq!(w.state(&a), State::Err);
    assert_eq!(w.state(&b), State::Rts);
    // What was there stays readable.
    a.cq = cq;
    assert_eq!(a.cq.drain().len(), 4);
}

#[test]
fn an_overrun_may_be_ignored() {
    let mut w = super::world();
    let o = QpOptions::of(RC);
    let cq = w.cq_with(0, 4, None, true);
    let mut a = w.qp_on(0, o, cq, cq);
    let b = w.qp(1, o);
    w.connect(&a, o, 2, b.qpn);
    w.connect(&b, o, 1, a.qpn);
    for n in 0..6 {
        w.post(&mut a, &Wr::new(Op::RdmaWrite, n));
    }
    w.settle();
    assert_eq!(w.state(&a), State::Rts);
    assert_eq!(w.async_events(0), []);
}

#[test]
fn a_lie_about_the_consumer_index_hurts_its_teller_only() {
    for lie in [1u32 << 31, 100, u32::MAX] {
        let mut w = super::world();
        let o = QpOptions {
            cqe: 4,
            ..QpOptions::of(RC)
        };
        let (mut a, _b) = w.connected(o);
        let (mut x, mut y) = w.connected(QpOptions::of(RC));
        a.cq.ring
            .header(HDR_CQ_CONSUMER)
            .store(lie, Ordering::SeqCst);
        for n in 0..40 {
            w.post(&mut a, &Wr::new(Op::RdmaWrite, n));
        }
        w.recv(&mut y, 1, &[]);
        w.post(&mut x, &Wr::new(Op::Send, 1));
        w.settle();
        assert_eq!(x.cq.results(), [(1, Success)]);
        assert_eq!(y.rcq.results(), [(1, Success)]);
        assert_eq!(w.state(&a), State::Err);
    }
}

/// Resizes `cq`, whose old ring stays to be polled below the returned index.
fn resize(w: &mut World, cq: &mut TestCq, cqe: u32) -> masq_device::Result<TestCq> {
    let (ring, mapped) = w.ring(cq.proc, cqe.next_power_of_two(), CQE_LEN);
    let s = w.procs[cq.proc].s;
    let (first, _old) = w.engine.resize_cq(s, cq.handle, mapped, cqe)?;
    Ok(TestCq {
        ring,
        index: first,
        ..*cq
    })
}

#[test]
fn a_resized_cq_goes_on_in_the_new_ring() {
    let mut w = super::world();
    let o = QpOptions {
        cqe: 8,
        ..QpOptions::of(RC)
    };
    let (mut a, _b) = w.connected(o);
    let mut next = 0;
    let mut post = |w: &mut World, a: &mut TestQp, count| {
        for _ in 0..count {
            w.post(a, &Wr::new(Op::RdmaWrite, next));
            next += 1;
        }
        w.settle();
    };
    post(&mut w, &mut a, 7);
    assert_eq!(a.cq.drain().len(), 7);
    post(&mut w, &mut a, 5);
    let mut old = a.cq;
    a.cq = resize(&mut w, &mut old, 16).unwrap();
    assert_eq!(a.cq.index, 12);
    // As many fit as the new size says, the unpolled ones of the old ring
    // among them, although the driver has not written the new header yet.
    post(&mut w, &mut a, 11);
    assert_eq!(w.state(&a), State::Rts);
    let ids: Vec<u64> = old
        .drain()
        .iter()
        .chain(&a.cq.drain())
        .map(|c| c.wr_id)
        .collect();
    assert_eq!(ids, (7..23).collect::<Vec<_>>());
    post(&mut w, &mut a, 16);
    assert_eq!(w.state(&a), State::Rts);
    post(&mut w, &mut a, 1);
    assert_eq!(w.state(&a), State::Err, "and no more");
}

#[test]
fn a_cq_does_not_shrink_below_what_waits() {
    let mut w = super::world();
    let (mut a, _b) = w.connected(QpOptions::of(RC));
    for n in 0..10 {
        w.post(&mut a, &Wr::new(Op::RdmaWrite, n));
    }
    w.settle();
    let mut cq = a.cq;
    assert!(resize(&mut w, &mut cq, 8).is_err());
    assert!(resize(&mut w, &mut cq, 16).is_ok());
}

#[test]
fn an_arming_outlasts_a_resize() {
    let mut w = super::world();
    let (mut a, mut b) = armed_pair(&mut w);
    b.rcq.arm(ARM_ANY);
    let mut cq = b.rcq;
    b.rcq = resize(&mut w, &mut cq, 128).unwrap();
    send(&mut w, &mut a, &mut b, SendFlags::empty());
    assert_eq!(w.events(1).len(), 1);
    // And one that was answered is not answered again.
    let mut cq = b.rcq;
    b.rcq = resize(&mut w, &mut cq, 64).unwrap();
    send(&mut w, &mut a, &mut b, SendFlags::empty());
    assert_eq!(w.events(1).len(), 0);
}

#[test]
fn a_ring_that_begins_near_the_wrap_shows_no_false_completion() {
    let mut w = super::world();
    let (a, _b) = w.connected(QpOptions::of(RC));
    w.engine.start_indexes_at(u32::MAX);
    let mut old = a.cq;
    old.ring
        .header(HDR_CQ_CONSUMER)
        .store(u32::MAX, Ordering::SeqCst);
    let mut new = resize(&mut w, &mut old, 64).unwrap();
    assert_eq!(new.index, u32::MAX);
    assert!(new.poll().is_none());
}

#[test]
fn a_cq_in_use_stays() {
    let mut w = super::world();
    let (a, _b) = w.connected(QpOptions::of(RC));
    let s = w.procs[0].s;
    assert!(w.engine.destroy_cq(s, a.cq.handle).is_err());
    w.engine.destroy_qp(s, a.handle).unwrap();
    w.engine.destroy_cq(s, a.cq.handle).unwrap();
}
