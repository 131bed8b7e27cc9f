//! What captures show.

use super::harness::*;
use crate::capture::collect;
use crate::engine::Tap;
use masq_device::{CaptureView, Destination, EndpointKey};
use masq_spec::queue::{SendFlags, SendOpcode as Op, WcStatus};
use masq_spec::verbs::Gid;
use masq_wire::{
    Addresses, Aeth, AtomicAckEth, Datagram, Extended, Headers, NakCode, Opcode, QKey, Syndrome,
};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const WHOLE: usize = 65_535;

fn tap(w: &mut World, endpoint: u32, view: CaptureView) -> Arc<Tap> {
    let tap = Arc::new(Tap::new(EndpointKey(endpoint), view, WHOLE));
    w.engine.tap(Arc::clone(&tap));
    tap
}

/// A packet that was shown.
struct Shown {
    from: IpAddr,
    to: IpAddr,
    headers: Headers,
    payload: Vec<u8>,
}

/// All packets so far; each is whole and its ICRC is right.
fn shown(tap: &Tap) -> Vec<Shown> {
    let read = |bytes: Vec<u8>| {
        let datagram = Datagram::parse(&bytes).expect("a RoCEv2 packet");
        assert!(datagram.icrc_is_right(), "{:?}", datagram.packet());
        let addresses = datagram.flow().addresses;
        Shown {
            from: addresses.src(),
            to: addresses.dst(),
            headers: datagram.packet().headers(),
            payload: datagram.packet().payload().to_vec(),
        }
    };
    collect(tap).into_iter().map(read).collect()
}

fn opcodes(packets: &[Shown]) -> Vec<Opcode> {
    packets.iter().map(|p| p.headers.bth.opcode).collect()
}

fn psns(packets: &[Shown]) -> Vec<u32> {
    packets.iter().map(|p| p.headers.bth.psn.get()).collect()
}

/// The virtual address of an endpoint.
fn ip(endpoint: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, endpoint))
}

fn aeth(packet: &Shown) -> Aeth {
    match packet.headers.extended {
        Extended::Aeth(aeth) | Extended::AtomicAck(aeth, _) => aeth,
        other => panic!("{other:?} is no answer"),
    }
}

#[test]
fn a_message_within_the_host_is_shown_as_its_packets() {
    let mut w = World::pair_of_processes();
    let o = QpOptions::of(RC);
    let (mut a, mut b) = w.connected(o);
    let taps = [1, 2].map(|endpoint| tap(&mut w, endpoint, CaptureView::Virtual));
    let (src, data) = w.pattern(0, 10_001, 3);
    let dst = w.register(1, 1, 20_000, ALL);
    w.recv(&mut b, 1, &[dst.all()]);
    let send = Wr::new(Op::SendWithImm, 1).sge(src.all()).imm(0x01020304);
    let flags = SendFlags::SIGNALED | SendFlags::SOLICITED;
    w.post(&mut a, &send.flags(flags));
    w.settle();
    for tap in &taps {
        let packets = shown(tap);
        use Opcode::*;
        let expected = [RcSendFirst, RcSendMiddle, RcSendLastImm, RcAcknowledge];
        assert_eq!(opcodes(&packets), expected);
        assert_eq!(psns(&packets), [0, 1, 2, 2]);
        let sent: Vec<u8> = packets.iter().flat_map(|p| p.payload.clone()).collect();
        assert!(sent == data);
        let (last, ack) = (&packets[2], &packets[3]);
        assert_eq!((last.from, last.to), (ip(1), ip(2)));
        assert_eq!(last.headers.bth.dest_qpn.get(), b.qpn);
        assert!(last.headers.bth.solicited && last.headers.bth.ack_request);
        assert!(!packets[0].headers.bth.solicited && !packets[0].headers.bth.ack_request);
        let Extended::Imm(imm) = last.headers.extended else {
            panic!("{:?}", last.headers)
        };
        assert_eq!(u32::from_ne_bytes(imm.0), 0x01020304);
        assert_eq!((ack.from, ack.to), (ip(2), ip(1)));
        assert_eq!(ack.headers.bth.dest_qpn.get(), a.qpn);
        assert_eq!(aeth(ack).syndrome, Syndrome::ACK);
        assert_eq!(aeth(ack).msn.get(), 1);
    }
}

#[test]
fn numbers_count_on_from_message_to_message_by_queue_pair() {
    let mut w = World::pair_of_processes();
    let o = QpOptions::of(RC);
    let (mut a, mut b) = w.connected(o);
    let tap = tap(&mut w, 1, CaptureView::Virtual);
    let (src, _) = w.pattern(0, 9000, 3);
    let dst = w.register(1, 1, 9000, ALL);
    for n in 0..2 {
        let write = Wr::new(Op::RdmaWrite, n).sge(src.all());
        w.post(&mut a, &write.remote(dst.addr, dst.key));
    }
    w.settle();
    // The other direction has numbers of its own.
    let write = Wr::new(Op::RdmaWrite, 9).sge(dst.sge(0, 8));
    w.post(&mut b, &write.remote(src.addr, src.key));
    w.settle();
    let packets = shown(&tap);
    assert_eq!(psns(&packets), [0, 1, 2, 2, 3, 4, 5, 5, 0, 0]);
    assert_eq!(aeth(&packets[7]).msn.get(), 2);
    assert_eq!(aeth(&packets[9]).msn.get(), 1);
    let Extended::Reth(reth) = packets[0].headers.extended else {
        panic!("{:?}", packets[0].headers)
    };
    assert_eq!(
        (reth.address, reth.rkey.0, reth.length),
        (dst.addr, dst.key, 9000)
    );
}

#[test]
fn a_read_is_shown_as_requests_and_responses() {
    let mut w = World::pair_of_processes();
    let o = QpOptions::of(RC);
    let (mut a, _b) = w.connected(o);
    let tap = tap(&mut w, 2, CaptureView::Virtual);
    // Longer than one turn's bytes, and than one request asks for.
    let len = 65 * 4096 + 5;
    let local = w.register(0, 1, len, ALL);
    let (remote, data) = w.pattern(1, len, 9);
    let read = Wr::new(Op::RdmaRead, 1).sge(local.all());
    w.post(&mut a, &read.remote(remote.addr, remote.key));
    w.settle();
    assert_eq!(a.cq.results(), [(1, WcStatus::Success)]);
    let packets = shown(&tap);
    let (requests, responses): (Vec<_>, Vec<_>) = packets
        .iter()
        .partition(|p| p.headers.bth.opcode == Opcode::RcReadRequest);
    let asked: Vec<_> = requests
        .iter()
        .map(|p| match p.headers.extended {
            Extended::Reth(reth) => (p.headers.bth.psn.get(), reth.address, reth.length),
            other => panic!("{other:?}"),
        })
        .collect();
    let half = 64 * 4096;
    let expected = [
        (0, remote.addr, half),
        (64, remote.addr + u64::from(half), len as u32 - half),
    ];
    assert_eq!(asked, expected);
    assert!(requests.iter().all(|p| (p.from, p.to) == (ip(1), ip(2))));
    assert!(responses.iter().all(|p| (p.from, p.to) == (ip(2), ip(1))));
    let of: Vec<_> = responses.iter().map(|p| p.headers.bth.opcode).collect();
    assert_eq!(of[0], Opcode::RcReadResponseFirst);
    assert_eq!(of[63], Opcode::RcReadResponseLast);
    assert_eq!(of[64], Opcode::RcReadResponseFirst);
    assert_eq!(of[65], Opcode::RcReadResponseLast);
    assert!(of[1..63].iter().all(|o| *o == Opcode::RcReadResponseMiddle));
    let numbers: Vec<_> = responses.iter().map(|p| p.headers.bth.psn.get()).collect();
    assert!(numbers.into_iter().eq(0..66));
    let read: Vec<u8> = responses.iter().flat_map(|p| p.payload.clone()).collect();
    assert!(read == data);
}

#[test]
fn an_atomic_is_shown_with_what_it_found() {
    let mut w = World::pair_of_processes();
    let (mut a, _b) = w.connected(QpOptions::of(RC));
    let tap = tap(&mut w, 1, CaptureView::Virtual);
    let local = w.register(0, 1, 8, ALL);
    let remote = w.register(1, 1, 8, ALL);
    w.write(1, remote.addr, &77u64.to_ne_bytes());
    let add = Wr::new(Op::FetchAdd, 1).sge(local.all()).atomic(5, 0);
    w.post(&mut a, &add.remote(remote.addr, remote.key));
    w.settle();
    let packets = shown(&tap);
    let expected = [Opcode::RcFetchAdd, Opcode::RcAtomicAcknowledge];
    assert_eq!(opcodes(&packets), expected);
    let Extended::Atomic(eth) = packets[0].headers.extended else {
        panic!("{:?}", packets[0].headers)
    };
    assert_eq!((eth.address, eth.swap_add), (remote.addr, 5));
    let Extended::AtomicAck(_, AtomicAckEth { original }) = packets[1].headers.extended else {
        panic!("{:?}", packets[1].headers)
    };
    assert_eq!(original, 77);
}

#[test]
fn a_refusal_is_shown_with_its_reason() {
    let mut w = World::pair_of_processes();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let tap = tap(&mut w, 1, CaptureView::Virtual);
    let (src, data) = w.pattern(0, 100, 1);
    let dst = w.register(1, 1, 100, ALL);
    // No receive at first.
    w.post(&mut a, &Wr::new(Op::Send, 1).sge(src.all()));
    w.settle();
    w.recv(&mut b, 1, &[dst.all()]);
    w.settle();
    // A key that there is not.
    let write = Wr::new(Op::RdmaWrite, 2).sge(src.all());
    w.post(&mut a, &write.remote(dst.addr, dst.key ^ 1));
    w.settle();
    let packets = shown(&tap);
    use Opcode::*;
    let expected = [
        RcSendOnly,
        RcAcknowledge,
        RcSendOnly,
        RcAcknowledge,
        RcWriteOnly,
        RcAcknowledge,
    ];
    assert_eq!(opcodes(&packets), expected);
    assert_eq!(psns(&packets), [0, 0, 0, 0, 1, 1]);
    assert!(packets[0].payload == data);
    assert!(matches!(aeth(&packets[1]).syndrome, Syndrome::RnrNak(_)));
    assert_eq!(aeth(&packets[3]).syndrome, Syndrome::ACK);
    let denied = Syndrome::Nak(NakCode::RemoteAccess);
    assert_eq!(aeth(&packets[5]).syndrome, denied);
}

#[test]
fn uc_has_packets_without_answers() {
    let mut w = World::pair_of_processes();
    let (mut a, mut b) = w.connected(QpOptions::of(UC));
    let tap = tap(&mut w, 2, CaptureView::Virtual);
    let (src, _) = w.pattern(0, 5000, 1);
    let dst = w.register(1, 1, 5000, ALL);
    w.recv(&mut b, 1, &[dst.all()]);
    w.post(&mut a, &Wr::new(Op::Send, 1).sge(src.all()));
    w.settle();
    let packets = shown(&tap);
    assert_eq!(opcodes(&packets), [Opcode::UcSendFirst, Opcode::UcSendLast]);
    assert!(packets.iter().all(|p| !p.headers.bth.ack_request));
}

#[test]
fn a_datagram_within_the_host_is_shown_with_its_addresses() {
    let mut w = World::pair_of_processes();
    let (mut a, mut b) = w.connected(QpOptions::of(UD));
    let tap = tap(&mut w, 2, CaptureView::Virtual);
    let dst = w.register(1, 1, 4096, ALL);
    let ah = w.ah(0, 1, Destination::Endpoint(EndpointKey(2)));
    for n in 0..2 {
        w.recv(&mut b, n, &[dst.all()]);
        let send = Wr::new(Op::Send, n).inline(b"hello");
        w.post(&mut a, &send.addressed(ah, b.qpn, 0x1111));
    }
    w.settle();
    let packets = shown(&tap);
    assert_eq!(psns(&packets), [0, 1]);
    assert_eq!((packets[0].from, packets[0].to), (ip(1), ip(2)));
    assert_eq!(packets[0].payload, b"hello");
    let Extended::Deth(deth) = packets[0].headers.extended else {
        panic!("{:?}", packets[0].headers)
    };
    assert_eq!((deth.qkey, deth.src_qpn.get()), (QKey(0x1111), a.qpn));
}

#[test]
fn a_multicast_datagram_is_shown_once_an_endpoint() {
    const GROUP: Gid = [0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 239, 1, 2, 3];
    let mut w = World::pair_of_processes();
    let o = QpOptions::of(UD);
    let (mut a, b) = w.connected(o);
    let mut more = w.qp(1, o);
    w.connect(&more, o, 1, 0);
    let mut b = b;
    for qp in [&a, &b, &more] {
        let s = w.procs[qp.proc].s;
        w.engine.attach_multicast(s, qp.handle, GROUP).unwrap();
    }
    let s = w.procs[0].s;
    let reach = vec![EndpointKey(1), EndpointKey(2)];
    w.engine.set_multicast_reach(s, reach).unwrap();
    let taps = [1, 2].map(|endpoint| tap(&mut w, endpoint, CaptureView::Virtual));
    w.recv(&mut a, 1, &[]);
    w.recv(&mut b, 1, &[]);
    w.recv(&mut more, 1, &[]);
    let ah = w.ah(0, 1, Destination::Multicast(GROUP));
    let send = Wr::new(Op::Send, 1).inline(b"all");
    w.post(&mut a, &send.addressed(ah, 0xff_ffff, 0x1111));
    w.settle();
    for tap in &taps {
        let packets = shown(tap);
        assert_eq!(packets.len(), 1);
        assert_eq!(packets[0].to, IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3)));
    }
}

#[test]
fn packets_between_hosts_are_shown_by_either_address() {
    let mut w = World::pair_over_the_wire();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let renamed = tap(&mut w, 1, CaptureView::Virtual);
    let wire = tap(&mut w, 1, CaptureView::Wire);
    let (src, data) = w.pattern(0, 5000, 1);
    let dst = w.register(1, 1, 5000, ALL);
    w.recv(&mut b, 1, &[dst.all()]);
    w.post(&mut a, &Wr::new(Op::Send, 1).sge(src.all()));
    w.settle();
    assert_eq!(a.cq.results(), [(1, WcStatus::Success)]);
    let (by_name, by_host) = (shown(&renamed), shown(&wire));
    let expected = [
        Opcode::RcSendFirst,
        Opcode::RcSendLast,
        Opcode::RcAcknowledge,
    ];
    assert_eq!(opcodes(&by_name), expected);
    assert_eq!(opcodes(&by_host), expected);
    let sent: Vec<u8> = by_host.iter().flat_map(|p| p.payload.clone()).collect();
    assert!(sent == data);
    assert!(by_host.iter().all(|p| (p.from, p.to) == (HOST, HOST)));
    // The harness gives no GID of the peer, whose host stands for it.
    assert_eq!((by_name[0].from, by_name[0].to), (ip(1), HOST));
    assert_eq!((by_name[2].from, by_name[2].to), (HOST, ip(1)));
}

#[test]
fn datagrams_of_other_hosts_are_shown_by_the_address_of_their_sender() {
    let mut w = World::pair_over_the_wire();
    let (mut a, mut b) = w.connected(QpOptions::of(UD));
    let receiver = tap(&mut w, 2, CaptureView::Virtual);
    let sender = tap(&mut w, 1, CaptureView::Wire);
    let dst = w.register(1, 1, 4096, ALL);
    let there = w.place(2);
    let ah = w.ah(0, 1, there);
    w.recv(&mut b, 1, &[dst.all()]);
    let send = Wr::new(Op::Send, 1).inline(b"hello");
    w.post(&mut a, &send.addressed(ah, b.qpn, 0x1111));
    w.settle();
    let (got, sent) = (shown(&receiver), shown(&sender));
    assert_eq!((got.len(), sent.len()), (1, 1));
    assert_eq!((got[0].from, got[0].to), (ip(1), ip(2)));
    assert_eq!((sent[0].from, sent[0].to), (HOST, HOST));
    assert_eq!(got[0].payload, b"hello");
}

#[test]
fn the_wire_has_nothing_of_messages_within_the_host() {
    let mut w = World::pair_of_processes();
    let (mut a, mut b) = w.connected(QpOptions::of(RC));
    let wire = tap(&mut w, 1, CaptureView::Wire);
    w.recv(&mut b, 1, &[]);
    w.post(&mut a, &Wr::new(Op::Send, 1));
    w.settle();
    assert_eq!(a.cq.results(), [(1, WcStatus::Success)]);
    assert!(shown(&wire).is_empty());
}

#[test]
fn nothing_of_others_is_shown() {
    for mut w in [World::pair_of_processes(), World::pair_over_the_wire()] {
        // Another endpoint of the tenant, and one of another tenant.
        let neighbour = w.spawn(1, 3);
        w.spawn(2, 4);
        let o = QpOptions::of(RC);
        let (mut a, mut b) = w.connected(o);
        let (mut c, mut d) = w.connected_at(neighbour, 3, 0, 1, o);
        let taps = [2, 3, 4].map(|endpoint| tap(&mut w, endpoint, CaptureView::Virtual));
        w.recv(&mut b, 1, &[]);
        w.recv(&mut d, 1, &[]);
        w.post(&mut a, &Wr::new(Op::Send, 1));
        w.post(&mut c, &Wr::new(Op::Send, 2));
        w.settle();
        let seen = taps.each_ref().map(|tap| shown(tap));
        let numbers = seen.each_ref().map(|packets| {
            let mut numbers: Vec<_> = packets
                .iter()
                .map(|p| p.headers.bth.dest_qpn.get())
                .collect();
            numbers.sort_unstable();
            numbers
        });
        let both = |x: u32, y: u32| vec![x.min(y), x.max(y)];
        assert_eq!(numbers, [both(a.qpn, b.qpn), both(c.qpn, d.qpn), vec![]]);
    }
}

#[test]
fn a_slow_reader_loses_packets_which_are_counted_and_delays_nothing() {
    let mut w = World::pair_of_processes();
    let (mut a, _b) = w.connected(QpOptions::of(RC));
    let view = CaptureView::Virtual;
    let tap = Arc::new(Tap::with_places(EndpointKey(1), view, WHOLE, 5));
    w.engine.tap(Arc::clone(&tap));
    let (src, _) = w.pattern(0, 8 * 4096, 1);
    let dst = w.register(1, 1, 8 * 4096, ALL);
    let write = Wr::new(Op::RdmaWrite, 1).sge(src.all());
    w.post(&mut a, &write.remote(dst.addr, dst.key));
    w.settle();
    assert_eq!(a.cq.results(), [(1, WcStatus::Success)]);
    assert_eq!((shown(&tap).len(), tap.lost()), (5, 4));
    // Its places are free again.
    let write = Wr::new(Op::RdmaWrite, 2).sge(src.sge(0, 8));
    w.post(&mut a, &write.remote(dst.addr, dst.key));
    w.settle();
    assert_eq!((shown(&tap).len(), tap.lost()), (2, 4));
}

#[test]
fn a_packet_is_cut_after_its_headers_and_knows_its_length() {
    let mut w = World::pair_of_processes();
    let (mut a, _b) = w.connected(QpOptions::of(RC));
    let tap = Arc::new(Tap::new(EndpointKey(1), CaptureView::Virtual, 68));
    w.engine.tap(Arc::clone(&tap));
    let (src, data) = w.pattern(0, 1000, 1);
    let dst = w.register(1, 1, 1000, ALL);
    let write = Wr::new(Op::RdmaWrite, 1).sge(src.all());
    w.post(&mut a, &write.remote(dst.addr, dst.key));
    w.settle();
    let packets = collect(&tap);
    // IPv4, UDP, BTH and RETH are 56 bytes.
    assert_eq!(packets[0].len(), 96);
    assert_eq!(packets[0][56..], data[..40]);
    assert_eq!(packets[0][2..4], (56 + 1000 + 4u16).to_be_bytes());
}

#[test]
fn a_capture_that_has_ended_costs_nothing_and_one_that_begins_shows_what_comes() {
    let mut w = World::pair_of_processes();
    let (mut a, _b) = w.connected(QpOptions::of(RC));
    let (src, _) = w.pattern(0, 8, 1);
    let dst = w.register(1, 1, 8, ALL);
    let mut write = |w: &mut World| {
        let write = Wr::new(Op::RdmaWrite, 1).sge(src.all());
        w.post(&mut a, &write.remote(dst.addr, dst.key));
        w.settle();
    };
    write(&mut w);
    let first = tap(&mut w, 1, CaptureView::Virtual);
    let second = tap(&mut w, 1, CaptureView::Virtual);
    write(&mut w);
    w.engine.untap(&first);
    write(&mut w);
    w.engine.untap(&second);
    write(&mut w);
    assert_eq!((shown(&first).len(), shown(&second).len()), (2, 4));
    assert!(!w.engine.is_tapped());
}

#[test]
fn an_ipv6_tenant_is_shown_by_ipv6() {
    let mut w = World::new();
    let gid = |n| {
        let mut gid: Gid = [0; 16];
        (gid[0], gid[15]) = (0xfd, n);
        gid
    };
    w.spawn_with(1, 1, gid(1), None);
    w.spawn_with(1, 2, gid(2), None);
    let (mut a, _b) = w.connected(QpOptions::of(RC));
    let tap = tap(&mut w, 1, CaptureView::Virtual);
    let (src, _) = w.pattern(0, 5000, 1);
    let dst = w.register(1, 1, 5000, ALL);
    let write = Wr::new(Op::RdmaWrite, 1).sge(src.all());
    w.post(&mut a, &write.remote(dst.addr, dst.key));
    w.settle();
    let packets = collect(&tap);
    assert_eq!(packets.len(), 3);
    let first = Datagram::parse(&packets[0]).unwrap();
    assert!(first.icrc_is_right());
    let expected = Addresses::V6 {
        src: gid(1).into(),
        dst: gid(2).into(),
    };
    assert_eq!(first.flow().addresses, expected);
}
