//! One session floods; another tenant's goes on. What is asserted is that work
//! of the other completes while the flood lasts, not how long it takes.

use masq_hostile::{Client, Code, Masqd, Raw, eventfd};
use masq_spec::command::Opcode;
use rustix::event::EventfdFlags;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Runs `flood` until another tenant has had 300 commands served; the flood
/// must have gone on all the while.
fn others_go_on(masqd: &Masqd, mut flood: impl FnMut() + Send) {
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut bystander = masqd.open("green/bystander");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                flood();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        while rounds.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        for _ in 0..300 {
            assert!(bystander.works());
        }
        let mut again = masqd.open("green/bystander");
        assert!(again.works(), "a new session is let in too");
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_flood_of_commands() {
    let masqd = Masqd::start();
    let mut client = masqd.open("red/a");
    others_go_on(&masqd, || {
        let _ = client.try_call(Opcode::QueryDevice, &[]);
    });
}

#[test]
fn a_flood_of_refused_commands() {
    let masqd = Masqd::start();
    let mut client = masqd.open("red/a");
    others_go_on(&masqd, || {
        let _ = client.try_call(Opcode::DestroyQp, &[0xff; 8]);
    });
    assert!(masqd.refusals("red/a", "destroy_qp") > 0);
    let report = masqd.overview();
    let latest = report.endpoints.iter().find(|e| e.endpoint == "red/a");
    assert!(latest.is_some_and(|e| e.refusals.len() <= 32), "bounded");
}

#[test]
fn a_flood_of_kicks_and_doorbells() {
    let masqd = Masqd::start();
    let mut client = masqd.open("red/a");
    let endpoint = client.endpoint(2);
    others_go_on(&masqd, || {
        for slot in 0..512 {
            client.ring(slot);
        }
        for fd in [&client.kick, &client.doorbell_kick] {
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    });
    assert!(endpoint.qpn > 0);
    assert!(client.works());
}

#[test]
fn a_flood_of_messages() {
    let masqd = Masqd::start();
    let client = masqd.open("red/a");
    let message = Raw::message(Code::SetOwner as u32, 1, &[]);
    let many: Vec<u8> = std::iter::repeat_n(message, 500).flatten().collect();
    others_go_on(&masqd, || {
        let _ = client.raw.send_bytes(&many, &[]);
    });
}

#[test]
fn a_flood_of_connections() {
    let masqd = Masqd::start();
    let path = masqd.socket("red/a");
    let mut held = Vec::new();
    others_go_on(&masqd, || {
        held.push(Raw::connect(&path));
        if held.len() > 100 {
            held.clear();
        }
    });
}

#[test]
fn queues_that_are_stopped_and_started_over_and_over() {
    let masqd = Masqd::start();
    let client = Client::prepare(&masqd.socket("red/a"));
    let call = eventfd(0, EventfdFlags::NONBLOCK);
    others_go_on(&masqd, || {
        let index = [2u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
        let _ = client.start(2, Client::event_queue(2), &client.doorbell_kick, &call);
        let _ = client.raw.ask(Code::GetVringBase, &index, &[]);
    });
}

#[test]
fn registering_much_memory_that_nobody_has_touched() {
    let masqd = Masqd::start();
    let mut client = masqd.open("red/a");
    let pd = client.alloc_pd();
    let addr = client.alloc(32 << 20);
    others_go_on(&masqd, || {
        let mr = client.register(pd, addr, 32 << 20);
        let handle = masq_hostile::words(&[u64::from(mr.handle)]);
        let (status, _) = client.call(Opcode::DeregMr, &handle);
        assert_eq!(status, masq_spec::command::Status::Ok);
        use rustix::fs::{FallocateFlags, fallocate};
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&client.memory.fd, hole, addr, 32 << 20).expect("a hole");
    });
}

#[test]
fn a_session_that_ends_while_its_memory_is_faulted_in_leaves_nothing() {
    let masqd = Masqd::start();
    assert!(masqd.serves_others());
    let before = masqd.counts();
    for _ in 0..20 {
        let mut client = masqd.open("red/a");
        let pd = client.alloc_pd();
        let addr = client.alloc(32 << 20);
        client.begin_register(pd, addr, 32 << 20);
    }
    assert!(masq_hostile::eventually(|| {
        let now = masqd.counts();
        now.threads <= before.threads && now.fds <= before.fds
    }));
    let report = masqd.overview();
    let mut quotas = report.endpoints.iter().flat_map(|e| e.quotas.values());
    assert!(quotas.all(|quota| quota.used == 0));
}
