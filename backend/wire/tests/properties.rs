//! What holds for any headers, and for any bytes.

use masq_wire::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

mod common;

fn bth() -> impl Strategy<Value = Bth> {
    let flags = any::<[bool; 5]>();
    (
        select(Opcode::ALL),
        flags,
        any::<u16>(),
        any::<u32>(),
        any::<u32>(),
    )
        .prop_map(
            |(opcode, [solicited, mig_req, fecn, becn, ack_request], pkey, qpn, psn)| Bth {
                opcode,
                solicited,
                mig_req,
                pkey: PKey(pkey),
                fecn,
                becn,
                dest_qpn: Qpn::new(qpn),
                ack_request,
                psn: Psn::new(psn),
            },
        )
}

/// Headers with random fields, and a payload if the opcode may have one.
fn packet() -> impl Strategy<Value = (Headers, Vec<u8>)> {
    let payload = prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..=4096)];
    (bth(), any::<[u64; 4]>(), payload).prop_map(|(bth, [a, b, c, d], mut payload)| {
        let reth = Reth {
            address: a,
            rkey: RKey(b as u32),
            length: c as u32,
        };
        let aeth = Aeth {
            syndrome: Syndrome::from_code(a as u8),
            msn: Msn::new(b as u32),
        };
        let deth = Deth {
            qkey: QKey(a as u32),
            src_qpn: Qpn::new(b as u32),
        };
        let imm = ImmDt((d as u32).to_be_bytes());
        let extended = match bth.opcode.traits().layout {
            Layout::Plain => Extended::Plain,
            Layout::Imm => Extended::Imm(imm),
            Layout::Inv => Extended::Inv(Ieth {
                rkey: RKey(a as u32),
            }),
            Layout::Reth => Extended::Reth(reth),
            Layout::RethImm => Extended::RethImm(reth, imm),
            Layout::Aeth => Extended::Aeth(aeth),
            Layout::AtomicAck => Extended::AtomicAck(aeth, AtomicAckEth { original: c }),
            Layout::Atomic => Extended::Atomic(AtomicEth {
                address: a,
                rkey: RKey(b as u32),
                swap_add: c,
                compare: d,
            }),
            Layout::Deth => Extended::Deth(deth),
            Layout::DethImm => Extended::DethImm(deth, imm),
            Layout::Cnp => Extended::Cnp,
        };
        if !bth.opcode.traits().payload {
            payload.clear();
        }
        (Headers { bth, extended }, payload)
    })
}

fn ip() -> impl Strategy<Value = Ip> {
    let v4 = (
        any::<(u8, u16, bool, u8)>(),
        any::<[u8; 4]>(),
        any::<[u8; 4]>(),
    )
        .prop_map(|((class, id, dont_fragment, ttl), src, dst)| {
            Ip::V4(Ipv4 {
                class: TrafficClass(class),
                id,
                dont_fragment,
                ttl,
                src: src.into(),
                dst: dst.into(),
            })
        });
    let v6 = (any::<(u8, u32, u8)>(), any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(
        |((class, label, hop_limit), src, dst)| {
            Ip::V6(Ipv6 {
                class: TrafficClass(class),
                flow_label: label & 0xf_ffff,
                hop_limit,
                src: src.into(),
                dst: dst.into(),
            })
        },
    );
    prop_oneof![v4, v6]
}

/// What a UDP socket sends: identification 0, or another, and no fragments.
fn flow(ip: &Ip, src_port: u16) -> Flow {
    Flow {
        addresses: ip.addresses(),
        src_port,
    }
}

fn raw((headers, payload): &(Headers, Vec<u8>), ip: &Ip, port: u16) -> Vec<u8> {
    let mut out = vec![0xa5; 8192];
    let len = build_ip(headers, &[payload], ip, port, &mut out).unwrap();
    out.truncate(len);
    out
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(packet in packet(), ip in ip(), port: u16) {
        let bytes = raw(&packet, &ip, port);
        let datagram = Datagram::parse(&bytes).unwrap();
        prop_assert_eq!(datagram.packet().headers(), packet.0);
        prop_assert_eq!(datagram.packet().payload(), &packet.1[..]);
        prop_assert_eq!(datagram.ip(), ip);
        prop_assert_eq!(datagram.udp().src_port(), port);
        prop_assert_eq!(datagram.udp().checksum(), 0);
        prop_assert!(datagram.icrc_is_right());
        prop_assert_eq!(datagram.packet().icrc(), common::icrc(&bytes));
    }

    #[test]
    fn the_views_say_what_the_structs_say(packet in packet(), ip in ip()) {
        let bytes = raw(&packet, &ip, 1);
        let datagram = Datagram::parse(&bytes).unwrap();
        let view = datagram.packet();
        let imm = view.imm().map(|imm| ImmDt(imm.data()));
        let of_views = match (view.reth(), view.aeth(), view.deth(), view.atomic(), view.ieth()) {
            (Some(reth), None, None, None, None) => match imm {
                Some(imm) => Extended::RethImm(reth.into(), imm),
                None => Extended::Reth(reth.into()),
            },
            (None, Some(aeth), None, None, None) => match view.atomic_ack() {
                Some(ack) => {
                    let original = ack.original();
                    Extended::AtomicAck(aeth.into(), AtomicAckEth { original })
                }
                None => Extended::Aeth(aeth.into()),
            },
            (None, None, Some(deth), None, None) => match imm {
                Some(imm) => Extended::DethImm(deth.into(), imm),
                None => Extended::Deth(deth.into()),
            },
            (None, None, None, Some(atomic), None) => Extended::Atomic(atomic.into()),
            (None, None, None, None, Some(ieth)) => Extended::Inv(Ieth { rkey: ieth.rkey() }),
            (None, None, None, None, None) => match imm {
                Some(imm) => Extended::Imm(imm),
                None if view.opcode() == Opcode::Cnp => Extended::Cnp,
                None => Extended::Plain,
            },
            more => panic!("{more:?}"),
        };
        prop_assert_eq!(of_views, packet.0.extended);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..200), ip in ip()) {
        if let Ok(packet) = Packet::parse(&bytes) {
            let _ = (packet.headers(), packet.check_length(Mtu::B256));
            let _ = packet.check_icrc(&flow(&ip, 1));
        }
        if let Ok(datagram) = Datagram::parse(&bytes) {
            let _ = (datagram.ip(), datagram.icrc_is_right(), datagram.ud_prefix());
        }
    }

    /// Mostly sound packets reach further into the parser than noise.
    #[test]
    fn damaged_packets_are_read_without_a_panic(
        packet in packet(),
        ip in ip(),
        damage in vec(any::<(Index, u8)>(), 0..4),
        cut in any::<Index>(),
    ) {
        let mut bytes = raw(&packet, &ip, 1);
        for (at, value) in damage {
            let at = at.index(bytes.len().min(90));
            bytes[at] = value;
        }
        for cut in [bytes.len(), cut.index(bytes.len())] {
            if let Ok(datagram) = Datagram::parse(&bytes[..cut]) {
                let _ = (datagram.icrc_is_right(), datagram.packet().headers());
            }
            if let Some(Ok(packet)) = bytes.get(28..cut).map(Packet::parse) {
                let _ = (packet.headers(), packet.check_icrc(&flow(&ip, 1)));
            }
        }
    }

    #[test]
    fn one_wrong_byte_is_noticed(
        packet in packet(),
        ip in ip(),
        at in any::<Index>(),
        wrong in 1u8..,
    ) {
        let sound = raw(&packet, &ip, 1);
        let mut bytes = sound.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= wrong;
        let ignored = common::masked(&sound).into_iter().find(|(masked, _)| *masked == at);
        prop_assume!(ignored.is_none_or(|(_, bits)| wrong & !bits != 0));
        let accepted = Datagram::parse(&bytes).is_ok_and(|datagram| datagram.icrc_is_right());
        prop_assert!(!accepted, "byte {}", at);
    }

    #[test]
    fn what_routers_change_does_not_matter(packet in packet(), ip in ip(), class: u8, hops: u8) {
        let sound = raw(&packet, &ip, 1);
        let changed = match ip {
            Ip::V4(ip) => Ip::V4(Ipv4 { class: TrafficClass(class), ttl: hops, ..ip }),
            Ip::V6(ip) => Ip::V6(Ipv6 {
                class: TrafficClass(class),
                hop_limit: hops,
                flow_label: u32::from(class) << 8,
                ..ip
            }),
        };
        let mut bytes = raw(&packet, &changed, 1);
        prop_assert_eq!(&bytes[bytes.len() - 4..], &sound[sound.len() - 4..]);
        let udp = ip.header_len();
        bytes[udp + 6] = hops;
        bytes[udp + 7] = class;
        bytes[udp + 12] = class;
        prop_assert!(Datagram::parse(&bytes).unwrap().icrc_is_right());
    }

    #[test]
    fn pieces_make_the_same_packet_as_the_whole(
        packet in packet(),
        ip in ip(),
        id: u16,
        cuts in vec(any::<Index>(), 0..5),
    ) {
        let (headers, payload) = packet;
        let flow = flow(&ip, 7);
        let mut whole = vec![0xa5; 8192];
        let len = build(&headers, &[&payload], &flow, id, &mut whole).unwrap();
        whole.truncate(len);

        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        cuts.extend([0, payload.len()]);
        cuts.sort();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| &payload[cut[0]..cut[1]]).collect();
        let mut gathered = vec![0x5a; 8192];
        let len = build(&headers, &pieces, &flow, id, &mut gathered).unwrap();
        prop_assert_eq!(&gathered[..len], &whole[..]);

        let emitted = headers.emit(payload.len()).unwrap();
        let mut icrc = Icrc::of_headers(&flow, id, &emitted);
        pieces.iter().for_each(|piece| icrc.update(piece));
        let trailer = icrc.trailer(emitted.pad());
        let scattered = [emitted.as_bytes(), &payload, trailer.as_bytes()].concat();
        prop_assert_eq!(scattered, whole);
    }

    #[test]
    fn a_hidden_ip_id_is_found(packet in packet(), ip in ip(), id: u16) {
        let flow = flow(&ip, 7);
        let mut out = vec![0; 8192];
        let len = build(&packet.0, &[&packet.1], &flow, id, &mut out).unwrap();
        let found = Packet::parse(&out[..len]).unwrap().check_icrc(&flow);
        match ip {
            Ip::V4(_) if id != 0 => prop_assert_eq!(found, IcrcCheck::RightWithId(id)),
            _ => prop_assert_eq!(found, IcrcCheck::Right),
        }
    }
}

/// That a CRC is linear makes this hold for all packets of these lengths, as
/// it holds for one. Damage at random passes with a chance of 2^-16.
#[test]
fn one_flipped_bit_in_a_short_packet_is_not_taken_for_an_ip_id() {
    let headers = Headers {
        bth: Bth::new(Opcode::RcSendOnly, Qpn::new(1), Psn::new(2)),
        extended: Extended::Plain,
    };
    let addresses = Addresses::V4 {
        src: [10, 0, 0, 1].into(),
        dst: [10, 0, 0, 2].into(),
    };
    let flow = Flow {
        addresses,
        src_port: 9,
    };
    for payload in (0..=64).step_by(4) {
        let mut out = [0; 128];
        let len = build(&headers, &[&[7; 64][..payload]], &flow, 0, &mut out).unwrap();
        for at in 12..len {
            for bit in 0..8 {
                let mut damaged = out;
                damaged[at] ^= 1 << bit;
                let packet = Packet::parse(&damaged[..len]).unwrap();
                assert_eq!(packet.check_icrc(&flow), IcrcCheck::Wrong, "{at} {bit}");
            }
        }
    }
}
