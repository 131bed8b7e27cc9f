//! Memory windows of both types (IBA 10.6.7.2).

use super::harness::*;
use masq_device::DeviceError;
use masq_spec::queue::{SendOpcode as Op, WcFlags, WcStatus, WcStatus::*};
use masq_spec::verbs::{Access, MwType, MwType::*};

const RW: u64 = 2 | 4;

fn bind(id: u64, mr: Mr, offset: u64, len: u64, old: u32, new: u32, access: u64) -> Wr {
    let mut wr = Wr::new(Op::BindMw, id).remote(mr.addr.wrapping_add(offset), old);
    (wr.wqe.ah, wr.wqe.imm_data) = (mr.key, new);
    wr.atomic(len, access)
}

fn next(key: u32) -> u32 {
    (key & !0xff) | (key.wrapping_add(1) & 0xff)
}

/// b owns memory and binds; a is the peer.
fn world() -> (World, TestQp, TestQp, Mr) {
    let mut w = super::world();
    let (a, b) = w.connected(QpOptions::of(RC));
    let mr = w.register(1, 1, 4096, ALL);
    (w, a, b, mr)
}

fn write_by(w: &mut World, a: &mut TestQp, addr: u64, key: u32) -> WcStatus {
    let (src, _) = w.pattern(0, 16, 1);
    w.post(
        a,
        &Wr::new(Op::RdmaWrite, 1).sge(src.all()).remote(addr, key),
    );
    w.settle();
    a.cq.results()[0].1
}

#[test]
fn a_bound_window_lets_a_peer_in_and_nowhere_else() {
    for mw_type in [Type1, Type2] {
        for (offset, expect) in [
            (100, Success),
            (184, Success),
            (185, RemAccessErr),
            (99, RemAccessErr),
        ] {
            let (mut w, mut a, mut b, mr) = world();
            let (_, key) = w.alloc_mw(1, 1, mw_type);
            w.post(&mut b, &bind(1, mr, 100, 100, key, next(key), RW));
            w.settle();
            assert_eq!(b.cq.results(), [(1, Success)]);
            assert_eq!(
                write_by(&mut w, &mut a, mr.addr + offset, next(key)),
                expect
            );
        }
    }
}

#[test]
fn a_window_that_is_not_bound_refuses() {
    let (mut w, mut a, _, mr) = world();
    let (_, key) = w.alloc_mw(1, 1, Type1);
    assert_eq!(write_by(&mut w, &mut a, mr.addr, key), RemAccessErr);
}

#[test]
fn the_old_key_dies_with_a_new_binding() {
    let (mut w, mut a, mut b, mr) = world();
    let (_, key) = w.alloc_mw(1, 1, Type1);
    let (second, third) = (next(key), next(next(key)));
    w.post(&mut b, &bind(1, mr, 0, 64, key, second, RW));
    w.post(&mut b, &bind(2, mr, 64, 64, second, third, RW));
    w.settle();
    assert_eq!(b.cq.results(), [(1, Success), (2, Success)]);
    assert_eq!(write_by(&mut w, &mut a, mr.addr + 64, third), Success);
    assert_eq!(write_by(&mut w, &mut a, mr.addr, second), RemAccessErr);
}

#[test]
fn a_window_grants_only_the_rights_it_was_given() {
    let (mut w, mut a, mut b, mr) = world();
    let (_, key) = w.alloc_mw(1, 1, Type1);
    w.post(&mut b, &bind(1, mr, 0, 64, key, next(key), 4));
    w.settle();
    let dst = w.register(0, 1, 64, ALL);
    let read = Wr::new(Op::RdmaRead, 1).sge(dst.sge(0, 16));
    w.post(&mut a, &read.remote(mr.addr, next(key)));
    w.settle();
    assert_eq!(a.cq.results(), [(1, Success)]);
    assert_eq!(write_by(&mut w, &mut a, mr.addr, next(key)), RemAccessErr);
}

#[test]
fn a_zero_based_window_counts_from_its_start() {
    let (mut w, mut a, mut b, mr) = world();
    let (_, key) = w.alloc_mw(1, 1, Type2);
    w.post(&mut b, &bind(1, mr, 128, 64, key, next(key), RW | 32));
    w.settle();
    assert_eq!(write_by(&mut w, &mut a, 48, next(key)), Success);
    assert_eq!(w.read(1, mr.addr + 128 + 48, 16), bytes(16, 1));
    assert_eq!(write_by(&mut w, &mut a, 49, next(key)), RemAccessErr);
}

fn refused(mw_type: MwType, make: impl FnOnce(&mut World, &mut TestQp, Mr, u32) -> Wr) {
    let (mut w, _, mut b, mr) = world();
    let (_, key) = w.alloc_mw(1, 1, mw_type);
    let wr = make(&mut w, &mut b, mr, key);
    b.cq.drain();
    w.post(&mut b, &wr);
    w.settle();
    assert_eq!(b.cq.results(), [(wr.wqe.wr_id, MwBindErr)]);
}

#[test]
fn a_binding_that_breaks_a_rule_is_refused() {
    for t in [Type1, Type2] {
        refused(t, |_, _, mr, key| {
            bind(1, mr, 0, 64, key ^ 1, next(key), RW)
        });
        refused(t, |_, _, mr, key| bind(1, mr, 0, 64, key, key ^ 0x100, RW));
        refused(t, |_, _, mr, key| bind(1, mr, 0, 4097, key, next(key), RW));
        refused(t, |_, _, mr, key| {
            bind(1, mr, u64::MAX, 64, key, next(key), RW)
        });
        refused(t, |_, _, mr, key| {
            bind(1, mr, 1, u64::MAX, key, next(key), RW)
        });
        refused(t, |_, _, mr, key| {
            bind(1, mr, 0, 64, key, next(key), 1 << 40)
        });
        refused(t, |w, _, _, key| {
            let mr = w.register(1, 1, 64, ALL - Access::MW_BIND);
            bind(1, mr, 0, 64, key, next(key), RW)
        });
        refused(t, |w, _, _, key| {
            let mr = w.register(1, 1, 64, Access::MW_BIND);
            bind(1, mr, 0, 64, key, next(key), 2)
        });
        refused(t, |w, _, _, key| {
            let mr = w.register(1, 2, 64, ALL);
            bind(1, mr, 0, 64, key, next(key), RW)
        });
        refused(t, |w, _, mr, _| {
            let (_, other) = w.alloc_mw(1, 2, Type1);
            bind(1, mr, 0, 64, other, next(other), RW)
        });
        // A window is not a region, nor a region a window.
        refused(t, |_, _, mr, key| {
            bind(1, Mr { key, ..mr }, 0, 64, key, next(key), RW)
        });
        refused(t, |_, _, mr, _| {
            bind(1, mr, 0, 64, mr.key, next(mr.key), RW)
        });
    }
    // Type 2 is invalidated before it is bound again, and never to nothing.
    refused(Type2, |_, _, mr, key| bind(1, mr, 0, 0, key, next(key), RW));
    refused(Type2, |w, b, mr, key| {
        w.post(b, &bind(1, mr, 0, 64, key, next(key), RW));
        w.settle();
        bind(2, mr, 0, 64, next(key), next(next(key)), RW)
    });
}

#[test]
fn a_refused_binding_leaves_its_region_free() {
    let (mut w, _, mut b, mr) = world();
    let (_, key) = w.alloc_mw(1, 1, Type1);
    w.post(&mut b, &bind(1, mr, 0, 5000, key, next(key), RW));
    w.settle();
    let s = w.procs[1].s;
    w.engine.deregister(s, mr.handle).unwrap();
}

#[test]
fn a_region_with_windows_bound_is_busy() {
    let (mut w, _, mut b, mr) = world();
    let s = w.procs[1].s;
    let (h1, k1) = w.alloc_mw(1, 1, Type1);
    let (_, k2) = w.alloc_mw(1, 1, Type2);
    w.post(&mut b, &bind(1, mr, 0, 64, k1, next(k1), RW));
    w.post(&mut b, &bind(2, mr, 0, 64, k2, next(k2), RW));
    w.settle();
    assert!(matches!(
        w.engine.deregister(s, mr.handle),
        Err(DeviceError::Busy(_))
    ));
    w.engine.dealloc_mw(s, h1).unwrap();
    assert!(w.engine.deregister(s, mr.handle).is_err());
    // A type-2 window ends with its queue pair.
    w.engine.destroy_qp(s, b.handle).unwrap();
    w.engine.deregister(s, mr.handle).unwrap();
}

#[test]
fn unbinding_type_1_frees_its_region() {
    let (mut w, mut a, mut b, mr) = world();
    let (_, key) = w.alloc_mw(1, 1, Type1);
    w.post(&mut b, &bind(1, mr, 0, 64, key, next(key), RW));
    w.post(&mut b, &bind(2, mr, 0, 0, next(key), next(next(key)), 0));
    w.settle();
    assert_eq!(b.cq.results(), [(1, Success), (2, Success)]);
    let s = w.procs[1].s;
    w.engine.deregister(s, mr.handle).unwrap();
    assert_eq!(
        write_by(&mut w, &mut a, mr.addr, next(next(key))),
        RemAccessErr
    );
}

#[test]
fn a_type_2_window_serves_one_queue_pair() {
    let (mut w, mut a, mut b, mr) = world();
    let (mut c, _d) = w.connected(QpOptions::of(RC));
    let (_, key) = w.alloc_mw(1, 1, Type2);
    w.post(&mut b, &bind(1, mr, 0, 64, key, next(key), RW));
    w.settle();
    assert_eq!(write_by(&mut w, &mut c, mr.addr, next(key)), RemAccessErr);
    assert_eq!(write_by(&mut w, &mut a, mr.addr, next(key)), Success);
}

#[test]
fn local_invalidate_ends_a_type_2_window_only() {
    let (mut w, mut a, mut b, mr) = world();
    let (_, key) = w.alloc_mw(1, 1, Type2);
    w.post(&mut b, &bind(1, mr, 0, 64, key, next(key), RW));
    w.post(&mut b, &Wr::new(Op::LocalInv, 2).imm(next(key)));
    w.settle();
    assert_eq!(b.cq.results(), [(1, Success), (2, Success)]);
    // It may be bound again, from the key that it had.
    w.post(&mut b, &bind(3, mr, 0, 64, next(key), key, RW));
    w.settle();
    assert_eq!(b.cq.results(), [(3, Success)]);
    assert_eq!(write_by(&mut w, &mut a, mr.addr, key), Success);
    w.post(&mut b, &Wr::new(Op::LocalInv, 4).imm(mr.key));
    w.settle();
    assert_eq!(b.cq.results(), [(4, LocQpOpErr)]);
}

#[test]
fn send_with_invalidate_ends_the_peers_window() {
    let (mut w, mut a, mut b, mr) = world();
    let (_, key) = w.alloc_mw(1, 1, Type2);
    w.post(&mut b, &bind(1, mr, 0, 64, key, next(key), RW));
    w.settle();
    w.recv(&mut b, 1, &[mr.all()]);
    w.post(
        &mut a,
        &Wr::new(Op::SendWithInv, 1).inline(b"x").imm(next(key)),
    );
    w.settle();
    let got = b.rcq.poll().unwrap();
    assert_eq!(
        (got.flags, got.imm_data),
        (WcFlags::WITH_INV.bits(), next(key))
    );
    assert_eq!(a.cq.results(), [(1, Success)]);
    assert_eq!(write_by(&mut w, &mut a, mr.addr, next(key)), RemAccessErr);
}

#[test]
fn send_with_invalidate_of_anything_else_is_refused() {
    for n in 0..2 {
        let (mut w, mut a, mut b, mr) = world();
        let (_, key) = w.alloc_mw(1, 1, Type1);
        w.post(&mut b, &bind(1, mr, 0, 64, key, next(key), RW));
        w.settle();
        w.recv(&mut b, 1, &[mr.all()]);
        let victim = [mr.key, next(key)][n];
        w.post(
            &mut a,
            &Wr::new(Op::SendWithInv, 1).inline(b"x").imm(victim),
        );
        w.settle();
        assert_eq!(a.cq.results(), [(1, RemAccessErr)]);
        assert_eq!(b.rcq.results(), [(1, LocAccessErr)]);
    }
}
