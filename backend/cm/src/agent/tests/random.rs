//! Random calls and random messages: no panic, and the invariants hold.

use super::harness::{Faults, World, address, channel, ip, known, param};
use crate::{
    Answered, CommId, Dreq, Mad, Message, Mra, PortSpace, Private, Reason, Rej, Rep, Req, Rtu,
    SidrRep, SidrReq, SidrStatus, Target,
};
use masq_spec::verbs::{CmAddress, QpType, State};
use proptest::prelude::*;
use std::time::Duration;

#[derive(Clone, Debug)]
struct Op {
    agent: usize,
    call: u8,
    id: u32,
    queue: u32,
    a: u32,
    b: u32,
    bytes: Vec<u8>,
}

fn op() -> impl Strategy<Value = Op> {
    (
        0..2usize,
        0..36u8,
        prop_oneof![8 => 1..10u32, 1 => any::<u32>()],
        prop_oneof![8 => Just(1u32), 1 => 0..3u32],
        prop_oneof![4 => 0..6u32, 1 => any::<u32>()],
        prop_oneof![4 => 0..6u32, 1 => any::<u32>()],
        prop::collection::vec(any::<u8>(), 0..230),
    )
        .prop_map(|(agent, call, id, queue, a, b, bytes)| Op {
            agent,
            call,
            id,
            queue,
            a,
            b,
            bytes,
        })
}

fn some_address(op: &Op) -> CmAddress {
    let port = (op.b % 4) as u16 * 1000;
    match op.a % 8 {
        0 | 1 => address(ip(0), port),
        2 | 3 => address(ip(1), port),
        4 => address([0, 0, 0, 0].into(), port),
        5 => address([239, 1, 1, 1].into(), port),
        6 => address([0; 16].into(), port),
        _ => CmAddress {
            family: op.b as u16,
            ..CmAddress::default()
        },
    }
}

fn space(raw: u32) -> PortSpace {
    match raw % 5 {
        0 | 4 => PortSpace::Tcp,
        1 => PortSpace::Udp,
        2 => PortSpace::Ib,
        _ => PortSpace::Ipoib,
    }
}

/// A message that names the ids that the world has spoken of, or any.
fn some_message(world: &World, op: &Op) -> Message {
    let known = |at: u32| {
        let sent = world.sent.get(at as usize % world.sent.len().max(1));
        sent.map_or(CommId(at), |(_, _, message)| match message {
            Message::Req(req) => req.local_comm,
            Message::Rep(rep) => rep.local_comm,
            Message::SidrReq(req) => req.request,
            Message::Rej(rej) => rej.remote_comm,
            Message::Mra(mra) => mra.local_comm,
            Message::Rtu(rtu) | Message::Drep(rtu) => rtu.local_comm,
            Message::Dreq(dreq) => dreq.local_comm,
            Message::SidrRep(rep) => rep.request,
        })
    };
    let (local_comm, remote_comm) = (known(op.a), known(op.b));
    let private = Private::new(&op.bytes);
    let service_id = crate::address::service_id(space(op.a), (op.b % 4) as u16 * 1000);
    let (reason, answered) = (Reason(op.b as u16), Answered(op.a as u8 & 3));
    match op.id % 9 {
        0 => Message::Req(Box::new(Req {
            local_comm,
            service_id,
            private,
            ..Req::default()
        })),
        1 => Message::Mra(Mra {
            local_comm,
            remote_comm,
            answered,
            service_timeout: op.b as u8,
            private,
        }),
        2 => Message::Rej(Rej {
            local_comm,
            remote_comm,
            answered,
            reason,
            info: Private::EMPTY,
            info_len: op.a as u8,
            private,
        }),
        3 => Message::Rep(Rep {
            local_comm,
            remote_comm,
            private,
            qpn: op.a,
            ..Rep::default()
        }),
        4 => Message::Rtu(Rtu {
            local_comm,
            remote_comm,
            private,
        }),
        5 => Message::Dreq(Dreq {
            local_comm,
            remote_comm,
            remote_qpn: op.a,
            private,
        }),
        6 => Message::Drep(Rtu {
            local_comm,
            remote_comm,
            private,
        }),
        7 => Message::SidrReq(SidrReq {
            request: local_comm,
            pkey: 1,
            service_id,
            private,
        }),
        _ => Message::SidrRep(SidrRep {
            request: local_comm,
            status: SidrStatus(op.b as u8 & 3),
            qpn: op.a,
            service_id,
            qkey: op.b,
            info: Private::EMPTY,
            info_len: 0,
            ece_vendor: 0,
            ece_options: 0,
            private,
        }),
    }
}

fn apply(world: &mut World, op: &Op) {
    let ch = channel(1, op.queue);
    let target = Target {
        channel: ch,
        id: op.id,
    };
    let now = world.now;
    let message = some_message(world, op);
    let replay = world
        .sent
        .get(op.a as usize % world.sent.len().max(1))
        .cloned();
    let (one, uid) = (&mut world.agents[op.agent], u64::from(op.a));
    let side = param(op.a, &op.bytes);
    match op.call {
        0 | 1 => drop(one.create_id(ch, space(op.a), QpType::Uc, uid)),
        2 => {
            if let Ok(ended) = one.destroy_id(now, target) {
                world.void(op.agent, ch, ended);
            }
        }
        3 | 4 => drop(one.bind(target, some_address(op))),
        5..=7 => {
            let peer = known(ip(1 - op.agent)).filter(|_| op.b != 3);
            let to = some_address(op);
            let _ = one.resolve_addr(target, None, to, |_| peer);
        }
        8..=10 => drop(one.resolve_route(target)),
        11..=13 => drop(one.connect(now, target, &side)),
        14 => drop(one.forbid(target, "masq: é".repeat(op.b as usize % 40).as_str())),
        15 | 16 => drop(one.listen(target, op.b)),
        17 | 18 => drop(one.accept(now, target, uid, Some(&side))),
        19 => drop(one.accept(now, target, uid, None)),
        20 => drop(one.reject(now, target, op.a as u8, &op.bytes)),
        21 => drop(one.disconnect(now, target)),
        22 => drop(one.qp_attr(target, State::from_raw(op.a % 7).unwrap_or_default())),
        23 => drop(one.set_option(target, op.a % 3, op.b % 5, &op.bytes)),
        24 => drop(one.notify(now, target, op.a)),
        25 => drop(one.join(target, uid, some_address(op), op.b % 3)),
        26 => {
            if let Ok(ended) = one.leave(ch, op.id) {
                world.void(op.agent, ch, ended);
            }
        }
        27 => {
            if let Ok(moved) = one.migrate(target, channel(1, op.a % 3)) {
                world.void(op.agent, ch, moved);
            }
        }
        28 => one.cut(now, op.id),
        29 => one.receive(now, ip(1 - op.agent), message, uid),
        30 => {
            if let Some((from, to, message)) = replay {
                world.agents[to].receive(now, ip(from), message, uid);
                world.pump(to);
            }
        }
        31 | 32 => {
            if let Some((from, to, message)) = replay {
                let mut mad = Mad {
                    transaction: 0,
                    message,
                }
                .encode();
                for (at, byte) in op.bytes.iter().take(op.b as usize % 4).enumerate() {
                    let at = 24 + (usize::from(*byte) + at * 57) % 232;
                    mad[at] ^= 1 << (byte & 7);
                }
                if let Ok(mad) = Mad::decode(&mad) {
                    world.agents[to].receive(now, ip(from), mad.message, uid);
                    world.pump(to);
                }
            }
        }
        33 => while world.event_of(op.agent, ch).is_some() {},
        34 => world.settle(),
        _ => world.pass(Duration::from_secs(u64::from(op.b) % 30)),
    }
    world.pump(op.agent);
    let one = &world.agents[op.agent];
    let _ = (
        one.query(target),
        one.destination(target),
        one.views().count(),
    );
    let _ = (
        one.by_qpn(op.a, ip(0), op.b),
        one.resolved_to(ip(1)).count(),
    );
    for agent in &world.agents {
        agent.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn random_calls_keep_the_invariants(
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut world = World::new(2, seed);
        world.faults = Faults { loss: seed % 10, repeat: seed % 20, delay: seed % 30 };
        for op in &ops {
            apply(&mut world, op);
        }
        // Every event was signalled once.
        for agent in 0..2 {
            for queue in 0..3 {
                let ch = channel(1, queue);
                while world.event_of(agent, ch).is_some() {}
                prop_assert_eq!(world.signals.get(&(agent, ch)).copied().unwrap_or(0), 0);
            }
        }
        world.finish();
    }
}
