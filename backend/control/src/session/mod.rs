//! A session: one frontend process, its handles, and what its commands do.

mod address;
mod cm;
mod completion;
mod device;
mod grants;
mod memory;
mod qp;
mod report;

pub(crate) use grants::grants;
pub(crate) use qp::policy_type;

use crate::devices::DeviceId;
use crate::handles::Handles;
use crate::identity::Peer;
use crate::ledger::{Amounts, Kind};
use crate::notifier::Notifier;
use crate::refusal::{Refused, verb_name};
use crate::world::World;
use masq_device::Handle;
use masq_memory::{MappedRing, SharedFile};
use masq_policy::EndpointId;
use masq_spec::command::{MAX_COMMAND_LEN, Opcode, RequestHeader, ResponseHeader, Status};
use masq_spec::verbs::{Created, Ring};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Body of a response, or the refusal.
pub(crate) type Reply = Result<Vec<u8>, Refused>;

/// What a command led to.
pub(crate) enum Outcome {
    /// The response, header included.
    Answer(Vec<u8>),
    /// The device has not let go yet: serve the same command again soon.
    Again,
}

/// A protection domain and the number of objects in it.
#[derive(Debug, Default)]
struct Pd {
    users: u32,
}

/// An open session.
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) secret: [u8; 16],
    pub(crate) endpoint: EndpointId,
    pub(crate) peer: Peer,
    pub(crate) program: String,
    pub(crate) frontend_version: String,
    pub(crate) opened: Instant,
    pub(crate) commands: u64,
    pub(crate) notifier: Arc<Notifier>,
    memory: Arc<SharedFile>,
    has_remote: bool,
    /// The device that it is on, to its end.
    on: DeviceId,
    device: Box<dyn masq_device::Session>,
    charged: Amounts,
    pds: Handles<Pd>,
    mrs: Handles<memory::Mr>,
    mws: Handles<memory::Mw>,
    cqs: Handles<completion::Cq>,
    srqs: Handles<completion::Srq>,
    qps: Handles<qp::Qp>,
    ahs: Handles<address::Ah>,
    groups: Vec<(Handle, masq_spec::verbs::Gid)>,
    /// A registration under way.
    filling: Option<memory::Filling>,
    /// The command that is to be served again, and since when.
    again: Vec<u8>,
    again_since: Option<Instant>,
    /// Whether the device was told whom its datagrams to groups may reach.
    sends_to_groups: bool,
}

/// What a session is opened with.
pub(crate) struct Opening {
    pub(crate) id: u64,
    pub(crate) endpoint: EndpointId,
    pub(crate) peer: Peer,
    pub(crate) program: String,
    pub(crate) frontend_version: String,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) memory: Arc<SharedFile>,
    pub(crate) has_remote: bool,
    pub(crate) on: DeviceId,
    pub(crate) device: Box<dyn masq_device::Session>,
}

impl Session {
    pub(crate) fn new(opening: Opening) -> Result<Self, Refused> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)
            .map_err(|_| Refused::new(Status::Internal, "host", "no random numbers"))?;
        Ok(Self {
            id: opening.id,
            secret,
            endpoint: opening.endpoint,
            peer: opening.peer,
            program: opening.program,
            frontend_version: opening.frontend_version,
            opened: Instant::now(),
            commands: 0,
            notifier: opening.notifier,
            memory: opening.memory,
            has_remote: opening.has_remote,
            on: opening.on,
            device: opening.device,
            charged: Amounts::default(),
            pds: Handles::default(),
            mrs: Handles::default(),
            mws: Handles::default(),
            cqs: Handles::default(),
            srqs: Handles::default(),
            qps: Handles::default(),
            ahs: Handles::default(),
            groups: Vec::new(),
            filling: None,
            again: Vec::new(),
            again_since: None,
            sends_to_groups: false,
        })
    }

    /// Serves one command. Whatever the bytes are, the answer is a response.
    pub(crate) fn serve(&mut self, world: &mut World, request: &[u8]) -> Outcome {
        self.commands += 1;
        if self.filling.is_some() && self.again != request {
            // Its queue was restarted meanwhile.
            self.give_up_filling(world);
        }
        let Ok((header, body)) = RequestHeader::read_from_prefix(request) else {
            return self.refuse(
                world,
                "malformed",
                &Refused::invalid("request without a header"),
            );
        };
        let Some(opcode) = Opcode::from_raw(header.opcode) else {
            let refused = Refused::unsupported("unknown command")
                .about(format!("opcode {:#06x}", header.opcode));
            return self.refuse(world, "unknown", &refused);
        };
        let body = match body.get(..header.len as usize) {
            Some(body) if header.flags == 0 => body,
            _ => {
                let refused = Refused::invalid("the header's length or flags are wrong");
                return self.refuse(world, verb_name(opcode), &refused);
            }
        };
        match self.dispatch(world, opcode, body) {
            Ok(body) => {
                self.again_since = None;
                Outcome::Answer(response(Status::Ok, &body))
            }
            Err(refused) if refused.rule == AGAIN => {
                self.commands -= 1;
                if self.again != request {
                    self.again = request.to_vec();
                    self.again_since = None;
                }
                self.again_since.get_or_insert_with(Instant::now);
                Outcome::Again
            }
            Err(refused) => {
                self.again_since = None;
                self.refuse(world, verb_name(opcode), &refused)
            }
        }
    }

    /// Whether the command that is being served has waited as long as one may.
    fn has_waited(&self) -> bool {
        let since = self.again_since;
        since.is_some_and(|since| since.elapsed() >= NEWS_OF_OTHERS)
    }

    /// Has the command that is being served wait for news of other hosts, if somebody may
    /// come up at an address, but no longer than one may wait.
    fn await_news(&self, world: &World, address: IpAddr) -> Result<(), Refused> {
        match !self.has_waited() && world.may_come_up(self.endpoint.tenant(), address) {
            true => Err(Refused::again()),
            false => Ok(()),
        }
    }

    /// The same, if nobody is known to be there: a container of another host may have started
    /// a moment ago.
    fn await_somebody(&self, world: &World, address: IpAddr) -> Result<(), Refused> {
        match world.peer_at(&self.endpoint, address) {
            Some(_) => Ok(()),
            None => self.await_news(world, address),
        }
    }

    fn carrier<'w>(&self, world: &'w World) -> &'w Arc<dyn masq_device::Device> {
        world.devices.get(self.on)
    }

    fn refuse(&self, world: &mut World, verb: &'static str, refused: &Refused) -> Outcome {
        world
            .refusals
            .record(&self.endpoint, self.id, verb, refused);
        Outcome::Answer(response(refused.status, &[]))
    }

    fn dispatch(&mut self, world: &mut World, opcode: Opcode, body: &[u8]) -> Reply {
        match opcode {
            Opcode::Hello | Opcode::Join => Err(Refused::invalid("the session is open already")),
            Opcode::QueryDevice => self.query_device(world),
            Opcode::QueryPort => self.query_port(world, &parse(body)?),
            Opcode::QueryGidTable => self.query_gid_table(world),
            Opcode::AllocPd => self.alloc_pd(world),
            Opcode::DeallocPd => self.dealloc_pd(world, handle(body)?),
            Opcode::RegMr => self.reg_mr(world, body),
            Opcode::DeregMr => self.dereg_mr(world, handle(body)?),
            Opcode::ReregMr => self.rereg_mr(world, body),
            Opcode::AllocMw => self.alloc_mw(world, &parse(body)?),
            Opcode::DeallocMw => self.dealloc_mw(world, handle(body)?),
            Opcode::CreateCq => self.create_cq(world, &parse(body)?),
            Opcode::DestroyCq => self.destroy_cq(world, handle(body)?),
            Opcode::ResizeCq => self.resize_cq(world, &parse(body)?),
            Opcode::CreateSrq => self.create_srq(world, &parse(body)?),
            Opcode::DestroySrq => self.destroy_srq(world, handle(body)?),
            Opcode::ModifySrq => self.modify_srq(&parse(body)?),
            Opcode::QuerySrq => self.query_srq(handle(body)?),
            Opcode::CreateQp => self.create_qp(world, &parse(body)?),
            Opcode::DestroyQp => self.destroy_qp(world, handle(body)?),
            Opcode::ModifyQp => self.modify_qp(world, &parse(body)?),
            Opcode::QueryQp => self.query_qp(handle(body)?),
            Opcode::CreateAh => self.create_ah(world, &parse(body)?),
            Opcode::DestroyAh => self.destroy_ah(world, handle(body)?),
            Opcode::AttachMcast => self.attach_mcast(world, &parse(body)?),
            Opcode::DetachMcast => self.detach_mcast(world, &parse(body)?),
            cm => self.cm_command(world, cm, body),
        }
    }

    /// Charges quota; refunded by [`Self::refund`] or when the session ends.
    pub(crate) fn charge(&mut self, world: &mut World, kind: Kind, n: u64) -> Result<(), Refused> {
        world.charge(&self.endpoint, kind, n)?;
        self.charged.add(kind, n);
        Ok(())
    }

    pub(crate) fn refund(&mut self, world: &mut World, kind: Kind, n: u64) {
        world.ledger.refund(&self.endpoint, kind, n);
        self.charged.sub(kind, n);
    }

    /// Gives everything back. The device session is dropped with `self`.
    pub(crate) fn close(self, world: &mut World) {
        world.leave_fabric(&self.endpoint, self.id);
        for (_, qp) in self.qps.iter() {
            world.owners.end((self.on, qp.qpn), Instant::now());
        }
        for kind in Kind::ALL {
            world
                .ledger
                .refund(&self.endpoint, kind, self.charged.get(kind));
        }
        let pinned = self.charged.get(Kind::PinnedBytes);
        memory::drop_aside(pinned, (self.device, self.filling));
    }

    /// Sends from the endpoint's first address, which it did not have before.
    pub(crate) fn readdress(&mut self, world: &World) {
        let Some(gids) = world.gids(&self.endpoint) else {
            return;
        };
        if let Err(error) = self.device.set_gid(gids.first()) {
            tracing::error!(session = self.id, %error, "the address was not set");
        }
    }

    /// Raises an event of the device or its port.
    pub(crate) fn raise(&self, event: masq_spec::event::AsyncEvent, element: u32) {
        use masq_device::EventSink;
        crate::notifier::Sink(Arc::clone(&self.notifier)).asynchronous(event, element);
    }

    fn pd(&mut self, handle: Handle) -> Result<&mut Pd, Refused> {
        self.pds
            .get_mut(handle)
            .ok_or_else(|| no_handle("protection domain"))
    }

    fn leave_pd(&mut self, handle: Handle) {
        if let Some(pd) = self.pds.get_mut(handle) {
            pd.users = pd.users.saturating_sub(1);
        }
    }
}

/// How long the news that an endpoint has come up may take from another host to this one.
const NEWS_OF_OTHERS: Duration = Duration::from_secs(1);

/// Marks a refusal that is no refusal: the command is served again.
const AGAIN: &str = "again";

impl Refused {
    fn again() -> Self {
        Self::new(Status::Busy, AGAIN, "")
    }
}

/// A device error, with [`masq_device::DeviceError::Again`] told apart.
fn device_error(error: masq_device::DeviceError) -> Refused {
    match error {
        masq_device::DeviceError::Again => Refused::again(),
        other => other.into(),
    }
}

/// Maps a ring for `entries`, of which each needs `entry_len` bytes. Rings are
/// not charged as registered memory, so they may not be much larger than that.
fn map_ring(
    memory: &SharedFile,
    ring: Ring,
    entries: u32,
    entry_len: u64,
) -> Result<MappedRing, Refused> {
    let most_slots = u64::from(entries.max(1)).next_power_of_two() * 2;
    let most_stride = entry_len.max(64).next_power_of_two() * 2;
    if u64::from(ring.slots) > most_slots || u64::from(ring.stride) > most_stride {
        return Err(Refused::invalid("the ring is larger than it needs to be"));
    }
    MappedRing::map(memory, ring).map_err(|error| match Refused::from(error) {
        // An address is an attribute here; only registered memory says EFAULT.
        refused if refused.status == Status::Fault => Refused {
            status: Status::Invalid,
            ..refused
        },
        refused => refused,
    })
}

/// An unknown handle is a malformed request: verbs say EINVAL.
fn no_handle(kind: &'static str) -> Refused {
    Refused {
        status: Status::Invalid,
        ..Refused::no_object(kind)
    }
}

/// A response with its header.
pub(crate) fn response(status: Status, body: &[u8]) -> Vec<u8> {
    let header = ResponseHeader {
        status: status.raw(),
        len: body.len() as u32,
    };
    let mut out = Vec::with_capacity(8 + body.len());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(body);
    out.truncate(MAX_COMMAND_LEN);
    out
}

/// A body of exactly this type.
pub(crate) fn parse<T: FromBytes + KnownLayout + Immutable>(body: &[u8]) -> Result<T, Refused> {
    T::read_from_bytes(body).map_err(|_| Refused::invalid("the body has the wrong length"))
}

fn handle(body: &[u8]) -> Result<Handle, Refused> {
    Ok(parse::<masq_spec::verbs::Handle>(body)?.handle)
}

fn created(handle: Handle) -> Vec<u8> {
    Created {
        handle,
        reserved: 0,
    }
    .as_bytes()
    .to_vec()
}
