//! Connections: handshake, control ring, end.

use super::containers::ContainerKey;
use super::{Server, Token, back_channel};
use crate::identity::Peer;
use crate::ledger::Kind;
use crate::notifier::{EventQueue, Notifier};
use crate::protocol::{Change, Protocol};
use crate::session::{Outcome, Session, response};
use crate::vring::{Chain, RingError, Vring};
use crate::wire::{self, Waiting};
use masq_memory::DoorbellPage;
use masq_policy::EndpointId;
use masq_spec::command::Status;
use masq_spec::device::CONTROL_QUEUE;
use rustix::event::epoll;
use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use vhost::vhost_user::{BackendReqHandler, VhostUserProtocolFeatures};

/// How long a handshake, or a message that has begun, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// vhost-user messages of one connection in one turn.
const MESSAGES_PER_TURN: u32 = 64;
/// Commands of one connection in one turn.
const COMMANDS_PER_TURN: u32 = 16;

/// The control queue of a connection.
struct Control {
    vring: Vring,
    kick: File,
    /// A command that the device could not finish yet.
    stalled: Option<Chain>,
}

/// What a connection is for.
pub(super) enum Role {
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
    pub(super) endpoint: EndpointId,
    /// The container through whose socket it came.
    pub(super) container: Option<ContainerKey>,
    socket: UnixStream,
    handler: BackendReqHandler<Mutex<Protocol>>,
    protocol: Arc<Mutex<Protocol>>,
    pub(super) peer: Option<Peer>,
    /// Signals its control queue, and delivers the events of its session.
    pub(super) notifier: Arc<Notifier>,
    /// Delivers the events of its queues: of the session that it joined, or
    /// its own.
    pub(super) events: Arc<Notifier>,
    control: Option<Control>,
    pub(super) role: Role,
    /// Event queues that were charged, by index.
    pub(super) event_queues: Vec<u8>,
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

    pub(super) fn protocol(&self) -> std::sync::MutexGuard<'_, Protocol> {
        self.protocol.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection that waits at `listener`, if there is one.
pub(super) fn take(
    listener: &UnixListener,
    id: &EndpointId,
    spare: &mut Option<File>,
    last_failure: &mut Option<Instant>,
) -> Option<UnixStream> {
    // One each turn: other work goes on between two of a flood.
    let error = match listener.accept() {
        Ok((socket, _)) => return Some(socket),
        Err(error) => error,
    };
    if error.raw_os_error().is_some_and(is_out_of_descriptors) {
        // Whoever waits hears that it waits in vain.
        *spare = None;
        drop(listener.accept());
        *spare = File::open("/dev/null").ok();
    }
    let quiet = |since: Instant| since.elapsed() < Duration::from_secs(1);
    if error.kind() != std::io::ErrorKind::WouldBlock && !last_failure.is_some_and(quiet) {
        *last_failure = Some(Instant::now());
        tracing::error!(endpoint = %id, %error, "connections are not accepted");
    }
    None
}

impl Server {
    pub(super) fn accept(&mut self, number: u32) {
        let Some((id, listener)) = self.endpoints.get(number) else {
            return;
        };
        let id = id.clone();
        if let Some(socket) = take(listener, &id, &mut self.spare, &mut self.accept_failed) {
            self.admit(&id, socket, None);
        }
    }

    /// Begins a connection of an endpoint.
    pub(super) fn admit(
        &mut self,
        id: &EndpointId,
        socket: UnixStream,
        container: Option<ContainerKey>,
    ) {
        if let Err(refused) = self.world.charge(id, Kind::Sessions, 1) {
            self.world.refusals.record(id, 0, "connect", &refused);
            return;
        }
        match self.new_conn(id, socket, container) {
            Ok(index) => {
                self.announce(id);
                self.on_socket(index, self.generation);
            }
            Err(error) => {
                self.world.ledger.refund(id, Kind::Sessions, 1);
                tracing::error!(endpoint = %id, %error, "a connection was not set up");
            }
        }
    }

    pub(super) fn new_conn(
        &mut self,
        id: &EndpointId,
        socket: UnixStream,
        container: Option<ContainerKey>,
    ) -> std::io::Result<usize> {
        socket.set_nonblocking(true)?;
        let peer = Peer::of(&socket)?;
        let notifier = Notifier::new(id.to_string());
        let (config, features) = (self.world.config(id), self.world.carrier(id).features());
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
            container,
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
        // A descriptor of its own: the frontend may give another meanwhile.
        let kick = config.kick.file().ok_or("no descriptor")?;
        let kick = kick.try_clone().map_err(|e| e.to_string())?;
        let call = config.call.clone().ok_or("no descriptor")?;
        drop(protocol);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let token = Token::Kick(index as u32, generation).data();
        epoll::add(&self.epoll, &kick, token, flags).map_err(|e| e.to_string())?;
        conn.notifier.set_control_call(Some(call));
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

    pub(super) fn start_events(&mut self, index: usize, queue: u8) -> Result<(), String> {
        let Some(conn) = self.conns.get(index) else {
            return Ok(());
        };
        let protocol = conn.protocol();
        let memory = protocol.memory.clone().ok_or("no memory was shared")?;
        let config = protocol.vring(queue).ok_or("no such queue")?;
        let call = config.call.clone().ok_or("no descriptor")?;
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
        let endpoint = conn.endpoint.clone();
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
        self.announce(&endpoint);
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

fn is_out_of_descriptors(errno: i32) -> bool {
    [nix::libc::EMFILE, nix::libc::ENFILE].contains(&errno)
}
