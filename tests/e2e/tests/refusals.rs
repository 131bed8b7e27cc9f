//! What must be refused, by which errno, and what operator and asker see.

use masq_e2e::{Binaries, Host, Pair, compile, workspace};

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;

/// Runs `refusals WORDS` as `endpoint`; its one line of output.
fn try_it(host: &Host, endpoint: &str, words: &[&str]) -> anyhow::Result<String> {
    let program = compile("refusals", host.scratch())?;
    let out = host.run_as(endpoint, &program, words)?.success()?;
    Ok(out.output.trim().to_owned())
}

/// A policy with one tenant and this line of quotas.
fn quota(line: &str) -> String {
    format!(
        "version: 1\ntenants:\n  blue:\n    quotas: {{ {line} }}\n    endpoints:\n      \
         a: {{ address: 10.0.0.1 }}\n"
    )
}

#[test]
fn two_endpoints_without_a_rule_cannot_connect_and_everybody_learns_why() -> anyhow::Result<()> {
    let host = Host::start()?;
    let out = Pair::new("ibv_rc_pingpong")
        .args(["-g", "3"])
        // The server connects its queue pair first.
        .between("red/b", "red/a")
        .outcome(&host)?;
    assert!(!out.client.status.success(), "{}", out.client);
    assert!(!out.server.status.success(), "{}", out.server);
    assert!(out.server.output.contains("Failed to modify QP to RTR"));

    let overview = host.overview()?;
    let counted = overview
        .refusals_total
        .iter()
        .find(|r| r.tenant == "red" && r.endpoint == "b");
    let counted = counted.expect("no counter of red/b");
    assert_eq!(counted.verb, "modify_qp");
    assert_eq!(counted.rule, "default deny");
    assert!(counted.count >= 1);

    let (_, endpoint) = host.endpoint("red/b")?;
    let refusal = endpoint.refusals.last().expect("no refusal is shown");
    assert_eq!(refusal.errno, EPERM);
    assert!(refusal.reason.contains("red/b"), "{}", refusal.reason);

    let log = host.log();
    let line = log
        .lines()
        .find(|l| l.contains("red") && l.contains("modify_qp") && l.contains("default deny"));
    assert!(line.is_some(), "no line about it in\n{log}");
    Ok(())
}

#[test]
fn an_address_means_the_askers_own_tenant() -> anyhow::Result<()> {
    let host = Host::start()?;
    // blue/b's address: red has nobody there.
    let out = try_it(&host, "red/b", &["rtr", "10.0.0.2"])?;
    assert_eq!(out, format!("errno {EPERM}"));
    // red's own 10.0.0.1 is red/a, forbidden; blue/a at the same address would
    // have been allowed by nobody's rule.
    let out = try_it(&host, "red/b", &["rtr", "10.0.0.1"])?;
    assert_eq!(out, format!("errno {EPERM}"));
    let (_, endpoint) = host.endpoint("red/b")?;
    let reasons: Vec<_> = endpoint
        .refusals
        .iter()
        .map(|r| r.reason.as_str())
        .collect();
    assert!(
        reasons[0].contains("no endpoint with the address 10.0.0.2"),
        "{reasons:?}"
    );
    assert!(reasons[1].contains("red/a"), "{reasons:?}");
    Ok(())
}

#[test]
fn an_address_outside_the_policy_is_refused_for_queue_pairs_and_address_handles()
-> anyhow::Result<()> {
    let host = Host::start()?;
    for verb in ["rtr", "ah"] {
        let out = try_it(&host, "blue/a", &[verb, "192.0.2.7"])?;
        assert_eq!(out, format!("errno {EPERM}"), "{verb}");
        let out = try_it(&host, "blue/a", &[verb, "10.0.0.2"])?;
        assert_eq!(out, "errno 0", "{verb}");
    }
    Ok(())
}

#[test]
fn the_129th_queue_pair_under_a_quota_of_128_is_refused() -> anyhow::Result<()> {
    let host = Host::with_policy(&quota("qps: 128"))?;
    let out = try_it(&host, "blue/a", &["qps", "200"])?;
    assert_eq!(out, format!("made 128 errno {ENOMEM}"));
    host.wait_until_empty()?;
    let (_, endpoint) = host.endpoint("blue/a")?;
    assert!(endpoint.refusals.iter().any(|r| r.rule.contains("qps")));
    Ok(())
}

#[test]
fn memory_past_the_pinned_quota_is_refused() -> anyhow::Result<()> {
    let host = Host::with_policy(&quota("pinned: 1MiB"))?;
    assert_eq!(try_it(&host, "blue/a", &["mr", "1048576"])?, "errno 0");
    let out = try_it(&host, "blue/a", &["mr", "1048577"])?;
    assert_eq!(out, format!("errno {ENOMEM}"));
    Ok(())
}

#[test]
fn a_write_without_the_right_breaks_the_connection_at_both_ends() -> anyhow::Result<()> {
    let host = Host::start()?;
    // IBV_WC_REM_ACCESS_ERR, and IBV_EVENT_QP_ACCESS_ERR at the other side.
    assert_eq!(
        try_it(&host, "blue/a", &["no-right"])?,
        "status 10 event 3 intact"
    );
    Ok(())
}

#[test]
fn a_guessed_rkey_reaches_nothing() -> anyhow::Result<()> {
    let host = Host::start()?;
    assert_eq!(
        try_it(&host, "blue/a", &["guess"])?,
        "status 10 event 3 intact"
    );
    Ok(())
}

#[test]
fn a_key_of_another_protection_domain_reaches_nothing() -> anyhow::Result<()> {
    let host = Host::start()?;
    assert_eq!(
        try_it(&host, "blue/a", &["other-pd"])?,
        "status 10 event 3 intact"
    );
    Ok(())
}

#[test]
fn two_programs_are_given_different_keys() -> anyhow::Result<()> {
    let host = Host::start()?;
    let first = try_it(&host, "blue/a", &["key"])?;
    let second = try_it(&host, "blue/a", &["key"])?;
    assert!(first.starts_with("rkey "), "{first}");
    assert_ne!(first, second);
    Ok(())
}

#[test]
fn an_unknown_endpoint_is_refused_before_the_program_starts() -> anyhow::Result<()> {
    let host = Host::start()?;
    let out = host.run_as("blue/z", "ibv_devices", [] as [&str; 0])?;
    assert_eq!(out.status.code(), Some(1));
    assert!(out.output.contains("blue/a, blue/b, red/a, red/b"), "{out}");
    Ok(())
}

#[test]
fn an_operation_that_the_tenant_may_not_use_fails_and_others_go_on() -> anyhow::Result<()> {
    let host = Host::with_policy(
        "version: 1\ntenants:\n  blue:\n    verbs: { except: [atomic, create_srq] }\n    \
         endpoints:\n      a: { address: 10.0.0.1 }\n      b: { address: 10.0.0.2 }\n    \
         rules:\n      - { from: a, to: b, both_ways: true, action: allow }\n",
    )?;
    let pair = |tool: &str| Pair::new(tool).args(["-x", "3", "-F", "-n", "1000"]);
    pair("ib_write_bw").run(&host)?;
    // Its server only waits: what counts is the client.
    let mut server = host.start_as("blue/a", "ib_atomic_bw", ["-x", "3", "-F", "-p", "18533"])?;
    masq_e2e::wait_for_listener(18533, std::time::Duration::from_secs(20), || {
        server.is_running()
    })?;
    let client = host.run_as(
        "blue/b",
        "ib_atomic_bw",
        ["-x", "3", "-F", "-p", "18533", "127.0.0.1"],
    )?;
    assert!(!client.status.success(), "{client}");
    assert!(host.log().contains("rule=\"verbs\""), "{}", host.log());
    drop(server);
    let srq = host.run_as("blue/a", "ibv_srq_pingpong", ["-g", "3"])?;
    assert!(!srq.status.success(), "{srq}");
    let denied = |r: &masq_admin::RefusalCount| r.verb == "create_srq" && r.rule == "blue verbs";
    assert!(host.overview()?.refusals_total.iter().any(denied));
    Ok(())
}

/// What masqd says when it does not start with these devices and this policy.
fn refused(policy: &str, devices: &[&str]) -> anyhow::Result<String> {
    let args: Vec<&str> = devices.iter().flat_map(|d| ["--device", *d]).collect();
    match Host::launch(Binaries::find()?, policy, &args) {
        Ok(host) => anyhow::bail!("masqd runs with {devices:?}:\n{}", host.log()),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[test]
fn a_card_that_there_is_not_is_refused_with_the_remedy() -> anyhow::Result<()> {
    for devices in [&["verbs:nosuch0"][..], &["soft", "verbs:nosuch0"]] {
        let error = refused(&quota("qps: 1"), devices)?;
        assert!(error.contains("--device verbs:nosuch0: "), "{error}");
        let no_card = error.contains("there is no RDMA card nosuch0; the host has");
        let no_library = error.contains("install rdma-core");
        assert!(no_card || no_library, "{error}");
    }
    Ok(())
}

#[test]
fn a_device_that_is_given_twice_is_refused() -> anyhow::Result<()> {
    let error = refused(&quota("qps: 1"), &["soft", "soft"])?;
    assert!(error.contains("--device soft is given twice"), "{error}");
    Ok(())
}

#[test]
fn a_policy_that_names_an_unknown_device_does_not_start_masqd() -> anyhow::Result<()> {
    let example = workspace().join("policy/examples/two-devices.yaml");
    let error = refused(&std::fs::read_to_string(example)?, &["soft"])?;
    for part in [
        "tenant blue is on the device rxe0 by the policy, and this masqd has soft",
        "--device soft --device verbs:rxe0",
        "correct `device` of tenant blue",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    Ok(())
}
