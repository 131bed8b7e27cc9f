//! Connections: handshake, control ring, end.

use super::{Server, Token, back_channel};
use crate::identity::Peer;
use crate::ledger::Kind;
use crate::notifier::{EventQueue, Notifier, Sink};
use crate::protocol::{Change, Protocol};
use crate::refusal::Refused;
use crate::session::{Opening, Outcome, Session, parse, response};
use crate::vring::{Chain, RingError, Vring};
use crate::wire::{self, Waiting};
use crate::world::VERSION;
use masq_device::SessionSpec;
use masq_memory::{DoorbellPage, RemoteMemory};
use masq_policy::EndpointId;
use masq_spec::command::{Opcode, RequestHeader, Status};
use masq_spec::device::{
    ASYNC_EVENT_QUEUE, CONTROL_QUEUE, FIRST_EVENT_QUEUE, Features, MAX_QUEUES, QUEUE_LAYOUT_MASQ,
    SPEC_VERSION, VersionText, version_str, version_text,
};
use masq_spec::verbs::{Hello, HelloReply, Join};
use rustix::event::epoll;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use vhost::vhost_user::{BackendReqHandler, VhostUserProtocolFeatures};
use zerocopy::{FromBytes, IntoBytes};

/// How long a handshake, or a message that has begun, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// vhost-user messages of one connection in one turn.
const MESSAGES_PER_TURN: u32 = 64;
/// Commands of one connection in one turn.
const COMMANDS_PER_TURN: u32 = 16;

/// Event queues of a joined connection.
const QUEUES_OF_JOINED: u64 = MAX_QUEUES as u64 - FIRST_EVENT_QUEUE as u64;

/// The control queue of a connection.
struct Control {
    vring: Vring,
    kick: File,
    /// A command that the device could not finish yet.
    stalled: Option<Chain>,
}

/// What a connection is for.
enum Role {
    /// It has not said HELLO or JOIN.
    New,
    /// It carries a session.
    Session(Box<Session>),
    /// It carries further event queues of a session.
    Joined { base: u32 },
}

/// A connection.
pub(super) struct Conn {
    pub(super) generation: u32,
    endpoint: EndpointId,
    socket: UnixStream,
    handler: BackendReqHandler<Mutex<Protocol>>,
    protocol: Arc<Mutex<Protocol>>,
    peer: Option<Peer>,
    /// Signals its control queue, and delivers the events of its session.
    notifier: Arc<Notifier>,
    /// Delivers the events of its queues: of the session that it joined, or
    /// its own.
    events: Arc<Notifier>,
    control: Option<Control>,
    role: Role,
    /// Event queues that were charged, by index.
    event_queues: Vec<u8>,
    born: Instant,
    part_since: Option<Instant>,
    has_back_channel: bool,
    /// It waits for its turn.
    pub(super) queued: bool,
    /// It had a turn a moment ago.
    pub(super) hot: bool,
}

impl Conn {
    pub(super) fn session(&self) -> Option<&Session> {
        match &self.role {
            Role::Session(session) => Some(session),
            _ => None,
        }
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.role {
            Role::Session(session) => Some(session),
            _ => None,
        }
    }

    pub(super) fn endpoint(&self) -> &EndpointId {
        &self.endpoint
    }

    pub(super) fn has_command(&self) -> bool {
        self.control
            .as_ref()
            .is_some_and(|c| c.stalled.is_none() && c.vring.is_ready())
    }

    /// Asks for kicks again; true if a command came in between.
    pub(super) fn want_kicks(&mut self) -> bool {
        self.control
            .as_mut()
            .is_some_and(|c| c.stalled.is_none() && c.vring.want_kicks(true))
    }

    /// Why it is to be closed, if it is.
    pub(super) fn overdue(&self) -> Option<&'static str> {
        if matches!(self.role, Role::New) && self.born.elapsed() > PATIENCE {
            return Some("the handshake took too long");
        }
        if self
            .part_since
            .is_some_and(|since| since.elapsed() > PATIENCE)
        {
            return Some("a message was not finished");
        }
        self.notifier.trouble()
    }

    fn protocol(&self) -> std::sync::MutexGuard<'_, Protocol> {
        self.protocol.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    pub(super) fn accept(&mut self, number: u32) {
        let Some((id, listener)) = self.endpoints.get(number) else {
            return;
        };
        let id = id.clone();
        // One each turn: other work goes on between two of a flood.
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) => {
                if error.raw_os_error().is_some_and(is_out_of_descriptors) {
                    // Whoever waits hears that it waits in vain.
                    self.spare = None;
                    drop(listener.accept());
                    self.spare = File::open("/dev/null").ok();
                }
                let quiet = |since: Instant| since.elapsed() < Duration::from_secs(1);
                if error.kind() != std::io::ErrorKind::WouldBlock
                    && !self.accept_failed.is_some_and(quiet)
                {
                    self.accept_failed = Some(Instant::now());
                    tracing::error!(endpoint = %id, %error, "connections are not accepted");
                }
                return;
            }
        };
        if let Err(refused) = self.world.charge(&id, Kind::Sessions, 1) {
            self.world.refusals.record(&id, 0, "connect", &refused);
            return;
        }
        match self.new_conn(&id, socket) {
            Ok(index) => self.on_socket(index, self.generation),
            Err(error) => {
                self.world.ledger.refund(&id, Kind::Sessions, 1);
                tracing::error!(endpoint = %id, %error, "a connection was not set up");
            }
        }
    }

    fn new_conn(&mut self, id: &EndpointId, socket: UnixStream) -> std::io::Result<usize> {
        socket.set_nonblocking(true)?;
        let peer = Peer::of(&socket)?;
        let notifier = Notifier::new(id.to_string());
        let (config, features) = (self.world.config(id), self.world.device.features());
        let mut protocol = Protocol::new(config, features, Arc::clone(&notifier));
        let page = DoorbellPage::new().map_err(std::io::Error::other)?;
        protocol.doorbell = Some(Arc::new(page));
        let protocol = Arc::new(Mutex::new(protocol));
        let handler = BackendReqHandler::from_stream(socket.try_clone()?, Arc::clone(&protocol));
        self.generation = (self.generation + 1) & 0x0fff_ffff;
        let generation = self.generation;
        let entry = self.conns.vacant_entry();
        let index = entry.key();
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let number = index as u32;
        epoll::add(
            &self.epoll,
            &socket,
            Token::Socket(number, generation).data(),
            flags,
        )?;
        let exit = Token::Exit(number, generation).data();
        epoll::add(&self.epoll, &peer.pidfd, exit, epoll::EventFlags::IN)?;
        entry.insert(Conn {
            generation,
            endpoint: id.clone(),
            socket,
            handler,
            protocol,
            peer: Some(peer),
            events: Arc::clone(&notifier),
            notifier,
            control: None,
            role: Role::New,
            event_queues: Vec::new(),
            born: Instant::now(),
            part_since: None,
            has_back_channel: false,
            queued: false,
            hot: false,
        });
        Ok(index)
    }

    /// Serves the messages of a connection, so many a turn.
    pub(super) fn on_socket(&mut self, index: usize, generation: u32) {
        for _ in 0..MESSAGES_PER_TURN {
            let left = self.event_queues_left(index);
            let Some(conn) = self.conns.get_mut(index) else {
                return;
            };
            if conn.generation != generation {
                return;
            }
            let (code, len) = match wire::peek(&conn.socket) {
                Ok(Waiting::Message(code, len)) => (code, len),
                Ok(Waiting::Nothing) => {
                    conn.part_since = None;
                    return;
                }
                Ok(Waiting::Part) => {
                    conn.part_since.get_or_insert_with(Instant::now);
                    return;
                }
                Ok(Waiting::Closed) => return self.close(index, "the frontend closed it"),
                Ok(Waiting::Garbage) | Err(_) => {
                    return self.close(index, "the frontend sent no vhost-user message");
                }
            };
            conn.part_since = None;
            // The crate would try again and again to write an answer.
            if !wire::has_room(&conn.socket) {
                return self.close(index, "the frontend does not read the answers");
            }
            conn.protocol().event_queues_left = left;
            if code == back_channel::REQUEST {
                if let Err(error) = conn.take_back_channel(len) {
                    tracing::info!(endpoint = %conn.endpoint, %error, "back channel refused");
                    return self.close(index, "a back channel that cannot be used");
                }
            } else if let Err(error) = conn.handler.handle_request() {
                tracing::info!(endpoint = %conn.endpoint, %error, "vhost-user request refused");
                // The crate acknowledged what it could; an unanswered request
                // or a broken stream ends the connection.
                if !matches!(
                    error,
                    vhost::vhost_user::Error::InvalidParam
                        | vhost::vhost_user::Error::InvalidOperation(_)
                ) {
                    return self.close(index, "a broken vhost-user message");
                }
            }
            let changes = conn.protocol().take_changes();
            for change in changes {
                if let Err(reason) = self.on_change(index, change) {
                    tracing::info!(conn = index, reason, "virtqueue refused");
                    return self.close(index, "a virtqueue that cannot be used");
                }
            }
        }
        self.sockets.push_back((index, generation));
    }

    /// Event queues that the quota still allows a connection's endpoint.
    fn event_queues_left(&self, index: usize) -> u64 {
        let id = self.conns.get(index).map(|conn| &conn.endpoint);
        id.map_or(0, |id| self.world.left(id, Kind::EventQueues))
    }

    fn on_change(&mut self, index: usize, change: Change) -> Result<(), String> {
        let Some(conn) = self.conns.get_mut(index) else {
            return Ok(());
        };
        match change {
            Change::Started(CONTROL_QUEUE) => self.start_control(index),
            Change::Started(queue) => {
                if !conn.event_queues.contains(&queue) {
                    let id = conn.endpoint.clone();
                    if let Err(refused) = self.world.charge(&id, Kind::EventQueues, 1) {
                        self.world.refusals.record(&id, 0, "event_queue", &refused);
                        return Err(refused.reason);
                    }
                    if let Some(conn) = self.conns.get_mut(index) {
                        conn.event_queues.push(queue);
                    }
                }
                self.start_events(index, queue)
            }
            Change::Stopped(CONTROL_QUEUE) => {
                self.stop_control(index);
                Ok(())
            }
            Change::OverQuota => {
                let id = conn.endpoint.clone();
                if let Err(refused) = self.world.charge(&id, Kind::EventQueues, 1) {
                    self.world.refusals.record(&id, 0, "event_queue", &refused);
                } else {
                    self.world.ledger.refund(&id, Kind::EventQueues, 1);
                }
                Ok(())
            }
            Change::Stopped(queue) => {
                if let Some(at) = conn.event_queues.iter().position(|q| *q == queue) {
                    conn.event_queues.swap_remove(at);
                    let id = conn.endpoint.clone();
                    self.world.ledger.refund(&id, Kind::EventQueues, 1);
                }
                Ok(())
            }
        }
    }

    fn start_control(&mut self, index: usize) -> Result<(), String> {
        self.stop_control(index);
        let Some(conn) = self.conns.get_mut(index) else {
            return Ok(());
        };
        let generation = conn.generation;
        let protocol = conn.protocol();
        let memory = protocol.memory.clone().ok_or("no memory was shared")?;
        let config = protocol.vring(CONTROL_QUEUE).ok_or("no such queue")?;
        let vring = Vring::new(&memory, config).map_err(|e: RingError| e.to_string())?;
        let text = |e: std::io::Error| e.to_string();
        let clone = |file: &Option<File>| {
            file.as_ref()
                .ok_or_else(|| "no descriptor".to_owned())?
                .try_clone()
                .map_err(text)
        };
        let (kick, call) = (clone(&config.kick)?, clone(&config.call)?);
        drop(protocol);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let token = Token::Kick(index as u32, generation).data();
        epoll::add(&self.epoll, &kick, token, flags).map_err(|e| e.to_string())?;
        conn.notifier.set_control_call(Some(Arc::new(call)));
        conn.control = Some(Control {
            vring,
            kick,
            stalled: None,
        });
        self.make_ready(index);
        Ok(())
    }

    /// Forgets the control queue; its kick is unwatched before it is closed,
    /// since the tenant may hold a duplicate.
    fn stop_control(&mut self, index: usize) {
        let Some(conn) = self.conns.get_mut(index) else {
            return;
        };
        conn.notifier.set_control_call(None);
        if let Some(control) = conn.control.take() {
            let _ = epoll::delete(&self.epoll, &control.kick);
        }
    }

    fn start_events(&mut self, index: usize, queue: u8) -> Result<(), String> {
        let Some(conn) = self.conns.get(index) else {
            return Ok(());
        };
        let protocol = conn.protocol();
        let memory = protocol.memory.clone().ok_or("no memory was shared")?;
        let config = protocol.vring(queue).ok_or("no such queue")?;
        let call = config.call.as_ref().ok_or("no descriptor")?;
        let call = Arc::new(call.try_clone().map_err(|e| e.to_string())?);
        conn.events.set_queue(conn.queue_number(queue), || {
            let vring = Vring::new(&memory, config).map_err(|e| e.to_string())?;
            Ok(EventQueue { vring, call })
        })
    }

    /// Serves the commands of a connection; whether there were any.
    pub(super) fn serve(&mut self, index: usize) -> bool {
        let Some(conn) = self.conns.get_mut(index) else {
            return false;
        };
        conn.queued = false;
        let mut served = false;
        for _ in 0..COMMANDS_PER_TURN {
            let Some(conn) = self.conns.get_mut(index) else {
                return served;
            };
            let Some(control) = &mut conn.control else {
                return served;
            };
            let chain = match control.stalled.take() {
                Some(chain) => chain,
                None => {
                    control.vring.want_kicks(false);
                    match control.vring.take() {
                        Ok(Some(chain)) => chain,
                        Ok(None) => return served,
                        Err(error) => {
                            tracing::info!(endpoint = %conn.endpoint, %error, "control ring");
                            self.close(index, "its control ring broke the rules");
                            return true;
                        }
                    }
                }
            };
            let outcome = match &mut conn.role {
                Role::Session(session) => session.serve(&mut self.world, &chain.request),
                Role::Joined { .. } => Outcome::Answer(response(Status::Invalid, &[])),
                Role::New => Outcome::Answer(self.first_command(index, &chain.request)),
            };
            let Some(conn) = self.conns.get_mut(index) else {
                return true;
            };
            let Some(control) = &mut conn.control else {
                return true;
            };
            match outcome {
                Outcome::Again => {
                    control.stalled = Some(chain);
                    self.stalled.push(index);
                    return served;
                }
                Outcome::Answer(answer) => {
                    served = true;
                    if control.vring.answer(&chain, &answer).is_err() {
                        self.close(index, "its control ring is gone");
                        return true;
                    }
                    if control.vring.wants_call() {
                        conn.notifier.signal_control();
                    }
                }
            }
        }
        self.make_ready(index);
        served
    }

    /// HELLO or JOIN.
    fn first_command(&mut self, index: usize, request: &[u8]) -> Vec<u8> {
        let Some(id) = self.conns.get(index).map(|conn| conn.endpoint.clone()) else {
            return response(Status::Gone, &[]);
        };
        let Ok((header, body)) = RequestHeader::read_from_prefix(request) else {
            return response(Status::Invalid, &[]);
        };
        let (verb, result) = match Opcode::from_raw(header.opcode) {
            Some(Opcode::Hello) => ("hello", parse(body).and_then(|h| self.hello(index, &h))),
            Some(Opcode::Join) => ("join", parse(body).and_then(|j| self.join(index, &j))),
            _ => (
                "first",
                Err(Refused::invalid("the first command must be HELLO or JOIN")),
            ),
        };
        match result {
            Ok(answer) => answer,
            Err(refused) => {
                self.world.refusals.record(&id, 0, verb, &refused);
                response(refused.status, &[])
            }
        }
    }

    fn hello(&mut self, index: usize, hello: &Hello) -> Result<Vec<u8>, Refused> {
        let gone = || Refused::new(Status::Gone, "interface", "the connection is gone");
        let mut reply = HelloReply {
            spec_version: SPEC_VERSION,
            reserved: 0,
            session: 0,
            secret: [0; 16],
            backend_version: version_text(VERSION),
        };
        let conn = self.conns.get_mut(index).ok_or_else(gone)?;
        let frontend_version = printable(&hello.frontend_version);
        let major_differs = hello.spec_version >> 16 != SPEC_VERSION >> 16;
        if major_differs || hello.queue_layout != QUEUE_LAYOUT_MASQ {
            let reason = format!("library {frontend_version} and masqd {VERSION} do not agree");
            let refused = Refused::new(Status::Version, "version", reason);
            let id = conn.endpoint.clone();
            self.world.refusals.record(&id, 0, "hello", &refused);
            return Ok(response(Status::Version, reply.as_bytes()));
        }
        let protocol = conn.protocol();
        if !protocol
            .accepted
            .is_some_and(|f| f.contains(Features::REQUIRED))
        {
            return Err(Refused::invalid("features were not agreed on"));
        }
        let memory = protocol
            .memory
            .clone()
            .ok_or(Refused::invalid("no memory was shared"))?;
        let doorbell = protocol.doorbell.clone().ok_or_else(gone)?;
        let kick = protocol
            .vring(ASYNC_EVENT_QUEUE)
            .and_then(|v| v.kick.as_ref())
            .ok_or(Refused::invalid(
                "the asynchronous-event queue is not set up",
            ))?
            .try_clone()
            .map_err(|e| Refused::new(Status::NoMemory, "host", e.to_string()))?;
        drop(protocol);
        let peer = conn.peer.take().ok_or_else(gone)?;
        let id = conn.endpoint.clone();
        let notifier = Arc::clone(&conn.notifier);
        let number = self.world.next_session();
        let label = format!("{id}#{number}");
        let remote = RemoteMemory::open(peer.pidfd.as_fd(), peer.pid, peer.uid)
            .inspect_err(|error| tracing::info!(session = label, %error, "only shared memory"))
            .ok();
        let has_remote = remote.is_some();
        let key = self.world.endpoint_key(&id);
        let gid = self.world.gids(&id).ok_or_else(gone)?.address();
        let spec = SessionSpec {
            label,
            domain: self.world.domain(&id),
            endpoint: key,
            gid,
            doorbell,
            kick: Arc::new(OwnedFd::from(kick)),
            events: Arc::new(Sink(Arc::clone(&notifier))),
            remote,
        };
        let device = self.world.device.open(spec)?;
        let session = Session::new(Opening {
            id: number,
            endpoint: id.clone(),
            peer,
            program: printable(&hello.program),
            frontend_version,
            notifier,
            memory,
            has_remote,
            device,
        })?;
        (reply.session, reply.secret) = (session.id, session.secret);
        tracing::info!(
            endpoint = %id,
            session = number,
            pid = session.peer.pid,
            program = session.program,
            "session opened"
        );
        if let Some(conn) = self.conns.get_mut(index) {
            conn.role = Role::Session(Box::new(session));
        }
        Ok(response(Status::Ok, reply.as_bytes()))
    }

    fn join(&mut self, index: usize, join: &Join) -> Result<Vec<u8>, Refused> {
        let Some(id) = self.conns.get(index).map(|conn| conn.endpoint.clone()) else {
            return Ok(Vec::new());
        };
        let same = |conn: &&Conn| {
            conn.session().is_some_and(|s| {
                s.id == join.session && s.endpoint == id && equal(&s.secret, &join.secret)
            })
        };
        let mut conns = self.conns.iter().map(|(_, conn)| conn);
        let events = conns
            .find(same)
            .map(|conn| Arc::clone(&conn.events))
            .ok_or_else(|| {
                Refused::new(Status::Denied, "interface", "no such session or secret")
            })?;
        let bases: Vec<u32> = self
            .conns
            .iter()
            .filter(|(_, conn)| Arc::ptr_eq(&conn.events, &events))
            .filter_map(|(_, conn)| match conn.role {
                Role::Joined { base } => Some(base),
                _ => None,
            })
            .collect();
        if join.base == 0 || !join.base.is_multiple_of(256) || bases.contains(&join.base) {
            return Err(Refused::invalid("base is no unused multiple of 256"));
        }
        // No more than a session with all the event queues of the quota needs.
        let most = self.world.policy.quotas(&id).event_queues / QUEUES_OF_JOINED + 1;
        if bases.len() as u64 >= most {
            let reason = format!("{most} connections of the session joined already");
            return Err(Refused::new(Status::NoMemory, "quota event_queues", reason));
        }
        let Some(conn) = self.conns.get_mut(index) else {
            return Ok(Vec::new());
        };
        // The queues that it has set up move to the session's event thread;
        // its control queue does not.
        conn.events = events;
        conn.role = Role::Joined { base: join.base };
        conn.protocol().events = (Arc::clone(&conn.events), join.base);
        for queue in conn.event_queues.clone() {
            if let Some(conn) = self.conns.get(index) {
                conn.notifier.remove_queue(u32::from(queue));
            }
            self.start_events(index, queue)
                .map_err(|reason| Refused::new(Status::Invalid, "interface", reason))?;
        }
        // A joined connection is no further session.
        self.world.ledger.refund(&id, Kind::Sessions, 1);
        Ok(response(Status::Ok, &[]))
    }

    /// Ends a connection; nothing of it is left.
    pub(super) fn close(&mut self, index: usize, reason: &'static str) {
        self.stop_control(index);
        let Some(conn) = self.conns.try_remove(index) else {
            return;
        };
        self.ready.retain(|ready| *ready != index);
        let _ = epoll::delete(&self.epoll, &conn.socket);
        let queues = conn.event_queues.len() as u64;
        self.world
            .ledger
            .refund(&conn.endpoint, Kind::EventQueues, queues);
        match conn.role {
            Role::New => {
                if let Some(peer) = &conn.peer {
                    let _ = epoll::delete(&self.epoll, &peer.pidfd);
                }
                self.world.ledger.refund(&conn.endpoint, Kind::Sessions, 1);
                tracing::debug!(endpoint = %conn.endpoint, reason, "connection closed");
                self.end_notifier(conn.notifier);
            }
            Role::Joined { base } => {
                if let Some(peer) = &conn.peer {
                    let _ = epoll::delete(&self.epoll, &peer.pidfd);
                }
                for queue in conn.event_queues {
                    conn.events.remove_queue(base + u32::from(queue));
                }
                self.end_notifier(conn.notifier);
            }
            Role::Session(session) => {
                let _ = epoll::delete(&self.epoll, &session.peer.pidfd);
                let (id, commands) = (session.id, session.commands);
                session.close(&mut self.world);
                self.world.ledger.refund(&conn.endpoint, Kind::Sessions, 1);
                tracing::info!(
                    endpoint = %conn.endpoint, session = id, commands, reason, "session closed"
                );
                let joined: Vec<usize> = self
                    .conns
                    .iter()
                    .filter(|(_, other)| Arc::ptr_eq(&other.events, &conn.events))
                    .map(|(index, _)| index)
                    .collect();
                for index in joined {
                    self.close(index, "its session was closed");
                }
                self.end_notifier(conn.notifier);
            }
        }
    }

    fn end_notifier(&mut self, notifier: Arc<Notifier>) {
        if !notifier.stop() {
            self.ending.push(notifier);
        }
    }
}

impl Conn {
    /// Takes the back channel and sends the doorbell page on it.
    fn take_back_channel(&mut self, len: usize) -> std::io::Result<()> {
        let (wants_ack, channel) = back_channel::receive(&self.socket, len)?;
        let (page, accepted) = {
            let protocol = self.protocol();
            (protocol.doorbell.clone(), protocol.accepted_protocol)
        };
        let has = |feature: VhostUserProtocolFeatures| accepted & feature.bits() != 0;
        let page = page.filter(|_| has(VhostUserProtocolFeatures::BACKEND_REQ));
        // Once: pages under way count against masqd.
        let page = page.filter(|_| !std::mem::replace(&mut self.has_back_channel, true));
        let page = page.ok_or(std::io::ErrorKind::InvalidInput)?;
        back_channel::send_page(&channel, &page)?;
        if wants_ack && has(VhostUserProtocolFeatures::REPLY_ACK) {
            back_channel::acknowledge(&self.socket)?;
        }
        Ok(())
    }

    /// The session's number of an event queue of this connection.
    fn queue_number(&self, queue: u8) -> u32 {
        let base = match self.role {
            Role::Joined { base } => base,
            _ => 0,
        };
        base + u32::from(queue)
    }
}

/// Text of a tenant, without what would command a terminal.
fn printable(text: &VersionText) -> String {
    let keep = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    version_str(text).chars().map(keep).collect()
}

/// Compares in a time that does not depend on where the first difference is.
fn equal(a: &[u8; 16], b: &[u8; 16]) -> bool {
    let differ = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differ) == 0
}

fn is_out_of_descriptors(errno: i32) -> bool {
    [nix::libc::EMFILE, nix::libc::ENFILE].contains(&errno)
}
