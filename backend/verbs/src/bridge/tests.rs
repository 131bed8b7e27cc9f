//! Real agents against a kernel that is played.

use super::agreed::Agreed;
use super::desk::{Desk, MOST_CALLS, MOST_OF_TENANT, Manager, Returned};
use super::thread::Counters;
use crate::host::{Agreement, Parameters, Qp, Told};
use masq_cm::{
    Agent, Channel, CommId, Config, Event, Mad, Message, Output, Peer, PortSpace, Private, Reason,
    Rej, Req, Rtu, SidrStatus, Target,
};
use masq_device::{Arrival, PublishedService};
use masq_spec::verbs::{CmAddress, CmEvent, CmParam, QpMask, QpType, State};
use masq_verbs_abi::ibv_qp_attr;
use masq_wire::PKey;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const PLAIN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 8));
const VIRTUAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const PARTITION: PKey = PKey(0x8001);
const CH: Channel = Channel { owner: 1, queue: 1 };

/// What the kernel was asked to do, in a word.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Did {
    Bind(SocketAddr),
    Listen,
    ResolveAddress(SocketAddr),
    ResolveRoute,
    Connect(Parameters),
    Accept(Parameters),
    Confirm,
    Reject(Vec<u8>),
    Disconnect,
}

#[derive(Default)]
struct Kernel {
    last: u32,
    ids: BTreeMap<u32, Vec<Did>>,
    peers: BTreeMap<u32, SocketAddr>,
    agreement: Agreement,
    fails: Option<i32>,
    /// Calls that may wait do, as those to hosts that drop everything.
    blocks: bool,
    /// Calls under way, and those that have returned.
    calls: Vec<(u32, Returned)>,
    returned: Vec<(u32, Returned)>,
    /// The words of refusals.
    refused: Vec<Vec<u8>>,
}

impl Kernel {
    fn did(&mut self, id: u32, did: Did) -> io::Result<()> {
        let known = self.ids.get_mut(&id);
        let known = known.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        if let Some(error) = self.fails {
            return Err(io::Error::from_raw_os_error(error));
        }
        known.push(did);
        Ok(())
    }

    fn call(&mut self, id: u32, result: Returned) {
        assert!(
            self.calls.iter().all(|(other, _)| *other != id),
            "two calls with id {id} at a time"
        );
        match self.blocks {
            true => self.calls.push((id, result)),
            false => self.returned.push((id, result)),
        }
    }

    /// An id that a request made.
    fn arrive(&mut self, peer: SocketAddr) -> u32 {
        self.last += 1;
        self.ids.insert(self.last, Vec::new());
        self.peers.insert(self.last, peer);
        self.last
    }
}

impl Manager for Kernel {
    fn create(&mut self, _: PortSpace, _: u16) -> io::Result<u32> {
        self.last += 1;
        self.ids.insert(self.last, Vec::new());
        Ok(self.last)
    }
    fn destroy(&mut self, id: u32) {
        assert!(
            self.calls.iter().all(|(other, _)| *other != id),
            "the end of id {id} would wait for its call"
        );
        assert!(self.ids.remove(&id).is_some(), "id {id} ends twice");
    }
    fn bind(&mut self, id: u32, address: SocketAddr) -> io::Result<()> {
        self.did(id, Did::Bind(address))
    }
    fn listen(&mut self, id: u32, _: u32) -> io::Result<()> {
        self.did(id, Did::Listen)
    }
    fn resolve_address(&mut self, id: u32, _: IpAddr, to: SocketAddr) -> io::Result<()> {
        self.did(id, Did::ResolveAddress(to))
    }
    fn resolve_route(&mut self, id: u32) -> io::Result<()> {
        self.did(id, Did::ResolveRoute)
    }
    fn connect(&mut self, id: u32, parameters: Parameters, _: Option<Arc<Qp>>) {
        let result = self.did(id, Did::Connect(parameters));
        self.call(id, Returned::Connected(result));
    }
    fn end(&mut self, id: u32) {
        self.call(id, Returned::Ended);
        if !self.blocks {
            self.ids.remove(&id);
        }
    }
    fn accept(&mut self, id: u32, parameters: Option<&Parameters>) -> io::Result<()> {
        let did = parameters.map_or(Did::Confirm, |p| Did::Accept(p.clone()));
        self.did(id, did)
    }
    fn reject(&mut self, id: u32, private: &[u8]) -> io::Result<()> {
        self.refused.push(private.to_vec());
        self.did(id, Did::Reject(private.to_vec()))
    }
    fn disconnect(&mut self, id: u32) -> io::Result<()> {
        self.did(id, Did::Disconnect)
    }
    fn peer(&mut self, id: u32) -> io::Result<SocketAddr> {
        let peer = self.peers.get(&id).copied();
        peer.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }
    fn agreement(&mut self, _: u32) -> io::Result<Agreement> {
        Ok(self.agreement)
    }
}

fn told(id: u32, event: Event, status: i32, parameters: Parameters) -> Told {
    Told {
        id,
        service: None,
        event,
        status,
        parameters,
    }
}

fn param(qpn: u32, private: &[u8]) -> CmParam {
    let mut param = CmParam {
        qpn,
        responder_resources: 4,
        initiator_depth: 2,
        retry_count: 6,
        rnr_retry_count: 5,
        private_len: private.len() as u8,
        ..zerocopy::FromZeros::new_zeroed()
    };
    param.private_data[..private.len()].copy_from_slice(private);
    param
}

fn service(space: PortSpace) -> PublishedService {
    PublishedService {
        port_space: space.raw(),
        port: 7174,
        partition: PARTITION,
        hosts: vec![PLAIN],
    }
}

/// An endpoint's agent, the bridge and the kernel.
struct Host {
    agent: Agent,
    desk: Desk<Kernel>,
    agreed: Arc<Agreed>,
    counters: Arc<Counters>,
    now: Instant,
    /// Messages that passed, both ways.
    passed: Vec<Message>,
}

impl Host {
    fn new() -> Self {
        let agent = Agent::new(Config {
            address: VIRTUAL,
            others: Vec::new(),
            link_local: [0xfe; 16],
            node_guid: 1,
            mtu: 5,
            max_rd_atomic: 16,
            seed: 7,
        });
        let (agreed, counters) = (Arc::<Agreed>::default(), Arc::<Counters>::default());
        let (for_desk, counts) = (Arc::clone(&agreed), Arc::clone(&counters));
        let mut desk = Desk::new(Kernel::default(), HERE, for_desk, counts);
        desk.manager.agreement = Agreement {
            remote_qpn: 0x22,
            rq_psn: 0x11_1111,
            sq_psn: 0x22_2222,
            mtu: 3,
            timeout: 18,
        };
        Self {
            agent,
            desk,
            agreed,
            counters,
            now: Instant::now(),
            passed: Vec::new(),
        }
    }

    /// As control does it: renames, and passes on until all are quiet.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some((id, what)) = self.desk.manager.returned.pop() {
                quiet = false;
                self.desk.returned(id, what);
            }
            while let Some(output) = self.agent.output() {
                if let Output::Send { to, mut message } = output {
                    quiet = false;
                    message.readdress(HERE, to);
                    message.route(HERE, to, PARTITION.0);
                    self.passed.push(message.clone());
                    self.desk.say(self.now, to, PARTITION, message);
                }
            }
            while let Some(arrival) = self.desk.heard() {
                quiet = false;
                match arrival {
                    Arrival::Management {
                        from,
                        partition,
                        mad,
                    } => {
                        assert_eq!(partition, PARTITION);
                        let mut message = Mad::decode(&mad[..]).unwrap().message;
                        self.passed.push(message.clone());
                        message.readdress(from, VIRTUAL);
                        self.agent.receive(self.now, from, message, 100);
                    }
                    Arrival::Unreachable { host, mad, .. } => {
                        let message = Mad::decode(&mad[..]).unwrap().message;
                        let comm = message.sender_comm().unwrap();
                        self.agent.undeliverable(self.now, host, comm);
                    }
                    Arrival::UnknownSender { .. } => unreachable!(),
                }
            }
            assert!(self.desk.is_consistent());
            if quiet {
                return;
            }
        }
    }

    fn event(&mut self) -> Option<(Event, CmEvent)> {
        let event = self.agent.next_event(CH)?;
        Some((Event::from_raw(event.event).unwrap(), event))
    }

    /// The next event's name and status.
    fn hears(&mut self) -> Option<(Event, i32)> {
        self.event().map(|(event, whole)| (event, whole.status))
    }

    fn happens(&mut self, id: u32, event: Event, status: i32, parameters: Parameters) {
        self.desk
            .on_event(self.now, told(id, event, status, parameters));
        self.settle();
    }

    /// An id that has asked the plain host's port 7174, and the kernel's id of it.
    fn ask(&mut self, space: PortSpace) -> (Target, u32) {
        let id = self.agent.create_id(CH, space, QpType::Rc, 1).unwrap();
        let target = Target { channel: CH, id };
        let to: CmAddress = SocketAddr::new(PLAIN, 7174).into();
        let known = |address| {
            Some(Peer {
                address,
                gid: [0; 16],
            })
        };
        self.agent.resolve_addr(target, None, to, known).unwrap();
        self.agent.resolve_route(target).unwrap();
        while self.event().is_some() {}
        self.agent
            .connect(self.now, target, &param(0x11, b"hello"))
            .unwrap();
        self.settle();
        let (id, did) = self.desk.manager.ids.first_key_value().unwrap();
        assert_eq!(did, &[Did::ResolveAddress(SocketAddr::new(PLAIN, 7174))]);
        (target, *id)
    }

    fn asked_and_resolved(&mut self, space: PortSpace) -> (Target, u32) {
        let (target, id) = self.ask(space);
        self.happens(id, Event::AddressResolved, 0, Parameters::default());
        self.happens(id, Event::RouteResolved, 0, Parameters::default());
        assert_eq!(self.desk.manager.ids[&id][1], Did::ResolveRoute);
        (target, id)
    }

    /// Connected, by the endpoint's wish.
    fn connected(&mut self) -> (Target, u32) {
        let (target, id) = self.asked_and_resolved(PortSpace::Tcp);
        let theirs = Parameters {
            qpn: 0x22,
            private: b"welcome".to_vec(),
            responder_resources: 2,
            initiator_depth: 4,
            ..Parameters::default()
        };
        self.happens(id, Event::ConnectResponse, 0, theirs);
        let (event, whole) = self.event().unwrap();
        assert_eq!(event, Event::ConnectResponse);
        assert_eq!(&whole.param.private_data[..7], b"welcome");
        assert_eq!(whole.param.qpn, 0x22);
        // As librdmacm does: the queue pair, then the confirmation.
        self.agent.accept(self.now, target, 1, None).unwrap();
        self.settle();
        assert_eq!(self.desk.manager.ids[&id].last(), Some(&Did::Confirm));
        (target, id)
    }

    /// A listener, and a request of the plain host: its event's id, and the kernel's.
    fn requested(&mut self, space: PortSpace) -> (Target, u32) {
        let id = self.agent.create_id(CH, space, QpType::Rc, 1).unwrap();
        let listener = Target { channel: CH, id };
        let at: CmAddress = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 7174).into();
        self.agent.bind(listener, at).unwrap();
        self.agent.listen(listener, 0).unwrap();
        assert_eq!(self.agent.services().count(), 1);
        self.desk.set_services(self.now, vec![service(space)]);
        let id = self.request(space, PLAIN, 0x22);
        let (event, whole) = self.event().unwrap();
        assert_eq!(event, Event::ConnectRequest);
        assert_eq!(&whole.param.private_data[..4], b"ciao");
        let target = Target {
            channel: CH,
            id: whole.id,
        };
        (target, id)
    }

    fn request(&mut self, space: PortSpace, from: IpAddr, qpn: u32) -> u32 {
        let id = self.desk.manager.arrive(SocketAddr::new(from, 40_000));
        self.desk.manager.agreement.remote_qpn = qpn;
        let request = Told {
            service: Some((space, 7174)),
            ..told(
                id,
                Event::ConnectRequest,
                0,
                Parameters {
                    qpn,
                    private: b"ciao".to_vec(),
                    responder_resources: 3,
                    initiator_depth: 5,
                    ..Parameters::default()
                },
            )
        };
        self.desk.on_event(self.now, request);
        self.settle();
        id
    }

    /// What the card's queue pair `own` is set to at RTR.
    fn rtr(&self, target: Target, own: u32) -> ibv_qp_attr {
        let attr = self.agent.qp_attr(target, State::Rtr).unwrap();
        assert!(QpMask::from_bits_retain(attr.mask).contains(QpMask::RQ_PSN));
        let mut wanted = ibv_qp_attr {
            rq_psn: attr.attr.rq_psn,
            dest_qp_num: attr.attr.dest_qp_num,
            path_mtu: attr.attr.path_mtu,
            ..ibv_qp_attr::default()
        };
        self.agreed.correct(own, PLAIN, &mut wanted);
        wanted
    }

    fn has_nothing(&self) -> bool {
        self.desk.len().0 == 0 && self.desk.ending() == 0 && self.agreed.is_empty()
    }

    /// Calls that waited return.
    fn release(&mut self) {
        self.desk.manager.blocks = false;
        for (id, what) in std::mem::take(&mut self.desk.manager.calls) {
            if matches!(what, Returned::Ended) {
                self.desk.manager.ids.remove(&id);
            }
            self.desk.manager.returned.push((id, what));
        }
        self.settle();
    }

    /// A request of an agent's, whose way is found at once; the kernel's id.
    fn ask_for(&mut self, partition: PKey, comm: u32) -> u32 {
        let req = message(0, comm, 0);
        self.desk.say(self.now, PLAIN, partition, req);
        let id = self.desk.manager.last;
        for event in [Event::AddressResolved, Event::RouteResolved] {
            let told = told(id, event, 0, Parameters::default());
            self.desk.on_event(self.now, told);
        }
        id
    }

    fn is_connecting(&self, id: u32) -> bool {
        let did = self.desk.manager.ids.get(&id);
        did.is_some_and(|did| did.iter().any(|d| matches!(d, Did::Connect(_))))
    }
}

#[test]
fn an_endpoint_connects_to_a_plain_host_and_either_ends_it() {
    for by_host in [false, true] {
        let mut host = Host::new();
        let (target, id) = host.connected();
        let connect = &host.desk.manager.ids[&id][2];
        let Did::Connect(own) = connect else {
            panic!("{connect:?}")
        };
        assert_eq!((own.qpn, own.private.as_slice()), (0x11, &b"hello"[..]));
        assert_eq!((own.responder_resources, own.initiator_depth), (4, 2));
        // The kernel's numbers, not the agent's.
        let wanted = host.rtr(target, 0x11);
        assert_eq!((wanted.rq_psn, wanted.path_mtu), (0x11_1111, 3));
        let rts = host.agent.qp_attr(target, State::Rts).unwrap().attr;
        assert_eq!(rts.sq_psn, 0x22_2222);
        if by_host {
            host.happens(id, Event::Disconnected, 0, Parameters::default());
            assert_eq!(host.hears(), Some((Event::Disconnected, 0)));
            // The program agrees.
            host.agent.disconnect(host.now, target).unwrap();
            host.settle();
        } else {
            host.agent.disconnect(host.now, target).unwrap();
            host.settle();
            assert_eq!(host.desk.manager.ids[&id].last(), Some(&Did::Disconnect));
            host.happens(id, Event::Disconnected, 0, Parameters::default());
            assert_eq!(host.hears(), Some((Event::Disconnected, 0)));
        }
        assert!(host.has_nothing() && host.desk.manager.ids.is_empty());
    }
}

#[test]
fn a_plain_host_connects_to_an_endpoint() {
    let mut host = Host::new();
    let (target, id) = host.requested(PortSpace::Tcp);
    // The program's queue pair is set before it accepts.
    let wanted = host.rtr(target, 0x77);
    assert_eq!((wanted.rq_psn, wanted.path_mtu), (0x11_1111, 3));
    let rts = host.agent.qp_attr(target, State::Rts).unwrap().attr;
    assert_eq!((rts.sq_psn, rts.timeout), (0x22_2222, 18));
    assert_eq!(rts.max_rd_atomic, 5);
    let accepts = param(0x77, b"yes");
    host.agent
        .accept(host.now, target, 2, Some(&accepts))
        .unwrap();
    host.settle();
    let Some(Did::Accept(own)) = host.desk.manager.ids[&id].last() else {
        panic!("not accepted")
    };
    assert_eq!((own.qpn, own.private.as_slice()), (0x77, &b"yes"[..]));
    host.happens(id, Event::Established, 0, Parameters::default());
    assert_eq!(host.hears(), Some((Event::Established, 0)));
    // The program dies: the kernel is told.
    assert!(host.agent.close_owner(host.now, 1, 100));
    host.settle();
    assert_eq!(host.desk.manager.ids[&id].last(), Some(&Did::Disconnect));
    host.happens(id, Event::Disconnected, 0, Parameters::default());
    assert!(host.has_nothing());
    host.desk.set_services(host.now, Vec::new());
    assert!(host.desk.manager.ids.is_empty());
}

#[test]
fn refusals_are_told_either_way() {
    let mut host = Host::new();
    let (_, id) = host.asked_and_resolved(PortSpace::Tcp);
    let words = Parameters {
        private: b"no".to_vec(),
        ..Parameters::default()
    };
    host.happens(id, Event::Rejected, 8, words);
    let (event, whole) = host.event().unwrap();
    assert_eq!((event, whole.status), (Event::Rejected, 8));
    assert_eq!(&whole.param.private_data[..2], b"no");
    assert!(host.has_nothing());

    let (target, id) = host.requested(PortSpace::Tcp);
    host.agent.reject(host.now, target, 0, b"full").unwrap();
    host.settle();
    assert!(host.has_nothing() && !host.desk.manager.ids.contains_key(&id));
}

#[test]
fn who_does_not_answer_is_unreachable_at_once() {
    for (event, status) in [
        (Event::AddressError, -110),
        (Event::RouteError, -113),
        (Event::Unreachable, -110),
    ] {
        let mut host = Host::new();
        let (_, id) = host.ask(PortSpace::Tcp);
        host.happens(id, event, status, Parameters::default());
        assert_eq!(host.hears(), Some((Event::Unreachable, -110)));
        assert!(host.has_nothing());
    }
    // The kernel does not even begin.
    let mut host = Host::new();
    host.desk.manager.fails = Some(libc::ENODEV);
    let id = host.agent.create_id(CH, PortSpace::Tcp, QpType::Rc, 1);
    let target = Target {
        channel: CH,
        id: id.unwrap(),
    };
    let to: CmAddress = SocketAddr::new(PLAIN, 7174).into();
    let known = |address| {
        Some(Peer {
            address,
            gid: [0; 16],
        })
    };
    host.agent.resolve_addr(target, None, to, known).unwrap();
    host.agent.resolve_route(target).unwrap();
    while host.event().is_some() {}
    host.agent
        .connect(host.now, target, &param(1, b""))
        .unwrap();
    host.settle();
    assert_eq!(host.hears(), Some((Event::Unreachable, -110)));
    assert!(host.desk.manager.ids.is_empty());
}

#[test]
fn datagram_services_are_asked_for_and_named_both_ways() {
    let mut host = Host::new();
    let (_, id) = host.asked_and_resolved(PortSpace::Udp);
    let named = Parameters {
        qpn: 0x33,
        qkey: 0x0123_4567,
        private: b"here".to_vec(),
        ..Parameters::default()
    };
    host.happens(id, Event::Established, 0, named);
    let (event, whole) = host.event().unwrap();
    assert_eq!((event, whole.status), (Event::Established, 0));
    assert_eq!((whole.param.qpn, whole.param.qkey), (0x33, 0x0123_4567));
    assert!(host.has_nothing() && host.desk.manager.ids.is_empty());

    let (_, id) = host.asked_and_resolved(PortSpace::Udp);
    let status = i32::from(SidrStatus::UNSUPPORTED.0);
    host.happens(id, Event::Unreachable, status, Parameters::default());
    assert_eq!(host.hears(), Some((Event::Unreachable, status)));

    let (target, id) = host.requested(PortSpace::Udp);
    let accepts = param(0x77, b"yes");
    host.agent
        .accept(host.now, target, 2, Some(&accepts))
        .unwrap();
    host.settle();
    assert!(host.has_nothing() && !host.desk.manager.ids.contains_key(&id));
}

#[test]
fn iwarp_is_established_without_a_confirmation() {
    let mut host = Host::new();
    host.desk.manager.agreement = Agreement::default();
    let (target, id) = host.asked_and_resolved(PortSpace::Tcp);
    host.happens(id, Event::Established, 0, Parameters::default());
    assert_eq!(host.hears(), Some((Event::ConnectResponse, 0)));
    host.agent.accept(host.now, target, 1, None).unwrap();
    host.settle();
    assert!(!host.desk.manager.ids[&id].contains(&Did::Confirm));
    assert!(host.agreed.has_connected(0x11));
    host.agent.disconnect(host.now, target).unwrap();
    host.settle();
    host.happens(
        id,
        Event::Disconnected,
        -libc::ECONNRESET,
        Parameters::default(),
    );
    assert_eq!(host.hears(), Some((Event::Disconnected, 0)));
    assert!(host.has_nothing());
}

#[test]
fn a_host_that_no_tenant_with_the_service_knows_is_refused() {
    let mut host = Host::new();
    host.requested(PortSpace::Tcp);
    let id = host.request(PortSpace::Tcp, OTHER, 0x44);
    assert!(!host.desk.manager.ids.contains_key(&id));
    assert_eq!(host.event().map(|(event, _)| event), None);
    assert_eq!(host.counters.unknown_host.load(Ordering::Relaxed), 1);
}

/// Control answers in nobody's name.
#[test]
fn a_request_that_the_policy_forbids_is_refused_with_its_words() {
    for space in [PortSpace::Tcp, PortSpace::Udp] {
        let mut host = Host::new();
        host.desk.set_services(host.now, vec![service(space)]);
        let id = host.desk.manager.arrive(SocketAddr::new(PLAIN, 40_000));
        let request = Told {
            service: Some((space, 7174)),
            ..told(id, Event::ConnectRequest, 0, Parameters::default())
        };
        host.desk.on_event(host.now, request);
        let Some(Arrival::Management { mad, .. }) = host.desk.heard() else {
            panic!("not heard of")
        };
        let request = Mad::decode(&mad[..]).unwrap().message;
        let refusal = request.refusal(Reason::UNSUPPORTED, "no rule").unwrap();
        host.desk.manager.refused.clear();
        host.desk.say(host.now, PLAIN, PARTITION, refusal);
        assert_eq!(host.desk.manager.refused, [b"no rule"]);
        assert!(host.has_nothing() && !host.desk.manager.ids.contains_key(&id));
    }
}

#[test]
fn requests_of_a_host_that_wait_are_bounded() {
    let mut host = Host::new();
    let services = vec![service(PortSpace::Tcp)];
    host.desk.set_services(host.now, services);
    for number in 0..1000 {
        host.desk.manager.agreement.remote_qpn = number + 1;
        let id = host.desk.manager.arrive(SocketAddr::new(PLAIN, 40_000));
        let request = Told {
            service: Some((PortSpace::Tcp, 7174)),
            ..told(id, Event::ConnectRequest, 0, Parameters::default())
        };
        host.desk.on_event(host.now, request);
    }
    assert_eq!(host.desk.len(), (256, 1));
    assert_eq!(host.counters.too_many.load(Ordering::Relaxed), 744);
    // Nobody answers: they do not stay for ever.
    host.desk.on_time(host.now + Duration::from_secs(100));
    assert_eq!(host.desk.len(), (0, 1));
    assert_eq!(host.desk.manager.ids.len(), 1);
}

#[test]
fn a_port_that_is_taken_is_tried_again() {
    let mut host = Host::new();
    host.desk.manager.fails = Some(libc::EADDRINUSE);
    let services = vec![service(PortSpace::Tcp)];
    host.desk.set_services(host.now, services);
    assert_eq!(host.desk.len(), (0, 0));
    assert!(host.desk.manager.ids.is_empty());
    host.desk.manager.fails = None;
    let time = host.desk.next_time().unwrap();
    host.desk.on_time(time);
    assert_eq!(host.desk.len(), (0, 1));
    assert_eq!(host.desk.next_time(), None);
    let listener: Vec<_> = host.desk.manager.ids.values().next().unwrap().clone();
    assert_eq!(
        listener,
        [Did::Bind(SocketAddr::new(HERE, 7174)), Did::Listen]
    );
}

#[test]
fn who_asks_again_is_answered_again_and_asks_the_kernel_once() {
    let mut host = Host::new();
    let (_, id) = host.asked_and_resolved(PortSpace::Tcp);
    let req = host.passed.iter().find(|m| matches!(m, Message::Req(_)));
    let req = req.unwrap().clone();
    host.desk.say(host.now, PLAIN, PARTITION, req.clone());
    assert!(host.desk.heard().is_none());
    let theirs = Parameters::default();
    host.desk
        .on_event(host.now, told(id, Event::ConnectResponse, 0, theirs));
    let first = host.desk.heard().unwrap();
    host.desk.say(host.now, PLAIN, PARTITION, req);
    assert_eq!(host.desk.heard(), Some(first));
    assert_eq!(host.desk.len().0, 1);
}

#[test]
fn what_a_host_withdrew_is_not_accepted() {
    let mut host = Host::new();
    let (target, id) = host.requested(PortSpace::Tcp);
    host.happens(id, Event::Rejected, 4, Parameters::default());
    assert!(host.has_nothing());
    let accepts = param(0x77, b"");
    host.agent
        .accept(host.now, target, 2, Some(&accepts))
        .unwrap();
    host.settle();
    let reason = i32::from(Reason::INVALID_COMM_ID.0);
    assert_eq!(host.hears(), Some((Event::Rejected, reason)));
}

#[test]
fn a_host_that_the_policy_no_longer_knows_is_left() {
    let mut host = Host::new();
    host.connected();
    host.desk.set_hosts(&[OTHER]);
    assert!(host.has_nothing() && host.desk.manager.ids.is_empty());
}

#[test]
fn nobody_waits_for_ever_for_an_end() {
    let mut host = Host::new();
    let (target, _) = host.connected();
    host.agent.disconnect(host.now, target).unwrap();
    host.settle();
    let time = host.desk.next_time().unwrap();
    host.desk.on_time(time);
    assert!(host.has_nothing() && host.desk.manager.ids.is_empty());
}

#[test]
fn a_host_that_does_not_answer_one_tenant_holds_up_no_other() {
    let mut host = Host::new();
    host.desk.manager.blocks = true;
    let most = u32::try_from(MOST_OF_TENANT).unwrap();
    let slow: Vec<u32> = (1..=most + 4)
        .map(|comm| host.ask_for(PARTITION, comm))
        .collect();
    let calls = |host: &Host| slow.iter().filter(|id| host.is_connecting(**id)).count();
    assert_eq!(calls(&host), MOST_OF_TENANT);
    // Another tenant's requests are not behind them, nor what has no need to wait.
    let other = host.ask_for(PKey(0x8002), 1000);
    assert!(host.is_connecting(other));
    let services = vec![service(PortSpace::Tcp)];
    host.desk.set_services(host.now, services);
    assert_eq!(host.desk.len().1, 1);
    for tenant in 3..60 {
        host.ask_for(PKey(0x8000 + tenant), 2000 + u32::from(tenant));
    }
    assert_eq!(host.desk.manager.calls.len(), MOST_CALLS);
    // When the calls return, those that wait have their turn.
    host.desk.manager.blocks = false;
    for (id, what) in std::mem::take(&mut host.desk.manager.calls) {
        host.desk.returned(id, what);
    }
    assert_eq!(calls(&host), slow.len());
    assert!(host.desk.is_consistent());
}

#[test]
fn an_id_ends_when_its_call_has_returned_and_others_need_not_wait() {
    let mut host = Host::new();
    host.desk.manager.blocks = true;
    let most = u32::try_from(MOST_OF_TENANT).unwrap();
    for comm in 1..=most + 4 {
        host.ask_for(PARTITION, comm);
    }
    host.desk.set_hosts(&[]);
    assert_eq!(host.desk.len().0, 0);
    // Those whose turn it was not are gone; the kernel holds the others.
    assert_eq!(host.desk.manager.ids.len(), MOST_OF_TENANT);
    assert_eq!(host.desk.ending(), MOST_OF_TENANT);
    host.release();
    assert!(host.has_nothing() && host.desk.manager.ids.is_empty());

    // Returned, and not answered: the kernel would wait for the answer.
    let id = host.ask_for(PARTITION, 77);
    host.settle();
    host.desk.manager.blocks = true;
    host.desk.set_hosts(&[]);
    assert!(host.desk.manager.ids.contains_key(&id));
    assert_eq!((host.desk.len().0, host.desk.ending()), (0, 1));
    host.release();
    assert!(host.has_nothing() && host.desk.manager.ids.is_empty());
}

/// Its number may have become another tenant's.
#[test]
fn a_queue_pair_that_is_gone_is_not_connected() {
    let mut host = Host::new();
    host.agreed.pairs.insert_as(0x11, Weak::new());
    let (_, id) = host.ask(PortSpace::Tcp);
    host.happens(id, Event::AddressResolved, 0, Parameters::default());
    host.happens(id, Event::RouteResolved, 0, Parameters::default());
    assert!(!host.is_connecting(id));
    assert_eq!(host.hears(), Some((Event::Unreachable, -110)));
    assert!(host.has_nothing() && host.desk.manager.ids.is_empty());
}

#[test]
fn a_call_that_fails_is_told_as_what_it_was() {
    for (error, heard) in [
        (libc::ECONNREFUSED, (Event::Rejected, 8)),
        (libc::ETIMEDOUT, (Event::Unreachable, -110)),
    ] {
        let mut host = Host::new();
        let (_, id) = host.ask(PortSpace::Tcp);
        host.happens(id, Event::AddressResolved, 0, Parameters::default());
        host.desk.manager.fails = Some(error);
        host.happens(id, Event::RouteResolved, 0, Parameters::default());
        assert_eq!(host.hears(), Some(heard));
        assert!(host.has_nothing() && host.desk.manager.ids.is_empty());
    }
}

/// What may happen, in any order.
#[derive(Clone, Debug)]
enum Step {
    Say(u8, u32, u32),
    Event(u8, u32, i32),
    Request(bool, u8),
    Services(bool),
    Later(u8),
    Fail(bool),
    Block(bool),
    Return(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..9, 0u32..6, 0u32..6).prop_map(|(kind, a, b)| Step::Say(kind, a, b)),
        4 => (0u8..16, 0u32..12, prop_oneof![Just(0), Just(8), Just(-110)])
            .prop_map(|(event, id, status)| Step::Event(event, id, status)),
        2 => (any::<bool>(), 0u8..3).prop_map(|(known, space)| Step::Request(known, space)),
        1 => any::<bool>().prop_map(Step::Services),
        1 => (0u8..100).prop_map(Step::Later),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => any::<bool>().prop_map(Step::Block),
        2 => any::<u8>().prop_map(Step::Return),
    ]
}

fn message(kind: u8, local: u32, remote: u32) -> Message {
    let header = masq_cm::IpHeader {
        source: SocketAddr::new(HERE, 4000),
        destination: PLAIN,
    };
    let (local_comm, remote_comm) = (CommId(local), CommId(remote));
    let private = Private::EMPTY;
    match kind {
        0 => Message::Req(Box::new(Req {
            local_comm,
            service_id: masq_cm::service_id(PortSpace::Tcp, 7174),
            qpn: local,
            private: Private::new(&header.with::<92>(b"x")),
            ..Req::default()
        })),
        1 => Message::SidrReq(masq_cm::SidrReq {
            request: local_comm,
            service_id: masq_cm::service_id(PortSpace::Udp, 7174),
            private: Private::new(&header.with::<216>(b"x")),
            ..Default::default()
        }),
        2 => Message::Rep(masq_cm::Rep {
            local_comm,
            remote_comm,
            ..Default::default()
        }),
        3 => Message::Rtu(Rtu {
            local_comm,
            remote_comm,
            private,
        }),
        4 => Message::Rej(Rej {
            local_comm,
            remote_comm,
            answered: masq_cm::Answered::REQ,
            reason: Reason::CONSUMER,
            info: Private::EMPTY,
            info_len: 0,
            private,
        }),
        5 => Message::Dreq(masq_cm::Dreq {
            local_comm,
            remote_comm,
            remote_qpn: 1,
            private,
        }),
        6 => Message::Drep(Rtu {
            local_comm,
            remote_comm,
            private,
        }),
        7 => Message::SidrRep(masq_cm::SidrRep {
            request: remote_comm,
            status: SidrStatus(local as u8 & 1),
            qpn: 1,
            service_id: 0,
            qkey: 1,
            info: Private::EMPTY,
            info_len: 0,
            ece_vendor: 0,
            ece_options: 0,
            private,
        }),
        _ => Message::Req(Box::default()),
    }
}

proptest! {
    /// Whatever agents say and the kernel tells: each id has one conversation or listener,
    /// and in the end nothing is left.
    #[test]
    fn no_id_is_lost(steps in proptest::collection::vec(step(), 0..80)) {
        let mut host = Host::new();
        for step in steps {
            let now = host.now;
            match step {
                Step::Say(kind, local, remote) => {
                    host.desk.say(now, PLAIN, PARTITION, message(kind, local, remote));
                }
                Step::Event(event, nth, status) => {
                    let ids = &host.desk.manager.ids;
                    let id = ids.keys().nth(nth as usize % ids.len().max(1)).copied();
                    if let (Some(event), Some(id)) = (Event::from_raw(event.into()), id)
                        && event != Event::ConnectRequest
                    {
                        host.desk.on_event(now, told(id, event, status, Parameters::default()));
                    }
                }
                Step::Request(known, space) => {
                    let from = if known { PLAIN } else { OTHER };
                    let id = host.desk.manager.arrive(SocketAddr::new(from, 4000));
                    let space = [PortSpace::Tcp, PortSpace::Udp, PortSpace::Ib][usize::from(space)];
                    let request = Told {
                        service: Some((space, 7174)),
                        ..told(id, Event::ConnectRequest, 0, Parameters::default())
                    };
                    host.desk.on_event(now, request);
                }
                Step::Services(some) => {
                    let all = [service(PortSpace::Tcp), service(PortSpace::Udp)];
                    host.desk.set_services(now, if some { all.to_vec() } else { Vec::new() });
                }
                Step::Later(seconds) => {
                    host.now += Duration::from_secs(seconds.into());
                    host.desk.on_time(host.now);
                }
                Step::Fail(fails) => {
                    host.desk.manager.fails = fails.then_some(libc::ENOMEM);
                }
                Step::Block(blocks) => host.desk.manager.blocks = blocks,
                Step::Return(nth) => {
                    let count = host.desk.manager.calls.len();
                    if count > 0 {
                        let (id, what) = host.desk.manager.calls.remove(usize::from(nth) % count);
                        if matches!(what, Returned::Ended) {
                            host.desk.manager.ids.remove(&id);
                        }
                        host.desk.returned(id, what);
                    }
                }
            }
            while let Some((id, what)) = host.desk.manager.returned.pop() {
                host.desk.returned(id, what);
            }
            while host.desk.heard().is_some() {}
            prop_assert!(host.desk.is_consistent());
            let (talks, listeners) = host.desk.len();
            let ending = host.desk.ending();
            prop_assert_eq!(host.desk.manager.ids.len(), talks + listeners + ending);
        }
        host.desk.set_services(host.now, Vec::new());
        host.desk.set_hosts(&[]);
        host.release();
        prop_assert!(host.desk.manager.ids.is_empty());
        prop_assert!(host.has_nothing());
    }
}
