//! What of tenants is on the wire between hosts: nothing but the hosts' own addresses, and
//! who may talk to whom on either side.

use masq_e2e::{Host, Hosts, HostsConfig, is_roce, pair};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where an IP packet comes from and goes to.
fn addresses(frame: &[u8]) -> Option<[IpAddr; 2]> {
    let v4 = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<16>()?));
    match frame.get(12..14)? {
        [0x08, 0x00] => Some([v4(26)?, v4(30)?]),
        [0x86, 0xdd] => Some([v6(22)?, v6(38)?]),
        _ => None,
    }
}

#[test]
fn only_the_hosts_own_addresses_are_in_the_headers_of_packets() -> anyhow::Result<()> {
    for config in [HostsConfig::at_hub(), HostsConfig::at_hub().ipv6()] {
        let hosts = config.start()?;
        let seen = Arc::new(Mutex::new((0, BTreeSet::new())));
        let sink = seen.clone();
        hosts.hub()?.observe(Box::new(move |_, frame| {
            let mut sink = sink.lock().unwrap();
            sink.0 += u64::from(is_roce(frame));
            sink.1.extend(addresses(frame).into_iter().flatten());
        }));
        hosts.pair("ibv_rc_pingpong -g 3 -c -n 50")?;
        hosts.pair("ibv_ud_pingpong -g 3 -c -s 1000 -n 50")?;
        hosts.meet("rping -s -V -C 5", "rping -c -a 10.0.0.1 -V -C 5")?;
        hosts.meet("udaddy", "udaddy -s 10.0.0.1")?;
        let (packets, seen) = seen.lock().unwrap().clone();
        assert!(packets > 200, "{packets}");
        let own = [hosts.address(0), hosts.address(1), hosts.meeting_point()];
        // Linux speaks of itself, too: neighbours, groups.
        let others = seen.iter().filter(|address| match address {
            IpAddr::V4(v4) => !own.contains(address) && v4.octets() != [192, 0, 2, 2],
            IpAddr::V6(v6) => {
                let is_local = v6.is_unicast_link_local() || v6.is_unspecified();
                !own.contains(address) && !is_local && !v6.is_multicast()
            }
        });
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&IpAddr>::new());
    }
    Ok(())
}

const RULES: &str = "
version: 1
hosts: HOSTS
tenants:
  blue:
    endpoints:
      a: { address: 10.0.0.1, host: alpha }
      b: { address: 10.0.0.2, host: beta }
    rules: [RULES]
";
const FORTH: &str = "{ name: forth, from: b, to: a, action: allow }";
const BACK: &str = "{ name: back, from: a, to: b, action: allow }";

fn rules(rules: &[&str]) -> String {
    RULES.replace("RULES", &rules.join(", "))
}

fn refusals(host: &Host) -> anyhow::Result<u64> {
    let totals = host.overview()?.refusals_total;
    Ok(totals.iter().map(|refusal| refusal.count).sum())
}

#[test]
fn a_rule_that_either_side_lacks_refuses_and_is_counted_there() -> anyhow::Result<()> {
    let hosts = HostsConfig::default()
        .policy(&rules(&[FORTH, BACK]))
        .start()?;
    let line = "ibv_rc_pingpong -g 3 -c -n 50";
    hosts.pair(line)?;
    for (missing, left) in [(0, FORTH), (1, BACK)] {
        hosts.reload(missing, &rules(&[left]))?;
        let before = refusals(hosts.at(missing))?;
        let out = pair(line).outcome_across(hosts.alpha(), hosts.meeting_point(), hosts.beta())?;
        let side = [&out.server, &out.client][missing];
        assert!(!side.status.success(), "{side}");
        // EPERM of ibv_modify_qp.
        assert!(side.output.contains("Failed to modify QP to RTR"), "{side}");
        assert!(refusals(hosts.at(missing))? > before);
        let names = ["blue/a", "blue/b"];
        let (from, to) = (names[missing], names[1 - missing]);
        let words = ["policy", "explain", "--from", from, "--to", to];
        let explained = hosts.at(missing).masq_output(words)?.output;
        assert!(explained.contains("denied"), "{explained}");
        hosts.reload(missing, &rules(&[FORTH, BACK]))?;
        hosts.pair(line)?;
    }
    Ok(())
}

#[test]
fn rules_that_go_cut_the_connection_on_both_hosts() -> anyhow::Result<()> {
    let hosts = Hosts::two()?;
    let pair = pair("ib_write_bw -x 3 -F -n 100000000 -u 14");
    let (server, port) = pair.start_server(hosts.alpha())?;
    let mut client = pair.start_client(hosts.beta(), hosts.meeting_point(), port)?;
    std::thread::sleep(Duration::from_millis(300));
    assert!(client.is_running(), "{}", client.output());
    for at in [0, 1] {
        hosts.reload(at, &rules(&[]))?;
    }
    for program in [client, server] {
        let out = program.wait(Duration::from_secs(30))?;
        assert!(!out.status.success(), "{out}");
    }
    hosts.wait_until_empty()
}
