//! RConnrename: where endpoints live, by the policy and by the directory.

use super::*;
use masq_device::Destination;
use masq_directory::{Change, Embedded, Entry, LocalHost, Slot};
use zerocopy::FromZeros;

const HOSTS: &str = "
version: 1
hosts: { alpha: { address: 192.0.2.1 }, beta: { address: 192.0.2.2 } }
tenants:
  blue:
    pkey: 0xffff
    addresses: 10.0.0.0/16
    endpoints:
      here: { address: 10.0.0.1, host: alpha }
      there: { address: 10.0.0.2, host: beta }
      anywhere: { address: 10.0.0.3 }
      filer: { outside: 192.0.2.9 }
      worker: { address: auto }
    rules: [ { from: any, to: any, action: allow } ]
";

/// A directory that says nothing of itself.
struct Silent;

impl masq_directory::Directory for Silent {
    fn hears_others(&self) -> bool {
        true
    }
    fn announce(&self, _: masq_directory::Claim) {}
    fn withdraw(&self, _: &EndpointId) {}
    fn changes(&self) -> Vec<Change> {
        Vec::new()
    }
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
    fn state(&self) -> masq_directory::State {
        masq_directory::State::default()
    }
}

fn on(host: Option<&str>) -> World {
    let policy = Policy::parse("p", HOSTS).unwrap();
    let this = host.map(|host| LocalHost::find(&policy, Some(host)).unwrap().unwrap());
    World::new(
        Arc::new(policy),
        Devices::new(Arc::new(FakeDevice::connected("fake"))),
        DeviceIdentity::default(),
        this,
        Box::new(Embedded),
    )
}

fn id(text: &str) -> EndpointId {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn host_of(world: &mut World, endpoint: &str) -> Option<IpAddr> {
    match world.destination(&id(endpoint)).unwrap().unwrap() {
        Destination::Endpoint(key) => {
            assert_eq!(key, world.endpoint_key(&id(endpoint)));
            None
        }
        Destination::Host(host) => Some(host),
        Destination::Multicast(_) => panic!("no group"),
    }
}

fn said(world: &mut World, address: &str, entry: Option<(&str, Option<&str>, &str)>) {
    let id = id("blue/here");
    let slot = Slot {
        tenant: id.tenant().clone(),
        address: ip(address),
    };
    world.note_left(&slot.tenant, slot.address, entry.is_none());
    let entry = entry.map(|(endpoint, class, host)| Entry {
        endpoint: endpoint.parse().unwrap(),
        class: class.map(|class| class.parse().unwrap()),
        host: ip(host),
    });
    world.view.apply(Change { slot, entry });
    let view = std::mem::take(&mut world.view);
    world.change_policy(id.tenant(), |policy| {
        view.bring_in_step(policy, id.tenant())
    });
    world.view = view;
}

#[test]
fn what_the_policy_places_is_where_it_says() {
    let mut alpha = on(Some("alpha"));
    assert_eq!(host_of(&mut alpha, "blue/here"), None);
    assert_eq!(host_of(&mut alpha, "blue/there"), Some(ip("192.0.2.2")));
    assert_eq!(host_of(&mut alpha, "blue/filer"), Some(ip("192.0.2.9")));
    let mut beta = on(Some("192.0.2.2"));
    assert_eq!(host_of(&mut beta, "blue/here"), Some(ip("192.0.2.1")));
    assert_eq!(host_of(&mut beta, "blue/there"), None);
}

#[test]
fn a_host_that_is_not_one_of_several_reaches_no_other() {
    let mut alone = on(None);
    let refused = alone.destination(&id("blue/there")).unwrap_err();
    assert_eq!(refused.status, Status::Unreachable);
    assert!(refused.reason.contains("--host"), "{}", refused.reason);
    assert_eq!(alone.partition(&id("blue/here")), None);
    let partition = on(Some("alpha")).partition(&id("blue/here")).unwrap();
    assert_eq!(partition, masq_wire::PKey::DEFAULT);
}

#[test]
fn what_the_policy_does_not_place_is_where_the_directory_says_unless_it_is_here() {
    let mut alpha = on(Some("alpha"));
    assert_eq!(host_of(&mut alpha, "blue/anywhere"), None);
    let claim = Some(("anywhere", None, "192.0.2.2"));
    said(&mut alpha, "10.0.0.3", claim);
    assert_eq!(host_of(&mut alpha, "blue/anywhere"), Some(ip("192.0.2.2")));
    alpha
        .charge(&id("blue/anywhere"), Kind::Sessions, 1)
        .unwrap();
    assert_eq!(host_of(&mut alpha, "blue/anywhere"), None);
    alpha.ledger.refund(&id("blue/anywhere"), Kind::Sessions, 1);
    assert_eq!(host_of(&mut alpha, "blue/anywhere"), Some(ip("192.0.2.2")));
    said(&mut alpha, "10.0.0.3", None);
    assert_eq!(host_of(&mut alpha, "blue/anywhere"), None);
}

#[test]
fn containers_of_other_hosts_are_reached_by_the_rules_of_their_class() {
    let mut alpha = on(Some("alpha"));
    let claim = Some(("worker.x", Some("worker"), "192.0.2.2"));
    said(&mut alpha, "10.0.1.1", claim);
    let from = id("blue/here");
    let asked = |world: &World| {
        let asked = masq_policy::Request::Connect {
            from: &from,
            to: ip("10.0.1.1"),
            qp_type: masq_policy::QpType::Rc,
            service: masq_policy::Service::Verbs,
        };
        world.decide(&asked).is_ok()
    };
    assert!(asked(&alpha));
    assert_eq!(host_of(&mut alpha, "blue/worker.x"), Some(ip("192.0.2.2")));
    // A container of this host is here, whatever its class.
    let class = id("blue/worker");
    let own = alpha.change_policy(class.tenant(), |policy| {
        policy.add_instance(&class, "worker.y".parse().unwrap())
    });
    assert_eq!(host_of(&mut alpha, &own.unwrap().to_string()), None);
    said(&mut alpha, "10.0.1.1", None);
    assert!(!asked(&alpha));
    assert!(alpha.destination(&id("blue/worker.x")).is_err());
}

/// A session on alpha that has a protection domain, and asks for address handles.
struct Asker {
    world: World,
    session: Session,
}

impl Asker {
    fn new() -> Self {
        let mut world = on(Some("alpha"));
        world.directory = Box::new(Silent);
        world.charge(&id("blue/here"), Kind::Sessions, 1).unwrap();
        let mut asker = Self {
            world,
            session: session_of("blue/here"),
        };
        assert_eq!(asker.ask(Opcode::AllocPd, &[]), Some(Status::Ok));
        asker
    }

    fn ask(&mut self, opcode: Opcode, body: &[u8]) -> Option<Status> {
        let header = RequestHeader {
            opcode: opcode.raw(),
            flags: 0,
            len: body.len() as u32,
        };
        let request = [header.as_bytes(), body].concat();
        match self.session.serve(&mut self.world, &request) {
            Outcome::Again => None,
            Outcome::Answer(answer) => {
                let (header, _) = ResponseHeader::read_from_prefix(&answer).unwrap();
                Some(Status::from_raw(header.status).unwrap())
            }
        }
    }

    /// What it is answered in the end.
    fn handle_in_the_end(&mut self, address: &str) -> Status {
        let begin = std::time::Instant::now();
        loop {
            match self.handle_for(address) {
                None => std::thread::sleep(std::time::Duration::from_millis(20)),
                Some(status) => return status,
            }
            assert!(begin.elapsed().as_secs() < 60);
        }
    }

    /// `None`: to be asked again.
    fn handle_for(&mut self, address: &str) -> Option<Status> {
        use masq_spec::verbs::{AhAttr, CreateAh};
        let attr = AhAttr {
            dgid: masq_policy::VirtualAddress::new(ip(address)).gid(),
            sgid_index: 3,
            is_global: 1,
            port_num: 1,
            ..zerocopy::FromZeros::new_zeroed()
        };
        let request = CreateAh {
            pd: 1,
            reserved: 0,
            attr,
        };
        self.ask(Opcode::CreateAh, request.as_bytes())
    }
}

/// The news that a peer has come up may be on its way.
#[test]
fn who_asks_for_a_peer_that_is_registered_nowhere_waits_for_a_moment() {
    let mut asker = Asker::new();
    assert_eq!(asker.handle_for("10.0.0.3"), None);
    let claim = Some(("anywhere", None, "192.0.2.2"));
    said(&mut asker.world, "10.0.0.3", claim);
    assert_eq!(asker.handle_for("10.0.0.3"), Some(Status::Ok));
    said(&mut asker.world, "10.0.0.3", None);
    assert_eq!(asker.handle_in_the_end("10.0.0.3"), Status::Unreachable);
    // What the policy places needs no news.
    assert_eq!(asker.handle_for("10.0.0.2"), Some(Status::Ok));
    let Asker {
        mut world, session, ..
    } = asker;
    session.close(&mut world);
}

#[test]
fn who_asks_for_a_container_that_nobody_has_registered_waits_as_well() {
    let mut asker = Asker::new();
    assert_eq!(asker.handle_for("10.0.1.1"), None);
    let claim = Some(("worker.x", Some("worker"), "192.0.2.2"));
    said(&mut asker.world, "10.0.1.1", claim);
    assert_eq!(asker.handle_for("10.0.1.1"), Some(Status::Ok));
    assert_eq!(asker.handle_in_the_end("10.0.1.2"), Status::Denied);
    // Nor does rdma_cm say at once that nobody is there. (The id is nobody's.)
    let resolve = |address: [u8; 4]| {
        let mut request = masq_spec::verbs::CmResolve::new_zeroed();
        request.destination.family = 2;
        request.destination.ip[..4].copy_from_slice(&address);
        request.as_bytes().to_owned()
    };
    let mut known = |address| {
        asker
            .ask(Opcode::CmResolveAddr, &resolve(address))
            .is_some()
    };
    assert!(known([10, 0, 1, 1]) && !known([10, 0, 1, 2]));
    // Where no container can be, none is waited for.
    assert_eq!(asker.handle_for("10.1.0.1"), Some(Status::Denied));
    // Nor is one that the rules would refuse all the same.
    let refuses = HOSTS.replace("from: any, to: any", "from: there, to: any");
    let refuses = Policy::parse("p", &refuses).unwrap();
    asker.world.set_policy(refuses);
    assert_eq!(asker.handle_for("10.0.0.3"), Some(Status::Denied));
    // A class of this host has its containers here.
    let bound = HOSTS.replace("address: auto }", "address: auto, host: alpha }");
    let bound = Policy::parse("p", &bound).unwrap();
    asker.world.set_policy(bound);
    assert_eq!(asker.handle_for("10.0.1.2"), Some(Status::Denied));
    let Asker {
        mut world, session, ..
    } = asker;
    session.close(&mut world);
}

#[test]
fn a_directory_that_forgets_cuts_no_connection_but_a_policy_does() {
    let mut asker = Asker::new();
    let claim = Some(("worker.x", Some("worker"), "192.0.2.2"));
    said(&mut asker.world, "10.0.1.1", claim);
    assert_eq!(asker.handle_for("10.0.1.1"), Some(Status::Ok));
    said(&mut asker.world, "10.0.1.1", None);
    assert_eq!(asker.session.recheck(&mut asker.world), 0);
    // New ones are refused, for the policy has nobody there.
    assert_eq!(asker.handle_in_the_end("10.0.1.1"), Status::Denied);
    // What has the address now is judged by the rules.
    said(
        &mut asker.world,
        "10.0.1.1",
        Some(("worker.y", Some("worker"), "192.0.2.2")),
    );
    assert_eq!(asker.session.recheck(&mut asker.world), 0);
    said(&mut asker.world, "10.0.1.1", None);
    let same = Policy::parse("p", HOSTS).unwrap();
    asker.world.set_policy(same);
    assert_eq!(asker.session.recheck(&mut asker.world), 1);
    let Asker {
        mut world, session, ..
    } = asker;
    session.close(&mut world);
}
