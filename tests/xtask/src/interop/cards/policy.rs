//! Whom the hosts of the cards' scenarios serve.

/// Names and addresses of the two hosts.
pub(super) const HOSTS: [(&str, &str); 2] = [("alpha", "10.77.0.1"), ("beta", "10.77.0.2")];

/// A host that runs no masqd.
pub(super) const PLAIN: (&str, &str) = ("plain", "10.77.0.3");

/// A second address of its, to which no rule leads.
pub(super) const OTHER: (&str, &str) = ("other", "10.77.0.4");

/// The rule that a scenario takes away and gives back.
pub(super) const RULE: &str = "a-and-b";
/// The rule that refuses.
pub(super) const REFUSES: &str = "keep-out";

/// - `blue/a` and `blue/b` live apart, `blue/a` and `blue/c` on one host;
/// - nobody may reach `blue/far`;
/// - `red` has the addresses of `blue`;
/// - `tight` has hardly a quota;
/// - of `green`, all but `shut` may talk with a host that runs no masqd. It knows hosts
///   only, so that who tells it a GID has its host's address.
const POLICY: &str = "
version: 1
hosts: { alpha: { address: 10.77.0.1 }, beta: { address: 10.77.0.2 } }
tenants:
  blue:
    endpoints:
      a: { address: 10.0.0.1, host: alpha }
      b: { address: 10.0.0.2, host: beta }
      c: { address: 10.0.0.3, host: alpha }
      far: { address: 10.0.0.9, host: beta }
    rules:
      - { name: keep-out, from: any, to: far, both_ways: true, action: deny }
      - { name: a-and-b, from: a, to: b, both_ways: true, action: allow }
      - { name: a-and-c, from: a, to: c, both_ways: true, action: allow }
  red:
    endpoints:
      a: { address: 10.0.0.1, host: alpha }
      b: { address: 10.0.0.2, host: beta }
      c: { address: 10.0.0.3, host: alpha }
    rules:
      - { name: red, from: a, to: b, both_ways: true, action: allow }
      - { name: red-near, from: a, to: c, both_ways: true, action: allow }
  green:
    pkey: 0xffff
    endpoints:
      a: { address: 10.77.0.1, host: alpha }
      shut: { address: 10.0.0.6, host: alpha }
      v: { address: 10.0.0.5, host: alpha }
      plain: { outside: 10.77.0.3 }
      other: { outside: 10.77.0.4 }
    rules:
      - { name: keep-shut, from: any, to: shut, both_ways: true, action: deny }
      - { name: a-and-plain, from: a, to: plain, both_ways: true, qp_types: [RC, UC, UD], action: allow }
      - { name: v-and-plain, from: v, to: plain, both_ways: true, qp_types: [RC, UD], action: allow }
  tight:
    quotas: { qps: 4, pinned: 1MiB }
    endpoints:
      a: { address: 10.0.0.1, host: alpha }
";

/// As it begins.
pub(super) fn whole() -> String {
    POLICY.to_owned()
}

/// Without [`RULE`].
pub(super) fn cut() -> String {
    let kept = POLICY.lines().filter(|line| !line.contains(RULE));
    kept.collect::<Vec<_>>().join("\n") + "\n"
}

/// With a tenant on this device.
pub(super) fn on_device(tenant: &str, device: &str) -> String {
    let name = format!("  {tenant}:\n");
    POLICY.replace(&name, &format!("{name}    device: {device}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_moved_to_a_device_and_nobody_else() {
        let moved = on_device("red", "rxe1");
        assert_eq!(moved.replace("    device: rxe1\n", ""), whole());
        assert!(moved.contains("  red:\n    device: rxe1\n    endpoints:"));
    }

    #[test]
    fn the_cut_policy_lacks_one_rule_and_nothing_else() {
        let (whole, cut) = (whole(), cut());
        assert_eq!(whole.lines().count(), cut.lines().count() + 1);
        assert!(whole.contains(RULE) && !cut.contains(RULE));
        assert!(cut.contains(REFUSES));
        for (name, address) in HOSTS {
            assert!(whole.contains(&format!("{name}: {{ address: {address} }}")));
        }
    }
}
