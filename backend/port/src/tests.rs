//! Both ports over veth, between two network namespaces.

use std::net::IpAddr;

use masq_wire::{Ecn, Headers, Mtu, TrafficClass, build};

use crate::testing::hosts::{Host, VETH, two_hosts};
use crate::testing::*;
use crate::{Config, Counters, Path, Port, PortError, PortKind, train};

mod allocation;
mod capture;

type AnyPort = Box<dyn Port>;

fn open_with(
    kind: PortKind,
    host: &Host,
    v6: bool,
    set: impl FnOnce(&mut Config),
) -> Result<Vec<AnyPort>, PortError> {
    let mut config = Config::new(host.address(v6));
    set(&mut config);
    host.run(move || crate::open(kind, &config))
}

fn open(kind: PortKind, host: &Host, v6: bool) -> AnyPort {
    open_with(kind, host, v6, |_| {}).unwrap().remove(0)
}

/// Runs a test between hosts with this MTU: by each port, each family.
fn for_all(mtu: usize, test: impl Fn(&[Host; 2], PortKind, bool)) {
    for kind in PortKind::ALL {
        for v6 in [false, true] {
            let Some(hosts) = two_hosts(mtu) else {
                return;
            };
            println!("{kind:?}, {}", if v6 { "IPv6" } else { "IPv4" });
            test(&hosts, kind, v6);
        }
    }
}

fn lengths() -> impl Iterator<Item = usize> {
    (0..4096)
        .step_by(4)
        .chain([1, 2, 3, 4093, 4094, 4095, 4096])
}

/// Sends packets of these lengths of payload, by batches, and expects them all.
fn exchange(from: &mut dyn Port, to: &mut dyn Port, lengths: &[usize]) {
    let path = path(to.host());
    let mut all = Vec::new();
    for (psn, len) in lengths.iter().enumerate() {
        if !put(from, &path, 7, psn as u32, *len) {
            from.flush();
            // So that no buffer overflows.
            all.extend(taken(to));
            assert!(put(from, &path, 7, psn as u32, *len));
        }
    }
    from.flush();
    let missing = lengths.len() - all.len();
    all.extend(gather(to, missing));
    assert_eq!(all.len(), lengths.len(), "{:?}", to.counters());
    for ((psn, bytes), (expected, len)) in all.iter().zip(lengths.iter().enumerate()) {
        assert_eq!(*psn as usize, expected);
        assert_eq!(bytes, &payload(*psn, *len));
    }
}

#[test]
fn every_length_arrives_both_ways() {
    for_all(9000, |[a, b], kind, v6| {
        let (mut a, mut b) = (open(kind, a, v6), open(kind, b, v6));
        exchange(&mut *a, &mut *b, &lengths().collect::<Vec<_>>());
        exchange(&mut *b, &mut *a, &lengths().collect::<Vec<_>>());
        assert_eq!(a.counters().sent, b.counters().received);
        assert_eq!(b.counters().sent, a.counters().received);
    });
}

#[test]
fn trains_of_every_length_arrive_by_either_port() {
    for sender in PortKind::ALL {
        for_all(9000, |[a, b], receiver, v6| {
            let (mut from, mut to) = (open(sender, a, v6), open(receiver, b, v6));
            for packet in [0, 4, 100, 512, 1000, 2048, 4092, 4096] {
                for end in [packet, packet / 2] {
                    let mut lengths = vec![packet; train::longest(packet + 20)];
                    lengths.push(end);
                    exchange(&mut *from, &mut *to, &lengths);
                }
            }
            assert_eq!(to.counters().bad_icrc, 0);
        });
    }
}

#[test]
fn a_train_costs_one_datagram_and_arrives_as_one() {
    for_all(9000, |[a, b], kind, v6| {
        let (mut from, mut to) = (open(kind, a, v6), open(kind, b, v6));
        let path = path(to.host());
        let mut count = 0;
        for _ in 0..4 {
            // Until the batch is full.
            while put(&mut *from, &path, 7, count, 4096) {
                count += 1;
            }
            from.flush();
        }
        let all = gather(&mut *to, count as usize);
        assert_eq!(all.len(), count as usize, "{:?}", to.counters());
        assert_eq!((from.counters().send_calls, count), (4, 60));
        // The last call that looked for packets may have found a part.
        assert!(to.counters().receive_calls < 10);
    });
}

#[test]
fn what_travels_with_a_packet_arrives_with_it() {
    for_all(1500, |[a, b], kind, v6| {
        let (mut from, mut to) = (open(kind, a, v6), open(kind, b, v6));
        let class = |dscp| TrafficClass::new(masq_wire::Dscp::new(dscp), Ecn::Capable0);
        let none = TrafficClass(0);
        for (class, hop_limit) in [
            (class(26), 3),
            (none, 64),
            (class(0), 64),
            (class(26), 255),
            (none, 9),
        ] {
            let path = Path {
                traffic_class: class,
                hop_limit,
                ..path(to.host())
            };
            for psn in 0..3 {
                assert!(put(&mut *from, &path, 7, psn, 256));
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
    });
}

/// Sends a packet alone whose ICRC covers this identification.
fn send_numbered(from: &mut dyn Port, to: IpAddr, id: u16, headers: &Headers) {
    let place = from.place(&path(to), 16 + 64).unwrap();
    let payload = payload(0, 64);
    build(headers, &[&payload], &place.flow, id, place.buffer).unwrap();
    from.commit();
    from.flush();
}

const MAX_TRAIN: u16 = train::MAX_TRAIN as u16;

#[test]
fn a_socket_takes_foreign_identifications_from_strangers_alone() {
    let Some([a, b]) = two_hosts(1500) else {
        return;
    };
    let (mut from, mut to) = (
        open(PortKind::Udp, &a, false),
        open(PortKind::Udp, &b, false),
    );
    let host = to.host();
    // Within a train, whose middle might have come alone.
    for id in [0, 1, MAX_TRAIN - 1] {
        send_numbered(&mut *from, host, id, &headers(7, 1));
        assert_eq!(gather(&mut *to, 1).len(), 1, "{id}");
    }
    for id in [MAX_TRAIN, 0x8000, 0xffff] {
        send_numbered(&mut *from, host, id, &headers(7, 1));
    }
    assert_eq!(gather(&mut *to, 1), []);
    assert_eq!(to.counters().bad_icrc, 3);
    to.set_strangers(&[from.host()]);
    for id in [MAX_TRAIN, 0x8000, 0xffff] {
        send_numbered(&mut *from, host, id, &headers(7, 1));
        assert_eq!(gather(&mut *to, 1).len(), 1, "{id}");
    }
    to.set_strangers(&[]);
    send_numbered(&mut *from, host, 0x8000, &headers(7, 1));
    assert_eq!(gather(&mut *to, 1), []);
}

#[test]
fn a_raw_port_takes_no_identification_but_that_of_the_packet() {
    let Some([a, b]) = two_hosts(1500) else {
        return;
    };
    let (mut from, mut to) = (
        open(PortKind::Udp, &a, false),
        open(PortKind::Raw, &b, false),
    );
    let host = to.host();
    to.set_strangers(&[from.host()]);
    for id in [1, MAX_TRAIN - 1, 0x8000] {
        send_numbered(&mut *from, host, id, &headers(7, 1));
    }
    assert_eq!(gather(&mut *to, 1), []);
    assert_eq!(to.counters().bad_icrc, 3);
    send_numbered(&mut *from, host, 0, &headers(7, 1));
    assert_eq!(gather(&mut *to, 1).len(), 1);
}

#[test]
fn damage_is_dropped_and_counted_by_its_kind() {
    for_all(1500, |[a, b], kind, v6| {
        let (mut from, mut to) = (open(kind, a, v6), open(kind, b, v6));
        let path = path(to.host());
        // In the middle of a train, too: the rest of it arrives.
        for damaged in 0..3 {
            for psn in 0..3 {
                let place = from.place(&path, 16 + 64).unwrap();
                let (flow, id) = (place.flow, place.ip_id);
                build(
                    &headers(7, psn),
                    &[&payload(psn, 64)],
                    &flow,
                    id,
                    place.buffer,
                )
                .unwrap();
                if psn == damaged {
                    place.buffer[40] ^= 1;
                }
                from.commit();
            }
            from.flush();
            assert_eq!(gather(&mut *to, 2).len(), 2);
        }
        assert_eq!(to.counters().bad_icrc, 3);
        from.place(&path, 16).unwrap().buffer.fill(0xff);
        from.commit();
        from.flush();
        assert_eq!(gather(&mut *to, 1), []);
        let version = masq_wire::ErrorKind::Version as usize;
        assert_eq!(to.counters().malformed[version], 1);
        assert_eq!(to.counters().malformed_total(), 1);
    });
}

#[test]
fn groups_reach_those_that_joined() {
    for_all(1500, |[a, b], kind, v6| {
        let groups: &[&str] = match v6 {
            false => &["239.1.2.3"],
            true => &["ff02::1:2", "ff0e::77"],
        };
        let (mut from, mut to) = (open(kind, a, v6), open(kind, b, v6));
        for group in groups {
            let group: IpAddr = group.parse().unwrap();
            if !v6 {
                a.command(&format!("ip route add {group} dev {VETH}"));
            }
            a.run(|| from.join(group)).unwrap();
            let mut send = |psn| {
                assert!(put(&mut *from, &path(group), 0xff_ffff, psn, 64));
                from.flush();
            };
            send(1);
            assert_eq!(gather(&mut *to, 1), []);
            b.run(|| to.join(group)).unwrap();
            b.run(|| to.join(group)).unwrap();
            to.leave(group);
            send(2);
            assert_eq!(gather(&mut *to, 1), [(2, payload(2, 64))], "{group}");
            to.leave(group);
            send(3);
            assert_eq!(gather(&mut *to, 1), []);
            assert_eq!(gather(&mut *from, 1), [], "no echo");
            assert_eq!(to.descriptors().len(), 1);
            assert!(to.join(to.host()).is_err());
        }
    });
}

#[test]
fn a_busy_host_does_not_shut_out_its_groups() {
    for_all(1500, |[a, b], kind, v6| {
        let groups = match v6 {
            false => ["239.1.2.3", "239.1.2.4"],
            true => ["ff0e::77", "ff0e::78"],
        };
        let groups = groups.map(|group| group.parse::<IpAddr>().unwrap());
        let (mut from, mut to) = (open(kind, a, v6), open(kind, b, v6));
        if !v6 {
            a.command(&format!("ip route add 239.0.0.0/8 dev {VETH}"));
        }
        for group in groups {
            b.run(|| to.join(group)).unwrap();
            assert!(put(&mut *from, &path(group), 0xff_ffff, 1000, 64));
        }
        from.flush();
        let mut arrived = 0;
        for psn in 0..200 {
            assert!(put(&mut *from, &path(to.host()), 7, psn, 64));
            from.flush();
            let packets = taken(&mut *to);
            arrived += packets.iter().filter(|(psn, _)| *psn == 1000).count();
        }
        assert_eq!(arrived, 2);
    });
}

#[test]
fn a_smaller_interface_refuses_long_packets_and_says_so() {
    for_all(9000, |[a, b], kind, v6| {
        let (mut from, mut to) = (open(kind, a, v6), open(kind, b, v6));
        assert_eq!(from.mtu(), Mtu::B4096);
        a.command(&format!("ip link set {VETH} mtu 1500"));
        assert_eq!(from.mtu(), Mtu::B1024);
        let path = path(to.host());
        // Of the first train only the end is short enough.
        let lengths = [(0, 4096), (1, 4096), (2, 1024), (3, 1024), (4, 1024)];
        for (psn, len) in lengths {
            assert!(put(&mut *from, &path, 7, psn, len));
        }
        from.flush();
        let psns: Vec<_> = gather(&mut *to, 3).iter().map(|(psn, _)| *psn).collect();
        assert_eq!(psns, [2, 3, 4], "{:?}", from.counters());
        assert_eq!(from.counters().send_errors.too_long, 2);
        assert_eq!(from.counters().send_errors.total(), 2);
        a.command(&format!("ip link set {VETH} mtu 9000"));
        assert!(put(&mut *from, &path, 7, 5, 4096));
        assert!(put(&mut *from, &path, 7, 6, 4096));
        let calls = from.counters().send_calls;
        from.flush();
        assert_eq!(gather(&mut *to, 2).len(), 2);
        // Trains are made again.
        assert_eq!(from.counters().send_calls, calls + 1);
    });
}

#[test]
fn what_finds_no_room_is_counted_and_what_follows_arrives() {
    for_all(9000, |[a, b], kind, v6| {
        let mut from = open(kind, a, v6);
        let to = open_with(kind, b, v6, |config| config.buffer = 1 << 20);
        let mut to = to.unwrap().remove(0);
        let path = path(to.host());
        // Round the ring, as often as it takes.
        exchange(&mut *from, &mut *to, &vec![64; 1000]);
        for psn in 0..2000 {
            assert!(put(&mut *from, &path, 7, psn, 1024));
            // No trains: each takes room of its own.
            from.flush();
        }
        let arrived = gather(&mut *to, 2000);
        let counters = to.counters();
        assert!(counters.overrun > 0);
        assert_eq!(counters.overrun + arrived.len() as u64, 2000);
        let in_order = arrived.iter().zip(0..).all(|((psn, _), next)| *psn == next);
        assert!(in_order);
        assert_eq!(to.counters(), counters);
        exchange(&mut *from, &mut *to, &vec![4096; 100]);
    });
}

#[test]
fn an_interface_that_went_down_keeps_nobody_awake_and_comes_back() {
    for kind in PortKind::ALL {
        let Some([a, b]) = two_hosts(1500) else {
            return;
        };
        let (mut from, mut to) = (open(kind, &a, false), open(kind, &b, false));
        b.command(&format!("ip link set {VETH} down"));
        for _ in 0..300 {
            assert_eq!(to.receive(), 0);
        }
        assert!(!readable(&*to), "{kind}");
        assert!(put(&mut *to, &path(a.v4), 7, 1, 64));
        to.flush();
        assert_eq!(to.counters().send_errors.unreachable, 1);
        b.command(&format!("ip link set {VETH} up"));
        let mut arrived = Vec::new();
        for _ in 0..50 {
            assert!(put(&mut *from, &path(b.v4), 7, 1, 64));
            from.flush();
            arrived = gather(&mut *to, 1);
            if !arrived.is_empty() {
                break;
            }
        }
        assert_eq!(arrived[0], (1, payload(1, 64)));
    }
}

/// What is told of the interface must not take the place of a train.
#[test]
fn trains_arrive_in_step_after_an_interface_went_down() {
    for kind in PortKind::ALL {
        let Some([a, b]) = two_hosts(9000) else {
            return;
        };
        let (mut from, mut to) = (open(kind, &a, false), open(kind, &b, false));
        exchange(&mut *from, &mut *to, &[4096; 60]);
        b.command(&format!("ip link set {VETH} down"));
        b.command(&format!("ip link set {VETH} up"));
        std::thread::sleep(std::time::Duration::from_millis(100));
        // Nobody has looked since.
        for _ in 0..3 {
            exchange(&mut *from, &mut *to, &[4096; 60]);
        }
        assert_eq!(to.counters().truncated, 0, "{kind}");
    }
}

#[test]
fn without_a_route_packets_are_lost_and_counted() {
    let Some([a, _b]) = two_hosts(1500) else {
        return;
    };
    let mut from = open(PortKind::Udp, &a, false);
    for (psn, last) in [(1, 1), (2, 2)] {
        let to = IpAddr::from([192, 0, 2, last]);
        assert!(put(&mut *from, &path(to), 7, psn, 64));
    }
    from.flush();
    assert_eq!(from.counters().send_errors.unreachable, 2);
    assert_eq!(from.counters().sent, crate::Traffic::default());
}

#[test]
fn packets_come_to_the_thread_of_their_queue_pair() {
    for offload in [true, false] {
        for_all(9000, |[a, b], kind, v6| {
            let from = open_with(kind, a, v6, |config| config.offload = offload);
            let mut from = from.unwrap().remove(0);
            let threads = open_with(kind, b, v6, |config| config.threads = 3);
            let mut threads = threads.unwrap();
            let path = path(threads[0].host());
            // One train of all queue pairs, and one packet each.
            for round in 0..2 {
                for qpn in 0..30 {
                    assert!(put(&mut *from, &path, qpn, qpn, 64));
                    if round == 1 {
                        from.flush();
                    }
                }
                from.flush();
            }
            let mut threads_psns = vec![Vec::new(); threads.len()];
            // Often enough that all is handed over, too.
            for _ in 0..100 {
                for (port, psns) in threads.iter_mut().zip(&mut threads_psns) {
                    psns.extend(taken(&mut **port).into_iter().map(|(psn, _)| psn));
                }
            }
            let counters = threads
                .iter()
                .fold(Counters::default(), |sum, port| sum.plus(&port.counters()));
            assert_eq!(counters.received.packets, 60, "{counters:?}");
            for (thread, psns) in threads_psns.iter().enumerate() {
                let own = psns.iter().all(|psn| *psn as usize % 3 == thread);
                assert!(own, "{thread} {psns:?}");
                assert_eq!(psns.len(), 20);
            }
            // Of the train alone, where there was one.
            assert_eq!(counters.handed_over, if offload { 20 } else { 0 });
            assert_eq!(counters.overrun, 0);
        });
    }
}

#[test]
fn what_is_handed_over_wakes_its_thread() {
    for_all(9000, |[a, b], kind, v6| {
        let mut from = open(kind, a, v6);
        let mut threads = open_with(kind, b, v6, |config| config.threads = 2).unwrap();
        for qpn in [0, 1] {
            assert!(put(&mut *from, &path(threads[0].host()), qpn, qpn, 64));
        }
        from.flush();
        assert!(!readable(&*threads[1]));
        assert_eq!(gather(&mut *threads[0], 1).len(), 1);
        assert!(readable(&*threads[1]));
        assert_eq!(taken(&mut *threads[1]).len(), 1);
        for port in &mut threads {
            assert_eq!(port.receive(), 0);
            assert!(!readable(&**port));
        }
    });
}

#[test]
fn an_address_that_no_interface_has_is_refused() {
    let Some([a, _b]) = two_hosts(1500) else {
        return;
    };
    for kind in PortKind::ALL {
        let open = |set: fn(&mut Config)| open_with(kind, &a, false, set).err().unwrap();
        let nowhere = open(|config| config.host = [192, 0, 2, 1].into());
        assert!(matches!(nowhere, PortError::NoInterface(_)), "{nowhere}");
        let none = open(|config| config.threads = 0);
        assert!(matches!(none, PortError::Threads(0)), "{none}");
        a.command(&format!("ip link set {VETH} mtu 300"));
        let small = open(|_| {});
        assert!(matches!(small, PortError::Mtu { mtu: 300, .. }), "{small}");
        a.command(&format!("ip link set {VETH} mtu 1500"));
    }
}
