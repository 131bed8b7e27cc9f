//! What the control side asks for, and what is refused.

use super::harness::*;
use masq_spec::queue::{SendOpcode as Op, WcStatus::*};
use masq_spec::verbs::{QpAttr, QpMask, State};

#[test]
fn a_change_is_applied_whole_or_not_at_all() {
    let mut w = World::pair_of_processes();
    let o = QpOptions::of(RC);
    let qp = w.qp(0, o);
    w.enter_init(&qp, o);
    let attr = QpAttr {
        qp_state: State::Rtr as u32,
        path_mtu: 9,
        dest_qp_num: 5,
        ..QpAttr::default()
    };
    let mask = QpMask::STATE
        | QpMask::AV
        | QpMask::PATH_MTU
        | QpMask::DEST_QPN
        | QpMask::RQ_PSN
        | QpMask::MAX_DEST_RD_ATOMIC
        | QpMask::MIN_RNR_TIMER;
    let there = Some(masq_device::Destination::Endpoint(
        masq_device::EndpointKey(2),
    ));
    assert!(w.modify(&qp, mask, attr, there).is_err(), "no such MTU");
    assert!(w.modify(&qp, mask - QpMask::AV, attr, None).is_err());
    assert_eq!(w.state(&qp), State::Init);
    let s = w.procs[0].s;
    assert_eq!(w.engine.query_qp(s, qp.handle).unwrap().attr.dest_qp_num, 0);
    let attr = QpAttr {
        path_mtu: 3,
        ..attr
    };
    assert_eq!(w.modify(&qp, mask, attr, there).unwrap(), State::Rtr);
    assert_eq!(w.engine.query_qp(s, qp.handle).unwrap().attr.dest_qp_num, 5);
}

#[test]
fn a_state_that_the_program_is_wrong_about_is_refused() {
    let mut w = World::pair_of_processes();
    let (a, _) = w.connected(QpOptions::of(RC));
    let attr = QpAttr {
        qp_state: State::Rts as u32,
        cur_qp_state: State::Rtr as u32,
        ..QpAttr::default()
    };
    let mask = QpMask::STATE | QpMask::CUR_STATE;
    assert!(w.modify(&a, mask, attr, None).is_err());
    assert_eq!(w.state(&a), State::Rts);
}

#[test]
fn handles_of_another_session_mean_nothing() {
    let mut w = World::pair_of_processes();
    let (a, _) = w.connected(QpOptions::of(RC));
    let mr = w.register(0, 1, 64, ALL);
    let other = w.procs[1].s;
    for handle in [a.handle, a.cq.handle, mr.handle, 0, u32::MAX] {
        // Process 1 has no handle above its own few.
        let handle = handle.wrapping_add(1000);
        assert!(w.engine.destroy_qp(other, handle).is_err());
        assert!(w.engine.destroy_cq(other, handle).is_err());
        assert!(w.engine.destroy_srq(other, handle).is_err());
        assert!(w.engine.deregister(other, handle).is_err());
        assert!(w.engine.dealloc_mw(other, handle).is_err());
        assert!(w.engine.destroy_ah(other, handle).is_err());
        assert!(w.engine.query_qp(other, handle).is_err());
    }
    assert!(w.engine.query_qp(99, a.handle).is_err());
    drop(w.engine.close(99));
    assert_eq!(w.state(&a), State::Rts);
}

#[test]
fn keys_and_numbers_are_not_guessable_from_others() {
    let mut w = World::pair_of_processes();
    let keys: Vec<u32> = (0..64).map(|_| w.register(0, 1, 64, ALL).key).collect();
    let mut upper: Vec<u32> = keys.iter().map(|k| k >> 8).collect();
    upper.sort_unstable();
    upper.dedup();
    assert_eq!(upper.len(), 64);
    // Neighbours differ in about half of their 24 bits.
    let bits: u32 = keys
        .windows(2)
        .map(|p| ((p[0] ^ p[1]) >> 8).count_ones())
        .sum();
    assert!((450..1060).contains(&bits), "{bits}");
}

#[test]
fn doorbell_slots_are_used_again() {
    let mut w = World::pair_of_processes();
    let a = w.qp(0, QpOptions::of(RC));
    let b = w.qp(0, QpOptions::of(RC));
    assert_eq!((a.slot, b.slot), (0, 1));
    let s = w.procs[0].s;
    w.engine.destroy_qp(s, a.handle).unwrap();
    let o = QpOptions::of(RC);
    let mut c = w.qp(0, o);
    assert_eq!(c.slot, 0);
    w.connect(&c, o, 1, c.qpn);
    w.post(&mut c, &Wr::new(Op::RdmaWrite, 1));
    w.settle();
    assert_eq!(c.cq.results(), [(1, Success)]);
}

#[test]
fn query_counts_what_is_posted_and_not_done() {
    let mut w = World::pair_of_processes();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    for n in 0..3 {
        w.post(&mut a, &Wr::new(Op::Send, n));
    }
    w.recv(&mut b, 0, &[]);
    w.settle();
    let s = w.procs[0].s;
    let report = w.engine.query_qp(s, a.handle).unwrap();
    assert_eq!(report.send_queue, 2);
    assert_eq!(report.attr.caps.max_send_wr, 64);
}
