//! Refusals: keys, rights, ranges, lengths, opcodes; both sides' completions
//! and events (IBA 9.9.2, 9.9.3).

use super::harness::*;
use masq_spec::event::AsyncEvent::{self, *};
use masq_spec::queue::{SendFlags, SendOpcode as Op, Sge, WcStatus, WcStatus::*};
use masq_spec::verbs::{Access, QpType, State};

/// Posts one request that the peer refuses and checks what follows on both
/// sides.
fn refused(
    access: Access,
    event: AsyncEvent,
    expect: WcStatus,
    wr: impl FnOnce(&mut World, &TestQp, Mr, Mr) -> Wr,
) {
    let mut w = super::world();
    let o = QpOptions {
        access,
        ..QpOptions::of(RC)
    };
    let (mut a, mut b) = w.connected(o);
    let own = w.register(0, 1, 4096, ALL);
    let peer = w.register(1, 1, 4096, ALL);
    let before = w.read(1, peer.addr, 4096);
    let wr = wr(&mut w, &b, own, peer);
    w.recv(&mut b, 50, &[]);
    w.post(&mut a, &wr);
    w.post(&mut a, &Wr::new(Op::RdmaWrite, 2).flags(SendFlags::empty()));
    w.settle();
    assert_eq!(a.cq.results(), [(wr.wqe.wr_id, expect), (2, WrFlushErr)]);
    assert_eq!(w.state(&a), State::Err);
    assert_eq!(w.state(&b), State::Err);
    assert_eq!(b.rcq.results(), [(50, WrFlushErr)]);
    assert_eq!(w.async_events(1), [(event, b.handle)]);
    assert_eq!(w.async_events(0), []);
    assert_eq!(w.counters(&b).remote_errors, 1);
    assert_eq!(w.read(1, peer.addr, 4096), before, "memory was touched");
}

const REMOTE: [Op; 5] = [
    Op::RdmaWrite,
    Op::RdmaWriteWithImm,
    Op::RdmaRead,
    Op::FetchAdd,
    Op::CompareSwap,
];

fn right(op: Op) -> Access {
    match op {
        Op::RdmaRead => Access::REMOTE_READ,
        Op::FetchAdd | Op::CompareSwap => Access::REMOTE_ATOMIC,
        _ => Access::REMOTE_WRITE,
    }
}

#[test]
fn a_region_without_the_right_refuses() {
    for op in REMOTE {
        refused(ALL, QpAccessErr, RemAccessErr, |w, b, own, _| {
            let mr = w.register(b.proc, 1, 64, ALL - right(op));
            Wr::new(op, 1).sge(own.sge(0, 8)).remote(mr.addr, mr.key)
        });
    }
}

#[test]
fn a_range_outside_the_region_refuses() {
    for op in REMOTE {
        for offset in [4096 - 8 + 8, u64::MAX - 4095] {
            refused(ALL, QpAccessErr, RemAccessErr, |_, _, own, peer| {
                let at = peer.addr.wrapping_add(offset);
                Wr::new(op, 1).sge(own.sge(0, 8)).remote(at, peer.key)
            });
        }
    }
    refused(ALL, QpAccessErr, RemAccessErr, |_, _, own, peer| {
        Wr::new(Op::RdmaWrite, 1)
            .sge(own.sge(0, 17))
            .remote(peer.addr + 4080, peer.key)
    });
}

#[test]
fn a_guessed_key_refuses() {
    for op in REMOTE {
        refused(ALL, QpAccessErr, RemAccessErr, |_, _, own, peer| {
            let key = peer.key ^ 0x5a5a_5a00;
            Wr::new(op, 1).sge(own.sge(0, 8)).remote(peer.addr, key)
        });
        // The consumer's byte counts too.
        refused(ALL, QpAccessErr, RemAccessErr, |_, _, own, peer| {
            let key = peer.key ^ 1;
            Wr::new(op, 1).sge(own.sge(0, 8)).remote(peer.addr, key)
        });
    }
}

#[test]
fn a_key_of_another_domain_or_session_refuses() {
    for op in REMOTE {
        refused(ALL, QpAccessErr, RemAccessErr, |w, b, own, _| {
            let mr = w.register(b.proc, 2, 64, ALL);
            Wr::new(op, 1).sge(own.sge(0, 8)).remote(mr.addr, mr.key)
        });
        refused(ALL, QpAccessErr, RemAccessErr, |w, _, own, _| {
            let third = w.spawn(1, 2);
            let mr = w.register(third, 1, 64, ALL);
            Wr::new(op, 1).sge(own.sge(0, 8)).remote(mr.addr, mr.key)
        });
        refused(ALL, QpAccessErr, RemAccessErr, |_, _, own, _| {
            Wr::new(op, 1).sge(own.sge(0, 8)).remote(own.addr, own.key)
        });
    }
}

#[test]
fn a_revoked_key_refuses() {
    for op in REMOTE {
        refused(ALL, QpAccessErr, RemAccessErr, |w, b, own, _| {
            let mr = w.register(b.proc, 1, 64, ALL);
            w.engine.deregister(w.procs[b.proc].s, mr.handle).unwrap();
            Wr::new(op, 1).sge(own.sge(0, 8)).remote(mr.addr, mr.key)
        });
    }
}

#[test]
fn a_queue_pair_without_the_right_refuses() {
    for op in REMOTE {
        refused(
            ALL - right(op),
            QpReqErr,
            RemInvReqErr,
            |_, _, own, peer| {
                Wr::new(op, 1)
                    .sge(own.sge(0, 8))
                    .remote(peer.addr, peer.key)
            },
        );
    }
}

#[test]
fn a_misaligned_atomic_refuses() {
    for op in [Op::FetchAdd, Op::CompareSwap] {
        refused(ALL, QpReqErr, RemInvReqErr, |_, _, own, peer| {
            Wr::new(op, 1)
                .sge(own.sge(0, 8))
                .remote(peer.addr + 4, peer.key)
        });
    }
}

/// Posts one request that never leaves its queue pair.
fn local(qp_type: QpType, expect: WcStatus, wr: impl FnOnce(&mut World, Mr, Mr) -> Wr) {
    let mut w = super::world();
    let (mut a, mut b) = w.connected(QpOptions::of(qp_type));
    let own = w.register(0, 1, 4096, ALL);
    let peer = w.register(1, 1, 4096, ALL);
    w.recv(&mut b, 50, &[peer.all()]);
    // Failed requests complete even if unsignalled.
    let wr = wr(&mut w, own, peer).flags(SendFlags::empty());
    w.post(&mut a, &wr);
    w.post(&mut a, &Wr::new(Op::RdmaWrite, 2).flags(SendFlags::empty()));
    w.settle();
    assert_eq!(a.cq.results(), [(1, expect), (2, WrFlushErr)]);
    let state = if qp_type == RC {
        State::Err
    } else {
        State::Sqe
    };
    assert_eq!(w.state(&a), state);
    assert_eq!(w.state(&b), State::Rts, "the peer heard nothing");
    assert!(b.rcq.poll().is_none());
    assert_eq!(w.async_events(0), []);
}

#[test]
fn a_gather_list_with_a_bad_key_fails_locally() {
    for qp_type in [RC, UC] {
        local(qp_type, LocProtErr, |_, own, _| {
            let sge = Sge {
                lkey: own.key ^ 0x100,
                ..own.sge(0, 8)
            };
            Wr::new(Op::Send, 1).sge(sge)
        });
        local(qp_type, LocProtErr, |w, _, _| {
            let other_pd = w.register(0, 2, 64, ALL);
            Wr::new(Op::Send, 1).sge(other_pd.all())
        });
        local(qp_type, LocProtErr, |_, _, peer| {
            Wr::new(Op::Send, 1).sge(peer.sge(0, 8))
        });
        local(qp_type, LocProtErr, |_, own, _| {
            Wr::new(Op::Send, 1)
                .sge(own.sge(0, 8))
                .sge(own.sge(4090, 7))
        });
    }
    // The result of a READ is written: LOCAL_WRITE is needed.
    for op in [Op::RdmaRead, Op::FetchAdd] {
        local(RC, LocProtErr, |w, _, peer| {
            let fixed = w.register(0, 1, 64, ALL - Access::LOCAL_WRITE);
            Wr::new(op, 1)
                .sge(fixed.sge(0, 8))
                .remote(peer.addr, peer.key)
        });
    }
}

#[test]
fn a_request_of_bad_form_fails_locally() {
    local(RC, LocLenErr, |_, own, _| {
        (0..9).fold(Wr::new(Op::Send, 1), |wr, _| wr.sge(own.sge(0, 1)))
    });
    local(RC, LocLenErr, |_, own, peer| {
        Wr::new(Op::FetchAdd, 1)
            .sge(own.sge(0, 7))
            .remote(peer.addr, peer.key)
    });
    local(RC, LocLenErr, |_, own, _| {
        let sge = own.sge(0, 1 << 30);
        Wr::new(Op::Send, 1).sge(sge).sge(sge).sge(sge)
    });
    local(UC, LocQpOpErr, |_, own, peer| {
        Wr::new(Op::RdmaRead, 1)
            .sge(own.sge(0, 8))
            .remote(peer.addr, peer.key)
    });
    local(UC, LocQpOpErr, |_, own, peer| {
        Wr::new(Op::FetchAdd, 1)
            .sge(own.sge(0, 8))
            .remote(peer.addr, peer.key)
    });
    local(RC, LocQpOpErr, |_, _, _| {
        let mut wr = Wr::new(Op::Send, 1);
        wr.opcode = 200;
        wr
    });
}

#[test]
fn inline_beyond_the_agreed_size_fails_locally() {
    let mut w = super::world();
    for (op, len) in [(Op::Send, 257), (Op::RdmaRead, 8)] {
        let (mut a, _b) = w.connected(QpOptions::of(RC));
        w.post(&mut a, &Wr::new(op, 1).inline(&vec![1; len]));
        w.settle();
        assert_eq!(a.cq.results(), [(1, LocLenErr)]);
    }
}

#[test]
fn a_receive_too_short_fails_both_sides() {
    let mut w = super::world();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let (src, _) = w.pattern(0, 100, 1);
    let dst = w.register(1, 1, 4096, ALL);
    w.recv(&mut b, 1, &[dst.sge(0, 50), dst.sge(50, 49)]);
    w.recv(&mut b, 2, &[dst.all()]);
    w.post(&mut a, &Wr::new(Op::Send, 1).sge(src.all()));
    w.settle();
    assert_eq!(a.cq.results(), [(1, RemInvReqErr)]);
    assert_eq!(b.rcq.results(), [(1, LocLenErr), (2, WrFlushErr)]);
    assert_eq!(w.state(&b), State::Err);
    assert_eq!(w.read(1, dst.addr, 100), vec![0; 100]);
}

#[test]
fn a_receive_with_a_bad_key_fails_both_sides() {
    let mut w = super::world();
    for n in 0..3 {
        let (mut a, mut b) = w.connected(QpOptions::of(RC));
        let (src, _) = w.pattern(0, 100, 1);
        let dst = match n {
            0 => w.register(1, 1, 4096, ALL - Access::LOCAL_WRITE),
            1 => w.register(1, 2, 4096, ALL),
            _ => src,
        };
        w.recv(&mut b, 1, &[dst.sge(0, 100)]);
        w.post(&mut a, &Wr::new(Op::Send, 1).sge(src.all()));
        w.settle();
        assert_eq!(a.cq.results(), [(1, RemOpErr)]);
        assert_eq!(b.rcq.results(), [(1, LocProtErr)]);
        assert_eq!(w.state(&b), State::Err);
    }
}

#[test]
fn an_element_that_the_message_does_not_reach_is_not_looked_at() {
    let mut w = super::world();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let (src, data) = w.pattern(0, 100, 1);
    let dst = w.register(1, 1, 4096, ALL);
    let bad = Sge {
        addr: 1,
        length: 100,
        lkey: 2,
    };
    w.recv(&mut b, 1, &[dst.sge(0, 100), bad]);
    w.post(&mut a, &Wr::new(Op::Send, 1).sge(src.all()));
    w.settle();
    assert_eq!(b.rcq.results(), [(1, Success)]);
    assert_eq!(w.read(1, dst.addr, 100), data);
}

#[test]
fn uc_drops_what_it_cannot_take_and_goes_on() {
    let mut w = super::world();
    let (mut a, mut b) = w.connected(QpOptions::of(UC));
    let (src, data) = w.pattern(0, 100, 1);
    let dst = w.register(1, 1, 4096, ALL - Access::REMOTE_WRITE);
    // No receive; no right; too long for the receive.
    w.post(&mut a, &Wr::new(Op::Send, 1).sge(src.all()));
    let write = Wr::new(Op::RdmaWrite, 2).sge(src.all());
    w.post(&mut a, &write.remote(dst.addr, dst.key));
    w.settle();
    w.recv(&mut b, 7, &[dst.sge(0, 50)]);
    w.post(&mut a, &Wr::new(Op::Send, 3).sge(src.all()));
    w.settle();
    assert_eq!(a.cq.results(), [(1, Success), (2, Success), (3, Success)]);
    // By whoever finds it out.
    let dropped = w.counters(&a).dropped + w.counters(&b).dropped;
    assert_eq!(dropped, 3);
    assert!(b.rcq.poll().is_none());
    assert_eq!(w.state(&b), State::Rts);
    // The receive was not lost: the next message gets it.
    w.post(&mut a, &Wr::new(Op::Send, 4).sge(src.sge(0, 50)));
    w.settle();
    assert_eq!(b.rcq.results(), [(7, Success)]);
    assert_eq!(w.read(1, dst.addr, 50), data[..50]);
}

#[test]
fn a_held_receive_is_flushed_like_any_other() {
    let mut w = super::world();
    let (mut a, mut b) = w.connected(QpOptions::of(UC));
    let (src, _) = w.pattern(0, 100, 1);
    let dst = w.register(1, 1, 4096, ALL);
    w.recv(&mut b, 7, &[dst.sge(0, 50)]);
    w.recv(&mut b, 8, &[dst.sge(0, 50)]);
    w.post(&mut a, &Wr::new(Op::Send, 3).sge(src.all()));
    w.settle();
    w.enter(&b, State::Err).unwrap();
    w.settle();
    assert_eq!(b.rcq.results(), [(7, WrFlushErr), (8, WrFlushErr)]);
}

#[test]
fn uc_that_posted_a_bad_receive_ends() {
    let mut w = super::world();
    let (mut a, mut b) = w.connected(QpOptions::of(UC));
    let (src, _) = w.pattern(0, 100, 1);
    w.recv(&mut b, 7, &[src.sge(0, 100)]);
    w.post(&mut a, &Wr::new(Op::Send, 3).sge(src.all()));
    w.settle();
    assert_eq!(a.cq.results(), [(3, Success)]);
    assert_eq!(b.rcq.results(), [(7, LocProtErr)]);
    assert_eq!(w.state(&b), State::Err);
}

#[test]
fn memory_revoked_in_mid_message_is_not_touched_again() {
    for (side, sender, receiver) in [(1, RemOpErr, Some(LocProtErr)), (0, LocProtErr, None)] {
        let mut w = super::world();
        let (mut a, mut b) = w.connected(QpOptions::of(RC));
        let (src, _) = w.pattern(0, 4 << 20, 1);
        let dst = w.register(1, 1, 4 << 20, ALL);
        w.recv(&mut b, 1, &[dst.all()]);
        w.post(&mut a, &Wr::new(Op::Send, 1).sge(src.all()));
        for _ in 0..5 {
            w.turn();
        }
        let handle = [src.handle, dst.handle][side];
        w.engine.deregister(w.procs[side].s, handle).unwrap();
        let copied = w.read(1, dst.addr, 4 << 20);
        w.settle();
        assert_eq!(a.cq.results(), [(1, sender)]);
        // What was sent before it was revoked may still arrive.
        if side == 1 || !super::WIRED {
            assert!(w.read(1, dst.addr, 4 << 20) == copied);
        }
        match receiver {
            Some(expect) => assert_eq!(b.rcq.results(), [(1, expect)]),
            None => {
                assert!(b.rcq.poll().is_none());
                w.enter(&b, State::Err).unwrap();
                w.settle();
                assert_eq!(b.rcq.results(), [(1, WrFlushErr)]);
            }
        }
    }
}

#[test]
fn an_operation_that_the_policy_does_not_allow_ends_the_queue_pair() {
    use masq_device::Grants;
    let mut w = super::world();
    let (mut a, b) = w.connected(QpOptions::of(RC));
    let (src, data) = w.pattern(0, 64, 1);
    let dst = w.register(1, 1, 64, ALL);
    let only_write = Grants::new([Op::RdmaWrite], ALL);
    let s = w.procs[0].s;
    w.engine.set_grants(s, only_write).unwrap();
    w.post(
        &mut a,
        &Wr::new(Op::RdmaWrite, 1)
            .sge(src.all())
            .remote(dst.addr, dst.key),
    );
    w.settle();
    assert_eq!(a.cq.results(), [(1, Success)]);
    assert_eq!(w.read(1, dst.addr, 64), data);
    w.post(
        &mut a,
        &Wr::new(Op::RdmaRead, 2)
            .sge(src.all())
            .remote(dst.addr, dst.key),
    );
    w.settle();
    assert_eq!(a.cq.results(), [(2, LocQpOpErr)]);
    assert_eq!(w.state(&a), State::Err);
    assert_eq!(w.state(&b), State::Rts, "the peer notices nothing");
}
