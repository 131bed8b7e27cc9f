//! TCP programs over RDMA, unchanged, by librspreload.

use masq_e2e::{Finished, Host, LIBRSPRELOAD, Netns, Running, start_over_rdma, wait_for_listeners};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn server(host: &Host, vars: &[&str], line: &str) -> anyhow::Result<Running> {
    let mut server = start_over_rdma(host, "blue/a", vars, line)?;
    wait_for_listeners(host, "blue/a", 1, &mut server)?;
    Ok(server)
}

fn iperf3(host: &Host, more: &str) -> anyhow::Result<serde_json::Value> {
    let server = server(host, &[], "iperf3 -s -1 -4 -B 10.0.0.1")?;
    let line = format!("iperf3 -c 10.0.0.1 -J {more}");
    let client = start_over_rdma(host, "blue/b", &[], &line)?.wait(LIMIT);
    let client = client.map_err(|e| e.context(server.output()))?;
    let client = client.success()?;
    let server = server.wait(LIMIT)?;
    let report: serde_json::Value = serde_json::from_str(&client.output)
        .map_err(|e| anyhow::anyhow!("{e}: {client}{server}"))?;
    // rsockets have no TCP_INFO, which iperf3 only shows.
    let error = report["error"].as_str().unwrap_or_default();
    assert!(
        error.is_empty() || error.contains("getsockopt"),
        "{client}{server}"
    );
    Ok(report)
}

#[test]
fn iperf3_moves_what_it_was_told_to() -> anyhow::Result<()> {
    let host = Host::start()?;
    for more in [
        "-n 256M -l 128K",
        "-n 64M -l 4K",
        "-n 64M -R",
        "-n 64M -P 2",
    ] {
        let report = iperf3(&host, more)?;
        let bytes = |side: &str| report["end"][side]["bytes"].as_f64().unwrap_or(0.0);
        let (sent, received) = (bytes("sum_sent"), bytes("sum_received"));
        assert!(sent >= 64e6, "{more}: {sent} bytes sent");
        // The end of the test overtakes what is still in buffers.
        assert!(received >= 0.9 * sent, "{more}: {received} of {sent}");
    }
    host.wait_until_empty()
}

/// A number from memaslap's statistics.
fn figure(out: &Finished, name: &str) -> u64 {
    let line = out.output.lines().find_map(|l| l.strip_prefix(name));
    let number = line.and_then(|rest| rest.trim_start_matches(':').trim().parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in {out}"))
}

#[test]
fn memcached_returns_what_was_stored_under_load() -> anyhow::Result<()> {
    let host = Host::start()?;
    let vars = ["EVENT_NOEPOLL=1"];
    let line = "memcached -u root -U 0 -l 10.0.0.1 -p 11211 -t 2 -m 256";
    let mut server = server(&host, &vars, line)?;
    let line = "memcaslap -s 10.0.0.1:11211 -T 1 -c 3 -x 40000 -v 1.0 -X 1024";
    let client = start_over_rdma(&host, "blue/b", &["EVENT_NOEPOLL=1"], line)?.wait(LIMIT);
    let client = client.map_err(|e| e.context(server.output()))?;
    let client = client.success()?;
    assert!(server.is_running(), "{}", server.output());
    for bad in ["get_misses", "verify_misses", "verify_failed"] {
        assert_eq!(figure(&client, bad), 0, "{bad}: {client}");
    }
    assert!(figure(&client, "cmd_get") > 30_000, "{client}");
    drop(server);
    host.wait_until_empty()
}

/// A server that forks after accept: librspreload accepts by TCP first, and
/// moves the connection to RDMA in the child.
#[test]
fn a_server_that_serves_in_children_is_moved_to_rdma_there() -> anyhow::Result<()> {
    let host = Host::start()?;
    let net = Netns::with_addresses(&["10.0.0.1/32", "10.0.0.2/32"])?;
    let with = format!("env RDMAV_FORK_SAFE=1 LD_PRELOAD={LIBRSPRELOAD}");
    let common = "-S 4096 -I 2000 -C 10 -T v";
    let line = format!("{with} rstream -T f -b 10.0.0.1 {common}");
    let server = net.start_as(&host, "blue/a", &line)?;
    std::thread::sleep(Duration::from_millis(300));
    let line = format!("{with} rstream -T s -s 10.0.0.1 {common}");
    let mut client = net.start_as(&host, "blue/b", &line)?;
    // What was moved went through queue pairs of masq.
    let mut moved = false;
    while client.is_running() && !moved {
        let (sessions, _) = host.endpoint("blue/a")?;
        moved = sessions.iter().any(|s| !s.queue_pairs.is_empty());
        std::thread::sleep(Duration::from_millis(2));
    }
    let client = client.wait(LIMIT).map_err(|e| e.context(server.output()))?;
    assert!(client.status.success(), "{client}{}", server.output());
    assert!(moved, "it stayed with TCP: {client}{}", server.output());
    drop(server);
    host.wait_until_empty()
}
