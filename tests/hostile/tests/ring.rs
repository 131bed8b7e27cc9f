//! Attacks on the control ring.

use masq_hostile::{Client, Code, Masqd, eventfd, eventually, words};
use masq_spec::command::{Opcode, RequestHeader, Status};
use rustix::event::EventfdFlags;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;
use zerocopy::IntoBytes as _;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Publishes what `fill` wrote into the descriptor table; masqd must hang up
/// on that session only.
fn ends(masqd: &Masqd, what: &str, fill: impl Fn(&Client)) {
    let mut client = masqd.open("red/a");
    fill(&client);
    client.publish(&[0]);
    assert!(client.raw.is_hung_up(), "{what}");
    assert!(masqd.serves_others(), "{what}");
}

#[test]
fn chains_that_break_the_rules_end_their_session_only() {
    let masqd = Masqd::start();
    let queue = Client::control_queue();
    let (desc, buffer) = (queue.desc, queue.desc + 0x4000);
    let nth = |n: u64| desc + 16 * n;
    ends(&masqd, "a loop", |c| {
        c.memory.descriptor(nth(0), buffer, 8, NEXT, 1);
        c.memory.descriptor(nth(1), buffer, 8, NEXT, 0);
    });
    ends(&masqd, "a loop to itself", |c| {
        c.memory.descriptor(nth(0), buffer, 0, NEXT, 0);
    });
    ends(&masqd, "indirect", |c| {
        c.memory
            .descriptor(nth(0), buffer, 65_535 * 16, INDIRECT, 0);
    });
    ends(&masqd, "next outside the table", |c| {
        c.memory.descriptor(nth(0), buffer, 8, NEXT, queue.size);
    });
    ends(&masqd, "readable after writable", |c| {
        c.memory.descriptor(nth(0), buffer, 8, WRITE | NEXT, 1);
        c.memory.descriptor(nth(1), buffer, 8, 0, 0);
    });
    ends(&masqd, "a request longer than any", |c| {
        c.memory.descriptor(nth(0), buffer, 4096, NEXT, 1);
        c.memory.descriptor(nth(1), buffer, 1, 0, 0);
    });
    ends(&masqd, "4 GiB", |c| {
        c.memory.descriptor(nth(0), buffer, u32::MAX, 0, 0);
    });
    ends(&masqd, "unknown flags", |c| {
        c.memory.descriptor(nth(0), buffer, 8, 0x80, 0);
    });
    ends(&masqd, "a buffer far away", |c| {
        c.memory.descriptor(nth(0), 1 << 30, 8, 0, 0);
    });
    ends(&masqd, "a buffer that wraps", |c| {
        c.memory.descriptor(nth(0), u64::MAX - 3, 8, 0, 0);
    });
    ends(&masqd, "an answer outside the file", |c| {
        let header = RequestHeader {
            opcode: Opcode::QueryDevice.raw(),
            flags: 0,
            len: 0,
        };
        c.memory.write(buffer, header.as_bytes());
        c.memory.descriptor(nth(0), buffer, 8, NEXT, 1);
        c.memory.descriptor(nth(1), 1 << 40, 4096, WRITE, 0);
    });
}

#[test]
fn a_head_outside_the_table_and_a_jump_of_the_index_end_the_session() {
    let masqd = Masqd::start();
    let mut client = masqd.open("red/a");
    client.publish(&[999]);
    assert!(client.raw.is_hung_up());
    for jump in [9, 5000, 0x8000, u16::MAX - 1] {
        let client = masqd.open("red/a");
        // HELLO was one; the ring has eight.
        client.set_available(1u16.wrapping_add(jump));
        assert!(client.raw.is_hung_up(), "index + {jump}");
    }
    assert!(masqd.serves_others());
    assert!(masqd.has_logged("available index jumped"));
}

#[test]
fn a_short_or_missing_place_for_the_answer_is_the_frontends_loss() {
    let masqd = Masqd::start();
    let mut client = masqd.open("red/a");
    let queue = Client::control_queue();
    let buffer = queue.desc + 0x4000;
    let header = RequestHeader {
        opcode: Opcode::QueryDevice.raw(),
        flags: 0,
        len: 0,
    };
    client.memory.write(buffer, header.as_bytes());
    for room in [0, 1, 7, 8, 9] {
        client.memory.descriptor(queue.desc, buffer, 8, NEXT, 1);
        client
            .memory
            .descriptor(queue.desc + 16, buffer + 64, room, WRITE, 0);
        client.publish(&[0]);
        assert!(client.is_answered(), "{room}");
    }
    client.memory.descriptor(queue.desc, buffer, 8, 0, 0);
    client.publish(&[0]);
    assert!(client.is_answered(), "no writable descriptor");
    assert!(client.works());
}

#[test]
fn requests_of_every_length_and_opcode_are_answered() {
    let masqd = Masqd::start();
    let mut client = masqd.open("red/a");
    let mut opcodes: Vec<u16> = Opcode::ALL.iter().map(|o| o.raw()).collect();
    opcodes.extend([0, 3, 0x7f, 0x80, 0xffff]);
    for opcode in opcodes {
        for len in [0u32, 1, 7, 8, 16, 40, 48, 80, 152, 1000, 4088] {
            for fill in [0, 1, 0xff] {
                let header = RequestHeader {
                    opcode,
                    flags: 0,
                    len,
                };
                let mut request = header.as_bytes().to_vec();
                request.resize(8 + len as usize, fill);
                let answered = client.send(&request);
                assert!(answered.is_some(), "opcode {opcode:#x}, {len} bytes");
            }
        }
        // The header promises more, or says flags that there are none of.
        for (flags, len) in [(0, 9), (0, u32::MAX), (1, 0)] {
            let header = RequestHeader { opcode, flags, len };
            let answer = client.send(header.as_bytes());
            let status = answer.map(|(status, _)| status);
            let unknown = Opcode::from_raw(opcode).is_none();
            let expected = if unknown {
                Status::Unsupported
            } else {
                Status::Invalid
            };
            assert_eq!(status, Some(expected), "opcode {opcode:#x}");
        }
    }
    for len in 0..8 {
        let answer = client.send(&vec![0; len]).map(|(status, _)| status);
        assert_eq!(answer, Some(Status::Invalid), "{len} bytes");
    }
    assert!(client.works());
}

#[test]
fn ring_memory_that_is_punched_while_in_use_hurts_its_owner_only() {
    let masqd = Masqd::start();
    let mut client = masqd.open("red/a");
    let queue = Client::control_queue();
    let endpoint = client.endpoint(2);
    for _ in 0..50 {
        use rustix::fs::{FallocateFlags, fallocate};
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&client.memory.fd, hole, queue.desc, 0x8000).expect("a hole");
        fallocate(&client.memory.fd, hole, 0x80_0000, 0x40_0000).expect("a hole");
        client.ring(0);
        let _ = rustix::io::write(&client.kick, &1u64.to_ne_bytes());
    }
    let _ = client.try_call(Opcode::DestroyQp, &words(&[u64::from(endpoint.qp)]));
    assert!(masqd.serves_others());
}

#[test]
fn a_kick_that_was_replaced_wakes_nobody_and_its_successor_does() {
    let masqd = Masqd::start();
    let mut client = masqd.open("red/a");
    assert!(client.works());
    let old = rustix::io::dup(&client.kick).expect("a duplicate");
    let new = eventfd(0, EventfdFlags::empty());
    let zero = words(&[0]);
    assert!(
        client
            .raw
            .accepts(Code::SetVringKick, &zero, &[new.as_fd()])
    );
    for _ in 0..1000 {
        rustix::io::write(&old, &1u64.to_ne_bytes()).expect("written");
    }
    assert!(masqd.serves_others());
    client.kick = new;
    assert!(client.works(), "the ring goes on where it was");
    // The position is told when the queue stops, and begun from again.
    let stopped = client
        .raw
        .ask(Code::GetVringBase, &[0; 8], &[])
        .expect("an answer");
    let used = client.memory.u16(Client::control_queue().used + 2);
    let used = u32::from(used.load(Ordering::Acquire));
    assert_eq!(stopped[4..8], used.to_ne_bytes());
}

#[test]
fn a_call_eventfd_at_its_maximum_blocks_its_own_session_only() {
    let masqd = Masqd::start();
    let before = masqd.counts();
    let mut clients = Vec::new();
    for flags in [EventfdFlags::empty(), EventfdFlags::NONBLOCK] {
        let full = eventfd(u64::MAX - 1, flags);
        let client = Client::negotiate(&masqd.socket("red/a"));
        let mut client = client;
        client.take_doorbell();
        client.call = full;
        client.start_control();
        client.event_call = eventfd(u64::MAX - 1, flags);
        client.start_events(1);
        assert_eq!(client.say_hello().0, Status::Ok);
        for _ in 0..100 {
            assert!(client.works(), "answers need no call");
        }
        clients.push(client);
    }
    assert!(masqd.serves_others());
    drop(clients);
    assert!(
        eventually(|| masqd.counts().threads <= before.threads),
        "a blocked thread is interrupted"
    );
}
