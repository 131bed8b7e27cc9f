//! Virtual addresses of both families, tenants that share one, and rules that
//! name services.

use masq_e2e::{Finished, Host, Meeting, Pair, Running, wait_for_words};
use std::time::{Duration, Instant};

const IPV6: &str = "
version: 1
tenants:
  blue:
    endpoints:
      a: { address: \"fd00::1\" }
      b: { address: \"fd00::2\" }
    rules: [{ from: a, to: b, both_ways: true, action: allow }]
";

/// Both tenants allow theirs; the addresses are the same.
const TWINS: &str = "
version: 1
tenants:
  blue: &twin
    endpoints: { a: { address: 10.0.0.1 }, b: { address: 10.0.0.2 } }
    rules: [{ from: a, to: b, both_ways: true, action: allow }]
  red: *twin
";

/// blue/b may use one service of blue/a, and nothing else.
const ONE_SERVICE: &str = "
version: 1
tenants:
  blue:
    endpoints: { a: { address: 10.0.0.1 }, b: { address: 10.0.0.2 } }
    rules: [{ name: pings, from: b, to: a, service: rdma_cm/tcp/7471, action: allow }]
";

#[test]
fn programs_meet_at_an_ipv6_address() -> anyhow::Result<()> {
    let host = Host::with_policy(IPV6)?;
    for (server, client) in [
        (
            "rping -s -a fd00::1 -V -C 100",
            "rping -c -a fd00::1 -V -C 100",
        ),
        ("rping -s -a ::0 -V -C 100", "rping -c -a fd00::1 -V -C 100"),
        (
            "rstream -b fd00::1 -S 4096 -I 100 -C 10 -T v",
            "rstream -s fd00::1 -S 4096 -I 100 -C 10 -T v",
        ),
        (
            "rstream -b fd00::1 -S 65536 -I 10 -C 10 -T v -T r",
            "rstream -s fd00::1 -S 65536 -I 10 -C 10 -T v -T r",
        ),
        ("udaddy -f ipv6 -b fd00::1", "udaddy -s fd00::1"),
        ("rdma_server -s fd00::1", "rdma_client -s fd00::1"),
    ] {
        Meeting::new(server, client).run(&host)?;
    }
    host.wait_until_empty()
}

#[test]
fn two_tenants_listen_on_one_address_and_port_and_each_reaches_its_own() -> anyhow::Result<()> {
    let host = Host::with_policy(TWINS)?;
    // Sizes tell the connections apart: rping's server prints what it got.
    let meeting = |tenant: &str, size: u32| {
        Meeting::new(
            &format!("rping -s -v -a 10.0.0.1 -p 7471 -S {size}"),
            &format!("rping -c -V -v -a 10.0.0.1 -p 7471 -C 200 -S {size}"),
        )
        .between(&format!("{tenant}/a"), &format!("{tenant}/b"))
    };
    let (blue, red) = (meeting("blue", 100), meeting("red", 1000));
    let servers = [blue.start_server(&host)?, red.start_server(&host)?];
    let clients = [blue.start_client(&host)?, red.start_client(&host)?];
    for client in clients {
        client.wait(Duration::from_secs(60))?.success()?;
    }
    for (server, size) in servers.into_iter().zip([100, 1000]) {
        let output = server.wait(Duration::from_secs(20))?.success()?.output;
        // rping's text is one shorter than the message.
        let lens = output
            .lines()
            .filter_map(|line| line.strip_prefix("server ping data: "))
            .map(str::len);
        // Its errors may stand in the middle of one line.
        let own = lens.clone().filter(|len| *len == size - 1).count();
        let others = lens.filter(|len| *len == 1100 - size - 1).count();
        assert!(
            own >= 199 && others == 0,
            "{own} own, {others} of the other"
        );
    }
    host.wait_until_empty()
}

#[test]
fn a_tenant_does_not_reach_the_listener_of_another() -> anyhow::Result<()> {
    let host = Host::with_policy(TWINS)?;
    let blue = Meeting::new("rping -s -P -a 10.0.0.1 -p 7471", "");
    let _server = blue.start_server(&host)?;
    let out = rping(&host, "red/b", "7471")?;
    assert!(
        out.output.contains("RDMA_CM_EVENT_REJECTED, error 8"),
        "{out}"
    );
    Ok(())
}

/// rping's client, which must not hang.
fn rping(host: &Host, endpoint: &str, port: &str) -> anyhow::Result<Finished> {
    let args = ["-c", "-V", "-C", "10", "-a", "10.0.0.1", "-p", port];
    let since = Instant::now();
    let out = host.run_as(endpoint, "rping", args)?;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}: {out}");
    Ok(out)
}

#[test]
fn a_rule_opens_one_service_and_the_rest_is_rejected_with_a_reason() -> anyhow::Result<()> {
    let host = Host::with_policy(ONE_SERVICE)?;
    let server = |port: &str| {
        Meeting::new(&format!("rping -s -P -a 10.0.0.1 -p {port}"), "").start_server(&host)
    };
    let (_allowed, _other) = (server("7471")?, server("7472")?);
    rping(&host, "blue/b", "7471")?.success()?;

    let out = rping(&host, "blue/b", "7472")?;
    assert!(!out.status.success(), "{out}");
    assert!(
        out.output.contains("RDMA_CM_EVENT_REJECTED, error 5"),
        "{out}"
    );
    let overview = host.overview()?;
    let counted = overview
        .refusals_total
        .iter()
        .find(|r| r.endpoint == "b" && r.rule == "default deny");
    let counted = counted.expect("no counter of the refusal");
    assert!(counted.verb.contains("cm_connect"), "{counted:?}");
    let shown = host.masq_output(["show", "blue/b"])?.success()?;
    assert!(shown.output.contains("7472"), "{shown}");
    Ok(())
}

#[test]
fn a_rule_for_a_service_does_not_open_plain_verbs() -> anyhow::Result<()> {
    let host = Host::with_policy(ONE_SERVICE)?;
    let out = Pair::new("ibv_rc_pingpong")
        .args(["-g", "3"])
        .outcome(&host)?;
    assert!(!out.client.status.success(), "{}", out.client);
    assert!(!out.server.status.success(), "{}", out.server);
    assert!(out.server.output.contains("Failed to modify QP to RTR"));
    Ok(())
}

#[test]
fn datagrams_to_a_service_that_no_rule_opens_are_unreachable() -> anyhow::Result<()> {
    let host = Host::with_policy(ONE_SERVICE)?;
    let out = Meeting::new("udaddy", "udaddy -s 10.0.0.1").outcome(&host)?;
    assert!(!out.client.status.success(), "{}", out.client);
    assert!(
        out.client.output.contains("RDMA_CM_EVENT_UNREACHABLE"),
        "{}",
        out.client
    );
    Ok(())
}

/// blue/b pings blue/a by the one service, until it is stopped.
fn pinging(host: &Host) -> anyhow::Result<(Running, Running)> {
    let meeting = Meeting::new(
        "rping -s -P -a 10.0.0.1 -p 7471",
        "rping -c -v -a 10.0.0.1 -p 7471",
    );
    let server = meeting.start_server(host)?;
    let mut client = meeting.start_client(host)?;
    wait_for_words(&mut client, "ping data: rdma-ping-100:")?;
    Ok((server, client))
}

/// Has masqd allow this service instead.
fn reload_for(host: &Host, service: &str) -> anyhow::Result<Finished> {
    let policy = ONE_SERVICE.replace("tcp/7471", service);
    std::fs::write(host.policy_file(), policy)?;
    host.masq_output(["reload"])?.success()
}

#[test]
fn a_reload_that_forbids_a_service_disconnects_who_uses_it() -> anyhow::Result<()> {
    let host = Host::with_policy(ONE_SERVICE)?;
    let (_server, client) = pinging(&host)?;
    let out = reload_for(&host, "tcp/7500")?;
    assert!(!out.output.contains("connections cut: 0"), "{out}");
    let client = client.wait(Duration::from_secs(20))?;
    assert!(client.output.contains("DISCONNECT EVENT"), "{client}");
    let out = rping(&host, "blue/b", "7471")?;
    assert!(
        out.output.contains("RDMA_CM_EVENT_REJECTED, error 5"),
        "{out}"
    );
    Ok(())
}

#[test]
fn a_reload_that_still_allows_a_service_leaves_its_connections_alone() -> anyhow::Result<()> {
    let host = Host::with_policy(ONE_SERVICE)?;
    let (_server, mut client) = pinging(&host)?;
    let out = reload_for(&host, "tcp/7000-8000")?;
    assert!(!out.output.contains("connections cut: 1"), "{out}");
    let now = client.output().lines().count();
    let end = Instant::now() + Duration::from_secs(10);
    while client.output().lines().count() < now + 100 {
        assert!(client.is_running(), "{}", client.output());
        assert!(Instant::now() < end, "it stands still");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn a_rule_for_datagram_services_carries_both_ways_and_opens_nothing_else() -> anyhow::Result<()> {
    let host = Host::with_policy(&ONE_SERVICE.replace("rdma_cm/tcp/7471", "rdma_cm/udp"))?;
    Meeting::new("udaddy", "udaddy -s 10.0.0.1").run(&host)?;
    let out = Pair::new("ibv_ud_pingpong")
        .args(["-g", "3", "-n", "10"])
        .outcome(&host)?;
    assert!(!out.client.status.success(), "{}", out.client);
    host.wait_until_empty()
}
