//! Policy, quotas and reloads, seen at the interface.

use masq_admin::Answer;
use masq_hostile::{Client, Masqd, POLICY, cq_request, ring_at, v4};
use masq_spec::command::{Opcode, Status};
use masq_spec::event::AsyncEvent;
use masq_spec::queue::{CQE_LEN, Sge, WcStatus, ring_len};
use masq_spec::verbs::{
    Access, AhAttr, CreateAh, GidEntry, MrCreated, QpType, RegMr, ReregMask, ReregMr, SegmentKind,
    State,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

fn with_quotas(quotas: &str) -> Masqd {
    Masqd::with_policy(&format!(
        "
version: 1
tenants:
  red:
    endpoints:
      a: {{ address: 10.0.0.1, quotas: {{ {quotas} }} }}
"
    ))
}

/// The refusal reached the program, the counter, the log and the operator.
fn is_refused(masqd: &Masqd, endpoint: &str, verb: &str, rule: &str) {
    let report = masqd.overview();
    let (tenant, name) = endpoint.split_once('/').expect("tenant/name");
    let counted = report.refusals_total.iter().any(|c| {
        (c.tenant.as_str(), c.endpoint.as_str(), c.verb.as_str()) == (tenant, name, verb)
            && c.rule.contains(rule)
            && c.count > 0
    });
    assert!(counted, "{verb} by {rule}: {:?}", report.refusals_total);
    let shown = report
        .endpoints
        .iter()
        .filter(|e| e.endpoint == endpoint)
        .flat_map(|e| &e.refusals)
        .any(|r| r.verb == verb && r.rule.contains(rule) && !r.reason.is_empty());
    assert!(shown, "{verb} by {rule} is not among the latest");
    assert!(masqd.has_logged(rule), "{rule} is not in the log");
}

#[test]
fn the_queue_pair_after_the_last_of_a_quota_is_refused() {
    let masqd = with_quotas("qps: 128");
    let mut client = masqd.open("red/a");
    let first = client.endpoint(2);
    for _ in 1..128 {
        let (reply, _, _) = client.try_create_qp(first.pd, first.cq, 2);
        assert_eq!(reply.0, Status::Ok);
    }
    let (reply, _, _) = client.try_create_qp(first.pd, first.cq, 2);
    assert_eq!(reply.0.errno(), libc::ENOMEM);
    is_refused(&masqd, "red/a", "create_qp", "quota qps of red/a");
    // Another session of the endpoint has no more either.
    let mut second = masqd.open("red/a");
    let pd = second.alloc_pd();
    let addr = second.alloc(ring_len(64, CQE_LEN));
    let cq = cq_request(ring_at(addr, 64, CQE_LEN), 64);
    assert_eq!(second.call(Opcode::CreateCq, cq.as_bytes()).0, Status::Ok);
    let (reply, _, _) = second.try_create_qp(pd, 1, 2);
    assert_eq!(reply.0, Status::NoMemory);
    let handle = masq_hostile::words(&[u64::from(first.qp)]);
    assert_eq!(client.call(Opcode::DestroyQp, &handle).0, Status::Ok);
    let (reply, _, _) = second.try_create_qp(pd, 1, 2);
    assert_eq!(reply.0, Status::Ok, "what is given back can be had");
}

#[test]
fn memory_beyond_the_quota_is_refused_in_bytes_and_in_number() {
    let masqd = with_quotas("pinned: 1MiB, mrs: 3");
    let mut client = masqd.open("red/a");
    let pd = client.alloc_pd();
    let addr = client.alloc(2 << 20);
    let (status, _) = client.try_register(pd, addr, (1 << 20) + 1, SegmentKind::Window);
    assert_eq!(status.errno(), libc::ENOMEM);
    is_refused(&masqd, "red/a", "reg_mr", "quota pinned of red/a");
    client.register(pd, addr, 1 << 19);
    client.register(pd, addr, 1 << 19);
    let (status, _) = client.try_register(pd, addr, 1, SegmentKind::Window);
    assert_eq!(status, Status::NoMemory, "the same bytes count each time");
    let masqd = with_quotas("mrs: 3");
    let mut client = masqd.open("red/a");
    let pd = client.alloc_pd();
    let addr = client.alloc(4096);
    for _ in 0..3 {
        client.register(pd, addr, 4096);
    }
    let (status, _) = client.try_register(pd, addr, 4096, SegmentKind::Window);
    assert_eq!(status, Status::NoMemory);
    is_refused(&masqd, "red/a", "reg_mr", "quota mrs of red/a");
}

#[test]
fn every_other_object_has_its_quota() {
    let masqd = with_quotas("pds: 2, cqs: 2, mws: 0, ahs: 1, srqs: 0");
    let mut client = masqd.open("red/a");
    let pd = client.alloc_pd();
    client.alloc_pd();
    assert_eq!(client.call(Opcode::AllocPd, &[]).0, Status::NoMemory);
    is_refused(&masqd, "red/a", "alloc_pd", "quota pds");
    for expected in [Status::Ok, Status::Ok, Status::NoMemory] {
        let addr = client.alloc(ring_len(64, CQE_LEN));
        let cq = cq_request(ring_at(addr, 64, CQE_LEN), 64);
        assert_eq!(client.call(Opcode::CreateCq, cq.as_bytes()).0, expected);
    }
    is_refused(&masqd, "red/a", "create_cq", "quota cqs");
    let window = [pd.to_ne_bytes(), 1u32.to_ne_bytes()].concat();
    assert_eq!(client.call(Opcode::AllocMw, &window).0, Status::NoMemory);
    is_refused(&masqd, "red/a", "alloc_mw", "quota mws");
    for expected in [Status::Ok, Status::NoMemory] {
        let ah = address_handle(pd, v4([10, 0, 0, 1]));
        assert_eq!(client.call(Opcode::CreateAh, ah.as_bytes()).0, expected);
    }
    is_refused(&masqd, "red/a", "create_ah", "quota ahs");
}

fn address_handle(pd: u32, dgid: [u8; 16]) -> CreateAh {
    CreateAh {
        pd,
        reserved: 0,
        attr: AhAttr {
            dgid,
            sgid_index: 3,
            is_global: 1,
            port_num: 1,
            ..Default::default()
        },
    }
}

fn link_local(client: &mut Client) -> [u8; 16] {
    let (_, body) = client.call(Opcode::QueryGidTable, &[]);
    let first = body.get(8..).expect("entries");
    let (entry, _) = GidEntry::read_from_prefix(first).expect("an entry");
    assert!(entry.gid.starts_with(&[0xfe, 0x80]));
    entry.gid
}

#[test]
fn a_path_that_the_policy_does_not_allow_is_refused_before_rtr() {
    let masqd = Masqd::start();
    let mut blue = masqd.open("blue/a");
    let blue_gid = link_local(&mut blue);
    let mut red = masqd.open("red/b");
    let qp = red.endpoint(2);
    assert_eq!(red.init(qp.qp), Status::Ok);
    for (what, to) in [
        ("no rule to red/a", v4([10, 0, 0, 1])),
        ("no such endpoint in red", v4([10, 0, 0, 2])),
        ("nowhere", v4([192, 0, 2, 1])),
        ("the link-local GID of blue/a", blue_gid),
        ("a group, which only datagrams reach", v4([239, 0, 0, 1])),
    ] {
        let status = red.rtr(qp.qp, to, 0x11);
        assert!(
            matches!(status, Status::Denied | Status::Invalid),
            "{what}: {status:?}"
        );
        if what.contains("group") {
            continue;
        }
        assert_eq!(status.errno(), libc::EPERM, "{what}");
        let ah = address_handle(qp.pd, to);
        let (status, _) = red.call(Opcode::CreateAh, ah.as_bytes());
        assert_eq!(status, Status::Denied, "{what}: address handle");
    }
    is_refused(&masqd, "red/b", "modify_qp", "default");
    assert_eq!(
        red.rtr(qp.qp, v4([10, 0, 0, 3]), qp.qpn),
        Status::Ok,
        "itself"
    );
}

#[test]
fn the_same_address_in_two_tenants_is_two_endpoints() {
    let masqd = Masqd::start();
    let mut blue_a = masqd.open("blue/a");
    let mut blue_b = masqd.open("blue/b");
    let mut red_a = masqd.open("red/a");
    let (mut qb, qa) = (blue_b.endpoint(2), blue_a.endpoint(2));
    let mut qr = red_a.endpoint(2);
    // red/a claims to be the peer of blue/b: its number and address are right.
    blue_b.connect(&qb, v4([10, 0, 0, 1]), qa.qpn);
    assert_eq!(red_a.init(qr.qp), Status::Ok);
    assert_eq!(red_a.rtr(qr.qp, v4([10, 0, 0, 2]), qb.qpn), Status::Denied);
    assert_eq!(
        red_a.rtr(qr.qp, v4([10, 0, 0, 1]), qb.qpn),
        Status::Ok,
        "itself"
    );
    assert_eq!(red_a.rts(qr.qp), Status::Ok);
    let (from, to) = (red_a.alloc(4096), blue_b.alloc(4096));
    let (mr, mb) = (
        red_a.register(qr.pd, from, 4096),
        blue_b.register(qb.pd, to, 4096),
    );
    let sge = |addr, lkey| Sge {
        addr,
        length: 4,
        lkey,
    };
    blue_b.post_recv(&mut qb, 1, sge(to, mb.lkey));
    red_a.memory.write(from, b"evil");
    red_a.post_send(&mut qr, 2, sge(from, mr.lkey));
    let sent = red_a.poll(&mut qr).expect("a completion");
    assert_eq!(sent.status, WcStatus::RetryExcErr as u8, "nobody there");
    assert_eq!(blue_b.memory.read(to, 4), [0; 4]);
}

/// blue/a and blue/b, connected, with receives posted.
fn connected(masqd: &Masqd) -> [(Client, masq_hostile::Endpoint); 2] {
    let (mut a, mut b) = (masqd.open("blue/a"), masqd.open("blue/b"));
    let (mut qa, mut qb) = (a.endpoint(2), b.endpoint(2));
    a.connect(&qa, v4([10, 0, 0, 2]), qb.qpn);
    b.connect(&qb, v4([10, 0, 0, 1]), qa.qpn);
    for (client, qp) in [(&mut a, &mut qa), (&mut b, &mut qb)] {
        let addr = client.alloc(4096);
        let lkey = client.register(qp.pd, addr, 4096).lkey;
        let sge = Sge {
            addr,
            length: 64,
            lkey,
        };
        client.post_recv(qp, 77, sge);
    }
    [(a, qa), (b, qb)]
}

#[test]
fn a_rule_that_is_removed_cuts_the_connections_that_it_allowed() {
    let masqd = Masqd::start();
    let mut ends = connected(&masqd);
    let without = POLICY.replace("action: allow", "action: deny");
    let Ok(Answer::Reloaded(report)) = masqd.reload(&without) else {
        panic!("the policy was refused");
    };
    assert_eq!(report.connections_cut, 2);
    for (client, qp) in &mut ends {
        let flushed = client.poll(qp).expect("a flush");
        assert_eq!(
            (flushed.status, flushed.wr_id),
            (WcStatus::WrFlushErr as u8, 77)
        );
        let event = client.next_event().expect("an event");
        assert_eq!(
            (event.kind, event.element),
            (AsyncEvent::QpFatal as u32, qp.qp)
        );
        let handle = masq_hostile::words(&[u64::from(qp.qp)]);
        let (_, attr) = client.call(Opcode::QueryQp, &handle);
        assert_eq!(attr.get(..4), Some(&(State::Err as u32).to_ne_bytes()[..]));
    }
    is_refused(&masqd, "blue/a", "connection", "a-and-b");
    // The rule comes back: new connections may be made.
    assert!(masqd.reload(POLICY).is_ok());
    connected(&masqd);
}

#[test]
fn an_unrelated_change_of_the_policy_cuts_nothing() {
    let masqd = Masqd::start();
    let mut ends = connected(&masqd);
    let more = POLICY.replace(
        "10.0.0.9 }",
        "10.0.0.9 }\n      other: { address: 10.0.0.8 }",
    );
    let Ok(Answer::Reloaded(report)) = masqd.reload(&more) else {
        panic!("the policy was refused");
    };
    assert_eq!((report.connections_cut, report.sessions_closed), (0, 0));
    assert!(masqd.open("green/other").works());
    for (client, qp) in &mut ends {
        assert!(client.works());
        let handle = masq_hostile::words(&[u64::from(qp.qp)]);
        let (_, attr) = client.call(Opcode::QueryQp, &handle);
        assert_eq!(attr.get(..4), Some(&(State::Rts as u32).to_ne_bytes()[..]));
    }
}

#[test]
fn an_endpoint_that_is_removed_or_moved_ends_its_sessions_and_its_socket() {
    let masqd = Masqd::start();
    let (red_a, red_b) = (masqd.open("red/a"), masqd.open("red/b"));
    let mut blue = masqd.open("blue/a");
    let changed = POLICY
        .replace("      b: { address: 10.0.0.3 }\n", "")
        .replace(
            "red:\n    endpoints:\n      a: { address: 10.0.0.1 }",
            "red:\n    endpoints:\n      a: { address: 10.0.0.5 }",
        );
    let Ok(Answer::Reloaded(report)) = masqd.reload(&changed) else {
        panic!("the policy was refused");
    };
    assert_eq!(report.sessions_closed, 2);
    assert!(red_a.raw.is_hung_up() && red_b.raw.is_hung_up());
    assert!(!masqd.socket("red/b").exists());
    assert!(masqd.socket("red/a").exists());
    assert!(blue.works());
    assert!(masqd.open("red/a").works());
}

#[test]
fn a_policy_that_is_wrong_changes_nothing() {
    let masqd = Masqd::start();
    let mut ends = connected(&masqd);
    for wrong in [
        "version: 1\ntenants: [",
        "version: 2\n",
        "",
        &POLICY.replace("adress", "x").replace("action", "acton"),
    ] {
        let error = masqd.reload(wrong).expect_err("it is wrong").to_string();
        assert!(error.contains("policy.yaml"), "{error}");
    }
    assert!(masqd.has_logged("the old one stays in force"));
    for (client, _) in &mut ends {
        assert!(client.works());
    }
    assert!(masqd.socket("red/b").exists());
    connected(&masqd);
}

#[test]
fn a_queue_pair_type_that_no_rule_names_is_refused() {
    let masqd = Masqd::with_policy(&POLICY.replace("[RC, UC, UD]", "[UC]"));
    let mut a = masqd.open("blue/a");
    let (rc, uc) = (a.endpoint(QpType::Rc as u32), a.endpoint(QpType::Uc as u32));
    for (qp, expected) in [(rc, Status::Denied), (uc, Status::Ok)] {
        let attr = a.init(qp.qp);
        assert_eq!(attr, Status::Ok);
        let status = if expected == Status::Ok {
            a.rtr_uc(qp.qp, v4([10, 0, 0, 2]), 5)
        } else {
            a.rtr(qp.qp, v4([10, 0, 0, 2]), 5)
        };
        assert_eq!(status, expected);
    }
}

#[test]
fn a_region_keeps_its_keys_when_only_its_rights_or_its_domain_change() {
    let masqd = Masqd::start();
    let [(mut a, mut qa), (mut b, mut qb)] = connected(&masqd);
    let (from, to) = (a.alloc(4096), b.alloc(4096));
    let (ma, mb) = (a.register(qa.pd, from, 4096), b.register(qb.pd, to, 4096));
    let change = |mask: ReregMask, pd, access: Access| ReregMr {
        handle: mb.handle,
        mask: mask.bits(),
        new: RegMr {
            pd,
            access: access.bits(),
            addr: 0,
            len: 0,
            iova: 0,
            segments: 0,
            reserved: 0,
        },
    };
    let rights = change(ReregMask::ACCESS, 0, Access::LOCAL_WRITE);
    let (status, body) = b.call(Opcode::ReregMr, rights.as_bytes());
    assert_eq!(status, Status::Ok);
    let changed = MrCreated::read_from_bytes(&body).expect("an MrCreated");
    assert_eq!((changed.lkey, changed.rkey), (mb.lkey, mb.rkey));
    let sge = Sge {
        addr: from,
        length: 8,
        lkey: ma.lkey,
    };
    use masq_spec::queue::SendOpcode::RdmaWrite;
    a.post(&mut qa, RdmaWrite, 5, sge, to, mb.rkey);
    let refused = a.poll(&mut qa).expect("a completion");
    assert_eq!(
        refused.status,
        WcStatus::RemAccessErr as u8,
        "rights are gone"
    );
    let _ = b.poll(&mut qb);
    // And its PD: the old one may be freed once nothing is in it.
    let pd = b.alloc_pd();
    let domain = change(ReregMask::PD, pd, Access::empty());
    assert_eq!(b.call(Opcode::ReregMr, domain.as_bytes()).0, Status::Ok);
    let handle = masq_hostile::words(&[u64::from(pd)]);
    assert_eq!(b.call(Opcode::DeallocPd, &handle).0, Status::Busy);
    let none = change(ReregMask::PD, 9999, Access::empty());
    assert_eq!(b.call(Opcode::ReregMr, none.as_bytes()).0, Status::Invalid);
}

#[test]
fn a_quota_that_is_raised_or_lowered_holds_from_then_on() {
    // Of the tenant; what its endpoint has of its own is more.
    let quota = |qps| {
        format!(
            "
version: 1
tenants:
  red:
    quotas: {{ qps: {qps} }}
    endpoints:
      a: {{ address: 10.0.0.1, quotas: {{ qps: {qps} }} }}
"
        )
    };
    let masqd = Masqd::with_policy(&quota(1));
    let mut client = masqd.open("red/a");
    let first = client.endpoint(2);
    for (qps, expected) in [
        (1, Status::NoMemory),
        (2, Status::Ok),
        (1, Status::NoMemory),
        (3, Status::Ok),
    ] {
        assert!(masqd.reload(&quota(qps)).is_ok());
        let (reply, _, _) = client.try_create_qp(first.pd, first.cq, 2);
        assert_eq!(reply.0, expected, "{qps}");
    }
}

#[test]
fn a_quota_of_the_tenant_alone_may_change_too() {
    let quota = |qps| {
        format!(
            "
version: 1
tenants:
  red:
    quotas: {{ qps: {qps} }}
    endpoints:
      a: {{ address: 10.0.0.1, quotas: {{ qps: 1 }} }}
      b: {{ address: 10.0.0.2, quotas: {{ qps: 1 }} }}
"
        )
    };
    let masqd = Masqd::with_policy(&quota(1));
    let (mut a, mut b) = (masqd.open("red/a"), masqd.open("red/b"));
    a.endpoint(2);
    let pd = b.alloc_pd();
    let addr = b.alloc(ring_len(64, CQE_LEN));
    let cq = cq_request(ring_at(addr, 64, CQE_LEN), 64);
    assert_eq!(b.call(Opcode::CreateCq, cq.as_bytes()).0, Status::Ok);
    assert_eq!(b.try_create_qp(pd, 1, 2).0.0, Status::NoMemory);
    assert!(masqd.reload(&quota(2)).is_ok());
    assert_eq!(b.try_create_qp(pd, 1, 2).0.0, Status::Ok);
}
