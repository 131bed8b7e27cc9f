//! Datagram services and multicast.

use super::super::state::PATIENCE;
use super::harness::{CH, World, address, at, channel, ip, param};
use crate::{CmError, Event, Message, PortSpace};
use masq_spec::verbs::{QpMask, QpType, State};
use std::net::IpAddr;
use std::time::Duration;

fn asked(world: &mut World) -> (u32, u32) {
    world.listener(1, PortSpace::Udp, 7174);
    let active = world.routed(0, PortSpace::Udp, 1, 7174);
    world.connect(0, active, &param(0x11, &[7; 180]));
    world.settle();
    let request = world.expect(1, Event::ConnectRequest);
    assert_eq!((request.datagram, request.param.private_len), (1, 180));
    assert_eq!(
        request.param.private_data[..181],
        [vec![7; 180], vec![0]].concat()
    );
    (active, request.id)
}

#[test]
fn a_service_names_its_queue_pair_to_who_asks() {
    let mut world = World::new(2, 1);
    let (active, passive) = asked(&mut world);
    let init = world.agents[1].qp_attr(at(passive), State::Init).unwrap();
    assert!(QpMask::from_bits_retain(init.mask).contains(QpMask::QKEY));
    assert_eq!(init.attr.qkey, 0x0123_4567);
    world.accept(1, passive, 4, &param(0x22, &[8; 136]));
    world.settle();
    let event = world.expect(0, Event::Established);
    assert_eq!((event.uid, event.status, event.datagram), (9000, 0, 1));
    assert_eq!((event.param.qpn, event.param.qkey), (0x22, 0x0123_4567));
    assert_eq!(
        (event.param.private_len, event.param.private_data[135]),
        (136, 8)
    );
    assert_eq!(event.ah.dgid, crate::address::gid_of(ip(1)));
    assert_eq!(
        (event.ah.is_global, event.ah.sgid_index, event.ah.port_num),
        (1, 3, 1)
    );
    world.expect_none(1);
    for (agent, id, initiator) in [(0, active, true), (1, passive, false)] {
        let views: Vec<_> = world.agents[agent].resolved_to(ip(1 - agent)).collect();
        assert_eq!(views.len(), 1);
        assert_eq!(
            (views[0].id, views[0].port, views[0].initiator),
            (id, 7174, initiator)
        );
        assert_eq!(world.agents[agent].resolved_to(ip(5)).count(), 0);
    }
    let now = world.now;
    assert_eq!(
        world.agents[0].disconnect(now, at(active)),
        Err(CmError::Invalid)
    );
    world.destroy(0, at(active));
    assert_eq!(world.agents[0].resolved_to(ip(1)).count(), 0);
    world.finish();
}

#[test]
fn a_service_is_refused_with_its_status() {
    let mut world = World::new(2, 2);
    let active = world.routed(0, PortSpace::Udp, 1, 7174);
    world.connect(0, active, &param(1, b""));
    world.settle();
    assert_eq!(world.expect(0, Event::Unreachable).status, 1);
    let (_, passive) = asked(&mut world);
    world.agents[1]
        .reject(world.now, at(passive), 0, b"no")
        .unwrap();
    world.pump(1);
    world.settle();
    let event = world.expect(0, Event::Unreachable);
    assert_eq!((event.status, event.datagram), (2, 1));
    assert_eq!(
        (event.param.private_len, &event.param.private_data[..2]),
        (136, b"no".as_slice())
    );
    // A program that dies refuses; no room is a status of its own.
    let active = world.routed(0, PortSpace::Udp, 1, 7174);
    world.connect(0, active, &param(1, b""));
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    world.destroy(1, at(passive));
    world.settle();
    assert_eq!(world.expect(0, Event::Unreachable).status, 2);
    world.room = 0;
    let active = world.routed(0, PortSpace::Udp, 1, 7174);
    world.connect(0, active, &param(1, b""));
    world.settle();
    assert_eq!(world.expect(0, Event::Unreachable).status, 3);
    world.finish();
}

#[test]
fn a_connection_is_no_service_and_a_service_no_connection() {
    let mut world = World::new(2, 3);
    world.listener(1, PortSpace::Udp, 80);
    world.listener(1, PortSpace::Tcp, 80);
    let active = world.routed(0, PortSpace::Tcp, 1, 80);
    world.connect(0, active, &param(1, b""));
    let service = world.routed(0, PortSpace::Udp, 1, 80);
    world.connect(0, service, &param(1, b""));
    let sent = world.sent.clone();
    for (_, _, message) in sent {
        // Each in the other's port space.
        let message = match message {
            Message::Req(mut req) => {
                req.service_id = crate::address::service_id(PortSpace::Udp, 80);
                Message::Req(req)
            }
            Message::SidrReq(mut req) => {
                req.service_id = crate::address::service_id(PortSpace::Tcp, 80);
                Message::SidrReq(req)
            }
            other => other,
        };
        world.sent.clear();
        world.agents[1].receive(world.now, ip(0), message, 10);
        world.pump(1);
        match &world.sent[0].2 {
            Message::Rej(rej) => assert_eq!(rej.reason, crate::Reason::INVALID_TRANSPORT),
            Message::SidrRep(rep) => assert_eq!(rep.status, crate::SidrStatus::UNSUPPORTED),
            other => panic!("{other:?}"),
        }
    }
    world.finish();
}

#[test]
fn a_service_that_was_asked_twice_answers_twice_and_tells_once() {
    let mut world = World::new(2, 4);
    let (active, passive) = asked(&mut world);
    world.deaf = Some(0);
    world.accept(1, passive, 4, &param(0x22, b""));
    world.pass(Duration::from_secs(1));
    world.deaf = None;
    world.pass(Duration::from_secs(5));
    world.expect(0, Event::Established);
    world.expect_none(1);
    world.pass(PATIENCE);
    assert_eq!(world.agents[1].usage().timers, 0);
    assert_eq!(world.agents[1].resolved_to(ip(0)).count(), 1);
    world.destroy(0, at(active));
    world.finish();
}

#[test]
fn a_service_that_never_answers_is_unreachable() {
    let mut world = World::new(2, 5);
    asked(&mut world);
    world.pass(PATIENCE + Duration::from_secs(1));
    assert_eq!(world.expect(0, Event::Unreachable).status, -110);
    world.finish();
}

#[test]
fn a_member_is_told_the_group() {
    let mut world = World::new(1, 6);
    let id = world.agents[0]
        .create_id(CH, PortSpace::Udp, QpType::Ud, 1)
        .unwrap();
    let group = address([239, 0, 0, 5].into(), 0);
    assert_eq!(
        world.agents[0].join(at(id), 77, group, 0),
        Err(CmError::Invalid)
    );
    // mckey resolves the group's address before it joins.
    world.agents[0]
        .resolve_addr(at(id), None, group, |_| None)
        .unwrap();
    world.pump(0);
    world.expect(0, Event::AddressResolved);
    assert_eq!(
        world.agents[0].query(at(id)).unwrap().dgid[10..],
        [0xff, 0xff, 239, 0, 0, 5]
    );
    let member = world.agents[0].join(at(id), 77, group, 1).unwrap();
    world.pump(0);
    let event = world.expect(0, Event::MulticastJoin);
    assert_eq!((event.uid, event.id, event.datagram), (77, id, 1));
    assert_eq!(
        (event.param.qpn, event.param.qkey),
        (0xff_ffff, 0x0123_4567)
    );
    assert_eq!(event.ah.dgid[10..], [0xff, 0xff, 239, 0, 0, 5]);
    let six = address(IpAddr::from([0xff0eu16, 0, 0, 0, 0, 0, 0, 1]), 0);
    let unread = world.agents[0].join(at(id), 78, six, 0).unwrap();
    assert_eq!(
        world.agents[0].join(at(id), 1, group, 2),
        Err(CmError::Invalid)
    );
    assert_eq!(
        world.agents[0].join(at(id), 1, address(ip(1), 0), 0),
        Err(CmError::Invalid)
    );
    assert_eq!(
        world.agents[0].leave(channel(1, 5), member),
        Err(CmError::OtherChannel)
    );
    let left = world.agents[0].leave(CH, member).unwrap();
    assert_eq!((left.reported, left.dropped), (1, 0));
    assert_eq!(world.agents[0].leave(CH, member), Err(CmError::NoSuchId));
    let left = world.agents[0].leave(CH, unread).unwrap();
    assert_eq!((left.reported, left.dropped), (0, 1));
    world.void(0, CH, left);
    world.expect_none(0);
    // What an id is a member of ends with it.
    world.agents[0].join(at(id), 79, six, 0).unwrap();
    let ended = world.destroy(0, at(id));
    assert_eq!((ended.reported, ended.dropped), (2, 1));
    world.finish();
}

#[test]
fn memberships_are_bounded() {
    let mut world = World::new(1, 7);
    let id = world.agents[0]
        .create_id(CH, PortSpace::Udp, QpType::Ud, 1)
        .unwrap();
    world.agents[0].bind(at(id), address(ip(0), 0)).unwrap();
    let group = address([239, 0, 0, 5].into(), 0);
    for _ in 0..1024 {
        world.agents[0].join(at(id), 1, group, 0).unwrap();
    }
    assert_eq!(
        world.agents[0].join(at(id), 1, group, 0),
        Err(CmError::NoMemory)
    );
    world.finish();
}

#[test]
fn memberships_are_bounded_however_many_ids_have_them() {
    let mut world = World::new(1, 8);
    let group = address([239, 0, 0, 5].into(), 0);
    for left in (0..=4usize).rev() {
        let id = world.agents[0]
            .create_id(CH, PortSpace::Udp, QpType::Ud, 1)
            .unwrap();
        world.agents[0].bind(at(id), address(ip(0), 0)).unwrap();
        for _ in 0..1024.min(left * 1024) {
            world.agents[0].join(at(id), 1, group, 0).unwrap();
        }
        if left == 0 {
            assert_eq!(
                world.agents[0].join(at(id), 1, group, 0),
                Err(CmError::NoMemory)
            );
        }
    }
    assert_eq!(world.agents[0].usage().memberships, 4096);
    world.finish();
}
