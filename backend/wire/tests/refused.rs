//! What is refused, and by which name.

use masq_wire::*;

const FLOW: Flow = Flow {
    addresses: Addresses::V4 {
        src: std::net::Ipv4Addr::new(10, 0, 0, 1),
        dst: std::net::Ipv4Addr::new(10, 0, 0, 2),
    },
    src_port: 50_000,
};

fn headers(opcode: Opcode, extended: Extended) -> Headers {
    Headers {
        bth: Bth::new(opcode, Qpn::new(2), Psn::new(3)),
        extended,
    }
}

fn packet(opcode: Opcode, extended: Extended, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 8192];
    let headers = headers(opcode, extended);
    let len = build(&headers, &[payload], &FLOW, 0, &mut out).unwrap();
    out.truncate(len);
    out
}

fn send(payload: &[u8]) -> Vec<u8> {
    packet(Opcode::RcSendOnly, Extended::Plain, payload)
}

fn changed(at: usize, value: u8) -> Option<ParseError> {
    let mut bytes = send(b"abcd");
    bytes[at] = value;
    Packet::parse(&bytes).err()
}

fn raw(ip: Ip) -> Vec<u8> {
    let mut out = vec![0; 8192];
    let headers = headers(Opcode::RcSendOnly, Extended::Plain);
    let len = build_ip(&headers, &[b"abcd"], &ip, 50_000, &mut out).unwrap();
    out.truncate(len);
    out
}

fn v4() -> Vec<u8> {
    raw(Ip::V4(Ipv4 {
        class: TrafficClass(0),
        id: 0,
        dont_fragment: true,
        ttl: 64,
        src: [10, 0, 0, 1].into(),
        dst: [10, 0, 0, 2].into(),
    }))
}

fn v6() -> Vec<u8> {
    raw(Ip::V6(Ipv6 {
        class: TrafficClass(0),
        flow_label: 0,
        hop_limit: 64,
        src: "fd01::1".parse().unwrap(),
        dst: "fd01::2".parse().unwrap(),
    }))
}

/// The error of an IPv4 packet with a changed byte and a checksum that fits.
fn changed_v4(at: usize, value: u8) -> Option<ParseError> {
    let mut bytes = v4();
    bytes[at] = value;
    bytes[10..12].fill(0);
    let sum: u32 = bytes[..20]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    Datagram::parse(&bytes).err()
}

fn changed_v6(at: usize, value: u8) -> Option<ParseError> {
    let mut bytes = v6();
    bytes[at] = value;
    Datagram::parse(&bytes).err()
}

#[test]
fn a_packet_that_ends_in_a_header_is_truncated() {
    let bytes = packet(
        Opcode::RcFetchAdd,
        Extended::Atomic(AtomicEth::default()),
        b"",
    );
    for len in 0..bytes.len() {
        assert_eq!(
            Packet::parse(&bytes[..len]).err(),
            Some(ParseError::Truncated)
        );
    }
    let bytes = v4();
    for len in 0..20 {
        assert_eq!(
            Datagram::parse(&bytes[..len]).err(),
            Some(ParseError::Truncated)
        );
    }
    for len in 20..bytes.len() {
        assert_eq!(
            Datagram::parse(&bytes[..len]).err(),
            Some(ParseError::IpLength)
        );
    }
}

#[test]
fn only_version_0_of_the_transport_is_read() {
    for version in 1..16 {
        assert_eq!(changed(1, version), Some(ParseError::Version(version)));
    }
}

#[test]
fn opcodes_of_other_services_are_unknown() {
    for code in [0x15, 0x18, 0x1f, 0x2c, 0x40, 0x60, 0x66, 0x80, 0xa0, 0xff] {
        assert_eq!(changed(0, code), Some(ParseError::Opcode(code)));
    }
}

#[test]
fn reserved_bits_are_ignored() {
    let mut bytes = send(b"abcd");
    let headers = Packet::parse(&bytes).unwrap().headers();
    bytes[4] |= 0x3f;
    bytes[8] |= 0x7f;
    assert_eq!(Packet::parse(&bytes).unwrap().headers(), headers);
}

#[test]
fn padding_comes_out_of_what_is_there() {
    let pad = ParseError::Pad { pad: 1, len: 0 };
    let mut bytes = send(b"");
    bytes[1] = 0x10;
    assert_eq!(Packet::parse(&bytes).err(), Some(pad));
    let mut ack = packet(
        Opcode::RcAcknowledge,
        Extended::Aeth(Aeth {
            syndrome: Syndrome::ACK,
            msn: Msn::new(0),
        }),
        b"",
    );
    ack[1] = 0x10;
    assert_eq!(Packet::parse(&ack).err(), Some(pad));
}

#[test]
fn packets_are_made_of_words() {
    let mut bytes = send(b"abcd");
    bytes.push(0);
    assert_eq!(Packet::parse(&bytes).err(), Some(ParseError::Misaligned));
}

#[test]
fn a_request_without_payload_carries_none() {
    let mut bytes = packet(Opcode::RcReadRequest, Extended::Reth(Reth::default()), b"");
    bytes.extend([0; 8]);
    assert_eq!(Packet::parse(&bytes).err(), Some(ParseError::Payload(8)));
}

#[test]
fn nothing_is_longer_than_a_datagram() {
    assert_eq!(Packet::parse(&[0; 65536]).err(), Some(ParseError::TooLong));
}

#[test]
fn the_ip_header_is_the_one_that_rocev2_allows() {
    assert_eq!(Datagram::parse(&v4()).err(), None);
    assert_eq!(changed_v4(0, 0x46), Some(ParseError::IpOptions));
    assert_eq!(changed_v4(0, 0x55), Some(ParseError::IpVersion(5)));
    assert_eq!(changed_v4(6, 0x60), Some(ParseError::Fragment));
    assert_eq!(changed_v4(6, 0xc0), Some(ParseError::Fragment));
    assert_eq!(changed_v4(7, 0x01), Some(ParseError::Fragment));
    assert_eq!(changed_v4(9, 6), Some(ParseError::NotUdp(6)));
    assert_eq!(changed_v4(3, 19), Some(ParseError::IpLength));
    assert_eq!(changed_v4(3, 200), Some(ParseError::IpLength));
    assert_eq!(changed_v4(23, 0), Some(ParseError::NotRoce(0x1200)));
    assert_eq!(changed_v4(25, 27), Some(ParseError::UdpLength));
    let mut bytes = v4();
    bytes[8] = 63;
    assert_eq!(Datagram::parse(&bytes).err(), Some(ParseError::IpChecksum));

    assert_eq!(Datagram::parse(&v6()).err(), None);
    assert_eq!(changed_v6(6, 44), Some(ParseError::NotUdp(44)));
    assert_eq!(changed_v6(5, 200), Some(ParseError::IpLength));
    assert_eq!(changed_v6(45, 27), Some(ParseError::UdpLength));
}

#[test]
fn the_padding_of_a_short_frame_is_left_out() {
    for mut bytes in [v4(), v6()] {
        bytes.extend([0; 18]);
        let datagram = Datagram::parse(&bytes).unwrap();
        assert_eq!(datagram.packet().payload(), b"abcd");
        assert!(datagram.icrc_is_right());
    }
}

#[test]
fn lengths_follow_the_place_in_the_message() {
    let check = |opcode, len| {
        let bytes = packet(opcode, Extended::Plain, &vec![0; len]);
        Packet::parse(&bytes).unwrap().check_length(Mtu::B256)
    };
    for full in [Opcode::RcSendFirst, Opcode::UcWriteMiddle] {
        assert_eq!(check(full, 256), Ok(()));
        assert_eq!(check(full, 255), Err(LengthError::NotFull(255)));
        assert_eq!(check(full, 260), Err(LengthError::NotFull(260)));
    }
    assert_eq!(check(Opcode::RcSendLast, 0), Err(LengthError::Empty));
    assert_eq!(check(Opcode::RcSendLast, 1), Ok(()));
    assert_eq!(
        check(Opcode::RcSendLast, 257),
        Err(LengthError::OverMtu(257))
    );
    assert_eq!(check(Opcode::RcSendOnly, 0), Ok(()));
    assert_eq!(
        check(Opcode::RcSendOnly, 257),
        Err(LengthError::OverMtu(257))
    );
}

#[test]
fn nothing_wrong_is_built() {
    let mut out = [0x5a; 64];
    let plain = headers(Opcode::RcSendOnly, Extended::Plain);
    let wrong = headers(Opcode::RcWriteOnly, Extended::Plain);
    let read = headers(Opcode::RcReadRequest, Extended::Reth(Reth::default()));
    let mut build = |headers, payload: &[u8]| build(headers, &[payload], &FLOW, 0, &mut out);
    assert_eq!(build(&wrong, b""), Err(BuildError::Headers));
    assert_eq!(build(&read, b"a"), Err(BuildError::Payload));
    assert_eq!(build(&plain, &[0; 4097]), Err(BuildError::TooLong(4097)));
    assert_eq!(build(&plain, &[0; 49]), Err(BuildError::Buffer(68)));
    assert_eq!(out, [0x5a; 64]);
    let ip = Datagram::parse(&v4()).unwrap().ip();
    assert_eq!(
        build_ip(&plain, &[&[0; 21]], &ip, 1, &mut out),
        Err(BuildError::Buffer(68))
    );
}
