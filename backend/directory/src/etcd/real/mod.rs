//! Against a real etcd.

mod server;

use super::*;
use server::{Proxy, Server};
use std::collections::BTreeMap;

const ALPHA: &str = "192.0.2.1";
const BETA: &str = "192.0.2.2";
const GAMMA: &str = "192.0.2.3";
/// By then everybody has heard of a change: what the directory promises.
const SECOND: Duration = Duration::from_secs(1);
/// How long a busy machine may take for what has no bound.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(port: u16) -> EtcdConfig {
    let text = format!("etcd://127.0.0.1:{port}/test");
    EtcdConfig {
        ttl: Duration::from_secs(2),
        ..EtcdConfig::parse(&text, None).unwrap()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn slot(address: &str) -> Slot {
    Slot {
        tenant: "blue".parse().unwrap(),
        address: ip(address),
    }
}

fn claim(endpoint: &str, addresses: &[&str]) -> Claim {
    Claim {
        id: format!("blue/{endpoint}").parse().unwrap(),
        class: None,
        addresses: addresses.iter().map(|text| ip(text)).collect(),
    }
}

/// A host, and what it has heard.
struct Host {
    etcd: Etcd,
    known: BTreeMap<Slot, Entry>,
}

impl Host {
    fn new(port: u16, address: &str) -> Self {
        Self::with(config(port), address)
    }

    fn with(config: EtcdConfig, address: &str) -> Self {
        Self {
            etcd: Etcd::start(config, ip(address)).unwrap(),
            known: BTreeMap::new(),
        }
    }

    fn hear(&mut self) {
        for Change { slot, entry } in self.etcd.changes() {
            match entry {
                Some(entry) => self.known.insert(slot, entry),
                None => self.known.remove(&slot),
            };
        }
    }

    /// The host that has an address, as far as this one has heard.
    fn holder(&mut self, address: &str) -> Option<IpAddr> {
        self.hear();
        self.known.get(&slot(address)).map(|entry| entry.host)
    }

    #[track_caller]
    fn wait(&mut self, what: &str, within: Duration, mut until: impl FnMut(&mut Self) -> bool) {
        let begin = Instant::now();
        while !until(self) {
            let state = self.etcd.state();
            assert!(
                begin.elapsed() < within,
                "{what}: {:?} {state:?}",
                self.known
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn claims(&self, count: usize) -> bool {
        self.etcd.state().claims == count
    }
}

#[test]
fn what_a_host_registers_others_hear_within_a_second() {
    let server = Server::start();
    let mut beta = Host::new(server.client, BETA);
    let alpha = Host::new(server.client, ALPHA);
    beta.wait("the first contact", PATIENCE, |beta| {
        beta.etcd.state().away_seconds.is_none()
    });
    alpha.etcd.announce(claim("a", &["10.0.0.1", "fd00::1"]));
    for address in ["10.0.0.1", "fd00::1"] {
        beta.wait(address, SECOND, |b| b.holder(address) == Some(ip(ALPHA)));
    }
    // Another address instead of one of them.
    alpha.etcd.announce(claim("a", &["10.0.0.1", "10.0.0.2"]));
    beta.wait("gone", SECOND, |b| b.holder("fd00::1").is_none());
    beta.wait("new", SECOND, |b| b.holder("10.0.0.2").is_some());
    assert_eq!(beta.holder("10.0.0.1"), Some(ip(ALPHA)));
    alpha.etcd.withdraw(&"blue/a".parse().unwrap());
    beta.wait("withdrawn", SECOND, |b| b.holder("10.0.0.1").is_none());
    alpha.etcd.announce(claim("a", &["10.0.0.1"]));
    beta.wait("again", SECOND, |b| b.holder("10.0.0.1").is_some());
    // Who ends in good order is not waited for.
    drop(alpha);
    beta.wait("ended", SECOND, |b| b.holder("10.0.0.1").is_none());
}

#[test]
fn what_this_host_says_itself_is_no_news_to_it() {
    let server = Server::start();
    let mut alpha = Host::new(server.client, ALPHA);
    alpha.etcd.announce(claim("a", &["10.0.0.1"]));
    alpha.wait("claimed", PATIENCE, |alpha| alpha.claims(1));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(alpha.etcd.changes(), []);
}

/// Runs as a process of its own, to be killed.
#[test]
#[ignore = "a part of another test"]
fn registrant() {
    let Ok(port) = std::env::var("MASQ_TEST_ETCD") else {
        return;
    };
    let alpha = Host::new(port.parse().unwrap(), ALPHA);
    alpha.etcd.announce(claim("a", &["10.0.0.1"]));
    std::thread::sleep(PATIENCE);
}

fn spawn_registrant(port: u16) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "etcd::real::registrant", "--ignored"])
        .env("MASQ_TEST_ETCD", port.to_string())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn the_entries_of_a_host_that_was_killed_end_with_its_lease() {
    let server = Server::start();
    let mut beta = Host::new(server.client, BETA);
    let mut killed = spawn_registrant(server.client);
    beta.wait("registered", PATIENCE, |b| b.holder("10.0.0.1").is_some());
    // It is kept alive for longer than it would last.
    std::thread::sleep(Duration::from_secs(4));
    assert!(beta.holder("10.0.0.1").is_some());
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(beta.holder("10.0.0.1").is_some());
    beta.wait("expired", PATIENCE, |b| b.holder("10.0.0.1").is_none());
}

#[test]
fn a_masqd_that_is_started_again_takes_its_entries_over() {
    let server = Server::start();
    let mut beta = Host::new(server.client, BETA);
    let mut killed = spawn_registrant(server.client);
    beta.wait("registered", PATIENCE, |b| b.holder("10.0.0.1").is_some());
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut alpha = Host::new(server.client, ALPHA);
    alpha.etcd.announce(claim("b", &["10.0.0.1"]));
    alpha.wait("taken over", PATIENCE, |alpha| alpha.claims(1));
    beta.wait("renamed", PATIENCE, |beta| {
        beta.hear();
        let entry = beta.known.get(&slot("10.0.0.1"));
        entry.is_some_and(|entry| entry.endpoint.as_str() == "b")
    });
    // It hangs on the new lease, not on the old one.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(beta.holder("10.0.0.1"), Some(ip(ALPHA)));
}

#[test]
fn what_is_known_goes_on_counting_while_etcd_is_away() {
    let mut server = Server::start();
    let mut beta = Host::new(server.client, BETA);
    let mut alpha = Host::new(server.client, ALPHA);
    alpha.etcd.announce(claim("a", &["10.0.0.1"]));
    beta.wait("registered", PATIENCE, |b| b.holder("10.0.0.1").is_some());
    server.kill();
    beta.wait("noticed", PATIENCE, |beta| {
        beta.etcd.state().away_seconds.is_some()
    });
    // For longer than the lease lasts.
    std::thread::sleep(Duration::from_secs(3));
    assert!(beta.holder("10.0.0.1").is_some());
    let state = beta.etcd.state();
    assert!(
        state.away_seconds >= Some(2) && state.error.is_some(),
        "{state:?}"
    );
    assert_eq!((state.entries, state.losses_total), (1, 1));
    // What happens meanwhile is made up for.
    alpha.etcd.withdraw(&"blue/a".parse().unwrap());
    alpha.etcd.announce(claim("b", &["10.0.0.2"]));
    server.restart(false);
    beta.wait("new", PATIENCE, |b| b.holder("10.0.0.2").is_some());
    beta.wait("old", PATIENCE, |b| b.holder("10.0.0.1").is_none());
    beta.wait("back", PATIENCE, |b| b.etcd.state().away_seconds.is_none());
    alpha.wait("held", PATIENCE, |alpha| alpha.claims(1));
}

#[test]
fn an_etcd_that_has_lost_everything_is_filled_again() {
    let mut server = Server::start();
    let mut beta = Host::new(server.client, BETA);
    let alpha = Host::new(server.client, ALPHA);
    alpha.etcd.announce(claim("a", &["10.0.0.1"]));
    beta.wait("registered", PATIENCE, |b| b.holder("10.0.0.1").is_some());
    server.kill();
    server.restart(true);
    let in_etcd = |port: u16| {
        let keys = Keys::new("test");
        let (first, last) = keys.range();
        let found = Api::new(config(port)).range(&first, &last, 10, 0);
        found.is_ok_and(|range| range.kvs.len() == 1)
    };
    beta.wait("claimed anew", PATIENCE, |_| in_etcd(server.client));
    beta.wait("heard of", PATIENCE, |b| b.holder("10.0.0.1").is_some());
    alpha.etcd.announce(claim("a", &["10.0.0.2"]));
    beta.wait("follows", PATIENCE, |b| b.holder("10.0.0.2").is_some());
    beta.wait("follows", PATIENCE, |b| b.holder("10.0.0.1").is_none());
}

#[test]
fn a_masqd_may_start_before_etcd() {
    let mut server = Server::start();
    server.kill();
    let mut beta = Host::new(server.client, BETA);
    let alpha = Host::new(server.client, ALPHA);
    alpha.etcd.announce(claim("a", &["10.0.0.1"]));
    beta.wait("noticed", PATIENCE, |beta| {
        beta.etcd.state().away_seconds.is_some()
    });
    server.restart(false);
    beta.wait("registered", PATIENCE, |b| b.holder("10.0.0.1").is_some());
}

#[test]
fn the_first_claim_wins_and_the_other_is_tried_again_when_it_ends() {
    let server = Server::start();
    let mut gamma = Host::new(server.client, GAMMA);
    let mut alpha = Host::new(server.client, ALPHA);
    let mut beta = Host::new(server.client, BETA);
    alpha.etcd.announce(claim("a", &["10.0.0.1"]));
    alpha.wait("claimed", PATIENCE, |alpha| alpha.claims(1));
    beta.etcd.announce(claim("b", &["10.0.0.1", "10.0.0.2"]));
    beta.wait("lost", PATIENCE, |beta| {
        beta.etcd.state().conflicts.len() == 1
    });
    let conflict = beta.etcd.state().conflicts.remove(0);
    assert_eq!(conflict.slot, slot("10.0.0.1"));
    assert_eq!(conflict.host, ip(ALPHA));
    assert_eq!(conflict.wanted_by.to_string(), "blue/b");
    assert_eq!(conflict.endpoint.as_str(), "a");
    gamma.wait("the other", PATIENCE, |g| g.holder("10.0.0.2").is_some());
    assert_eq!(gamma.holder("10.0.0.1"), Some(ip(ALPHA)));
    alpha.etcd.withdraw(&"blue/a".parse().unwrap());
    gamma.wait("moved", PATIENCE, |g| {
        g.holder("10.0.0.1") == Some(ip(BETA))
    });
    beta.wait("settled", PATIENCE, |beta| {
        beta.claims(2) && beta.etcd.state().conflicts.is_empty()
    });
    // The other way round.
    alpha.etcd.announce(claim("a", &["10.0.0.1"]));
    alpha.wait("lost", PATIENCE, |alpha| {
        alpha.etcd.state().conflicts.len() == 1
    });
    alpha.etcd.withdraw(&"blue/a".parse().unwrap());
    alpha.wait("nothing wanted", PATIENCE, |alpha| {
        alpha.etcd.state().conflicts.is_empty()
    });
    assert_eq!(gamma.holder("10.0.0.1"), Some(ip(BETA)));
}

#[test]
fn a_dead_connection_is_noticed_and_what_etcd_has_forgotten_is_listed() {
    let server = Server::start();
    let proxy = Proxy::start(server.client);
    let patient = EtcdConfig {
        silence: Duration::from_millis(700),
        ..config(proxy.port)
    };
    let mut beta = Host::with(patient, BETA);
    let alpha = Host::new(server.client, ALPHA);
    alpha.etcd.announce(claim("a", &["10.0.0.1"]));
    beta.wait("registered", PATIENCE, |b| b.holder("10.0.0.1").is_some());
    proxy.freeze();
    alpha.etcd.announce(claim("a", &["10.0.0.2"]));
    let mut direct = Api::new(config(server.client));
    let keys = Keys::new("test");
    let moved = keys.of(&slot("10.0.0.2"));
    let old = keys.of(&slot("10.0.0.1"));
    let begin = Instant::now();
    let revision = loop {
        let (first, last) = keys.range();
        let range = direct.range(&first, &last, 10, 0).unwrap();
        let has = |key: &[u8]| range.kvs.iter().any(|kv| kv.key.0 == key);
        if has(&moved) && !has(&old) {
            break range.header.revision.0;
        }
        assert!(begin.elapsed() < PATIENCE);
    };
    direct.compact(revision).unwrap();
    // What beta would ask for next no longer exists.
    let (first, last) = keys.range();
    let mut watch = direct.watch(&first, &last, 1).unwrap();
    let cancelled = (0..2).any(|_| watch.next().unwrap().is_some_and(|w| w.canceled));
    assert!(cancelled, "a watch from before the compaction goes on");
    beta.wait("new", PATIENCE, |b| b.holder("10.0.0.2").is_some());
    beta.wait("old", PATIENCE, |b| b.holder("10.0.0.1").is_none());
}

#[test]
fn what_makes_no_sense_is_counted_and_passed_over() {
    let server = Server::start();
    let mut direct = Api::new(config(server.client));
    let lease = direct.grant(Duration::from_secs(60)).unwrap();
    let good = br#"{"version":1,"endpoint":"a","host":"192.0.2.1"}"#;
    let put = |direct: &mut Api, key: &str, value: &[u8]| {
        direct.create(key.as_bytes(), value, lease).unwrap();
    };
    put(&mut direct, "test/v1/blue/10.0.0.9", b"\xff\xfe");
    put(&mut direct, "test/v1/nonsense", good);
    put(&mut direct, "test/v2/blue/10.0.0.8", good);
    let mut beta = Host::new(server.client, BETA);
    beta.wait("listed", PATIENCE, |b| b.etcd.state().malformed_total == 2);
    put(&mut direct, "test/v1/blue/10.0.0.1/x", good);
    put(&mut direct, "test/v1/blue/10.0.0.2", b"{\"version\":7}");
    put(&mut direct, "test/v1/blue/10.0.0.3", &[b' '; 5000]);
    put(&mut direct, "test/v1/blue/10.0.0.1", good);
    beta.wait("good", PATIENCE, |b| b.holder("10.0.0.1").is_some());
    assert_eq!(beta.etcd.state().malformed_total, 5);
    assert_eq!(beta.known.len(), 1);
    // A key that a host wants and that says nonsense is a claim all the same.
    beta.etcd.announce(claim("b", &["10.0.0.2"]));
    std::thread::sleep(Duration::from_millis(300));
    assert!(beta.claims(0));
    direct.revoke(lease).unwrap();
    beta.wait("free", PATIENCE, |beta| beta.claims(1));
    assert_eq!(beta.holder("10.0.0.1"), None);
}

#[test]
fn many_entries_are_listed_page_by_page() {
    let server = Server::start();
    let alpha = Host::new(server.client, ALPHA);
    let addresses: Vec<String> = (0..2100)
        .map(|n| format!("10.0.{}.{}", n / 200, n % 200))
        .collect();
    let list: Vec<&str> = addresses.iter().map(String::as_str).collect();
    alpha.etcd.announce(claim("a", &list));
    let mut alpha = alpha;
    alpha.wait("claimed", 2 * PATIENCE, |alpha| alpha.claims(2100));
    let mut beta = Host::new(server.client, BETA);
    beta.wait("listed", PATIENCE, |beta| {
        beta.hear();
        beta.known.len() == 2100
    });
}

#[test]
fn a_user_shows_a_password() {
    let server = Server::start();
    let mut direct = Api::new(config(server.client));
    for (path, body) in [
        ("auth/user/add", r#"{"name":"root","password":"secret"}"#),
        ("auth/role/add", r#"{"name":"root"}"#),
        ("auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("auth/enable", "{}"),
    ] {
        direct
            .call::<serde_json::Value>(path, &serde_json::from_str(body).unwrap())
            .unwrap();
    }
    let text = format!("etcd://root@127.0.0.1:{}/test", server.client);
    let with = |password: &str| EtcdConfig::parse(&text, Some(password.into())).unwrap();
    let alpha = Host::with(with("secret"), ALPHA);
    alpha.etcd.announce(claim("a", &["10.0.0.1"]));
    let mut beta = Host::with(with("secret"), BETA);
    beta.wait("registered", PATIENCE, |b| b.holder("10.0.0.1").is_some());
    for config in [config(server.client), with("wrong")] {
        let mut stranger = Host::with(config, GAMMA);
        stranger.wait("refused", PATIENCE, |stranger| {
            let error = stranger.etcd.state().error;
            error.is_some_and(|error| !error.contains("secret"))
        });
        assert_eq!(stranger.holder("10.0.0.1"), None);
    }
}

#[test]
fn both_sides_of_an_encrypted_connection_show_certificates() {
    let server = Server::with_tls();
    let text = format!("etcds://127.0.0.1:{}/test", server.client);
    let with = |ca: Option<&str>, client: bool| {
        let read = |name: &str| server.pem(name);
        let (ca, chain, key) = (ca.map(read), read("client.pem"), read("client.key"));
        let client = client.then_some((&chain[..], &key[..]));
        EtcdConfig {
            tls: Some(Tls::new(ca.as_deref(), client).unwrap()),
            ..EtcdConfig::parse(&text, None).unwrap()
        }
    };
    let alpha = Host::with(with(Some("ca.pem"), true), ALPHA);
    alpha.etcd.announce(claim("a", &["10.0.0.1"]));
    let mut beta = Host::with(with(Some("ca.pem"), true), BETA);
    beta.wait("registered", PATIENCE, |b| b.holder("10.0.0.1").is_some());
    // Nobody, a host that nobody vouches for, and one that believes others.
    let plain = config(server.client);
    for config in [plain, with(Some("ca.pem"), false), with(None, true)] {
        let mut stranger = Host::with(config, GAMMA);
        stranger.wait("refused", PATIENCE, |s| s.etcd.state().error.is_some());
        assert_eq!(stranger.holder("10.0.0.1"), None);
    }
    let no_key = Tls::new(None, Some((b"", b"")));
    assert!(no_key.is_err());
}
