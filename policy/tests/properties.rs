//! Properties: the compiled rules decide as a plain scan does, and no text harms the reader.

use std::{collections::BTreeMap, fmt::Write, net::IpAddr};

use masq_policy::{
    Action, EndpointId, Policy, PolicyErrors, PortSpace, QpType, Request, Rule, RuleRef, Selector,
    Service, ServiceMatch, Tenant,
};
use proptest::prelude::*;

const EXAMPLES: [&str; 5] = [
    include_str!("../examples/two-tenants.yaml"),
    include_str!("../examples/storage-cluster.yaml"),
    include_str!("../examples/containers.yaml"),
    include_str!("../examples/two-devices.yaml"),
    include_str!("../examples/two-hosts.yaml"),
];

/// The rules asked one after the other, written without the crate's own matching.
fn naive(
    tenant: &Tenant,
    from: &str,
    to: IpAddr,
    qp_type: QpType,
    service: Service,
) -> Option<String> {
    type Facts = (String, IpAddr, BTreeMap<String, String>);
    let facts = |e: &masq_policy::Endpoint| -> Facts {
        let labels = e
            .labels()
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        (e.id().name().to_string(), e.address().unwrap(), labels)
    };
    let from = facts(
        tenant
            .endpoints()
            .find(|e| e.id().name().as_str() == from)?,
    );
    let to = facts(tenant.endpoints().find(|e| e.address() == Some(to))?);
    let meant = |selectors: &[Selector], (name, address, labels): &Facts| {
        selectors.iter().any(|selector| match selector {
            Selector::Any => true,
            Selector::Endpoint(wanted) => wanted.as_str() == name,
            Selector::Address(wanted) => wanted.ip() == *address,
            Selector::Network(net) => net
                .to_string()
                .parse::<ipnet::IpNet>()
                .unwrap()
                .contains(address),
            Selector::Labels(wanted) => wanted
                .iter()
                .all(|(k, v)| labels.get(&**k).is_some_and(|have| **have == **v)),
        })
    };
    let serves = |rule: &Rule| {
        rule.services()
            .iter()
            .any(|wanted| match (wanted, service) {
                (ServiceMatch::Any, _) | (ServiceMatch::Verbs, Service::Verbs) => true,
                (ServiceMatch::RdmaCm { space, ports }, Service::RdmaCm { space: asked, port }) => {
                    (space.is_none() || *space == Some(asked))
                        && *ports.start() <= port
                        && port <= *ports.end()
                }
                _ => false,
            })
    };
    for rule in tenant.rules() {
        let forward = meant(rule.from(), &from) && meant(rule.to(), &to);
        let backward = rule.both_ways() && meant(rule.from(), &to) && meant(rule.to(), &from);
        if (forward || backward) && rule.qp_types().contains(qp_type) && serves(rule) {
            let word = if rule.action() == Action::Allow {
                "allowed"
            } else {
                "denied"
            };
            return Some(format!("{word} by {}", rule.id()));
        }
    }
    Some(if from.0 == to.0 {
        "allowed by self".into()
    } else {
        "denied by default deny".into()
    })
}

const ADDRESSES: [&str; 6] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.1.1",
    "10.1.0.1",
    "fd00::1",
    "fd00:0:0:1::1",
];

fn selector() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => Just("any".to_owned()),
        3 => (0..6usize).prop_map(|i| format!("e{i}")),
        2 => (0..6usize).prop_map(|i| format!("\"{}\"", ADDRESSES[i])),
        2 => prop::sample::select(vec![
            "10.0.0.0/24", "10.0.0.0/16", "10.0.0.0/8", "\"fd00::/16\"", "\"fd00::/64\"", "0.0.0.0/0", "\"::/0\"",
            "192.168.0.0/16",
        ]).prop_map(str::to_owned),
        2 => (0..3u8, 0..2u8).prop_map(|(a, b)| format!("{{labels: {{a: v{a}, b: v{b}}}}}")),
        1 => (0..3u8).prop_map(|a| format!("{{labels: {{a: v{a}}}}}")),
        1 => prop::collection::vec((0..6usize).prop_map(|i| format!("e{i}")), 1..4)
            .prop_map(|names| format!("[{}]", names.join(", "))),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    let qp_types = prop::sample::select(vec!["all", "RC", "[UC, UD]", "{except: [RC]}", "none"]);
    let service = prop::sample::select(vec![
        "any",
        "verbs",
        "rdma_cm",
        "rdma_cm/tcp",
        "rdma_cm/tcp/5",
        "rdma_cm/udp/3-7",
        "rdma_cm/tcp/4-65535",
        "[verbs, rdma_cm/tcp/0-5]",
    ]);
    (selector(), selector(), any::<bool>(), qp_types, service, any::<bool>()).prop_map(
        |(from, to, both, qp_types, service, allow)| {
            let action = if allow { "allow" } else { "deny" };
            format!(
                "{{from: {from}, to: {to}, both_ways: {both}, qp_types: {qp_types}, service: {service}, action: {action}}}"
            )
        },
    )
}

fn policy_text(labels: &[(u8, u8)], rules: &[String]) -> String {
    let mut text = String::from("version: 1\ntenants:\n  t:\n    endpoints:\n");
    for (i, (address, (a, b))) in ADDRESSES.iter().zip(labels).enumerate() {
        let _ = writeln!(
            text,
            "      e{i}: {{address: \"{address}\", labels: {{a: v{a}, b: v{b}}}}}"
        );
    }
    text.push_str("    rules:\n");
    for rule in rules {
        let _ = writeln!(text, "      - {rule}");
    }
    text
}

fn services() -> impl Strategy<Value = Service> {
    let space = prop::sample::select(PortSpace::ALL.to_vec());
    let port = prop_oneof![0..9u16, Just(65_535u16)];
    prop_oneof![
        Just(Service::Verbs),
        (space, port).prop_map(|(space, port)| Service::RdmaCm { space, port })
    ]
}

proptest! {
    /// The index, the explanation and the naive scan agree on who decides, for every pair.
    #[test]
    fn the_index_decides_as_a_linear_scan_does(
        labels in prop::collection::vec((0..3u8, 0..2u8), 6),
        rules in prop::collection::vec(rule(), 0..150),
        qp_type in prop::sample::select(QpType::ALL.to_vec()),
        service in services(),
    ) {
        let text = policy_text(&labels, &rules);
        let policy = Policy::parse("p.yaml", &text).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let tenant = policy.tenant("t").unwrap();
        for i in 0..6 {
            let from: EndpointId = format!("t/e{i}").parse().unwrap();
            for to in ADDRESSES {
                let to: IpAddr = to.parse().unwrap();
                let request = Request::Connect { from: &from, to, qp_type, service };
                let verdict = policy.decide(&request);
                let word = if verdict.allowed { "allowed" } else { "denied" };
                let expected = naive(tenant, from.name().as_str(), to, qp_type, service).unwrap();
                prop_assert_eq!(format!("{word} by {}", verdict.rule), expected, "{}", text);
                prop_assert_eq!(policy.explain(&request).verdict, verdict);
            }
        }
    }

    /// A rule that is reported as never deciding can be removed and nothing changes.
    #[test]
    fn a_shadowed_rule_can_be_removed(
        labels in prop::collection::vec((0..3u8, 0..2u8), 6),
        rules in prop::collection::vec(rule(), 1..12),
    ) {
        let full = Policy::parse("p.yaml", &policy_text(&labels, &rules)).unwrap();
        // Rules begin after three lines of header, six endpoints and the `rules:` line.
        let idle: Vec<usize> = full.warnings().iter().map(|w| w.place.line - 12).collect();
        let kept: Vec<String> = rules.iter().enumerate()
            .filter(|(i, _)| !idle.contains(i)).map(|(_, rule)| rule.clone()).collect();
        prop_assert_eq!(kept.len() + idle.len(), rules.len(), "{:?}", full.warnings());
        let less = Policy::parse("p.yaml", &policy_text(&labels, &kept)).unwrap();
        for i in 0..6 {
            let from: EndpointId = format!("t/e{i}").parse().unwrap();
            for to in ADDRESSES {
                for qp_type in QpType::ALL {
                    for service in ["verbs", "rdma_cm/tcp/5", "rdma_cm/udp/4", "rdma_cm/ib/9"] {
                        let request = Request::Connect {
                            from: &from, to: to.parse().unwrap(), qp_type: *qp_type, service: service.parse().unwrap(),
                        };
                        prop_assert_eq!(full.decide(&request).allowed, less.decide(&request).allowed);
                    }
                }
            }
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*|[ -~\\n\\t]{0,200}|[\\[\\]{}:,&*!|>'\"%@`#?a \\n-]{0,120}") {
        check(&text);
    }

    #[test]
    fn no_mutation_of_an_example_makes_the_reader_panic(
        which in 0..EXAMPLES.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..40usize, "[ -~\\n\\t\u{e4}\u{4e16}]{0,6}"), 1..6),
    ) {
        let mut chars: Vec<char> = EXAMPLES[which].chars().collect();
        for (at, removed, inserted) in edits {
            let at = at.index(chars.len() + 1).min(chars.len());
            let end = (at + removed % 8).min(chars.len());
            chars.splice(at..end, inserted.chars());
        }
        check(&chars.into_iter().collect::<String>());
    }

    #[test]
    fn no_exchange_of_lines_makes_the_reader_panic(
        which in 0..EXAMPLES.len(),
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
    ) {
        let mut lines: Vec<&str> = EXAMPLES[which].lines().collect();
        for (a, b) in swaps {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
        }
        check(&lines.join("\n"));
    }
}

/// Reads the text, and holds every position against it.
fn check(text: &str) {
    let (errors, warnings) = match Policy::parse("p.yaml", text) {
        Ok(policy) => (Vec::new(), policy.warnings().to_vec()),
        Err(errors) => (errors.errors().to_vec(), positions_of(&errors, text)),
    };
    for place in errors
        .iter()
        .chain(&warnings)
        .flat_map(|d| std::iter::once(&d.place).chain(&d.related))
    {
        let lines: Vec<&str> = text
            .strip_prefix('\u{feff}')
            .unwrap_or(text)
            .split('\n')
            .collect();
        assert!(
            (1..=lines.len()).contains(&place.line),
            "line {} of {}",
            place.line,
            lines.len()
        );
        let width = lines[place.line - 1].chars().count();
        assert!(
            (1..=width + 1).contains(&place.column),
            "column {} of {width}",
            place.column
        );
        assert!((place.column..=width + 1).contains(&place.end_column));
    }
}

fn positions_of(errors: &PolicyErrors, text: &str) -> Vec<masq_policy::Diagnostic> {
    assert!(
        !errors.errors().is_empty(),
        "refused without a reason: {text:?}"
    );
    for error in errors.errors() {
        let rendered = error.to_string();
        let position = format!("p.yaml:{}:{}", error.place.line, error.place.column);
        assert!(
            rendered.contains(&position),
            "{position} is not in\n{rendered}"
        );
    }
    errors.warnings().to_vec()
}

/// Unused selectors would make the first property weaker than it looks.
#[test]
fn the_generators_reach_rules_and_defaults() {
    let rules = ["{from: e0, to: e1, action: allow}".to_owned()];
    let policy = Policy::parse("p.yaml", &policy_text(&[(0, 0); 6], &rules)).unwrap();
    let from: EndpointId = "t/e0".parse().unwrap();
    let decide = |to: &str| {
        let request = Request::Connect {
            from: &from,
            to: to.parse().unwrap(),
            qp_type: QpType::Rc,
            service: Service::Verbs,
        };
        policy.decide(&request).rule
    };
    assert!(matches!(decide("10.0.0.2"), RuleRef::Rule(_)));
    assert_eq!(decide("10.0.0.1"), RuleRef::OwnAddress);
    assert_eq!(decide("fd00::1"), RuleRef::DefaultDeny);
}
