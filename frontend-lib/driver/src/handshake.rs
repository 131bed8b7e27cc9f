//! Opening a connection (SPEC clause 2): features, configuration, memory, doorbells.
#![allow(
    unsafe_code,
    reason = "descriptors that the vhost crate lends as numbers"
)]

use crate::DriverError;
use crate::doorbell::Doorbell;
use crate::vring::Vring;
use masq_regmem::{ARENA_SIZE, Arena};
use masq_spec::device::{
    Config, Features, QUEUE_LAYOUT_MASQ, SHMID_DOORBELL, SPEC_VERSION, version_str,
};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserMMap};
use vhost::vhost_user::{
    Frontend, FrontendReqHandler, HandlerResult, VhostUserFrontend, VhostUserFrontendReqHandler,
    VhostUserProtocolFeatures,
};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vmm_sys_util::eventfd::EventFd;
use zerocopy::{FromZeros as _, IntoBytes as _};

/// The version of this library, for messages to people.
pub(crate) const OUR_VERSION: &str = env!("CARGO_PKG_VERSION");
/// An endpoint that takes longer to answer a message is taken for dead.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the driver can make use of.
const WANTED: Features = Features::all().difference(Features::XRC);

/// The environment variable that, when it is `off`, has the driver make no use of
/// REMOTE_MEMORY: as if the device were a card.
const REMOTE_MEMORY_ENV: &str = "MASQ_REMOTE_MEMORY";

/// A connection whose configuration was read.
pub(crate) struct Connection {
    pub(crate) frontend: Frontend,
    pub(crate) socket: UnixStream,
    pub(crate) config: Config,
    pub(crate) offered: Features,
}

/// Reads the configuration of the endpoint's device and what it offers, without opening
/// a session.
///
/// # Errors
/// As [`crate::Session::open`].
pub fn probe(path: &Path) -> Result<(Config, Features), DriverError> {
    connect(path).map(|connection| (connection.config, connection.offered))
}

/// Connects, agrees on protocol features and reads the configuration space.
pub(crate) fn connect(path: &Path) -> Result<Connection, DriverError> {
    let failed = |source| DriverError::Connect {
        path: path.to_owned(),
        source,
    };
    let socket = UnixStream::connect(path).map_err(failed)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut frontend = Frontend::from_stream(socket.try_clone()?, 256);
    frontend.set_owner()?;
    let offered = Features::from_bits_truncate(frontend.get_features()?);
    if !offered.contains(Features::REQUIRED | Features::PROTOCOL_FEATURES) {
        return Err(DriverError::Unfit("is no modern virtio device"));
    }
    let protocol = frontend.get_protocol_features()?;
    let wanted = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::BACKEND_REQ
        | VhostUserProtocolFeatures::BACKEND_SEND_FD
        | VhostUserProtocolFeatures::SHMEM;
    frontend.set_protocol_features(protocol & wanted)?;
    if !protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
        return Err(DriverError::Unfit("does not acknowledge messages"));
    }
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    let mut config = Config::new_zeroed();
    let len = size_of::<Config>() as u32;
    let empty = [0; size_of::<Config>()];
    let (_, bytes) = frontend.get_config(0, len, VhostUserConfigFlags::WRITABLE, &empty)?;
    if bytes.len() != empty.len() {
        return Err(DriverError::Unfit("has another configuration space"));
    }
    config.as_mut_bytes().copy_from_slice(&bytes);
    check(&config)?;
    Ok(Connection {
        frontend,
        socket,
        config,
        offered,
    })
}

/// Different majors cannot talk (clause 2.3).
fn check(config: &Config) -> Result<(), DriverError> {
    if config.spec_version >> 16 != SPEC_VERSION >> 16 {
        return Err(DriverError::Version {
            ours: OUR_VERSION.to_owned(),
            theirs: version_str(&config.backend_version),
        });
    }
    if config.queue_layout != QUEUE_LAYOUT_MASQ {
        return Err(DriverError::Unfit("uses another layout of queues"));
    }
    Ok(())
}

impl Connection {
    /// Accepts the features and shares the memory file.
    pub(crate) fn negotiate(&mut self) -> Result<Features, DriverError> {
        let mut accepted = self.offered & WANTED;
        if std::env::var_os(REMOTE_MEMORY_ENV).is_some_and(|value| value == "off") {
            accepted.remove(Features::REMOTE_MEMORY);
        }
        self.frontend.set_features(accepted.bits())?;
        let arena = Arena::global()?;
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: ARENA_SIZE as u64,
            userspace_addr: 0,
            mmap_offset: 0,
            mmap_handle: arena.memfd().as_raw_fd(),
        };
        self.frontend.add_mem_region(&region)?;
        Ok(accepted)
    }

    /// Opens the back channel and maps the page that the backend sends on it.
    pub(crate) fn doorbell(&mut self, kick: Arc<EventFd>) -> Result<Doorbell, DriverError> {
        let receiver = Arc::new(DoorbellReceiver(Mutex::new(None)));
        let mut handler = FrontendReqHandler::new(Arc::clone(&receiver))
            .map_err(|_| DriverError::Unfit("cannot be given a back channel"))?;
        // SAFETY: the handler owns the descriptor and outlives the borrow.
        let back = unsafe { BorrowedFd::borrow_raw(handler.as_raw_fd()) };
        // The option is that of the socket, which both descriptors name.
        UnixStream::from(back.try_clone_to_owned()?).set_read_timeout(Some(PATIENCE))?;
        let sent = RawFdNumber(handler.get_tx_raw_fd());
        self.frontend.set_backend_request_fd(&sent)?;
        handler
            .handle_request()
            .map_err(|_| DriverError::Unfit("sent no doorbell page"))?;
        let mut slot = receiver.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (fd, offset) = slot
            .take()
            .ok_or(DriverError::Unfit("sent no doorbell page"))?;
        Ok(Doorbell::map(std::os::fd::AsFd::as_fd(&fd), offset, kick)?)
    }

    /// Sets up virtqueue `index` and starts it.
    pub(crate) fn start_queue(
        frontend: &mut Frontend,
        index: u8,
        ring: &Vring,
    ) -> Result<(), DriverError> {
        let index = usize::from(index);
        one_reply(
            frontend,
            |frontend| {
                frontend.set_vring_num(index, ring.size())?;
                frontend.set_vring_addr(index, &ring.config())?;
                frontend.set_vring_base(index, 0)?;
                frontend.set_vring_call(index, &ring.call)?;
                frontend.set_vring_kick(index, &ring.kick)
            },
            |frontend| frontend.set_vring_enable(index, true),
        )
    }
}

/// Has the backend let go of a queue; it has when it answers.
pub(crate) fn stop_queue(frontend: &mut Frontend, index: u8) -> Result<(), DriverError> {
    let index = usize::from(index);
    one_reply(
        frontend,
        |frontend| frontend.set_vring_enable(index, false),
        |frontend| frontend.get_vring_base(index).map(drop),
    )
}

/// Sends several messages of which only the last is answered: they are served in order,
/// and a queue of which one was refused does not start.
fn one_reply(
    frontend: &mut Frontend,
    first: impl FnOnce(&mut Frontend) -> vhost::Result<()>,
    last: impl FnOnce(&mut Frontend) -> vhost::Result<()>,
) -> Result<(), DriverError> {
    frontend.set_hdr_flags(VhostUserHeaderFlag::empty());
    let sent = first(frontend);
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    sent?;
    Ok(last(frontend)?)
}

struct RawFdNumber(i32);

impl AsRawFd for RawFdNumber {
    fn as_raw_fd(&self) -> i32 {
        self.0
    }
}

/// Keeps the descriptor of the doorbell page that SHMEM_MAP brings.
struct DoorbellReceiver(Mutex<Option<(OwnedFd, u64)>>);

impl VhostUserFrontendReqHandler for DoorbellReceiver {
    fn shmem_map(&self, request: &VhostUserMMap, fd: &dyn AsRawFd) -> HandlerResult<u64> {
        if request.shmid != SHMID_DOORBELL {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: the crate keeps the descriptor open during this call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }.try_clone_to_owned()?;
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some((fd, request.fd_offset));
        Ok(0)
    }
}
