//! Messages that belong to a conversation in all but one thing.

use super::harness::{World, at, ip, param};
use crate::{
    Answered, CommId, Dreq, Event, Message, Mra, PortSpace, Private, Reason, Rej, Rep, Rtu,
};
use std::time::Duration;

/// Every message that could change something, between these sides.
fn forgeries(local_comm: CommId, remote_comm: CommId) -> Vec<Message> {
    let private = Private::new(b"forged");
    let rtu = Rtu {
        local_comm,
        remote_comm,
        private: private.clone(),
    };
    let rej = |answered, reason| {
        Message::Rej(Rej {
            local_comm,
            remote_comm,
            answered,
            reason,
            info: Private::EMPTY,
            info_len: 0,
            private: Private::EMPTY,
        })
    };
    let mra = |answered| {
        Message::Mra(Mra {
            local_comm,
            remote_comm,
            answered,
            service_timeout: 31,
            private: Private::EMPTY,
        })
    };
    vec![
        Message::Rtu(rtu.clone()),
        Message::Drep(rtu),
        Message::Dreq(Dreq {
            local_comm,
            remote_comm,
            remote_qpn: 1,
            private: private.clone(),
        }),
        Message::Rep(Rep {
            local_comm,
            remote_comm,
            qpn: 0x99,
            private,
            ..Rep::default()
        }),
        rej(Answered::REQ, Reason::CONSUMER),
        rej(Answered::REQ, Reason::TIMEOUT),
        rej(Answered::REP, Reason::INVALID_COMM_ID),
        mra(Answered::REQ),
        mra(Answered::REP),
    ]
}

fn snapshot(world: &World) -> Vec<(usize, String, Option<Duration>)> {
    let mut all: Vec<_> = (0..2)
        .flat_map(|agent| {
            let one = &world.agents[agent];
            let timer = one.next_timeout().map(|at| at - world.start);
            one.views()
                .map(move |view| (agent, format!("{view:?}"), timer))
        })
        .collect();
    all.sort();
    all
}

/// Gives both agents what does not belong to them: from a stranger who knows
/// both ids, and from the peer with a wrong id of its own.
fn forge(world: &mut World, active: Option<CommId>, passive: Option<CommId>) {
    let before = snapshot(world);
    let wrong = CommId(0xdead_beef);
    for (victim, own, peer) in [(0, active, passive), (1, passive, active)] {
        let Some(own) = own else { continue };
        let theirs = peer.unwrap_or(wrong);
        for message in forgeries(theirs, own) {
            world.agents[victim].receive(world.now, ip(7), message, 10);
        }
        // Whoever waits for an answer to a REQ does not know the other id yet.
        if peer.is_some() {
            for message in forgeries(wrong, own) {
                world.agents[victim].receive(world.now, ip(1 - victim), message, 10);
            }
        }
        // No id at all: a timeout by the sender's id only.
        for message in forgeries(theirs, CommId(0)) {
            world.agents[victim].receive(world.now, ip(7), message, 10);
        }
        while world.agents[victim].output().is_some() {}
        world.expect_none(victim);
    }
    assert_eq!(before, snapshot(world));
    for agent in &world.agents {
        agent.check();
    }
}

#[test]
fn forged_messages_change_nothing_at_any_stage() {
    let mut world = World::new(2, 1);
    world.listener(1, PortSpace::Tcp, 7471);
    let id = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, id, &param(1, b""));
    let active = world.sent.iter().find_map(|(_, _, message)| match message {
        Message::Req(req) => Some(req.local_comm),
        _ => None,
    });
    forge(&mut world, active, None);
    world.settle();
    let request = world.expect(1, Event::ConnectRequest).id;
    // The passive id is told by an MRA, if at all.
    let Some((_, _, req)) = world.sent.first().cloned() else {
        panic!()
    };
    world.agents[1].receive(world.now, ip(0), req, 10);
    let passive = std::iter::from_fn(|| world.agents[1].output()).find_map(|output| match output {
        crate::Output::Send {
            message: Message::Mra(mra),
            ..
        } => Some(mra.local_comm),
        _ => None,
    });
    assert!(passive.is_some());
    forge(&mut world, None, passive);
    forge_known(&mut world, passive, active);
    world.accept(1, request, 4, &param(2, b""));
    forge_known(&mut world, passive, active);
    world.settle();
    world.expect(0, Event::ConnectResponse);
    forge(&mut world, active, passive);
    world.confirm(0, id);
    forge(&mut world, active, passive);
    world.settle();
    world.expect(1, Event::Established);
    forge(&mut world, active, passive);
    world.agents[0].disconnect(world.now, at(id)).unwrap();
    world.pump(0);
    forge(&mut world, active, passive);
    world.settle();
    world.expect(1, Event::Disconnected);
    forge(&mut world, active, passive);
    world.finish();
}

/// The passive side alone, which knows its peer's id.
fn forge_known(world: &mut World, passive: Option<CommId>, active: Option<CommId>) {
    let before = snapshot(world);
    let (Some(own), Some(peer)) = (passive, active) else {
        panic!()
    };
    for (from, theirs) in [(7, peer), (0, CommId(0xdead_beef))] {
        for message in forgeries(theirs, own) {
            world.agents[1].receive(world.now, ip(from), message, 10);
        }
    }
    while world.agents[1].output().is_some() {}
    world.expect_none(1);
    assert_eq!(before, snapshot(world));
}

#[test]
fn a_queue_pair_that_was_told_as_0_stands_for_no_other() {
    let mut world = World::new(2, 2);
    world.listener(1, PortSpace::Tcp, 7471);
    let active = world.routed(0, PortSpace::Tcp, 1, 7471);
    world.connect(0, active, &param(0x11, b""));
    world.settle();
    let passive = world.expect(1, Event::ConnectRequest).id;
    assert!(world.agents[1].by_qpn(0x22, ip(0), 0x11).is_some());
    world.accept(1, passive, 4, &param(0, b""));
    assert!(world.agents[1].by_qpn(0x22, ip(0), 0x11).is_none());
    assert!(world.agents[1].by_qpn(0, ip(0), 0x11).is_some());
    world.finish();
}
