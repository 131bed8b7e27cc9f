//! Making connections, rule by rule.

use super::super::state::{MRA_CODE, PATIENCE};
use super::harness::{World, address, at, ip, kind, param};
use crate::{Answered, CmError, Event, Message, PortSpace, Reason};
use masq_spec::verbs::{QpMask, State};
use std::time::Duration;

#[test]
fn both_sides_learn_the_same_numbers() {
    let mut world = World::new(2, 1);
    let (active, passive) = world.connected();
    let get = |world: &World, agent: usize, id, state| {
        let answer = world.agents[agent].qp_attr(at(id), state).unwrap();
        (QpMask::from_bits_retain(answer.mask), answer.attr)
    };
    let (mask, a) = get(&world, 0, active, State::Rtr);
    let (_, b) = get(&world, 1, passive, State::Rtr);
    assert_eq!(
        mask,
        QpMask::STATE
            | QpMask::AV
            | QpMask::PATH_MTU
            | QpMask::DEST_QPN
            | QpMask::RQ_PSN
            | QpMask::MAX_DEST_RD_ATOMIC
            | QpMask::MIN_RNR_TIMER
    );
    assert_eq!((a.dest_qp_num, b.dest_qp_num), (0x22, 0x11));
    assert_eq!((a.path_mtu, b.path_mtu), (3, 3));
    assert_eq!(a.ah.dgid, crate::address::gid_of(ip(1)));
    assert_eq!(b.ah.dgid, crate::address::gid_of(ip(0)));
    assert_eq!(
        (
            a.ah.sgid_index,
            a.ah.is_global,
            a.ah.hop_limit,
            a.ah.port_num
        ),
        (3, 1, 64, 1)
    );
    let (mask, a_rts) = get(&world, 0, active, State::Rts);
    let (_, b_rts) = get(&world, 1, passive, State::Rts);
    assert!(mask.contains(QpMask::SQ_PSN | QpMask::TIMEOUT | QpMask::MAX_QP_RD_ATOMIC));
    assert_eq!((a.rq_psn, b.rq_psn), (b_rts.sq_psn, a_rts.sq_psn));
    assert_ne!(a.rq_psn, b.rq_psn);
    // What one side serves is what the other side may have outstanding.
    assert_eq!((a.max_dest_rd_atomic, a_rts.max_rd_atomic), (2, 4));
    assert_eq!((b.max_dest_rd_atomic, b_rts.max_rd_atomic), (4, 2));
    assert_eq!(
        (b_rts.retry_cnt, b_rts.rnr_retry, a_rts.retry_cnt),
        (6, 5, 6)
    );
    assert_eq!((a_rts.timeout, b_rts.timeout), (17, 17));
    world.finish();
}

#[test]
fn events_carry_the_peers_side_swapped_and_padded() {
    let mut world = World::new(2, 2);
    let listener = world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(0x11, b"hello\0"));
    world.settle();
    let request = world.expect(1, Event::ConnectRequest);
    assert_eq!((request.uid, request.datagram), (7000 + 7471, 0));
    assert_ne!(request.id, listener);
    assert_eq!((request.param.qpn, request.param.private_len), (0x11, 56));
    assert_eq!(
        (
            request.param.responder_resources,
            request.param.initiator_depth
        ),
        (2, 4)
    );
    assert_eq!(
        (request.param.retry_count, request.param.rnr_retry_count),
        (6, 5)
    );
    assert_eq!(&request.param.private_data[..7], b"hello\0\0");
    let route = world.agents[1].query(at(request.id)).unwrap();
    assert_eq!(
        (route.source, route.destination.ip[3]),
        (address(ip(1), 7471), 1)
    );
    assert_eq!((route.bound, route.paths), (1, 1));
    world.accept(1, request.id, 5, &param(0x22, &[9; 196]));
    world.settle();
    let response = world.expect(0, Event::ConnectResponse);
    assert_eq!(
        (response.param.qpn, response.param.private_len),
        (0x22, 196)
    );
    assert_eq!(
        (
            response.param.responder_resources,
            response.param.initiator_depth
        ),
        (2, 4)
    );
    assert_eq!(
        response.param.private_data[..197],
        [vec![9; 196], vec![0]].concat()
    );
    world.finish();
}

#[test]
fn too_much_private_data_is_invalid() {
    let mut world = World::new(2, 3);
    world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    let now = world.now;
    let refused = world.agents[0].connect(now, at(active), &param(1, &[1; 57]));
    assert_eq!(refused, Err(CmError::Invalid));
    world.connect(0, active, &param(1, &[1; 56]));
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    assert_eq!(
        world.agents[1].reject(now, at(passive), 0, &[1; 149]),
        Err(CmError::Invalid)
    );
    // As on Linux, what could not be accepted is refused.
    let refused = world.agents[1].accept(now, at(passive), 1, Some(&param(2, &[1; 197])));
    assert_eq!(refused, Err(CmError::Invalid));
    world.pump(1);
    world.settle();
    assert_eq!(world.expect(0, Event::Rejected).status, 28);
    world.finish();
}

#[test]
fn nobody_listens_is_reason_8() {
    let mut world = World::new(2, 4);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    world.settle();
    let event = world.expect(0, Event::Rejected);
    assert_eq!((event.status, event.param.private_len), (8, 148));
    assert_eq!(world.agents[1].usage(), crate::Usage::default());
    world.finish();
}

#[test]
fn a_program_refuses_with_28_its_own_reason_and_private_data() {
    let mut world = World::new(2, 5);
    world.listener(1, PortSpace::Tcp, 7471);
    for (given, told) in [(0, 28), (28, 28), (35, 35)] {
        let active = world.routed(0, PortSpace::Tcp, 1, 7471);
        world.connect(0, active, &param(1, b""));
        world.settle();
        let passive = world.expect(1, Event::ConnectRequest).id;
        world.agents[1]
            .reject(world.now, at(passive), given, b"no")
            .unwrap();
        world.pump(1);
        world.settle();
        let event = world.expect(0, Event::Rejected);
        assert_eq!(
            (event.status, &event.param.private_data[..3]),
            (told, b"no\0".as_slice())
        );
        let now = world.now;
        let again = world.agents[1].accept(now, at(passive), 1, Some(&param(2, b"")));
        assert_eq!(again, Err(CmError::Invalid));
    }
    world.finish();
}

#[test]
fn no_program_can_refuse_in_the_name_of_the_policy_or_the_protocol() {
    let mut world = World::new(2, 5);
    world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    let now = world.now;
    for reason in (1..=255).filter(|reason| ![28, 35].contains(reason)) {
        let refused = world.agents[1].reject(now, at(passive), reason, b"masq: default deny");
        assert_eq!(refused, Err(CmError::Invalid), "{reason}");
    }
    world.pump(1);
    world.settle();
    world.expect_none(0);
    world.accept(1, passive, 42, &param(2, b""));
    world.settle();
    world.expect(0, Event::ConnectResponse);
    world.finish();
}

#[test]
fn a_full_backlog_and_a_full_house_are_reason_3() {
    let mut world = World::new(2, 6);
    let agent = &mut world.agents[1];
    let id = agent.create_id(
        super::harness::CH,
        PortSpace::Tcp,
        masq_spec::verbs::QpType::Rc,
        1,
    );
    let id = id.unwrap();
    agent
        .bind(at(id), address([0, 0, 0, 0].into(), 80))
        .unwrap();
    agent.listen(at(id), 2).unwrap();
    let ids: Vec<u32> = (0..4)
        .map(|_| world.routed(0, PortSpace::Tcp, 1, 80))
        .collect();
    for &id in &ids[..3] {
        world.connect(0, id, &param(1, b""));
    }
    world.settle();
    assert_eq!(
        world.expect(0, Event::Rejected).status,
        i32::from(Reason::NO_RESOURCES.0)
    );
    world.expect_none(0);
    // A request that was handed out makes room.
    world.expect(1, Event::ConnectRequest);
    world.connect(0, ids[3], &param(1, b""));
    world.settle();
    world.expect_none(0);
    world.room = 0;
    world.expect(1, Event::ConnectRequest);
    let late = world.routed(0, PortSpace::Tcp, 1, 80);
    world.connect(0, late, &param(1, b""));
    world.settle();
    assert_eq!(world.expect(0, Event::Rejected).status, 3);
    world.finish();
}

#[test]
fn a_request_that_is_never_answered_is_unreachable_within_70_seconds() {
    let mut world = World::new(2, 7);
    world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    world.pass(Duration::from_secs(60));
    world.expect_none(0);
    // The second REQ was answered by an MRA, so there was no third.
    let count = |world: &World, wanted: fn(&Message) -> bool| {
        world
            .sent
            .iter()
            .filter(|(_, _, message)| wanted(message))
            .count()
    };
    assert_eq!(
        count(&world, |message| matches!(message, Message::Req(_))),
        2
    );
    assert_eq!(
        count(
            &world,
            |m| matches!(m, Message::Mra(mra) if mra.service_timeout == MRA_CODE)
        ),
        1
    );
    world.pass(Duration::from_secs(10));
    assert_eq!(world.expect(0, Event::Unreachable).status, -110);
    // The passive side was told: its program learns when it accepts.
    let late = world.agents[1].accept(world.now, at(passive), 1, Some(&param(2, b"")));
    assert_eq!(late, Err(CmError::Invalid));
    world.expect_none(1);
    world.finish();
}

#[test]
fn a_request_is_repeated_15_times_into_silence() {
    let mut world = World::new(2, 8);
    world.deaf = Some(1);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    world.pass(PATIENCE - Duration::from_secs(1));
    world.expect_none(0);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.expect(0, Event::Unreachable).status, -110);
    let requests = world
        .sent
        .iter()
        .filter(|(_, _, m)| matches!(m, Message::Req(_)))
        .count();
    assert_eq!(requests, 16);
    world.pass(Duration::from_secs(100));
    world.expect_none(0);
    world.finish();
}

#[test]
fn an_acceptance_that_is_never_confirmed_is_unreachable() {
    let mut world = World::new(2, 9);
    world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    world.accept(1, passive, 4, &param(2, b""));
    world.pass(Duration::from_secs(70));
    // The active program slept: it was asked for patience, in vain.
    let mra = |m: &Message| matches!(m, Message::Mra(mra) if mra.answered == Answered::REP);
    assert!(
        world
            .sent
            .iter()
            .any(|(from, _, message)| *from == 0 && mra(message))
    );
    let event = world.expect(1, Event::Unreachable);
    assert_eq!((event.status, event.uid), (-110, 4));
    world.expect(0, Event::ConnectResponse);
    assert_eq!(
        world.expect(0, Event::Rejected).status,
        i32::from(Reason::TIMEOUT.0)
    );
    let now = world.now;
    assert_eq!(
        world.agents[0].accept(now, at(active), 0, None),
        Err(CmError::Invalid)
    );
    world.finish();
}

#[test]
fn messages_of_strangers_change_nothing() {
    let mut world = World::new(3, 10);
    let (active, passive) = world.connected();
    let before = (
        world.agents[0].query(at(active)),
        world.agents[1].query(at(passive)),
    );
    let sent: Vec<_> = world.sent.clone();
    for (_, to, message) in sent {
        // Agent 2 repeats what the others said; REQs tell its own address wrongly.
        world.agents[to].receive(world.now, ip(2), message, 10);
        world.pump(to);
        world.settle();
    }
    world.expect_none(0);
    world.expect_none(1);
    assert_eq!(
        before,
        (
            world.agents[0].query(at(active)),
            world.agents[1].query(at(passive))
        )
    );
    let states = world
        .agents
        .iter()
        .flat_map(|agent| agent.views().map(|view| view.state));
    assert_eq!(states.filter(|&state| state == "established").count(), 2);
    world.finish();
}

#[test]
fn repeated_messages_are_answered_but_tell_programs_nothing() {
    let mut world = World::new(2, 11);
    world.connected();
    for (from, to, message) in world.sent.clone() {
        world.agents[to].receive(world.now, ip(from), message, 10);
        world.pump(to);
        world.settle();
        world.expect_none(0);
        world.expect_none(1);
    }
    world.finish();
}

#[test]
fn an_acceptance_of_nothing_is_rejected_and_a_dreq_of_nothing_agreed_to() {
    let mut world = World::new(2, 12);
    world.connected();
    let sent = world.sent.clone();
    for agent in 0..2 {
        world.agents[agent].close_owner(world.now, 1, usize::MAX);
        world.pump(agent);
    }
    world.pass(Duration::from_secs(30));
    world.sent.clear();
    for (from, to, message) in sent {
        let dreq = matches!(message, Message::Dreq(_));
        let rep = matches!(message, Message::Rep(_));
        world.agents[to].receive(world.now, ip(from), message, 0);
        world.pump(to);
        let answer = world.sent.pop().map(|(_, _, message)| message);
        match answer {
            Some(Message::Drep(_)) => assert!(dreq),
            Some(Message::Rej(rej)) if rej.reason == Reason::INVALID_COMM_ID => assert!(rep),
            Some(Message::Rej(rej)) => assert_eq!(rej.reason, Reason::INVALID_SERVICE_ID),
            other => assert!(other.is_none() && !dreq && !rep),
        }
    }
    world.finish();
}

#[test]
fn the_policys_no_is_reason_5_with_its_text() {
    let mut world = World::new(2, 13);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    let text = "masq: rule 3 of tenant red".repeat(10);
    world.agents[0].forbid(at(active), &text).unwrap();
    world.pump(0);
    let event = world.expect(0, Event::Rejected);
    assert_eq!((event.status, event.param.private_len), (5, 148));
    assert_eq!(event.param.private_data[..148], text.as_bytes()[..148]);
    assert!(world.sent.is_empty());
    let now = world.now;
    assert_eq!(
        world.agents[0].connect(now, at(active), &param(1, b"")),
        Err(CmError::Invalid)
    );
    let service = world.routed(0, PortSpace::Udp, 1, 7471);
    world.agents[0].forbid(at(service), "masq: no").unwrap();
    world.pump(0);
    let event = world.expect(0, Event::Unreachable);
    assert_eq!(
        (event.status, &event.param.private_data[..8]),
        (2, b"masq: no".as_slice())
    );
    world.finish();
}

#[test]
fn an_agent_connects_to_itself() {
    let mut world = World::new(1, 14);
    world.listener(0, PortSpace::Tcp, 7471);
    for destination in [ip(0), [127, 0, 0, 1].into(), [0, 0, 0, 0].into()] {
        let agent = &mut world.agents[0];
        let rc = masq_spec::verbs::QpType::Rc;
        let active = agent
            .create_id(super::harness::CH, PortSpace::Tcp, rc, 3)
            .unwrap();
        let unknown = |_| panic!("nobody else is asked for");
        agent
            .resolve_addr(at(active), None, address(destination, 7471), unknown)
            .unwrap();
        agent.resolve_route(at(active)).unwrap();
        world.pump(0);
        world.expect(0, Event::AddressResolved);
        world.expect(0, Event::RouteResolved);
        world.connect(0, active, &param(1, b""));
        world.settle();
        let passive = world.expect(0, Event::ConnectRequest).id;
        world.accept(0, passive, 4, &param(2, b""));
        world.settle();
        world.expect(0, Event::ConnectResponse);
        world.confirm(0, active);
        world.settle();
        assert_eq!(world.expect(0, Event::Established).uid, 4);
        world.agents[0].disconnect(world.now, at(active)).unwrap();
        world.pump(0);
        world.settle();
        assert_eq!(world.expect(0, Event::Disconnected).uid, 4);
        world.destroy(0, at(passive));
        world.settle();
        assert_eq!(world.expect(0, Event::Disconnected).uid, 3);
    }
    world.finish();
}

#[test]
fn data_before_the_confirmation_establishes() {
    let mut world = World::new(2, 15);
    world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    world.accept(1, passive, 4, &param(2, b""));
    let now = world.now;
    assert_eq!(
        world.agents[1].notify(now, at(passive), 5),
        Err(CmError::Invalid)
    );
    world.agents[1].notify(now, at(passive), 4).unwrap();
    world.agents[1].notify(now, at(passive), 4).unwrap();
    world.pump(1);
    assert_eq!(world.expect(1, Event::Established).uid, 4);
    world.settle();
    world.expect(0, Event::ConnectResponse);
    world.confirm(0, active);
    world.settle();
    world.expect_none(1);
    world.finish();
}

#[test]
fn a_queue_pair_leads_to_its_connection_from_the_request_on() {
    let mut world = World::new(2, 16);
    world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(0x11, b""));
    assert!(world.agents[0].by_qpn(0x11, ip(1), 0).is_none());
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    // The passive side connects its queue pair before it accepts.
    let view = world.agents[1].by_qpn(0x22, ip(0), 0x11).unwrap();
    assert_eq!(
        (view.id, view.port, view.initiator, view.state),
        (passive, 7471, false, "requested")
    );
    assert!(world.agents[1].by_qpn(0x22, ip(0), 0x12).is_none());
    world.accept(1, passive, 4, &param(0x22, b""));
    world.settle();
    let view = world.agents[1].by_qpn(0x22, ip(0), 0x11).unwrap();
    assert_eq!(view.local_qpn, 0x22);
    assert!(world.agents[1].by_qpn(0x23, ip(0), 0x11).is_none());
    let view = world.agents[0].by_qpn(0x11, ip(1), 0x22).unwrap();
    assert_eq!((view.id, view.port, view.initiator), (active, 7471, true));
    assert_eq!(kind(&world.event(0).unwrap()), Event::ConnectResponse);
    world.destroy(0, at(active));
    assert!(world.agents[0].by_qpn(0x11, ip(1), 0x22).is_none());
    world.finish();
}
