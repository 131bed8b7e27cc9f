//! rdma_cm's own tools between two endpoints of one tenant, as the
//! distribution has them.

use masq_e2e::{Finished, Host, Meeting, PairOutput, mckey, wait_for_words};
use std::time::{Duration, Instant};

/// How often a word stands in a program's output.
fn count(side: &Finished, word: &str) -> usize {
    side.output.matches(word).count()
}

fn meet(host: &Host, server: &str, client: &str) -> anyhow::Result<PairOutput> {
    Meeting::new(server, client).run(host)
}

#[test]
fn rping_validates_what_comes_back_in_every_round() -> anyhow::Result<()> {
    let host = Host::start()?;
    for more in ["", "-S 4096", "-S 65535", "-q", "-d"] {
        let out = meet(
            &host,
            &format!("rping -s -a 10.0.0.1 -v -V -C 100 {more}"),
            &format!("rping -c -a 10.0.0.1 -v -V -C 100 {more}"),
        )?;
        assert_eq!(count(&out.client, "ping data: "), 100, "{}", out.client);
        assert_eq!(count(&out.server, "server ping data: "), 100);
    }
    host.wait_until_empty()
}

#[test]
fn rping_serves_again_and_again_on_the_same_port() -> anyhow::Result<()> {
    let host = Host::start()?;
    // Without an address it listens on all of the endpoint's.
    for _ in 0..10 {
        meet(
            &host,
            "rping -s -V -C 100",
            "rping -c -a 10.0.0.1 -V -C 100",
        )?;
    }
    host.wait_until_empty()
}

#[test]
fn rping_from_a_source_address_of_its_own() -> anyhow::Result<()> {
    let host = Host::start()?;
    let client = "rping -c -a 10.0.0.1 -I 10.0.0.2 -V -C 100";
    meet(&host, "rping -s -a 10.0.0.1 -V -C 100", client)?;
    let client = "rping -c -a 10.0.0.1 -I 10.0.0.9 -V -C 100";
    let out = Meeting::new("rping -s -P -a 10.0.0.1", client).outcome(&host)?;
    assert!(!out.client.status.success(), "{}", out.client);
    assert!(
        out.client
            .output
            .contains("Cannot assign requested address"),
        "{}",
        out.client
    );
    Ok(())
}

#[test]
fn one_persistent_rping_server_has_several_clients_at_once() -> anyhow::Result<()> {
    let host = Host::start()?;
    let meeting = Meeting::new(
        "rping -s -P -a 10.0.0.1 -V -S 4096",
        "rping -c -a 10.0.0.1 -v -V -C 2000 -S 4096",
    );
    let mut server = meeting.start_server(&host)?;
    for _ in 0..3 {
        let mut clients = Vec::new();
        for _ in 0..4 {
            // rping keeps one request in mind at a time: the next client
            // comes when this one is served.
            let mut client = meeting.start_client(&host)?;
            wait_for_words(&mut client, "ping data: ")?;
            clients.push(client);
        }
        assert!(clients[0].is_running(), "they were not there at once");
        for client in clients {
            let client = client.wait(Duration::from_secs(60))?.success()?;
            assert_eq!(count(&client, "ping data: "), 2000, "{client}");
        }
    }
    assert!(server.is_running(), "{}", server.output());
    drop(server);
    host.wait_until_empty()
}

#[test]
fn an_rping_client_without_a_server_is_told_so_at_once() -> anyhow::Result<()> {
    let host = Host::start()?;
    let since = Instant::now();
    let out = host.run_as("blue/b", "rping", ["-c", "-a", "10.0.0.1", "-C", "1"])?;
    assert!(since.elapsed() < Duration::from_secs(10), "{out}");
    assert!(!out.status.success(), "{out}");
    assert!(
        out.output.contains("RDMA_CM_EVENT_REJECTED, error 8"),
        "{out}"
    );
    host.wait_until_empty()
}

#[test]
fn an_address_that_no_endpoint_has_does_not_resolve() -> anyhow::Result<()> {
    let host = Host::start()?;
    let out = host.run_as("blue/b", "rping", ["-c", "-a", "192.0.2.7", "-C", "1"])?;
    assert!(!out.status.success(), "{out}");
    assert!(
        out.output.contains("RDMA_CM_EVENT_ADDR_ERROR, error -113"),
        "{out}"
    );
    host.wait_until_empty()
}

#[test]
fn ucmatose_connects_many_and_moves_messages() -> anyhow::Result<()> {
    let host = Host::start()?;
    for more in [
        "",
        "-c 20 -C 50 -S 4096",
        "-c 5 -m",
        "-t 32 -a 14",
        "-b 10.0.0.2 -f ip",
    ] {
        let client = format!("ucmatose -s 10.0.0.1 {more}");
        // The address that is bound is each side's own, the rest is common.
        let server = match more.strip_prefix("-b 10.0.0.2") {
            Some(rest) => format!("ucmatose -b 10.0.0.1 {rest}"),
            None => format!("ucmatose {more}"),
        };
        let out = meet(&host, &server, &client)?;
        for side in [&out.server, &out.client] {
            assert!(side.output.contains("data transfers complete"), "{side}");
            assert!(side.output.contains("return status 0"), "{side}");
        }
    }
    host.wait_until_empty()
}

#[test]
fn udaddy_exchanges_datagrams() -> anyhow::Result<()> {
    let host = Host::start()?;
    for more in ["", "-c 8 -C 50 -S 1024", "-t 32"] {
        let server = format!("udaddy {more}");
        let out = meet(&host, &server, &format!("udaddy -s 10.0.0.1 {more}"))?;
        for side in [&out.server, &out.client] {
            assert!(side.output.contains("data transfers complete"), "{side}");
            assert!(side.output.contains("return status 0"), "{side}");
        }
    }
    host.wait_until_empty()
}

#[test]
fn mckey_sends_to_a_group_and_its_receiver_counts_every_message() -> anyhow::Result<()> {
    let host = Host::start()?;
    for (group, more) in [("239.1.1.1", ""), ("239.1.1.2", "-o")] {
        let out = mckey(group, more).run(&host)?;
        for side in [&out.server, &out.client] {
            assert!(side.output.contains("joined dgid"), "{side}");
            assert!(side.output.contains("data transfers complete"), "{side}");
        }
    }
    host.wait_until_empty()
}

#[test]
fn a_group_that_the_tenant_may_not_use_cannot_be_joined() -> anyhow::Result<()> {
    let host = Host::with_policy(
        "version: 1\ntenants:\n  blue:\n    multicast: [239.1.0.0/16]\n    endpoints:\n      \
         a: { address: 10.0.0.1 }\n",
    )?;
    let args = ["-m", "239.2.0.1", "-b", "10.0.0.1", "-C", "1", "-s"];
    let out = host.run_as("blue/a", "mckey", args)?;
    assert!(!out.status.success(), "{out}");
    assert!(!out.output.contains("joined dgid"), "{out}");
    host.wait_until_empty()
}

#[test]
fn cmtime_connects_and_disconnects_a_thousand() -> anyhow::Result<()> {
    let policy = "
version: 1
tenants:
  blue:
    quotas: { event_queues: 8192, qps: 4096, cqs: 8192, cm_ids: 8192 }
    endpoints: { a: { address: 10.0.0.1 }, b: { address: 10.0.0.2 } }
    rules: [{ from: b, to: a, both_ways: true, action: allow }]
";
    let host = Host::with_policy(policy)?;
    let out = Meeting::new("cmtime -c 1000", "cmtime -s 10.0.0.1 -c 1000")
        .server_stays()
        .run(&host)?;
    for bad in ["error", "failure", "failing"] {
        assert_eq!(count(&out.client, bad), 0, "{}", out.client);
        assert_eq!(count(&out.server, bad), 0, "{}", out.server);
    }
    let row = out
        .client
        .output
        .lines()
        .find(|line| line.starts_with("connect "));
    let row = row.expect("no row of `connect`");
    let each: f64 = row.split_ascii_whitespace().last().unwrap().parse()?;
    assert!(each > 0.0, "{row}");
    host.wait_until_empty()
}

#[test]
fn the_synchronous_example_meets() -> anyhow::Result<()> {
    let host = Host::start()?;
    for _ in 0..5 {
        let out = meet(&host, "rdma_server", "rdma_client -s 10.0.0.1")?;
        assert!(out.client.output.contains("end 0"), "{}", out.client);
        assert!(out.server.output.contains("end 0"), "{}", out.server);
    }
    host.wait_until_empty()
}

#[test]
fn the_xrc_examples_meet_over_rc_and_fail_over_xrc() -> anyhow::Result<()> {
    let host = Host::start()?;
    let out = meet(&host, "rdma_xserver -c r", "rdma_xclient -s 10.0.0.1 -c r")?;
    assert!(out.client.output.contains("end 0"), "{}", out.client);
    assert!(out.server.output.contains("end 0"), "{}", out.server);
    // There is no XRC: each ends by itself, with words.
    for (endpoint, program, args) in [
        ("blue/a", "rdma_xserver", &["-c", "x"][..]),
        ("blue/b", "rdma_xclient", &["-s", "10.0.0.1", "-c", "x"][..]),
    ] {
        let out = host
            .start_as(endpoint, program, args)?
            .wait(Duration::from_secs(10))?;
        assert!(
            out.output.contains("not supported") || out.output.contains("supported"),
            "{out}"
        );
        assert!(!out.output.contains("end 0"), "{out}");
    }
    host.wait_until_empty()
}
