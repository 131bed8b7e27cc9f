//! Three hosts and an etcd: an endpoint moves from host to host, and its peers follow.

use anyhow::{Context as _, bail};
use masq_e2e::{
    Finished, Host, Hosts, HostsConfig, Inside, Meeting, Running, Sightings, pair,
    wait_for_listeners,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

const POLICY: &str = "
version: 1
hosts: HOSTS
tenants:
  blue:
    addresses: [10.0.0.0/24, 10.88.0.0/16]
    endpoints:
      a: { address: 10.0.0.1, host: alpha }
      b: { address: 10.0.0.2, host: beta }
      c: { address: 10.0.0.3, host: gamma }
      roams: { address: 10.0.0.9 }
      worker: { address: auto }
    rules: [{ from: any, to: any, action: allow }]
";
const ALPHA: usize = 0;
const BETA: usize = 1;
const GAMMA: usize = 2;
/// The peer on each host.
const PEERS: [&str; 3] = ["blue/a", "blue/b", "blue/c"];
const ROAMS: &str = "blue/roams";
const ADDRESS: &str = "10.0.0.9";

fn three() -> HostsConfig {
    HostsConfig::at_hub().count(3).etcd().policy(POLICY)
}

/// Where `masq hosts` of a host says that an endpoint lives; none: here, or nowhere.
fn place_of(host: &Host, endpoint: &str) -> anyhow::Result<Option<IpAddr>> {
    let shown = host.masq_output(["hosts", "--json"])?.success()?.output;
    let shown: serde_json::Value = serde_json::from_str(&shown).context(shown)?;
    let place = shown.pointer(&format!("/endpoints/{}", endpoint.replace('/', "~1")));
    let place = place.and_then(|place| place.as_str());
    Ok(place.map(str::parse).transpose()?)
}

#[track_caller]
fn wait(host: &Host, what: &str, until: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !until()? {
        if Instant::now() > end {
            bail!("{what}: {:?}\n{}", host.overview()?.hosts, host.log());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits until the other hosts show an endpoint at its place.
fn wait_until_known(hosts: &Hosts, endpoint: &str, at: usize) -> anyhow::Result<()> {
    for (number, host) in [ALPHA, BETA, GAMMA].map(|n| (n, hosts.at(n))) {
        let expected = (number != at).then(|| hosts.address(at));
        let what = format!("host {number} does not show {endpoint} at host {at}");
        wait(host, &what, || Ok(place_of(host, endpoint)? == expected))?;
    }
    Ok(())
}

/// Waits until a host has sent so many more packets.
fn wait_for_packets(host: &Host, more: u64) -> anyhow::Result<()> {
    let sent = || -> anyhow::Result<u64> {
        let hosts = host.overview()?.hosts;
        Ok(hosts.map_or(0, |hosts| hosts.wire.sent_packets))
    };
    let wanted = sent()? + more;
    wait(host, "nothing is sent", || Ok(sent()? >= wanted))
}

fn is_away(host: &Host) -> anyhow::Result<bool> {
    let hosts = host.overview()?.hosts;
    Ok(hosts.is_some_and(|hosts| hosts.directory.away_seconds.is_some()))
}

/// The roaming endpoint's server, which makes its host the endpoint's.
fn serve(hosts: &Hosts, at: usize) -> anyhow::Result<Running> {
    let line = format!("rping -s -P -a {ADDRESS} -V -S 3000");
    let server = Meeting::new(&line, "").between(ROAMS, ROAMS);
    server.start_server(hosts.at(at))
}

/// A peer on a host finds every byte right that it moves to and fro: with the server that
/// runs, by its virtual address, and with one that it meets by its own means.
fn talk(hosts: &Hosts, from: usize, to: usize) -> anyhow::Result<()> {
    let doing = || format!("a peer on host {from} with {ROAMS} on host {to}");
    let words = ["-c", "-a", ADDRESS, "-v", "-V", "-S", "3000", "-C", "20"];
    let client = hosts.at(from).run_as(PEERS[from], "rping", words)?;
    let client = client.success().with_context(doing)?;
    assert_eq!(client.output.matches("ping data: ").count(), 20, "{client}");
    pair("ibv_rc_pingpong -g 3 -c -s 20000 -n 50")
        .between(ROAMS, PEERS[from])
        .run_across(hosts.at(to), hosts.address(to), hosts.at(from))
        .with_context(doing)?;
    Ok(())
}

/// Both ways, and nothing else.
fn between(hosts: &Hosts, one: usize, other: usize) -> BTreeSet<(IpAddr, IpAddr)> {
    let [one, other] = [one, other].map(|at| hosts.address(at));
    [(one, other), (other, one)].into()
}

fn ways(seen: &Sightings) -> BTreeSet<(IpAddr, IpAddr)> {
    seen.roce().into_keys().collect()
}

/// No completion came, or one that says that the peer is gone.
fn was_cut(out: &Finished) {
    /// As `ibv_wc_status` has it.
    const RETRY_EXC: &str = "12";
    assert!(!out.status.success(), "{out}");
    let said = ["status ", "("].map(|before| format!("{before}{RETRY_EXC}"));
    assert!(said.iter().any(|said| out.output.contains(said)), "{out}");
}

#[test]
fn peers_follow_an_endpoint_to_another_host_and_nothing_goes_to_the_old_one() -> anyhow::Result<()>
{
    let hosts = three().start()?;
    let seen = Sightings::of(hosts.hub()?);
    let server = serve(&hosts, BETA)?;
    wait_until_known(&hosts, ROAMS, BETA)?;
    for from in [ALPHA, BETA, GAMMA] {
        talk(&hosts, from, BETA)?;
    }
    // What the peer on the same host says is not on the wire.
    let carried = [ALPHA, GAMMA].map(|from| between(&hosts, from, BETA));
    assert_eq!(ways(&seen), carried.into_iter().flatten().collect());
    // One that is in the middle of it when the endpoint moves; it may take 0.54 s.
    let writes = pair("ib_write_bw -x 3 -F -n 100000000 -u 14").between(ROAMS, PEERS[ALPHA]);
    let (mover, port) = writes.start_server(hosts.at(BETA))?;
    let writer = writes.start_client(hosts.at(ALPHA), hosts.address(BETA), port)?;
    wait_for_packets(hosts.at(ALPHA), 100)?;

    drop((server, mover));
    let _server = serve(&hosts, GAMMA)?;
    wait_until_known(&hosts, ROAMS, GAMMA)?;
    was_cut(&writer.wait(PATIENCE)?);
    hosts.at(BETA).wait_until_empty()?;
    seen.forget();
    talk(&hosts, ALPHA, GAMMA)?;
    // The same virtual address, another host: the old one hears of nothing.
    assert_eq!(ways(&seen), between(&hosts, ALPHA, GAMMA));
    seen.forget();
    // Where it was before, it is elsewhere now as well.
    talk(&hosts, BETA, GAMMA)?;
    assert_eq!(ways(&seen), between(&hosts, BETA, GAMMA));
    seen.forget();
    talk(&hosts, GAMMA, GAMMA)?;
    assert_eq!(ways(&seen), BTreeSet::new());
    Ok(())
}

#[test]
fn only_hosts_addresses_are_on_the_wire_while_an_endpoint_moves() -> anyhow::Result<()> {
    let hosts = three().start()?;
    let seen = Sightings::of(hosts.hub()?);
    for at in [BETA, GAMMA, ALPHA] {
        let _server = serve(&hosts, at)?;
        wait_until_known(&hosts, ROAMS, at)?;
        for from in [ALPHA, BETA, GAMMA] {
            talk(&hosts, from, at)?;
        }
    }
    let hosts_own: BTreeSet<_> = [ALPHA, BETA, GAMMA].map(|at| hosts.address(at)).into();
    let ways = ways(&seen);
    assert_eq!(ways.len(), 6, "{ways:?}");
    let all: BTreeSet<_> = ways.into_iter().flat_map(|(a, b)| [a, b]).collect();
    assert_eq!(all, hosts_own);
    let is_virtual = |address: &&IpAddr| matches!(address, IpAddr::V4(a) if a.octets()[0] == 10);
    assert_eq!(seen.all().iter().find(is_virtual), None);
    Ok(())
}

#[test]
fn what_is_known_serves_new_connections_without_etcd_and_a_move_is_seen_once_it_is_back()
-> anyhow::Result<()> {
    let mut hosts = three().start()?;
    let server = serve(&hosts, BETA)?;
    wait_until_known(&hosts, ROAMS, BETA)?;
    // It stays connected throughout.
    let words = ["-c", "-a", ADDRESS, "-V", "-S", "3000"];
    let mut stays = hosts.at(ALPHA).start_as(PEERS[ALPHA], "rping", words)?;
    hosts.etcd()?.kill()?;
    for host in [ALPHA, BETA, GAMMA].map(|at| hosts.at(at)) {
        wait(host, "etcd is not missed", || is_away(host))?;
    }
    for from in [ALPHA, BETA, GAMMA] {
        talk(&hosts, from, BETA)?;
    }
    assert!(stays.is_running(), "{}", stays.output());
    wait_for_packets(hosts.at(ALPHA), 200)?;
    hosts.etcd()?.restart()?;
    for host in [ALPHA, BETA, GAMMA].map(|at| hosts.at(at)) {
        wait(host, "etcd is not found again", || Ok(!is_away(host)?))?;
    }
    talk(&hosts, ALPHA, BETA)?;
    assert!(stays.is_running(), "{}", stays.output());
    wait_for_packets(hosts.at(ALPHA), 200)?;
    drop((server, stays));
    let _server = serve(&hosts, GAMMA)?;
    wait_until_known(&hosts, ROAMS, GAMMA)?;
    for from in [ALPHA, BETA] {
        talk(&hosts, from, GAMMA)?;
    }
    Ok(())
}

#[test]
fn an_endpoint_that_moves_while_etcd_is_away_is_found_when_it_is_back() -> anyhow::Result<()> {
    let mut hosts = three().start()?;
    let server = serve(&hosts, BETA)?;
    wait_until_known(&hosts, ROAMS, BETA)?;
    hosts.etcd()?.kill()?;
    drop(server);
    let _server = serve(&hosts, GAMMA)?;
    // What is here is reached here, whatever others believe.
    talk(&hosts, GAMMA, GAMMA)?;
    hosts.etcd()?.restart()?;
    wait_until_known(&hosts, ROAMS, GAMMA)?;
    for from in [ALPHA, BETA] {
        talk(&hosts, from, GAMMA)?;
    }
    Ok(())
}

#[test]
fn a_container_takes_its_address_along_to_another_host() -> anyhow::Result<()> {
    let hosts = three().start()?;
    let serve = |at: usize| {
        let inside = Inside::with_addresses(&["10.88.0.7/32"])?;
        let report = inside.register(hosts.at(at), "c", "blue", Some("worker"))?;
        let line = "rping -s -P -a 10.88.0.7 -V";
        let mut server = inside.start_in(hosts.at(at), &report, line)?;
        wait_for_listeners(hosts.at(at), &report.endpoint, 1, &mut server)?;
        wait_until_known(&hosts, &report.endpoint, at)?;
        anyhow::Ok((server, inside, report))
    };
    for at in [BETA, GAMMA, ALPHA] {
        let (_server, inside, report) = serve(at)?;
        for from in [ALPHA, BETA, GAMMA] {
            let words = ["-c", "-a", "10.88.0.7", "-v", "-V", "-C", "20"];
            let client = hosts.at(from).run_as(PEERS[from], "rping", words)?;
            client
                .success()
                .with_context(|| format!("{from} to {at}"))?;
        }
        inside.kill();
        for host in [ALPHA, BETA, GAMMA].map(|at| hosts.at(at)) {
            wait(host, "it is still there", || {
                let mut endpoints = host.overview()?.endpoints.into_iter();
                Ok(!endpoints.any(|e| e.endpoint == report.endpoint))
            })?;
        }
    }
    Ok(())
}
