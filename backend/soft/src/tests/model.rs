//! Random operations on several queue pairs against a plain model of memory
//! and of the order of completions.

use super::harness::*;
use masq_spec::queue::{SendFlags, SendOpcode as Op, Sge, WcStatus};
use proptest::prelude::*;
use std::collections::VecDeque;

const MEM: usize = 4096;
const PAIRS: usize = 3;

#[derive(Clone, Debug)]
struct Step {
    pair: usize,
    forward: bool,
    op: Op,
    len: usize,
    from: usize,
    to: usize,
    add: u64,
    signaled: bool,
    /// Where a gather or scatter list is cut in two.
    cut: usize,
    settle: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let op = prop::sample::select(vec![
        Op::Send,
        Op::SendWithImm,
        Op::RdmaWrite,
        Op::RdmaWriteWithImm,
        Op::RdmaRead,
        Op::FetchAdd,
        Op::CompareSwap,
    ]);
    (
        (0..PAIRS, any::<bool>(), op, 0..512usize),
        (0..MEM - 512, 0..MEM - 512, 0..3u64),
        (any::<bool>(), 0..512usize, any::<bool>()),
    )
        .prop_map(
            |((pair, forward, op, len), (from, to, add), (signaled, cut, settle))| Step {
                pair,
                forward,
                op,
                len,
                from,
                to,
                add,
                signaled,
                cut,
                settle,
            },
        )
}

fn cut(mr: &Mr, at: usize, len: usize, cut: usize) -> [Sge; 2] {
    let cut = cut.min(len);
    [
        mr.sge(at as u64, cut as u32),
        mr.sge((at + cut) as u64, (len - cut) as u32),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Each pair and direction has memory of its own, so that the order among
    /// queue pairs does not matter; the order within one does.
    #[test]
    fn rc_does_to_memory_what_the_model_does(steps in prop::collection::vec(step(), 1..80)) {
        let mut w = World::pair_of_processes();
        let o = QpOptions::of(RC);
        let mut ends: Vec<[TestQp; 2]> = Vec::new();
        let mut mrs: Vec<[Mr; 4]> = Vec::new();
        let mut model: Vec<[Vec<u8>; 4]> = Vec::new();
        for pair in 0..PAIRS {
            let (a, b) = w.connected(o);
            ends.push([a, b]);
            // For each direction: the requester's memory and the responder's.
            let mut make = |proc, seed| {
                let mr = w.register(proc, 1, MEM as u64, ALL);
                let data = bytes(MEM, seed);
                w.write(proc, mr.addr, &data);
                (mr, data)
            };
            let seed = pair as u8 * 4;
            let four = [make(0, seed), make(1, seed + 1), make(1, seed + 2), make(0, seed + 3)];
            mrs.push([four[0].0, four[1].0, four[2].0, four[3].0]);
            let [a, b, c, d] = four;
            model.push([a.1, b.1, c.1, d.1]);
        }
        let mut expect_sends = vec![[VecDeque::new(), VecDeque::new()]; PAIRS];
        let mut expect_receives = vec![[VecDeque::new(), VecDeque::new()]; PAIRS];
        for (n, s) in steps.iter().enumerate() {
            let n = n as u64;
            let direction = usize::from(!s.forward);
            let (own, peer) = (mrs[s.pair][direction * 2], mrs[s.pair][direction * 2 + 1]);
            let (mine, theirs) = {
                let memory = &mut model[s.pair];
                let (left, right) = memory.split_at_mut(direction * 2 + 1);
                (&mut left[direction * 2], &mut right[0])
            };
            let [x, y] = &mut ends[s.pair];
            let (a, b) = if s.forward { (x, y) } else { (y, x) };
            let atomic = matches!(s.op, Op::FetchAdd | Op::CompareSwap);
            let (len, to) = if atomic { (8, s.to & !7) } else { (s.len, s.to) };
            let mut wr = Wr::new(s.op, n).imm(n as u32);
            if s.op == Op::RdmaRead {
                wr.sges = cut(&own, s.from, len, s.cut).to_vec();
            } else {
                wr.sges = cut(&own, s.from, len, if atomic { 8 } else { s.cut }).to_vec();
            }
            wr.flags.set(SendFlags::SIGNALED, s.signaled);
            let mut byte_len = len as u32;
            match s.op {
                Op::Send | Op::SendWithImm => {
                    let list = cut(&peer, to, len, s.cut / 2);
                    w.recv(b, n, &list);
                    theirs[to..to + len].copy_from_slice(&mine[s.from..s.from + len]);
                    expect_receives[s.pair][direction].push_back((n, len as u32));
                }
                Op::RdmaWrite | Op::RdmaWriteWithImm => {
                    wr = wr.remote(peer.addr + to as u64, peer.key);
                    theirs[to..to + len].copy_from_slice(&mine[s.from..s.from + len]);
                    if s.op == Op::RdmaWriteWithImm {
                        w.recv(b, n, &[]);
                        expect_receives[s.pair][direction].push_back((n, len as u32));
                    }
                }
                Op::RdmaRead => {
                    wr = wr.remote(peer.addr + to as u64, peer.key);
                    mine[s.from..s.from + len].copy_from_slice(&theirs[to..to + len]);
                }
                _ => {
                    let old = u64::from_ne_bytes(theirs[to..to + 8].try_into().unwrap());
                    let (operand, swap) = match s.op {
                        Op::FetchAdd => (s.add, 0),
                        _ => (if s.add == 0 { old } else { s.add }, 77),
                    };
                    wr = wr.remote(peer.addr + to as u64, peer.key).atomic(operand, swap);
                    let new = match s.op {
                        Op::FetchAdd => old.wrapping_add(operand),
                        _ if old == operand => swap,
                        _ => old,
                    };
                    theirs[to..to + 8].copy_from_slice(&new.to_ne_bytes());
                    mine[s.from..s.from + 8].copy_from_slice(&old.to_ne_bytes());
                    byte_len = 8;
                }
            }
            if s.signaled {
                expect_sends[s.pair][direction].push_back((n, byte_len));
            }
            w.post(a, &wr);
            if s.settle || n % 20 == 19 {
                w.settle();
            }
        }
        w.settle();
        for pair in 0..PAIRS {
            for (m, proc) in [0, 1, 1, 0].into_iter().enumerate() {
                let got = w.read(proc, mrs[pair][m].addr, MEM);
                prop_assert!(got == model[pair][m], "memory {} of pair {}", m, pair);
            }
            for direction in 0..2 {
                let list = |cq: &mut TestCq| -> Vec<(u64, u32)> {
                    let all = cq.drain();
                    assert!(all.iter().all(|c| status(c) == WcStatus::Success));
                    all.iter().map(|c| (c.wr_id, c.byte_len)).collect()
                };
                let sends = list(&mut ends[pair][direction].cq);
                prop_assert_eq!(sends, Vec::from(expect_sends[pair][direction].clone()));
                let receives = list(&mut ends[pair][1 - direction].rcq);
                prop_assert_eq!(receives, Vec::from(expect_receives[pair][direction].clone()));
            }
        }
    }
}
