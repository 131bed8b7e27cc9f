//! Whatever a tenant sends is answered, and nothing of it stays.

use crate::devices::{DeviceId, Devices};
use crate::identity::Peer;
use crate::ledger::Kind;
use crate::notifier::Notifier;
use crate::protocol::Protocol;
use crate::session::{Opening, Outcome, Session};
use crate::vring::{Vring, VringConfig};
use crate::wire::{HEADER, Waiting, peek};
use crate::world::{DeviceIdentity, World};
use masq_device::{
    AhSpec, Arrival, CqSpec, DataPathKind, Device, DeviceError, EndpointKey, Handle, MAD_LEN,
    MrSpec, MwSpec, Network, PublishedService, QpChange, QpReport, QpSpec, Result, Sender,
    SenderKey, SessionSpec, SrqSpec, WireReport,
};
use masq_memory::{MappedRing, Region, SharedFile};
use masq_policy::{EndpointId, Policy};
use masq_spec::command::{MAX_COMMAND_LEN, Opcode, RequestHeader, ResponseHeader, Status};
use masq_spec::device::Features;
use masq_spec::verbs::{Access, DeviceAttr, Gid, QpAttr, SrqAttr, State};
use masq_wire::{Mtu, PKey};
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use vhost::vhost_user::BackendReqHandler;
use zerocopy::{FromBytes as _, IntoBytes as _};

mod delivery;
mod devices;
mod places;
mod services;

const POLICY: &str = "
version: 1
tenants:
  blue:
    quotas: { qps: 4, mrs: 4, pinned: 1MiB, cqs: 4, pds: 4 }
    endpoints:
      a: { address: 10.0.0.1 }
      b: { address: 10.0.0.2 }
    rules:
      - { name: both, from: a, to: b, both_ways: true, qp_types: [RC, UD], action: allow }
";
const LEN: u64 = 1 << 20;

/// A device that only keeps account, and insists that handles are good.
#[derive(Default)]
pub(crate) struct Fake {
    live: HashSet<(&'static str, Handle)>,
    regions: HashMap<Handle, Region>,
    again: bool,
    /// Every second region takes long.
    slow: bool,
    pinning: Option<MrSpec>,
    /// Kinds of which the device has no more.
    exhausted: Option<&'static str>,
    /// Lives as long as it.
    pub(crate) life: Arc<()>,
}

impl Fake {
    fn add(&mut self, kind: &'static str, handle: Handle) {
        assert!(self.live.insert((kind, handle)), "{kind} {handle} twice");
    }

    fn remove(&mut self, kind: &'static str, handle: Handle) {
        assert!(self.live.remove(&(kind, handle)), "no {kind} {handle}");
    }

    fn has(&self, kind: &'static str, handle: Handle) {
        assert!(self.live.contains(&(kind, handle)), "no {kind} {handle}");
    }
}

impl masq_device::Session for Fake {
    fn register(&mut self, mr: MrSpec) -> Result<u32> {
        assert!(self.pinning.is_none(), "one was forgotten");
        self.slow = !self.slow;
        if self.slow {
            self.pinning = Some(mr);
            return Err(DeviceError::Again);
        }
        self.add("mr", mr.handle);
        self.regions.insert(mr.handle, mr.region);
        Ok(mr.handle << 8)
    }
    fn registered(&mut self, mr: Handle) -> Result<u32> {
        let pinned = self.pinning.take_if(|pinning| pinning.handle == mr);
        self.register(pinned.expect("it is being pinned"))
    }
    fn deregister(&mut self, mr: Handle) -> Result<Region> {
        if self
            .pinning
            .take_if(|pinning| pinning.handle == mr)
            .is_some()
        {
            return Err(DeviceError::Gone);
        }
        self.has("mr", mr);
        self.again = !self.again;
        if self.again {
            return Err(DeviceError::Again);
        }
        self.remove("mr", mr);
        self.regions.remove(&mr).ok_or(DeviceError::Gone)
    }
    fn change_mr(&mut self, mr: Handle, _: Handle, _: Access) -> Result<u32> {
        self.has("mr", mr);
        Ok(mr << 8)
    }
    fn alloc_mw(&mut self, mw: MwSpec) -> Result<u32> {
        self.add("mw", mw.handle);
        Ok(1)
    }
    fn dealloc_mw(&mut self, mw: Handle) -> Result<()> {
        self.remove("mw", mw);
        Ok(())
    }
    fn create_cq(&mut self, cq: CqSpec) -> Result<()> {
        assert!(cq.cqe > 0 && cq.cqe <= cq.ring.slots());
        self.add("cq", cq.handle);
        Ok(())
    }
    fn resize_cq(&mut self, cq: Handle, _: MappedRing, _: u32) -> Result<u32> {
        self.has("cq", cq);
        Ok(0)
    }
    fn destroy_cq(&mut self, cq: Handle) -> Result<()> {
        self.remove("cq", cq);
        Ok(())
    }
    fn create_srq(&mut self, srq: SrqSpec) -> Result<()> {
        self.add("srq", srq.handle);
        Ok(())
    }
    fn set_srq_limit(&mut self, srq: Handle, _: u32) -> Result<()> {
        self.has("srq", srq);
        Ok(())
    }
    fn query_srq(&mut self, srq: Handle) -> Result<SrqAttr> {
        self.has("srq", srq);
        Ok(zerocopy::FromZeros::new_zeroed())
    }
    fn destroy_srq(&mut self, srq: Handle) -> Result<()> {
        self.remove("srq", srq);
        Ok(())
    }
    fn create_qp(&mut self, qp: QpSpec) -> Result<(u32, u32)> {
        self.has("cq", qp.send_cq);
        self.has("cq", qp.recv_cq);
        if let Some(what) = self.exhausted {
            return Err(DeviceError::Exhausted(what));
        }
        self.add("qp", qp.handle);
        Ok((qp.handle, 0))
    }
    fn modify_qp(&mut self, qp: Handle, _: QpChange) -> Result<State> {
        self.has("qp", qp);
        Ok(State::Rtr)
    }
    fn query_qp(&mut self, qp: Handle) -> Result<QpReport> {
        self.has("qp", qp);
        Ok(QpReport {
            attr: QpAttr::default(),
            qpn: qp,
            qp_type: masq_spec::verbs::QpType::Rc,
            send_queue: 0,
            counters: Default::default(),
            cause: None,
        })
    }
    fn fail_qp(&mut self, qp: Handle) -> Result<()> {
        self.has("qp", qp);
        Ok(())
    }
    fn destroy_qp(&mut self, qp: Handle) -> Result<()> {
        self.remove("qp", qp);
        Ok(())
    }
    fn create_ah(&mut self, ah: AhSpec) -> Result<()> {
        self.add("ah", ah.handle);
        Ok(())
    }
    fn destroy_ah(&mut self, ah: Handle) -> Result<()> {
        self.remove("ah", ah);
        Ok(())
    }
    fn set_gid(&mut self, _: Gid) -> Result<()> {
        Ok(())
    }
    fn set_grants(&mut self, _: masq_device::Grants) -> Result<()> {
        Ok(())
    }

    fn set_multicast_reach(&mut self, _: Vec<EndpointKey>) -> Result<()> {
        Ok(())
    }
    fn attach_multicast(&mut self, qp: Handle, _: Gid) -> Result<()> {
        self.has("qp", qp);
        Ok(())
    }
    fn detach_multicast(&mut self, qp: Handle, _: Gid) -> Result<()> {
        self.has("qp", qp);
        Ok(())
    }
}

/// A device of fakes; with a network that keeps what it is told, if it is to have one.
pub(crate) struct FakeDevice {
    name: &'static str,
    pub(crate) attributes: DeviceAttr,
    kind: DataPathKind,
    features: Features,
    pub(crate) network: Option<Arc<FakeNetwork>>,
}

impl FakeDevice {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            attributes: DeviceAttr {
                max_mr_size: 1 << 40,
                max_qp_wr: 1024,
                max_sge: 4,
                max_cqe: 1024,
                max_srq_wr: 1024,
                max_srq_sge: 4,
                max_inline_data: 64,
                ..zerocopy::FromZeros::new_zeroed()
            },
            kind: DataPathKind::DirectCopy,
            features: Features::all(),
            network: None,
        }
    }

    /// One that reaches other hosts.
    pub(crate) fn connected(name: &'static str) -> Self {
        Self {
            network: Some(Arc::default()),
            ..Self::new(name)
        }
    }

    /// One that passes work on to hardware with so many of everything.
    pub(crate) fn card(name: &'static str, objects: u32) -> Self {
        let mut card = Self::connected(name);
        let has = &mut card.attributes;
        (has.max_qp, has.max_cq, has.max_mr) = (objects, objects, objects);
        (has.max_pd, has.max_ah) = (objects, objects);
        card.kind = DataPathKind::Relay;
        card
    }
}

impl Device for FakeDevice {
    fn name(&self) -> &str {
        self.name
    }
    fn attributes(&self) -> DeviceAttr {
        self.attributes
    }
    fn features(&self) -> Features {
        self.features
    }
    fn data_path(&self) -> DataPathKind {
        self.kind
    }
    fn separates_hosts(&self) -> bool {
        self.kind != DataPathKind::Relay
    }
    fn network(&self) -> Option<Arc<dyn Network>> {
        let network = self.network.as_ref()?;
        Some(Arc::clone(network) as Arc<dyn Network>)
    }
    fn open(&self, _: SessionSpec) -> Result<Box<dyn masq_device::Session>> {
        Ok(Box::new(Fake::default()))
    }
}

/// What a network was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Sent(IpAddr, PKey),
    Learned(SenderKey, bool),
    Forgot,
    Strangers(Vec<IpAddr>),
    Services(Vec<PublishedService>),
}

pub(crate) struct FakeNetwork {
    told: Mutex<Vec<Told>>,
    /// What was sent last.
    last: Mutex<Option<Box<[u8; MAD_LEN]>>>,
    signal: OwnedFd,
}

impl Default for FakeNetwork {
    fn default() -> Self {
        let flags = rustix::event::EventfdFlags::CLOEXEC;
        Self {
            told: Mutex::default(),
            last: Mutex::default(),
            signal: rustix::event::eventfd(0, flags).unwrap(),
        }
    }
}

impl FakeNetwork {
    fn note(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }

    /// What it was told since the last call.
    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

impl Network for FakeNetwork {
    fn host(&self) -> IpAddr {
        IpAddr::from([192, 0, 2, 1])
    }
    fn mtu(&self) -> Mtu {
        Mtu::B1024
    }
    fn send(&self, to: IpAddr, partition: PKey, mad: &[u8; MAD_LEN]) -> Result<()> {
        *self.last.lock().unwrap() = Some(Box::new(*mad));
        self.note(Told::Sent(to, partition));
        Ok(())
    }
    fn receive(&self) -> Option<Arrival> {
        None
    }
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }
    fn learn(&self, sender: SenderKey, who: Option<Sender>) {
        self.note(Told::Learned(sender, who.is_some()));
    }
    fn forget_senders(&self) {
        self.note(Told::Forgot);
    }
    fn set_strangers(&self, hosts: Vec<IpAddr>) {
        self.note(Told::Strangers(hosts));
    }
    fn set_services(&self, services: Vec<PublishedService>) {
        self.note(Told::Services(services));
    }
    fn report(&self) -> WireReport {
        WireReport::default()
    }
}

fn sealed() -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("test", flags).unwrap();
    ftruncate(&fd, LEN).unwrap();
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&fd, seals).unwrap();
    fd
}

fn world() -> World {
    let policy = Policy::parse("p", POLICY).unwrap();
    let identity = DeviceIdentity::default();
    World::new(
        Arc::new(policy),
        Devices::new(Arc::new(FakeDevice::new("fake"))),
        identity,
        None,
        Box::new(masq_directory::Embedded),
    )
}

/// One of several hosts.
fn world_on(host: &str, policy: &str, devices: Devices) -> World {
    let policy = Policy::parse("p", policy).unwrap();
    let this = masq_directory::LocalHost::find(&policy, Some(host)).unwrap();
    World::new(
        Arc::new(policy),
        devices,
        DeviceIdentity::default(),
        this,
        Box::new(masq_directory::Embedded),
    )
}

fn session() -> Session {
    session_of("blue/a")
}

fn session_of(endpoint: &str) -> Session {
    session_on(endpoint, DeviceId::default(), Fake::default())
}

pub(crate) fn session_on(endpoint: &str, on: DeviceId, device: Fake) -> Session {
    let (socket, _peer) = UnixStream::pair().unwrap();
    Session::new(Opening {
        id: 1,
        endpoint: endpoint.parse::<EndpointId>().unwrap(),
        peer: Peer::of(&socket).unwrap(),
        program: String::new(),
        frontend_version: String::new(),
        notifier: Notifier::new("test".into()),
        memory: Arc::new(SharedFile::check(sealed()).unwrap()),
        has_remote: true,
        on,
        device: Box::new(device),
    })
    .unwrap()
}

/// Numbers that mean something more often than chance would have it.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0u32..5,
        2 => Just(64u32),
        1 => Just(0x1000u32),
        1 => Just(u32::MAX),
        1 => (0u32..20).prop_map(|bit| 1 << bit),
        1 => any::<u32>(),
    ]
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![
        9 => proptest::sample::select(Opcode::ALL).prop_map(Opcode::raw),
        1 => any::<u16>(),
    ];
    const SIZES: [usize; 10] = [0, 8, 16, 32, 40, 48, 64, 72, 80, 152];
    let good = (opcode, proptest::sample::select(&SIZES[..]))
        .prop_flat_map(|(opcode, size)| (Just(opcode), vec(word(), size / 4)))
        .prop_map(|(opcode, words)| {
            let body: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
            let header = RequestHeader {
                opcode,
                flags: 0,
                len: body.len() as u32,
            };
            [header.as_bytes(), &body].concat()
        });
    prop_oneof![8 => good, 2 => proptest::sample::select(useful()), 1 => vec(any::<u8>(), 0..200)]
}

/// Commands that succeed, so that there is something to be wrong about.
fn useful() -> Vec<Vec<u8>> {
    let request = |opcode: Opcode, words: &[u32]| {
        let body: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let header = RequestHeader {
            opcode: opcode.raw(),
            flags: 0,
            len: body.len() as u32,
        };
        [header.as_bytes(), &body].concat()
    };
    let ring = |page: u32, stride: u32| [page * 4096, 0, 16, stride];
    let (cq, sq, rq) = (ring(1, 64), ring(2, 128), ring(3, 64));
    let qp = |qp_type: u32| {
        let mut words = vec![1, qp_type, 1, 1, 0, 0, 16, 16, 1, 1, 0, 0];
        words.extend(sq);
        words.extend(rq);
        words
    };
    let mut make_cq = cq.to_vec();
    make_cq.extend([16, u32::MAX, 0, 0]);
    let mr = [1, 1, 0x8000, 0, 4096, 0, 0x8000, 0, 1, 0];
    let rights = [0, 3, 0, 0, 0, 0, 0, 0, 0, 0];
    let segment = [0x8000, 0, 4096, 0, 0x8000, 0, 0, 0];
    vec![
        request(Opcode::AllocPd, &[]),
        request(Opcode::CreateCq, &make_cq),
        request(Opcode::CreateQp, &qp(2)),
        request(Opcode::CreateQp, &qp(4)),
        request(Opcode::RegMr, &[&mr[..], &segment].concat()),
        request(Opcode::ReregMr, &[&[1, 4][..], &rights].concat()),
        request(Opcode::ReregMr, &[&[1, 1][..], &mr, &segment].concat()),
        request(Opcode::DeregMr, &[1, 0]),
        request(Opcode::AllocMw, &[1, 1]),
    ]
}

#[test]
fn the_useful_commands_of_these_tests_are_useful() {
    let (mut world, mut session) = (world(), session());
    for (n, request) in useful().into_iter().enumerate() {
        let answer = loop {
            if let Outcome::Answer(answer) = session.serve(&mut world, &request) {
                break answer;
            }
        };
        let refused = world.refusals.latest(&session.endpoint);
        assert_eq!(answer[..4], [0; 4], "command {n}: {refused:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_commands_are_answered_and_leave_nothing(
        commands in vec((command(), 1..8), 1..80),
    ) {
        let (mut world, mut session) = (world(), session());
        for (request, patience) in commands {
            let mut tries = 0;
            let answer = loop {
                match session.serve(&mut world, &request) {
                    Outcome::Answer(answer) => break Some(answer),
                    Outcome::Again => tries += 1,
                }
                prop_assert!(tries < 5);
                // Its queue is restarted.
                if tries >= patience {
                    break None;
                }
            };
            let Some(answer) = answer else { continue };
            prop_assert!(answer.len() <= MAX_COMMAND_LEN);
            let (header, body) = ResponseHeader::read_from_prefix(&answer).unwrap();
            prop_assert_eq!(header.len as usize, body.len());
            let status = Status::from_raw(header.status).unwrap();
            prop_assert!(status == Status::Ok || body.is_empty());
            let id = session.endpoint.clone();
            for kind in Kind::ALL {
                let (used, _) = world.ledger.used(&id, kind);
                prop_assert!(used <= kind.limit(world.policy.quotas(&id)), "{:?}", kind);
            }
        }
        session.recheck(&mut world);
        session.close(&mut world);
        prop_assert!(world.ledger.is_empty());
    }

    #[test]
    fn any_ring_is_walked_to_an_end(
        bytes in vec(any::<u8>(), 0..4096),
        descriptors in vec((0u64..0x1_4000, word(), 0u16..8, 0u16..20), 8),
        heads in vec(0u16..12, 8),
        jump in 0u16..12,
        random in any::<bool>(),
    ) {
        let fd = sealed();
        let file = std::fs::File::from(fd.try_clone().unwrap());
        use std::os::unix::fs::FileExt as _;
        let put = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).unwrap();
        if random {
            put(0x4000, &bytes);
        } else {
            for (n, (addr, len, flags, next)) in descriptors.iter().enumerate() {
                let at = 0x4000 + 16 * n as u64;
                put(at, &addr.to_le_bytes());
                put(at + 8, &len.to_le_bytes());
                put(at + 12, &flags.to_le_bytes());
                put(at + 14, &next.to_le_bytes());
            }
            for (n, head) in heads.iter().enumerate() {
                put(0x4800 + 4 + 2 * n as u64, &head.to_le_bytes());
            }
            put(0x4802, &jump.to_le_bytes());
        }
        let config = VringConfig {
            size: 8,
            desc: 0x4000,
            avail: 0x4800,
            used: 0x5000,
            ..Default::default()
        };
        let shared = SharedFile::check(fd).unwrap();
        let mut vring = Vring::new(&shared, &config).unwrap();
        for _ in 0..64 {
            match vring.take() {
                Ok(Some(chain)) => {
                    prop_assert!(chain.request.len() <= MAX_COMMAND_LEN);
                    if vring.answer(&chain, &[0xab; 300]).is_err() {
                        break;
                    }
                }
                Ok(None) | Err(_) => break,
            }
            let _ = (vring.is_ready(), vring.want_kicks(true), vring.wants_call());
        }
    }

    #[test]
    fn any_geometry_is_checked(
        size in any::<u16>(),
        desc in prop_oneof![0..LEN * 2, any::<u64>()],
        avail in prop_oneof![0..LEN * 2, any::<u64>()],
        used in prop_oneof![0..LEN * 2, any::<u64>()],
    ) {
        let shared = SharedFile::check(sealed()).unwrap();
        let config = VringConfig { size, desc, avail, used, ..Default::default() };
        if let Ok(mut vring) = Vring::new(&shared, &config) {
            prop_assert!(size.is_power_of_two() && desc < LEN && avail < LEN && used < LEN);
            let _ = vring.take();
        }
    }

    #[test]
    fn a_message_is_seen_only_when_all_of_it_is_there(
        bytes in vec(any::<u8>(), 0..64),
        size in 0u32..6000,
    ) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut sent = bytes.clone();
        if let Some(field) = sent.get_mut(8..12) {
            field.copy_from_slice(&size.to_ne_bytes());
        }
        ours.write_all(&sent).unwrap();
        let expected = match (sent.len(), size as usize) {
            (0, _) => Waiting::Nothing,
            (len, _) if len < HEADER => Waiting::Part,
            (_, size) if size > 4096 => Waiting::Garbage,
            (len, size) if len < HEADER + size => Waiting::Part,
            (_, size) => {
                let code = u32::from_ne_bytes(sent[..4].try_into().unwrap());
                Waiting::Message(code, size)
            }
        };
        prop_assert_eq!(peek(&theirs).unwrap(), expected);
        drop(ours);
        if sent.is_empty() {
            prop_assert_eq!(peek(&theirs).unwrap(), Waiting::Closed);
        }
    }

    #[test]
    fn any_vhost_user_messages_are_survived(
        messages in vec((1u32..46, vec(word(), 0..24), any::<bool>()), 1..40),
    ) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut world = world();
        let id: EndpointId = "blue/a".parse().unwrap();
        let _ = world.endpoint_key(&id);
        let events = Notifier::new("test".into());
        let mut protocol = Protocol::new(world.config(&id), Features::all(), events);
        protocol.event_queues_left = 2;
        let protocol = Arc::new(Mutex::new(protocol));
        let stream = theirs.try_clone().unwrap();
        let mut handler = BackendReqHandler::from_stream(stream, Arc::clone(&protocol));
        for (code, words, need_reply) in messages {
            let body: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
            let flags = if need_reply { 9u32 } else { 1 };
            for word in [code, flags, body.len() as u32] {
                ours.write_all(&word.to_ne_bytes()).unwrap();
            }
            ours.write_all(&body).unwrap();
            let _ = handler.handle_request();
            let mut protocol = protocol.lock().unwrap();
            prop_assert!(protocol.take_changes().len() <= 1);
            drop(protocol);
            let mut answer = [0; 8192];
            let _ = ours.read(&mut answer);
            // A message that was not taken whole ends the connection.
            if !matches!(peek(&theirs), Ok(Waiting::Nothing)) {
                break;
            }
        }
    }
}
