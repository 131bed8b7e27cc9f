use super::*;
use crate::devices::Devices;
use crate::ledger::Kind;
use crate::server::ServerConfig;
use crate::server::connection::Role;
use crate::tests::{Fake, FakeDevice, session_on};
use crate::world::DeviceIdentity;
use masq_directory::Embedded;
use masq_policy::EndpointId;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const POLICY: &str = "
version: 1
tenants:
  blue: { endpoints: { a: { address: 10.0.0.1 } } }
  red: { device: card, endpoints: { a: { address: 10.0.0.1 } } }
";

fn policy(text: &str) -> Policy {
    Policy::parse("p", text).unwrap()
}

fn server(dir: &Path) -> Server {
    let config = ServerConfig {
        run_dir: dir.to_owned(),
        policy_file: dir.join("policy.yaml"),
        socket_mode: 0o600,
        identity: DeviceIdentity::default(),
        drain: Duration::ZERO,
        host: None,
    };
    let mut devices = Devices::new(Arc::new(FakeDevice::new("soft")));
    devices.add(Arc::new(FakeDevice::new("card"))).unwrap();
    Server::new(config, policy(POLICY), devices, Box::new(Embedded)).unwrap()
}

/// Opens a session; its program's end of the socket, and what lives as long as what the
/// device has of it.
fn open(server: &mut Server, endpoint: &str) -> (UnixStream, std::sync::Weak<()>) {
    let id: EndpointId = endpoint.parse().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    server.world.charge(&id, Kind::Sessions, 1).unwrap();
    let index = server.new_conn(&id, ours, None).unwrap();
    let device = Fake::default();
    let life = Arc::downgrade(&device.life);
    let on = server.world.device_of(&id);
    let session = session_on(endpoint, on, device);
    server.conns.get_mut(index).unwrap().role = Role::Session(Box::new(session));
    (theirs, life)
}

#[test]
fn a_tenant_that_is_given_another_device_leaves_nothing_on_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(dir.path());
    let (_blue, on_soft) = open(&mut server, "blue/a");
    let (_red, on_card) = open(&mut server, "red/a");
    let moved = POLICY.replace("blue: {", "blue: { device: card,");
    let report = server.apply(policy(&moved)).unwrap();
    assert_eq!(report.sessions_closed, 1);
    let word = "tenant blue is on the device card, not soft any more";
    assert!(report.changes.iter().any(|c| c == word), "{report:?}");
    assert!(on_soft.upgrade().is_none());
    assert!(on_card.upgrade().is_some());
    let left: Vec<_> = server.conns.iter().map(|(_, c)| c.endpoint()).collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].to_string(), "red/a");
    // To say what is so anyway moves nobody.
    let report = server.apply(policy(&moved.replace("blue: {", "blue: { labels: {},")));
    assert_eq!(report.unwrap().sessions_closed, 0);
}

#[test]
fn a_policy_with_an_unknown_device_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(dir.path());
    let (_blue, on_soft) = open(&mut server, "blue/a");
    let wrong = POLICY
        .replace("device: card", "device: siw0")
        .replace("blue:", "green:");
    let error = server.apply(policy(&wrong)).unwrap_err();
    for part in [
        "tenant red",
        "device siw0",
        "soft, card",
        "--device verbs:siw0",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    assert!(on_soft.upgrade().is_some());
    assert!(server.world.policy.tenant("blue").is_some());
}
