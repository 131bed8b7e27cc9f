//! How fast packets are read, checked, and built with their ICRC.
//!
//! `cargo bench -p masq-wire`; bytes are those of the UDP payload.

use core::net::Ipv4Addr;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use masq_wire::{
    Addresses, Bth, Datagram, Extended, Flow, Headers, Icrc, IcrcCheck, Ip, Ipv4, Opcode, Packet,
    Psn, Qpn, RKey, Reth, TrafficClass, build, build_ip,
};

fn main() {
    divan::main();
}

const SRC: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const DST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

const FLOW: Flow = Flow {
    addresses: Addresses::V4 { src: SRC, dst: DST },
    src_port: 50_000,
};

/// A SEND of 64 bytes and a WRITE of 4096, each in one packet.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Send64,
    Write4096,
}

const KINDS: [Kind; 2] = [Kind::Send64, Kind::Write4096];

impl Kind {
    fn headers(self) -> Headers {
        let bth = |opcode| Bth {
            ack_request: true,
            ..Bth::new(opcode, Qpn::new(17), Psn::new(0x12_3456))
        };
        match self {
            Self::Send64 => Headers {
                bth: bth(Opcode::RcSendOnly),
                extended: Extended::Plain,
            },
            Self::Write4096 => Headers {
                bth: bth(Opcode::RcWriteOnly),
                extended: Extended::Reth(Reth {
                    address: 0x5555_0000_1000,
                    rkey: RKey(0x1234),
                    length: 4096,
                }),
            },
        }
    }

    fn payload(self) -> Vec<u8> {
        let len = match self {
            Self::Send64 => 64,
            Self::Write4096 => 4096,
        };
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    fn packet(self, ip_id: u16) -> Vec<u8> {
        let mut out = vec![0; 8192];
        let len = build(&self.headers(), &[&self.payload()], &FLOW, ip_id, &mut out);
        out.truncate(len.unwrap_or_else(|error| panic!("{error}")));
        out
    }
}

#[divan::bench(args = KINDS)]
fn parse_only(bencher: Bencher<'_, '_>, kind: Kind) {
    let packet = kind.packet(0);
    bencher
        .counter(BytesCount::new(packet.len()))
        .bench_local(|| Packet::parse(black_box(&packet)).map(|packet| packet.payload().len()));
}

#[divan::bench(args = KINDS)]
fn parse_and_check(bencher: Bencher<'_, '_>, kind: Kind) {
    let packet = kind.packet(0);
    bencher
        .counter(BytesCount::new(packet.len()))
        .bench_local(|| match Packet::parse(black_box(&packet)) {
            Ok(packet) => packet.check_icrc(black_box(&FLOW)) == IcrcCheck::Right,
            Err(_) => false,
        });
}

#[divan::bench(args = KINDS)]
fn parse_and_find_the_ip_id(bencher: Bencher<'_, '_>, kind: Kind) {
    let packet = kind.packet(0xbeef);
    bencher
        .counter(BytesCount::new(packet.len()))
        .bench_local(|| match Packet::parse(black_box(&packet)) {
            Ok(packet) => packet.check_icrc(black_box(&FLOW)) == IcrcCheck::RightWithId(0xbeef),
            Err(_) => false,
        });
}

#[divan::bench(args = KINDS)]
fn build_with_icrc(bencher: Bencher<'_, '_>, kind: Kind) {
    let (headers, payload) = (kind.headers(), kind.payload());
    let mut out = vec![0; 8192];
    bencher
        .counter(BytesCount::new(kind.packet(0).len()))
        .bench_local(|| build(black_box(&headers), &[&payload], &FLOW, 0, &mut out));
}

#[divan::bench(args = KINDS)]
fn headers_and_icrc_of_a_scattered_send(bencher: Bencher<'_, '_>, kind: Kind) {
    let (headers, payload) = (kind.headers(), kind.payload());
    bencher
        .counter(BytesCount::new(kind.packet(0).len()))
        .bench_local(|| {
            let emitted = black_box(&headers).emit(payload.len()).ok()?;
            let mut icrc = Icrc::of_headers(&FLOW, 0, &emitted);
            icrc.update(black_box(&payload));
            Some((emitted, icrc.trailer(0)))
        });
}

#[divan::bench(args = KINDS)]
fn raw_build_and_check(bencher: Bencher<'_, '_>, kind: Kind) {
    let (headers, payload) = (kind.headers(), kind.payload());
    let ip = Ip::V4(Ipv4 {
        class: TrafficClass(2),
        id: 1,
        dont_fragment: true,
        ttl: 64,
        src: SRC,
        dst: DST,
    });
    let mut out = vec![0; 8192];
    bencher
        .counter(BytesCount::new(kind.packet(0).len()))
        .bench_local(|| {
            let len = build_ip(black_box(&headers), &[&payload], &ip, 50_000, &mut out).ok()?;
            let datagram = Datagram::parse(out.get(..len)?).ok()?;
            Some(datagram.icrc_is_right())
        });
}
