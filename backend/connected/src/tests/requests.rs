//! Rules of the requester.

use super::bench::*;
use super::workload::request;
use crate::*;
use masq_spec::queue::{SendOpcode, WcStatus};
use masq_spec::verbs::QpType;
use masq_transport::{ack_timeout, rnr_delay};
use masq_wire::{Aeth, Credits, Extended, Msn, NakCode, Opcode, Opcode::*, RnrTimer, Syndrome};

fn posted(config: RequesterConfig, requests: &[(SendOpcode, u32)]) -> Requester {
    let mut r = Requester::new(config);
    for (id, (opcode, length)) in requests.iter().enumerate() {
        r.post(request(id as u64, *opcode, *length, 0)).unwrap();
    }
    r
}

const WRITE: (SendOpcode, u32) = (SendOpcode::RdmaWrite, 8);
const SEND: (SendOpcode, u32) = (SendOpcode::Send, 8);
const READ: (SendOpcode, u32) = (SendOpcode::RdmaRead, 300);

fn response(opcode: Opcode, psn: u32) -> masq_wire::Headers {
    let aeth = Aeth {
        syndrome: Syndrome::ACK,
        msn: Msn::new(0),
    };
    let extended = match opcode {
        RcReadResponseMiddle => Extended::Plain,
        _ => Extended::Aeth(aeth),
    };
    packet(opcode, psn, extended)
}

#[test]
fn a_message_is_cut_at_the_mtu() {
    let mut r = posted(requester_config(), &[(SendOpcode::SendWithImm, 600)]);
    let packets: Vec<_> = std::iter::from_fn(|| r.poll_packet(0)).collect();
    let seen: Vec<_> = packets
        .iter()
        .map(|t| (t.headers.bth.opcode, t.payload, t.headers.bth.ack_request))
        .collect();
    let piece = |offset, len| Payload::Request { id: 0, offset, len };
    let expected = [
        (RcSendFirst, piece(0, 256), false),
        (RcSendMiddle, piece(256, 256), false),
        (RcSendLastImm, piece(512, 88), true),
    ];
    assert_eq!(seen, expected);
    assert!(packets[2].headers.bth.solicited && !packets[0].headers.bth.solicited);
}

#[test]
fn a_ghost_ack_completes_nothing() {
    let mut r = posted(requester_config(), &[WRITE, WRITE]);
    assert_eq!(sends(&mut r, 0).len(), 2);
    let mut sink = Sink::default();
    for psn in [2, 3, 1000, 0x7f_ffff, 0x80_0000, 0xff_ffff] {
        r.handle(&ack(psn), 0, 0, &mut sink);
        assert_eq!(completions(&mut r), [], "{psn:#x}");
    }
    r.handle(&ack(1), 0, 0, &mut sink);
    assert_eq!(completions(&mut r).len(), 2, "one ACK for both");
    assert_eq!(r.deadline(), None);
}

#[test]
fn an_ack_beyond_a_read_means_that_its_responses_are_lost() {
    let mut r = posted(requester_config(), &[WRITE, READ, WRITE]);
    let first = [(RcWriteOnly, 0), (RcReadRequest, 1), (RcWriteOnly, 3)];
    assert_eq!(sends(&mut r, 0), first);
    let mut sink = Sink::default();
    assert_eq!(r.handle(&ack(3), 0, 0, &mut sink), Fate::OutOfOrder);
    assert_eq!(completions(&mut r), [(0, WcStatus::Success)]);
    assert_eq!(sends(&mut r, 0), first[1..], "from the READ on");
    // Told again, it goes back no more.
    assert_eq!(r.handle(&ack(3), 0, 0, &mut sink), Fate::Duplicate);
    assert_eq!(sends(&mut r, 0), []);
    r.handle(&response(RcReadResponseFirst, 1), 256, 0, &mut sink);
    r.handle(&response(RcReadResponseLast, 2), 44, 0, &mut sink);
    assert_eq!(sink.landed, [(1, 0, 256), (1, 256, 44)]);
    r.handle(&ack(3), 0, 0, &mut sink);
    assert_eq!(completions(&mut r).len(), 2);
}

#[test]
fn a_read_is_resumed_at_the_response_that_is_missing() {
    let mut r = posted(requester_config(), &[(SendOpcode::RdmaRead, 1000)]);
    sends(&mut r, 0);
    let mut sink = Sink::default();
    r.handle(&response(RcReadResponseFirst, 0), 256, 0, &mut sink);
    r.handle(&response(RcReadResponseMiddle, 2), 256, 0, &mut sink);
    let again = r.poll_packet(0).unwrap();
    assert_eq!(again.headers.bth.psn.get(), 1);
    let Extended::Reth(reth) = again.headers.extended else {
        panic!("a READ request");
    };
    assert_eq!((reth.address, reth.length), (256, 744));
    // The rest of the first answers counts neither twice nor as another loss.
    r.handle(&response(RcReadResponseLast, 3), 232, 0, &mut sink);
    assert_eq!(r.poll_packet(0), None);
    for (psn, len) in [(1, 256), (2, 256), (3, 232), (3, 232)] {
        r.handle(&response(RcReadResponseMiddle, psn), len, 0, &mut sink);
    }
    let landed: Vec<_> = sink.landed.iter().map(|l| l.1).collect();
    assert_eq!(landed, [0, 256, 512, 768]);
    assert_eq!(completions(&mut r), [(0, WcStatus::Success)]);
}

#[test]
fn a_response_of_the_wrong_length_lands_nowhere() {
    let mut r = posted(requester_config(), &[READ]);
    sends(&mut r, 0);
    let mut sink = Sink::default();
    for len in [0, 255, 257, 4096, usize::MAX] {
        let fate = r.handle(&response(RcReadResponseFirst, 0), len, 0, &mut sink);
        assert_eq!(fate, Fate::Dropped);
    }
    assert!(sink.landed.is_empty());
}

#[test]
fn a_long_read_asks_for_little_at_a_time_within_its_limit() {
    let config = RequesterConfig {
        max_rd_atomic: 2,
        window: (512, 512),
        ..requester_config()
    };
    let mut r = posted(config, &[(SendOpcode::RdmaRead, 256 * 200)]);
    assert_eq!(sends(&mut r, 0), [(RcReadRequest, 0), (RcReadRequest, 64)]);
    let mut sink = Sink::default();
    for psn in 0..64 {
        r.handle(&response(RcReadResponseMiddle, psn), 256, 0, &mut sink);
    }
    assert_eq!(sends(&mut r, 0), [(RcReadRequest, 128)]);
}

#[test]
fn an_rnr_nak_is_waited_out_and_counted() {
    let config = RequesterConfig {
        rnr_retry: 2,
        ..requester_config()
    };
    let mut r = posted(config, &[SEND, SEND]);
    let mut sink = Sink::default();
    let nak = answer(0, Syndrome::RnrNak(RnrTimer::from_code(12)), 0);
    let mut now = 0;
    for _ in 0..2 {
        assert_eq!(sends(&mut r, now).len(), 2);
        assert_eq!(r.handle(&nak, 0, now, &mut sink), Fate::NotReady);
        assert_eq!(r.handle(&nak, 0, now, &mut sink), Fate::Duplicate);
        let until = now + rnr_delay(12);
        assert_eq!(r.deadline(), Some(until));
        assert_eq!(sends(&mut r, until - 1), []);
        now = until;
    }
    sends(&mut r, now);
    r.handle(&nak, 0, now, &mut sink);
    let expected = [(0, WcStatus::RnrRetryExcErr), (1, WcStatus::WrFlushErr)];
    assert_eq!(completions(&mut r), expected);
    assert_eq!(r.deadline(), None);
}

#[test]
fn silence_is_probed_sparingly_and_ends_when_the_attributes_say() {
    let mut r = posted(requester_config(), &[(SendOpcode::RdmaWrite, 256 * 30)]);
    let (mut now, mut sent) = (1000, sends(&mut r, 1000).len());
    while let Some(at) = r.deadline() {
        assert!(at >= now);
        now = at;
        r.expire(now);
        sent += sends(&mut r, now).len();
    }
    assert_eq!(completions(&mut r), [(0, WcStatus::RetryExcErr)]);
    assert_eq!(now, 1000 + 8 * ack_timeout(14).unwrap());
    assert!(
        (31..60).contains(&sent),
        "{sent} packets into a dead network"
    );
}

#[test]
fn an_ack_timeout_of_zero_never_gives_up() {
    let mut r = posted(
        RequesterConfig {
            timeout: 0,
            ..requester_config()
        },
        &[WRITE],
    );
    let mut now = 0;
    for _ in 0..1000 {
        assert_eq!(sends(&mut r, now).len(), 1);
        now = r.deadline().unwrap();
        r.expire(now);
    }
    assert!(!r.has_failed());
}

#[test]
fn a_loss_halves_the_window_and_a_notification_takes_a_quarter() {
    let many = [(SendOpcode::RdmaWrite, 256 * 400)];
    let mut r = posted(requester_config(), &many);
    assert_eq!(sends(&mut r, 0).len(), 32);
    let mut sink = Sink::default();
    let gap = answer(0, Syndrome::Nak(NakCode::PsnSequence), 0);
    assert_eq!(r.handle(&gap, 0, 0, &mut sink), Fate::OutOfOrder);
    assert_eq!(r.handle(&gap, 0, 0, &mut sink), Fate::Duplicate);
    assert_eq!(sends(&mut r, 0).len(), 16);
    let mut r = posted(requester_config(), &many);
    sends(&mut r, 0);
    r.congestion();
    r.congestion();
    r.handle(&ack(15), 0, 0, &mut sink);
    assert_eq!(sends(&mut r, 0).len(), 8, "once for what was under way: 24");
    // Without losses it grows.
    let mut r = posted(requester_config(), &many);
    sends(&mut r, 0);
    r.handle(&ack(31), 0, 0, &mut sink);
    assert_eq!(sends(&mut r, 0).len(), 64);
}

#[test]
fn a_fence_waits_for_reads_only() {
    let mut r = posted(requester_config(), &[READ, WRITE]);
    let mut fenced = request(2, SendOpcode::Send, 8, 0);
    fenced.fence = true;
    r.post(fenced).unwrap();
    assert_eq!(sends(&mut r, 0), [(RcReadRequest, 0), (RcWriteOnly, 2)]);
    let mut sink = Sink::default();
    r.handle(&response(RcReadResponseFirst, 0), 256, 0, &mut sink);
    assert_eq!(sends(&mut r, 0), []);
    r.handle(&response(RcReadResponseLast, 1), 44, 0, &mut sink);
    assert_eq!(sends(&mut r, 0), [(RcSendOnly, 3)]);
}

#[test]
fn without_credit_one_message_at_a_time_asks_for_more() {
    let mut r = posted(requester_config(), &[SEND, SEND, SEND, WRITE]);
    let mut sink = Sink::default();
    sends(&mut r, 0);
    let none = Syndrome::Ack(Credits::from_code(0));
    r.handle(&answer(3, none, 4), 0, 0, &mut sink);
    for id in 10..14 {
        r.post(request(id, SendOpcode::Send, 8, 0)).unwrap();
    }
    assert_eq!(sends(&mut r, 0), [(RcSendOnly, 4)]);
    let two = Syndrome::Ack(Credits::from_code(2));
    r.handle(&answer(4, two, 5), 0, 0, &mut sink);
    assert_eq!(sends(&mut r, 0), [(RcSendOnly, 5), (RcSendOnly, 6)]);
}

#[test]
fn a_nak_ends_the_request_that_it_names() {
    for (code, status) in [
        (NakCode::InvalidRequest, WcStatus::RemInvReqErr),
        (NakCode::RemoteAccess, WcStatus::RemAccessErr),
        (NakCode::RemoteOperation, WcStatus::RemOpErr),
    ] {
        let mut r = posted(requester_config(), &[WRITE, WRITE, WRITE]);
        sends(&mut r, 0);
        r.handle(
            &answer(1, Syndrome::Nak(code), 1),
            0,
            0,
            &mut Sink::default(),
        );
        let flushed = WcStatus::WrFlushErr;
        let expected = [(0, WcStatus::Success), (1, status), (2, flushed)];
        assert_eq!(completions(&mut r), expected);
        // Posted to a queue pair in ERROR.
        r.post(request(9, SendOpcode::Send, 8, 0)).unwrap();
        assert_eq!(completions(&mut r), [(9, flushed)]);
        assert_eq!(sends(&mut r, 0), []);
    }
}

#[test]
fn a_request_that_is_wrong_fails_in_its_turn() {
    let mut r = posted(
        requester_config(),
        &[WRITE, (SendOpcode::FetchAdd, 4), WRITE],
    );
    assert_eq!(sends(&mut r, 0), [(RcWriteOnly, 0)]);
    assert_eq!(completions(&mut r), []);
    r.handle(&ack(0), 0, 0, &mut Sink::default());
    let expected = [
        (0, WcStatus::Success),
        (1, WcStatus::LocLenErr),
        (2, WcStatus::WrFlushErr),
    ];
    assert_eq!(completions(&mut r), expected);
    let mut r = posted(requester_config(), &[WRITE, WRITE]);
    sends(&mut r, 0);
    r.reject(1, WcStatus::LocProtErr);
    assert!(!r.has_failed());
    r.handle(&ack(0), 0, 0, &mut Sink::default());
    assert_eq!(completions(&mut r)[1], (1, WcStatus::LocProtErr));
}

#[test]
fn local_operations_take_their_turn() {
    let local = (SendOpcode::LocalInv, 0);
    let mut r = posted(requester_config(), &[WRITE, local, WRITE]);
    assert_eq!(sends(&mut r, 0), [(RcWriteOnly, 0)]);
    assert_eq!(r.poll_local(), None);
    r.handle(&ack(0), 0, 0, &mut Sink::default());
    assert_eq!(r.poll_local(), Some(1));
    assert_eq!(sends(&mut r, 0), []);
    r.local_done(Ok(()));
    assert_eq!(sends(&mut r, 0), [(RcWriteOnly, 1)]);
    assert_eq!(completions(&mut r).len(), 2);
}

#[test]
fn a_draining_queue_finishes_what_began() {
    let mut r = posted(
        requester_config(),
        &[(SendOpcode::RdmaWrite, 256 * 40), WRITE],
    );
    assert_eq!(sends(&mut r, 0).len(), 32);
    r.set_draining(true);
    let mut sink = Sink::default();
    r.handle(&ack(31), 0, 0, &mut sink);
    assert_eq!(sends(&mut r, 0).len(), 8);
    assert!(!r.is_drained());
    r.handle(&ack(39), 0, 0, &mut sink);
    assert!(r.is_drained());
    assert_eq!(sends(&mut r, 0), []);
    r.set_draining(false);
    assert_eq!(sends(&mut r, 0), [(RcWriteOnly, 40)]);
}

#[test]
fn uc_completes_what_it_sent_and_asks_for_no_ack() {
    let config = RequesterConfig {
        qp_type: QpType::Uc,
        ..requester_config()
    };
    let mut r = posted(config, &[(SendOpcode::RdmaWriteWithImm, 300), SEND, READ]);
    let packets: Vec<_> = std::iter::from_fn(|| r.poll_packet(0)).collect();
    let opcodes: Vec<_> = packets.iter().map(|t| t.headers.bth.opcode).collect();
    assert_eq!(opcodes, [UcWriteFirst, UcWriteLastImm, UcSendOnly]);
    assert!(packets.iter().all(|t| !t.headers.bth.ack_request));
    assert_eq!(r.deadline(), None);
    assert_eq!(completions(&mut r)[2], (2, WcStatus::LocQpOpErr), "no READ");
}

#[test]
fn credits_count_a_long_read_as_the_requests_that_it_becomes() {
    let config = RequesterConfig {
        window: (512, 512),
        ..requester_config()
    };
    let long = (SendOpcode::RdmaRead, 256 * 200);
    let mut r = posted(config, &[WRITE, long, SEND, SEND]);
    assert_eq!(r.poll_packet(0).map(|t| t.headers.bth.psn.get()), Some(0));
    // Messages up to the sixth: the WRITE, four READ requests and a SEND.
    let five = Syndrome::Ack(Credits::at_most(5));
    assert_eq!(Credits::at_most(5).count(), Some(4));
    let mut sink = Sink::default();
    r.handle(&answer(0, five, 2), 0, 0, &mut sink);
    let sent = sends(&mut r, 0);
    assert_eq!(sent.last(), Some(&(RcSendOnly, 201)));
    assert_eq!(sent.len(), 5);
}

#[test]
fn an_answer_that_comes_after_going_back_is_not_wasted() {
    let mut r = posted(requester_config(), &[WRITE, WRITE, WRITE, WRITE]);
    assert_eq!(sends(&mut r, 0).len(), 4);
    let now = r.deadline().unwrap();
    r.expire(now);
    let again = r.poll_packet(now).unwrap();
    assert_eq!(again.headers.bth.psn.get(), 0);
    assert!(again.headers.bth.ack_request);
    assert_eq!(r.poll_packet(now), None, "one packet looks after the rest");
    let mut sink = Sink::default();
    r.handle(&ack(2), 0, now, &mut sink);
    assert_eq!(sends(&mut r, now), [(RcWriteOnly, 3)]);
}

#[test]
fn what_is_sent_again_asks_for_an_ack_at_once() {
    let mut r = posted(requester_config(), &[(SendOpcode::RdmaWrite, 256 * 10)]);
    sends(&mut r, 0);
    let gap = answer(2, Syndrome::Nak(NakCode::PsnSequence), 0);
    r.handle(&gap, 0, 0, &mut Sink::default());
    let asked: Vec<_> = std::iter::from_fn(|| r.poll_packet(0))
        .map(|t| t.headers.bth.ack_request)
        .collect();
    let counters = r.counters();
    assert_eq!((counters.packets, counters.repeated), (18, 8));
    assert_eq!(counters.losses, 1);
    assert_eq!(
        asked,
        [true, false, false, false, false, false, false, true]
    );
}

#[test]
fn a_draining_queue_repeats_what_was_lost() {
    let mut r = posted(requester_config(), &[WRITE, WRITE]);
    r.poll_packet(0);
    r.set_draining(true);
    let gap = answer(0, Syndrome::Nak(NakCode::PsnSequence), 0);
    r.handle(&gap, 0, 0, &mut Sink::default());
    assert_eq!(sends(&mut r, 0), [(RcWriteOnly, 0)]);
}

#[test]
fn a_shorter_timeout_holds_from_the_next_packet() {
    let mut r = posted(requester_config(), &[READ, READ]);
    r.set_attributes(1, 0, 7, 1);
    assert_eq!(sends(&mut r, 0), [(RcReadRequest, 0)], "one at a time");
    assert_eq!(r.deadline(), ack_timeout(1));
    r.expire(ack_timeout(1).unwrap());
    assert_eq!(completions(&mut r)[0], (0, WcStatus::RetryExcErr));
}
