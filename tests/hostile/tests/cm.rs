//! Connection management (SPEC clause 9.9), by raw commands: what it gives, whom
//! it refuses, and that nothing of it stays.

use masq_admin::Answer;
use masq_hostile::cm::{TCP, address, event, param};
use masq_hostile::{Client, Masqd, eventually};
use masq_spec::command::{Opcode, Status};
use masq_spec::verbs::{CmAddress, CmBind, CmCreateId, CmNumber, CmTarget, QpMask, QpType, State};
use zerocopy::IntoBytes as _;

const POLICY: &str = "
version: 1
tenants:
  blue:
    endpoints:
      a: { address: 10.0.0.1, quotas: { cm_ids: 64 } }
      b: { address: 10.0.0.2 }
      c: { address: 10.0.0.3 }
    rules:
      - { name: only-7471, from: b, to: a, service: rdma_cm/tcp/7471, action: allow }
      - { name: c-any, from: c, to: a, action: allow }
  red:
    endpoints:
      a: { address: 10.0.0.1 }
      b: { address: 10.0.0.2 }
    rules:
      - { name: all, from: any, to: any, action: allow }
";

const A: [u8; 4] = [10, 0, 0, 1];

fn open(masqd: &Masqd, endpoint: &str) -> Client {
    let client = masqd.open(endpoint);
    client.open_channel();
    client
}

/// A listener in `a`, a connection from `b` to it, both established; the ids.
fn establish(a: &mut Client, b: &mut Client, port: u16, qpns: (u32, u32)) -> (u32, u32, u32) {
    establish_at(a, b, address(A, port), qpns)
}

fn establish_at(
    a: &mut Client,
    b: &mut Client,
    at: CmAddress,
    qpns: (u32, u32),
) -> (u32, u32, u32) {
    let listener = a.listen_at(1, at, 8);
    let active = b.routed_to(2, at);
    assert_eq!(b.connect_id(active, param(qpns.1, b"hello")), Status::Ok);
    let request = a.cm_event();
    assert_eq!((request.event, request.uid), (event::CONNECT_REQUEST, 1));
    assert_eq!(&request.param.private_data[..5], b"hello");
    assert_eq!(request.param.qpn, qpns.1);
    let passive = request.id;
    assert_eq!(
        a.accept_id(passive, 3, Some(param(qpns.0, b"welcome"))),
        Status::Ok
    );
    let response = b.cm_event();
    assert_eq!((response.event, response.uid), (event::CONNECT_RESPONSE, 2));
    assert_eq!(&response.param.private_data[..7], b"welcome");
    assert_eq!(b.accept_id(active, 0, None), Status::Ok);
    let established = a.cm_event();
    assert_eq!(
        (established.event, established.uid),
        (event::ESTABLISHED, 3)
    );
    (listener, passive, active)
}

#[test]
fn both_sides_learn_queue_pair_numbers_and_packet_numbers_of_each_other() {
    let masqd = Masqd::with_policy(POLICY);
    let (mut a, mut b) = (open(&masqd, "red/a"), open(&masqd, "red/b"));
    let (_, passive, active) = establish(&mut a, &mut b, 7471, (0x111, 0x222));
    let (mask, at_a) = a.cm_qp_attr(passive, State::Rtr);
    assert!(QpMask::from_bits(mask).is_some_and(|m| m.contains(QpMask::AV | QpMask::RQ_PSN)));
    let (_, at_b) = b.cm_qp_attr(active, State::Rtr);
    assert_eq!((at_a.dest_qp_num, at_b.dest_qp_num), (0x222, 0x111));
    assert_eq!(at_a.ah.dgid, masq_hostile::v4([10, 0, 0, 2]));
    assert_eq!(at_a.ah.sgid_index, 3);
    let (_, sends_a) = a.cm_qp_attr(passive, State::Rts);
    let (_, sends_b) = b.cm_qp_attr(active, State::Rts);
    assert_eq!(sends_a.sq_psn, at_b.rq_psn);
    assert_eq!(sends_b.sq_psn, at_a.rq_psn);
    let disconnect = Client::target(active);
    assert_eq!(
        b.call(Opcode::CmDisconnect, disconnect.as_bytes()).0,
        Status::Ok
    );
    assert_eq!(a.cm_event().event, event::DISCONNECTED);
}

#[test]
fn two_tenants_use_the_same_address_and_port_and_never_meet() {
    let masqd = Masqd::with_policy(POLICY);
    let (mut red, mut blue) = (open(&masqd, "red/a"), open(&masqd, "blue/a"));
    red.listen_at(1, address(A, 7471), 8);
    blue.listen_at(1, address(A, 7471), 8);
    let mut red_b = open(&masqd, "red/b");
    let id = red_b.routed_to(2, address(A, 7471));
    assert_eq!(red_b.connect_id(id, param(7, b"red")), Status::Ok);
    assert_eq!(red.cm_event().event, event::CONNECT_REQUEST);
    assert!(blue.try_cm_event().is_none());
}

#[test]
fn a_service_that_no_rule_allows_is_rejected_at_once_with_the_rules_name() {
    let masqd = Masqd::with_policy(POLICY);
    let (mut a, mut b) = (open(&masqd, "blue/a"), open(&masqd, "blue/b"));
    a.listen_at(1, address(A, 7000), 8);
    let id = b.routed_to(2, address(A, 7000));
    assert_eq!(b.connect_id(id, param(7, b"")), Status::Ok);
    let rejected = b.cm_event();
    assert_eq!((rejected.event, rejected.status), (event::REJECTED, 5));
    let len = usize::from(rejected.param.private_len);
    let text = String::from_utf8_lossy(&rejected.param.private_data[..len]).into_owned();
    assert!(text.starts_with("masq: default deny"), "{text}");
    assert!(a.try_cm_event().is_none(), "the listener hears nothing");
    assert_eq!(masqd.refusals("blue/b", "cm_connect"), 1);
    assert!(masqd.has_logged("rdma_cm/tcp/7000"));
}

#[test]
fn a_queue_pair_is_judged_by_the_service_that_connected_it_and_only_that_pair() {
    let masqd = Masqd::with_policy(POLICY);
    let (mut a, mut b) = (open(&masqd, "blue/a"), open(&masqd, "blue/b"));
    let (at_a, at_b) = (a.endpoint(2), b.endpoint(2));
    let other = a.endpoint(2);
    establish(&mut a, &mut b, 7471, (at_a.qpn, at_b.qpn));
    // Neither direction has a rule for plain verbs.
    for (client, qp) in [(&mut a, at_a.qp), (&mut b, at_b.qp)] {
        assert_eq!(client.init(qp), Status::Ok);
    }
    assert_eq!(a.init(other.qp), Status::Ok);
    let (to_a, to_b) = (masq_hostile::v4(A), masq_hostile::v4([10, 0, 0, 2]));
    assert_eq!(
        a.rtr(other.qp, to_b, at_b.qpn),
        Status::Denied,
        "another pair"
    );
    assert_eq!(
        b.rtr(at_b.qp, to_a, other.qpn),
        Status::Denied,
        "another peer"
    );
    assert_eq!(b.rtr(at_b.qp, to_a, at_a.qpn), Status::Ok);
    assert_eq!(a.rtr(at_a.qp, to_b, at_b.qpn), Status::Ok);
    let detail = masqd.ask(&masq_admin::Request::Endpoint {
        endpoint: "blue/b".into(),
    });
    let Ok(Answer::Detail(sessions, _)) = detail else {
        panic!("no detail");
    };
    let id = sessions
        .iter()
        .flat_map(|s| &s.cm_ids)
        .next()
        .expect("an id");
    assert_eq!(
        (id.service.as_str(), id.initiator),
        ("rdma_cm/tcp/7471", true)
    );
    assert_eq!((id.qpn, id.peer_qpn), (at_b.qpn, at_a.qpn));
    let rule = sessions
        .iter()
        .flat_map(|s| &s.queue_pairs)
        .find_map(|qp| qp.peer.as_ref())
        .map(|peer| peer.rule.clone());
    assert!(rule.is_some_and(|rule| rule.contains("only-7471")));
}

#[test]
fn a_reload_cuts_the_connections_that_it_forbids_and_tells_both_sides() {
    let masqd = Masqd::with_policy(POLICY);
    let (mut a, mut b) = (open(&masqd, "blue/a"), open(&masqd, "blue/b"));
    let mut c = open(&masqd, "blue/c");
    let (at_a, at_b) = (a.endpoint(2), b.endpoint(2));
    establish(&mut a, &mut b, 7471, (at_a.qpn, at_b.qpn));
    establish(&mut a, &mut c, 7472, (0x333, 0x444));
    b.init(at_b.qp);
    assert_eq!(b.rtr(at_b.qp, masq_hostile::v4(A), at_a.qpn), Status::Ok);
    let changed = POLICY.replace("rdma_cm/tcp/7471", "rdma_cm/tcp/7400");
    let report = match masqd.reload(&changed) {
        Ok(Answer::Reloaded(report)) => report,
        other => panic!("{other:?}"),
    };
    assert_eq!(report.connections_cut, 2, "the id and the queue pair");
    assert_eq!(b.cm_event().event, event::DISCONNECTED);
    assert_eq!(a.cm_event().event, event::DISCONNECTED);
    assert!(c.try_cm_event().is_none(), "others go on");
    assert_eq!(masqd.refusals("blue/b", "cm_connection"), 1);
}

#[test]
fn a_connection_by_link_local_addresses_outlives_a_reload_that_allows_it() {
    let masqd = Masqd::with_policy(POLICY);
    let (mut a, mut b) = (open(&masqd, "blue/a"), open(&masqd, "blue/b"));
    let (status, table) = a.call(Opcode::QueryGidTable, &[]);
    assert_eq!(status, Status::Ok);
    let at = CmAddress {
        family: 10,
        port: 7471,
        scope: 0,
        ip: table[8..24].try_into().expect("a GID"),
    };
    assert_eq!(at.ip[..2], [0xfe, 0x80]);
    establish_at(&mut a, &mut b, at, (0x333, 0x444));
    let same = POLICY.replace("c-any", "c-all");
    let Ok(Answer::Reloaded(report)) = masqd.reload(&same) else {
        panic!("no reload");
    };
    assert_eq!(report.connections_cut, 0);
    assert!(a.try_cm_event().is_none() && b.try_cm_event().is_none());
    let less = POLICY.replace("rdma_cm/tcp/7471", "rdma_cm/tcp/7400");
    let Ok(Answer::Reloaded(report)) = masqd.reload(&less) else {
        panic!("no reload");
    };
    assert_eq!(report.connections_cut, 1);
    assert_eq!(b.cm_event().event, event::DISCONNECTED);
}

#[test]
fn nobody_listening_is_told_at_once_however_often_it_is_asked() {
    let masqd = Masqd::with_policy(POLICY);
    let mut b = open(&masqd, "red/b");
    let mut before = 0;
    for round in 0..3_000 {
        let id = b.routed_to(2, address(A, 9));
        assert_eq!(b.connect_id(id, param(7, b"")), Status::Ok);
        let rejected = b.cm_event();
        assert_eq!((rejected.event, rejected.status), (event::REJECTED, 8));
        assert_eq!(b.destroy_id(id), Status::Ok);
        if round == 1_000 {
            before = resident_kib(masqd.pid());
        }
    }
    let after = resident_kib(masqd.pid());
    assert!(after < before + 1024, "{before} KiB became {after} KiB");
    assert_eq!(cm_ids(&masqd, "red/b"), 0);
}

#[test]
fn a_full_backlog_and_a_full_quota_reject_for_want_of_resources() {
    let masqd = Masqd::with_policy(POLICY);
    let (mut a, mut c) = (open(&masqd, "blue/a"), open(&masqd, "blue/c"));
    a.listen_at(1, address(A, 7471), 2);
    let mut connect = |port| {
        let id = c.routed_to(2, address(A, port));
        assert_eq!(c.connect_id(id, param(7, b"")), Status::Ok);
        std::thread::sleep(std::time::Duration::from_millis(5));
        c.try_cm_event().map(|event| (event.event, event.status))
    };
    assert_eq!((connect(7471), connect(7471)), (None, None));
    assert_eq!(connect(7471), Some((event::REJECTED, 3)));
    assert_eq!(a.cm_event().event, event::CONNECT_REQUEST);
    assert_eq!(connect(7471), None, "room again");
    // cm_ids: 64, of which 4 are in use.
    a.listen_at(1, address(A, 7472), 1024);
    for _ in 0..59 {
        assert_eq!(connect(7472), None);
    }
    assert_eq!(connect(7472), Some((event::REJECTED, 3)));
    assert_eq!(masqd.refusals("blue/a", "cm_request"), 1);
    assert_eq!(a.try_create_id(9), Err(Status::NoMemory));
    assert_eq!(masqd.refusals("blue/a", "cm_create_id"), 1);
}

#[test]
fn a_session_that_dies_tells_its_peers_in_every_state_and_leaves_nothing() {
    let masqd = Masqd::with_policy(POLICY);
    // Established: the peer is disconnected.
    let (mut a, mut b) = (open(&masqd, "red/a"), open(&masqd, "red/b"));
    establish(&mut a, &mut b, 7471, (1, 2));
    drop(b);
    assert_eq!(a.cm_event().event, event::DISCONNECTED);
    // Asked, not answered: the passive side's accept fails.
    let mut b = open(&masqd, "red/b");
    let id = b.routed_to(2, address(A, 7471));
    assert_eq!(b.connect_id(id, param(7, b"")), Status::Ok);
    let request = a.cm_event();
    drop(b);
    assert!(eventually(|| cm_ids(&masqd, "red/b") == 0));
    assert_ne!(a.accept_id(request.id, 3, Some(param(8, b""))), Status::Ok);
    // Answered, not confirmed: the passive side hears of it.
    let mut b = open(&masqd, "red/b");
    let id = b.routed_to(2, address(A, 7471));
    assert_eq!(b.connect_id(id, param(7, b"")), Status::Ok);
    let request = a.cm_event();
    assert_eq!(a.accept_id(request.id, 4, Some(param(8, b""))), Status::Ok);
    assert_eq!(b.cm_event().event, event::CONNECT_RESPONSE);
    drop(b);
    let told = a.cm_event();
    assert_eq!(told.uid, 4);
    assert!([event::REJECTED, event::DISCONNECTED].contains(&told.event));
    // The listener dies with a request waiting, and one accepted.
    let mut b = open(&masqd, "red/b");
    let waiting = b.routed_to(5, address(A, 7471));
    assert_eq!(b.connect_id(waiting, param(7, b"")), Status::Ok);
    drop(a);
    let told = b.cm_event();
    assert_eq!((told.event, told.uid), (event::REJECTED, 5));
    drop(b);
    for endpoint in ["red/a", "red/b"] {
        assert!(eventually(|| cm_ids(&masqd, endpoint) == 0), "{endpoint}");
    }
}

#[test]
fn thousands_of_ids_end_with_their_channel_or_session_while_others_are_served() {
    const MANY: u64 = 3000;
    let masqd = Masqd::with_policy(POLICY);
    let mut other = masqd.open("red/a");
    let mut b = open(&masqd, "blue/b");
    for uid in 0..MANY {
        b.create_id(uid);
    }
    assert_eq!(cm_ids(&masqd, "blue/b"), MANY);
    assert_eq!(
        b.call(Opcode::CmCloseChannel, Client::target(0).as_bytes())
            .0,
        Status::Ok
    );
    assert_eq!(cm_ids(&masqd, "blue/b"), 0, "answered when all have ended");
    for uid in 0..MANY {
        b.create_id(uid);
    }
    drop(b);
    assert!(other.works());
    assert!(eventually(|| cm_ids(&masqd, "blue/b") == 0));
}

#[test]
fn ids_are_reached_by_their_own_session_and_channel_only() {
    let masqd = Masqd::with_policy(POLICY);
    let (mut first, mut second) = (open(&masqd, "red/a"), open(&masqd, "red/a"));
    let id = first.create_id(1);
    assert_eq!(first.destroy_id(id + 1), Status::NoSuchObject);
    assert_ne!(second.destroy_id(id), Status::Ok, "another session's");
    first.start_events(3);
    let other = CmTarget { channel: 3, id };
    let (status, _) = first.call(Opcode::CmDestroyId, other.as_bytes());
    assert_eq!(status, Status::Invalid, "another channel's");
    let create = CmCreateId {
        channel: 77,
        port_space: TCP,
        qp_type: QpType::Rc as u8,
        reserved: 0,
        uid: 1,
    };
    let (status, _) = first.call(Opcode::CmCreateId, create.as_bytes());
    assert_eq!(status, Status::Invalid, "a channel that is not set up");
    let migrate = CmNumber {
        target: Client::target(id),
        number: 77,
        reserved: 0,
    };
    let (status, _) = first.call(Opcode::CmMigrate, migrate.as_bytes());
    assert_eq!(status, Status::Invalid);
    assert_eq!(first.destroy_id(id), Status::Ok);
    let foreign = CmBind {
        target: Client::target(first.create_id(2)),
        address: address([10, 0, 0, 2], 1),
    };
    let (status, _) = first.call(Opcode::CmBind, foreign.as_bytes());
    assert_eq!(status.errno(), libc::EADDRNOTAVAIL);
}

#[test]
fn bodies_of_any_length_and_content_are_answered_and_others_are_served() {
    let masqd = Masqd::with_policy(POLICY);
    let mut client = open(&masqd, "red/a");
    let id = client.create_id(1);
    let opcodes = Opcode::ALL
        .iter()
        .filter(|opcode| opcode.raw() >= Opcode::CmCreateId.raw());
    let mut state = 1u64;
    for opcode in opcodes {
        for len in [
            0, 1, 7, 8, 16, 23, 24, 32, 48, 64, 272, 288, 304, 305, 600, 4000,
        ] {
            let mut body: Vec<u8> = (0..len)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            // Half of them reach the id.
            if len >= 8 && state & 1 == 0 {
                body[..8].copy_from_slice(Client::target(id).as_bytes());
            }
            let _ = client.call(*opcode, &body);
        }
    }
    assert!(client.works());
    assert!(open(&masqd, "red/b").works());
}

fn cm_ids(masqd: &Masqd, endpoint: &str) -> u64 {
    let report = masqd.overview();
    let found = report.endpoints.iter().find(|e| e.endpoint == endpoint);
    found
        .and_then(|e| e.quotas.get("cm_ids"))
        .map_or(0, |quota| quota.used)
}

fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .expect("VmRSS")
}
