//! Multicast within a tenant, as far as the policy goes.

use super::harness::*;
use masq_device::{Destination, EndpointKey};
use masq_spec::queue::{SendOpcode as Op, WcStatus::*};
use masq_spec::verbs::Gid;

const GROUP: Gid = [0xff, 14, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 224, 0, 0, 9];
const OTHER: Gid = [0xff, 14, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 224, 0, 0, 10];

fn member(w: &mut World, proc: usize, group: Gid) -> TestQp {
    let o = QpOptions::of(UD);
    let mut qp = w.qp(proc, o);
    w.connect(&qp, o, 0, 0);
    let s = w.procs[proc].s;
    w.engine.attach_multicast(s, qp.handle, group).unwrap();
    let mr = w.register(proc, 1, 4096, ALL);
    for n in 0..40 {
        w.recv(&mut qp, n, &[mr.all()]);
    }
    qp
}

fn sender(w: &mut World, proc: usize) -> (TestQp, Wr) {
    let o = QpOptions::of(UD);
    let qp = w.qp(proc, o);
    w.connect(&qp, o, 0, 0);
    let ah = w.ah(proc, 1, Destination::Multicast(GROUP));
    let wr = Wr::new(Op::Send, 1)
        .inline(b"all of you")
        .addressed(ah, 0xff_ffff, 0x1111);
    (qp, wr)
}

fn allow(w: &mut World, proc: usize, endpoints: &[u32]) {
    let s = w.procs[proc].s;
    let allowed = endpoints.iter().map(|e| EndpointKey(*e)).collect();
    w.engine.set_multicast_reach(s, allowed).unwrap();
}

#[test]
fn without_a_word_from_the_policy_it_reaches_its_own_endpoint_only() {
    let mut w = World::pair_of_processes();
    let (mut own, mut other) = (member(&mut w, 0, GROUP), member(&mut w, 1, GROUP));
    let (mut a, wr) = sender(&mut w, 0);
    w.post(&mut a, &wr);
    w.settle();
    assert_eq!(a.cq.results(), [(1, Success)]);
    assert_eq!(own.rcq.results(), [(0, Success)]);
    assert!(other.rcq.poll().is_none());
}

#[test]
fn it_reaches_the_members_that_the_policy_allows() {
    let mut w = World::pair_of_processes();
    let third = w.spawn(1, 3);
    let again = w.spawn(1, 2);
    let red = w.spawn(2, 2);
    let procs = [0, 1, third, again, red];
    let mut members: Vec<_> = procs.iter().map(|p| member(&mut w, *p, GROUP)).collect();
    let mut elsewhere = member(&mut w, 1, OTHER);
    let (mut a, wr) = sender(&mut w, 0);
    allow(&mut w, 0, &[7, 2]);
    w.post(&mut a, &wr);
    w.settle();
    let got: Vec<usize> = members.iter_mut().map(|m| m.rcq.drain().len()).collect();
    assert_eq!(got, [0, 1, 0, 1, 0], "endpoint 2 of the same tenant, twice");
    assert!(elsewhere.rcq.poll().is_none());
    // A change of policy counts from the next datagram on.
    allow(&mut w, 0, &[3, 1]);
    w.post(&mut a, &wr);
    w.settle();
    let got: Vec<usize> = members.iter_mut().map(|m| m.rcq.drain().len()).collect();
    assert_eq!(got, [1, 0, 1, 0, 0]);
}

#[test]
fn who_leaves_a_group_hears_no_more_of_it() {
    let mut w = World::pair_of_processes();
    let mut members: Vec<_> = (0..3).map(|_| member(&mut w, 1, GROUP)).collect();
    let (mut a, wr) = sender(&mut w, 0);
    allow(&mut w, 0, &[2]);
    let s = w.procs[1].s;
    w.engine
        .detach_multicast(s, members[1].handle, GROUP)
        .unwrap();
    assert!(
        w.engine
            .detach_multicast(s, members[1].handle, GROUP)
            .is_err()
    );
    w.engine.destroy_qp(s, members[2].handle).unwrap();
    w.post(&mut a, &wr);
    w.settle();
    let got: Vec<usize> = members.iter_mut().map(|m| m.rcq.drain().len()).collect();
    assert_eq!(got, [1, 0, 0]);
    drop(w.engine.close(s));
    w.post(&mut a, &wr);
    w.settle();
    assert_eq!(a.cq.results(), [(1, Success), (1, Success)]);
}

#[test]
fn a_large_group_takes_several_turns_and_leaves_nobody_out() {
    let mut w = World::pair_of_processes();
    let mut members: Vec<_> = (0..300).map(|_| member(&mut w, 1, GROUP)).collect();
    let (mut a, wr) = sender(&mut w, 0);
    allow(&mut w, 0, &[2]);
    // Together more than a turn moves.
    let (src, _) = w.pattern(0, 2048, 1);
    let wr = Wr::new(Op::Send, 1)
        .sge(src.all())
        .addressed(wr.wqe.ah, 0xff_ffff, 0x1111);
    w.post(&mut a, &wr);
    let mut turns = 0;
    while a.cq.poll().is_none() {
        assert!(w.turn());
        turns += 1;
    }
    assert!(turns > 1);
    assert!(members.iter_mut().all(|m| m.rcq.drain().len() == 1));
}

#[test]
fn only_ud_queue_pairs_join_groups() {
    let mut w = World::pair_of_processes();
    let rc = w.qp(0, QpOptions::of(RC));
    let s = w.procs[0].s;
    assert!(w.engine.attach_multicast(s, rc.handle, GROUP).is_err());
}
