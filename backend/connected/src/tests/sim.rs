//! Two endpoints and a bad network under virtual time.

use super::node::Node;
use super::workload::{CONSTANT, Rng, constant, pattern, program};
use crate::*;
use masq_spec::queue::SendOpcode;
use masq_spec::verbs::QpType;
use masq_transport::{Nanos, Need};
use masq_wire::{Headers, Mtu};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// What a seed stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) seed: u64,
    pub(super) qp_type: QpType,
    pub(super) mtu: Mtu,
    /// Per thousand.
    pub(super) loss: u64,
    pub(super) duplication: u64,
    pub(super) reordering: u64,
    pub(super) marks: u64,
    pub(super) delay: Nanos,
    pub(super) requests: u64,
    pub(super) max_rd_atomic: u8,
    pub(super) depth: usize,
    pub(super) window: u32,
    pub(super) timeout: u8,
    pub(super) retry_cnt: u8,
    pub(super) rnr_retry: u8,
    pub(super) psn: u32,
    /// Receives come late.
    pub(super) late: bool,
    pub(super) credits: bool,
    pub(super) deferred_atomics: bool,
    pub(super) faulty: [bool; 2],
    /// Then the network goes dead.
    pub(super) dead_at: Option<Nanos>,
}

impl Setup {
    pub(super) fn random(seed: u64) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0xd134_2543_de82_ef95));
        let r = &mut rng;
        let faults = r.permille(250);
        Self {
            seed,
            qp_type: QpType::Rc,
            mtu: r.pick(&Mtu::ALL),
            loss: r.pick(&[0, 0, 1, 10, 50, 100]),
            duplication: r.pick(&[0, 0, 20, 100]),
            reordering: r.pick(&[0, 0, 10, 100]),
            marks: r.pick(&[0, 0, 0, 50]),
            delay: r.pick(&[2_000, 20_000, 300_000]),
            requests: 1 + r.below(40),
            max_rd_atomic: r.pick(&[1, 2, 4, 16]),
            depth: r.pick(&[1, 4, 16, 64]),
            window: r.pick(&[4, 16, 64, 512]),
            // Without a timeout nobody notices a peer that ended.
            timeout: r.pick(&[14, 14, 16, if faults { 14 } else { 0 }]),
            retry_cnt: 7,
            rnr_retry: 7,
            // Near the wrap, as often as not.
            psn: (r.below(200) as u32).wrapping_sub(100),
            late: r.permille(300),
            credits: r.permille(300),
            deferred_atomics: r.permille(200),
            faulty: [faults && r.permille(500), faults && r.permille(500)],
            dead_at: None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) headers: Headers,
    pub(super) payload: Vec<u8>,
    pub(super) marked: bool,
}

#[derive(Debug)]
enum Event {
    Arrive(usize, Wire),
    Timer(usize),
    Pump(usize),
    Receives(usize, u64),
}

pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) nodes: [Node; 2],
    rng: Rng,
    pub(super) now: Nanos,
    events: BinaryHeap<Reverse<(Nanos, u64)>>,
    bodies: HashMap<u64, Event>,
    serial: u64,
}

impl World {
    pub(super) fn new(setup: Setup) -> Self {
        let mut rng = Rng(setup.seed);
        let make =
            |rng: &mut Rng, n: usize| program(rng, setup.mtu, setup.requests, setup.faulty[n]);
        let (mut programs, mut rams) = (Vec::new(), Vec::new());
        for n in 0..2 {
            let (mut steps, ram) = make(&mut rng, n);
            if setup.qp_type == QpType::Uc {
                steps.retain(|step| {
                    masq_transport::opcode_allowed(QpType::Uc, step.request.opcode)
                        && step.request.opcode != SendOpcode::SendWithInv
                });
                for (id, step) in steps.iter_mut().enumerate() {
                    step.request.id = id as u64;
                }
            }
            programs.push(steps);
            rams.push(ram);
        }
        let nodes = [0, 1].map(|n| Node::new(&setup, &programs[n], &programs[1 - n], rams[1 - n]));
        let mut world = Self {
            setup,
            nodes,
            rng,
            now: 0,
            events: BinaryHeap::new(),
            bodies: HashMap::new(),
            serial: 0,
        };
        for n in 0..2 {
            world.at(1, Event::Pump(n));
            let mut at = 0;
            for _ in 0..=setup.requests / 4 {
                if setup.late {
                    at += world.rng.below(3_000_000);
                }
                world.at(at, Event::Receives(n, 4));
            }
        }
        world
    }

    fn at(&mut self, at: Nanos, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((at, self.serial)));
        self.bodies.insert(self.serial, event);
    }

    /// Runs until nothing happens any more.
    pub(super) fn run(&mut self) {
        let mut steps = 0u64;
        while let Some(Reverse((at, serial))) = self.events.pop() {
            steps += 1;
            assert!(steps < 3_000_000, "it does not come to rest");
            assert!(at >= self.now);
            self.now = at;
            let event = self.bodies.remove(&serial).unwrap();
            let n = match event {
                Event::Arrive(n, wire) => {
                    self.nodes[n].arrive(&wire, self.now);
                    // Batches: what arrived is answered later.
                    if self.rng.permille(300) {
                        self.at(self.now + 5_000, Event::Pump(n));
                        continue;
                    }
                    n
                }
                Event::Timer(n) => {
                    if self.nodes[n].timer == Some(self.now) {
                        self.nodes[n].timer = None;
                    }
                    self.nodes[n].requester.expire(self.now);
                    n
                }
                Event::Receives(n, count) => {
                    self.nodes[n].store.receives += count;
                    n
                }
                Event::Pump(n) => n,
            };
            self.pump(n);
        }
    }

    fn pump(&mut self, n: usize) {
        loop {
            let busy = self.nodes[n].work(self.now);
            let Some(transmit) = self.nodes[n].poll(self.now) else {
                if busy {
                    continue;
                }
                break;
            };
            self.transmit(n, transmit);
        }
        let node = &mut self.nodes[n];
        if let Some(at) = node.requester.deadline() {
            let at = at.max(self.now);
            if node.timer.is_none_or(|timer| at < timer) {
                node.timer = Some(at);
                self.at(at, Event::Timer(n));
            }
        }
    }

    fn transmit(&mut self, n: usize, transmit: Transmit) {
        let node = &mut self.nodes[n];
        node.sent += 1;
        let payload = match transmit.payload {
            Payload::None => Vec::new(),
            Payload::Request { id, offset, len } => (0..u64::from(len))
                .map(|i| pattern(id, u64::from(offset) + i))
                .collect(),
            Payload::Memory { key, addr, len } => {
                node.store.check(Need::RemoteRead, key, addr, len).unwrap();
                (addr..addr + u64::from(len))
                    .map(|addr| match addr {
                        CONSTANT.. => constant(addr),
                        _ => node.store.ram[addr as usize],
                    })
                    .collect()
            }
        };
        // The formats agree that these headers and this payload are a packet.
        transmit.headers.emit(payload.len()).unwrap();
        let dead = self.setup.dead_at.is_some_and(|at| self.now >= at);
        let setup = self.setup;
        let copies = 1 + u64::from(self.rng.permille(setup.duplication));
        for _ in 0..copies {
            // Corruption is found by the ICRC, so it is loss.
            if dead || self.rng.permille(setup.loss) {
                continue;
            }
            let mut at = self.now + setup.delay;
            if self.rng.permille(setup.reordering) {
                at += self.rng.below(3 * setup.delay);
            }
            let wire = Wire {
                headers: transmit.headers,
                payload: payload.clone(),
                marked: self.rng.permille(setup.marks),
            };
            self.at(at, Event::Arrive(1 - n, wire));
        }
    }
}
