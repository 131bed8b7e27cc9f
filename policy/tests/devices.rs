//! Which device a tenant is on.

use masq_policy::{EndpointId, Policy, QpType, Service};

const EXAMPLE: &str = include_str!("../examples/two-devices.yaml");

fn policy(text: &str) -> Policy {
    let policy = Policy::parse("two-devices.yaml", text).unwrap_or_else(|e| panic!("{e}"));
    assert!(policy.warnings().is_empty(), "{:?}", policy.warnings());
    policy
}

fn device<'p>(policy: &'p Policy, tenant: &str) -> Option<&'p str> {
    Some(policy.tenant(tenant)?.device()?.as_str())
}

#[test]
fn a_tenant_is_on_the_device_that_it_names_or_on_none_in_particular() {
    let policy = policy(EXAMPLE);
    assert_eq!(device(&policy, "blue"), Some("rxe0"));
    assert_eq!(device(&policy, "red"), None);
}

#[test]
fn diff_tells_of_tenants_on_another_device() {
    let old = policy(EXAMPLE);
    for (from, to) in [("device: rxe0", "device: siw0"), ("    device: rxe0\n", "")] {
        let diff = Policy::diff(&old, &policy(&EXAMPLE.replace(from, to)));
        assert!(!diff.is_empty());
        let changed: Vec<_> = diff.devices_changed.iter().map(|t| t.as_str()).collect();
        assert_eq!(changed, ["blue"]);
        assert!(diff.endpoints_changed.is_empty(), "{diff:?}");
    }
}

#[test]
fn an_explanation_names_the_device_if_the_policy_does() {
    let policy = policy(EXAMPLE);
    let note = |tenant: &str| {
        let id = |name: &str| format!("{tenant}/{name}").parse::<EndpointId>().unwrap();
        let explained = policy.explain_between(&id("a"), &id("b"), QpType::Rc, Service::Verbs);
        explained.unwrap().notes
    };
    assert_eq!(note("blue"), ["blue is on the device rxe0"]);
    assert!(note("red").is_empty());
}
