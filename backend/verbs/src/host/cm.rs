//! The host's connection manager, librdmacm: event channels and ids. Queue pairs are
//! named by number and stay with their owner; librdmacm changes none of them.
#![allow(unsafe_code)] // calls of the host's librdmacm

use super::library::{CmLibrary, Library};
use super::sockaddr::{from_c, to_c};
use super::{Ticket, check, made};
use crate::CardError;
use masq_verbs_abi::*;
use std::ffi::CStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Private data of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Private {
    len: u8,
    bytes: [u8; u8::MAX as usize],
}

impl Private {
    /// `None`: too long.
    pub(crate) fn new(data: &[u8]) -> Option<Self> {
        let mut bytes = [0; u8::MAX as usize];
        bytes.get_mut(..data.len())?.copy_from_slice(data);
        let len = data.len() as u8;
        Some(Self { len, bytes })
    }

    /// What came; a transport may pad it with zeros.
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }

    /// # Safety
    /// `data` is null, or has `len` bytes.
    unsafe fn copied(data: *const libc::c_void, len: u8) -> Self {
        let mut private = Self::default();
        if !data.is_null() {
            private.len = len;
            // SAFETY: by contract, and a u8 does not exceed the array.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    data.cast(),
                    private.bytes.as_mut_ptr(),
                    usize::from(len),
                );
            }
        }
        private
    }
}

impl Default for Private {
    fn default() -> Self {
        Self {
            len: 0,
            bytes: [0; u8::MAX as usize],
        }
    }
}

impl std::fmt::Debug for Private {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// One side of a connection, as REQ and REP (MPA request and reply) carry it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnParam {
    pub(crate) private: Private,
    /// READs and atomics that this side serves at a time.
    pub(crate) responder_resources: u8,
    /// Those that it has outstanding.
    pub(crate) initiator_depth: u8,
    pub(crate) flow_control: bool,
    /// Not used when accepting.
    pub(crate) retry_count: u8,
    pub(crate) rnr_retry_count: u8,
    pub(crate) srq: bool,
    /// Number of the queue pair; of one that librdmacm does not know.
    pub(crate) qpn: u32,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CmKind {
    AddrResolved,
    AddrError,
    RouteResolved,
    RouteError,
    ConnectRequest,
    /// The peer accepts: the owner of the queue pair moves it to RTS, then calls
    /// [`CmId::establish`]. Not over iWARP.
    ConnectResponse,
    ConnectError,
    Unreachable,
    Rejected,
    Established,
    Disconnected,
    DeviceRemoval,
    AddrChange,
    TimewaitExit,
    /// Of a kind that is not known here.
    Other(c_enum),
}

impl CmKind {
    fn from_raw(raw: c_enum) -> Self {
        match raw {
            RDMA_CM_EVENT_ADDR_RESOLVED => Self::AddrResolved,
            RDMA_CM_EVENT_ADDR_ERROR => Self::AddrError,
            RDMA_CM_EVENT_ROUTE_RESOLVED => Self::RouteResolved,
            RDMA_CM_EVENT_ROUTE_ERROR => Self::RouteError,
            RDMA_CM_EVENT_CONNECT_REQUEST => Self::ConnectRequest,
            RDMA_CM_EVENT_CONNECT_RESPONSE => Self::ConnectResponse,
            RDMA_CM_EVENT_CONNECT_ERROR => Self::ConnectError,
            RDMA_CM_EVENT_UNREACHABLE => Self::Unreachable,
            RDMA_CM_EVENT_REJECTED => Self::Rejected,
            RDMA_CM_EVENT_ESTABLISHED => Self::Established,
            RDMA_CM_EVENT_DISCONNECTED => Self::Disconnected,
            RDMA_CM_EVENT_DEVICE_REMOVAL => Self::DeviceRemoval,
            RDMA_CM_EVENT_ADDR_CHANGE => Self::AddrChange,
            RDMA_CM_EVENT_TIMEWAIT_EXIT => Self::TimewaitExit,
            other => Self::Other(other),
        }
    }
}

/// librdmacm opens the cards of its ids for itself, and closes one only when it sees it
/// missing among others: never the only one. The kernel would wait for that when the
/// card is taken away (rdma_rxe, siw), so it is closed here when no id is left that
/// could use it, and librdmacm is not called again.
struct Opened {
    ids: usize,
    contexts: Vec<usize>,
    /// A card was taken away.
    is_missing_one: bool,
    is_spent: bool,
}

static OPENED: Mutex<Opened> = Mutex::new(Opened {
    ids: 0,
    contexts: Vec::new(),
    is_missing_one: false,
    is_spent: false,
});

impl Opened {
    fn lock() -> MutexGuard<'static, Self> {
        OPENED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is an id more.
    fn begin() -> io::Result<()> {
        let mut opened = Self::lock();
        if opened.is_spent {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        opened.ids += 1;
        Ok(())
    }

    /// An id is gone, which had a card open at `context`.
    fn end(context: *mut ibv_context) {
        let mut opened = Self::lock();
        opened.ids = opened.ids.saturating_sub(1);
        let context = context.expose_provenance();
        if context != 0 && !opened.contexts.contains(&context) {
            opened.contexts.push(context);
        }
        if opened.ids > 0 || !opened.is_missing_one {
            return;
        }
        let (Ok([]), Ok(library)) = (super::cards().as_deref(), Library::load()) else {
            return;
        };
        opened.is_spent = true;
        for context in opened.contexts.drain(..) {
            let context = std::ptr::with_exposed_provenance_mut(context);
            // SAFETY: librdmacm opened it, its objects are gone with the ids, and
            // nobody calls librdmacm any more.
            let code = unsafe { (library.ibv_close_device)(context) };
            super::memory::released("librdmacm's context", code);
        }
    }
}

/// A card was taken away: it is closed when no id is left. The kernel says so by events
/// of its ids too, but of some drivers only when everybody has closed it.
pub(crate) fn card_is_missing() {
    Opened::lock().is_missing_one = true;
}

/// An event; acknowledged already.
#[derive(Debug)]
pub(crate) struct CmEvent {
    pub(crate) kind: CmKind,
    /// Of the id that it is about; of a request that of the listening id.
    pub(crate) ticket: Ticket,
    /// Negative errno, or of REJECTED the reason of the transport (InfiniBand: REJ
    /// reason; iWARP: negative errno, ECONNREFUSED).
    pub(crate) status: i32,
    /// Of a request: the id to accept or reject it by. Dropped, it is rejected.
    pub(crate) request: Option<CmId>,
    pub(crate) param: ConnParam,
}

/// Tells of the events of ids. Never blocks.
#[derive(Debug)]
pub(crate) struct EventChannel {
    library: Arc<CmLibrary>,
    ptr: NonNull<rdma_event_channel>,
}

// SAFETY: librdmacm may be called from any thread.
unsafe impl Send for EventChannel {}
// SAFETY: as above; it locks what it shares.
unsafe impl Sync for EventChannel {}

impl EventChannel {
    /// Creates one.
    ///
    /// # Errors
    /// [`CardError::NoLibrary`]: librdmacm is missing; [`CardError::Host`]: the
    /// kernel has no `/dev/infiniband/rdma_cm`, or masqd may not open it.
    pub(crate) fn new() -> Result<Arc<Self>, CardError> {
        let fails = |source| CardError::Host {
            what: "open the kernel's connection manager (/dev/infiniband/rdma_cm)",
            source,
        };
        if Opened::lock().is_spent {
            return Err(fails(io::Error::from_raw_os_error(libc::ENODEV)));
        }
        let library = CmLibrary::load()?;
        // SAFETY: no conditions.
        let ptr = made(unsafe { (library.rdma_create_event_channel)() }).map_err(fails)?;
        let channel = Self { library, ptr };
        let flags = rustix::fs::fcntl_getfl(&channel).map_err(|e| fails(e.into()))?;
        let flags = flags | rustix::fs::OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(&channel, flags).map_err(|e| fails(e.into()))?;
        Ok(Arc::new(channel))
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    /// The channel is of no more use.
    pub(crate) fn next(self: &Arc<Self>) -> io::Result<Option<CmEvent>> {
        let mut event = std::ptr::null_mut();
        // SAFETY: a live channel, a variable of ours.
        let code = unsafe { (self.library.rdma_get_cm_event)(self.ptr.as_ptr(), &mut event) };
        if code != 0 || event.is_null() {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        // SAFETY: an event keeps its ids alive until it is acknowledged, and all that
        // is kept of it is copied before. Contexts are tickets, and tickets alone.
        let copied = unsafe {
            let raw = &*event;
            let kind = CmKind::from_raw(raw.event);
            if kind == CmKind::DeviceRemoval {
                card_is_missing();
            }
            let (about, request) = match (kind, NonNull::new(raw.id)) {
                (CmKind::ConnectRequest, Some(id)) => {
                    let new = CmId::adopt(self, id);
                    (raw.listen_id, Some(new))
                }
                _ => (raw.id, None),
            };
            about.as_ref().map(|id| CmEvent {
                kind,
                ticket: Ticket(id.context as usize),
                status: raw.status,
                request,
                param: conn(&raw.param.conn),
            })
        };
        // SAFETY: just got, acknowledged once.
        unsafe { (self.library.rdma_ack_cm_event)(event) };
        Ok(copied)
    }
}

/// # Safety
/// The parameters of an event that is not acknowledged.
unsafe fn conn(raw: &rdma_conn_param) -> ConnParam {
    ConnParam {
        // SAFETY: by contract.
        private: unsafe { Private::copied(raw.private_data, raw.private_data_len) },
        responder_resources: raw.responder_resources,
        initiator_depth: raw.initiator_depth,
        flow_control: raw.flow_control != 0,
        retry_count: raw.retry_count,
        rnr_retry_count: raw.rnr_retry_count,
        srq: raw.srq != 0,
        qpn: raw.qp_num,
    }
}

impl AsFd for EventChannel {
    /// Readable while an event waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: a live channel has it open.
        unsafe { BorrowedFd::borrow_raw(self.ptr.as_ref().fd) }
    }
}

impl Drop for EventChannel {
    fn drop(&mut self) {
        // SAFETY: its ids hold an Arc of it and are gone, its events are acknowledged.
        unsafe { (self.library.rdma_destroy_event_channel)(self.ptr.as_ptr()) };
    }
}

/// A communication id.
#[derive(Debug)]
pub(crate) struct CmId {
    channel: Arc<EventChannel>,
    ptr: NonNull<rdma_cm_id>,
    ticket: Ticket,
}

// SAFETY: librdmacm may be called from any thread.
unsafe impl Send for CmId {}

impl CmId {
    /// Creates one for connections, with a ticket of its own.
    pub(crate) fn new(channel: &Arc<EventChannel>) -> io::Result<Self> {
        let ticket = Ticket::unused();
        let mut id = std::ptr::null_mut();
        let context = std::ptr::without_provenance_mut(ticket.0);
        Opened::begin()?;
        // SAFETY: a live channel, a variable of ours, a context that nobody follows.
        let made = check(unsafe {
            (channel.library.rdma_create_id)(channel.ptr.as_ptr(), &mut id, context, RDMA_PS_TCP)
        });
        let made = made.and_then(|()| NonNull::new(id).ok_or_else(io::Error::last_os_error));
        let ptr = made.inspect_err(|_| Opened::end(std::ptr::null_mut()))?;
        Ok(Self {
            channel: Arc::clone(channel),
            ptr,
            ticket,
        })
    }

    /// # Safety
    /// The id of a request that was just got of `channel`; nobody else destroys it.
    unsafe fn adopt(channel: &Arc<EventChannel>, ptr: NonNull<rdma_cm_id>) -> Self {
        let ticket = Ticket::unused();
        Opened::lock().ids += 1;
        // SAFETY: only the thread that gets its events reads the context, this one:
        // the id has no more before it is acknowledged.
        unsafe { (*ptr.as_ptr()).context = std::ptr::without_provenance_mut(ticket.0) };
        Self {
            channel: Arc::clone(channel),
            ptr,
            ticket,
        }
    }

    fn library(&self) -> &CmLibrary {
        &self.channel.library
    }

    /// What events name it by.
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Binds it to an address of this host; port 0: any that is free.
    pub(crate) fn bind(&self, to: SocketAddr) -> io::Result<()> {
        let mut to = to_c(to);
        let to = (&raw mut to).cast();
        // SAFETY: a live id, an address of ours.
        check(unsafe { (self.library().rdma_bind_addr)(self.ptr.as_ptr(), to) })
    }

    /// Takes requests from now on. iWARP: a TCP port of the kernel's.
    pub(crate) fn listen(&self, backlog: u16) -> io::Result<()> {
        // SAFETY: a live id.
        check(unsafe { (self.library().rdma_listen)(self.ptr.as_ptr(), backlog.into()) })
    }

    /// Looks for the way to `to`: ADDR_RESOLVED, or ADDR_ERROR.
    pub(crate) fn resolve_addr(
        &self,
        from: Option<SocketAddr>,
        to: SocketAddr,
        timeout: Duration,
    ) -> io::Result<()> {
        let (mut from, mut to) = (from.map(to_c), to_c(to));
        let from = from.as_mut();
        let from = from.map_or(std::ptr::null_mut(), |from| (&raw mut *from).cast());
        let to = (&raw mut to).cast();
        let timeout = milliseconds(timeout);
        // SAFETY: a live id, addresses of ours.
        check(unsafe { (self.library().rdma_resolve_addr)(self.ptr.as_ptr(), from, to, timeout) })
    }

    /// The next step: ROUTE_RESOLVED, or ROUTE_ERROR.
    pub(crate) fn resolve_route(&self, timeout: Duration) -> io::Result<()> {
        let timeout = milliseconds(timeout);
        // SAFETY: a live id.
        check(unsafe { (self.library().rdma_resolve_route)(self.ptr.as_ptr(), timeout) })
    }

    /// Asks the peer. Some drivers (siw) wait for the TCP connection in the call.
    pub(crate) fn connect(&self, param: &ConnParam) -> io::Result<()> {
        let mut raw = to_raw(param);
        // SAFETY: a live id; the parameters outlive the call.
        check(unsafe { (self.library().rdma_connect)(self.ptr.as_ptr(), &mut raw) })
    }

    /// Accepts a request.
    pub(crate) fn accept(&self, param: &ConnParam) -> io::Result<()> {
        let mut raw = to_raw(param);
        // SAFETY: a live id; the parameters outlive the call.
        check(unsafe { (self.library().rdma_accept)(self.ptr.as_ptr(), &mut raw) })
    }

    /// Refuses a request.
    pub(crate) fn reject(&self, private: &Private) -> io::Result<()> {
        let data = private.bytes.as_ptr().cast();
        // SAFETY: a live id; the data outlives the call.
        check(unsafe { (self.library().rdma_reject)(self.ptr.as_ptr(), data, private.len) })
    }

    /// The address of the other side.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        // SAFETY: as above.
        from_c(unsafe { &(*self.ptr.as_ptr()).route.addr.dst_storage })
    }

    /// The card and its port that this id was bound to, by bind, resolve_addr or a
    /// request.
    pub(crate) fn card(&self) -> Option<(String, u8)> {
        // SAFETY: a live id; its context and that one's device live as long.
        unsafe {
            let id = self.ptr.as_ref();
            let device = id.verbs.as_ref()?.device.as_ref()?;
            let name = CStr::from_ptr(device.name.as_ptr());
            Some((name.to_string_lossy().into_owned(), id.port_num))
        }
    }

    /// Binds even if connections of an earlier listener still linger.
    pub(crate) fn set_reuse_address(&self) -> io::Result<()> {
        self.set_option(RDMA_OPTION_ID_REUSEADDR, 1i32)
    }

    fn set_option<T: Copy>(&self, name: c_enum, mut value: T) -> io::Result<()> {
        // SAFETY: a live id, a value of ours with its size.
        check(unsafe {
            (self.library().rdma_set_option)(
                self.ptr.as_ptr(),
                RDMA_OPTION_ID as i32,
                name as i32,
                (&raw mut value).cast(),
                size_of::<T>(),
            )
        })
    }
}

impl Drop for CmId {
    fn drop(&mut self) {
        // SAFETY: a live id.
        let context = unsafe { self.ptr.as_ref().verbs };
        // SAFETY: a live id; events of it that another thread holds are acknowledged
        // there, for which this call waits.
        let code = unsafe { (self.library().rdma_destroy_id)(self.ptr.as_ptr()) };
        super::memory::released("connection id", code);
        Opened::end(context);
    }
}

/// Valid as long as `param`.
fn to_raw(param: &ConnParam) -> rdma_conn_param {
    rdma_conn_param {
        private_data: match param.private.len {
            0 => std::ptr::null(),
            _ => param.private.bytes.as_ptr().cast(),
        },
        private_data_len: param.private.len,
        responder_resources: param.responder_resources,
        initiator_depth: param.initiator_depth,
        flow_control: param.flow_control.into(),
        retry_count: param.retry_count,
        rnr_retry_count: param.rnr_retry_count,
        srq: param.srq.into(),
        qp_num: param.qpn,
    }
}

fn milliseconds(timeout: Duration) -> i32 {
    timeout.as_millis().try_into().unwrap_or(i32::MAX)
}
