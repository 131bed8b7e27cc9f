//! Connections between addresses of IPv6 and of one link, and false ones.

use super::harness::{CH, World, address, at, ip, kind, param};
use crate::{Agent, Config, Event, Message, Peer, PortSpace, Reason, Sender};
use masq_spec::verbs::State;
use std::net::IpAddr;

/// Two agents with these addresses, and what one sends given to the other.
fn pair(addresses: [&str; 2]) -> [Agent; 2] {
    let [a, b] = addresses.map(|ip| ip.parse::<IpAddr>().unwrap());
    let agent = |address, number| {
        let mut link_local = [0; 16];
        link_local[..2].copy_from_slice(&[0xfe, 0x80]);
        link_local[15] = number;
        Agent::new(Config {
            address,
            others: vec![IpAddr::from([10, 9, 0, number])],
            link_local,
            node_guid: u64::from(number),
            mtu: 5,
            max_rd_atomic: 16,
            seed: u64::from(number),
        })
    };
    [agent(a, 1), agent(b, 2)]
}

/// Delivers everything; a message to any address of an agent reaches it, and each
/// comes from its sender's first one.
fn deliver(agents: &mut [Agent; 2], addresses: [&str; 2], now: std::time::Instant) {
    let mut quiet = false;
    while !quiet {
        quiet = true;
        for from in 0..2 {
            while let Some(output) = agents[from].output() {
                if let crate::Output::Send { message, .. } = output {
                    quiet = false;
                    let others = [
                        format!("fe80::{}", from + 1).parse().unwrap(),
                        format!("10.9.0.{}", from + 1).parse().unwrap(),
                    ];
                    let sender = Sender {
                        address: addresses[from].parse().unwrap(),
                        others: &others,
                    };
                    agents[1 - from].receive(now, sender, message, 100);
                }
            }
        }
    }
}

#[test]
fn ipv6_link_local_and_further_addresses_connect() {
    let own = ["fd01::1", "fd01::2"];
    for (destination, index, any) in [
        ("fd01::2", 3, "::"),
        ("fe80::2", 1, "fd01::2"),
        ("fe80::2", 1, "::"),
        ("10.9.0.2", 5, "10.9.0.2"),
        ("10.9.0.2", 5, "0.0.0.0"),
    ] {
        let now = std::time::Instant::now();
        let mut agents = pair(own);
        let make = |agent: &mut Agent| {
            agent
                .create_id(CH, PortSpace::Tcp, masq_spec::verbs::QpType::Rc, 1)
                .unwrap()
        };
        let listener = make(&mut agents[1]);
        agents[1]
            .bind(at(listener), address(any.parse().unwrap(), 80))
            .unwrap();
        agents[1].listen(at(listener), 0).unwrap();
        let active = make(&mut agents[0]);
        let to: IpAddr = destination.parse().unwrap();
        let peer = Peer {
            address: own[1].parse().unwrap(),
            gid: crate::address::gid_of(to),
        };
        agents[0]
            .resolve_addr(at(active), None, address(to, 80), |_| Some(peer))
            .unwrap();
        agents[0].resolve_route(at(active)).unwrap();
        agents[0]
            .connect(now, at(active), &param(1, b"hi"))
            .unwrap();
        deliver(&mut agents, own, now);
        let mut events = std::iter::from_fn(|| agents[1].next_event(CH));
        let Some(request) = events.next() else {
            // Who listens on the other address only does not hear it.
            assert_eq!((destination, any), ("fe80::2", "fd01::2"));
            continue;
        };
        assert_eq!(&request.param.private_data[..2], b"hi");
        let passive = request.id;
        agents[1]
            .accept(now, at(passive), 2, Some(&param(2, b"")))
            .unwrap();
        deliver(&mut agents, own, now);
        let last = std::iter::from_fn(|| agents[0].next_event(CH))
            .last()
            .unwrap();
        assert_eq!(kind(&last), Event::ConnectResponse);
        agents[0].accept(now, at(active), 0, None).unwrap();
        deliver(&mut agents, own, now);
        assert_eq!(kind(&agents[1].next_event(CH).unwrap()), Event::Established);
        for (agent, id, peer) in [(0, active, to), (1, passive, peer_of(to))] {
            let rtr = agents[agent].qp_attr(at(id), State::Rtr).unwrap();
            assert_eq!(rtr.attr.ah.sgid_index, index);
            assert_eq!(rtr.attr.ah.dgid, crate::address::gid_of(peer));
        }
        assert_eq!(
            agents[1]
                .by_qpn(2, "fd01::1".parse().unwrap(), 1)
                .unwrap()
                .port,
            80
        );
        assert_eq!(
            agents[0]
                .by_qpn(1, "fd01::2".parse().unwrap(), 2)
                .unwrap()
                .port,
            80
        );
    }
}

/// The address by which the passive side knows its peer.
fn peer_of(destination: IpAddr) -> IpAddr {
    let peer = match destination {
        IpAddr::V4(_) => "10.9.0.1",
        ip if crate::address::is_link_local(ip) => "fe80::1",
        IpAddr::V6(_) => "fd01::1",
    };
    peer.parse().unwrap()
}

#[test]
fn a_request_that_lies_about_its_sender_is_refused() {
    let mut world = World::new(2, 17);
    world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    let (_, _, message) = world.sent[0].clone();
    world.sent.clear();
    world.agents[1].receive(world.now, ip(7), message, 10);
    while let Some(output) = world.agents[1].output() {
        let crate::Output::Send {
            to,
            message: Message::Rej(rej),
        } = output
        else {
            panic!()
        };
        assert_eq!((to, rej.reason), (ip(7), Reason::INVALID_SERVICE_ID));
    }
    world.expect_none(1);
    world.finish();
}
