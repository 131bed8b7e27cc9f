//! Sessions: who may open one, what joins it, and whose its objects are.

use masq_hostile::{Client, Masqd, Raw, cq_request, eventually, ring_at, words};
use masq_spec::command::{Opcode, Status};
use masq_spec::queue::{CQE_LEN, ring_len};
use masq_spec::verbs::{CreateSrq, Created, ModifySrq, SegmentKind, SrqMask};
use std::sync::atomic::Ordering;
use zerocopy::{FromBytes as _, IntoBytes as _};

fn policy(quotas: &str) -> String {
    format!(
        "
version: 1
tenants:
  red:
    endpoints:
      a: {{ address: 10.0.0.1, quotas: {{ {quotas} }} }}
      b: {{ address: 10.0.0.3 }}
  green:
    endpoints:
      bystander: {{ address: 10.0.0.9 }}
"
    )
}

fn joined(masqd: &Masqd, to: &Client, base: u32) -> (Client, Status) {
    let mut client = Client::negotiate(&masqd.socket("red/a"));
    client.start_control();
    let status = client.say_join(to.hello.session, to.hello.secret, base).0;
    (client, status)
}

#[test]
fn hello_is_said_once() {
    let masqd = Masqd::start();
    let mut client = masqd.open("red/a");
    assert_eq!(client.say_hello().0, Status::Invalid);
    let (session, secret) = (client.hello.session, client.hello.secret);
    assert_eq!(client.say_join(session, secret, 256).0, Status::Invalid);
    assert!(client.works());
    assert_eq!(masqd.overview().sessions.len(), 1);
}

#[test]
fn joining_needs_the_secret_and_the_same_endpoint() {
    let masqd = Masqd::start();
    let owner = masqd.open("red/a");
    let (session, mut wrong) = (owner.hello.session, owner.hello.secret);
    wrong[15] ^= 1;
    let try_join = |endpoint: &str, session, secret, base| {
        let mut client = Client::negotiate(&masqd.socket(endpoint));
        client.start_control();
        client.say_join(session, secret, base).0
    };
    assert_eq!(try_join("red/a", session, wrong, 256), Status::Denied);
    assert_eq!(try_join("red/a", session, [0; 16], 256), Status::Denied);
    let secret = owner.hello.secret;
    assert_eq!(try_join("red/a", session + 1, secret, 256), Status::Denied);
    assert_eq!(try_join("red/b", session, secret, 256), Status::Denied);
    assert_eq!(try_join("blue/a", session, secret, 256), Status::Denied);
    for base in [0, 1, 255, 257] {
        assert_eq!(try_join("red/a", session, secret, base), Status::Invalid);
    }
    assert!(
        masqd.refusals("red/a", "join") >= 3,
        "the operator hears of it"
    );
}

#[test]
fn a_joined_connection_is_no_way_around_the_quota_of_sessions() {
    let masqd = Masqd::with_policy(&policy("sessions: 2, event_queues: 8"));
    let owner = masqd.open("red/a");
    let (mut client, status) = joined(&masqd, &owner, 256);
    assert_eq!(status, Status::Ok);
    // Each of these once gave a session back that had not been taken.
    for _ in 0..5 {
        let (session, secret) = (owner.hello.session, owner.hello.secret);
        assert_eq!(client.say_join(session, secret, 512).0, Status::Invalid);
        assert_eq!(client.say_hello().0, Status::Invalid);
    }
    let (_other, status) = joined(&masqd, &owner, 512);
    assert_eq!(status, Status::NoMemory, "one holds all the event queues");
    drop(_other);
    assert!(eventually(|| {
        let report = masqd.overview();
        let red = report.endpoints.iter().find(|e| e.endpoint == "red/a");
        red.is_some_and(|e| e.quotas["sessions"].used == 1)
    }));
    drop(client);
    drop(owner);
    assert!(eventually(|| {
        let report = masqd.overview();
        let quotas = report.endpoints.iter().flat_map(|e| e.quotas.values());
        quotas.fold(0, |sum, quota| sum + quota.used) == 0
    }));
}

#[test]
fn a_joined_connection_comes_and_goes_without_touching_the_sessions_queue() {
    let masqd = Masqd::start();
    let mut owner = masqd.open("red/a");
    assert!(eventually(|| read_counter(&owner.call) > 0), "HELLO's call");
    let (guest, status) = joined(&masqd, &owner, 256);
    assert_eq!(status, Status::Ok);
    assert!(
        eventually(|| read_counter(&guest.call) > 0),
        "the answer to JOIN is signalled where it was asked"
    );
    assert_eq!(read_counter(&owner.call), 0, "and not elsewhere");
    assert!(guest.try_start_events(2), "an event queue of its own");
    drop(guest);
    assert!(masqd.serves_others());
    // The session's own call still works: wanted and written.
    let _ = read_counter(&owner.call);
    assert!(owner.works());
    assert!(eventually(|| read_counter(&owner.call) > 0));
}

fn read_counter(fd: &std::os::fd::OwnedFd) -> u64 {
    let mut counter = [0; 8];
    rustix::io::read(fd, &mut counter).map_or(0, |_| u64::from_ne_bytes(counter))
}

#[test]
fn joined_connections_end_with_their_session() {
    let masqd = Masqd::start();
    let owner = masqd.open("red/a");
    let (guest, status) = joined(&masqd, &owner, 256);
    assert_eq!(status, Status::Ok);
    drop(owner);
    assert!(guest.raw.is_hung_up());
}

#[test]
fn the_quota_of_sessions_holds_for_connections_that_never_speak() {
    let masqd = Masqd::with_policy(&policy("sessions: 3"));
    let path = masqd.socket("red/a");
    let held: Vec<Raw> = (0..3).map(|_| Raw::connect(&path)).collect();
    let fourth = Raw::connect(&path);
    assert!(fourth.is_hung_up());
    assert!(masqd.refusals("red/a", "connect") > 0);
    assert!(masqd.has_logged("quota sessions of red/a"));
    assert!(masqd.serves_others());
    drop(held);
    assert!(eventually(|| !Raw::connect(&path).looks_closed()));
}

#[test]
fn an_event_queue_beyond_the_quota_is_refused_and_the_session_goes_on() {
    let masqd = Masqd::with_policy(&policy("event_queues: 3"));
    let mut client = masqd.open("red/a");
    assert!(client.try_start_events(2) && client.try_start_events(3));
    assert!(!client.try_start_events(4), "the fourth");
    assert!(client.works(), "a quota is no reason to hang up");
    assert!(masqd.refusals("red/a", "event_queue") > 0);
    let stop = [3u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
    let stopped = client.raw.ask(masq_hostile::Code::GetVringBase, &stop, &[]);
    assert!(stopped.is_some());
    assert!(client.try_start_events(4), "one was given back");
}

#[test]
fn handles_are_worth_nothing_in_another_session() {
    let masqd = Masqd::start();
    let mut owner = masqd.open("red/a");
    let theirs = owner.endpoint(2);
    let addr = owner.alloc(4096);
    let mr = owner.register(theirs.pd, addr, 4096);
    for endpoint in ["red/a", "red/b", "blue/a"] {
        let mut thief = masqd.open(endpoint);
        let take =
            |c: &mut Client, opcode, handle: u32| c.call(opcode, &words(&[u64::from(handle)])).0;
        for (opcode, handle) in [
            (Opcode::DestroyQp, theirs.qp),
            (Opcode::QueryQp, theirs.qp),
            (Opcode::DestroyCq, theirs.cq),
            (Opcode::DeallocPd, theirs.pd),
            (Opcode::DeregMr, mr.handle),
            (Opcode::DeallocMw, 1),
            (Opcode::DestroySrq, 1),
            (Opcode::DestroyAh, 1),
        ] {
            assert_eq!(take(&mut thief, opcode, handle), Status::Invalid);
        }
        assert_eq!(thief.init(theirs.qp), Status::Invalid);
        let (reply, _, _) = thief.try_create_qp(theirs.pd, theirs.cq, 2);
        assert_eq!(reply.0, Status::Invalid);
        let memory = thief.alloc(4096);
        let (status, _) = thief.try_register(theirs.pd, memory, 4096, SegmentKind::Window);
        assert_eq!(status, Status::Invalid);
    }
    assert_eq!(owner.init(theirs.qp), Status::Ok, "the owner's are intact");
}

#[test]
fn an_event_queue_left_unread_ends_its_session_when_too_much_waits() {
    let masqd = Masqd::start();
    let mut client = masqd.open("red/a");
    let pd = client.alloc_pd();
    let addr = client.alloc(ring_len(8, 32));
    let request = CreateSrq {
        pd,
        max_wr: 8,
        max_sge: 1,
        limit: 0,
        ring: ring_at(addr, 8, 32),
    };
    let (status, body) = client.call(Opcode::CreateSrq, request.as_bytes());
    assert_eq!(status, Status::Ok);
    let srq = Created::read_from_bytes(&body).expect("a Created").handle;
    // The queue is empty: each arming of the limit raises an event at once.
    let arm = ModifySrq {
        handle: srq,
        mask: SrqMask::LIMIT.bits(),
        max_wr: 0,
        limit: 4,
    };
    let mut raised = 0;
    while raised < 100_000 && client.try_call(Opcode::ModifySrq, arm.as_bytes()).is_some() {
        raised += 1;
    }
    assert!(raised > 15_000, "{raised}: some thousands may wait");
    assert!(client.raw.is_hung_up());
    assert!(masqd.has_logged("too many events were left unread"));
    assert!(masqd.serves_others());
}

#[test]
fn events_that_found_their_queue_full_come_in_order_once_there_is_room() {
    let masqd = Masqd::start();
    let mut client = masqd.open("red/a");
    let pd = client.alloc_pd();
    let mut srqs = Vec::new();
    for _ in 0..100 {
        let addr = client.alloc(ring_len(8, 32));
        let request = CreateSrq {
            pd,
            max_wr: 8,
            max_sge: 1,
            limit: 0,
            ring: ring_at(addr, 8, 32),
        };
        let (_, body) = client.call(Opcode::CreateSrq, request.as_bytes());
        let srq = Created::read_from_bytes(&body).expect("a Created").handle;
        let arm = ModifySrq {
            handle: srq,
            mask: SrqMask::LIMIT.bits(),
            max_wr: 0,
            limit: 4,
        };
        assert_eq!(client.call(Opcode::ModifySrq, arm.as_bytes()).0, Status::Ok);
        srqs.push(srq);
    }
    let mut got = Vec::new();
    while got.len() < srqs.len() {
        got.push(client.next_event().expect("none is lost").element);
    }
    assert_eq!(got, srqs);
}

#[test]
fn rings_of_objects_are_checked_and_no_larger_than_they_need_be() {
    let masqd = Masqd::start();
    let mut client = masqd.open("red/a");
    let addr = client.alloc(1 << 20);
    let outside = masq_hostile::SIZE;
    for (what, ring, cqe) in [
        ("misaligned", ring_at(addr + 8, 64, CQE_LEN), 64),
        ("outside", ring_at(outside, 64, CQE_LEN), 64),
        ("across the end", ring_at(outside - 4096, 64, CQE_LEN), 64),
        ("wrapping", ring_at(u64::MAX - 63, 64, CQE_LEN), 64),
        ("no power of two", ring_at(addr, 63, CQE_LEN), 32),
        ("another stride", ring_at(addr, 64, 128), 64),
        ("too few slots", ring_at(addr, 64, CQE_LEN), 65),
        ("no entries", ring_at(addr, 64, CQE_LEN), 0),
        ("far too many slots", ring_at(addr, 1 << 14, CQE_LEN), 1),
        ("2^31 slots", ring_at(addr, 1 << 31, CQE_LEN), 1 << 20),
    ] {
        let request = cq_request(ring, cqe);
        let (status, _) = client.call(Opcode::CreateCq, request.as_bytes());
        assert_eq!(status, Status::Invalid, "{what}");
    }
    // Two queues on one ring spoil each other's, and nothing else.
    for _ in 0..2 {
        let request = cq_request(ring_at(addr, 64, CQE_LEN), 64);
        let (status, _) = client.call(Opcode::CreateCq, request.as_bytes());
        assert_eq!(status, Status::Ok);
    }
    let pd = client.alloc_pd();
    for (addr, len) in [
        (outside, 4096),
        (outside - 4096, 8192),
        (u64::MAX - 4095, 4096),
        (addr, 0),
    ] {
        let (status, _) = client.try_register(pd, addr, len, SegmentKind::Window);
        assert!(
            matches!(status, Status::Invalid | Status::Fault),
            "{addr:#x}+{len}: {status:?}"
        );
    }
    assert!(client.works());
    assert!(client.memory.u32(addr).load(Ordering::Relaxed) == 0);
}
