//! The data path allocates nothing, rings for no receive that nobody lacks, and waits for
//! no peer for ever.

use super::*;
use crate::card::Link;
use crate::host::tests::FakeCard;
use allocation_counter::measure;
use masq_device::{CqSpec, DomainKey, EndpointKey, EventSink, Grants, QpSpec, SessionSpec};
use masq_memory::{DoorbellPage, MappedRing, SharedFile};
use masq_spec::device::Features;
use masq_spec::queue::{
    ARM_ANY, Cqe, HDR_CQ_CONSUMER, HDR_RECEIVE_BELL, RecvWqe, SendFlags, SendOpcode, SendWqe, Sge,
    WcOpcode, WcStatus, ring_len,
};
use masq_spec::verbs::{QpAttr, QpCaps, QpMask, QpType, Ring, State};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::sync::atomic::{AtomicU32, Ordering};
use zerocopy::{FromZeros, IntoBytes};

const SLOTS: u32 = 256;
const STRIDE: u32 = 128;
const CQ: u32 = 1;
const QP: u32 = 2;
/// Messages in a round: several batches, and several polls.
const MESSAGES: u32 = 100;
/// What each request names.
const SGE: Sge = Sge {
    addr: 0x1000,
    length: 8,
    lkey: 1,
};

#[derive(Default)]
struct Events(AtomicU32);

impl EventSink for Events {
    fn completion(&self, _: u32, _: Handle) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn asynchronous(&self, event: AsyncEvent, _: u32) {
        panic!("{event:?}");
    }
}

fn ring(stride: u32) -> MappedRing {
    let fd = memfd_create("ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, ring_len(SLOTS, stride).next_multiple_of(4096)).unwrap();
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&fd, seals).unwrap();
    let (addr, slots) = (0, SLOTS);
    let ring = Ring {
        addr,
        slots,
        stride,
    };
    MappedRing::map(&SharedFile::check(fd).unwrap(), ring).unwrap()
}

fn counter() -> Arc<OwnedFd> {
    Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap())
}

/// A program with one connected queue pair on a card.
struct Program {
    relay: Relay,
    doorbell: Arc<DoorbellPage>,
    events: Arc<Events>,
    sq: MappedRing,
    rq: MappedRing,
    cq: MappedRing,
    /// Messages, and receives, so far.
    sent: u32,
    received: u32,
    /// Completions that it has polled.
    polled: u32,
}

impl Program {
    fn new(is_frugal: bool) -> Self {
        Self::over(Link::Ethernet, is_frugal)
    }

    fn over(link: Link, is_frugal: bool) -> Self {
        let fake = FakeCard::new();
        let card = Card {
            name: "fake0".into(),
            port: 1,
            link,
            gid: [0; 16],
            gid_index: 0,
            mtu: 3,
            most_retries: 7,
            attributes: FromZeros::new_zeroed(),
            features: Features::empty(),
            has_iova: true,
            node: None,
            node_guid: 0,
        };
        let host = Host {
            context: Arc::clone(&fake.context),
            channel: Arc::clone(&fake.channel),
            removal: None,
            gone: counter(),
        };
        let waiting = Arc::new(crate::network::Waiting::new().unwrap());
        let mut relay = Relay::new(Arc::new(card), host, waiting).frugal(is_frugal);
        relay.clock.set(0);
        let (doorbell, events) = (Arc::new(DoorbellPage::new().unwrap()), Arc::default());
        let session = SessionSpec {
            label: "blue/a#1".into(),
            domain: DomainKey(1),
            partition: None,
            endpoint: EndpointKey(1),
            gid: [0; 16],
            grants: Grants::ALL,
            doorbell: Arc::clone(&doorbell),
            kick: counter(),
            events: Arc::clone(&events) as Arc<dyn EventSink>,
            remote: None,
        };
        let s = relay.open(session).unwrap();
        let (sq, rq, cq) = (ring(STRIDE), ring(64), ring(64));
        let queue = CqSpec {
            handle: CQ,
            ring: cq.clone(),
            cqe: SLOTS,
            event_queue: Some(2),
            timestamps: false,
            ignore_overrun: false,
        };
        relay
            .insert_cq(s, queue, Arc::clone(&fake.cq), Ticket::unused())
            .unwrap();
        let pair = QpSpec {
            handle: QP,
            pd: 1,
            qp_type: QpType::Rc,
            send_cq: CQ,
            recv_cq: CQ,
            srq: None,
            sq_sig_all: false,
            caps: QpCaps {
                max_send_wr: SLOTS,
                max_recv_wr: SLOTS,
                max_send_sge: 2,
                max_recv_sge: 1,
                ..QpCaps::default()
            },
            sq: sq.clone(),
            rq: Some(rq.clone()),
        };
        let new = NewQp {
            host: Arc::clone(&fake.qp),
            headers: None,
            ticket: Ticket::unused(),
        };
        relay.insert_qp(s, pair, new).unwrap();
        for state in [State::Init, State::Rtr, State::Rts] {
            let attr = QpAttr::default();
            relay.modified(s, QP, QpMask::STATE, &attr, state).unwrap();
        }
        Self {
            relay,
            doorbell,
            events,
            sq,
            rq,
            cq,
            sent: 0,
            received: 0,
            polled: 0,
        }
    }

    /// The relay's thread has this time.
    fn at(&mut self, now: Nanos) {
        self.relay.clock.set(now);
        // The card only pretends to have descriptors.
        self.relay.looked_at_channel = now;
        self.relay.looked_for_events = now;
    }

    /// Posts receives; whether it rang for them.
    fn receive(&mut self, count: u32) -> bool {
        for index in self.received..self.received + count {
            let receive = RecvWqe {
                stamp: 0,
                num_sge: 1,
                wr_id: u64::from(index),
            };
            let mut slot = [0; 32];
            slot[..16].copy_from_slice(receive.as_bytes());
            slot[16..].copy_from_slice(SGE.as_bytes());
            self.rq.publish(index, &slot);
        }
        self.received += count;
        let rings = self.rings_for_receives();
        if rings {
            self.doorbell.ring(0);
        }
        rings
    }

    /// Whether the relay wants to be told of receives.
    fn rings_for_receives(&self) -> bool {
        self.rq.load_header(HDR_RECEIVE_BELL) != 0
    }

    /// Posts messages to itself, every second signalled.
    fn send(&mut self, count: u32) {
        for index in self.sent..self.sent + count {
            let signalled = match index % 2 {
                0 => SendFlags::empty(),
                _ => SendFlags::SIGNALED,
            };
            let send = SendWqe {
                opcode: SendOpcode::Send as u8,
                flags: signalled.bits(),
                num_sge: 1,
                wr_id: u64::from(index),
                ..SendWqe::default()
            };
            let mut slot = [0; 80];
            slot[..64].copy_from_slice(send.as_bytes());
            slot[64..].copy_from_slice(SGE.as_bytes());
            self.sq.publish(index, &slot);
        }
        self.sent += count;
        self.doorbell.ring(0);
    }

    /// Takes completions, which must be of successes; how many there were.
    fn poll(&mut self) -> u32 {
        let first = self.polled;
        while let Some(cqe) = self.next_completion() {
            assert_eq!(cqe.status, WcStatus::Success as u8);
        }
        // Polled, and armed anew: an arm word is another one each time.
        self.cq
            .begin_cq(0, self.polled, (self.polled << 2) | ARM_ANY);
        assert_eq!(self.cq.load_header(HDR_CQ_CONSUMER), self.polled);
        self.polled - first
    }

    fn next_completion(&mut self) -> Option<Cqe> {
        if !self.cq.is_published(self.polled) {
            return None;
        }
        let mut cqe = Cqe::default();
        self.cq.read(self.polled, 0, cqe.as_mut_bytes());
        self.polled += 1;
        Some(cqe)
    }

    /// Takes completions: whether of a receive, whose, and how it ended.
    fn results(&mut self) -> Vec<(bool, u64, u8)> {
        let is_receive = |cqe: &Cqe| cqe.opcode == WcOpcode::Recv as u8;
        std::iter::from_fn(|| self.next_completion())
            .map(|cqe| (is_receive(&cqe), cqe.wr_id, cqe.status))
            .collect()
    }
}

/// Until nothing is left to do.
fn turns(program: &mut Program) {
    for _ in 0..20 {
        program.relay.turn();
    }
}

#[test]
fn requests_and_completions_pass_without_an_allocation() {
    let mut program = Program::new(false);
    let mut counts = Vec::new();
    for _ in 0..50 {
        assert!(program.receive(MESSAGES));
        program.send(MESSAGES);
        counts.push(measure(|| turns(&mut program)).count_total);
        assert_eq!(program.poll(), MESSAGES + MESSAGES / 2);
    }
    assert!(program.events.0.load(Ordering::Relaxed) >= 49);
    assert_eq!(counts[5..].iter().sum::<u64>(), 0, "{counts:?}");
}

/// The card of the test refuses a message that finds no receive.
#[test]
fn a_frugal_relay_asks_for_rings_only_while_the_card_is_short_of_receives() {
    let mut program = Program::new(true);
    assert!(program.receive(100));
    turns(&mut program);
    assert!(program.receive(100), "less than half");
    turns(&mut program);
    assert!(!program.receive(20), "the card has 200 of 256");
    program.send(30);
    turns(&mut program);
    assert_eq!(program.poll(), 30 + 15);
    assert!(
        !program.receive(30),
        "the card has 190, those without a ring included"
    );
    for _ in 0..2 {
        program.send(110);
        turns(&mut program);
        assert_eq!(program.poll(), 110 + 55);
    }
    assert!(program.rings_for_receives(), "the card has none");

    assert!(program.receive(200));
    turns(&mut program);
    assert!(!program.rings_for_receives());
    program.relay.failed(0, "for the test");
    assert!(program.rings_for_receives(), "each is flushed at once");
}

/// The kernel connects an RNIC's queue pair when the peer is ready.
#[test]
fn requests_wait_for_a_peer_for_half_a_minute_and_fail() {
    let mut program = Program::over(Link::Iwarp, false);
    assert!(program.receive(2));
    program.at(1);
    turns(&mut program);
    assert_eq!(program.relay.next_wake(), None, "nothing waits yet");
    program.send(3);
    turns(&mut program);
    assert_eq!(program.relay.next_wake(), Some(1 + PEER_PATIENCE));
    program.at(PEER_PATIENCE);
    turns(&mut program);
    assert_eq!(program.results(), []);

    program.at(1 + PEER_PATIENCE);
    turns(&mut program);
    let (unanswered, flushed) = (WcStatus::RetryExcErr as u8, WcStatus::WrFlushErr as u8);
    let requests = [
        (false, 0, unanswered),
        (false, 1, flushed),
        (false, 2, flushed),
    ];
    assert_eq!(program.results(), requests);
    let cause = program.relay.qps[0].cause.unwrap();
    assert_eq!(cause, "the peer's queue pair was not connected in time");

    // This card keeps its receives.
    program.at(1 + PEER_PATIENCE + PATIENCE);
    turns(&mut program);
    assert_eq!(program.results(), [(true, 0, flushed), (true, 1, flushed)]);
    program.send(1);
    turns(&mut program);
    assert_eq!(program.results(), [(false, 3, flushed)]);
    assert_eq!(program.relay.next_wake(), None);
}
