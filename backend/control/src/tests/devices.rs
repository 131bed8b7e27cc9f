//! Which device a tenant is on, and that nothing of it goes by another.

use super::*;
use crate::devices::DevicesError;
use masq_directory::LocalHost;
use masq_spec::command::ResponseHeader;
use masq_wire::Qpn;

const TWO: &str = "
version: 1
hosts: { alpha: { address: 192.0.2.1 }, beta: { address: 192.0.2.2 } }
tenants:
  blue:
    pkey: 0x8001
    device: card
    endpoints:
      a: { address: 10.0.0.1, host: alpha }
      b: { address: 10.0.0.2, host: beta }
    rules: [ { from: any, to: any, action: allow } ]
  red:
    pkey: 0xffff
    endpoints:
      a: { address: 10.0.0.1, host: alpha }
      b: { address: 10.0.0.2, host: beta }
      filer: { outside: 192.0.2.9 }
    rules: [ { from: any, to: any, action: allow } ]
";
const BETA: [u8; 4] = [192, 0, 2, 2];
const BLUE: PKey = PKey(0x8001);
const RED: PKey = PKey(0xffff);

struct Two {
    world: World,
    soft: Option<Arc<FakeNetwork>>,
    card: Option<Arc<FakeNetwork>>,
}

fn two(soft: FakeDevice, mut card: FakeDevice) -> Two {
    card.attributes.max_sge = 2;
    let networks = [soft.network.clone(), card.network.clone()];
    let mut devices = Devices::new(Arc::new(soft));
    devices.add(Arc::new(card)).unwrap();
    let [soft, card] = networks;
    let world = world_on("alpha", TWO, devices);
    Two { world, soft, card }
}

fn both_connected() -> (World, Arc<FakeNetwork>, Arc<FakeNetwork>) {
    let two = two(FakeDevice::connected("soft"), FakeDevice::connected("card"));
    (two.world, two.soft.unwrap(), two.card.unwrap())
}

fn id(text: &str) -> EndpointId {
    text.parse().unwrap()
}

fn request(opcode: Opcode, words: &[u32]) -> Vec<u8> {
    let body: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    let header = RequestHeader {
        opcode: opcode.raw(),
        flags: 0,
        len: body.len() as u32,
    };
    [header.as_bytes(), &body].concat()
}

fn serve(session: &mut Session, world: &mut World, request: &[u8]) -> (u32, Vec<u8>) {
    match session.serve(world, request) {
        Outcome::Answer(answer) => {
            let (header, body) = ResponseHeader::read_from_prefix(&answer).unwrap();
            (header.status, body.to_vec())
        }
        Outcome::Again => panic!("nothing waits here"),
    }
}

#[test]
fn a_session_is_told_the_limits_of_its_tenants_device() {
    let (mut world, ..) = both_connected();
    for (endpoint, max_sge) in [("blue/a", 2), ("red/a", 4)] {
        let on = world.device_of(&id(endpoint));
        let mut session = session_on(endpoint, on, Fake::default());
        let asked = request(Opcode::QueryDevice, &[]);
        let (_, body) = serve(&mut session, &mut world, &asked);
        let (attr, _) = DeviceAttr::read_from_prefix(&body).unwrap();
        assert_eq!(attr.max_sge, max_sge, "{endpoint}");
    }
}

#[test]
fn what_arrives_at_a_device_is_for_its_own_tenants_and_answered_by_it() {
    let (mut world, soft, card) = both_connected();
    let [first, second] = [0, 1].map(DeviceId::from_raw);
    let sender = |partition| SenderKey {
        host: BETA.into(),
        partition,
        qpn: Qpn::new(7),
    };
    for (on, partition, own, other) in [(first, RED, &soft, &card), (second, BLUE, &card, &soft)] {
        let sender = sender(partition);
        world.on_arrival(on, Arrival::UnknownSender { sender });
        assert_eq!(own.told(), [Told::Sent(BETA.into(), partition)]);
        assert!(other.told().is_empty());
    }
    for (on, partition, own, other) in [(first, BLUE, &soft, &card), (second, RED, &card, &soft)] {
        let sender = sender(partition);
        world.on_arrival(on, Arrival::UnknownSender { sender });
        assert_eq!(own.told(), [Told::Learned(sender, false)]);
        assert!(other.told().is_empty());
        assert_eq!(world.underlay[&on].misplaced, 1);
    }
}

#[test]
fn each_device_hears_of_the_strangers_of_its_tenants() {
    let (world, soft, card) = both_connected();
    world.name_strangers();
    let filer = IpAddr::from([192, 0, 2, 9]);
    assert_eq!(soft.told(), [Told::Strangers(vec![filer])]);
    assert_eq!(card.told(), [Told::Strangers(vec![])]);
    world.forget_senders();
    assert_eq!(
        (soft.told(), card.told()),
        (vec![Told::Forgot], vec![Told::Forgot])
    );
}

#[test]
fn tenants_of_a_device_without_a_network_reach_this_host_only() {
    let mut two = two(FakeDevice::connected("soft"), FakeDevice::new("card"));
    assert!(two.card.is_none());
    let world = &mut two.world;
    assert!(world.destination(&id("red/b")).unwrap().is_some());
    assert!(world.destination(&id("blue/a")).unwrap().is_some());
    let refused = world.destination(&id("blue/b")).unwrap_err();
    assert_eq!(refused.status, Status::Unreachable);
    let reason = refused.reason.to_string();
    assert!(
        reason.contains("card, the device of tenant blue"),
        "{reason}"
    );
    assert_eq!(world.partition(&id("blue/a")), None);
    assert_eq!(world.partition(&id("red/a")), Some(RED));
}

#[test]
fn a_policy_moves_a_tenant_only_if_its_device_is_another() {
    let (world, ..) = both_connected();
    let moves = |from: &str, to: &str| {
        let policy = Policy::parse("p", &TWO.replace(from, to)).unwrap();
        let moves = world.moves(&policy).into_iter();
        let mut words: Vec<_> = moves.map(|(t, (a, b))| format!("{t} {a} {b}")).collect();
        words.sort();
        words
    };
    assert_eq!(moves("    device: card\n", ""), ["blue card soft"]);
    let both = ("    pkey: 0xffff", "    pkey: 0xffff\n    device: card");
    assert_eq!(moves(both.0, both.1), ["red soft card"]);
    // What was so anyway.
    let said = "    pkey: 0xffff\n    device: soft";
    assert!(moves(both.0, said).is_empty());
}

#[test]
fn a_device_that_there_is_not_is_named_with_its_tenant_and_the_remedy() {
    let devices = Devices::new(Arc::new(FakeDevice::new("soft")));
    let policy = Policy::parse("p", TWO).unwrap();
    let alpha = LocalHost::find(&policy, Some("alpha")).unwrap();
    let error = devices.check(&policy, alpha.as_ref()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tenant blue is on the device card by the policy, and this masqd has soft\n  start masqd \
         with --device soft --device verbs:card, or correct `device` of tenant blue"
    );
    // Of a tenant that lives on other hosts only, those hosts need the device.
    let elsewhere = TWO.replacen("host: alpha", "host: beta", 1);
    let policy = Policy::parse("p", &elsewhere).unwrap();
    assert_eq!(devices.check(&policy, alpha.as_ref()), Ok(()));
}

#[test]
fn two_devices_of_one_name_are_refused() {
    let mut devices = Devices::new(Arc::new(FakeDevice::new("soft")));
    devices.add(Arc::new(FakeDevice::new("card"))).unwrap();
    for name in ["soft", "card"] {
        let twice = devices.add(Arc::new(FakeDevice::new(name)));
        assert_eq!(twice, Err(DevicesError::Twice(name.into())));
    }
    assert_eq!(devices.names().collect::<Vec<_>>(), ["soft", "card"]);
}

#[test]
fn a_device_that_has_no_more_is_enomem_with_the_reason() {
    let mut world = world();
    let device = Fake {
        exhausted: Some("queue pairs of the card"),
        ..Fake::default()
    };
    let mut session = session_on("blue/a", DeviceId::default(), device);
    let [pd, cq, qp] = [0, 1, 2].map(|n| useful().swap_remove(n));
    for (command, status) in [
        (pd, Status::Ok),
        (cq, Status::Ok),
        (qp.clone(), Status::NoMemory),
        (qp, Status::NoMemory),
    ] {
        let (got, _) = serve(&mut session, &mut world, &command);
        assert_eq!(Status::from_raw(got), Some(status));
    }
    let refusals = world.refusals.latest(&id("blue/a"));
    let last = refusals.last().unwrap();
    assert_eq!(
        (last.verb.as_str(), last.rule.as_str()),
        ("create_qp", "device")
    );
    assert_eq!(last.errno, nix::libc::ENOMEM);
    assert_eq!(last.reason, "the device is out of queue pairs of the card");
    // Nothing of it is charged.
    assert_eq!(world.ledger.used(&id("blue/a"), Kind::Qps), (0, 0));
}
