//! The data path of mapped memory allocates nothing.

use super::harness::*;
use crate::engine::Tap;
use allocation_counter::measure;
use masq_device::{CaptureView, EndpointKey};
use masq_spec::queue::SendOpcode as Op;
use std::sync::Arc;

/// Runs the engine until all is done and returns its allocations.
fn settle(w: &mut World) -> u64 {
    measure(|| w.settle()).count_total
}

#[test]
fn messages_between_mapped_memory_allocate_nothing() {
    exchange(World::pair_of_processes());
}

#[test]
fn nor_do_they_over_the_wire() {
    exchange(World::pair_over_the_wire());
}

#[test]
fn nor_while_they_are_captured() {
    for mut w in [World::pair_of_processes(), World::pair_over_the_wire()] {
        let tap = Tap::with_places(EndpointKey(1), CaptureView::Virtual, 5000, 100);
        let tap = Arc::new(tap);
        w.engine.tap(Arc::clone(&tap));
        exchange(w);
        assert!(
            tap.take().is_some() && tap.lost() > 0,
            "it was on, and full"
        );
    }
}

fn exchange(mut w: World) {
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let (mut x, mut y) = w.connected(QpOptions::of(UD));
    let there = w.place(2);
    let ah = w.ah(0, 1, there);
    let src = w.register(0, 1, 1 << 20, ALL);
    let dst = w.register(1, 1, 1 << 20, ALL);
    let mut counts = Vec::new();
    for round in 0..200 {
        let mut late = false;
        w.recv(&mut b, 1, &[dst.sge(0, 100), dst.sge(200, 5000)]);
        w.post(
            &mut a,
            &Wr::new(Op::Send, 1)
                .sge(src.sge(0, 50))
                .sge(src.sge(60, 2000)),
        );
        for op in [Op::RdmaWrite, Op::RdmaRead] {
            let wr = Wr::new(op, 1).sge(src.all());
            w.post(&mut a, &wr.remote(dst.addr, dst.key));
        }
        let add = Wr::new(Op::FetchAdd, 1).sge(src.sge(0, 8));
        w.post(&mut a, &add.remote(dst.addr, dst.key).atomic(1, 0));
        w.recv(&mut y, 1, &[dst.sge(0, 5000)]);
        w.post(
            &mut x,
            &Wr::new(Op::Send, 1)
                .sge(src.sge(0, 1000))
                .addressed(ah, y.qpn, 0x1111),
        );
        if round % 2 == 0 {
            // Waits for a receive.
            w.post(&mut a, &Wr::new(Op::Send, 1));
            late = true;
        }
        let mut count = settle(&mut w);
        if late {
            w.recv(&mut b, 1, &[]);
            // Over the wire the sender asks again after the receiver's delay.
            w.now += 10_000_000;
            count += settle(&mut w);
        }
        let done = (a.cq.drain().len(), b.rcq.drain().len(), y.rcq.drain().len());
        x.cq.drain();
        assert_eq!(done, (4 + usize::from(late), 1 + usize::from(late), 1));
        counts.push(count);
    }
    assert_eq!(counts[150..].iter().sum::<u64>(), 0, "{counts:?}");
}
