//! RConnrename: where endpoints live, by the policy and by the directory.

use super::*;
use masq_device::Destination;
use masq_directory::{Change, Embedded, Entry, LocalHost, Slot};
use std::net::IpAddr;

const HOSTS: &str = "
version: 1
hosts: { alpha: { address: 192.0.2.1 }, beta: { address: 192.0.2.2 } }
tenants:
  blue:
    pkey: 0xffff
    addresses: 10.0.0.0/16
    endpoints:
      here: { address: 10.0.0.1, host: alpha }
      there: { address: 10.0.0.2, host: beta }
      anywhere: { address: 10.0.0.3 }
      filer: { outside: 192.0.2.9 }
      worker: { address: auto }
    rules: [ { from: any, to: any, action: allow } ]
";

fn on(host: Option<&str>) -> World {
    let policy = Policy::parse("p", HOSTS).unwrap();
    let this = host.map(|host| LocalHost::find(&policy, Some(host)).unwrap().unwrap());
    World::new(
        Arc::new(policy),
        Arc::new(FakeDevice),
        DeviceIdentity::default(),
        this,
        Box::new(Embedded),
    )
}

fn id(text: &str) -> EndpointId {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn host_of(world: &mut World, endpoint: &str) -> Option<IpAddr> {
    match world.destination(&id(endpoint)).unwrap().unwrap() {
        Destination::Endpoint(key) => {
            assert_eq!(key, world.endpoint_key(&id(endpoint)));
            None
        }
        Destination::Host(host) => Some(host),
        Destination::Multicast(_) => panic!("no group"),
    }
}

fn said(world: &mut World, address: &str, entry: Option<(&str, Option<&str>, &str)>) {
    let id = id("blue/here");
    let slot = Slot {
        tenant: id.tenant().clone(),
        address: ip(address),
    };
    let entry = entry.map(|(endpoint, class, host)| Entry {
        endpoint: endpoint.parse().unwrap(),
        class: class.map(|class| class.parse().unwrap()),
        host: ip(host),
    });
    world.view.apply(Change { slot, entry });
    let view = std::mem::take(&mut world.view);
    world.change_policy(id.tenant(), |policy| {
        view.bring_in_step(policy, id.tenant())
    });
    world.view = view;
}

#[test]
fn what_the_policy_places_is_where_it_says() {
    let mut alpha = on(Some("alpha"));
    assert_eq!(host_of(&mut alpha, "blue/here"), None);
    assert_eq!(host_of(&mut alpha, "blue/there"), Some(ip("192.0.2.2")));
    assert_eq!(host_of(&mut alpha, "blue/filer"), Some(ip("192.0.2.9")));
    let mut beta = on(Some("192.0.2.2"));
    assert_eq!(host_of(&mut beta, "blue/here"), Some(ip("192.0.2.1")));
    assert_eq!(host_of(&mut beta, "blue/there"), None);
}

#[test]
fn a_host_that_is_not_one_of_several_reaches_no_other() {
    let mut alone = on(None);
    let refused = alone.destination(&id("blue/there")).unwrap_err();
    assert_eq!(refused.status, Status::Unreachable);
    assert!(refused.reason.contains("--host"), "{}", refused.reason);
    assert_eq!(alone.partition(&id("blue/here")), None);
    let partition = on(Some("alpha")).partition(&id("blue/here")).unwrap();
    assert_eq!(partition, masq_wire::PKey::DEFAULT);
}

#[test]
fn what_the_policy_does_not_place_is_where_the_directory_says_unless_it_is_here() {
    let mut alpha = on(Some("alpha"));
    assert_eq!(host_of(&mut alpha, "blue/anywhere"), None);
    let claim = Some(("anywhere", None, "192.0.2.2"));
    said(&mut alpha, "10.0.0.3", claim);
    assert_eq!(host_of(&mut alpha, "blue/anywhere"), Some(ip("192.0.2.2")));
    alpha
        .charge(&id("blue/anywhere"), Kind::Sessions, 1)
        .unwrap();
    assert_eq!(host_of(&mut alpha, "blue/anywhere"), None);
    alpha.ledger.refund(&id("blue/anywhere"), Kind::Sessions, 1);
    assert_eq!(host_of(&mut alpha, "blue/anywhere"), Some(ip("192.0.2.2")));
    said(&mut alpha, "10.0.0.3", None);
    assert_eq!(host_of(&mut alpha, "blue/anywhere"), None);
}

#[test]
fn containers_of_other_hosts_are_reached_by_the_rules_of_their_class() {
    let mut alpha = on(Some("alpha"));
    let claim = Some(("worker.x", Some("worker"), "192.0.2.2"));
    said(&mut alpha, "10.0.1.1", claim);
    let from = id("blue/here");
    let asked = |world: &World| {
        let asked = masq_policy::Request::Connect {
            from: &from,
            to: ip("10.0.1.1"),
            qp_type: masq_policy::QpType::Rc,
            service: masq_policy::Service::Verbs,
        };
        world.decide(&asked).is_ok()
    };
    assert!(asked(&alpha));
    assert_eq!(host_of(&mut alpha, "blue/worker.x"), Some(ip("192.0.2.2")));
    // A container of this host is here, whatever its class.
    let class = id("blue/worker");
    let own = alpha.change_policy(class.tenant(), |policy| {
        policy.add_instance(&class, "worker.y".parse().unwrap())
    });
    assert_eq!(host_of(&mut alpha, &own.unwrap().to_string()), None);
    said(&mut alpha, "10.0.1.1", None);
    assert!(!asked(&alpha));
    assert!(alpha.destination(&id("blue/worker.x")).is_err());
}
