//! Which endpoint a container becomes, and endpoints that come and go.

use std::{collections::BTreeMap, net::IpAddr};

use masq_policy::{
    AddressRefusal, Container, EndpointId, EndpointName, InstanceError, PlaceError, Placement,
    Policy, QpType, Request, Service, instance_name,
};
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../examples/containers.yaml");

fn policy() -> Policy {
    Policy::parse("containers.yaml", EXAMPLE).unwrap()
}

fn id(text: &str) -> EndpointId {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn asks<'a>(tenant: &'a str, endpoint: Option<&'a str>) -> Container<'a> {
    Container {
        tenant: Some(tenant),
        endpoint,
        ..Container::default()
    }
}

/// A container that red's selector takes.
fn of_red<'a>() -> Container<'a> {
    Container {
        labels: BTreeMap::from([("team", "red")]),
        addresses: vec![ip("10.88.130.7")],
        ..Container::default()
    }
}

fn instance(policy: &mut Policy, class: &str, name: &str, addresses: &[&str]) -> EndpointId {
    let id = policy
        .add_instance(&id(class), EndpointName::new(name).unwrap())
        .unwrap();
    let addresses: Vec<_> = addresses.iter().map(|text| ip(text)).collect();
    assert_eq!(policy.set_addresses(&id, &addresses), []);
    id
}

fn allowed(policy: &Policy, from: &EndpointId, to: &str) -> bool {
    policy
        .decide(&Request::Connect {
            from,
            to: ip(to),
            qp_type: QpType::Rc,
            service: Service::Verbs,
        })
        .allowed
}

#[test]
fn a_tenant_alone_means_its_one_class_and_a_name_means_that_endpoint() {
    let policy = policy();
    assert_eq!(
        policy.place(&asks("blue", None)),
        Ok(Placement::InstanceOf(id("blue/pod")))
    );
    let store = Container {
        image: Some("localhost/store:2"),
        ..asks("blue", Some("store"))
    };
    assert_eq!(policy.place(&store), Ok(Placement::Fixed(id("blue/store"))));
}

#[test]
fn what_is_unknown_is_named_with_what_there_is() {
    let policy = policy();
    let error = policy.place(&asks("bleu", None)).unwrap_err().to_string();
    assert!(
        error.contains("`bleu`") && error.contains("blue, red"),
        "{error}"
    );
    let error = policy
        .place(&asks("blue", Some("pods")))
        .unwrap_err()
        .to_string();
    assert!(error.contains("pod, store"), "{error}");
}

#[test]
fn asking_is_not_enough_where_the_tenant_says_which_containers_it_takes() {
    let policy = policy();
    let refused = policy.place(&asks("red", None)).unwrap_err();
    assert!(matches!(refused, PlaceError::NotSelected { .. }));
    let text = refused.to_string();
    assert!(
        text.contains("network 10.88.128.0/17 and label team=red"),
        "{text}"
    );
    let red = Container {
        tenant: Some("red"),
        ..of_red()
    };
    assert_eq!(
        policy.place(&red),
        Ok(Placement::InstanceOf(id("red/worker")))
    );
    let elsewhere = Container {
        addresses: vec![ip("10.88.0.7")],
        ..red
    };
    assert!(policy.place(&elsewhere).is_err());
}

#[test]
fn an_endpoints_selectors_hold_besides_its_tenants() {
    let other_image = Container {
        image: Some("localhost/perftest:1"),
        ..asks("blue", Some("store"))
    };
    let refused = policy().place(&other_image).unwrap_err().to_string();
    assert!(
        refused.contains("endpoint blue/store takes image */store:*"),
        "{refused}"
    );
    assert!(
        policy().place(&asks("blue", Some("store"))).is_err(),
        "no image is known"
    );
}

#[test]
fn a_container_that_asks_for_nothing_is_chosen_by_selectors_only() {
    let policy = policy();
    assert_eq!(
        policy.place(&of_red()),
        Ok(Placement::InstanceOf(id("red/worker")))
    );
    let nobodys = Container::default();
    assert_eq!(policy.place(&nobodys), Err(PlaceError::NotChosen));
}

#[test]
fn two_classes_that_both_fit_are_not_guessed_between() {
    let text = EXAMPLE.replace(
        "pod: { address: auto }",
        "pod: { address: auto }\n      pad: { address: auto }",
    );
    let policy = Policy::parse("two.yaml", &text).unwrap();
    let error = policy.place(&asks("blue", None)).unwrap_err();
    assert_eq!(error, PlaceError::Ambiguous("blue/pad, blue/pod".into()));
}

#[test]
fn instances_are_meant_by_rules_of_their_class_and_reached_by_their_addresses() {
    let mut policy = policy();
    let a = instance(&mut policy, "blue/pod", "pod.a", &["10.88.0.1"]);
    let b = instance(&mut policy, "blue/pod", "pod.b", &["fd88::2", "10.88.0.2"]);
    assert_eq!(
        policy.endpoint(&b).unwrap().address(),
        Some(ip("10.88.0.2")),
        "IPv4 first"
    );
    assert!(allowed(&policy, &a, "10.88.0.2"));
    assert!(allowed(&policy, &a, "fd88::2"));
    assert!(allowed(&policy, &a, "10.88.200.1"), "the store");
    assert!(!allowed(&policy, &a, "10.88.0.3"), "nobody's");
    policy.remove_instance(&b);
    assert!(!allowed(&policy, &a, "10.88.0.2"));
    assert!(policy.endpoint(&b).is_none());
}

#[test]
fn an_address_outside_the_tenants_networks_or_of_somebody_else_is_not_had() {
    let mut policy = policy();
    let a = instance(&mut policy, "blue/pod", "pod.a", &["10.88.0.1"]);
    let b = instance(&mut policy, "blue/pod", "pod.b", &[]);
    let wanted = [
        "10.88.0.1",
        "10.88.200.1",
        "192.168.0.1",
        "127.0.0.1",
        "fe80::1",
        "10.88.0.2",
    ];
    let wanted: Vec<_> = wanted.iter().map(|text| ip(text)).collect();
    let refused = policy.set_addresses(&b, &wanted);
    assert_eq!(
        refused,
        [
            (ip("10.88.0.1"), AddressRefusal::Held(a.clone())),
            (ip("10.88.200.1"), AddressRefusal::Held(id("blue/store"))),
            (ip("192.168.0.1"), AddressRefusal::Outside),
        ]
    );
    let had: Vec<_> = policy
        .endpoint(&b)
        .unwrap()
        .addresses()
        .iter()
        .map(|v| v.ip())
        .collect();
    assert_eq!(had, [ip("10.88.0.2")]);
    // The same address in another tenant is another one.
    instance(&mut policy, "red/worker", "worker.a", &["10.88.0.1"]);
    // And it is free once its holder has gone.
    policy.remove_instance(&a);
    assert_eq!(policy.set_addresses(&b, &[ip("10.88.0.1")]), []);
}

#[test]
fn names_of_instances_are_names_and_no_name_is_given_twice() {
    let class = EndpointName::new("pod").unwrap();
    let name = instance_name(&class, &"3f2a9c1e77d05b12".repeat(4)).unwrap();
    assert_eq!(name.as_str(), "pod.3f2a9c1e77d0");
    assert_eq!(instance_name(&class, "../../x").unwrap().as_str(), "pod.x");
    assert_eq!(instance_name(&class, "//"), None);
    let long = |n: u8| instance_name(&class, &format!("a-name-that-somebody-chose-{n}")).unwrap();
    assert_ne!(long(1), long(2));
    assert!(
        long(1).as_str().starts_with("pod.a-name-that-som-"),
        "{}",
        long(1)
    );
    let mut policy = policy();
    policy.add_instance(&id("blue/pod"), name.clone()).unwrap();
    let again = policy.add_instance(&id("blue/pod"), name);
    assert!(matches!(again, Err(InstanceError::Exists(_))));
    let fixed = policy.add_instance(&id("blue/pod"), EndpointName::new("store").unwrap());
    assert!(matches!(fixed, Err(InstanceError::Exists(_))));
    let no_class = policy.add_instance(&id("blue/store"), EndpointName::new("x").unwrap());
    assert!(matches!(no_class, Err(InstanceError::NoClass(_))));
}

#[test]
fn diff_tells_of_classes_and_of_which_containers_a_tenant_takes() {
    let without = EXAMPLE.replace("      pod: { address: auto }\n", "");
    let without = without.replace("from: pod, to: pod", "from: any, to: any");
    let without = without.replace("from: pod, to: store", "from: any, to: store");
    let without = Policy::parse("without.yaml", &without).unwrap();
    let more = EXAMPLE
        .replace("qps: 64", "qps: 32")
        .replace("team: red", "team: pink");
    let more = Policy::parse("more.yaml", &more).unwrap();
    assert_eq!(
        Policy::diff(&without, &policy()).classes_added,
        [id("blue/pod")]
    );
    assert_eq!(
        Policy::diff(&policy(), &without).classes_removed,
        [id("blue/pod")]
    );
    let diff = Policy::diff(&policy(), &more);
    assert_eq!(diff.classes_changed, [id("red/worker")]);
    assert_eq!(diff.places_changed, ["red".parse().unwrap()]);
}

#[test]
fn a_class_is_explained_as_any_of_its_containers() {
    let policy = policy();
    let explain = |from: &str, to: &str| {
        policy
            .explain_between(&id(from), &id(to), QpType::Rc, Service::Verbs)
            .unwrap()
    };
    let pods = explain("blue/pod", "blue/pod");
    assert!(pods.verdict.allowed, "{pods}");
    assert!(pods.notes[0].contains("stands for its containers"));
    assert!(explain("blue/store", "blue/pod").verdict.allowed);
    assert!(explain("blue/pod", "blue/store").verdict.allowed);
    assert!(!explain("blue/pod", "red/worker").verdict.allowed);
    assert!(!explain("red/worker", "blue/pod").verdict.allowed);
}

#[derive(Clone, Debug)]
enum Step {
    Add(usize, usize),
    Remove(usize),
    Address(usize, Vec<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6usize, 0..2usize).prop_map(|(name, class)| Step::Add(name, class)),
        (0..6usize).prop_map(Step::Remove),
        (0..6usize, prop::collection::vec(0..9usize, 0..4))
            .prop_map(|(name, addresses)| Step::Address(name, addresses)),
    ]
}

const CLASSES: &str = "
version: 1
tenants:
  t:
    addresses: [10.0.0.0/8]
    endpoints:
      one: { address: auto, labels: { k: one } }
      two: { address: auto, labels: { k: two } }
      fixed: { address: 10.0.0.1 }
    rules:
      - { from: 10.0.0.3, to: any, action: deny }
      - { from: one, to: two, both_ways: true, action: allow }
      - { from: { labels: { k: one } }, to: 10.0.0.4/30, qp_types: RC, action: allow }
      - { from: [fixed, 10.0.0.2], to: { cidr: 10.0.0.0/24 }, action: allow }
";

proptest! {
    #[test]
    fn whatever_comes_and_goes_the_index_decides_as_a_scan_does(steps in prop::collection::vec(step(), 1..40)) {
        let mut policy = Policy::parse("classes.yaml", CLASSES).unwrap();
        let name = |i: usize| EndpointName::new(&format!("i{i}")).unwrap();
        let of = |i: usize| id(&format!("t/i{i}"));
        let at = |i: usize| ip(&format!("10.0.0.{i}"));
        for step in steps {
            match step {
                Step::Add(i, class) => {
                    let class = id(["t/one", "t/two"][class]);
                    let known = policy.endpoint(&of(i)).is_some();
                    prop_assert_eq!(policy.add_instance(&class, name(i)).is_err(), known);
                }
                Step::Remove(i) => policy.remove_instance(&of(i)),
                Step::Address(i, addresses) => {
                    let addresses: Vec<_> = addresses.into_iter().map(at).collect();
                    policy.set_addresses(&of(i), &addresses);
                }
            }
        }
        let endpoints: Vec<_> = policy.endpoints().map(|e| e.id().clone()).collect();
        for from in &endpoints {
            for to in (0..9).map(at) {
                let request = Request::Connect { from, to, qp_type: QpType::Rc, service: Service::Verbs };
                prop_assert_eq!(policy.decide(&request), policy.explain(&request).verdict);
            }
            for address in policy.endpoint(from).unwrap().addresses() {
                let tenant = policy.tenant("t").unwrap();
                prop_assert_eq!(tenant.endpoint_at(address.ip()).unwrap().id(), from);
            }
        }
    }
}
