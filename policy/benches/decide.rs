//! How long one decision takes among 10,000 rules, in shapes that are hard on the index.
//!
//! `cargo bench -p masq-policy`; the target is under 2 µs for each.

use std::fmt::Write;

use divan::{Bencher, black_box};
use masq_policy::{EndpointId, Policy, PortSpace, QpType, Request, Service};

const RULES: usize = 10_000;
const ENDPOINTS: usize = 1_000;

fn main() {
    divan::main();
}

fn policy(rule: impl Fn(usize) -> String) -> Policy {
    let mut text = String::from("version: 1\ntenants:\n  t:\n    endpoints:\n");
    for i in 0..ENDPOINTS {
        let _ = writeln!(
            text,
            "      e{i}: {{address: 10.0.{}.{}, labels: {{n: '{}'}}}}",
            i / 250,
            i % 250 + 1,
            i % 10
        );
    }
    text.push_str("    rules:\n");
    for i in 0..RULES {
        let _ = writeln!(text, "      - {{{}}}", rule(i));
    }
    Policy::parse("bench.yaml", &text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn measure(bencher: Bencher<'_, '_>, policy: &Policy, qp_type: QpType, service: Service) {
    let from: EndpointId = "t/e17".parse().unwrap_or_else(|error| panic!("{error}"));
    let request = Request::Connect {
        from: &from,
        to: std::net::Ipv4Addr::new(10, 0, 1, 43).into(),
        qp_type,
        service,
    };
    bencher.bench_local(|| policy.decide(black_box(&request)));
}

/// Rules between pairs; none matches.
#[divan::bench]
fn pairs(bencher: Bencher<'_, '_>) {
    let policy = policy(|i| {
        format!(
            "from: e{}, to: e{}, action: allow",
            i % 1000,
            (i * 7) % 1000
        )
    });
    measure(bencher, &policy, QpType::Rc, Service::Verbs);
}

/// Every rule speaks of both endpoints, only the QP type differs until the last.
#[divan::bench]
fn all_but_the_qp_type(bencher: Bencher<'_, '_>) {
    let policy = policy(|i| {
        let qp_type = if i + 1 == RULES { "RC" } else { "UD" };
        format!("from: any, to: 10.0.0.0/8, qp_types: {qp_type}, action: allow")
    });
    measure(bencher, &policy, QpType::Rc, Service::Verbs);
}

/// Every rule speaks of the initiator, none of the target before the last.
#[divan::bench]
fn labels(bencher: Bencher<'_, '_>) {
    let policy = policy(|i| {
        let to = if i + 1 == RULES {
            "any".to_owned()
        } else {
            format!("e{}", i % 250)
        };
        format!("from: {{labels: {{n: '7'}}}}, to: {to}, action: deny")
    });
    measure(bencher, &policy, QpType::Rc, Service::Verbs);
}

/// A rule for each port; the last one matches.
#[divan::bench]
fn ports(bencher: Bencher<'_, '_>) {
    let policy = policy(|i| format!("from: any, to: any, service: rdma_cm/tcp/{i}, action: allow"));
    let port = 9_999;
    measure(
        bencher,
        &policy,
        QpType::Rc,
        Service::RdmaCm {
            space: PortSpace::Tcp,
            port,
        },
    );
}

/// Reading and compiling 10,000 rules, as a reload does.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn parse_10_000_rules() -> Policy {
    policy(|i| {
        format!(
            "from: e{}, to: e{}, action: allow",
            i % 1000,
            (i * 7) % 1000
        )
    })
}
