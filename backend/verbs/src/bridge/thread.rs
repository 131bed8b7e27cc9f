//! The thread that owns the ids of the host's connection manager. Whoever asks it for
//! something leaves a message and goes on: the kernel may take its time.

use super::agreed::Agreed;
use super::desk::{Desk, Manager, Returned};
use crate::calls::Calls;
use crate::host::{Agreement, Parameters, Qp, Told, USER_CM, UserCm};
use crate::network::Waiting;
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use masq_cm::{Message, PortSpace};
use masq_device::{DeviceError, PublishedService, Result};
use masq_wire::PKey;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What may wait for the thread.
const MOST_WAITING: usize = 4096;
/// Messages, and events of the kernel, that are taken before others have their turn.
const MOST_AT_ONCE: usize = 256;

/// For a plain host, of a partition.
type Said = (IpAddr, PKey, Message);

/// What the policy says, until the thread has heard it: the last word counts, and none is
/// lost, whatever messages wait.
#[derive(Default)]
struct Settings {
    hosts: Option<Vec<IpAddr>>,
    services: Option<Vec<PublishedService>>,
}

/// What came of messages with plain hosts that went nowhere.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Of agents: too many conversations, or not for an IP service.
    pub(crate) not_asked: AtomicU64,
    /// Of hosts that no tenant with the service knows.
    pub(crate) unknown_host: AtomicU64,
    /// Of hosts with too many requests that wait, or too many in sum.
    pub(crate) too_many: AtomicU64,
}

/// Leaves messages for the thread; it ends with this.
pub(crate) struct Bridge {
    queue: Option<Sender<Said>>,
    settings: Arc<Mutex<Settings>>,
    wake: Arc<OwnedFd>,
    counters: Arc<Counters>,
}

impl Bridge {
    /// Starts the thread. The kernel's device is opened when it is first needed.
    pub(crate) fn start(
        host: IpAddr,
        agreed: Arc<Agreed>,
        waiting: Arc<Waiting>,
    ) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags)?);
        let (queue, commands) = bounded(MOST_WAITING);
        let counters = Arc::<Counters>::default();
        let manager = HostCm::new(Arc::clone(&wake));
        let desk = Desk::new(manager, host, agreed, Arc::clone(&counters));
        let settings = Arc::<Mutex<Settings>>::default();
        let (woken, heard) = (Arc::clone(&wake), Arc::clone(&settings));
        std::thread::Builder::new()
            .name("masq-rdma-cm".into())
            .stack_size(512 << 10)
            .spawn(move || serve(desk, &commands, &heard, &woken, &waiting))?;
        Ok(Self {
            queue: Some(queue),
            settings,
            wake,
            counters,
        })
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Says something to a plain host.
    pub(crate) fn say(&self, host: IpAddr, partition: PKey, message: Message) -> Result<()> {
        let queue = self.queue.as_ref().ok_or(DeviceError::Gone)?;
        match queue.try_send((host, partition, message)) {
            Ok(()) => {
                ring(&self.wake);
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(DeviceError::Exhausted("room for messages")),
            Err(TrySendError::Disconnected(_)) => Err(DeviceError::Gone),
        }
    }

    /// Talks with these hosts only.
    pub(crate) fn set_hosts(&self, hosts: Vec<IpAddr>) {
        lock(&self.settings).hosts = Some(hosts);
        ring(&self.wake);
    }

    /// Has the host listen for these services.
    pub(crate) fn set_services(&self, services: Vec<PublishedService>) {
        lock(&self.settings).services = Some(services);
        ring(&self.wake);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Without a sender the thread ends. Not waited for: the kernel ends the ids with
        // the process at the latest.
        self.queue = None;
        ring(&self.wake);
    }
}

fn lock(settings: &Mutex<Settings>) -> MutexGuard<'_, Settings> {
    settings.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ring(wake: &OwnedFd) {
    // Full means that it is rung already.
    let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
}

fn serve(
    mut desk: Desk<HostCm>,
    messages: &Receiver<Said>,
    settings: &Mutex<Settings>,
    wake: &OwnedFd,
    waiting: &Waiting,
) {
    loop {
        if let Err(error) = sleep(&desk, wake) {
            tracing::error!(%error, "plain hosts: poll");
            return;
        }
        let _ = rustix::io::read(wake, &mut [0; 8]);
        let Settings { hosts, services } = std::mem::take(&mut *lock(settings));
        if let Some(hosts) = hosts {
            desk.set_hosts(&hosts);
        }
        if let Some(services) = services {
            desk.set_services(Instant::now(), services);
        }
        for _ in 0..MOST_AT_ONCE {
            match messages.try_recv() {
                Ok((host, partition, message)) => {
                    desk.say(Instant::now(), host, partition, message);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        if !messages.is_empty() {
            ring(wake);
        }
        for _ in 0..MOST_AT_ONCE {
            match desk.manager.next() {
                Ok(Some(told)) => desk.on_event(Instant::now(), told),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the host's connection manager is gone");
                    desk.manager.close();
                    desk.forget_all(Instant::now());
                    break;
                }
            }
        }
        desk.on_time(Instant::now());
        while let Some((id, what)) = desk.manager.returned() {
            desk.returned(id, what);
        }
        while let Some(arrival) = desk.heard() {
            waiting.insist(arrival);
        }
    }
}

fn sleep(desk: &Desk<HostCm>, wake: &OwnedFd) -> io::Result<()> {
    let timeout = desk.next_time().map(|time| {
        // A little later, so that what is due is due then.
        let left = time.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        }
    });
    let mut fds = vec![PollFd::new(wake, PollFlags::IN)];
    if let Some(channel) = &desk.manager.channel {
        fds.push(PollFd::new(channel.as_ref(), PollFlags::IN));
    }
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The kernel's connection manager, opened when it is first needed.
pub(super) struct HostCm {
    channel: Option<Arc<UserCm>>,
    calls: Calls<(u32, Returned)>,
    /// Calls that no thread could be had for.
    at_once: Vec<(u32, Returned)>,
    wake: Arc<OwnedFd>,
    /// Whether it was said that it cannot be.
    complained: bool,
}

impl HostCm {
    /// `wake`: rung when a call has returned.
    fn new(wake: Arc<OwnedFd>) -> Self {
        Self {
            channel: None,
            calls: Calls::new(Arc::clone(&wake)),
            at_once: Vec::new(),
            wake,
            complained: false,
        }
    }

    fn opened(&mut self) -> io::Result<&Arc<UserCm>> {
        if self.channel.is_none() {
            match UserCm::open() {
                Ok(channel) => self.channel = Some(Arc::new(channel)),
                Err(error) => {
                    if !std::mem::replace(&mut self.complained, true) {
                        tracing::warn!(
                            %error,
                            "{USER_CM} does not open: plain hosts and tenants cannot connect by \
                             rdma_cm; load the module rdma_ucm, and let masqd read and write it"
                        );
                    }
                    return Err(error);
                }
            }
        }
        self.known()
    }

    fn known(&self) -> io::Result<&Arc<UserCm>> {
        let channel = self.channel.as_ref();
        channel.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    fn next(&self) -> io::Result<Option<Told>> {
        let channel = self.channel.as_ref();
        channel.map_or(Ok(None), |channel| channel.next())
    }

    fn returned(&mut self) -> Option<(u32, Returned)> {
        self.at_once.pop().or_else(|| self.calls.returned())
    }

    /// What is under way keeps the channel until it has returned, to nobody.
    fn close(&mut self) {
        self.channel = None;
        self.at_once.clear();
        self.calls = Calls::new(Arc::clone(&self.wake));
    }
}

impl Manager for HostCm {
    fn create(&mut self, space: PortSpace, port: u16) -> io::Result<u32> {
        self.opened()?.create(space, port)
    }
    fn destroy(&mut self, id: u32) {
        if let Ok(channel) = self.known()
            && let Err(error) = channel.destroy(id)
        {
            tracing::debug!(%error, id, "an id of the host's connection manager does not end");
        }
    }
    fn bind(&mut self, id: u32, address: SocketAddr) -> io::Result<()> {
        self.known()?.bind(id, address)
    }
    fn listen(&mut self, id: u32, backlog: u32) -> io::Result<()> {
        self.known()?.listen(id, backlog)
    }
    fn resolve_address(&mut self, id: u32, from: IpAddr, to: SocketAddr) -> io::Result<()> {
        self.known()?.resolve_address(id, from, to)
    }
    fn resolve_route(&mut self, id: u32) -> io::Result<()> {
        self.known()?.resolve_route(id)
    }
    fn connect(&mut self, id: u32, parameters: Parameters, pair: Option<Arc<Qp>>) {
        let begun = self.known().cloned().and_then(|channel| {
            let call = move || {
                let result = channel.connect(id, &parameters);
                // Its release would have waited for the call.
                drop(pair);
                (id, Returned::Connected(result))
            };
            self.calls.start(call)
        });
        if let Err(error) = begun {
            self.at_once.push((id, Returned::Connected(Err(error))));
        }
    }
    fn end(&mut self, id: u32) {
        let begun = self.known().cloned().and_then(|channel| {
            self.calls.start(move || {
                // Gone already, if there is an error.
                let _ = channel.destroy(id);
                (id, Returned::Ended)
            })
        });
        if begun.is_err() {
            self.destroy(id);
            self.at_once.push((id, Returned::Ended));
        }
    }
    fn accept(&mut self, id: u32, parameters: Option<&Parameters>) -> io::Result<()> {
        self.known()?.accept(id, parameters)
    }
    fn reject(&mut self, id: u32, private: &[u8]) -> io::Result<()> {
        self.known()?.reject(id, private)
    }
    fn disconnect(&mut self, id: u32) -> io::Result<()> {
        self.known()?.disconnect(id)
    }
    fn peer(&mut self, id: u32) -> io::Result<SocketAddr> {
        self.known()?.peer(id)
    }
    fn agreement(&mut self, id: u32) -> io::Result<Agreement> {
        self.known()?.agreement(id)
    }
}
