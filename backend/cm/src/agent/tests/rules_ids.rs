//! Ids, ports, addresses, options, channels.

use super::harness::{CH, World, address, at, channel, ip, known, param};
use crate::{CmError, Event, PortSpace, Target};
use masq_spec::verbs::{CmAddress, QpMask, QpType, State};
use std::net::IpAddr;

const ANY: [u8; 4] = [0, 0, 0, 0];

fn create(world: &mut World, space: PortSpace) -> Target {
    at(world.agents[0].create_id(CH, space, QpType::Rc, 1).unwrap())
}

fn bind(
    world: &mut World,
    target: Target,
    ip: impl Into<IpAddr>,
    port: u16,
) -> Result<(), CmError> {
    world.agents[0].bind(target, address(ip.into(), port))
}

fn bound(world: &mut World, ip: impl Into<IpAddr>, port: u16) -> Result<Target, CmError> {
    let target = create(world, PortSpace::Tcp);
    bind(world, target, ip, port).map(|()| target)
}

fn set(world: &mut World, target: Target, name: u32, value: i32) -> Result<(), CmError> {
    world.agents[0].set_option(target, 0, name, &value.to_ne_bytes())
}

#[test]
fn an_id_is_reached_through_its_channel_only() {
    let mut world = World::new(1, 1);
    let target = create(&mut world, PortSpace::Tcp);
    let other = Target {
        channel: channel(1, 2),
        ..target
    };
    assert_eq!(
        world.agents[0].query(other).unwrap_err(),
        CmError::OtherChannel
    );
    assert_eq!(
        world.agents[0].query(at(99)).unwrap_err(),
        CmError::NoSuchId
    );
    world.destroy(0, target);
    assert_eq!(
        world.agents[0].query(target).unwrap_err(),
        CmError::NoSuchId
    );
    world.finish();
}

#[test]
fn a_request_that_waits_cannot_be_reached_yet() {
    let mut world = World::new(2, 2);
    world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    world.settle();
    let ids: Vec<u32> = world.agents[1]
        .views()
        .filter(|v| !v.initiator)
        .map(|v| v.id)
        .collect();
    assert_eq!(ids.len(), 2);
    let reached = ids
        .iter()
        .filter(|&&id| world.agents[1].query(at(id)).is_ok())
        .count();
    assert_eq!(reached, 1);
    world.expect(1, Event::ConnectRequest);
    assert!(ids.iter().all(|&id| world.agents[1].query(at(id)).is_ok()));
    world.finish();
}

#[test]
fn the_ids_of_a_session_are_counted_whatever_they_do() {
    let mut world = World::new(2, 2);
    let agent = &mut world.agents[1];
    for (owner, queue) in [(2, 1), (2, 9), (3, 1)] {
        agent
            .create_id(channel(owner, queue), PortSpace::Tcp, QpType::Rc, 1)
            .unwrap();
    }
    world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    world.settle();
    let counts = [1, 2, 3, 4].map(|owner| world.agents[1].ids_of(owner));
    assert_eq!(counts, [2, 2, 1, 0], "a request that waits included");
    world.expect(1, Event::ConnectRequest);
    world.finish();
}

#[test]
fn only_own_addresses_can_be_bound() {
    let mut world = World::new(1, 3);
    let link_local = IpAddr::from([0xfe80u16, 0, 0, 0, 0, 0, 0, 1]);
    for good in [
        ip(0),
        ANY.into(),
        IpAddr::from([0; 16]),
        [127, 9, 9, 9].into(),
        link_local,
    ] {
        let target = bound(&mut world, good, 0).unwrap();
        let route = world.agents[0].query(target).unwrap();
        assert!((32768..=60999).contains(&route.source.port));
        assert_eq!(route.bound == 0, good.is_unspecified());
        assert_eq!(bind(&mut world, target, ip(0), 0), Err(CmError::Invalid));
    }
    let target = bound(&mut world, [127, 0, 0, 1], 5).unwrap();
    assert_eq!(
        world.agents[0].query(target).unwrap().source,
        address(ip(0), 5)
    );
    assert_eq!(
        bound(&mut world, ip(1), 0),
        Err(CmError::AddressNotAvailable)
    );
    let target = create(&mut world, PortSpace::Tcp);
    let strange = CmAddress {
        family: 27,
        ..CmAddress::default()
    };
    assert_eq!(world.agents[0].bind(target, strange), Err(CmError::Invalid));
    world.finish();
}

#[test]
fn a_port_is_taken_once_unless_it_is_shared() {
    let mut world = World::new(1, 4);
    let first = bound(&mut world, ip(0), 80).unwrap();
    assert_eq!(bound(&mut world, ip(0), 80), Err(CmError::AddressInUse));
    assert_eq!(bound(&mut world, ANY, 80), Err(CmError::AddressInUse));
    let udp = create(&mut world, PortSpace::Udp);
    bind(&mut world, udp, ip(0), 80).unwrap();
    world.destroy(0, first);
    bound(&mut world, ip(0), 80).unwrap();
    // Both must want to share, and a listener shares with nobody.
    let one = create(&mut world, PortSpace::Tcp);
    let two = create(&mut world, PortSpace::Tcp);
    set(&mut world, one, 1, 1).unwrap();
    bind(&mut world, one, ip(0), 90).unwrap();
    assert_eq!(bind(&mut world, two, ip(0), 90), Err(CmError::AddressInUse));
    set(&mut world, two, 1, 1).unwrap();
    bind(&mut world, two, ip(0), 90).unwrap();
    assert_eq!(world.agents[0].listen(one, 0), Err(CmError::AddressInUse));
    world.destroy(0, two);
    world.agents[0].listen(one, 0).unwrap();
    let three = create(&mut world, PortSpace::Tcp);
    set(&mut world, three, 1, 1).unwrap();
    assert_eq!(
        bind(&mut world, three, ip(0), 90),
        Err(CmError::AddressInUse)
    );
    world.finish();
}

#[test]
fn the_wildcards_of_both_families_meet_unless_told_otherwise() {
    let any6 = IpAddr::from([0; 16]);
    let mut world = World::new(1, 5);
    bound(&mut world, any6, 80).unwrap();
    assert_eq!(bound(&mut world, ANY, 80), Err(CmError::AddressInUse));
    let only = create(&mut world, PortSpace::Tcp);
    set(&mut world, only, 2, 1).unwrap();
    bind(&mut world, only, any6, 90).unwrap();
    bound(&mut world, ANY, 90).unwrap();
    world.finish();
}

#[test]
fn an_exact_address_listens_before_a_wildcard_and_ipv6_takes_ipv4() {
    let any6 = IpAddr::from([0; 16]);
    for (only, expected) in [(0, Event::ConnectRequest), (1, Event::Rejected)] {
        let mut world = World::new(2, 6);
        let id = world.agents[1]
            .create_id(CH, PortSpace::Tcp, QpType::Rc, 66)
            .unwrap();
        world.agents[1]
            .set_option(at(id), 0, 2, &i32::to_ne_bytes(only))
            .unwrap();
        world.agents[1].bind(at(id), address(any6, 80)).unwrap();
        world.agents[1].listen(at(id), 0).unwrap();
        let active = world.routed(0, PortSpace::Tcp, 1, 80);
        world.connect(0, active, &param(1, b""));
        world.settle();
        match expected {
            Event::ConnectRequest => assert_eq!(world.expect(1, expected).uid, 66),
            _ => assert_eq!(world.expect(0, expected).status, 8),
        }
        world.finish();
    }
    let mut ports = crate::ports::Ports::new(0);
    let holder = |id, ip: IpAddr| crate::ports::Holder {
        id,
        ip,
        reuse: true,
        family_only: true,
        listening: true,
    };
    ports
        .take(PortSpace::Tcp, 80, holder(1, ANY.into()))
        .unwrap();
    ports.take(PortSpace::Tcp, 80, holder(2, ip(0))).unwrap();
    ports.take(PortSpace::Tcp, 80, holder(3, ip(1))).unwrap();
    assert_eq!(ports.listener(PortSpace::Tcp, 80, ip(0)), Some(2));
    assert_eq!(ports.listener(PortSpace::Tcp, 80, ip(5)), Some(1));
    assert_eq!(ports.listener(PortSpace::Udp, 80, ip(0)), None);
}

#[test]
fn ephemeral_ports_differ_and_run_out() {
    let mut ports = crate::ports::Ports::new(7);
    let holder = crate::ports::Holder {
        id: 1,
        ip: ip(0),
        reuse: false,
        family_only: true,
        listening: false,
    };
    let taken: std::collections::HashSet<u16> = (0..28232)
        .map(|_| ports.take(PortSpace::Tcp, 0, holder).unwrap())
        .collect();
    assert_eq!(taken.len(), 28232);
    assert_eq!(
        ports.take(PortSpace::Tcp, 0, holder),
        Err(CmError::AddressNotAvailable)
    );
    ports.release(PortSpace::Tcp, 40000, 1);
    assert_eq!(ports.take(PortSpace::Tcp, 0, holder), Ok(40000));
}

#[test]
fn a_listener_that_was_never_bound_gets_a_port() {
    let mut world = World::new(2, 7);
    let target = create(&mut world, PortSpace::Tcp);
    world.agents[0].listen(target, 5).unwrap();
    let route = world.agents[0].query(target).unwrap();
    assert_eq!((route.source.family, route.bound), (2, 0));
    assert_ne!(route.source.port, 0);
    assert_eq!(world.agents[0].listen(target, 5), Err(CmError::Invalid));
    world.finish();
}

#[test]
fn an_unknown_destination_is_an_address_error_and_can_be_tried_again() {
    let mut world = World::new(1, 8);
    let target = create(&mut world, PortSpace::Tcp);
    let to = address([10, 9, 9, 9].into(), 1);
    for _ in 0..2 {
        world.agents[0]
            .resolve_addr(target, None, to, |_| None)
            .unwrap();
        world.pump(0);
        assert_eq!(world.expect(0, Event::AddressError).status, -113);
        assert_eq!(world.agents[0].resolve_route(target), Err(CmError::Invalid));
    }
    world.agents[0]
        .resolve_addr(target, None, to, known)
        .unwrap();
    world.pump(0);
    world.expect(0, Event::AddressResolved);
    let route = world.agents[0].query(target).unwrap();
    assert_eq!(
        (route.bound, route.dgid, route.paths),
        (1, known([10, 9, 9, 9].into()).unwrap().gid, 0)
    );
    assert_eq!((route.source.ip[0], route.destination), (10, to));
    let again = world.agents[0].resolve_addr(target, None, to, known);
    assert_eq!(again, Err(CmError::Invalid));
    // Another family than the id's, or than the endpoint's.
    let six = address(IpAddr::from([0xfd01u16, 0, 0, 0, 0, 0, 0, 1]), 1);
    let four = bound(&mut world, ip(0), 0).unwrap();
    let mixed = world.agents[0].resolve_addr(four, None, six, known);
    assert_eq!(mixed, Err(CmError::Invalid));
    let free = create(&mut world, PortSpace::Tcp);
    world.agents[0]
        .resolve_addr(free, None, six, known)
        .unwrap();
    world.pump(0);
    assert_eq!(world.expect(0, Event::AddressError).status, -101);
    world.finish();
}

#[test]
fn options_need_their_size_and_state() {
    let mut world = World::new(1, 9);
    let target = create(&mut world, PortSpace::Tcp);
    let agent = &mut world.agents[0];
    assert_eq!(
        agent.set_option(target, 0, 0, &[1, 2]),
        Err(CmError::Invalid)
    );
    assert_eq!(agent.set_option(target, 0, 1, &[1]), Err(CmError::Invalid));
    assert_eq!(agent.set_option(target, 0, 3, &[32]), Err(CmError::Invalid));
    assert_eq!(
        agent.set_option(target, 0, 9, &[1]),
        Err(CmError::Unsupported)
    );
    assert_eq!(
        agent.set_option(target, 7, 1, &[1]),
        Err(CmError::Unsupported)
    );
    agent.set_option(target, 0, 0, &[0x28]).unwrap();
    assert_eq!(agent.query(target).unwrap().traffic_class, 0x28);
    let udp = create(&mut world, PortSpace::Udp);
    assert_eq!(
        world.agents[0].set_option(udp, 0, 3, &[14]),
        Err(CmError::Invalid)
    );
    let listening = bound(&mut world, ip(0), 80).unwrap();
    world.agents[0].listen(listening, 0).unwrap();
    assert_eq!(set(&mut world, listening, 1, 1), Err(CmError::Invalid));
    assert_eq!(set(&mut world, listening, 2, 1), Err(CmError::Invalid));
    world.finish();
}

#[test]
fn the_ack_timeout_and_the_type_of_service_reach_the_queue_pair() {
    let mut world = World::new(2, 10);
    world.listener(1, PortSpace::Tcp, 80);
    let active = world.routed(0, PortSpace::Tcp, 1, 80);
    world.agents[0].set_option(at(active), 0, 3, &[14]).unwrap();
    world.agents[0]
        .set_option(at(active), 0, 0, &[0x60])
        .unwrap();
    world.connect(0, active, &param(1, b""));
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    world.accept(1, passive, 2, &param(2, b""));
    world.settle();
    for (agent, id) in [(0, active), (1, passive)] {
        let rts = world.agents[agent].qp_attr(at(id), State::Rts).unwrap();
        assert_eq!(rts.attr.timeout, 14);
        let rtr = world.agents[agent].qp_attr(at(id), State::Rtr).unwrap();
        assert_eq!(rtr.attr.ah.traffic_class, 0x60);
    }
    world.finish();
}

#[test]
fn a_path_resolves_the_route() {
    let mut world = World::new(2, 11);
    let target = create(&mut world, PortSpace::Tcp);
    let mut record = [0; 72];
    record[0] = 0x2b;
    let early = world.agents[0].set_option(target, 1, 1, &record);
    assert_eq!(early, Err(CmError::Invalid));
    world.agents[0]
        .resolve_addr(target, None, address(ip(1), 1), known)
        .unwrap();
    world.pump(0);
    world.expect(0, Event::AddressResolved);
    for wrong in [&record[..71], &[0; 72], &[]] {
        let refused = world.agents[0].set_option(target, 1, 1, wrong);
        assert_eq!(refused, Err(CmError::Invalid));
    }
    world.agents[0]
        .set_option(target, 1, 1, &[[0; 72], record].concat())
        .unwrap();
    world.pump(0);
    world.expect(0, Event::RouteResolved);
    assert_eq!(world.agents[0].query(target).unwrap().paths, 1);
    world.finish();
}

#[test]
fn init_opens_the_queue_pair_when_there_is_a_peer() {
    let mut world = World::new(2, 12);
    let free = create(&mut world, PortSpace::Tcp);
    assert_eq!(
        world.agents[0].qp_attr(free, State::Init).unwrap_err(),
        CmError::Invalid
    );
    world.listener(1, PortSpace::Tcp, 80);
    let active = world.routed(0, PortSpace::Tcp, 1, 80);
    let init = |world: &World, agent: usize, id| {
        let answer = world.agents[agent].qp_attr(at(id), State::Init).unwrap();
        let mask = QpMask::from_bits_retain(answer.mask);
        assert!(mask.contains(QpMask::STATE | QpMask::PKEY_INDEX | QpMask::PORT));
        (
            mask.contains(QpMask::ACCESS_FLAGS),
            answer.attr.qp_access_flags,
            answer.attr.port_num,
        )
    };
    assert_eq!(init(&world, 0, active), (true, 0, 1));
    assert_eq!(
        world.agents[0].qp_attr(at(active), State::Rtr).unwrap_err(),
        CmError::Invalid
    );
    let mut side = param(1, b"");
    side.initiator_depth = 0;
    world.connect(0, active, &side);
    assert_eq!(init(&world, 0, active), (true, 0b1110, 1));
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    // The peer will have none outstanding: nothing to read or to add to.
    assert_eq!(init(&world, 1, passive), (true, 0b10, 1));
    assert!(world.agents[1].qp_attr(at(passive), State::Rtr).is_ok());
    assert_eq!(
        world.agents[1]
            .qp_attr(at(passive), State::Err)
            .unwrap_err(),
        CmError::Invalid
    );
    world.finish();
}

#[test]
fn a_migration_takes_events_along() {
    let mut world = World::new(2, 13);
    let listener = world.listener(1, PortSpace::Tcp, 80);
    for _ in 0..3 {
        let active = world.routed(0, PortSpace::Tcp, 1, 80);
        world.connect(0, active, &param(1, b""));
    }
    world.settle();
    let taken = world.expect(1, Event::ConnectRequest).id;
    let other = channel(1, 9);
    assert_eq!(
        world.agents[1].migrate(at(listener), channel(2, 9)),
        Err(CmError::Invalid)
    );
    let moved = world.agents[1].migrate(at(listener), other).unwrap();
    assert_eq!((moved.reported, moved.dropped), (1, 2));
    world.void(1, CH, moved);
    assert_eq!(
        (world.signals[&(1, CH)], world.signals[&(1, other)]),
        (0, 2)
    );
    world.expect_none(1);
    for _ in 0..2 {
        let event = world.event_of(1, other).unwrap();
        // A request that moved belongs to the channel where it is announced.
        assert!(
            world.agents[1]
                .query(Target {
                    channel: other,
                    id: event.id
                })
                .is_ok()
        );
    }
    assert!(world.agents[1].query(at(taken)).is_ok());
    let same = world.agents[1].migrate(at(taken), CH).unwrap();
    assert_eq!((same.reported, same.dropped), (0, 0));
    world.finish();
}

#[test]
fn an_end_tells_what_was_reported_and_dropped() {
    let mut world = World::new(2, 14);
    let target = create(&mut world, PortSpace::Tcp);
    world.agents[0]
        .resolve_addr(target, None, address(ip(1), 1), known)
        .unwrap();
    world.agents[0].resolve_route(target).unwrap();
    world.pump(0);
    world.expect(0, Event::AddressResolved);
    let ended = world.destroy(0, target);
    assert_eq!((ended.reported, ended.dropped), (1, 1));
    world.expect_none(0);
    assert_eq!(world.signals[&(0, CH)], 0);
    world.finish();
}

#[test]
fn an_id_and_its_connection_are_small() {
    use super::super::state::{Conversation, Id};
    assert!(size_of::<Id>() + size_of::<Conversation>() <= 480);
}

#[test]
fn a_program_that_takes_no_events_cannot_make_them_without_end() {
    let mut world = World::new(1, 15);
    let target = create(&mut world, PortSpace::Tcp);
    let to = address([10, 9, 9, 9].into(), 1);
    let mut tries = (0..1000).map(|_| world.agents[0].resolve_addr(target, None, to, |_| None));
    assert_eq!(tries.by_ref().take(8).filter(Result::is_err).count(), 0);
    assert!(tries.all(|done| done == Err(CmError::NoMemory)));
    world.pump(0);
    world.expect(0, Event::AddressError);
    world.agents[0]
        .resolve_addr(target, None, to, |_| None)
        .unwrap();
    world.pump(0);
    world.finish();
}

#[test]
fn a_resolved_id_holds_its_port_on_one_address_only() {
    let mut world = World::new(1, 16);
    let link_local = IpAddr::from([0xfe80u16, 0, 0, 0, 0, 0, 0, 1]);
    let target = bound(&mut world, ANY, 5000).unwrap();
    assert_eq!(
        bound(&mut world, link_local, 5000),
        Err(CmError::AddressInUse)
    );
    let to = address([10, 9, 9, 9].into(), 1);
    world.agents[0]
        .resolve_addr(target, None, to, known)
        .unwrap();
    world.pump(0);
    bound(&mut world, link_local, 5000).unwrap();
    assert_eq!(bound(&mut world, ip(0), 5000), Err(CmError::AddressInUse));
    world.finish();
}
