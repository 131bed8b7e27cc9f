//! Rules of the responder.

use super::bench::*;
use super::workload::{BAD, GOOD};
use crate::*;
use masq_spec::queue::WcStatus;
use masq_spec::verbs::{Access, QpType};
use masq_transport::ResponderFault;
use masq_wire::{AtomicEth, Extended, NakCode, Opcode, Opcode::*, Reth, RnrTimer, Syndrome};

fn read_payload(addr: u64, len: u32) -> Payload {
    Payload::Memory {
        key: GOOD,
        addr,
        len,
    }
}

/// rxe kept the place of the WRITE in what a repeated READ overwrote.
#[test]
fn a_repeated_read_amid_a_write_leaves_the_write_alone() {
    let (mut r, mut log) = (responder(), Log::default());
    let read = packet(RcReadRequest, 0, reth(0x9000, 300));
    r.handle(&read, 0, &mut log);
    let responses = [
        (RcReadResponseFirst, 0, read_payload(0x9000, 256)),
        (RcReadResponseLast, 1, read_payload(0x9100, 44)),
    ];
    assert_eq!(replies(&mut r), responses);
    r.handle(&packet(RcWriteFirst, 2, reth(0x1000, 600)), 256, &mut log);
    assert_eq!(r.handle(&read, 0, &mut log).fate, Fate::Duplicate);
    r.handle(&packet(RcWriteMiddle, 3, Extended::Plain), 256, &mut log);
    let tail = packet(RcReadRequest, 1, reth(0x9100, 44));
    r.handle(&tail, 0, &mut log);
    let last = r.handle(&packet(RcWriteLast, 4, Extended::Plain), 88, &mut log);
    assert_eq!(last.delivery.map(|d| d.length), Some(600));
    assert_eq!(log.placed, [(0x1000, 256), (0x1100, 256), (0x1200, 88)]);
    let mut expected = responses.to_vec();
    expected.push((RcAcknowledge, 4, Payload::None));
    assert_eq!(replies(&mut r), expected);
}

/// rxe acknowledged a repeated WRITE with its latest PSN, so that the requester
/// took a READ for complete whose responses were lost.
#[test]
fn the_ack_of_a_repeated_write_does_not_bear_the_psn_of_a_later_read() {
    let (mut r, mut log) = (responder(), Log::default());
    let write = packet(RcWriteOnly, 0, reth(0x1000, 8));
    r.handle(&write, 8, &mut log);
    r.handle(&packet(RcWriteOnly, 1, reth(0x1008, 8)), 8, &mut log);
    r.handle(&packet(RcReadRequest, 2, reth(0x9000, 300)), 0, &mut log);
    r.handle(&packet(RcWriteOnly, 4, reth(0x1010, 8)), 8, &mut log);
    assert_eq!(replies(&mut r).len(), 4);
    assert_eq!(r.handle(&write, 8, &mut log).fate, Fate::Duplicate);
    let again = r.poll_packet().unwrap();
    assert_eq!(again.headers.bth.psn.get(), 1, "both WRITEs, not the READ");
    assert_eq!(syndrome(&again), Some((Syndrome::ACK, 2)));
    assert_eq!(log.placed.len(), 3, "and nothing is placed twice");
    // After the READ the ACK says all there is.
    r.handle(&packet(RcWriteOnly, 4, reth(0x1010, 8)), 8, &mut log);
    assert_eq!(replies(&mut r), [(RcAcknowledge, 4, Payload::None)]);
}

#[test]
fn acks_are_joined_but_never_overtake_responses() {
    let (mut r, mut log) = (responder(), Log::default());
    for psn in 0..3 {
        r.handle(&packet(RcWriteOnly, psn, reth(0, 8)), 8, &mut log);
    }
    r.handle(&packet(RcReadRequest, 3, reth(0x9000, 1)), 0, &mut log);
    for psn in 4..6 {
        r.handle(&packet(RcWriteOnly, psn, reth(0, 8)), 8, &mut log);
    }
    let expected = [
        (RcAcknowledge, 2, Payload::None),
        (RcReadResponseOnly, 3, read_payload(0x9000, 1)),
        (RcAcknowledge, 5, Payload::None),
    ];
    assert_eq!(replies(&mut r), expected);
}

#[test]
fn a_gap_is_told_once() {
    let (mut r, mut log) = (responder(), Log::default());
    let write = |psn| packet(RcWriteOnly, psn, reth(0, 8));
    assert_eq!(r.handle(&write(1), 8, &mut log).fate, Fate::OutOfOrder);
    let nak = r.poll_packet().unwrap();
    for psn in [2, 3] {
        assert_eq!(r.handle(&write(psn), 8, &mut log).fate, Fate::OutOfOrder);
    }
    assert_eq!(nak.headers.bth.psn.get(), 0, "the PSN that is missing");
    assert_eq!(
        syndrome(&nak),
        Some((Syndrome::Nak(NakCode::PsnSequence), 0))
    );
    assert_eq!(r.poll_packet(), None);
    assert!(log.placed.is_empty());
    // The next gap is another one.
    r.handle(&write(0), 8, &mut log);
    r.handle(&write(2), 8, &mut log);
    assert_eq!(replies(&mut r), [(RcAcknowledge, 1, Payload::None)]);
}

#[test]
fn without_a_receive_the_requester_is_told_to_wait() {
    let (mut r, mut log) = (responder(), Log::default());
    let send = packet(RcSendOnly, 0, Extended::Plain);
    assert_eq!(r.handle(&send, 8, &mut log).fate, Fate::NotReady);
    // What was under way behind it is not answered.
    r.handle(&packet(RcSendOnly, 1, Extended::Plain), 8, &mut log);
    let rnr = r.poll_packet().unwrap();
    let expected = Syndrome::RnrNak(RnrTimer::from_code(12));
    assert_eq!(syndrome(&rnr), Some((expected, 0)));
    assert_eq!(r.poll_packet(), None);
    log.receives = 1;
    let arrival = r.handle(&send, 8, &mut log);
    assert!(arrival.established && arrival.delivery.is_some());
    assert_eq!(replies(&mut r), [(RcAcknowledge, 0, Payload::None)]);
}

#[test]
fn a_write_with_immediate_is_not_placed_before_it_has_a_receive() {
    let (mut r, mut log) = (responder(), Log::default());
    r.handle(&packet(RcWriteFirst, 0, reth(0, 300)), 256, &mut log);
    let last = packet(RcWriteLastImm, 1, Extended::Imm(masq_wire::ImmDt([1; 4])));
    for _ in 0..3 {
        assert_eq!(r.handle(&last, 44, &mut log).fate, Fate::NotReady);
    }
    log.receives = 1;
    let delivery = r.handle(&last, 44, &mut log).delivery.unwrap();
    assert!(delivery.receive && delivery.write && delivery.imm.is_some());
    assert_eq!(log.placed, [(0, 256), (256, 44)]);
}

#[test]
fn an_older_ack_does_not_take_back_a_newer_one() {
    let (mut r, mut log) = (responder(), Log::default());
    let write = packet(RcWriteOnly, 0, reth(0, 8));
    r.handle(&write, 8, &mut log);
    r.handle(&packet(RcReadRequest, 1, reth(0x9000, 1)), 0, &mut log);
    assert_eq!(replies(&mut r).len(), 2);
    r.handle(&packet(RcWriteOnly, 2, reth(0, 8)), 8, &mut log);
    r.handle(&write, 8, &mut log);
    assert_eq!(replies(&mut r), [(RcAcknowledge, 2, Payload::None)]);
}

#[test]
fn a_read_that_is_repeated_while_it_is_answered_is_answered_from_there() {
    let (mut r, mut log) = (responder(), Log::default());
    let read = packet(RcReadRequest, 0, reth(0x9000, 1024));
    r.handle(&read, 0, &mut log);
    for _ in 0..3 {
        r.poll_packet();
    }
    // What is still to come needs no repetition.
    r.handle(&packet(RcReadRequest, 3, reth(0x9300, 256)), 0, &mut log);
    r.handle(&packet(RcReadRequest, 1, reth(0x9100, 256)), 0, &mut log);
    let psns: Vec<_> = replies(&mut r).iter().map(|reply| reply.1).collect();
    assert_eq!(psns, [1, 2, 3]);
    // A longer repetition than the one that waits.
    r.handle(&packet(RcReadRequest, 0, reth(0x9000, 256)), 0, &mut log);
    r.handle(&read, 0, &mut log);
    assert_eq!(replies(&mut r).len(), 4);
}

#[test]
fn a_repeated_read_is_answered_before_later_ones() {
    let (mut r, mut log) = (responder(), Log::default());
    let first = packet(RcReadRequest, 0, reth(0x9000, 8));
    r.handle(&first, 0, &mut log);
    assert_eq!(replies(&mut r).len(), 1);
    r.handle(&packet(RcReadRequest, 1, reth(0x9100, 8)), 0, &mut log);
    r.handle(&packet(RcWriteOnly, 2, reth(0, 8)), 8, &mut log);
    r.handle(&first, 0, &mut log);
    let psns: Vec<_> = replies(&mut r).iter().map(|reply| reply.1).collect();
    assert_eq!(psns, [0, 1, 2]);
}

fn fetch_add(psn: u32) -> masq_wire::Headers {
    let eth = AtomicEth {
        address: 8,
        rkey: GOOD,
        swap_add: 1,
        compare: 0,
    };
    packet(RcFetchAdd, psn, Extended::Atomic(eth))
}

#[test]
fn an_atomic_is_replayed_from_a_bounded_memory() {
    let (mut r, mut log) = (responder(), Log::default());
    for psn in 0..3 {
        r.handle(&fetch_add(psn), 0, &mut log);
        assert_eq!(replies(&mut r).len(), 1);
    }
    for psn in 0..3 {
        assert_eq!(r.handle(&fetch_add(psn), 0, &mut log).fate, Fate::Duplicate);
    }
    let psns: Vec<_> = replies(&mut r).iter().map(|reply| reply.1).collect();
    assert_eq!(psns, [1, 2], "two are remembered");
    assert_eq!(log.atomics, 3, "and none is carried out again");
}

#[test]
fn an_atomic_that_takes_its_time_holds_back_the_answers_behind_it() {
    let (mut r, mut log) = (
        responder(),
        Log {
            defer: true,
            ..Log::default()
        },
    );
    r.handle(&fetch_add(0), 0, &mut log);
    r.handle(&packet(RcWriteOnly, 1, reth(0, 8)), 8, &mut log);
    assert_eq!(r.poll_packet(), None);
    assert!(r.atomic_done(Ok(77)).is_none());
    let first = r.poll_packet().unwrap();
    assert!(matches!(first.headers.extended, Extended::AtomicAck(_, ack) if ack.original == 77));
    assert_eq!(replies(&mut r), [(RcAcknowledge, 1, Payload::None)]);
    r.handle(&fetch_add(2), 0, &mut log);
    let failed = r.atomic_done(Err(ResponderFault::Memory)).unwrap();
    assert!(failed.failure.unwrap().outcome.to_error);
    let nak = r.poll_packet().unwrap();
    assert_eq!(
        syndrome(&nak).unwrap().0,
        Syndrome::Nak(NakCode::RemoteOperation)
    );
    assert_eq!(nak.headers.bth.psn.get(), 2);
}

#[test]
fn more_reads_at_once_than_agreed_are_an_invalid_request() {
    let (mut r, mut log) = (responder(), Log::default());
    for psn in 0..2 {
        r.handle(&packet(RcReadRequest, psn, reth(0, 1)), 0, &mut log);
    }
    let third = r.handle(&packet(RcReadRequest, 2, reth(0, 1)), 0, &mut log);
    assert_eq!(
        third.failure.map(|f| f.fault),
        Some(ResponderFault::Malformed)
    );
    let opcodes: Vec<_> = replies(&mut r).iter().map(|reply| reply.0).collect();
    assert_eq!(
        opcodes,
        [RcReadResponseOnly, RcReadResponseOnly, RcAcknowledge]
    );
}

#[test]
fn a_repeated_read_may_not_ask_for_anything_else() {
    let (mut r, mut log) = (responder(), Log::default());
    r.handle(&packet(RcReadRequest, 0, reth(0x9000, 700)), 0, &mut log);
    assert_eq!(replies(&mut r).len(), 3);
    let ask = |address, rkey, length| {
        Extended::Reth(Reth {
            address,
            rkey,
            length,
        })
    };
    for (psn, asked) in [
        (0, ask(0x9000, GOOD, 701)),
        (0, ask(0x9001, GOOD, 699)),
        (0, ask(0x9000, BAD, 700)),
        (1, ask(0x9000, GOOD, 700)),
        (2, ask(0x9200, GOOD, 0)),
        (0, ask(0x9000, GOOD, 10)),
    ] {
        r.handle(&packet(RcReadRequest, psn, asked), 0, &mut log);
        assert_eq!(r.poll_packet(), None, "{asked:?}");
    }
    r.handle(
        &packet(RcReadRequest, 1, ask(0x9100, GOOD, 256)),
        0,
        &mut log,
    );
    let part = (RcReadResponseOnly, 1, read_payload(0x9100, 256));
    assert_eq!(replies(&mut r), [part]);
}

#[test]
fn what_is_malformed_is_refused_and_ends_the_responder() {
    let refused = |before: &[(Opcode, Extended, usize)], opcode, extended, len| {
        let mut log = Log {
            receives: 9,
            ..Log::default()
        };
        let mut r = responder();
        for (psn, (opcode, extended, len)) in before.iter().enumerate() {
            let arrival = r.handle(&packet(*opcode, psn as u32, *extended), *len, &mut log);
            assert_eq!(arrival.fate, Fate::Taken);
        }
        let psn = before.len() as u32;
        let arrival = r.handle(&packet(opcode, psn, extended), len, &mut log);
        let failure = arrival.failure.expect("a fault");
        assert!(r.has_failed());
        let last = std::iter::from_fn(|| r.poll_packet()).last().unwrap();
        assert_eq!(last.headers.bth.psn.get(), psn);
        (failure.fault, syndrome(&last).unwrap().0)
    };
    let plain = Extended::Plain;
    let invalid = (
        ResponderFault::Malformed,
        Syndrome::Nak(NakCode::InvalidRequest),
    );
    // Lengths.
    assert_eq!(refused(&[], RcSendFirst, plain, 255), invalid);
    assert_eq!(refused(&[], RcSendOnly, plain, 257), invalid);
    assert_eq!(refused(&[], RcWriteOnly, reth(0, 8), 9), invalid);
    assert_eq!(refused(&[], RcWriteFirst, reth(0, 256), 256), invalid);
    assert_eq!(refused(&[], RcReadRequest, reth(0, u32::MAX), 0), invalid);
    let send = [(RcSendFirst, plain, 256)];
    assert_eq!(refused(&send, RcSendLast, plain, 0), invalid);
    let write = [(RcWriteFirst, reth(0, 300), 256)];
    assert_eq!(refused(&write, RcWriteLast, plain, 43), invalid);
    assert_eq!(refused(&write, RcWriteMiddle, plain, 256), invalid);
    // Order.
    assert_eq!(refused(&[], RcSendMiddle, plain, 256), invalid);
    assert_eq!(refused(&send, RcWriteLast, plain, 8), invalid);
    assert_eq!(refused(&send, RcSendOnly, plain, 8), invalid);
    assert_eq!(refused(&write, RcReadRequest, reth(0, 8), 0), invalid);
    // Access, and a receive that is too short.
    let bad = Extended::Reth(Reth {
        address: 0,
        rkey: BAD,
        length: 8,
    });
    let access = (ResponderFault::Access, Syndrome::Nak(NakCode::RemoteAccess));
    assert_eq!(refused(&[], RcWriteOnly, bad, 8), access);
    assert_eq!(refused(&[], RcReadRequest, bad, 0), access);
    let long: Vec<_> = std::iter::once((RcSendFirst, plain, 256))
        .chain((0..15).map(|_| (RcSendMiddle, plain, 256)))
        .collect();
    let short = (ResponderFault::ReceiveTooShort, invalid.1);
    assert_eq!(refused(&long, RcSendLast, plain, 1), short);
}

#[test]
fn a_refusal_that_was_lost_is_repeated_a_few_times() {
    let (mut r, mut log) = (responder(), Log::default());
    let bad = Extended::Reth(Reth {
        address: 0,
        rkey: BAD,
        length: 8,
    });
    let write = packet(RcWriteOnly, 0, bad);
    let failure = r.handle(&write, 8, &mut log).failure.unwrap();
    assert_eq!((failure.receive, failure.outcome.to_error), (None, true));
    assert!(!r.flush(), "no receive is held");
    for _ in 0..17 {
        assert_eq!(replies(&mut r).len(), 1);
        r.handle(&write, 8, &mut log);
    }
    assert_eq!(r.poll_packet(), None);
}

#[test]
fn a_fault_completes_the_receive_that_was_taken() {
    let (mut r, mut log) = (
        responder(),
        Log {
            receives: 1,
            ..Log::default()
        },
    );
    for psn in 0..16 {
        let opcode = if psn == 0 { RcSendFirst } else { RcSendMiddle };
        r.handle(&packet(opcode, psn, Extended::Plain), 256, &mut log);
    }
    let last = packet(RcSendLast, 16, Extended::Plain);
    let failure = r.handle(&last, 1, &mut log).failure.unwrap();
    assert_eq!(failure.receive, Some(WcStatus::LocLenErr));
}

#[test]
fn a_key_that_is_revoked_while_a_read_is_answered_ends_it() {
    let (mut r, mut log) = (responder(), Log::default());
    r.handle(&packet(RcReadRequest, 0, reth(0x9000, 700)), 0, &mut log);
    r.handle(&packet(RcWriteOnly, 3, reth(0, 8)), 8, &mut log);
    let _first = r.poll_packet().unwrap();
    let second = r.poll_packet().unwrap();
    let arrival = r.gather_failed(second.headers.bth.psn, ResponderFault::Access);
    assert!(arrival.failure.unwrap().outcome.to_error);
    let nak = r.poll_packet().unwrap();
    assert_eq!(
        syndrome(&nak).unwrap().0,
        Syndrome::Nak(NakCode::RemoteAccess)
    );
    assert_eq!(nak.headers.bth.psn.get(), 1);
    assert_eq!(r.poll_packet(), None, "what came later is not acknowledged");
}

#[test]
fn congestion_is_reported_at_intervals() {
    let mut r = responder();
    r.congestion(1_000_000);
    r.congestion(1_000_001);
    assert_eq!(
        replies(&mut r).iter().map(|c| c.0).collect::<Vec<_>>(),
        [Cnp]
    );
    r.congestion(1_000_002);
    assert_eq!(r.poll_packet(), None);
    r.congestion(1_050_000);
    assert!(r.poll_packet().is_some_and(|cnp| cnp.headers.bth.becn));
}

#[test]
fn receives_that_are_posted_are_told_as_credits() {
    let mut log = Log {
        receives: 5,
        credits: Some(4),
        ..Log::default()
    };
    let mut r = responder();
    r.handle(&packet(RcSendOnly, 0, Extended::Plain), 8, &mut log);
    let Some((Syndrome::Ack(credits), 1)) = syndrome(&r.poll_packet().unwrap()) else {
        panic!("an ACK");
    };
    assert_eq!(credits.count(), Some(4));
}

#[test]
fn what_is_left_of_a_dropped_unreliable_message_is_dropped_too() {
    let mut r = Responder::new(ResponderConfig {
        qp_type: QpType::Uc,
        ..responder_config()
    });
    let mut log = Log::default();
    r.handle(&packet(UcWriteFirst, 0, reth(0, 300)), 256, &mut log);
    let last = |psn| packet(UcWriteLast, psn, Extended::Plain);
    let wrong = r.handle(&last(1), 43, &mut log);
    assert_eq!(wrong.failure.map(|f| f.outcome.to_error), Some(false));
    assert_eq!(r.handle(&last(2), 44, &mut log).fate, Fate::Dropped);
    assert_eq!(r.poll_packet(), None, "and nobody is told");
    assert!(!r.has_failed());
}

#[test]
fn attributes_that_change_hold_for_what_comes_next() {
    let (mut r, mut log) = (responder(), Log::default());
    r.set_attributes(Access::REMOTE_READ | Access::REMOTE_ATOMIC, 5, 1);
    r.handle(&packet(RcSendOnly, 0, Extended::Plain), 8, &mut log);
    let rnr = r.poll_packet().unwrap();
    let expected = Syndrome::RnrNak(RnrTimer::from_code(5));
    assert_eq!(syndrome(&rnr), Some((expected, 0)));
    r.handle(&fetch_add(0), 0, &mut log);
    let second = r.handle(&fetch_add(1), 0, &mut log);
    assert_eq!(
        second.failure.map(|f| f.fault),
        Some(ResponderFault::Malformed),
        "one at a time"
    );
    let mut r = responder();
    r.set_attributes(Access::REMOTE_READ, 5, 1);
    let write = r.handle(&packet(RcWriteOnly, 0, reth(0, 8)), 8, &mut log);
    assert!(write.failure.is_some(), "WRITEs are no longer taken");
}
