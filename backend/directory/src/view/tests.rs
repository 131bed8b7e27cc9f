use super::*;
use proptest::prelude::*;

const POLICY: &str = "
version: 1
hosts: { alpha: { address: 192.0.2.1 }, beta: { address: 192.0.2.2 }, gamma: { address: 192.0.2.3 } }
tenants:
  t:
    addresses: 10.0.0.0/16
    pkey: 0xffff
    endpoints:
      fixed: { address: 10.0.0.1 }
      placed: { address: 10.0.0.2, host: alpha }
      out: { outside: 192.0.2.9 }
      worker: { address: auto }
      far: { address: auto, host: gamma }
    rules: [ { from: worker, to: any, action: allow } ]
";

fn policy() -> Policy {
    Policy::parse("p", POLICY).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn name(text: &str) -> EndpointName {
    EndpointName::new(text).unwrap()
}

fn tenant() -> TenantName {
    TenantName::new("t").unwrap()
}

fn entry(endpoint: &str, class: &str, host: &str) -> Option<Entry> {
    Some(Entry {
        endpoint: name(endpoint),
        class: (!class.is_empty()).then(|| name(class)),
        host: ip(host),
    })
}

fn change(tenant: &str, address: &str, entry: Option<Entry>) -> Change {
    let (tenant, address) = (TenantName::new(tenant).unwrap(), ip(address));
    Change {
        slot: Slot { tenant, address },
        entry,
    }
}

fn view(changes: &[Change]) -> View {
    let mut view = View::default();
    changes.iter().for_each(|change| view.apply(change.clone()));
    view
}

fn addresses(policy: &Policy, endpoint: &str) -> Option<Vec<String>> {
    let tenant = policy.tenant("t").unwrap();
    let endpoint = tenant.endpoint(endpoint)?;
    Some(
        endpoint
            .addresses()
            .iter()
            .map(ToString::to_string)
            .collect(),
    )
}

#[test]
fn the_directory_is_believed_about_where_not_about_who() {
    let policy = policy();
    for (tenant, address, endpoint, class, host, why) in [
        ("t", "10.0.0.1", "fixed", "", "192.0.2.2", ""),
        ("t", "10.0.0.2", "placed", "", "192.0.2.1", ""),
        ("t", "10.0.1.1", "worker.x", "worker", "192.0.2.2", ""),
        ("t", "10.0.1.1", "far.x", "far", "192.0.2.3", ""),
        ("u", "10.0.0.1", "fixed", "", "192.0.2.2", "no such tenant"),
        (
            "t",
            "10.0.0.1",
            "fixed",
            "",
            "192.0.2.7",
            "no host with the address 192.0.2.7",
        ),
        (
            "t",
            "10.0.0.3",
            "other",
            "",
            "192.0.2.2",
            "no endpoint t/other",
        ),
        ("t", "10.0.0.3", "fixed", "", "192.0.2.2", "another address"),
        (
            "t",
            "10.0.0.2",
            "placed",
            "",
            "192.0.2.2",
            "t/placed lives on host alpha",
        ),
        (
            "t",
            "192.0.2.9",
            "out",
            "",
            "192.0.2.2",
            "t/out is a host outside",
        ),
        (
            "t",
            "10.0.1.1",
            "other.x",
            "other",
            "192.0.2.2",
            "no endpoint t/other with",
        ),
        (
            "t",
            "10.0.1.1",
            "fixed",
            "fixed",
            "192.0.2.2",
            "no endpoint t/fixed with",
        ),
        (
            "t",
            "10.1.0.1",
            "worker.x",
            "worker",
            "192.0.2.2",
            "outside the `addresses`",
        ),
        (
            "t",
            "10.0.0.1",
            "worker.x",
            "worker",
            "192.0.2.2",
            "by the policy, t/fixed has it",
        ),
        (
            "t",
            "10.0.1.1",
            "far.x",
            "far",
            "192.0.2.2",
            "t/far lives on host gamma",
        ),
    ] {
        let change = change(tenant, address, entry(endpoint, class, host));
        let (slot, view) = (change.slot.clone(), view(&[change]));
        let judged = view
            .judge(&policy, &slot)
            .map(|ignored| ignored.to_string());
        assert!(
            judged.as_deref().unwrap_or("").contains(why),
            "{slot}: {judged:?}"
        );
        assert_eq!(judged.is_none(), why.is_empty(), "{slot}: {judged:?}");
        let found = view.lookup(&policy, &slot.tenant, slot.address);
        assert_eq!(found, why.is_empty().then(|| ip(host)));
        let mut with = policy.clone();
        let is_instance = why.is_empty() && !class.is_empty();
        assert_eq!(view.bring_in_step(&mut with, &slot.tenant), is_instance);
    }
}

#[test]
fn instances_come_go_and_change_with_what_is_said_of_them() {
    let mut policy = policy();
    let mut view = view(&[
        change("t", "10.0.1.1", entry("worker.x", "worker", "192.0.2.2")),
        change("t", "10.0.1.2", entry("worker.x", "worker", "192.0.2.2")),
    ]);
    assert!(view.bring_in_step(&mut policy, &tenant()));
    assert!(!view.bring_in_step(&mut policy, &tenant()));
    let found = addresses(&policy, "worker.x").unwrap();
    assert_eq!(found, ["10.0.1.1", "10.0.1.2"]);
    // It moves: the other host has one of its addresses, under another name.
    view.apply(change("t", "10.0.1.2", None));
    view.apply(change(
        "t",
        "10.0.1.1",
        entry("worker.y", "worker", "192.0.2.3"),
    ));
    assert!(view.bring_in_step(&mut policy, &tenant()));
    assert_eq!(addresses(&policy, "worker.x"), None);
    assert_eq!(addresses(&policy, "worker.y").unwrap(), ["10.0.1.1"]);
    // The same name, but another host: another endpoint.
    view.apply(change(
        "t",
        "10.0.1.1",
        entry("worker.y", "worker", "192.0.2.2"),
    ));
    assert!(view.bring_in_step(&mut policy, &tenant()));
    let endpoint = policy.endpoint(&"t/worker.y".parse().unwrap()).unwrap();
    assert_eq!(*endpoint.home(), Home::Elsewhere(ip("192.0.2.2")));
    view.apply(change("t", "10.0.1.1", None));
    assert!(view.bring_in_step(&mut policy, &tenant()));
    assert_eq!(addresses(&policy, "worker.y"), None);
}

#[test]
fn what_lives_here_keeps_its_name_and_its_address() {
    let mut policy = policy();
    let class = "t/worker".parse().unwrap();
    let here = policy.add_instance(&class, name("worker.db")).unwrap();
    policy.set_addresses(&here, &[ip("10.0.1.1")]);
    let mut view = view(&[
        change("t", "10.0.1.1", entry("worker.x", "worker", "192.0.2.2")),
        change("t", "10.0.1.2", entry("worker.db", "worker", "192.0.2.2")),
        change("t", "10.0.1.3", entry("worker.db", "worker", "192.0.2.3")),
    ]);
    view.bring_in_step(&mut policy, &tenant());
    assert_eq!(addresses(&policy, "worker.db").unwrap(), ["10.0.1.1"]);
    let at = |policy: &Policy, address: &str| {
        let tenant = policy.tenant("t").unwrap();
        tenant.endpoint_at(ip(address)).map(|e| e.id().to_string())
    };
    assert!(at(&policy, "10.0.1.2").unwrap().starts_with("t/worker.db-"));
    assert!(at(&policy, "10.0.1.3").unwrap().starts_with("t/worker.db-"));
    // It goes, and the other has what it had to wait for.
    policy.remove_instance(&here);
    view.apply(change("t", "10.0.1.2", None));
    view.bring_in_step(&mut policy, &tenant());
    assert_eq!(at(&policy, "10.0.1.1").unwrap(), "t/worker.x");
    assert_eq!(at(&policy, "10.0.1.3").unwrap(), "t/worker.db");
    // One that starts here has an address that another host claims as well.
    let here = policy.add_instance(&class, name("worker.new")).unwrap();
    assert_eq!(policy.set_addresses(&here, &[ip("10.0.1.1")]), []);
    assert_eq!(at(&policy, "10.0.1.1").unwrap(), "t/worker.new");
}

proptest! {
    /// Whatever was said before: the policy has what is said now, and nothing else.
    #[test]
    fn only_what_is_said_last_counts(
        changes in prop::collection::vec((0..6u8, prop::option::of((0..3u8, 0..2u8, 2..5u8))), 1..40),
    ) {
        let (mut view, mut stepwise) = (View::default(), policy());
        for (address, said) in changes {
            let entry = said.and_then(|(name, class, host)| {
                let class = ["worker", "far"][usize::from(class)];
                entry(&format!("{class}.{name}"), class, &format!("192.0.2.{host}"))
            });
            view.apply(change("t", &format!("10.0.1.{address}"), entry));
            view.bring_in_step(&mut stepwise, &tenant());
        }
        let mut at_once = policy();
        view.bring_in_step(&mut at_once, &tenant());
        let all = |policy: &Policy| {
            let tenant = policy.tenant("t").unwrap();
            let mut all: Vec<_> = tenant.endpoints()
                .map(|e| (e.id().clone(), e.addresses().to_vec(), e.home().clone()))
                .collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        prop_assert_eq!(all(&stepwise), all(&at_once));
        for (slot, entry) in view.entries() {
            let holder = stepwise.tenant("t").unwrap().endpoint_at(slot.address);
            let believed = view.judge(&stepwise, &slot).is_none();
            prop_assert_eq!(holder.is_some(), believed, "{} {}", slot, entry);
            if let Some(holder) = holder {
                prop_assert_eq!(holder.home(), &Home::Elsewhere(entry.host));
            }
        }
    }
}
