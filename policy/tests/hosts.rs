//! Hosts, endpoints that live on them or are hosts themselves, and partitions.

use std::net::IpAddr;

use masq_policy::{
    Container, EndpointId, EndpointName, Home, Partition, PlaceError, Policy, QpType, Request,
    Service,
};
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../examples/two-hosts.yaml");

fn policy(text: &str) -> Policy {
    let policy = Policy::parse("p.yaml", text).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(policy.warnings().is_empty(), "{:?}", policy.warnings());
    policy
}

fn id(text: &str) -> EndpointId {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn allowed(policy: &Policy, from: &str, to: &str, qp_type: QpType) -> bool {
    let (from, to, service) = (&id(from), ip(to), Service::Verbs);
    let request = Request::Connect {
        from,
        to,
        qp_type,
        service,
    };
    policy.decide(&request).allowed
}

#[test]
fn an_endpoint_lives_where_the_file_says_or_anywhere() {
    let policy = policy(EXAMPLE);
    let hosts: Vec<_> = policy.hosts().map(ToString::to_string).collect();
    assert_eq!(hosts, ["alpha (192.0.2.1)", "beta (192.0.2.2)"]);
    let b = policy.endpoint(&id("blue/b")).unwrap();
    assert_eq!(b.host().unwrap(), policy.host("beta").unwrap());
    assert!(!b.is_outside());
    let class = policy.tenant("red").unwrap().class("worker").unwrap();
    assert_eq!(*class.template().home(), Home::Anywhere);
    let beta = policy.host_at(ip("::ffff:192.0.2.2")).unwrap();
    assert_eq!(beta.name().as_str(), "beta");
}

#[test]
fn a_host_outside_is_an_endpoint_with_its_own_address() {
    let policy = policy(EXAMPLE);
    let filer = policy.endpoint(&id("storage/filer")).unwrap();
    assert!(filer.is_outside() && filer.host().is_none());
    assert_eq!(filer.address(), Some(ip("192.0.2.9")));
    assert!(allowed(&policy, "storage/client", "192.0.2.9", QpType::Rc));
    assert!(!allowed(&policy, "storage/client", "192.0.2.9", QpType::Uc));
    // Asked for by the host outside.
    assert!(allowed(&policy, "storage/filer", "10.0.0.1", QpType::Rc));
    // Other tenants do not have it.
    assert!(!allowed(&policy, "blue/a", "192.0.2.9", QpType::Rc));
    let wants_it = Container {
        tenant: Some("storage"),
        endpoint: Some("filer"),
        ..Container::default()
    };
    let refused = policy.place(&wants_it).unwrap_err();
    assert_eq!(refused, PlaceError::Outside("storage/filer".into()));
}

/// The tenant's `addresses` are for virtual addresses; a host outside has a real one.
#[test]
fn a_host_outside_need_not_lie_in_the_tenants_addresses() {
    policy(
        "version: 1\ntenants: {t: {pkey: 0xffff, addresses: 10.0.0.0/8, \
         endpoints: {a: {address: 10.0.0.1}, out: {outside: 192.0.2.9}}}}",
    );
}

#[test]
fn a_partition_is_named_or_derived_and_means_one_tenant() {
    let policy = policy(EXAMPLE);
    let storage = policy.tenant("storage").unwrap();
    assert_eq!(storage.partition(), Partition::DEFAULT);
    for tenant in policy.tenants() {
        let key = tenant.partition().key();
        for key in [key, key & 0x7fff] {
            assert_eq!(
                policy.tenant_of_partition(key).unwrap().name(),
                tenant.name()
            );
        }
    }
    assert!(policy.tenant_of_partition(0x8000).is_none());
    assert!(policy.shared_partition().is_none());
}

/// Thousands of tenants of one host need not care for hashes.
#[test]
fn names_whose_partitions_meet_by_chance_are_wrong_only_where_there_are_hosts() {
    let alone = "version: 1\ntenants: {team-175: {endpoints: {a: {address: 10.0.0.1}}}, \
                 team-261: {endpoints: {a: {address: 10.0.0.1}}}}";
    let alone = policy(alone);
    let (one, other) = alone.shared_partition().unwrap();
    assert_eq!(one.name().as_str(), "team-175");
    assert_eq!(other.name().as_str(), "team-261");
    let hosts = include_str!("mistakes/partition-by-chance.yaml");
    assert!(Policy::parse("p.yaml", hosts).is_err());
}

#[test]
fn explain_says_where_the_peer_lives() {
    let mut policy = policy(EXAMPLE);
    let explain = |policy: &Policy, from: &str, to: &str| {
        let (from, to) = (id(from), id(to));
        let explanation = policy.explain_between(&from, &to, QpType::Rc, Service::Verbs);
        explanation.unwrap().notes
    };
    let notes = explain(&policy, "blue/a", "blue/b");
    assert!(
        notes.contains(&"blue/b lives on host beta (192.0.2.2)".into()),
        "{notes:?}"
    );
    let notes = explain(&policy, "storage/client", "storage/filer");
    assert!(
        notes.iter().any(|note| note.contains("192.0.2.9 itself")),
        "{notes:?}"
    );
    let (class, name) = (id("red/worker"), EndpointName::new("worker.x").unwrap());
    let far = policy
        .add_instance_elsewhere(&class, name, ip("192.0.2.2"))
        .unwrap();
    policy.set_addresses(&far, &[ip("10.88.0.7")]);
    let notes = explain(&policy, "red/worker.x", "red/worker.x");
    assert!(
        notes[0].contains("lives on the host 192.0.2.2"),
        "{notes:?}"
    );
}

/// Rules that name a class mean its instances wherever they are.
#[test]
fn an_instance_elsewhere_is_judged_as_one_here() {
    let mut policy = policy(EXAMPLE);
    let class = id("red/worker");
    let name = |name: &str| EndpointName::new(name).unwrap();
    let here = policy.add_instance(&class, name("worker.here")).unwrap();
    policy.set_addresses(&here, &[ip("10.88.0.1")]);
    let far = policy
        .add_instance_elsewhere(&class, name("worker.far"), ip("192.0.2.2"))
        .unwrap();
    policy.set_addresses(&far, &[ip("10.88.0.2"), ip("10.88.0.1"), ip("10.0.0.9")]);
    let found = policy.endpoint(&far).unwrap();
    assert_eq!(*found.home(), Home::Elsewhere(ip("192.0.2.2")));
    assert_eq!(found.addresses().len(), 1);
    assert!(allowed(&policy, "red/worker.here", "10.88.0.2", QpType::Rc));
    assert!(allowed(&policy, "red/worker.far", "10.88.0.1", QpType::Rc));
    policy.remove_instance(&far);
    assert!(!allowed(
        &policy,
        "red/worker.here",
        "10.88.0.2",
        QpType::Rc
    ));
}

#[test]
fn diff_tells_of_hosts_homes_and_partitions() {
    let old = policy(EXAMPLE);
    let text = EXAMPLE
        .replace(
            "b: { address: 10.0.0.2, host: beta }",
            "b: { address: 10.0.0.2, host: alpha }",
        )
        .replace("192.0.2.2", "192.0.2.22")
        .replace("  red:\n", "  red:\n    pkey: 0x8001\n");
    let diff = Policy::diff(&old, &policy(&text));
    let words = |names: &[_]| {
        names
            .iter()
            .map(|n: &masq_policy::HostName| n.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(words(&diff.hosts_changed), ["beta"]);
    assert_eq!(diff.partitions_changed.len(), 1);
    let [change] = &diff.endpoints_changed[..] else {
        panic!("{diff:?}");
    };
    assert!(change.host && !change.addresses && change.endpoint == id("blue/b"));
    assert!(Policy::diff(&old, &old).is_empty());
}

proptest! {
    /// Whatever names and keys there are: a policy for several hosts that is taken has a
    /// partition for each tenant, and one tenant for each partition.
    #[test]
    fn no_two_tenants_of_a_policy_with_hosts_share_a_partition(
        keys in prop::collection::vec(prop::option::weighted(0.7, prop_oneof![0x8000u16..0x8008, Just(0xffff), any::<u16>()]), 1..8),
        decimal in any::<bool>(),
    ) {
        let mut text = String::from("version: 1\nhosts: {h: {address: 192.0.2.1}}\ntenants:\n");
        for (number, key) in keys.iter().enumerate() {
            let key = match key {
                None => String::new(),
                Some(key) if decimal => format!("pkey: {key}, "),
                Some(key) => format!("pkey: {key:#x}, "),
            };
            text.push_str(&format!("  t{number}: {{{key}endpoints: {{a: {{address: 10.0.0.1}}}}}}\n"));
        }
        let named: Vec<_> = keys.iter().flatten().collect();
        let distinct: std::collections::BTreeSet<_> = named.iter().collect();
        let good = named.iter().all(|key| **key > 0x8000) && distinct.len() == named.len();
        match Policy::parse("p.yaml", &text) {
            Ok(policy) => {
                prop_assert!(good);
                prop_assert!(policy.shared_partition().is_none());
                for (tenant, key) in policy.tenants().zip(&keys) {
                    prop_assert!(key.is_none_or(|key| tenant.partition().key() == key));
                    prop_assert!(tenant.partition().key() > 0x8000);
                }
            }
            // By chance, a derived one may be named.
            Err(errors) => prop_assert!(!good || errors.to_string().contains("derived"), "{}", errors),
        }
    }
}
