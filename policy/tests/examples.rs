//! The examples mean what they say.

use masq_policy::{EndpointId, Policy, QpType, Request, RuleRef, Service, Verdict};

const TWO_TENANTS: &str = include_str!("../examples/two-tenants.yaml");
const STORAGE: &str = include_str!("../examples/storage-cluster.yaml");

fn policy(text: &str) -> Policy {
    let policy = Policy::parse("example.yaml", text).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(policy.warnings().is_empty(), "{:?}", policy.warnings());
    policy
}

fn id(text: &str) -> EndpointId {
    text.parse().unwrap()
}

fn connect(policy: &Policy, from: &str, to: &str, qp_type: QpType, service: Service) -> Verdict {
    let request = Request::Connect {
        from: &id(from),
        to: to.parse().unwrap(),
        qp_type,
        service,
    };
    let verdict = policy.decide(&request);
    assert_eq!(policy.explain(&request).verdict, verdict);
    verdict
}

fn verbs(policy: &Policy, from: &str, to: &str, qp_type: QpType) -> Verdict {
    connect(policy, from, to, qp_type, Service::Verbs)
}

#[test]
fn blue_a_and_b_reach_each_other_by_rc_uc_and_ud_only() {
    let policy = policy(TWO_TENANTS);
    for qp_type in [QpType::Rc, QpType::Uc, QpType::Ud] {
        for (from, to) in [
            ("blue/a", "10.0.0.2"),
            ("blue/b", "10.0.0.1"),
            ("blue/b", "::ffff:10.0.0.1"),
        ] {
            let verdict = verbs(&policy, from, to, qp_type);
            assert!(verdict.allowed, "{verdict}");
            assert_eq!(verdict.rule.to_string(), "blue rule 1 \"a-and-b\"");
        }
    }
    assert!(!verbs(&policy, "blue/a", "10.0.0.2", QpType::Xrc).allowed);
}

#[test]
fn red_is_refused_by_default_and_cannot_name_blue() {
    let policy = policy(TWO_TENANTS);
    let verdict = verbs(&policy, "red/b", "10.0.0.1", QpType::Rc);
    assert_eq!(
        verdict.to_string(),
        "denied by default deny: no rule allows red/b to reach red/a"
    );
    let verdict = verbs(&policy, "red/b", "10.0.0.2", QpType::Rc);
    assert_eq!(
        verdict.to_string(),
        "denied by no such endpoint: tenant red has no endpoint with the address 10.0.0.2"
    );
    let verdict = verbs(&policy, "green/a", "10.0.0.1", QpType::Rc);
    assert_eq!(
        verdict.to_string(),
        "denied by no such endpoint: the policy has no endpoint green/a"
    );
}

#[test]
fn an_address_means_an_endpoint_of_the_askers_own_tenant() {
    let policy = policy(TWO_TENANTS);
    let address = "10.0.0.1".parse().unwrap();
    for tenant in ["blue", "red"] {
        let found = policy.tenant(tenant).unwrap().endpoint_at(address).unwrap();
        assert_eq!(found.id().to_string(), format!("{tenant}/a"));
    }
}

#[test]
fn an_endpoint_reaches_itself_unless_a_rule_forbids_it() {
    let allowed = verbs(&policy(TWO_TENANTS), "red/b", "10.0.0.3", QpType::Rc);
    assert_eq!((allowed.allowed, allowed.rule), (true, RuleRef::OwnAddress));
    let text = "version: 1\ntenants: {red: {endpoints: {b: {address: 10.0.0.3}}, \
                rules: [{from: b, to: b, action: deny}]}}";
    let denied = verbs(&policy(text), "red/b", "10.0.0.3", QpType::Rc);
    assert_eq!(
        (denied.allowed, denied.rule.to_string()),
        (false, "red rule 1".to_owned())
    );
}

#[test]
fn labels_networks_services_and_deny_rules_decide_in_order() {
    let policy = policy(STORAGE);
    let cm = |port| Service::RdmaCm {
        space: masq_policy::PortSpace::Tcp,
        port,
    };
    let rule = |verdict: Verdict| (verdict.allowed, verdict.rule.to_string());
    let named = |n: usize, name: &str| format!("storage rule {n} \"{name}\"");

    let draining = verbs(&policy, "storage/client-2", "fd00:5::1", QpType::Rc);
    assert_eq!(rule(draining), (false, named(1, "draining")));
    let nodes = verbs(&policy, "storage/node-1", "fd00:5::2", QpType::Rc);
    assert_eq!(rule(nodes), (true, named(2, "replication")));
    let client = connect(
        &policy,
        "storage/client-1",
        "fd00:5::1",
        QpType::Rc,
        cm(7471),
    );
    assert_eq!(rule(client), (true, named(3, "clients-to-nodes")));
    let wrong_port = connect(
        &policy,
        "storage/client-1",
        "fd00:5::1",
        QpType::Rc,
        cm(8000),
    );
    assert_eq!(rule(wrong_port), (false, "default deny".to_owned()));
    let wrong_type = verbs(&policy, "storage/monitor", "fd00:5::1", QpType::Rc);
    assert_eq!(rule(wrong_type), (false, "storage qp_types".to_owned()));
    let monitor = verbs(&policy, "storage/monitor", "10.5.0.11", QpType::Ud);
    assert_eq!(rule(monitor), (true, named(4, "monitoring")));
}

#[test]
fn settings_bound_qp_types_verbs_remote_rights_and_groups() {
    use masq_policy::{RemoteAccess, Verb};
    let policy = policy(STORAGE);
    let (node, monitor) = (&id("storage/node-1"), &id("storage/monitor"));
    let answer = |request| policy.decide(&request);
    assert!(
        answer(Request::CreateQp {
            endpoint: node,
            qp_type: QpType::Rc
        })
        .allowed
    );
    assert!(
        !answer(Request::CreateQp {
            endpoint: node,
            qp_type: QpType::Uc
        })
        .allowed
    );
    assert!(
        !answer(Request::CreateQp {
            endpoint: monitor,
            qp_type: QpType::Rc
        })
        .allowed
    );
    assert!(
        !answer(Request::Verb {
            endpoint: node,
            verb: Verb::BindMw
        })
        .allowed
    );
    assert!(
        answer(Request::Verb {
            endpoint: node,
            verb: Verb::Atomic
        })
        .allowed
    );
    let register = |endpoint, remote| answer(Request::RegisterMemory { endpoint, remote });
    assert!(register(node, RemoteAccess::READ | RemoteAccess::WRITE).allowed);
    assert!(register(monitor, RemoteAccess::NONE).allowed);
    assert_eq!(
        register(node, RemoteAccess::ALL).to_string(),
        "denied by storage remote_access: memory may not grant remote access: atomic"
    );
    let join = |group: &str| {
        answer(Request::JoinMulticast {
            endpoint: node,
            group: group.parse().unwrap(),
        })
    };
    assert!(
        join("239.1.2.3").allowed && join("::ffff:239.1.2.3").allowed && join("ff15::1").allowed
    );
    assert!(!join("239.2.0.1").allowed && !join("ff12::1").allowed && !join("10.5.0.11").allowed);
    let send = |to, qp_type| verbs(&policy, "storage/node-1", to, qp_type).allowed;
    assert!(send("239.1.2.3", QpType::Ud));
    assert!(!send("239.1.2.3", QpType::Rc) && !send("239.2.0.1", QpType::Ud));
}

#[test]
fn quotas_of_an_endpoint_default_to_the_tenants_and_lie_within_them() {
    let policy = policy(STORAGE);
    assert_eq!(policy.quotas(&id("storage/node-1")).qps, 4096);
    assert_eq!(policy.quotas(&id("storage/client-1")).qps, 128);
    assert_eq!(
        policy.quotas(&id("storage/client-1")).pinned_bytes,
        512 << 20
    );
    assert_eq!(policy.quotas(&id("storage/client-1")).sessions, 256);
    assert_eq!(policy.tenant("storage").unwrap().quotas().qps, 4096);
    assert_eq!(
        policy.quotas(&id("storage/nobody")).sessions,
        0,
        "who does not exist may hold nothing"
    );
}

#[test]
fn explain_names_each_rule_and_why_it_did_not_match() {
    let policy = policy(STORAGE);
    let explained = policy
        .explain_between(
            &id("storage/node-1"),
            &id("storage/client-1"),
            QpType::Ud,
            Service::Verbs,
        )
        .unwrap();
    assert_eq!(
        explained.to_string(),
        "storage/node-1 -> 10.5.0.11 (UD, service verbs), the address of storage/client-1
  storage rule 1 \"draining\" is not from storage/node-1 (from: labels state=draining)
  storage rule 2 \"replication\" is not to storage/client-1 (to: labels role=node)
  storage rule 3 \"clients-to-nodes\" is not for UD (qp_types: RC)
  storage rule 4 \"monitoring\" is not between storage/node-1 and storage/client-1 (between: monitor and: any)
denied by default deny: no rule allows storage/node-1 to reach storage/client-1"
    );
    let two = self::policy(TWO_TENANTS);
    let across = two
        .explain_between(&id("blue/a"), &id("red/b"), QpType::Rc, Service::Verbs)
        .unwrap();
    assert_eq!(across.verdict.rule, RuleRef::NoSuchEndpoint);
    assert_eq!(across.notes.len(), 1);
    let json = serde_json::to_value(&across).unwrap();
    assert_eq!(json["verdict"]["rule"], "no such endpoint");
}

#[test]
fn diff_lists_what_a_reload_has_to_apply() {
    let old = policy(TWO_TENANTS);
    assert!(Policy::diff(&old, &old).is_empty());
    let text = TWO_TENANTS
        .replace(
            "b: { address: 10.0.0.2 }",
            "b: { address: 10.0.0.9, qp_types: [RC] }",
        )
        .replace("  red:", "  green:")
        .replace("both_ways: true", "both_ways: false");
    let diff = Policy::diff(&old, &policy(&text));
    let json = serde_json::to_value(&diff).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "tenants_added": ["green"], "tenants_removed": ["red"],
            "endpoints_added": ["green/a", "green/b"], "endpoints_removed": ["red/a", "red/b"],
            "endpoints_changed": [{
                "endpoint": "blue/b", "addresses": true,
                "quotas": false, "permissions": true, "labels": false, "host": false
            }],
            "hosts_changed": [],
            "partitions_changed": [],
            "devices_changed": [],
            "classes_added": [],
            "classes_removed": [],
            "classes_changed": [],
            "places_changed": [],
            "rules_changed": ["blue"],
        })
    );
}
