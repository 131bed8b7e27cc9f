//! What of tenants is on the wire between hosts: nothing but the hosts' own addresses, and
//! who may talk to whom on either side.

use masq_e2e::{Host, Hosts, HostsConfig, Sightings, pair, two_hosts};
use std::net::IpAddr;
use std::time::Duration;

#[test]
fn only_the_hosts_own_addresses_are_in_the_headers_of_packets() -> anyhow::Result<()> {
    for config in [HostsConfig::at_hub(), HostsConfig::at_hub().ipv6()] {
        let hosts = config.start()?;
        let seen = Sightings::of(hosts.hub()?);
        hosts.pair("ibv_rc_pingpong -g 3 -c -n 50")?;
        hosts.pair("ibv_ud_pingpong -g 3 -c -s 1000 -n 50")?;
        hosts.meet("rping -s -V -C 5", "rping -c -a 10.0.0.1 -V -C 5")?;
        hosts.meet("udaddy", "udaddy -s 10.0.0.1")?;
        let (roce, all) = (seen.roce(), seen.all());
        assert!(roce.values().sum::<u64>() > 200, "{roce:?}");
        let own = [hosts.address(0), hosts.address(1), hosts.meeting_point()];
        // Linux speaks of itself, too: neighbours, groups.
        let others = all.iter().filter(|address| match address {
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

const FORTH: &str = "{ name: forth, from: b, to: a, action: allow }";
const BACK: &str = "{ name: back, from: a, to: b, action: allow }";

fn rules(rules: &[&str]) -> String {
    two_hosts(&["blue"], rules)
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
