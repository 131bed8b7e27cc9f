//! The epoll loop.

mod admin;
mod back_channel;
mod capture;
mod connection;
mod containers;
mod directory;
mod endpoints;
mod limits;
mod opening;
mod reload;
mod restore;
mod token;
mod vbond;

use crate::container::Prepared;
use crate::devices::{DeviceId, Devices, DevicesError};
use crate::world::{DeviceIdentity, World};
use connection::Conn;
use containers::{ContainerKey, Containers};
use endpoints::Endpoints;
use masq_admin::{Answer, Request};
use masq_directory::{Directory, LocalHost};
use masq_policy::Policy;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use slab::Slab;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use token::Token;

/// How long the loop looks for further commands before it sleeps.
const POLL: Duration = Duration::from_micros(40);
/// Looks without finding anything after which others may run.
const YIELD_AFTER: u32 = 20;
/// A yield that takes longer let somebody else run, most likely the program that
/// is to send the next command: it is let run at once then.
const SHARED: Duration = Duration::from_nanos(1500);
/// Looks for events without waiting.
const NO_TIME: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};
/// Management datagrams that are taken before others have their turn.
const MOST_ARRIVALS: usize = 64;
/// How long programs have to hear that the device goes.
const FAREWELL: Duration = Duration::from_millis(250);
/// How often deadlines and closing sessions are looked at.
const TICK: Duration = Duration::from_secs(1);
/// The same while something is being waited for.
const SHORT_TICK: Duration = Duration::from_millis(2);

/// How the server is set up.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Directory for sockets; made if missing.
    pub run_dir: PathBuf,
    /// File that SIGHUP reads again.
    pub policy_file: PathBuf,
    /// Permission bits of endpoint sockets.
    pub socket_mode: u32,
    /// What programs see of the device.
    pub identity: DeviceIdentity,
    /// How long sessions may go on after a request to stop.
    pub drain: Duration,
    /// Which host this is, if there are several.
    pub host: Option<LocalHost>,
}

/// Why the server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A second masqd uses the directory.
    #[error("another masqd is using {0}\n  stop it, or choose another --run-dir")]
    InUse(PathBuf),
    /// A path cannot be used.
    #[error("{path}: {source}\n  {remedy}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The policy speaks of a device that there is not.
    #[error(transparent)]
    Devices(#[from] DevicesError),
    /// The host is out of something.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// What other threads ask of the loop.
enum Message {
    Admin(Request, Sender<Answer>),
    Reload(Option<Sender<Answer>>),
    Parsed(Box<Result<Policy, String>>, Option<Sender<Answer>>),
    Register(Box<Prepared>, Sender<Answer>),
    Addresses(u64, Vec<IpAddr>),
    Capture(
        String,
        masq_admin::CaptureView,
        Sender<Result<capture::Site, String>>,
    ),
    Shutdown,
}

/// Asks a running [`Server`] from other threads.
#[derive(Clone)]
pub struct ServerHandle {
    messages: Sender<Message>,
    wake: Arc<OwnedFd>,
}

impl ServerHandle {
    fn send(&self, message: Message) {
        let _ = self.messages.send(message);
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    /// Has the policy file read again; logged either way.
    pub fn reload(&self) {
        self.send(Message::Reload(None));
    }

    /// Lets sessions end, then ends [`Server::run`]; at once the second time.
    pub fn shutdown(&self) {
        self.send(Message::Shutdown);
    }
}

/// Is told of policies.
type Tell = Box<dyn Fn(&Policy) + Send>;

/// The control side.
pub struct Server {
    config: ServerConfig,
    world: World,
    epoll: OwnedFd,
    endpoints: Endpoints,
    containers: Containers,
    announced: directory::Announced,
    /// Told of each policy that comes into force.
    on_policy: Option<Tell>,
    conns: Slab<Conn>,
    generation: u32,
    /// Connections that may have commands waiting.
    ready: VecDeque<usize>,
    /// Connections that may have messages waiting, with their generations.
    sockets: VecDeque<(usize, u32)>,
    /// Connections whose command waits for the device.
    stalled: Vec<usize>,
    /// A descriptor to give away when there are no more.
    spare: Option<File>,
    accept_failed: Option<Instant>,
    /// Event threads of closed sessions that have not ended yet.
    ending: Vec<Arc<crate::notifier::Notifier>>,
    messages: Receiver<Message>,
    handle: ServerHandle,
    /// When to stop, once asked to.
    deadline: Option<Instant>,
    /// When to close what is open, once its programs were told.
    farewell: Option<Instant>,
    last_tick: Instant,
    last_scan: Instant,
    /// Whether the last yield let somebody else run.
    shares_core: bool,
}

impl Server {
    /// Makes the run directory, the endpoints' sockets and the operators'.
    ///
    /// # Errors
    /// [`ServerError`] names the path and the remedy, or the tenant whose device there is not.
    pub fn new(
        config: ServerConfig,
        policy: Policy,
        devices: Devices,
        directory: Box<dyn Directory>,
    ) -> Result<Self, ServerError> {
        let host = |what| move |source: io::Error| ServerError::Host { what, source };
        devices.check(&policy, config.host.as_ref())?;
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| host("epoll")(e.into()))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| host("eventfd")(e.into()))?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &wake, Token::Wake.data(), flags)
            .map_err(|e| host("epoll")(e.into()))?;
        crate::notifier::install_interrupt().map_err(host("install a signal handler"))?;
        // Now, so that what masqd holds later is its tenants'.
        let _ = crate::eventfd::signaller();
        let (sender, messages) = channel();
        let handle = ServerHandle {
            messages: sender,
            wake: Arc::new(wake),
        };
        let mut endpoints = Endpoints::open(&config.run_dir, config.socket_mode)?;
        endpoints.update(&policy, config.host.as_ref(), &epoll)?;
        if let Some(news) = directory.descriptor() {
            let flags = epoll::EventFlags::IN;
            epoll::add(&epoll, news, Token::Directory.data(), flags)
                .map_err(|e| host("epoll")(e.into()))?;
        }
        for (on, device) in devices.iter() {
            if let Some(network) = device.network() {
                let flags = epoll::EventFlags::IN;
                let token = Token::Network(on.raw()).data();
                epoll::add(&epoll, network.descriptor(), token, flags)
                    .map_err(|e| host("epoll")(e.into()))?;
            }
        }
        let containers = Containers::new(&config.run_dir, handle.clone())?;
        limits::compare(&policy, &devices, config.host.as_ref());
        limits::partitions(&policy, &devices, config.host.as_ref());
        let world = World::new(
            Arc::new(policy),
            devices,
            config.identity.clone(),
            config.host.clone(),
            directory,
        );
        world.name_strangers();
        let run_dir = config.run_dir.clone();
        let mut server = Self {
            config,
            world,
            epoll,
            endpoints,
            containers,
            announced: directory::Announced::default(),
            on_policy: None,
            conns: Slab::new(),
            generation: 0,
            ready: VecDeque::new(),
            sockets: VecDeque::new(),
            stalled: Vec::new(),
            spare: File::open("/dev/null").ok(),
            accept_failed: None,
            ending: Vec::new(),
            messages,
            handle,
            deadline: None,
            farewell: None,
            last_tick: Instant::now(),
            last_scan: Instant::now(),
            shares_core: false,
        };
        server.restore_containers();
        admin::serve(&run_dir, server.handle())?;
        Ok(server)
    }

    /// Has `tell` called with the policy in force, now and whenever it has changed. It
    /// runs in the loop.
    pub fn on_policy(&mut self, tell: impl Fn(&Policy) + Send + 'static) {
        tell(&self.world.policy);
        self.on_policy = Some(Box::new(tell));
    }

    /// A handle for other threads.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Serves until [`ServerHandle::shutdown`].
    ///
    /// # Errors
    /// [`ServerError::Host`] if the loop itself cannot go on.
    pub fn run(mut self) -> Result<(), ServerError> {
        loop {
            let timeout = self.timeout();
            if let Err(error) = self.take_events(&timeout) {
                return Err(ServerError::Host {
                    what: "epoll",
                    source: error.into(),
                });
            }
            for _ in 0..self.sockets.len() {
                if let Some((index, generation)) = self.sockets.pop_front() {
                    self.on_socket(index, generation);
                }
            }
            self.serve_ready();
            if self.world.fabric.next_timeout().is_some() {
                self.world.on_cm_time(Instant::now());
            }
            self.world.end_some_ids();
            self.world.publish_services(Instant::now());
            if self.last_tick.elapsed() >= SHORT_TICK {
                self.tick();
            }
            if self.is_over() {
                return Ok(());
            }
        }
    }

    /// Waits for events and acts on them.
    fn take_events(&mut self, timeout: &Timespec) -> rustix::io::Result<()> {
        let mut events: [epoll::Event; 64] = std::array::from_fn(|_| epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        });
        let count = match epoll::wait(&self.epoll, &mut events[..], Some(timeout)) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error),
        };
        for event in events.get(..count).unwrap_or_default() {
            if let Some(token) = Token::from_data(event.data.u64()) {
                self.on_event(token);
            }
        }
        Ok(())
    }

    fn timeout(&self) -> Timespec {
        let waits = !self.ending.is_empty() || self.deadline.is_some() || !self.stalled.is_empty();
        let busy = !self.ready.is_empty() || !self.sockets.is_empty();
        let wait = if busy || self.world.fabric.has_leaving() {
            Duration::ZERO
        } else if waits {
            SHORT_TICK
        } else {
            TICK
        };
        let now = Instant::now();
        let times = [
            self.world.fabric.next_timeout(),
            self.world.next_publication(now),
        ];
        let times = times.into_iter().flatten();
        let wait = times.fold(wait, |wait, time| {
            wait.min(time.saturating_duration_since(now))
        });
        Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        }
    }

    /// Takes what other hosts sent to a device, so much at a time that others need not wait.
    fn on_network(&mut self, on: DeviceId) {
        let Some(network) = self.world.network(on) else {
            return;
        };
        for _ in 0..MOST_ARRIVALS {
            let Some(arrival) = network.receive() else {
                return;
            };
            self.world.on_arrival(on, arrival);
        }
    }

    fn on_event(&mut self, token: Token) {
        match token {
            Token::Wake => {
                let mut counter = [0; 8];
                let _ = rustix::io::read(&*self.handle.wake, &mut counter);
                while let Ok(message) = self.messages.try_recv() {
                    self.on_message(message);
                }
            }
            Token::Directory => self.on_directory(),
            Token::Network(on) => self.on_network(DeviceId::from_raw(on)),
            Token::Listener(index) => self.accept(index),
            Token::Container(index, generation) => {
                self.accept_container(ContainerKey { index, generation });
            }
            Token::Init(index, generation) => {
                self.unregister(ContainerKey { index, generation }, "its init process ended");
            }
            Token::Socket(index, generation) => self.on_socket(index as usize, generation),
            Token::Kick(index, generation) => {
                if self
                    .conns
                    .get(index as usize)
                    .is_some_and(|c| c.generation == generation)
                {
                    self.make_ready(index as usize);
                }
            }
            Token::Exit(index, generation) => {
                if self
                    .conns
                    .get(index as usize)
                    .is_some_and(|c| c.generation == generation)
                {
                    self.close(index as usize, "the process ended");
                }
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Admin(Request::Reload, answer) => self.begin_reload(Some(answer)),
            Message::Admin(request, answer) => {
                let _ = answer.send(self.answer(&request));
            }
            Message::Reload(answer) => self.begin_reload(answer),
            Message::Parsed(parsed, answer) => self.finish_reload(*parsed, answer),
            Message::Register(prepared, answer) => {
                let result = self.register(*prepared);
                let _ = answer.send(result.map_or_else(Answer::Error, Answer::Registered));
            }
            Message::Addresses(key, addresses) => {
                self.on_addresses(ContainerKey::from_raw(key), addresses);
            }
            Message::Capture(endpoint, view, answer) => {
                let _ = answer.send(self.capture_site(&endpoint, view));
            }
            Message::Shutdown => self.begin_shutdown(),
        }
    }

    fn begin_shutdown(&mut self) {
        if self.deadline.is_some() {
            self.deadline = Some(Instant::now());
            return;
        }
        let sessions = self
            .conns
            .iter()
            .filter(|(_, c)| c.session().is_some())
            .count();
        let seconds = self.config.drain.as_secs();
        tracing::info!(
            sessions,
            seconds,
            "stopping: no new sessions, open ones may end"
        );
        self.endpoints.close(&self.epoll);
        self.deadline = Some(Instant::now() + self.config.drain);
    }

    fn is_over(&mut self) -> bool {
        let Some(deadline) = self.deadline else {
            return false;
        };
        let now = Instant::now();
        if self.conns.is_empty() {
            return true;
        }
        if now < deadline {
            return false;
        }
        // Programs are told, and given the time to hear it.
        let Some(farewell) = self.farewell else {
            for (_, conn) in &self.conns {
                if let Some(session) = conn.session() {
                    session.raise(masq_spec::event::AsyncEvent::DeviceFatal, 0);
                }
            }
            self.farewell = Some(now + FAREWELL);
            return false;
        };
        if now < farewell {
            return false;
        }
        let open: Vec<usize> = self.conns.iter().map(|(index, _)| index).collect();
        for index in open {
            self.close(index, "masqd is stopping");
        }
        true
    }

    /// What is being waited for; deadlines, less often.
    fn tick(&mut self) {
        self.last_tick = Instant::now();
        self.ending.retain(|notifier| !notifier.stop());
        for index in std::mem::take(&mut self.stalled) {
            self.make_ready(index);
        }
        if self.last_scan.elapsed() < TICK {
            return;
        }
        self.last_scan = self.last_tick;
        self.announce_later();
        let late: Vec<(usize, &'static str)> = self
            .conns
            .iter()
            .filter_map(|(index, c)| Some((index, c.overdue()?)))
            .collect();
        for (index, reason) in late {
            self.close(index, reason);
        }
    }

    fn make_ready(&mut self, index: usize) {
        if let Some(conn) = self.conns.get_mut(index)
            && !conn.queued
        {
            conn.queued = true;
            self.ready.push_back(index);
        }
    }

    /// Serves commands, round robin, and stays a little for what follows: a
    /// program that sets up a connection sends one after another.
    fn serve_ready(&mut self) {
        if self.ready.is_empty() {
            return;
        }
        let began = Instant::now();
        let mut idle_since = began;
        let mut hot: Vec<usize> = Vec::new();
        let mut empty = 0;
        loop {
            let mut served = false;
            for _ in 0..self.ready.len() {
                let Some(index) = self.ready.pop_front() else {
                    break;
                };
                served |= self.serve(index);
                if let Some(conn) = self.conns.get_mut(index)
                    && !conn.hot
                {
                    conn.hot = true;
                    hot.push(index);
                }
            }
            for index in &hot {
                if self.conns.get(*index).is_some_and(Conn::has_command) {
                    self.make_ready(*index);
                }
            }
            // Sockets and operators are not kept waiting.
            if began.elapsed() >= SHORT_TICK {
                break;
            }
            if served {
                (idle_since, empty) = (Instant::now(), 0);
                continue;
            }
            if self.ready.is_empty() && idle_since.elapsed() >= POLL {
                break;
            }
            empty += 1;
            if self.shares_core || empty % YIELD_AFTER == 0 {
                // Other connections kick: a program may have several.
                let _ = self.take_events(&NO_TIME);
                if !self.ready.is_empty() {
                    continue;
                }
                let yielded = Instant::now();
                rustix::thread::sched_yield();
                self.shares_core = yielded.elapsed() > SHARED;
            }
        }
        for index in hot {
            let waits = self.conns.get_mut(index).is_some_and(|conn| {
                conn.hot = false;
                conn.want_kicks()
            });
            if waits {
                self.make_ready(index);
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let open: Vec<usize> = self.conns.iter().map(|(index, _)| index).collect();
        for index in open {
            self.close(index, "masqd is stopping");
        }
        let until = Instant::now() + Duration::from_secs(1);
        while !self.ending.is_empty() && Instant::now() < until {
            self.ending.retain(|notifier| !notifier.stop());
            std::thread::sleep(SHORT_TICK);
        }
        self.endpoints.remove();
        let _ = std::fs::remove_file(self.config.run_dir.join(masq_admin::SOCKET_NAME));
    }
}
