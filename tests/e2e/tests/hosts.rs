//! Which host has which virtual address: two masqd, by the policy and by etcd. What goes
//! over the wire is tested elsewhere.

use anyhow::{Context as _, bail};
use masq_admin::Overview;
use masq_e2e::{
    Binaries, Etcd, Host, Inside, Running, THREAD_NET, free_port, own_network, wait_for_listener_in,
};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

const POLICY: &str = "
version: 1
hosts:
  alpha: { address: 192.0.2.1 }
  beta: { address: 192.0.2.2 }
tenants:
  blue:
    pkey: 0xffff
    addresses: [10.0.0.0/16, 10.88.0.0/16]
    endpoints:
      a: { address: 10.0.0.1, host: alpha }
      b: { address: 10.0.0.2, host: beta }
      roams: { address: 10.0.0.3 }
      filer: { outside: 192.0.2.9 }
      worker: { address: auto }
      far: { address: auto, host: beta }
    rules:
      - { from: any, to: any, action: allow }
";
const ALPHA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const BETA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// Two hosts on one network.
struct Two {
    alpha: Host,
    beta: Host,
}

impl Two {
    fn start(directory: Option<&str>) -> anyhow::Result<Self> {
        let start = |name: &str| {
            let mut args = vec!["--host", name];
            args.extend(directory.into_iter().flat_map(|d| ["--directory", d]));
            Host::launch(Binaries::find()?, POLICY, &args)
        };
        Ok(Self {
            alpha: start("alpha")?,
            beta: start("beta")?,
        })
    }
}

/// A network for both hosts; first of all.
fn network() -> anyhow::Result<()> {
    own_network(&["192.0.2.1/32", "192.0.2.2/32"])
}

/// The host where an endpoint lives, as a host sees it; the inner one is `None` if it
/// lives there itself.
fn host_of(overview: &Overview, endpoint: &str) -> Option<Option<IpAddr>> {
    let mut endpoints = overview.endpoints.iter();
    endpoints.find(|e| e.endpoint == endpoint).map(|e| e.host)
}

#[track_caller]
fn wait(host: &Host, what: &str, until: impl Fn(&Overview) -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let overview = host.overview()?;
        if until(&overview) {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("{what}: {:?}\n{}", overview.hosts, host.log());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn refused(host: &Host, words: &[&str]) -> anyhow::Result<String> {
    let out = host.masq_output(words)?;
    anyhow::ensure!(!out.status.success(), "{words:?} succeeded: {out}");
    Ok(out.output)
}

/// A program that is `endpoint` until it ends.
fn program(host: &Host, endpoint: &str) -> anyhow::Result<Running> {
    let port = free_port()?;
    let words = ["-g", "3", "-p", &port.to_string()];
    let mut server = host.start_as(endpoint, "ibv_rc_pingpong", words)?;
    let net = Path::new(THREAD_NET);
    wait_for_listener_in(net, port, PATIENCE, || server.is_running()).context("pingpong")?;
    Ok(server)
}

#[test]
fn an_endpoint_of_another_host_has_no_socket_here_and_is_said_to_live_there() -> anyhow::Result<()>
{
    network()?;
    let two = Two::start(None)?;
    let socket = |host: &Host, name: &str| {
        let dir = host.run_dir().join("endpoints/blue").join(name);
        dir.join("masq.sock").exists()
    };
    assert!(socket(&two.alpha, "a") && !socket(&two.beta, "a"));
    assert!(!socket(&two.alpha, "b") && socket(&two.beta, "b"));
    assert!(socket(&two.alpha, "roams") && socket(&two.beta, "roams"));
    assert!(!socket(&two.alpha, "filer"));
    let run = |endpoint| refused(&two.alpha, &["run", "--endpoint", endpoint, "--", "true"]);
    let words = run("blue/b")?;
    assert!(
        words.contains("blue/b lives on host beta (192.0.2.2)"),
        "{words}"
    );
    let words = run("blue/filer")?;
    assert!(words.contains("no masqd watches over"), "{words}");
    let overview = two.alpha.overview()?;
    assert_eq!(host_of(&overview, "blue/a"), Some(None));
    assert_eq!(host_of(&overview, "blue/b"), Some(Some(BETA)));
    let filer = "192.0.2.9".parse()?;
    assert_eq!(host_of(&overview, "blue/filer"), Some(Some(filer)));
    let hosts = two.alpha.masq_output(["hosts"])?.success()?.output;
    assert!(
        hosts.contains("this host") && hosts.contains("blue/filer"),
        "{hosts}"
    );
    let words = ["policy", "explain", "--from", "blue/a", "--to", "blue/b"];
    let explained = two.alpha.masq_output(words)?.success()?.output;
    assert!(
        explained.contains("blue/b lives on host beta"),
        "{explained}"
    );
    Ok(())
}

#[test]
fn a_container_starts_on_the_host_that_the_policy_names() -> anyhow::Result<()> {
    network()?;
    let two = Two::start(None)?;
    let inside = Inside::with_addresses(&["10.88.0.1/32"])?;
    let error = inside
        .register(&two.alpha, "c", "blue", Some("far"))
        .unwrap_err();
    let words = error.to_string();
    assert!(words.contains("lives on host beta (192.0.2.2)"), "{words}");
    assert!(words.contains("this is alpha"), "{words}");
    inside.register(&two.beta, "c", "blue", Some("far"))?;
    Ok(())
}

#[test]
fn masqd_says_which_hosts_there_are_if_it_is_not_told_which_one_it_is() -> anyhow::Result<()> {
    network()?;
    let start = |args: &[&str]| {
        let started = Host::launch(Binaries::find()?, POLICY, args);
        anyhow::Ok(started.err().context("it started")?.to_string())
    };
    let words = start(&[])?;
    assert!(words.contains("alpha (192.0.2.1), beta"), "{words}");
    let words = start(&["--host", "gamma"])?;
    assert!(words.contains("no such host; it has: alpha"), "{words}");
    let words = start(&["--host", "alpha", "--directory", "http://x"])?;
    assert!(words.contains("etcd://HOST:PORT"), "{words}");
    let words = start(&["--directory", "etcd://x"])?;
    assert!(words.contains("--host"), "{words}");
    Ok(())
}

#[test]
fn a_reload_moves_endpoints_between_hosts_and_keeps_the_host_its_address() -> anyhow::Result<()> {
    network()?;
    let two = Two::start(None)?;
    let running = program(&two.alpha, "blue/a")?;
    let change = |host: &Host, from: &str, to: &str| {
        let text = std::fs::read_to_string(host.policy_file())?;
        assert!(text.contains(from), "{text}");
        std::fs::write(host.policy_file(), text.replace(from, to))?;
        host.masq_output(["reload"])
    };
    let to_beta = ("10.0.0.1, host: alpha", "10.0.0.1, host: beta");
    change(&two.alpha, to_beta.0, to_beta.1)?.success()?;
    change(&two.beta, to_beta.0, to_beta.1)?.success()?;
    let socket = |host: &Host| host.run_dir().join("endpoints/blue/a/masq.sock").exists();
    assert!(!socket(&two.alpha) && socket(&two.beta));
    assert_eq!(host_of(&two.alpha.overview()?, "blue/a"), Some(Some(BETA)));
    wait(&two.alpha, "its sessions end", |overview| {
        overview.sessions.is_empty()
    })?;
    drop(running);
    let out = change(&two.alpha, "192.0.2.1", "192.0.2.7")?;
    assert!(!out.status.success(), "{out}");
    assert!(out.output.contains("another address: 192.0.2.7"), "{out}");
    Ok(())
}

#[test]
fn hosts_hear_of_programs_and_containers_of_each_other() -> anyhow::Result<()> {
    network()?;
    let etcd = Etcd::start()?;
    let two = Two::start(Some(&etcd.address()))?;
    let running = program(&two.alpha, "blue/roams")?;
    wait(&two.beta, "the program", |overview| {
        host_of(overview, "blue/roams") == Some(Some(ALPHA))
    })?;
    let inside = Inside::with_addresses(&["10.88.0.7/32"])?;
    let report = inside.register(&two.alpha, "c", "blue", Some("worker"))?;
    wait(&two.beta, "the container", |overview| {
        host_of(overview, &report.endpoint) == Some(Some(ALPHA))
    })?;
    let explain = |to: &str| {
        let words = ["policy", "explain", "--from", "blue/b", "--to", to];
        anyhow::Ok(two.beta.masq_output(words)?.success()?.output)
    };
    for to in ["blue/roams", "10.0.0.3", &report.endpoint, "10.88.0.7"] {
        let words = explain(to)?;
        assert!(words.contains("lives on"), "{words}");
        assert!(words.contains("192.0.2.1"), "{words}");
    }
    drop(running);
    wait(&two.beta, "the program's end", |overview| {
        host_of(overview, "blue/roams") == Some(None)
    })?;
    inside.kill();
    wait(&two.beta, "the container's end", |overview| {
        host_of(overview, &report.endpoint).is_none()
    })
}

#[test]
fn a_host_that_is_killed_is_forgotten_and_one_that_stops_at_once() -> anyhow::Result<()> {
    network()?;
    let etcd = Etcd::start()?;
    let mut two = Two::start(Some(&etcd.address()))?;
    let inside = Inside::with_addresses(&["10.88.0.7/32"])?;
    let report = inside.register(&two.alpha, "c", "blue", Some("worker"))?;
    let known = |overview: &Overview| host_of(overview, &report.endpoint) == Some(Some(ALPHA));
    wait(&two.beta, "known", known)?;
    two.alpha.kill();
    wait(&two.beta, "forgotten", |overview| !known(overview))?;
    // It takes its container up again, and says so.
    two.alpha.restart()?;
    wait(&two.beta, "known again", known)?;
    two.alpha.signal(rustix::process::Signal::TERM);
    wait(&two.beta, "forgotten again", |overview| !known(overview))
}

#[test]
fn an_address_of_two_hosts_is_the_firsts_and_a_conflict_of_the_other() -> anyhow::Result<()> {
    network()?;
    let etcd = Etcd::start()?;
    let two = Two::start(Some(&etcd.address()))?;
    let conflicts = |overview: &Overview| {
        let hosts = overview.hosts.as_ref();
        hosts.map_or(0, |hosts| hosts.directory.conflicts.len())
    };
    let first = Inside::with_addresses(&["10.88.0.7/32"])?;
    let second = Inside::with_addresses(&["10.88.0.7/32"])?;
    let of_alpha = first.register(&two.alpha, "first", "blue", Some("worker"))?;
    wait(&two.beta, "known", |overview| {
        host_of(overview, &of_alpha.endpoint).is_some()
    })?;
    let of_beta = second.register(&two.beta, "second", "blue", Some("worker"))?;
    // It has its address on its own host.
    assert_eq!(of_beta.addresses, ["10.88.0.7".parse::<IpAddr>()?]);
    wait(&two.beta, "a conflict", |overview| conflicts(overview) == 1)?;
    let shown = two.beta.masq_output(["hosts"])?.success()?.output;
    assert!(shown.contains("blue/worker.first on alpha"), "{shown}");
    first.kill();
    wait(&two.alpha, "settled", |overview| {
        host_of(overview, &of_beta.endpoint) == Some(Some(BETA))
    })?;
    wait(&two.beta, "no conflict", |overview| {
        conflicts(overview) == 0
    })
}

#[test]
fn what_is_known_goes_on_counting_without_etcd() -> anyhow::Result<()> {
    network()?;
    let mut etcd = Etcd::start()?;
    let two = Two::start(Some(&etcd.address()))?;
    let running = program(&two.alpha, "blue/roams")?;
    let known = |overview: &Overview| host_of(overview, "blue/roams") == Some(Some(ALPHA));
    wait(&two.beta, "known", known)?;
    etcd.kill()?;
    let away = |overview: &Overview| {
        let hosts = overview.hosts.as_ref();
        hosts.is_some_and(|hosts| hosts.directory.away_seconds.is_some())
    };
    wait(&two.beta, "away", away)?;
    assert!(known(&two.beta.overview()?));
    let shown = two.beta.masq_output(["hosts"])?.success()?.output;
    assert!(shown.contains("away"), "{shown}");
    let metrics = two.beta.masq_output(["metrics"])?.success()?.output;
    assert!(metrics.contains("masq_directory_up 0"), "{metrics}");
    let doctor = two.beta.masq_output(["doctor"])?.output;
    assert!(doctor.contains("is away for"), "{doctor}");
    drop(running);
    etcd.restart()?;
    wait(&two.beta, "back", |overview| {
        !away(overview) && !known(overview)
    })
}

/// A client on `from` meets a server that is `blue/roams` on `to`.
fn meet(from: (&Host, &str), to: &Host) -> anyhow::Result<()> {
    let port = free_port()?.to_string();
    let words = ["-g", "3", "-p", &port, "-n", "100"];
    let mut server = to.start_as("blue/roams", "ibv_rc_pingpong", words)?;
    let net = Path::new(THREAD_NET);
    wait_for_listener_in(net, port.parse()?, PATIENCE, || server.is_running())?;
    let client = from.0.run_as(
        from.1,
        "ibv_rc_pingpong",
        [&words[..], &["127.0.0.1"]].concat(),
    );
    let server = server.wait(PATIENCE)?;
    let client = client?
        .success()
        .with_context(|| format!("the server: {server}"))?;
    anyhow::ensure!(client.output.contains("100 iters"), "{client}");
    server.success()?;
    Ok(())
}

#[test]
fn peers_reach_an_endpoint_where_it_is_and_again_where_it_has_moved() -> anyhow::Result<()> {
    network()?;
    let etcd = Etcd::start()?;
    let two = Two::start(Some(&etcd.address()))?;
    for round in 0..3 {
        let rounds = || format!("round {round}");
        meet((&two.beta, "blue/b"), &two.alpha).with_context(rounds)?;
        meet((&two.alpha, "blue/a"), &two.beta).with_context(rounds)?;
    }
    Ok(())
}

/// For a second, as news may take so long.
#[test]
fn rdma_cm_waits_for_a_peer_that_nobody_has_registered() -> anyhow::Result<()> {
    network()?;
    let etcd = Etcd::start()?;
    let two = Two::start(Some(&etcd.address()))?;
    for (address, answer) in [
        ("10.0.0.3", "RDMA_CM_EVENT_REJECTED"),
        ("10.88.0.7", "RDMA_CM_EVENT_ADDR_ERROR"),
    ] {
        let since = Instant::now();
        let words = ["-c", "-a", address, "-C", "1"];
        let out = two.alpha.run_as("blue/a", "rping", words)?;
        assert!(
            !out.status.success() && out.output.contains(answer),
            "{out}"
        );
        assert!(since.elapsed() >= Duration::from_secs(1), "at once: {out}");
    }
    Ok(())
}
