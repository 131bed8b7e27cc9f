//! Every opcode of connected queue pairs, by content.

use super::harness::*;
use masq_spec::queue::{SendFlags, SendOpcode as Op, WcFlags, WcOpcode, WcStatus::*};
use masq_spec::verbs::QpType;

fn both() -> [QpType; 2] {
    [RC, UC]
}

#[test]
fn a_send_arrives_in_the_receive_with_its_length() {
    for qp_type in both() {
        let mut w = super::world();
        let (mut a, mut b) = w.connected(QpOptions::of(qp_type));
        let (src, data) = w.pattern(0, 5000, 1);
        let dst = w.register(1, 1, 8192, ALL);
        w.recv(&mut b, 77, &[dst.all()]);
        w.post(&mut a, &Wr::new(Op::Send, 5).sge(src.all()));
        w.settle();
        let sent = a.cq.poll().unwrap();
        assert_eq!(
            (sent.wr_id, sent.status, sent.opcode),
            (5, 0, WcOpcode::Send as u8)
        );
        assert_eq!(sent.qp_num, a.qpn);
        let got = b.rcq.poll().unwrap();
        assert_eq!((got.wr_id, status(&got)), (77, Success));
        assert_eq!((got.opcode, got.byte_len), (WcOpcode::Recv as u8, 5000));
        assert_eq!((got.qp_num, got.flags, got.imm_data), (b.qpn, 0, 0));
        assert_eq!(w.read(1, dst.addr, 5000), data);
        assert_eq!(w.read(1, dst.addr + 5000, 100), vec![0; 100]);
        assert!(a.cq.poll().is_none() && b.rcq.poll().is_none());
        let (ca, cb) = (w.counters(&a), w.counters(&b));
        assert_eq!((ca.tx_messages, ca.tx_bytes), (1, 5000));
        assert_eq!((cb.rx_messages, cb.rx_bytes), (1, 5000));
    }
}

#[test]
fn gather_and_scatter_lists_keep_the_order_of_bytes() {
    for qp_type in both() {
        let mut w = super::world();
        let (mut a, mut b) = w.connected(QpOptions::of(qp_type));
        let (src, data) = w.pattern(0, 9000, 2);
        let dst = w.register(1, 1, 16384, ALL);
        let parts = [dst.sge(0, 1), dst.sge(5000, 3999), dst.sge(1000, 3000)];
        w.recv(&mut b, 1, &parts);
        let mut wr = Wr::new(Op::Send, 1);
        for (offset, len) in [(8000, 1000), (0, 0), (0, 2000), (4000, 1), (2000, 900)] {
            wr = wr.sge(src.sge(offset, len));
        }
        w.post(&mut a, &wr);
        w.settle();
        assert_eq!(b.rcq.poll().unwrap().byte_len, 3901);
        let mut sent = data[8000..9000].to_vec();
        sent.extend(&data[..2000]);
        sent.push(data[4000]);
        sent.extend(&data[2000..2900]);
        let mut got = w.read(1, dst.addr, 1);
        got.extend(w.read(1, dst.addr + 5000, 3900));
        assert_eq!(got, sent);
    }
}

#[test]
fn inline_data_is_taken_from_the_slot() {
    for qp_type in both() {
        let mut w = super::world();
        let (mut a, mut b) = w.connected(QpOptions::of(qp_type));
        let dst = w.register(1, 1, 4096, ALL);
        w.recv(&mut b, 1, &[dst.all()]);
        w.post(&mut a, &Wr::new(Op::Send, 1).inline(b"hello"));
        let write = Wr::new(Op::RdmaWrite, 2).inline(&bytes(256, 9));
        w.post(&mut a, &write.remote(dst.addr + 1000, dst.key));
        w.settle();
        assert_eq!(a.cq.results(), [(1, Success), (2, Success)]);
        assert_eq!(w.read(1, dst.addr, 5), b"hello");
        assert_eq!(w.read(1, dst.addr + 1000, 256), bytes(256, 9));
    }
}

#[test]
fn immediate_data_and_solicited_sends_are_marked() {
    for qp_type in both() {
        let mut w = super::world();
        let (mut a, mut b) = w.connected(QpOptions::of(qp_type));
        let (src, data) = w.pattern(0, 64, 3);
        let dst = w.register(1, 1, 4096, ALL);
        for id in 0..2 {
            w.recv(&mut b, id, &[dst.sge(0, 64)]);
        }
        w.post(
            &mut a,
            &Wr::new(Op::SendWithImm, 1).sge(src.all()).imm(0xdead),
        );
        let write = Wr::new(Op::RdmaWriteWithImm, 2).sge(src.all()).imm(0xbeef);
        w.post(&mut a, &write.remote(dst.addr + 512, dst.key));
        w.settle();
        let first = b.rcq.poll().unwrap();
        assert_eq!((first.imm_data, first.byte_len), (0xdead, 64));
        assert_eq!(first.flags, WcFlags::WITH_IMM.bits());
        let second = b.rcq.poll().unwrap();
        assert_eq!(second.opcode, WcOpcode::RecvRdmaWithImm as u8);
        assert_eq!((second.imm_data, second.byte_len), (0xbeef, 64));
        assert_eq!(second.flags, WcFlags::WITH_IMM.bits());
        assert_eq!(w.read(1, dst.addr + 512, 64), data);
        assert_eq!(a.cq.drain()[1].opcode, WcOpcode::RdmaWrite as u8);
    }
}

#[test]
fn a_write_needs_no_receive_and_tells_nobody() {
    for qp_type in both() {
        let mut w = super::world();
        let (mut a, mut b) = w.connected(QpOptions::of(qp_type));
        let (src, data) = w.pattern(0, 3000, 4);
        let dst = w.register(1, 1, 4096, ALL);
        let write = Wr::new(Op::RdmaWrite, 1)
            .sge(src.sge(0, 1000))
            .sge(src.sge(1000, 2000));
        w.post(&mut a, &write.remote(dst.addr + 7, dst.key));
        w.settle();
        assert_eq!(a.cq.results(), [(1, Success)]);
        assert!(b.rcq.poll().is_none());
        assert_eq!(w.read(1, dst.addr + 7, 3000), data);
        assert_eq!(w.read(1, dst.addr, 7), vec![0; 7]);
    }
}

#[test]
fn a_read_brings_the_peers_memory() {
    let mut w = super::world();
    let (mut a, _b) = w.connected(QpOptions::of(RC));
    let (src, data) = w.pattern(1, 4096, 5);
    let dst = w.register(0, 1, 8192, ALL);
    let read = Wr::new(Op::RdmaRead, 9)
        .sge(dst.sge(100, 96))
        .sge(dst.sge(1000, 2000));
    w.post(&mut a, &read.remote(src.addr + 4, src.key));
    w.settle();
    let done = a.cq.poll().unwrap();
    assert_eq!(
        (status(&done), done.opcode),
        (Success, WcOpcode::RdmaRead as u8)
    );
    assert_eq!(done.byte_len, 2096);
    assert_eq!(w.read(0, dst.addr + 100, 96), data[4..100]);
    assert_eq!(w.read(0, dst.addr + 1000, 2000), data[100..2100]);
}

#[test]
fn atomics_return_the_former_value() {
    let mut w = super::world();
    let (mut a, _b) = w.connected(QpOptions::of(RC));
    let cell = w.register(1, 1, 4096, ALL);
    let out = w.register(0, 1, 4096, ALL);
    w.write(1, cell.addr + 8, &100u64.to_ne_bytes());
    let target = (cell.addr + 8, cell.key);
    let wr = |op, id| {
        Wr::new(op, id)
            .sge(out.sge(id * 8, 8))
            .remote(target.0, target.1)
    };
    w.post(&mut a, &wr(Op::FetchAdd, 0).atomic(5, 0));
    w.post(&mut a, &wr(Op::CompareSwap, 1).atomic(105, 7));
    w.post(&mut a, &wr(Op::CompareSwap, 2).atomic(105, 9));
    w.post(&mut a, &wr(Op::FetchAdd, 3).atomic(u64::MAX, 0));
    w.settle();
    let done = a.cq.drain();
    assert!(done.iter().all(|c| status(c) == Success && c.byte_len == 8));
    assert_eq!(done[0].opcode, WcOpcode::FetchAdd as u8);
    assert_eq!(done[1].opcode, WcOpcode::CompSwap as u8);
    let results: Vec<u64> = (0..4).map(|i| w.read_u64(0, out.addr + i * 8)).collect();
    assert_eq!(results, [100, 105, 7, 7]);
    assert_eq!(w.read_u64(1, cell.addr + 8), 6);
}

#[test]
fn a_message_of_no_bytes_is_a_message() {
    for qp_type in both() {
        let mut w = super::world();
        let (mut a, mut b) = w.connected(QpOptions::of(qp_type));
        w.recv(&mut b, 1, &[]);
        w.recv(&mut b, 2, &[]);
        w.post(&mut a, &Wr::new(Op::Send, 1));
        // A key that would be refused is not looked at (IBA 9.7.4.1.3).
        w.post(
            &mut a,
            &Wr::new(Op::RdmaWriteWithImm, 2).imm(3).remote(1, 2),
        );
        w.post(&mut a, &Wr::new(Op::RdmaWrite, 3).remote(1, 2));
        w.settle();
        assert_eq!(a.cq.results(), [(1, Success), (2, Success), (3, Success)]);
        let got = b.rcq.drain();
        assert_eq!(got.iter().map(|c| c.byte_len).collect::<Vec<_>>(), [0, 0]);
    }
}

#[test]
fn a_long_message_takes_many_turns_and_ends_with_its_last_byte() {
    for opcode in [Op::RdmaWrite, Op::Send, Op::RdmaRead] {
        let mut w = super::world();
        let (mut a, mut b) = w.connected(QpOptions::of(RC));
        let len = 5 << 20;
        let (from, to) = if opcode == Op::RdmaRead {
            (1, 0)
        } else {
            (0, 1)
        };
        let (src, data) = w.pattern(from, len, 6);
        assert_ne!(data[data.len() - 1], 0);
        let dst = w.register(to, 1, len, ALL);
        let wr = match opcode {
            Op::Send => {
                w.recv(&mut b, 1, &[dst.all()]);
                Wr::new(opcode, 1).sge(src.all())
            }
            Op::RdmaRead => Wr::new(opcode, 1).sge(dst.all()).remote(src.addr, src.key),
            _ => Wr::new(opcode, 1).sge(src.all()).remote(dst.addr, dst.key),
        };
        w.post(&mut a, &wr);
        let mut turns = 0;
        while w.read(to, dst.addr + len - 1, 1) == [0] {
            assert!(a.cq.poll().is_none(), "completed before the last byte");
            assert!(w.turn());
            turns += 1;
        }
        assert!(turns > 10, "{opcode:?} did all its work in {turns} turns");
        w.settle();
        assert_eq!(w.read(to, dst.addr, len as usize), data);
        assert_eq!(a.cq.results(), [(1, Success)]);
    }
}

#[test]
fn requests_complete_in_order_and_only_when_asked() {
    let mut w = super::world();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let (src, _) = w.pattern(0, 64, 7);
    let dst = w.register(1, 1, 4096, ALL);
    for n in 0..50 {
        w.recv(&mut b, n, &[dst.all()]);
    }
    for n in 0..50 {
        let flags = match n % 3 {
            0 => SendFlags::SIGNALED | SendFlags::FENCE,
            _ => SendFlags::empty(),
        };
        w.post(&mut a, &Wr::new(Op::Send, n).sge(src.all()).flags(flags));
    }
    w.settle();
    let done: Vec<u64> = a.cq.drain().iter().map(|c| c.wr_id).collect();
    assert_eq!(done, (0..50).filter(|n| n % 3 == 0).collect::<Vec<_>>());
    let got: Vec<u64> = b.rcq.drain().iter().map(|c| c.wr_id).collect();
    assert_eq!(got, (0..50).collect::<Vec<_>>());
}

#[test]
fn sq_sig_all_signals_every_request() {
    let mut w = super::world();
    let o = QpOptions {
        sq_sig_all: true,
        ..QpOptions::of(RC)
    };
    let (mut a, _b) = w.connected(o);
    w.post(&mut a, &Wr::new(Op::RdmaWrite, 3).flags(SendFlags::empty()));
    w.settle();
    assert_eq!(a.cq.results(), [(3, Success)]);
}

#[test]
fn a_queue_pair_may_be_connected_to_itself() {
    let mut w = super::world();
    let o = QpOptions::of(RC);
    let mut a = w.qp(0, o);
    w.connect(&a, o, 1, a.qpn);
    let (src, data) = w.pattern(0, 200_000, 8);
    let dst = w.register(0, 1, 200_000, ALL);
    w.recv(&mut a, 8, &[dst.all()]);
    w.post(&mut a, &Wr::new(Op::Send, 7).sge(src.all()));
    w.settle();
    assert_eq!(a.cq.results(), [(7, Success)]);
    assert_eq!(a.rcq.results(), [(8, Success)]);
    assert_eq!(w.read(0, dst.addr, 200_000), data);
    if super::WIRED {
        return;
    }
    // And fails itself: both halves end.
    w.recv(&mut a, 9, &[dst.sge(0, 10)]);
    w.post(&mut a, &Wr::new(Op::Send, 10).sge(src.all()));
    w.settle();
    assert_eq!(a.cq.results(), [(10, RemInvReqErr)]);
    assert_eq!(a.rcq.results(), [(9, LocLenErr)]);
}

#[test]
fn overlapping_memory_is_copied_as_if_at_once() {
    let mut w = super::world();
    let o = QpOptions::of(RC);
    let mut a = w.qp(0, o);
    w.connect(&a, o, 1, a.qpn);
    let (mr, data) = w.pattern(0, 4096, 9);
    let wr = Wr::new(Op::RdmaWrite, 1).sge(mr.sge(0, 1000));
    w.post(&mut a, &wr.remote(mr.addr + 1, mr.key));
    w.settle();
    assert_eq!(w.read(0, mr.addr + 1, 1000), data[..1000]);
}

#[test]
fn running_indexes_wrap_around() {
    let mut w = super::world();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let start = u32::MAX - 5;
    w.engine.start_indexes_at(start);
    (a.sq_tail, b.rq_tail) = (start, start);
    (a.cq.index, b.rcq.index) = (start, start);
    // Rings that were used before hold no zero stamps.
    for ring in [&a.sq, &b.rq.unwrap(), &a.cq.ring, &b.rcq.ring] {
        ring.fill_stamps(1 << 31);
    }
    for cq in [&a.cq, &b.rcq] {
        cq.ring
            .header(masq_spec::queue::HDR_CQ_CONSUMER)
            .store(start, std::sync::atomic::Ordering::Relaxed);
    }
    let (src, _) = w.pattern(0, 64, 7);
    let dst = w.register(1, 1, 4096, ALL);
    for n in 0..40 {
        w.recv(&mut b, n, &[dst.all()]);
        w.post(&mut a, &Wr::new(Op::Send, n).sge(src.all()));
        w.settle();
        assert_eq!(a.cq.results(), [(n, Success)]);
        assert_eq!(b.rcq.results(), [(n, Success)]);
    }
    assert_eq!(a.sq_tail, start.wrapping_add(40));
}
