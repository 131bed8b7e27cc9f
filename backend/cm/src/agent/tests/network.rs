//! Thousands of seeds of a bad network.

use super::harness::{Faults, World, at, kind, param};
use crate::{Event, PortSpace};
use masq_spec::verbs::State;
use std::collections::HashMap;
use std::time::Duration;

const AGENTS: usize = 3;

/// What a program does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Accept,
    Refuse,
    Sleep,
}

#[derive(Default)]
struct Seen {
    events: Vec<(Event, i32)>,
    established: bool,
}

struct Programs {
    world: World,
    /// By agent and id.
    seen: HashMap<(usize, u32), Seen>,
    /// Active side of a passive one, by its queue pair number.
    active: HashMap<u32, (usize, u32)>,
    passive: HashMap<u32, (usize, u32)>,
    sleepers: Vec<(Duration, usize, u32, u32)>,
    answers: HashMap<u32, Answer>,
}

impl Programs {
    /// Lets programs do what their events ask for.
    fn react(&mut self) {
        for agent in 0..AGENTS {
            while let Some(event) = self.world.event(agent) {
                self.event(agent, &event);
            }
        }
        let now = self.world.now - self.world.start;
        let due: Vec<_> = self
            .sleepers
            .extract_if(.., |sleeper| sleeper.0 <= now)
            .collect();
        for (_, agent, id, qpn) in due {
            // It may be too late by now.
            let side = param(qpn + 1000, &qpn.to_be_bytes());
            let at_now = self.world.now;
            let done = self.world.agents[agent].accept(at_now, at(id), 50_000, Some(&side));
            self.world.pump(agent);
            if done.is_err() {
                self.seen
                    .entry((agent, id))
                    .or_default()
                    .events
                    .push((Event::ConnectError, 0));
            }
        }
    }

    fn event(&mut self, agent: usize, event: &masq_spec::verbs::CmEvent) {
        let id = event.id;
        match kind(event) {
            Event::ConnectRequest => {
                let qpn = event.param.qpn;
                assert_eq!(event.param.private_data[..4], qpn.to_be_bytes());
                let first = self.passive.insert(qpn, (agent, id)).is_none();
                assert!(first, "a request is told once");
                match self.answers[&qpn] {
                    Answer::Accept => self.sleepers.push((Duration::ZERO, agent, id, qpn)),
                    Answer::Refuse => {
                        let now = self.world.now;
                        self.world.agents[agent]
                            .reject(now, at(id), 0, b"")
                            .unwrap();
                        self.world.pump(agent);
                        self.seen.entry((agent, id)).or_default();
                    }
                    Answer::Sleep => {
                        let until = self.world.now - self.world.start
                            + Duration::from_millis(self.world.random(100_000));
                        self.sleepers.push((until, agent, id, qpn));
                    }
                }
            }
            Event::ConnectResponse => {
                assert_eq!(
                    event.param.private_data[..4],
                    (event.param.qpn - 1000).to_be_bytes()
                );
                self.world.confirm(agent, id);
                self.seen.entry((agent, id)).or_default().established = true;
            }
            Event::Established => {
                let seen = self.seen.entry((agent, id)).or_default();
                assert!(!seen.established, "established once");
                seen.established = true;
            }
            other => {
                let seen = self.seen.entry((agent, id)).or_default();
                seen.events.push((other, event.status));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.world.now + time;
        loop {
            let start = self.world.start;
            let wake = self.sleepers.iter().map(|sleeper| start + sleeper.0).min();
            let until = wake.unwrap_or(end).min(end);
            if !self.world.step(until) {
                self.world.now = self.world.now.max(until);
                if until == end {
                    break;
                }
            }
            self.react();
        }
    }
}

fn run(seed: u64, count: u32) {
    let mut world = World::new(AGENTS, seed);
    world.faults = Faults {
        loss: world.random(20),
        repeat: world.random(30),
        delay: world.random(60),
    };
    for agent in 0..AGENTS {
        world.listener(agent, PortSpace::Tcp, 7471);
    }
    let mut programs = Programs {
        world,
        seen: HashMap::new(),
        active: HashMap::new(),
        passive: HashMap::new(),
        sleepers: Vec::new(),
        answers: HashMap::new(),
    };
    for qpn in 1..=count {
        let world = &mut programs.world;
        let (from, to) = (
            world.random(AGENTS as u64) as usize,
            world.random(AGENTS as u64) as usize,
        );
        let answer = match world.random(8) {
            0 => Answer::Refuse,
            1 | 2 => Answer::Sleep,
            _ => Answer::Accept,
        };
        programs.answers.insert(qpn, answer);
        let id = world.routed(from, PortSpace::Tcp, to, 7471);
        programs.active.insert(qpn, (from, id));
        world.connect(from, id, &param(qpn, &qpn.to_be_bytes()));
        programs.react();
    }
    programs.run(Duration::from_secs(400));
    for qpn in 1..=count {
        check(&mut programs, seed, qpn);
    }
    programs.world.finish();
}

fn check(programs: &mut Programs, seed: u64, qpn: u32) {
    let (from, active) = programs.active[&qpn];
    let passive = programs.passive.get(&qpn).copied();
    let a = programs.seen.remove(&(from, active)).unwrap_or_default();
    let b = passive
        .and_then(|key| programs.seen.remove(&key))
        .unwrap_or_default();
    if a.established && a.events.is_empty() {
        assert!(
            b.established && b.events.is_empty(),
            "seed {seed}: only one side: {:?}",
            b.events
        );
        let (to, passive) = passive.unwrap();
        let get = |agent: usize, id, state| {
            programs.world.agents[agent]
                .qp_attr(at(id), state)
                .unwrap()
                .attr
        };
        let (rtr, rts) = (get(from, active, State::Rtr), get(from, active, State::Rts));
        let (peer_rtr, peer_rts) = (get(to, passive, State::Rtr), get(to, passive, State::Rts));
        assert_eq!((rtr.dest_qp_num, peer_rtr.dest_qp_num), (qpn + 1000, qpn));
        assert_eq!((rtr.rq_psn, rts.sq_psn), (peer_rts.sq_psn, peer_rtr.rq_psn));
        return;
    }
    assert!(
        !a.established && !b.established,
        "seed {seed}: {:?} {:?}",
        a.events,
        b.events
    );
    let [(event, status)] = a.events[..] else {
        panic!(
            "seed {seed}: one error at the active side, not {:?}",
            a.events
        );
    };
    match (event, status) {
        (Event::Rejected, 28 | 4) | (Event::Unreachable, -110) => {}
        other => panic!("seed {seed}: {other:?}"),
    }
    match programs.answers[&qpn] {
        Answer::Refuse => {}
        _ if passive.is_none() => {}
        _ => assert_eq!(b.events.len(), 1, "seed {seed}: {:?}", b.events),
    }
}

#[test]
fn every_connect_is_established_or_fails_once_on_both_sides() {
    for seed in 0..10_000 {
        run(seed, 3);
    }
}

#[test]
fn a_crowd_connects_over_a_bad_network() {
    for seed in 0..20 {
        run(seed, 300);
    }
}

#[test]
fn every_service_is_named_or_refused_once() {
    for seed in 0..3000 {
        let mut world = World::new(2, seed);
        world.faults = Faults {
            loss: 15,
            repeat: 30,
            delay: 40,
        };
        world.listener(1, PortSpace::Udp, 7174);
        let active = world.routed(0, PortSpace::Udp, 1, 7174);
        world.connect(0, active, &param(5, b"who"));
        let mut asked = 0;
        for _ in 0..40 {
            world.pass(Duration::from_secs(2));
            while let Some(event) = world.event(1) {
                assert_eq!(kind(&event), Event::ConnectRequest);
                assert_eq!(&event.param.private_data[..3], b"who");
                asked += 1;
                let now = world.now;
                if seed % 3 == 0 {
                    world.agents[1].reject(now, at(event.id), 0, b"").unwrap();
                    world.pump(1);
                } else {
                    world.accept(1, event.id, 4, &param(6, b"me"));
                }
            }
        }
        assert!(asked <= 1, "seed {seed}");
        let event = world.event(0).unwrap_or_else(|| panic!("seed {seed}"));
        match kind(&event) {
            Event::Established => {
                assert_eq!((event.param.qpn, asked), (6, 1));
                assert_eq!(&event.param.private_data[..2], b"me");
            }
            Event::Unreachable => assert!(event.status == 2 || event.status == -110),
            other => panic!("seed {seed}: {other:?}"),
        }
        world.expect_none(0);
        world.finish();
    }
}

#[test]
fn ids_that_end_at_any_time_leave_nothing_behind() {
    for seed in 0..3000 {
        let mut world = World::new(2, seed);
        world.faults = Faults {
            loss: 10,
            repeat: 20,
            delay: 40,
        };
        world.listener(1, PortSpace::Tcp, 7471);
        let active = world.routed(0, PortSpace::Tcp, 1, 7471);
        world.connect(0, active, &param(1, b""));
        let steps = world.random(12);
        for step in 0..steps + 40 {
            if step == steps {
                let victim = usize::from(seed % 2 == 0);
                world.agents[victim].close_owner(world.now, 1, usize::MAX);
                world.pump(victim);
            }
            let end = world.now + Duration::from_secs(20);
            world.step(end);
            for agent in 0..2 {
                while let Some(event) = world.event(agent) {
                    let now = world.now;
                    let target = at(event.id);
                    match kind(&event) {
                        Event::ConnectRequest => {
                            let side = param(2, b"");
                            let _ = world.agents[agent].accept(now, target, 4, Some(&side));
                        }
                        Event::ConnectResponse => {
                            let _ = world.agents[agent].accept(now, target, 0, None);
                        }
                        Event::Established | Event::Disconnected => {
                            let _ = world.agents[agent].disconnect(now, target);
                        }
                        _ => {}
                    }
                    world.pump(agent);
                    world.agents[agent].check();
                }
            }
        }
        world.finish();
    }
}
