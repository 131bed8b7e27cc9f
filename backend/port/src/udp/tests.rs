//! Over veth, between two network namespaces.

use super::*;
use crate::testing::hosts::{Host, VETH, two_hosts};
use crate::testing::*;
use crate::train;
use masq_wire::{Ecn, Headers, build};

fn open_with(host: &Host, v6: bool, set: impl FnOnce(&mut Config)) -> Vec<UdpPort> {
    let mut config = Config::new(host.address(v6));
    set(&mut config);
    host.run(move || open_udp(&config).unwrap())
}

fn open(host: &Host, v6: bool) -> UdpPort {
    open_with(host, v6, |_| {}).remove(0)
}

fn lengths() -> impl Iterator<Item = usize> {
    (0..4096)
        .step_by(4)
        .chain([1, 2, 3, 4093, 4094, 4095, 4096])
}

#[test]
fn every_length_arrives_both_ways_over_both_families() {
    let Some([a, b]) = two_hosts(9000) else {
        return;
    };
    for v6 in [false, true] {
        let mut ports = [open(&a, v6), open(&b, v6)];
        for turn in 0..2 {
            let [from, to] = &mut ports;
            let path = path(to.host());
            for (psn, len) in lengths().enumerate() {
                let psn = psn as u32;
                if !put(from, &path, 7, psn, len) {
                    from.flush();
                    assert!(put(from, &path, 7, psn, len));
                }
                if psn % 64 == 63 {
                    from.flush();
                }
            }
            from.flush();
            let all = gather(to, lengths().count());
            assert_eq!(
                all.len(),
                lengths().count(),
                "{v6} {turn} {:?}",
                to.counters()
            );
            for ((psn, bytes), (expected, len)) in all.iter().zip(lengths().enumerate()) {
                assert_eq!(*psn as usize, expected);
                assert_eq!(bytes, &payload(*psn, len));
            }
            assert_eq!(from.counters().sent, to.counters().received);
            ports.reverse();
        }
    }
}

#[test]
fn a_train_costs_one_datagram_and_arrives_as_one() {
    let Some([a, b]) = two_hosts(9000) else {
        return;
    };
    for v6 in [false, true] {
        let (mut from, mut to) = (open(&a, v6), open(&b, v6));
        let path = path(to.host());
        let count = (0..)
            .take_while(|psn| put(&mut from, &path, 7, *psn, 4096))
            .count();
        from.flush();
        let all = gather(&mut to, count);
        assert_eq!(all.len(), count, "{:?}", to.counters());
        assert_eq!((from.counters().send_calls, count), (1, 60));
        // The last call that looked for packets may have found a part.
        assert!(to.counters().receive_calls < 10);
    }
}

#[test]
fn what_travels_with_a_packet_arrives_with_it() {
    let Some([a, b]) = two_hosts(1500) else {
        return;
    };
    for v6 in [false, true] {
        let (mut from, mut to) = (open(&a, v6), open(&b, v6));
        let class = TrafficClass::new(masq_wire::Dscp::new(26), Ecn::Capable0);
        for (class, hop_limit) in [(class, 3), (TrafficClass(0), 64), (class, 255)] {
            let path = Path {
                traffic_class: class,
                hop_limit,
                ..path(to.host())
            };
            for psn in 0..3 {
                assert!(put(&mut from, &path, 7, psn, 256));
            }
            from.flush();
            let mut count = 0;
            while to.receive() > 0 || count == 0 {
                let mut index = 0;
                while let Some(incoming) = to.packet(index) {
                    assert_eq!(incoming.traffic_class, class);
                    assert_eq!(incoming.hop_limit, hop_limit);
                    assert_eq!(incoming.flow.addresses.src(), from.host());
                    assert_eq!(incoming.flow.addresses.dst(), to.host());
                    index += 1;
                }
                count += index;
            }
            assert_eq!(count, 3);
        }
    }
}

/// Sends a packet whose ICRC covers another identification than it bears.
fn send_numbered(from: &mut UdpPort, to: IpAddr, id: u16, headers: &Headers) {
    let place = from.place(&path(to), 16 + 64).unwrap();
    let payload = payload(0, 64);
    build(headers, &[&payload], &place.flow, id, place.buffer).unwrap();
    from.commit();
    from.flush();
}

#[test]
fn damage_and_foreign_identifications_are_dropped_and_counted() {
    let Some([a, b]) = two_hosts(1500) else {
        return;
    };
    let (mut from, mut to) = (open(&a, false), open(&b, false));
    let host = to.host();
    // Within a train, whose middle might have come alone.
    for id in [0, 1, MAX_TRAIN - 1] {
        send_numbered(&mut from, host, id, &headers(7, 1));
        assert_eq!(gather(&mut to, 1).len(), 1, "{id}");
    }
    for id in [MAX_TRAIN, 0x8000, 0xffff] {
        send_numbered(&mut from, host, id, &headers(7, 1));
    }
    assert_eq!(gather(&mut to, 1), []);
    assert_eq!(to.counters().bad_icrc, 3);
    to.set_strangers(&[from.host()]);
    for id in [MAX_TRAIN, 0x8000, 0xffff] {
        send_numbered(&mut from, host, id, &headers(7, 1));
        assert_eq!(gather(&mut to, 1).len(), 1, "{id}");
    }
    // No identification explains a bit of the payload.
    let place = from.place(&path(host), 16 + 64).unwrap();
    build(
        &headers(7, 1),
        &[&payload(0, 64)],
        &place.flow,
        0,
        place.buffer,
    )
    .unwrap();
    place.buffer[40] ^= 1;
    from.commit();
    from.place(&path(host), 16).unwrap().buffer.fill(0xff);
    from.commit();
    from.flush();
    assert_eq!(gather(&mut to, 1), []);
    assert_eq!(to.counters().bad_icrc, 4);
    assert_eq!(to.counters().malformed_total(), 1);
    to.set_strangers(&[]);
    send_numbered(&mut from, host, 0x8000, &headers(7, 1));
    assert_eq!(gather(&mut to, 1), []);
}

const MAX_TRAIN: u16 = train::MAX_TRAIN as u16;

#[test]
fn groups_reach_those_that_joined() {
    let Some([a, b]) = two_hosts(1500) else {
        return;
    };
    for (v6, group) in [
        (false, "239.1.2.3"),
        (true, "ff02::1:2"),
        (true, "ff0e::77"),
    ] {
        let (mut from, mut to) = (open(&a, v6), open(&b, v6));
        let group: IpAddr = group.parse().unwrap();
        if group == IpAddr::from([239, 1, 2, 3]) {
            a.command(&format!("ip route add {group} dev {VETH}"));
        }
        a.run(|| from.join(group)).unwrap();
        let mut send = |psn| {
            assert!(put(&mut from, &path(group), 0xff_ffff, psn, 64));
            from.flush();
        };
        send(1);
        assert_eq!(gather(&mut to, 1), []);
        b.run(|| to.join(group)).unwrap();
        b.run(|| to.join(group)).unwrap();
        to.leave(group);
        send(2);
        assert_eq!(gather(&mut to, 1), [(2, payload(2, 64))], "{group}");
        to.leave(group);
        send(3);
        assert_eq!(gather(&mut to, 1), []);
        assert_eq!(gather(&mut from, 2), [], "no echo");
        assert_eq!(to.descriptors().len(), 1);
        assert!(to.join(to.host()).is_err());
    }
}

#[test]
fn a_smaller_interface_refuses_long_packets_and_says_so() {
    let Some([a, b]) = two_hosts(9000) else {
        return;
    };
    for v6 in [false, true] {
        let (mut from, mut to) = (open(&a, v6), open(&b, v6));
        assert_eq!(from.mtu(), Mtu::B4096);
        a.command(&format!("ip link set {VETH} mtu 1500"));
        assert_eq!(from.mtu(), Mtu::B1024);
        let path = path(to.host());
        for (psn, len) in [(0, 4096), (1, 4096), (2, 4096), (3, 1024), (4, 1024)] {
            assert!(put(&mut from, &path, 7, psn, len));
        }
        from.flush();
        let psns: Vec<_> = gather(&mut to, 2).iter().map(|(psn, _)| *psn).collect();
        assert_eq!(psns, [3, 4], "{v6} {:?}", from.counters());
        assert_eq!(from.counters().send_errors.too_long, 3);
        assert_eq!(from.counters().send_errors.total(), 3);
        a.command(&format!("ip link set {VETH} mtu 9000"));
        assert!(put(&mut from, &path, 7, 5, 4096));
        assert!(put(&mut from, &path, 7, 6, 4096));
        let calls = from.counters().send_calls;
        from.flush();
        assert_eq!(gather(&mut to, 2).len(), 2);
        // Trains are made again.
        assert_eq!(from.counters().send_calls, calls + 1);
    }
}

#[test]
fn without_a_route_packets_are_lost_and_counted() {
    let Some([a, _b]) = two_hosts(1500) else {
        return;
    };
    let mut from = open(&a, false);
    for (psn, last) in [(1, 1), (2, 2)] {
        let to = IpAddr::from([192, 0, 2, last]);
        assert!(put(&mut from, &path(to), 7, psn, 64));
    }
    from.flush();
    assert_eq!(from.counters().send_errors.unreachable, 2);
    assert_eq!(from.counters().sent, crate::Traffic::default());
}

#[test]
fn packets_come_to_the_thread_of_their_queue_pair() {
    let Some([a, b]) = two_hosts(9000) else {
        return;
    };
    for (v6, offload) in [(false, true), (true, true), (false, false)] {
        let mut from = open_with(&a, v6, |config| config.offload = offload).remove(0);
        let mut threads = open_with(&b, v6, |config| config.threads = 3);
        let path = path(threads[0].host());
        // One train of all queue pairs, and one packet each.
        for round in 0..2 {
            for qpn in 0..30 {
                assert!(put(&mut from, &path, qpn, qpn, 64));
                if round == 1 {
                    from.flush();
                }
            }
            from.flush();
        }
        for (thread, port) in threads.iter_mut().enumerate() {
            let mut psns: Vec<_> = gather(port, 20).iter().map(|(psn, _)| *psn).collect();
            psns.sort_unstable();
            psns.dedup();
            let own: Vec<_> = (0..30).filter(|qpn| qpn % 3 == thread as u32).collect();
            assert_eq!(psns, own, "{thread} {:?}", port.counters());
        }
        let counters = threads
            .iter()
            .fold(Counters::default(), |sum, port| sum.plus(&port.counters()));
        assert_eq!(counters.received.packets, 60);
        // Of the train alone, where there was one.
        assert_eq!(counters.handed_over, if offload { 20 } else { 0 });
        assert_eq!(counters.overrun, 0);
    }
}

#[test]
fn what_is_handed_over_wakes_its_thread() {
    let Some([a, b]) = two_hosts(9000) else {
        return;
    };
    let mut from = open(&a, false);
    let mut threads = open_with(&b, false, |config| config.threads = 2);
    for qpn in [0, 1] {
        assert!(put(&mut from, &path(b.v4), qpn, qpn, 64));
    }
    from.flush();
    assert!(!readable(&threads[1]));
    assert_eq!(gather(&mut threads[0], 1).len(), 1);
    assert!(readable(&threads[1]));
    assert_eq!(taken(&mut threads[1]).len(), 1);
    assert!(!readable(&threads[1]));
    assert!(!readable(&threads[0]));
}

#[test]
fn an_address_that_no_interface_has_is_refused() {
    let Some([a, _b]) = two_hosts(1500) else {
        return;
    };
    let open = |host: IpAddr| a.run(move || open_udp(&Config::new(host)).err().unwrap());
    let nowhere = open([192, 0, 2, 1].into());
    assert!(matches!(nowhere, PortError::NoInterface(_)), "{nowhere}");
    a.command(&format!("ip link set {VETH} mtu 300"));
    let small = open(a.v4);
    assert!(matches!(small, PortError::Mtu { mtu: 300, .. }), "{small}");
}
