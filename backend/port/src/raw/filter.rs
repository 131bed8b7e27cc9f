//! Which frames the kernel puts into the ring.

use std::net::IpAddr;

use masq_wire::ROCE_PORT;

use crate::sys::{Filter, Instruction};

/// Offsets from here on count from the network header (SKF_NET_OFF).
const NET: u32 = -0x10_0000i32 as u32;
/// What the frame is to this host (SKF_AD_OFF + SKF_AD_PKTTYPE).
const PACKET_TYPE: u32 = (-0x1000i32 + 4) as u32;
/// A frame for another host, seen in promiscuous mode.
const OTHER_HOST: u32 = 3;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_SET: u16 = 0x45;
const AND: u16 = 0x54;
const MODULO: u16 = 0x94;
const RETURN: u16 = 0x06;

const UDP: u32 = 17;
/// All of the frame.
const ALL: u32 = 0x4_0000;

/// Drops everything.
pub(crate) fn nothing() -> Filter {
    Filter::new(&[(RETURN, 0, 0, 0)])
}

/// Takes RoCEv2 for the host, as far as it is for queue pairs of the thread,
/// and for any group.
pub(crate) fn roce(host: IpAddr, thread: usize, threads: usize) -> Filter {
    Filter::new(&program(host, thread, threads))
}

/// One test: what is loaded, a mask, what it must be (or not be).
enum Test {
    Is(u16, u32, u32),
    IsNot(u16, u32, u32),
    HasNone(u16, u32, u32),
}

fn program(host: IpAddr, thread: usize, threads: usize) -> Vec<Instruction> {
    let (tests, dst, group, bth) = match host {
        IpAddr::V4(host) => (
            vec![
                // No options, no fragments.
                Test::Is(LOAD_BYTE, NET, 0x45),
                Test::Is(LOAD_BYTE, NET + 9, UDP),
                Test::HasNone(LOAD_HALF, NET + 6, 0x3fff),
                Test::Is(LOAD_HALF, NET + 22, ROCE_PORT.into()),
            ],
            vec![(NET + 16, u32::from(host))],
            (NET + 16, 0xf0, 0xe0),
            NET + 28,
        ),
        IpAddr::V6(host) => {
            let words = host.to_bits().to_be_bytes();
            let words = words.as_chunks::<4>().0.iter().zip((NET + 24..).step_by(4));
            (
                vec![
                    Test::Is(LOAD_BYTE, NET + 6, UDP),
                    Test::Is(LOAD_HALF, NET + 42, ROCE_PORT.into()),
                ],
                words
                    .map(|(word, at)| (at, u32::from_be_bytes(*word)))
                    .collect(),
                (NET + 24, 0xff, 0xff),
                NET + 48,
            )
        }
    };
    let mut out = Vec::new();
    let other = [Test::IsNot(LOAD_BYTE, PACKET_TYPE, OTHER_HOST)];
    for test in other.iter().chain(&tests) {
        let (load, at, jump, value, drop_if) = match *test {
            Test::Is(load, at, value) => (load, at, JUMP_EQUAL, value, false),
            Test::IsNot(load, at, value) => (load, at, JUMP_EQUAL, value, true),
            Test::HasNone(load, at, value) => (load, at, JUMP_SET, value, true),
        };
        out.push((load, 0, 0, at));
        out.push((jump, u8::from(!drop_if), u8::from(drop_if), value));
        out.push((RETURN, 0, 0, 0));
    }
    // Groups are told apart by whoever reads the ring.
    let (at, mask, value) = group;
    out.extend([
        (LOAD_BYTE, 0, 0, at),
        (AND, 0, 0, mask),
        (JUMP_EQUAL, 0, 1, value),
        (RETURN, 0, 0, ALL),
    ]);
    for (at, word) in dst {
        out.extend([
            (LOAD_WORD, 0, 0, at),
            (JUMP_EQUAL, 1, 0, word),
            (RETURN, 0, 0, 0),
        ]);
    }
    if threads > 1 {
        out.extend([
            (LOAD_WORD, 0, 0, bth + 4),
            (AND, 0, 0, 0x00ff_ffff),
            (MODULO, 0, 0, threads as u32),
            (JUMP_EQUAL, 1, 0, thread as u32),
            (RETURN, 0, 0, 0),
        ]);
    }
    out.push((RETURN, 0, 0, ALL));
    out
}
