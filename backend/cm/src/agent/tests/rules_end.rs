//! Ends of connections and of ids, in every state.

use super::super::state::MAX_ORPHANS;
use super::harness::{CH, World, at, channel, ip, param};
use crate::{Answered, CmError, Event, Message, PortSpace, Reason};
use std::time::Duration;

#[test]
fn a_disconnect_is_told_to_both_and_rests() {
    let mut world = World::new(2, 1);
    let (active, passive) = world.connected();
    world.agents[0].disconnect(world.now, at(active)).unwrap();
    world.pump(0);
    world.settle();
    // The peer's program has to agree.
    world.expect_none(0);
    assert_eq!(world.expect(1, Event::Disconnected).uid, 42);
    world.agents[1].disconnect(world.now, at(passive)).unwrap();
    world.pump(1);
    world.settle();
    assert_eq!(world.expect(0, Event::Disconnected).status, 0);
    // Once more is no error, and nothing happens.
    world.agents[0].disconnect(world.now, at(active)).unwrap();
    world.pass(Duration::from_secs(2));
    world.expect(0, Event::TimewaitExit);
    world.expect(1, Event::TimewaitExit);
    assert_eq!(world.agents[0].usage().conversations, 0);
    world.finish();
}

#[test]
fn a_disconnect_is_told_even_if_the_peers_program_never_agrees() {
    let mut world = World::new(2, 2);
    let (active, _) = world.connected();
    world.agents[0].disconnect(world.now, at(active)).unwrap();
    world.pump(0);
    world.pass(Duration::from_secs(9));
    assert_eq!(world.expect(0, Event::Disconnected).status, -110);
    world.expect(1, Event::Disconnected);
    world.expect_none(1);
    world.finish();
}

#[test]
fn crossing_disconnects_need_no_program() {
    let mut world = World::new(2, 3);
    let (active, passive) = world.connected();
    world.agents[0].disconnect(world.now, at(active)).unwrap();
    world.agents[1].disconnect(world.now, at(passive)).unwrap();
    world.pump(0);
    world.pump(1);
    world.settle();
    for agent in 0..2 {
        assert_eq!(world.expect(agent, Event::Disconnected).status, 0);
        world.expect_none(agent);
    }
    world.finish();
}

#[test]
fn an_id_that_never_connected_cannot_disconnect() {
    let mut world = World::new(2, 4);
    let active = world.routed(0, PortSpace::Tcp, 1, 1);
    let service = world.routed(0, PortSpace::Udp, 1, 1);
    let now = world.now;
    for id in [active, service] {
        assert_eq!(
            world.agents[0].disconnect(now, at(id)),
            Err(CmError::Invalid)
        );
    }
    world.finish();
}

/// Brings a connection to a stage, ends one side, and answers what was sent then
/// and what the other side was told.
fn end_at(stage: usize, active_ends: bool) -> (Vec<Message>, Vec<(Event, i32)>) {
    let mut world = World::new(2, stage as u64);
    world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    if stage >= 1 {
        world.accept(1, passive, 4, &param(2, b""));
        world.settle();
        world.expect(0, Event::ConnectResponse);
    }
    if stage >= 2 {
        world.confirm(0, active);
        world.settle();
        world.expect(1, Event::Established);
    }
    let (ending, other) = if active_ends { (0, 1) } else { (1, 0) };
    if stage >= 3 {
        let id = if active_ends { passive } else { active };
        world.agents[other].disconnect(world.now, at(id)).unwrap();
        world.pump(other);
        world.settle();
        world.expect(ending, Event::Disconnected);
    }
    world.sent.clear();
    world.agents[ending].close_owner(world.now, 1, usize::MAX);
    world.pump(ending);
    world.settle();
    let sent = world.sent.iter().filter(|(from, _, _)| *from == ending);
    let sent = sent.map(|(_, _, message)| message.clone()).collect();
    let told = std::iter::from_fn(|| world.event(other))
        .map(|event| (super::harness::kind(&event), event.status))
        .collect();
    world.finish();
    (sent, told)
}

#[test]
fn a_program_that_dies_is_noticed_at_once_in_every_state() {
    let rejects = |messages: &[Message], wanted, answered| matches!(messages, [Message::Rej(rej)] if rej.reason == wanted && rej.answered == answered);
    // REQ_SENT: the request is taken back; an unaccepted id is told nothing.
    let (sent, told) = end_at(0, true);
    assert!(rejects(&sent, Reason::TIMEOUT, Answered::REQ), "{sent:?}");
    assert_eq!(told, []);
    let (sent, told) = end_at(0, false);
    assert!(rejects(&sent, Reason::CONSUMER, Answered::REQ), "{sent:?}");
    assert_eq!(told, [(Event::Rejected, 28)]);
    let (sent, told) = end_at(1, true);
    assert!(rejects(&sent, Reason::CONSUMER, Answered::REP), "{sent:?}");
    assert_eq!(told, [(Event::Rejected, 28)]);
    let (sent, told) = end_at(1, false);
    assert!(
        rejects(&sent, Reason::CONSUMER, Answered::OTHER),
        "{sent:?}"
    );
    assert_eq!(told, [(Event::Rejected, 28)]);
    for active_ends in [true, false] {
        let (sent, told) = end_at(2, active_ends);
        assert!(matches!(sent[..], [Message::Dreq(_)]), "{sent:?}");
        assert_eq!(told, [(Event::Disconnected, 0)]);
        let (sent, told) = end_at(3, active_ends);
        assert!(matches!(sent[..], [Message::Drep(_)]), "{sent:?}");
        assert_eq!(told, [(Event::Disconnected, 0)]);
    }
}

#[test]
fn a_request_that_its_sender_took_back_cannot_be_accepted() {
    let mut world = World::new(2, 5);
    world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    world.settle();
    world.destroy(0, at(active));
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    let now = world.now;
    let late = world.agents[1].accept(now, at(passive), 1, Some(&param(2, b"")));
    assert_eq!(late, Err(CmError::Invalid));
    world.destroy(1, at(passive));
    world.expect_none(1);
    world.finish();
}

#[test]
fn the_end_of_a_listener_refuses_what_waits_and_keeps_what_was_taken() {
    let mut world = World::new(2, 6);
    let listener = world.listener(1, PortSpace::Tcp, 7471);
    let ids: Vec<u32> = (0..3)
        .map(|_| world.routed(0, PortSpace::Tcp, 1, 7471))
        .collect();
    for &id in &ids {
        world.connect(0, id, &param(1, b""));
    }
    world.settle();
    let taken = world.expect(1, Event::ConnectRequest).id;
    let ended = world.destroy(1, at(listener));
    assert_eq!((ended.reported, ended.dropped), (1, 2));
    world.settle();
    for _ in 0..2 {
        assert_eq!(world.expect(0, Event::Rejected).status, 28);
    }
    world.accept(1, taken, 4, &param(2, b""));
    world.settle();
    world.expect(0, Event::ConnectResponse);
    assert_eq!(world.agents[1].len(), 1);
    world.finish();
}

#[test]
fn an_orphan_repeats_its_dreq() {
    let mut world = World::new(2, 7);
    let (active, _) = world.connected();
    world.deaf = Some(1);
    world.destroy(0, at(active));
    world.pass(Duration::from_secs(1));
    world.expect_none(1);
    world.deaf = None;
    world.pass(Duration::from_secs(3));
    world.expect(1, Event::Disconnected);
    world.expect_none(1);
    world.finish();
}

#[test]
fn orphans_are_bounded() {
    let mut world = World::new(2, 8);
    world.listener(1, PortSpace::Tcp, 7471);
    world.room = u64::MAX;
    for _ in 0..MAX_ORPHANS + 100 {
        let active = world.routed(0, PortSpace::Tcp, 1, 7471);
        world.agents[0]
            .connect(world.now, at(active), &param(1, b""))
            .unwrap();
        world.pump(0);
        while world.step(world.now + Duration::from_millis(1)) {}
        let passive = world.expect(1, Event::ConnectRequest).id;
        world.accept(1, passive, 4, &param(2, b""));
        while world.step(world.now + Duration::from_millis(1)) {}
        world.expect(0, Event::ConnectResponse);
        world.confirm(0, active);
        while world.step(world.now + Duration::from_millis(1)) {}
        world.expect(1, Event::Established);
    }
    world.deaf = Some(1);
    world.agents[0].close_owner(world.now, 1, usize::MAX);
    assert_eq!(world.agents[0].usage().conversations, MAX_ORPHANS);
    world.pump(0);
    world.finish();
}

#[test]
fn the_policy_cuts_on_both_sides() {
    let mut world = World::new(2, 9);
    let (active, passive) = world.connected();
    world.agents[0].cut(world.now, active);
    world.pump(0);
    assert_eq!(world.expect(0, Event::Disconnected).status, 0);
    world.settle();
    world.expect(1, Event::Disconnected);
    world.agents[1].disconnect(world.now, at(passive)).unwrap();
    world.pump(1);
    world.settle();
    world.expect_none(0);
    world.agents[0].cut(world.now, active);
    world.agents[0].cut(world.now, 12345);
    // Before it is established: reason 5 where it is known.
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    world.agents[1].cut(world.now, passive);
    world.pump(1);
    world.settle();
    assert_eq!(world.expect(0, Event::Rejected).status, 5);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    world.agents[0].cut(world.now, active);
    world.pump(0);
    assert_eq!(world.expect(0, Event::Rejected).status, 5);
    world.finish();
}

#[test]
fn closing_a_channel_ends_its_ids_only() {
    let mut world = World::new(2, 10);
    let (active, _) = world.connected();
    let other = channel(1, 2);
    world.agents[0].migrate(at(active), other).unwrap();
    world.agents[0].close_channel(world.now, CH, usize::MAX);
    world.pump(0);
    world.settle();
    world.expect_none(1);
    world.agents[0].close_channel(world.now, other, usize::MAX);
    world.pump(0);
    world.settle();
    world.expect(1, Event::Disconnected);
    assert!(world.agents[0].is_empty());
    world.finish();
}

#[test]
fn a_rejection_after_the_confirmation_disconnects() {
    let mut world = World::new(2, 11);
    world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(1, b""));
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    world.accept(1, passive, 4, &param(2, b""));
    world.settle();
    world.expect(0, Event::ConnectResponse);
    world.deaf = Some(1);
    world.confirm(0, active);
    world.destroy(1, at(passive));
    world.settle();
    world.expect(0, Event::Disconnected);
    assert_eq!(world.agents[0].by_qpn(1, ip(1), 2), None);
    world.finish();
}
