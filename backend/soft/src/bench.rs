//! What the benchmarks drive: an engine without its thread, and two drivers.

use crate::harness::{ALL, Mr, QpOptions, RC, TestQp, UD, World, Wr};
use masq_device::{Destination, EndpointKey};
use masq_spec::queue::{SendOpcode, Sge};
use std::ptr::NonNull;

/// Requests posted before the engine gets its turns.
pub const BATCH: u32 = 32;

/// Two connected queue pairs with memory.
pub struct Bench {
    world: World,
    a: TestQp,
    b: TestQp,
    src: Mr,
    dst: Mr,
    wr: Wr,
    receive: Option<Sge>,
}

impl Bench {
    /// Requests of `len` bytes: SEND (into a receive), RDMA_WRITE or RDMA_READ.
    pub fn new(opcode: SendOpcode, len: u32) -> Self {
        let mut world = World::pair_of_processes();
        let (a, b) = world.connected(QpOptions::of(RC));
        let src = world.register(0, 1, u64::from(len), ALL);
        let dst = world.register(1, 1, u64::from(len), ALL);
        let wr = Wr::new(opcode, 1).sge(src.all());
        let wr = match opcode {
            SendOpcode::Send => wr,
            _ => wr.remote(dst.addr, dst.key),
        };
        Self {
            world,
            a,
            b,
            src,
            dst,
            wr,
            receive: (opcode == SendOpcode::Send).then(|| dst.all()),
        }
    }

    /// Datagrams of `len` bytes.
    pub fn datagrams(len: u32) -> Self {
        let mut world = World::pair_of_processes();
        let (a, b) = world.connected(QpOptions::of(UD));
        let src = world.register(0, 1, u64::from(len), ALL);
        let dst = world.register(1, 1, u64::from(len) + 40, ALL);
        let ah = world.ah(0, 1, Destination::Endpoint(EndpointKey(2)));
        let wr = Wr::new(SendOpcode::Send, 1).sge(src.all());
        Self {
            world,
            wr: wr.addressed(ah, b.qpn, 0x1111),
            a,
            b,
            src,
            dst,
            receive: Some(dst.all()),
        }
    }

    /// Has the engine carry out `count` requests, at most [`BATCH`], and takes
    /// their completions. Posting is done by [`Self::post`].
    pub fn run(&mut self, count: u32) {
        let mut left = count;
        while left > 0 {
            self.world.turn();
            while self.a.cq.poll().is_some() {
                left -= 1;
            }
            while self.b.rcq.poll().is_some() {}
        }
    }

    /// Posts `count` requests, and receives for them.
    pub fn post(&mut self, count: u32) {
        for _ in 0..count {
            if let Some(sge) = self.receive {
                self.world.recv(&mut self.b, 1, &[sge]);
            }
            self.world.post_quietly(&mut self.a, &self.wr);
        }
        self.world.ring_doorbell(&self.a);
    }

    /// The mappings of both sides, for a plain copy to compare with.
    pub fn memory(&self) -> (NonNull<u8>, NonNull<u8>) {
        let at = |proc, mr: &Mr| self.world.pointer(proc, mr.addr, mr.len as usize);
        (at(0, &self.src), at(1, &self.dst))
    }
}
