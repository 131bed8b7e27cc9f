//! Hosts that crash and cables that are pulled while programs of two hosts talk.

use anyhow::Context as _;
use masq_e2e::{Finished, Host, Hosts, HostsConfig, pair};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Something is always under way: whoever merely waits for its peer hears nothing. It may
/// take 4.096 µs × 2^14 × 8, 0.54 s.
const WRITES: &str = "ib_write_bw -x 3 -F -n 100000000 -u 14";

/// As `ibv_wc_status` has it.
const RETRY_EXC: u32 = 12;

/// Waits until so many more packets have come to a host: a transfer is under way.
fn wait_for_packets(host: &Host, more: u64) -> anyhow::Result<()> {
    let received = || -> anyhow::Result<u64> {
        let hosts = host.overview()?.hosts;
        Ok(hosts.map_or(0, |hosts| hosts.wire.received_packets))
    };
    let (wanted, end) = (received()? + more, Instant::now() + PATIENCE);
    while received()? < wanted {
        anyhow::ensure!(Instant::now() < end, "nothing arrives:\n{}", host.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// What each host has done on the wire.
fn both(hosts: &Hosts) -> String {
    let of = |host: &Host| host.overview().ok().and_then(|overview| overview.hosts);
    let wires = [hosts.alpha(), hosts.beta()].map(|host| of(host).map(|hosts| hosts.wire));
    format!("{wires:?}")
}

fn said_retry_exceeded(out: &Finished) {
    assert!(!out.status.success(), "{out}");
    let words = [
        format!("({RETRY_EXC})"),
        format!("status {RETRY_EXC}"),
        format!("Failed status {RETRY_EXC}"),
    ];
    let said = words.iter().any(|words| out.output.contains(words));
    assert!(said, "{out}");
}

#[test]
fn a_program_hears_in_time_that_the_other_hosts_masqd_was_killed() -> anyhow::Result<()> {
    for port in ["udp", "raw"] {
        let mut hosts = HostsConfig::default().args(&["--port", port]).start()?;
        for line in [
            WRITES,
            "ib_read_bw -x 3 -F -n 100000000 -u 16", // 2.1 s
        ] {
            let pair = pair(line);
            let (server, port) = pair.start_server(hosts.alpha())?;
            let client = pair.start_client(hosts.beta(), hosts.meeting_point(), port)?;
            wait_for_packets(hosts.beta(), 50)?;
            hosts.at_mut(0).kill();
            // It takes its time, but not for ever.
            said_retry_exceeded(&client.wait(Duration::from_secs(30))?);
            drop(server);
            hosts.at_mut(0).restart()?;
            hosts.beta().wait_until_empty()?;
            // The endpoints meet again, at once and as if nothing had been.
            hosts.pair("ibv_rc_pingpong -g 3 -c -e -s 10000 -n 50")?;
            hosts.meet("rping -s -V -C 5", "rping -c -a 10.0.0.1 -V -C 5")?;
        }
        hosts.wait_until_empty()?;
    }
    Ok(())
}

/// A host whose masqd begins anew has forgotten its queue pairs: what still comes for them
/// harms nobody.
#[test]
fn a_masqd_that_is_back_at_once_ignores_what_was_before() -> anyhow::Result<()> {
    let mut hosts = Hosts::two()?;
    let pair = pair(WRITES);
    let (server, port) = pair.start_server(hosts.alpha())?;
    let client = pair.start_client(hosts.beta(), hosts.meeting_point(), port)?;
    wait_for_packets(hosts.beta(), 50)?;
    hosts.at_mut(0).kill();
    hosts.at_mut(0).restart()?;
    said_retry_exceeded(&client.wait(Duration::from_secs(30))?);
    drop(server);
    let wire = hosts.alpha().overview()?.hosts.unwrap().wire;
    assert!(wire.dropped["unknown_qp"] > 0, "{wire:?}");
    hosts.pair("ibv_rc_pingpong -g 3 -c -e -n 50")?;
    hosts.wait_until_empty()
}

/// 4.096 µs × 2^18 × 8 is 8.6 s; the cable is out for half a second.
#[test]
fn a_transfer_goes_on_when_the_cable_is_back_in_time() -> anyhow::Result<()> {
    for port in ["udp", "raw"] {
        let hosts = HostsConfig::default().args(&["--port", port]).start()?;
        for line in [
            "ib_write_bw -x 3 -F -n 20000 -u 18",
            "ib_read_bw -x 3 -F -n 20000 -u 18",
        ] {
            let pair = pair(line).limit(PATIENCE);
            let (server, port) = pair.start_server(hosts.alpha())?;
            let mut client = pair.start_client(hosts.beta(), hosts.meeting_point(), port)?;
            wait_for_packets(hosts.alpha(), 500)?;
            hosts.namespace(0).shell("ip link set eth0 down")?;
            std::thread::sleep(Duration::from_millis(500));
            assert!(client.is_running(), "too early: {}", client.output());
            hosts.namespace(0).shell("ip link set eth0 up")?;
            let ended = client.wait(PATIENCE).and_then(Finished::success);
            ended.with_context(|| both(&hosts))?;
            server.wait(PATIENCE)?.success()?;
        }
        hosts.wait_until_empty()?;
    }
    Ok(())
}

#[test]
fn a_transfer_ends_when_the_cable_stays_out() -> anyhow::Result<()> {
    let hosts = Hosts::two()?;
    let pair = pair(WRITES);
    let (server, port) = pair.start_server(hosts.alpha())?;
    let client = pair.start_client(hosts.beta(), hosts.meeting_point(), port)?;
    wait_for_packets(hosts.beta(), 50)?;
    hosts.namespace(0).shell("ip link set eth0 down")?;
    said_retry_exceeded(&client.wait(Duration::from_secs(30))?);
    drop(server);
    hosts.namespace(0).shell("ip link set eth0 up")?;
    hosts.pair("ibv_rc_pingpong -g 3 -c -e -n 50")?;
    hosts.wait_until_empty()
}
