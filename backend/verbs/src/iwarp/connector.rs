//! The thread that has the kernel connect queue pairs. It alone has the ids; calls
//! that wait for another host are made on threads of their own.

use super::table::{Action, Depths, End, MOST_CONNECTING, Own, Stage, Stranger, Table};
use super::words::{Hello, MAGIC};
use crate::CardError;
use crate::calls::Calls;
use crate::card::Card;
use crate::host::{CmId, Parameters, Qp, Ticket, Told, UserCm};
use crate::network::MANAGEMENT_PORT;
use crate::relay::Relay;
use masq_cm::Event;
use masq_datapath::DataPath;
use masq_verbs_abi::{IBV_QP_STATE, IBV_QPS_ERR, ibv_qp_attr};
use rustc_hash::FxHashMap;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Requests that the kernel holds for this thread.
const BACKLOG: u32 = 128;
/// Hellos that wait for this thread; more are dropped, and said again.
const MOST_HELLOS: usize = 1024;
/// Events of the kernel that are taken before others have their turn.
const MOST_EVENTS: usize = 256;

/// A queue pair that is to be connected.
pub(crate) struct Member {
    pub(crate) qp: Arc<Qp>,
    /// Names it to its data path, which has this number.
    pub(crate) ticket: Ticket,
    pub(crate) path: usize,
}

/// A call to connect that has returned.
struct Called {
    id: CmId,
    /// Kept until the id is gone: the kernel would make its release wait.
    qp: Arc<Qp>,
    result: io::Result<()>,
}

struct State {
    table: Table<Member>,
    hellos: VecDeque<(IpAddr, Hello)>,
    /// Queue pairs whose ids are to be released.
    left: Vec<(Ticket, Option<Arc<Qp>>)>,
    /// The card was taken away, or the thread has ended.
    is_over: bool,
}

struct Shared {
    state: Mutex<State>,
    wake: Arc<OwnedFd>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// The control side's end of the thread, which ends when this is dropped.
pub(crate) struct Connector {
    shared: Arc<Shared>,
    host: IpAddr,
    thread: Option<JoinHandle<()>>,
}

impl Connector {
    /// Starts the thread. `socket`: for hellos to other hosts; `gone`: readable when the
    /// card is gone.
    pub(crate) fn start(
        channel: Arc<UserCm>,
        card: &Card,
        host: IpAddr,
        paths: Vec<Arc<DataPath<Relay>>>,
        (socket, gone): (Option<UdpSocket>, Arc<OwnedFd>),
    ) -> Result<Self, CardError> {
        let fails = |what| move |source| CardError::Host { what, source };
        let listening = "listen for other masqds (TCP port 4790 of this host's address)";
        let listener = CmId::new(&channel, MANAGEMENT_PORT).map_err(fails(listening))?;
        listener.set_reuse_address().map_err(fails(listening))?;
        listener
            .bind(SocketAddr::new(host, MANAGEMENT_PORT))
            .map_err(fails(listening))?;
        listener.listen(BACKLOG).map_err(fails(listening))?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = eventfd(0, flags).map_err(|e| fails("make a descriptor")(e.into()))?;
        let wake = Arc::new(wake);
        let calls = Calls::new(Arc::clone(&wake));
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                table: Table::new(host),
                hellos: VecDeque::new(),
                left: Vec::new(),
                is_over: false,
            }),
            wake,
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            ids: FxHashMap::default(),
            by_member: FxHashMap::default(),
            listener,
            channel,
            card: card.name.clone(),
            node_guid: card.node_guid,
            host,
            most_reads: card.attributes.max_qp_rd_atom.min(127) as u8,
            paths,
            socket,
            gone,
            calls,
        };
        let thread = std::thread::Builder::new()
            .name("masq-connect".into())
            .spawn(move || worker.run())
            .map_err(fails("start a thread"))?;
        Ok(Self {
            shared,
            host,
            thread: Some(thread),
        })
    }

    /// The address that the card connects from.
    pub(crate) fn host(&self) -> IpAddr {
        self.host
    }

    /// Has a queue pair connected; it is in RTR.
    pub(crate) fn join(&self, own: Own, member: Member, peer: End, depths: Depths) {
        let mut state = self.shared.lock();
        if !state.is_over {
            state.table.join(own, peer, depths, member, Instant::now());
            self.shared.wake();
        }
    }

    /// A queue pair may ask for so many READs at a time.
    pub(crate) fn set_asked(&self, qpn: u32, asked: u8) {
        self.shared.lock().table.set_asked(qpn, asked);
    }

    /// Whether the card's queue pair is connected.
    pub(crate) fn is_connected(&self, qpn: u32) -> bool {
        let stage = self.shared.lock().table.stage(qpn);
        matches!(stage, Some(Stage::Met | Stage::Connected))
    }

    /// Forgets a queue pair, if nothing has been done to the card's yet.
    pub(crate) fn leave_unused(&self, qpn: u32) -> bool {
        let mut state = self.shared.lock();
        let is_unused = state.table.stage(qpn) == Some(Stage::Waiting);
        if is_unused {
            state.table.leave(qpn);
        }
        is_unused
    }

    /// Forgets a queue pair that is about to go, or is in ERROR.
    pub(crate) fn leave(&self, qpn: u32) {
        let mut state = self.shared.lock();
        let Some((stage, member)) = state.table.leave(qpn) else {
            return;
        };
        let kept = match stage {
            Stage::Waiting => return,
            // Nobody but its owner has it: it goes when the owner lets go of it.
            Stage::Connected => None,
            // The kernel may still connect it; of its receives it must take none.
            Stage::Connecting | Stage::Accepted | Stage::Met => Some(member.qp),
        };
        if let Some(qp) = &kept {
            let attr = ibv_qp_attr {
                qp_state: IBV_QPS_ERR,
                ..ibv_qp_attr::default()
            };
            if let Err(error) = qp.modify(attr, IBV_QP_STATE) {
                tracing::debug!(qpn, %error, "the card does not move it to ERROR");
            }
        }
        state.left.push((member.ticket, kept));
        self.shared.wake();
    }

    /// Takes a datagram that may be a hello; whether it was.
    pub(crate) fn takes(&self, from: IpAddr, datagram: &[u8]) -> bool {
        if !datagram.starts_with(&MAGIC) {
            return false;
        }
        let Some(hello) = Hello::decode(datagram) else {
            return false;
        };
        if from == self.host {
            // Queue pairs of one host hear of each other without datagrams.
            return false;
        }
        let mut state = self.shared.lock();
        if state.hellos.len() < MOST_HELLOS {
            state.hellos.push_back((from, hello));
            self.shared.wake();
        }
        true
    }

    /// Hellos that no queue pair expected.
    pub(crate) fn unexpected(&self) -> u64 {
        self.shared.lock().table.unexpected
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An id of a queue pair. None while a thread of its own calls with it.
struct Live {
    member: Ticket,
    qpn: u32,
    id: Option<CmId>,
}

struct Worker {
    shared: Arc<Shared>,
    /// By the ids' numbers, and these by their queue pairs.
    ids: FxHashMap<u32, Live>,
    by_member: FxHashMap<Ticket, u32>,
    listener: CmId,
    channel: Arc<UserCm>,
    card: String,
    node_guid: u64,
    host: IpAddr,
    most_reads: u8,
    paths: Vec<Arc<DataPath<Relay>>>,
    socket: Option<UdpSocket>,
    gone: Arc<OwnedFd>,
    /// To connect, and to end what was not answered; of queue pairs that have left too.
    calls: Calls<Option<Called>>,
}

impl Worker {
    fn run(mut self) {
        loop {
            self.sleep();
            let mut state = self.shared.lock();
            if state.is_over {
                break;
            }
            let left = std::mem::take(&mut state.left);
            let (now, hellos) = (Instant::now(), std::mem::take(&mut state.hellos));
            for (from, hello) in hellos {
                state.table.heard(from, hello, now);
            }
            state.table.tick(now);
            drop(state);
            for (member, qp) in left {
                self.end_id(member, qp);
            }
            while let Some(called) = self.calls.returned() {
                if let Some(called) = called {
                    self.called(called);
                }
            }
            let is_gone = rustix::io::read(&self.gone, &mut [0; 8]).is_ok();
            let events = match is_gone {
                true => Err("the card is gone"),
                false => self.take_events(),
            };
            if let Err(why) = events {
                self.end(why);
                return;
            }
            self.act();
        }
        self.shared.lock().table.leave_all();
    }

    /// Until there is something to do.
    fn sleep(&self) {
        let state = self.shared.lock();
        let next = state.table.next();
        if !state.table.actions.is_empty() || state.is_over {
            return;
        }
        drop(state);
        let timeout = next.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut fds = [
            PollFd::new(&self.shared.wake, PollFlags::IN),
            PollFd::from_borrowed_fd(self.channel.as_fd(), PollFlags::IN),
            PollFd::new(&self.gone, PollFlags::IN),
        ];
        let _ = poll(&mut fds, timeout.as_ref());
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
    }

    /// Forgets the id of a queue pair; one that a thread calls with when it returns.
    fn release(&mut self, member: Ticket) {
        if let Some(id) = self.by_member.remove(&member) {
            self.ids.remove(&id);
        }
    }

    /// As [`Self::release`], of one that is not connected yet: the kernel may wait for the
    /// peer's answer, and so do the id and its queue pair.
    fn end_id(&mut self, member: Ticket, qp: Option<Arc<Qp>>) {
        let id = self.by_member.remove(&member);
        let live = id.and_then(|id| self.ids.remove(&id));
        let Some((Some(id), qp)) = live.map(|live| live.id).zip(qp) else {
            return;
        };
        let end = move || {
            drop(id);
            drop(qp);
            None
        };
        if let Err(error) = self.calls.start(end) {
            // They have ended here.
            tracing::debug!(%error, "an id of the kernel was waited for");
        }
    }

    /// What the table wants, until it wants nothing.
    fn act(&mut self) {
        loop {
            let action = self.shared.lock().table.actions.pop_front();
            match action {
                None => return,
                Some(Action::Say(to, hello)) => self.say(to, hello),
                Some(Action::Connect(qpn)) => {
                    if let Err(error) = self.resolve(qpn) {
                        tracing::debug!(qpn, %error, "no way to the peer");
                        self.try_again(qpn);
                    }
                }
                Some(Action::Tell(qpn)) => {
                    let place = self.shared.lock().table.peers_place(qpn);
                    if let Some((ticket, path)) = self.member(qpn) {
                        let _ = path.call(move |relay| relay.connected(ticket, place));
                    }
                }
                Some(Action::Fail(qpn, cause)) => {
                    let left = self.shared.lock().table.leave(qpn);
                    if let Some((_, member)) = left {
                        tracing::debug!(qpn, cause, "not connected");
                        self.lost(&member, cause);
                        self.release(member.ticket);
                    }
                }
            }
        }
    }

    fn member(&self, qpn: u32) -> Option<(Ticket, Arc<DataPath<Relay>>)> {
        let state = self.shared.lock();
        let member = state.table.payload(qpn)?;
        Some((member.ticket, Arc::clone(self.paths.get(member.path)?)))
    }

    fn lost(&self, member: &Member, cause: &'static str) {
        let ticket = member.ticket;
        if let Some(path) = self.paths.get(member.path) {
            let _ = path.call(move |relay| relay.disconnected(ticket, cause));
        }
    }

    fn say(&self, to: IpAddr, hello: Hello) {
        if to == self.host {
            let now = Instant::now();
            self.shared.lock().table.heard(to, hello, now);
        } else if let Some(socket) = &self.socket {
            // If it is lost it is said again.
            let _ = socket.send_to(&hello.encode(), SocketAddr::new(to, MANAGEMENT_PORT));
        }
    }

    fn try_again(&mut self, qpn: u32) {
        let mut state = self.shared.lock();
        state.table.try_again(qpn, Instant::now());
        let member = state.table.payload(qpn).map(|member| member.ticket);
        drop(state);
        if let Some(member) = member {
            self.release(member);
        }
    }

    /// First step of the active side.
    fn resolve(&mut self, qpn: u32) -> io::Result<()> {
        let state = self.shared.lock();
        let member = state.table.payload(qpn).map(|member| member.ticket);
        let Some((member, (peer, _))) = member.zip(state.table.peer(qpn)) else {
            return Ok(());
        };
        drop(state);
        let id = CmId::new(&self.channel, 0)?;
        let to = SocketAddr::new(peer.host, MANAGEMENT_PORT);
        id.resolve_address(self.host, to)?;
        self.keep(qpn, member, id);
        Ok(())
    }

    fn keep(&mut self, qpn: u32, member: Ticket, id: CmId) {
        let number = id.number();
        self.by_member.insert(member, number);
        let id = Some(id);
        self.ids.insert(number, Live { member, qpn, id });
    }

    /// Last step: the call may wait for the other host.
    fn connect(&mut self, number: u32) -> Result<(), &'static str> {
        let Some(live) = self.ids.get_mut(&number) else {
            return Ok(());
        };
        let state = self.shared.lock();
        let member = state.table.payload(live.qpn);
        let qp = member.map(|member| Arc::clone(&member.qp));
        let request = state.table.request(live.qpn);
        let known = qp.zip(request).zip(state.table.peer(live.qpn));
        let Some(((qp, request), (_, depths))) = known else {
            return Ok(());
        };
        drop(state);
        if self.calls.under_way() >= MOST_CONNECTING {
            let qpn = live.qpn;
            self.try_again(qpn);
            return Ok(());
        }
        let param = param(live.qpn, depths, self.most_reads, &request.encode());
        let Some(id) = live.id.take() else {
            return Ok(());
        };
        let call = move || {
            let result = id.connect(&param);
            Some(Called { id, qp, result })
        };
        let started = self.calls.start(call);
        started.map_err(|_| "this host is out of threads")
    }

    fn called(&mut self, called: Called) {
        let Called { id, qp, result } = called;
        let Some(live) = self.ids.get_mut(&id.number()) else {
            // Its queue pair has left; both go, the id first.
            let _ = self.calls.start(move || {
                drop(id);
                drop(qp);
                None
            });
            return;
        };
        let qpn = live.qpn;
        match result {
            Ok(()) => live.id = Some(id),
            Err(error) => {
                tracing::debug!(qpn, %error, "the peer's masqd cannot be reached");
                drop(id);
                self.try_again(qpn);
            }
        }
    }

    /// What the kernel says, so much that others have their turn; why this is the last of
    /// it.
    fn take_events(&mut self) -> Result<(), &'static str> {
        for _ in 0..MOST_EVENTS {
            match self.channel.next() {
                Ok(Some(told)) => self.take_event(&told)?,
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the kernel's connection manager");
                    return Err("the kernel's connection manager has failed");
                }
            }
        }
        Ok(())
    }

    fn take_event(&mut self, told: &Told) -> Result<(), &'static str> {
        match told.event {
            Event::DeviceRemoval => return Err("the card is gone"),
            Event::ConnectRequest => {
                let id = CmId::adopt(&self.channel, told.id);
                self.requested(id, &told.parameters.private);
                return Ok(());
            }
            _ => {}
        }
        let Some(live) = self.ids.get(&told.id) else {
            return Ok(());
        };
        let qpn = live.qpn;
        let state = self.shared.lock();
        let member = state.table.payload(qpn).map(|member| member.ticket);
        drop(state);
        if member != Some(live.member) {
            // Of one that has just left.
            return Ok(());
        }
        let fail = |cause| self.shared.lock().table.fail(qpn, cause);
        match told.event {
            Event::AddressResolved => {
                let id = live.id.as_ref();
                let card = id.and_then(|id| id.card().ok());
                let next = id.map(CmId::resolve_route);
                if card != Some(self.node_guid) {
                    fail("the way to the peer's host is not through the card");
                } else if !matches!(next, Some(Ok(()))) {
                    self.try_again(qpn);
                }
            }
            Event::RouteResolved => {
                if let Err(cause) = self.connect(told.id) {
                    self.shared.lock().table.fail(qpn, cause);
                }
            }
            Event::AddressError | Event::RouteError => self.try_again(qpn),
            Event::Established => {
                let now = Instant::now();
                self.shared.lock().table.established(qpn, now);
            }
            Event::Disconnected => fail("the peer ended the connection"),
            Event::Rejected => fail("the peer's masqd expects no connection of this queue pair"),
            Event::ConnectError | Event::Unreachable => {
                tracing::debug!(qpn, told.status, "the connection is not made");
                fail("the connection to the peer could not be made");
            }
            _ => {}
        }
        Ok(())
    }

    /// Another masqd asks, or somebody who says so.
    fn requested(&mut self, id: CmId, private: &[u8]) {
        let from = id.peer().ok().map(|peer| peer.ip().to_canonical());
        let mut state = self.shared.lock();
        let now = Instant::now();
        let answer = from.ok_or(Stranger::Malformed);
        let answer = answer.and_then(|from| state.table.requested(from, private, now));
        let accepted = answer.and_then(|(qpn, depths)| {
            let member = state.table.payload(qpn).ok_or(Stranger::Unexpected)?;
            Ok((qpn, depths, member.ticket))
        });
        drop(state);
        let (qpn, depths, member) = match accepted {
            Ok(accepted) => accepted,
            Err(why) => {
                // Counted: a stranger must not fill the log.
                tracing::debug!(?from, ?why, rule = "isolation", "a connection is refused");
                let _ = id.reject();
                return;
            }
        };
        match id.accept(&param(qpn, depths, self.most_reads, &[])) {
            Ok(()) => self.keep(qpn, member, id),
            Err(error) => {
                tracing::debug!(qpn, %error, "the card does not accept the connection");
                let cause = "the card did not accept the connection";
                self.shared.lock().table.fail(qpn, cause);
            }
        }
    }

    /// Nothing will be connected any more.
    fn end(self, why: &'static str) {
        let mut state = self.shared.lock();
        state.is_over = true;
        let members = state.table.leave_all();
        let left = std::mem::take(&mut state.left);
        drop(state);
        tracing::warn!(card = self.card, why, "queue pairs are connected no more");
        for (_, member) in &members {
            self.lost(member, why);
        }
        // What returns later is dropped where it does.
        drop((self.ids, self.listener, self.calls));
        drop((members, left));
    }
}

fn param(qpn: u32, depths: Depths, most: u8, private: &[u8]) -> Parameters {
    Parameters {
        private: private.to_vec(),
        responder_resources: depths.served.min(most),
        initiator_depth: depths.asked.min(most),
        qpn,
        ..Parameters::default()
    }
}
