//! Memory that lies in a process only.

use super::harness::*;
use crate::engine::Tap;
use crossbeam_channel::{Sender, unbounded};
use masq_device::{CaptureView, DeviceError, EndpointKey};
use masq_memory::RemoteMemory;
use masq_spec::queue::{SendOpcode as Op, WcStatus::*};
use masq_spec::verbs::{Segment, SegmentKind, State};
use rustix::process::{PidfdFlags, getpid, getuid, pidfd_open};
use std::os::fd::AsFd;
use std::sync::Arc;

fn own_memory() -> RemoteMemory {
    let pid = getpid();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    RemoteMemory::open(pidfd.as_fd(), pid.as_raw_nonzero().get(), getuid().as_raw()).unwrap()
}

/// Endpoints 1 and 2, whose other memory is that of this process.
fn world() -> World {
    let mut w = World::new();
    if super::WIRED {
        w.wire_up(1);
    }
    for endpoint in 1..=2 {
        w.spawn_with(1, endpoint, gid_of(endpoint), Some(own_memory()));
    }
    w
}

/// Memory of this process that a tenant registers as it is.
/// Never freed: a helper may still be writing when its test is over.
struct Private(&'static mut [u64]);

impl Private {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(8)].leak())
    }
    fn addr(&self) -> u64 {
        self.0.as_ptr() as u64
    }
    fn fill(&mut self, seed: u8) -> Vec<u8> {
        let data = bytes(self.0.len() * 8, seed);
        for (word, bytes) in self.0.iter_mut().zip(data.chunks(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap());
        }
        data
    }
    fn get(&self) -> Vec<u8> {
        // Written behind the compiler's back.
        std::hint::black_box(&*self.0)
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect()
    }
    fn register(&self, w: &mut World, proc: usize) -> Mr {
        let len = self.0.len() as u64 * 8;
        let segment = Segment {
            addr: self.addr(),
            len,
            at: self.addr(),
            kind: SegmentKind::Remote as u32,
            reserved: 0,
        };
        w.register_segments(proc, 1, self.addr(), len, ALL, &[segment])
    }
}

/// Stops the helper of a process until it is sent a message or dropped.
fn gate(w: &mut World, proc: usize) -> Sender<()> {
    let (sender, receiver) = unbounded();
    let s = w.procs[proc].s;
    w.engine.sessions[s].helper.gate = Some(receiver);
    sender
}

fn completed(qp: &TestQp) -> impl FnMut(&mut World) -> bool + use<> {
    let mut cq = qp.cq;
    move |_| cq.poll().is_some()
}

/// What a capture shows of one message.
fn payload(tap: &Tap) -> Vec<u8> {
    let packets = crate::capture::collect(tap).into_iter();
    let read = |bytes: Vec<u8>| {
        let datagram = masq_wire::Datagram::parse(&bytes).unwrap();
        assert!(datagram.icrc_is_right());
        datagram.packet().payload().to_vec()
    };
    packets.flat_map(read).collect()
}

const LEN: usize = 700_000;

#[test]
fn every_opcode_reaches_it_on_either_side() {
    for (src_remote, dst_remote) in [(true, false), (false, true), (true, true)] {
        for op in [Op::Send, Op::RdmaWrite, Op::RdmaRead] {
            let mut w = world();
            let (mut a, mut b) = w.connected(QpOptions::of(RC));
            let (from, to) = if op == Op::RdmaRead { (1, 0) } else { (0, 1) };
            let mut source = Private::new(LEN);
            let mut data = source.fill(3);
            let mut src = source.register(&mut w, from);
            if !src_remote {
                (src, data) = w.pattern(from, LEN as u64, 4);
            }
            let sink = Private::new(LEN);
            let mut dst = sink.register(&mut w, to);
            if !dst_remote {
                dst = w.register(to, 1, LEN as u64, ALL);
            }
            let wr = Wr::new(op, 1);
            let wr = match op {
                Op::Send => {
                    w.recv(&mut b, 1, &[dst.sge(0, 5), dst.sge(5, LEN as u32 - 5)]);
                    wr.sge(src.sge(0, 100)).sge(src.sge(100, LEN as u32 - 100))
                }
                Op::RdmaRead => wr.sge(dst.sge(0, LEN as u32)).remote(src.addr, src.key),
                _ => wr.sge(src.sge(0, LEN as u32)).remote(dst.addr, dst.key),
            };
            let tap = Tap::new(EndpointKey(1), CaptureView::Virtual, 5000);
            let tap = Arc::new(tap);
            w.engine.tap(Arc::clone(&tap));
            w.post(&mut a, &wr);
            w.wait_for(completed(&a));
            if !super::WIRED {
                assert!(payload(&tap) == data, "{op:?} {src_remote} {dst_remote}");
            }
            assert_eq!(a.cq.results(), [(1, Success)]);
            let got = match dst_remote {
                true => sink.get()[..LEN].to_vec(),
                false => w.read(to, dst.addr, LEN),
            };
            assert!(got == data[..LEN], "{op:?} {src_remote} {dst_remote}");
        }
    }
}

/// UC waits for no acknowledgement, but for the bytes that it sends.
#[test]
fn an_unreliable_message_is_complete_when_its_bytes_are_read() {
    for len in [100, 5000, LEN] {
        for op in [Op::Send, Op::RdmaWriteWithImm] {
            let mut w = world();
            let (mut a, mut b) = w.connected(QpOptions::of(UC));
            let mut source = Private::new(len);
            let data = source.fill(5);
            let src = source.register(&mut w, 0);
            let dst = w.register(1, 1, len as u64, ALL);
            w.recv(&mut b, 7, &[dst.all()]);
            let wr = Wr::new(op, 1).sge(src.sge(0, len as u32));
            w.post(&mut a, &wr.remote(dst.addr, dst.key));
            w.wait_for(completed(&a));
            w.wait_for(move |_| b.rcq.poll().is_some());
            assert!(w.read(1, dst.addr, len) == data[..len], "{op:?} of {len}");
        }
    }
}

#[test]
fn atomics_reach_it_on_either_side() {
    for (cell_remote, result_remote) in [(true, false), (false, true), (true, true)] {
        let mut w = world();
        let (mut a, _b) = w.connected(QpOptions::of(RC));
        let (cell, out) = (Private::new(64), Private::new(64));
        let target = match cell_remote {
            true => cell.register(&mut w, 1),
            false => w.register(1, 1, 64, ALL),
        };
        let result = match result_remote {
            true => out.register(&mut w, 0),
            false => w.register(0, 1, 64, ALL),
        };
        for n in 0..3 {
            let wr = Wr::new(Op::FetchAdd, n).sge(result.sge(n * 8, 8));
            w.post(&mut a, &wr.remote(target.addr + 8, target.key).atomic(5, 0));
        }
        let wr = Wr::new(Op::CompareSwap, 3).sge(result.sge(24, 8));
        w.post(
            &mut a,
            &wr.remote(target.addr + 8, target.key).atomic(15, 99),
        );
        let mut cq = a.cq;
        let mut seen = 0;
        w.wait_for(|_| {
            seen += cq.drain().len();
            seen == 4
        });
        assert!(a.cq.results().iter().all(|r| r.1 == Success));
        let results = match result_remote {
            true => out.get()[..32].to_vec(),
            false => w.read(0, result.addr, 32),
        };
        let results: Vec<u64> = results
            .chunks(8)
            .map(|c| u64::from_ne_bytes(c.try_into().unwrap()))
            .collect();
        assert_eq!(results, [0, 5, 10, 15]);
        let value = match cell_remote {
            true => std::hint::black_box(&cell.0)[1],
            false => w.read_u64(1, target.addr + 8),
        };
        assert_eq!(value, 99);
    }
}

#[test]
fn datagrams_reach_it_on_either_side_in_order() {
    for (src_remote, dst_remote) in [(true, false), (false, true), (true, true)] {
        let mut w = world();
        let (mut a, mut b) = w.connected(QpOptions::of(UD));
        let there = w.place(2);
        let ah = w.ah(0, 1, there);
        let mut source = Private::new(1000);
        let mut data = source.fill(3);
        let mut src = source.register(&mut w, 0);
        if !src_remote {
            (src, data) = w.pattern(0, 1000, 4);
        }
        let sink = Private::new(4096);
        let far = sink.register(&mut w, 1);
        let near = w.register(1, 1, 8192, ALL);
        // Every second receive lies in a window: the order is kept.
        for n in 0..6 {
            let mr = if dst_remote && n % 2 == 0 { far } else { near };
            w.recv(&mut b, n, &[mr.sge(0, 2000)]);
        }
        for n in 0..6 {
            w.post(
                &mut a,
                &Wr::new(Op::Send, n)
                    .sge(src.sge(0, 1000))
                    .addressed(ah, b.qpn, 0x1111),
            );
        }
        let mut cq = b.rcq;
        let mut got = Vec::new();
        w.wait_for(|_| {
            got.extend(cq.results());
            got.len() == 6
        });
        assert_eq!(got, (0..6).map(|n| (n, Success)).collect::<Vec<_>>());
        assert_eq!(a.cq.results().len(), 6);
        let bytes = match dst_remote {
            true => sink.get()[40..1040].to_vec(),
            false => w.read(1, near.addr + 40, 1000),
        };
        assert_eq!(bytes, data[..1000]);
    }
}

#[test]
fn the_last_byte_waits_for_bytes_that_a_helper_writes() {
    let mut w = world();
    let (mut a, _b) = w.connected(QpOptions::of(RC));
    let (src, data) = w.pattern(0, 8192, 7);
    assert_ne!(data[8191], 0);
    // The first page lies in a window of 1; so does the last; what lies
    // between does not.
    let base = w.alloc(1, 3 * 4096);
    let len = 8192;
    let segment = |addr, len, kind| Segment {
        addr,
        len,
        at: addr,
        kind: kind as u32,
        reserved: 0,
    };
    // The arena's addresses are none of this process: the helper fails there,
    // so only what comes before and after it could be written.
    let segments = [
        segment(base, 2048, SegmentKind::Window),
        segment(base + 2048, 2048, SegmentKind::Remote),
        segment(base + 4096, 4096, SegmentKind::Window),
    ];
    let dst = w.register_segments(1, 1, base, len, ALL, &segments);
    let go = gate(&mut w, 1);
    w.post(
        &mut a,
        &Wr::new(Op::RdmaWrite, 1)
            .sge(src.all())
            .remote(dst.addr, dst.key),
    );
    w.settle();
    assert_eq!(w.read(1, base + 8191, 1), [0], "the last byte came first");
    drop(go);
    w.wait_for(completed(&a));
    assert_eq!(a.cq.results(), [(1, RemOpErr)]);
    assert_eq!(w.read(1, base + 8191, 1), [0]);
}

#[test]
fn a_mapped_end_is_stored_after_the_helper_is_through() {
    let mut w = world();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let (src, data) = w.pattern(0, 1000, 7);
    let sink = Private::new(600);
    let (far, near) = (sink.register(&mut w, 1), w.register(1, 1, 400, ALL));
    let go = gate(&mut w, 1);
    w.recv(&mut b, 1, &[far.sge(0, 600), near.sge(0, 400)]);
    w.post(&mut a, &Wr::new(Op::Send, 1).sge(src.all()));
    w.settle();
    assert_eq!(w.read(1, near.addr + 399, 1), [0]);
    drop(go);
    w.wait_for(completed(&a));
    assert_eq!(w.read(1, near.addr, 400), data[600..]);
    assert_eq!(sink.get(), data[..600]);
    assert_eq!(b.rcq.results(), [(1, Success)]);
}

#[test]
fn memory_that_is_gone_is_a_fault_of_its_owner() {
    for (op, gone_at, expect) in [
        (Op::RdmaWrite, 0, LocProtErr),
        (Op::RdmaWrite, 1, RemOpErr),
        (Op::RdmaRead, 0, LocProtErr),
        (Op::RdmaRead, 1, RemOpErr),
        (Op::FetchAdd, 1, RemOpErr),
        (Op::FetchAdd, 0, LocProtErr),
    ] {
        let mut w = world();
        let (mut a, b) = w.connected(QpOptions::of(RC));
        let segment = Segment {
            addr: 4096,
            len: 4096,
            at: 4096,
            kind: SegmentKind::Remote as u32,
            reserved: 0,
        };
        let gone = w.register_segments(gone_at, 1, 4096, 4096, ALL, &[segment]);
        let there = w.register(1 - gone_at, 1, 4096, ALL);
        let (own, peer) = if gone_at == 0 {
            (gone, there)
        } else {
            (there, gone)
        };
        w.post(
            &mut a,
            &Wr::new(op, 1)
                .sge(own.sge(0, 8))
                .remote(peer.addr, peer.key),
        );
        w.wait_for(completed(&a));
        assert_eq!(a.cq.results(), [(1, expect)], "{op:?} {gone_at}");
        let state = if gone_at == 1 { State::Err } else { State::Rts };
        assert_eq!(w.state(&b), state);
    }
}

#[test]
fn memory_that_blocks_fails_its_users_after_a_deadline_and_nobody_else() {
    for writing in [true, false] {
        let mut w = world();
        // Far longer than the helper's deadline.
        let mut options = QpOptions::of(RC);
        options.timeout = 20;
        let (mut a, b) = w.connected(options);
        let (mut x, _y) = w.connected(QpOptions::of(RC));
        let sink = Private::new(4096);
        let far = sink.register(&mut w, 1);
        let near = w.register(0, 1, 4096, ALL);
        let peer = w.register(1, 1, 4096, ALL);
        let go = gate(&mut w, 1);
        let op = if writing { Op::RdmaWrite } else { Op::RdmaRead };
        w.post(
            &mut a,
            &Wr::new(op, 1).sge(near.all()).remote(far.addr, far.key),
        );
        w.settle();
        w.post(
            &mut x,
            &Wr::new(Op::RdmaWrite, 2)
                .sge(near.all())
                .remote(peer.addr, peer.key),
        );
        w.settle();
        assert_eq!(x.cq.results(), [(2, Success)]);
        assert!(a.cq.poll().is_none());
        let s = w.procs[1].s;
        w.pass(999_000_000);
        assert!(a.cq.poll().is_none());
        w.pass(1_000_000);
        assert_eq!(a.cq.results(), [(1, RemOpErr)]);
        assert_eq!(w.state(&b), State::Err);
        // Given up, so let go of.
        assert_eq!(w.engine.deregister(s, far.handle).unwrap().len(), 4096);
        drop(go);
    }
}

#[test]
fn a_key_is_revoked_at_once_even_if_the_helper_is_busy() {
    let mut w = world();
    let (mut a, _b) = w.connected(QpOptions::of(RC));
    let (mut x, _y) = w.connected(QpOptions::of(RC));
    let sink = Private::new(4096);
    let (far, other) = (sink.register(&mut w, 1), sink.register(&mut w, 1));
    let near = w.register(0, 1, 4096, ALL);
    let go = gate(&mut w, 1);
    let write = |id, mr: Mr| {
        Wr::new(Op::RdmaWrite, id)
            .sge(near.all())
            .remote(mr.addr, mr.key)
    };
    w.post(&mut a, &write(1, far));
    w.settle();
    let s = w.procs[1].s;
    assert!(matches!(
        w.engine.deregister(s, far.handle),
        Err(DeviceError::Again)
    ));
    w.post(&mut x, &write(2, far));
    w.settle();
    assert_eq!(x.cq.results(), [(2, RemAccessErr)]);
    // Later jobs on other regions do not hold it up.
    let (mut u, _v) = w.connected(QpOptions::of(RC));
    w.post(&mut u, &write(3, other));
    w.settle();
    go.send(()).unwrap();
    w.wait_for(completed(&a));
    w.engine.deregister(s, far.handle).unwrap();
    assert!(u.cq.poll().is_none());
    drop(go);
}

#[test]
fn a_datagram_that_blocks_is_given_up_too() {
    let mut w = world();
    let (mut a, mut b) = w.connected(QpOptions::of(UD));
    let there = w.place(2);
    let ah = w.ah(0, 1, there);
    let sink = Private::new(4096);
    let far = sink.register(&mut w, 1);
    let go = gate(&mut w, 1);
    w.recv(&mut b, 9, &[far.all()]);
    w.post(
        &mut a,
        &Wr::new(Op::Send, 1)
            .inline(b"x")
            .addressed(ah, b.qpn, 0x1111),
    );
    w.settle();
    assert_eq!(a.cq.results(), [(1, Success)]);
    let s = w.procs[1].s;
    assert!(matches!(
        w.engine.deregister(s, far.handle),
        Err(DeviceError::Again)
    ));
    w.pass(1_100_000_000);
    w.engine.deregister(s, far.handle).unwrap();
    // The receive is flushed once, even if the helper answers after all.
    w.enter(&b, State::Err).unwrap();
    w.settle();
    assert_eq!(b.rcq.results(), [(9, WrFlushErr)]);
    drop(go);
    w.wait_for(|w| !w.engine.sessions[s].helper.has_jobs());
    w.settle();
    assert!(b.rcq.poll().is_none());
}

#[test]
fn a_flush_waits_until_no_helper_writes_there_any_more() {
    let mut w = world();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let sink = Private::new(4096);
    let far = sink.register(&mut w, 1);
    let near = w.register(0, 1, 4096, ALL);
    let go = gate(&mut w, 1);
    w.recv(&mut b, 9, &[far.all()]);
    w.post(&mut a, &Wr::new(Op::Send, 1).sge(near.all()));
    w.settle();
    w.enter(&b, State::Err).unwrap();
    for _ in 0..10 {
        w.turn();
    }
    assert!(b.rcq.poll().is_none(), "the program would reuse the buffer");
    drop(go);
    let mut cq = b.rcq;
    w.wait_for(|_| cq.poll().is_some());
    assert_eq!(b.rcq.results(), [(9, WrFlushErr)]);
}

#[test]
fn a_session_in_a_reused_place_does_not_answer_for_the_last_one() {
    let mut w = world();
    let (mut a, _b) = w.connected(QpOptions::of(RC));
    let sink = Private::new(4096);
    let far = sink.register(&mut w, 1);
    let near = w.register(0, 1, 4096, ALL);
    let go = gate(&mut w, 1);
    w.post(
        &mut a,
        &Wr::new(Op::RdmaWrite, 1)
            .sge(near.all())
            .remote(far.addr, far.key),
    );
    w.settle();
    let s = w.procs[1].s;
    drop(w.engine.close(s));
    let third = w.spawn_with(1, 3, gid_of(3), Some(own_memory()));
    assert_eq!(w.procs[third].s, s);
    w.pass(100_000_000_000);
    assert_eq!(a.cq.results(), [(1, RetryExcErr)]);
    // Its helper was not given up for the fault of another.
    let (mut x, _y) = w.connected_at(0, 1, third, 3, QpOptions::of(RC));
    let here = sink.register(&mut w, third);
    w.post(
        &mut x,
        &Wr::new(Op::RdmaWrite, 2)
            .sge(near.all())
            .remote(here.addr, here.key),
    );
    w.wait_for(completed(&x));
    assert_eq!(x.cq.results(), [(2, Success)]);
    drop(go);
}

#[test]
fn what_is_mapped_and_what_is_not_arrive_in_order() {
    let mut w = world();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let small = Private::new(32);
    let far = small.register(&mut w, 1);
    let src = w.register(0, 1, 4096, ALL);
    let near = w.register(1, 1, 4096, ALL);
    let (mut sent, mut done, mut got) = (0u64, 0u64, 0u64);
    for id in 0..8 {
        w.recv(&mut b, id, &[]);
    }
    while got < 400 {
        while sent < done + 4 && sent < 800 {
            w.write(0, src.addr, &sent.to_ne_bytes());
            let wr = match sent % 2 {
                0 => Wr::new(Op::RdmaWrite, sent)
                    .sge(src.sge(0, 16))
                    .remote(far.addr, far.key),
                _ => Wr::new(Op::RdmaWriteWithImm, sent)
                    .sge(src.sge(0, 64))
                    .imm(sent as u32)
                    .remote(near.addr, near.key),
            };
            w.post(&mut a, &wr);
            sent += 1;
        }
        let mut cq = a.cq;
        let mut rcq = b.rcq;
        w.wait_for(|_| cq.poll().is_some() || rcq.poll().is_some());
        done += a.cq.results().len() as u64;
        for cqe in b.rcq.drain() {
            assert_eq!(status(&cqe), Success);
            assert_eq!(u64::from(cqe.imm_data), got * 2 + 1, "lost or out of order");
            got += 1;
            w.recv(&mut b, 100 + got, &[]);
        }
    }
    assert_eq!(w.counters(&b).rx_messages, 800);
}
