//! Real MADs, and random ones.

use super::{MAD, Mad, MadError};
use crate::message::{CommId, Message};
use crate::reject::{Answered, Reason, SidrStatus};
use proptest::prelude::*;

/// MADs between two machines that ran Linux 6.12's rxe, one a line: the program,
/// the message, and the bytes up to the last that is not zero.
const CAPTURED: &str = include_str!("captured.txt");

fn captured() -> impl Iterator<Item = (&'static str, [u8; MAD])> {
    CAPTURED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, hex) = line.rsplit_once(' ').unwrap();
            let mut mad = [0; MAD];
            for (to, digits) in mad.iter_mut().zip(hex.as_bytes().chunks(2)) {
                *to = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
            }
            (name, mad)
        })
}

fn message(wanted: &str) -> Message {
    let (_, mad) = captured().find(|(name, _)| *name == wanted).unwrap();
    Mad::decode(&mad).unwrap().message
}

#[test]
fn captured_mads_are_read_and_written_byte_for_byte() {
    let mut count = 0;
    for (name, mad) in captured() {
        let read = Mad::decode(&mad).unwrap();
        assert_eq!(read.encode(), mad, "{name}: {read:?}");
        count += 1;
    }
    assert_eq!(count, 19);
}

#[test]
fn a_captured_req_says_what_rping_asked_for() {
    let Message::Req(req) = message("rping REQ") else {
        panic!()
    };
    assert_eq!(req.local_comm, CommId(0xb0ff_4794));
    assert_eq!(req.service_id, 0x0106_1c06);
    assert_eq!((req.qpn, req.psn), (0x20, 0x18_a154));
    assert_eq!((req.responder_resources, req.initiator_depth), (1, 1));
    assert_eq!(
        (req.remote_response_timeout, req.local_response_timeout),
        (20, 20)
    );
    assert_eq!(
        (req.retry_count, req.rnr_retry_count, req.max_cm_retries),
        (7, 7, 15)
    );
    assert_eq!(
        (req.transport, req.mtu, req.pkey, req.srq),
        (0, 3, 0xffff, false)
    );
    assert_eq!((req.primary.hop_limit, req.primary.ack_timeout), (64, 17));
    assert_eq!(req.primary.local_gid[10..], [0xff, 0xff, 10, 0, 0, 2]);
    assert_eq!(req.primary.remote_gid[10..], [0xff, 0xff, 10, 0, 0, 1]);
    let (header, private) = crate::address::IpHeader::split(req.private.bytes()).unwrap();
    assert_eq!(header.source, "10.0.0.2:56816".parse().unwrap());
    assert_eq!(
        header.destination,
        "10.0.0.1".parse::<std::net::IpAddr>().unwrap()
    );
    assert!(private.iter().all(|&byte| byte == 0));
    let again = header.with::<{ crate::message::REQ_PRIVATE }>(private);
    assert_eq!(crate::message::Private::new(&again), req.private);
}

#[test]
fn captured_answers_say_what_they_said() {
    let Message::Rep(rep) = message("rping REP") else {
        panic!()
    };
    assert_eq!(
        (rep.local_comm, rep.remote_comm),
        (CommId(0xb3ff_4794), CommId(0xb0ff_4794))
    );
    // The first packet of the side that got this REP had the REP's PSN.
    assert_eq!((rep.qpn, rep.psn), (0x20, 0xe5_d215));
    assert_eq!(
        (rep.target_ack_delay, rep.rnr_retry_count, rep.srq),
        (15, 7, false)
    );
    let Message::Rej(rej) = message("rping without server REJ") else {
        panic!()
    };
    assert_eq!(
        (rej.answered, rej.reason),
        (Answered::REQ, Reason::INVALID_SERVICE_ID)
    );
    assert_eq!(
        (rej.local_comm, rej.remote_comm),
        (CommId(0), CommId(0xb2ff_4794))
    );
    let Message::Dreq(dreq) = message("rping DREQ") else {
        panic!()
    };
    assert_eq!(dreq.remote_qpn, 0x20);
    let Message::SidrRep(rep) = message("udaddy SIDR_REP") else {
        panic!()
    };
    assert_eq!(
        (rep.status, rep.qpn, rep.qkey),
        (SidrStatus::VALID, 0x22, 0x0123_4567)
    );
    assert_eq!(rep.service_id, 0x0111_1c06);
}

#[test]
fn what_is_no_message_says_why() {
    let (_, good) = captured().next().unwrap();
    assert_eq!(Mad::decode(&good[..255]), Err(MadError::Length));
    for at in 0..4 {
        let mut mad = good;
        mad[at] ^= 0x40;
        assert_eq!(Mad::decode(&mad), Err(MadError::Class));
    }
    let mut mad = good;
    mad[17] = 0x19;
    assert_eq!(Mad::decode(&mad), Err(MadError::Attribute(0x19)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn random_bytes_are_a_message_that_survives_or_none(
        mut bytes in prop::collection::vec(any::<u8>(), MAD),
        attribute in 0x0f..0x1bu8,
    ) {
        let _ = Mad::decode(&bytes);
        bytes[..4].copy_from_slice(&super::START);
        bytes[16] = 0;
        bytes[17] = attribute;
        if let Ok(read) = Mad::decode(&bytes) {
            prop_assert_eq!(Mad::decode(&read.encode()), Ok(read));
        }
    }

    #[test]
    fn any_length_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Mad::decode(&bytes);
    }
}
