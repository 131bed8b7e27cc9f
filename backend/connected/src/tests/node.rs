//! One endpoint of the simulation: it checks all that it sees.

use super::sim::{Setup, Wire};
use super::workload::{BAD, CONSTANT, COUNTERS, Expect, GOOD, Step, constant, pattern, room};
use crate::*;
use masq_spec::queue::{SendOpcode, WcStatus};
use masq_spec::verbs::Access;
use masq_transport::{AtomicOp, Kind, Nanos, Need, ResponderFault, rules};
use masq_wire::{Operation, Psn, Qpn, RKey};
use std::collections::{HashMap, VecDeque};

/// One endpoint, its memory and its program.
pub(super) struct Node {
    pub(super) requester: Requester,
    pub(super) responder: Responder,
    pub(super) program: Vec<Step>,
    pub(super) posted: usize,
    pub(super) completions: Vec<Completion>,
    /// Bytes of READs that landed so far.
    landed: HashMap<u64, u64>,
    fetched: HashMap<u64, u64>,
    pub(super) store: Store,
    /// What the peer will deliver.
    inbox: VecDeque<Step>,
    pub(super) delivered: u64,
    pub(super) failed: bool,
    pub(super) failed_at: Nanos,
    pub(super) sent: u64,
    pub(super) timer: Option<Nanos>,
    capacity: (usize, usize),
}

/// What a responder reaches.
pub(super) struct Store {
    pub(super) ram: Vec<u8>,
    /// How often each byte was placed.
    placed: Vec<u8>,
    counters: [u64; 4],
    pub(super) atomics: u64,
    pub(super) receives: u64,
    taken: bool,
    room: u64,
    buffer: Vec<u8>,
    credits: bool,
    deferred: Option<VecDeque<u64>>,
    payload: Vec<u8>,
}

impl Memory for Store {
    fn take_receive(&mut self) -> Option<u64> {
        assert!(!self.taken, "a receive is held already");
        self.receives = self.receives.checked_sub(1)?;
        self.taken = true;
        Some(self.room)
    }

    fn place_receive(&mut self, offset: u64, len: u32) -> Result<(), ResponderFault> {
        assert!(self.taken);
        assert_eq!(len as usize, self.payload.len());
        let end = offset as usize + self.payload.len();
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        self.buffer[offset as usize..end].copy_from_slice(&self.payload);
        Ok(())
    }

    fn check(&mut self, need: Need, key: RKey, addr: u64, len: u32) -> Result<(), ResponderFault> {
        let end = addr
            .checked_add(u64::from(len))
            .ok_or(ResponderFault::Access)?;
        let inside = match need {
            Need::RemoteWrite => end <= self.ram.len() as u64,
            Need::RemoteRead => addr >= CONSTANT || end <= self.ram.len() as u64,
            _ => addr >= COUNTERS && end <= COUNTERS + 32,
        };
        if key == GOOD && inside {
            Ok(())
        } else {
            Err(ResponderFault::Access)
        }
    }

    fn place(&mut self, key: RKey, addr: u64, len: u32) -> Result<(), ResponderFault> {
        self.check(Need::RemoteWrite, key, addr, len)?;
        assert_eq!(len as usize, self.payload.len());
        for (n, byte) in self.payload.iter().enumerate() {
            self.ram[addr as usize + n] = *byte;
            self.placed[addr as usize + n] += 1;
        }
        Ok(())
    }

    fn atomic(&mut self, _: RKey, addr: u64, op: AtomicOp) -> Result<Option<u64>, ResponderFault> {
        let counter = &mut self.counters[((addr - COUNTERS) / 8) as usize];
        let original = std::mem::replace(counter, op.apply(*counter));
        self.atomics += 1;
        if let Some(deferred) = &mut self.deferred {
            deferred.push_back(original);
            return Ok(None);
        }
        Ok(Some(original))
    }

    fn invalidate(&mut self, key: RKey) -> Result<(), ResponderFault> {
        if key == BAD {
            Err(ResponderFault::Access)
        } else {
            Ok(())
        }
    }

    fn credits(&self) -> Option<u32> {
        self.credits.then_some(self.receives as u32)
    }
}

/// Where a requester's answers go.
struct Landed<'a> {
    pub(super) program: &'a [Step],
    landed: &'a mut HashMap<u64, u64>,
    fetched: &'a mut HashMap<u64, u64>,
    payload: &'a [u8],
}

impl Landing for Landed<'_> {
    fn place(&mut self, id: u64, offset: u32, len: u32) -> Result<(), WcStatus> {
        assert_eq!(len as usize, self.payload.len());
        let step = &self.program[id as usize];
        let so_far = self.landed.entry(id).or_default();
        assert_eq!(*so_far, u64::from(offset), "READ data in order, once");
        *so_far += u64::from(len);
        for (n, byte) in self.payload.iter().enumerate() {
            let offset = u64::from(offset) + n as u64;
            let expected = match step.expect {
                Expect::Wrote(from) => pattern(from, offset),
                _ => constant(step.request.remote_addr + offset),
            };
            assert_eq!(*byte, expected, "READ {id} at {offset}");
        }
        Ok(())
    }

    fn place_atomic(&mut self, id: u64, original: u64) -> Result<(), WcStatus> {
        assert_eq!(self.fetched.insert(id, original), None, "answered once");
        Ok(())
    }
}

impl Node {
    pub(super) fn new(setup: &Setup, own: &[Step], peers: &[Step], ram: u64) -> Self {
        let psn = Psn::new(setup.psn);
        let requester = Requester::new(RequesterConfig {
            qp_type: setup.qp_type,
            dest_qpn: Qpn::new(7),
            psn,
            mtu: setup.mtu,
            max_rd_atomic: setup.max_rd_atomic,
            timeout: setup.timeout,
            retry_cnt: setup.retry_cnt,
            rnr_retry: setup.rnr_retry,
            depth: setup.depth,
            window: (setup.window.min(32), setup.window),
        });
        let responder = Responder::new(ResponderConfig {
            qp_type: setup.qp_type,
            dest_qpn: Qpn::new(7),
            psn,
            mtu: setup.mtu,
            max_dest_rd_atomic: setup.max_rd_atomic,
            min_rnr_timer: 12,
            access: Access::REMOTE_READ | Access::REMOTE_WRITE | Access::REMOTE_ATOMIC,
        });
        let delivers = |step: &&Step| {
            use SendOpcode::*;
            !matches!(
                step.request.opcode,
                RdmaRead | CompareSwap | FetchAdd | LocalInv
            )
        };
        Self {
            capacity: (requester.capacity(), responder.capacity()),
            requester,
            responder,
            program: own.to_vec(),
            posted: 0,
            completions: Vec::new(),
            landed: HashMap::new(),
            fetched: HashMap::new(),
            store: Store {
                ram: vec![0; ram as usize],
                placed: vec![0; ram as usize],
                counters: [0; 4],
                atomics: 0,
                receives: 0,
                taken: false,
                room: room(setup.mtu),
                buffer: Vec::new(),
                credits: setup.credits,
                deferred: setup.deferred_atomics.then(VecDeque::new),
                payload: Vec::new(),
            },
            inbox: peers.iter().filter(delivers).copied().collect(),
            delivered: 0,
            failed: false,
            failed_at: 0,
            sent: 0,
            timer: None,
        }
    }

    pub(super) fn arrive(&mut self, wire: &Wire, now: Nanos) {
        let operation = wire.headers.bth.opcode.traits().operation;
        if wire.marked && operation != Operation::Congestion {
            self.responder.congestion(now);
        }
        if operation == Operation::Congestion {
            return self.requester.congestion();
        }
        if !wire.headers.bth.opcode.is_request() {
            let mut landed = Landed {
                program: &self.program,
                landed: &mut self.landed,
                fetched: &mut self.fetched,
                payload: &wire.payload,
            };
            self.requester
                .handle(&wire.headers, wire.payload.len(), now, &mut landed);
            return;
        }
        self.store.payload.clear();
        self.store.payload.extend_from_slice(&wire.payload);
        let arrival = self
            .responder
            .handle(&wire.headers, wire.payload.len(), &mut self.store);
        if let Some(failure) = arrival.failure {
            if failure.receive.is_some() {
                self.store.taken = false;
            }
            if failure.outcome.to_error {
                assert!(
                    self.inbox
                        .iter()
                        .any(|s| matches!(s.expect, Expect::Fails(_)))
                        || self.store.check(Need::RemoteRead, BAD, 0, 0).is_err()
                );
            }
        }
        if let Some(delivery) = arrival.delivery {
            self.deliver(delivery);
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        loop {
            let step = self.inbox.pop_front().expect("nothing more was sent");
            let r = &step.request;
            let (write, receive) = (
                matches!(
                    r.opcode,
                    SendOpcode::RdmaWrite | SendOpcode::RdmaWriteWithImm
                ),
                r.opcode != SendOpcode::RdmaWrite,
            );
            let is_it = delivery.write == write
                && delivery.receive == receive
                && delivery.length == r.length
                && delivery.imm == rules(r.opcode).immediate.then_some(r.imm)
                && delivery.invalidated.is_some() == rules(r.opcode).invalidate
                && delivery.solicited == (r.solicited && receive);
            // UC may have lost what was sent before it, though it looked alike.
            if self.requester.is_rc() {
                assert!(is_it, "{delivery:?} is not {r:?}");
                assert!(self.holds(r), "the bytes of {r:?}");
                break;
            }
            if is_it && self.holds(r) {
                break;
            }
        }
        if delivery.receive {
            assert!(std::mem::take(&mut self.store.taken));
        }
        self.delivered += 1;
    }

    /// Whether the payload of a request is where it belongs.
    fn holds(&self, r: &Request) -> bool {
        let (from, at) = match rules(r.opcode).kind {
            Kind::Write => (&self.store.ram, r.remote_addr as usize),
            _ => (&self.store.buffer, 0),
        };
        let bytes = from.get(at..at + r.length as usize);
        bytes.is_some_and(|bytes| {
            let mut bytes = bytes.iter().enumerate();
            bytes.all(|(n, byte)| *byte == pattern(r.id, n as u64))
        })
    }

    /// Does what needs no packet; true if anything was done.
    pub(super) fn work(&mut self, now: Nanos) -> bool {
        let mut busy = false;
        while let Some(completion) = self.requester.poll_completion() {
            self.completions.push(completion);
            busy = true;
        }
        if self.requester.poll_local().is_some() {
            self.requester.local_done(Ok(()));
            busy = true;
        }
        while let Some(step) = self.program.get(self.posted) {
            if self.requester.post(step.request).is_err() {
                break;
            }
            self.posted += 1;
            busy = true;
        }
        if let Some(original) = self.store.deferred.as_mut().and_then(VecDeque::pop_front) {
            assert!(self.responder.atomic_done(Ok(original)).is_none());
            busy = true;
        }
        if !self.failed && (self.requester.has_failed() || self.responder.has_failed()) {
            self.failed = true;
            self.failed_at = now;
            self.requester.flush();
            if self.responder.flush() {
                self.store.taken = false;
            }
            busy = true;
        }
        assert_eq!(
            self.capacity,
            (self.requester.capacity(), self.responder.capacity()),
            "nothing is allocated"
        );
        busy
    }

    pub(super) fn poll(&mut self, now: Nanos) -> Option<Transmit> {
        self.responder
            .poll_packet()
            .or_else(|| self.requester.poll_packet(now))
    }

    pub(super) fn count(&self, status: WcStatus) -> usize {
        self.completions
            .iter()
            .filter(|c| c.status == status)
            .count()
    }

    /// What holds whatever happened.
    pub(super) fn check(&self, peer: &Node) {
        assert_eq!(self.completions.len(), self.program.len(), "each completes");
        assert_eq!(self.requester.deadline(), None, "no timer runs");
        let mut failed = false;
        let mut atomics = 0;
        for (n, completion) in self.completions.iter().enumerate() {
            assert_eq!(completion.id, n as u64, "in order");
            let step = &self.program[n];
            match completion.status {
                WcStatus::Success => {
                    assert!(!failed, "none succeeds after a failure");
                    if let Expect::Finds(value) = step.expect {
                        assert_eq!(self.fetched.get(&completion.id), Some(&value));
                        atomics += 1;
                    }
                    if step.request.opcode == SendOpcode::RdmaRead {
                        let landed = self.landed.get(&completion.id).copied().unwrap_or(0);
                        assert_eq!(landed, u64::from(step.request.length));
                    }
                    assert!(!matches!(step.expect, Expect::Fails(_)));
                }
                WcStatus::WrFlushErr => failed = true,
                status => {
                    assert!(!failed, "only the first fails, not {completion:?}");
                    failed = true;
                    let expected = match step.expect {
                        Expect::Fails(expected) => status == expected,
                        _ => false,
                    };
                    let gone = matches!(status, WcStatus::RetryExcErr | WcStatus::RnrRetryExcErr);
                    assert!(expected || gone, "{status:?} for {step:?}");
                }
            }
        }
        assert!(peer.store.atomics >= atomics);
        if !failed {
            assert_eq!(peer.store.atomics, atomics, "atomics are carried out once");
        }
        assert!(
            peer.store.placed.iter().all(|times| *times <= 1),
            "placed once"
        );
    }

    /// What else holds if the last request is wrong and nothing was lost.
    pub(super) fn check_fault(&self) {
        let expected = self.program.iter().map(|step| match step.expect {
            Expect::Fails(status) => status,
            _ => WcStatus::Success,
        });
        let got = self.completions.iter().map(|c| c.status);
        assert!(got.eq(expected), "{:?}", self.completions.last());
    }

    /// What else holds on a connection without a fault.
    pub(super) fn check_success(&self, peer: &Node) {
        assert_eq!(self.count(WcStatus::Success), self.program.len());
        assert!(self.inbox.is_empty(), "everything was delivered");
        assert!(peer.store.placed.iter().all(|times| *times == 1));
        assert!(!self.store.taken);
    }
}
