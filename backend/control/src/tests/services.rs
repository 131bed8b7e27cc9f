//! What plain hosts are let know of, and what is heard of them.

use super::*;
use masq_cm::{Channel, PortSpace, Target};
use masq_spec::verbs::{CmAddress, CmParam, QpType};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use zerocopy::FromZeros;

const OUTSIDE: &str = "
version: 1
hosts: { alpha: { address: 192.0.2.1 } }
tenants:
  blue:
    pkey: 0x8001
    endpoints:
      a: { address: 10.0.0.1, host: alpha }
      b: { address: 10.0.0.2, host: alpha }
      filer: { outside: 192.0.2.9 }
      other: { outside: 192.0.2.8 }
    rules:
      - { from: filer, to: a, service: rdma_cm/tcp/7174, action: allow }
      - { from: a, to: filer, action: allow }
  red:
    endpoints:
      a: { address: 10.0.0.1, host: alpha }
    rules: [ { from: any, to: any, action: allow } ]
";
const FILER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 8));
const BLUE: PKey = PKey(0x8001);
const CH: Channel = Channel { owner: 1, queue: 1 };

fn outside() -> (World, Arc<FakeNetwork>) {
    outside_of(Features::all() - Features::IWARP)
}

fn outside_of(features: Features) -> (World, Arc<FakeNetwork>) {
    let mut device = FakeDevice::connected("card");
    device.features = features;
    let network = device.network.clone().unwrap();
    let world = world_on("alpha", OUTSIDE, Devices::new(Arc::new(device)));
    (world, network)
}

fn id(text: &str) -> EndpointId {
    text.parse().unwrap()
}

fn listen(world: &mut World, endpoint: &str, space: PortSpace, port: u16) -> Target {
    let listen = |agent: &mut masq_cm::Agent, _| {
        let id = agent.create_id(CH, space, QpType::Rc, 1).unwrap();
        let target = Target { channel: CH, id };
        let at: CmAddress = SocketAddr::from(([0, 0, 0, 0], port)).into();
        agent.bind(target, at).unwrap();
        agent.listen(target, 0).unwrap();
        target
    };
    world.with_agent(&id(endpoint), listen).unwrap()
}

/// Publishes after a rest.
fn publish(world: &mut World) {
    let now = Instant::now();
    world.publish_services(world.next_publication(now).unwrap_or(now));
}

fn published(port: u16) -> Told {
    Told::Services(vec![PublishedService {
        port_space: PortSpace::Tcp.raw(),
        port,
        partition: BLUE,
        hosts: vec![OTHER, FILER],
    }])
}

#[test]
fn only_what_a_rule_lets_a_plain_host_ask_for_is_published() {
    let (mut world, network) = outside();
    listen(&mut world, "blue/a", PortSpace::Tcp, 7175);
    listen(&mut world, "blue/a", PortSpace::Udp, 7174);
    listen(&mut world, "blue/b", PortSpace::Tcp, 7174);
    listen(&mut world, "red/a", PortSpace::Tcp, 7174);
    publish(&mut world);
    assert_eq!(network.told(), []);
    let listener = listen(&mut world, "blue/a", PortSpace::Tcp, 7174);
    publish(&mut world);
    assert_eq!(network.told(), [published(7174)]);
    // Said once.
    listen(&mut world, "blue/a", PortSpace::Tcp, 7176);
    publish(&mut world);
    assert_eq!(network.told(), []);
    let end = |agent: &mut masq_cm::Agent, now| agent.destroy_id(now, listener).map(drop);
    world.with_agent(&id("blue/a"), end).unwrap().unwrap();
    publish(&mut world);
    assert_eq!(network.told(), [Told::Services(Vec::new())]);
}

#[test]
fn a_policy_publishes_and_takes_back() {
    let (mut world, network) = outside();
    listen(&mut world, "blue/a", PortSpace::Tcp, 7175);
    publish(&mut world);
    assert_eq!(network.told(), []);
    let strangers = || Told::Strangers(vec![FILER, OTHER]);
    let other = OUTSIDE.replace("rdma_cm/tcp/7174", "rdma_cm/tcp/7175");
    world.set_policy(Policy::parse("p", &other).unwrap());
    publish(&mut world);
    assert_eq!(network.told(), [strangers(), published(7175)]);
    world.set_policy(Policy::parse("p", OUTSIDE).unwrap());
    publish(&mut world);
    assert_eq!(network.told(), [strangers(), Told::Services(Vec::new())]);
}

#[test]
fn a_session_that_ends_takes_its_services_along() {
    let (mut world, network) = outside();
    let notifier = Notifier::new("test".into());
    world.fabric.enter(1, &notifier);
    listen(&mut world, "blue/a", PortSpace::Tcp, 7174);
    publish(&mut world);
    assert_eq!(network.told(), [published(7174)]);
    world.leave_fabric(&id("blue/a"), 1);
    publish(&mut world);
    assert_eq!(network.told(), [Told::Services(Vec::new())]);
}

/// However often a tenant listens, the devices are told of so many services in a second.
#[test]
fn a_tenant_that_listens_thousands_of_times_costs_each_time_the_same() {
    const TIMES: u16 = 4000;
    let (mut world, network) = outside();
    let all = OUTSIDE.replace("service: rdma_cm/tcp/7174, ", "");
    world.set_policy(Policy::parse("p", &all).unwrap());
    publish(&mut world);
    network.told();
    let (began, mut told) = (Instant::now(), 0);
    let mut now = began;
    for n in 0..TIMES {
        listen(&mut world, "blue/a", PortSpace::Tcp, 2000 + n);
        now += Duration::from_micros(20);
        world.publish_services(now);
        for said in network.told() {
            let Told::Services(services) = said else {
                panic!("{said:?}");
            };
            told += services.len() as u128;
        }
    }
    let rest = Duration::from_micros(10);
    let may = (now - began).as_nanos() / rest.as_nanos() + u128::from(TIMES);
    assert!(told <= may, "told of {told} services, {may} are enough");
    // All are there in the end.
    let end = world.next_publication(now).unwrap();
    world.publish_services(end);
    let said = network.told();
    assert!(matches!(&said[..], [Told::Services(all)] if all.len() == usize::from(TIMES)));
    assert_eq!(world.next_publication(end), None);
}

#[test]
fn a_port_below_1024_is_published_by_roce_and_not_by_iwarp() {
    for (features, expected) in [
        (Features::all() - Features::IWARP, vec![published(443)]),
        (Features::all(), vec![]),
    ] {
        let (mut world, network) = outside_of(features);
        let policy = OUTSIDE.replace("rdma_cm/tcp/7174", "rdma_cm/tcp/443");
        world.set_policy(Policy::parse("p", &policy).unwrap());
        network.told();
        listen(&mut world, "blue/a", PortSpace::Tcp, 443);
        publish(&mut world);
        assert_eq!(network.told(), expected, "{features:?}");
        let refusals = world.refusals.latest(&id("blue/a"));
        let noted = refusals
            .iter()
            .filter(|r| r.verb == "cm_publish" && r.errno == 1);
        assert_eq!(noted.count(), usize::from(expected.is_empty()));
    }
}

#[test]
fn what_a_plain_host_asked_for_is_cut_when_its_rule_goes() {
    let (mut world, network) = outside();
    listen(&mut world, "blue/a", PortSpace::Tcp, 7174);
    let header = masq_cm::IpHeader {
        source: SocketAddr::new(FILER, 40_000),
        destination: [192, 0, 2, 1].into(),
    };
    let message = masq_cm::Message::Req(Box::new(masq_cm::Req {
        local_comm: masq_cm::CommId(7),
        service_id: masq_cm::service_id(PortSpace::Tcp, 7174),
        qpn: 0x22,
        private: masq_cm::Private::new(&header.with::<92>(b"")),
        ..masq_cm::Req::default()
    }));
    let mad = masq_cm::Mad {
        transaction: 7,
        message,
    };
    let arrival = Arrival::Management {
        from: FILER,
        partition: BLUE,
        mad: Box::new(mad.encode()),
    };
    world.on_arrival(DeviceId::default(), arrival);
    let requested = |view: &masq_cm::View| view.state == "requested";
    let of = |world: &World| world.fabric.views(&id("blue/a")).into_iter();
    assert_eq!(of(&world).filter(requested).count(), 1);
    assert_eq!(world.recheck_connections(), 0);
    network.told();
    let other = OUTSIDE.replace("rdma_cm/tcp/7174", "rdma_cm/tcp/7175");
    world.set_policy(Policy::parse("p", &other).unwrap());
    assert_eq!(world.recheck_connections(), 1);
    assert_eq!(of(&world).filter(requested).count(), 0);
    assert!(network.told().contains(&Told::Sent(FILER, BLUE)));
    let mad = network.last.lock().unwrap().take().unwrap();
    let said = masq_cm::Mad::decode(&mad[..]).unwrap().message;
    assert!(matches!(said, masq_cm::Message::Rej(_)), "{said:?}");
}

#[test]
fn who_asked_a_plain_host_hears_at_once_that_nothing_gets_there() {
    let (mut world, network) = outside();
    let endpoint = id("blue/a");
    let filer = world.peer_at(&endpoint, FILER).unwrap().1;
    let target = world
        .with_agent(&endpoint, |agent, now| {
            let id = agent.create_id(CH, PortSpace::Tcp, QpType::Rc, 1).unwrap();
            let target = Target { channel: CH, id };
            let to: CmAddress = SocketAddr::new(FILER, 7174).into();
            agent
                .resolve_addr(target, None, to, |_| Some(filer))
                .unwrap();
            agent.resolve_route(target).unwrap();
            agent.connect(now, target, &CmParam::new_zeroed()).unwrap();
            target
        })
        .unwrap();
    let sent = network.told();
    assert_eq!(sent, [Told::Sent(FILER, BLUE)]);
    let mad = network.last.lock().unwrap().take().unwrap();
    let unreachable = |partition| Arrival::Unreachable {
        host: FILER,
        partition,
        mad: mad.clone(),
    };
    let mut hears = |partition| {
        world.on_arrival(DeviceId::default(), unreachable(partition));
        let next = |agent: &mut masq_cm::Agent, _| {
            std::iter::from_fn(|| agent.next_event(CH))
                .last()
                .map(|e| (e.id, e.event, e.status))
        };
        world.with_agent(&endpoint, next).unwrap()
    };
    // Of another tenant's partition it counts for nothing.
    let before = hears(PKey(0x8002)).unwrap();
    assert_eq!(before.1, masq_cm::Event::RouteResolved.raw());
    let unreachable = masq_cm::Event::Unreachable.raw();
    assert_eq!(hears(BLUE), Some((target.id, unreachable, -110)));
}
