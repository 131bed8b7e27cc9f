//! Packets of Linux's rdma_rxe: each is read, means what was sent, is written
//! again to the same bytes, and bears the ICRC that this crate computes.

use std::collections::BTreeMap;

use masq_wire::*;

mod common;

fn roce() -> Vec<common::Captured> {
    let mut packets = common::all();
    packets.retain(|packet| {
        !matches!(
            Datagram::parse(&packet.ip),
            Err(ParseError::NotUdp(_) | ParseError::IpOptions)
        )
    });
    packets
}

/// What the summary calls an opcode.
fn name(opcode: Opcode) -> &'static str {
    match opcode {
        Opcode::RcSendFirst => "RC_SEND_FIRST",
        Opcode::RcSendMiddle => "RC_SEND_MIDDLE",
        Opcode::RcSendLast => "RC_SEND_LAST",
        Opcode::RcSendOnly => "RC_SEND_ONLY",
        Opcode::RcSendOnlyImm => "RC_SEND_ONLY_IMM",
        Opcode::RcSendOnlyInv => "RC_SEND_ONLY_INV",
        Opcode::RcWriteFirst => "RC_WRITE_FIRST",
        Opcode::RcWriteMiddle => "RC_WRITE_MIDDLE",
        Opcode::RcWriteLast => "RC_WRITE_LAST",
        Opcode::RcWriteLastImm => "RC_WRITE_LAST_IMM",
        Opcode::RcWriteOnly => "RC_WRITE_ONLY",
        Opcode::RcWriteOnlyImm => "RC_WRITE_ONLY_IMM",
        Opcode::RcReadRequest => "RC_READ_REQ",
        Opcode::RcReadResponseFirst => "RC_READ_RESP_FIRST",
        Opcode::RcReadResponseMiddle => "RC_READ_RESP_MID",
        Opcode::RcReadResponseLast => "RC_READ_RESP_LAST",
        Opcode::RcReadResponseOnly => "RC_READ_RESP_ONLY",
        Opcode::RcAcknowledge => "RC_ACK",
        Opcode::RcAtomicAcknowledge => "RC_ATOMIC_ACK",
        Opcode::RcCompareSwap => "RC_CMP_SWAP",
        Opcode::RcFetchAdd => "RC_FETCH_ADD",
        Opcode::UcSendFirst => "UC_SEND_FIRST",
        Opcode::UcSendMiddle => "UC_SEND_MIDDLE",
        Opcode::UcSendLast => "UC_SEND_LAST",
        Opcode::UcWriteFirst => "UC_WRITE_FIRST",
        Opcode::UcWriteMiddle => "UC_WRITE_MIDDLE",
        Opcode::UcWriteLast => "UC_WRITE_LAST",
        Opcode::UdSendOnly => "UD_SEND_ONLY",
        Opcode::UdSendOnlyImm => "UD_SEND_ONLY_IMM",
        other => panic!("{other:?} is in no capture"),
    }
}

#[test]
fn every_packet_has_the_opcode_that_another_program_saw() {
    let mut total = 0;
    for (file, expected) in common::summary() {
        let mut counts = BTreeMap::<String, usize>::new();
        for packet in common::capture(&file) {
            match Datagram::parse(&packet.ip) {
                Ok(datagram) => {
                    let name = name(datagram.packet().opcode());
                    *counts.entry(name.to_owned()).or_default() += 1;
                }
                // IGMP, with its router alert option.
                Err(ParseError::IpOptions) if file == "mcast_mckey" => {
                    *counts.entry("ipproto2".to_owned()).or_default() += 1;
                }
                Err(ParseError::NotUdp(6)) if file == "iwarp_rping" => {}
                Err(error) => panic!("{file} {}: {error}", packet.number),
            }
        }
        total += counts.values().sum::<usize>();
        assert_eq!(counts, expected.into_iter().collect(), "{file}");
    }
    assert_eq!(total - 4, 586);
}

#[test]
fn every_icrc_is_right() {
    for packet in roce() {
        let datagram = Datagram::parse(&packet.ip).unwrap();
        assert!(
            datagram.icrc_is_right(),
            "{} {}",
            packet.file,
            packet.number
        );
        assert_eq!(datagram.packet().icrc(), common::icrc(&packet.ip));
    }
}

#[test]
fn every_ip_id_is_found_that_a_udp_socket_would_not_see() {
    for packet in roce() {
        let datagram = Datagram::parse(&packet.ip).unwrap();
        let found = datagram.packet().check_icrc(&datagram.flow());
        let expected = match datagram.ip() {
            Ip::V4(Ipv4 { id: 0, .. }) | Ip::V6(_) => IcrcCheck::Right,
            Ip::V4(Ipv4 { id, .. }) => IcrcCheck::RightWithId(id),
        };
        assert_eq!(found, expected, "{} {}", packet.file, packet.number);
    }
}

#[test]
fn every_packet_is_written_again_to_the_same_bytes() {
    for packet in roce() {
        let datagram = Datagram::parse(&packet.ip).unwrap();
        let inner = datagram.packet();
        let mut out = [0xa5; 8192];
        let written = build_ip(
            &inner.headers(),
            &[inner.payload()],
            &datagram.ip(),
            datagram.udp().src_port(),
            &mut out,
        );
        assert_eq!(written, Ok(packet.ip.len()));
        assert_eq!(
            out[..packet.ip.len()],
            packet.ip,
            "{} {}",
            packet.file,
            packet.number
        );
        assert_eq!(out[packet.ip.len()], 0xa5, "nothing behind it is touched");

        let id = match datagram.ip() {
            Ip::V4(ip) => ip.id,
            Ip::V6(_) => 0,
        };
        let mut out = [0xa5; 8192];
        let flow = datagram.flow();
        let written = build(&inner.headers(), &[inner.payload()], &flow, id, &mut out).unwrap();
        assert_eq!(&out[..written], inner.as_bytes());
    }
}

#[test]
fn every_payload_fits_its_place_in_the_message() {
    for packet in roce() {
        let datagram = Datagram::parse(&packet.ip).unwrap();
        let mtu = match packet.file.as_str() {
            "rc_send_mtu256" => Mtu::B256,
            _ => Mtu::B1024,
        };
        assert_eq!(datagram.packet().check_length(mtu), Ok(()));
    }
}

/// The headers of the packets of a capture, with their payloads.
fn decoded(file: &str) -> Vec<(Headers, Vec<u8>)> {
    let packets = common::capture(file).into_iter();
    packets
        .map(|packet| {
            let datagram = Datagram::parse(&packet.ip).unwrap();
            let packet = datagram.packet();
            (packet.headers(), packet.payload().to_vec())
        })
        .collect()
}

fn syndromes(file: &str) -> Vec<Syndrome> {
    let packets = decoded(file).into_iter();
    packets
        .filter_map(|(headers, _)| match headers.extended {
            Extended::Aeth(aeth) | Extended::AtomicAck(aeth, _) => Some(aeth.syndrome),
            _ => None,
        })
        .collect()
}

#[test]
fn immediate_data_is_where_the_program_put_it() {
    let imms: Vec<_> = decoded("pv_imm")
        .into_iter()
        .filter_map(|(headers, _)| match headers.extended {
            Extended::Imm(imm) | Extended::RethImm(_, imm) => Some(imm.0),
            _ => None,
        })
        .collect();
    assert_eq!(imms[0], [0xde, 0xad, 0xbe, 0xef]);
    assert_eq!(imms.len(), 3);
}

#[test]
fn an_atomic_carries_its_operand_and_its_answer_the_old_value() {
    let packets = decoded("pv_atomic");
    let Extended::Atomic(add) = packets[0].0.extended else {
        panic!("{:?}", packets[0]);
    };
    assert_eq!(packets[0].0.bth.opcode, Opcode::RcFetchAdd);
    assert_eq!((add.swap_add, add.compare), (0x1122_3344_5566_7788, 0));
    let Extended::AtomicAck(aeth, ack) = packets[1].0.extended else {
        panic!("{:?}", packets[1]);
    };
    assert_eq!(aeth.syndrome, Syndrome::ACK);
    assert_eq!(ack.original, 0x5353_5353_5353_5353);
    let Extended::Atomic(swap) = packets[2].0.extended else {
        panic!("{:?}", packets[2]);
    };
    assert_eq!(packets[2].0.bth.opcode, Opcode::RcCompareSwap);
    assert_eq!(swap.compare, ack.original);
    assert_eq!(swap.swap_add, 0xaabb_ccdd_eeff_0011);
    let Extended::AtomicAck(_, second) = packets[3].0.extended else {
        panic!("{:?}", packets[3]);
    };
    assert_eq!(second.original, ack.original + add.swap_add);
}

#[test]
fn each_nak_says_what_was_provoked() {
    let nak = Syndrome::Nak;
    let rnr = Syndrome::RnrNak(RnrTimer::from_code(12));
    assert_eq!(syndromes("pv_rnr"), [rnr; 3]);
    assert_eq!(syndromes("pv_rnr_ok"), [rnr, rnr, Syndrome::ACK]);
    assert_eq!(syndromes("pv_rkey"), [nak(NakCode::RemoteAccess)]);
    assert_eq!(syndromes("pv_rkeyread"), [nak(NakCode::RemoteAccess)]);
    assert_eq!(syndromes("pv_inval"), [nak(NakCode::RemoteOperation)]);
    let missing = nak(NakCode::PsnSequence);
    let count = syndromes("pv_loss")
        .iter()
        .filter(|s| **s == missing)
        .count();
    assert_eq!(count, 4);
}

#[test]
fn the_key_to_invalidate_is_that_of_the_write_before() {
    let packets = decoded("pv_sendinv");
    let key = packets
        .iter()
        .find_map(|(headers, _)| match headers.extended {
            Extended::Reth(reth) => Some(reth.rkey),
            _ => None,
        });
    let invalidated = packets
        .iter()
        .find_map(|(headers, _)| match headers.extended {
            Extended::Inv(ieth) => Some(ieth.rkey),
            _ => None,
        });
    assert!(key.is_some());
    assert_eq!(invalidated, key);
}

#[test]
fn padding_is_not_payload() {
    for file in ["pv_pad", "pv_pad_ipv6"] {
        let sent = decoded(file).into_iter();
        let lengths: Vec<_> = sent
            .filter(|(headers, _)| headers.bth.opcode == Opcode::RcSendOnly)
            .map(|(_, payload)| payload.len())
            .collect();
        assert_eq!(lengths, [0, 1, 2, 3, 4, 5], "{file}");
    }
}

#[test]
fn solicited_is_set_where_it_was_asked_for() {
    let packets = decoded("pv_solicited");
    assert!(packets[0].0.bth.solicited && !packets[1].0.bth.solicited);
    assert!(packets[0].0.bth.ack_request && !packets[1].0.bth.ack_request);
}

#[test]
fn the_connection_manager_speaks_on_qp_1_with_its_key() {
    for file in ["cm_rping", "cm_ucmatose", "cm_udaddy", "cm_rping_reject"] {
        let (headers, mad) = &decoded(file)[0];
        let Extended::Deth(deth) = headers.extended else {
            panic!("{headers:?}");
        };
        assert_eq!((headers.bth.dest_qpn, deth.src_qpn), (Qpn::GSI, Qpn::GSI));
        assert_eq!((deth.qkey, mad.len()), (QKey::GSI, 256));
    }
}

#[test]
fn a_read_is_answered_under_the_number_of_its_request() {
    let packets = decoded("rc_read_small");
    let (request, answer) = (&packets[0], &packets[1]);
    let Extended::Reth(reth) = request.0.extended else {
        panic!("{request:?}");
    };
    assert_eq!(reth.length, 64);
    let answer = packets
        .iter()
        .find(|(headers, _)| headers.bth.opcode == Opcode::RcReadResponseOnly)
        .unwrap_or(answer);
    assert_eq!(answer.0.bth.psn, request.0.bth.psn);
    assert_eq!(answer.1.len(), 64);
}

#[test]
fn multicast_goes_to_every_queue_pair_of_the_group() {
    let packets = common::capture("mcast_mckey");
    let datagram = packets
        .iter()
        .find_map(|packet| Datagram::parse(&packet.ip).ok())
        .unwrap();
    assert_eq!(datagram.packet().bth().dest_qpn(), Qpn::MULTICAST);
    assert!(datagram.flow().addresses.dst().is_multicast());
}
