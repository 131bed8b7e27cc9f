//! The vhost-user side of the test device: it takes everything that it is told.

use crate::device::{Session, World};
use crate::memory::Memory;
use masq_spec::device::{Config, Features, QUEUE_LAYOUT_MASQ, SPEC_VERSION, version_text};
use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::*;
use vhost::vhost_user::{
    Backend, BackendReqHandler, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
    VhostUserFrontendReqHandler as _, VhostUserProtocolFeatures,
};
use zerocopy::IntoBytes as _;

struct Connection {
    world: Arc<Mutex<World>>,
    session: Session,
    /// Its place in the world, once the memory is known.
    id: Option<u64>,
    process: i32,
}

/// Serves one connection until it ends.
pub(crate) fn serve(stream: UnixStream, world: Arc<Mutex<World>>) {
    let process = peer(&stream);
    let connection = Arc::new(Mutex::new(Connection {
        world: Arc::clone(&world),
        session: Session::default(),
        id: None,
        process,
    }));
    let mut handler = BackendReqHandler::from_stream(stream, Arc::clone(&connection));
    while handler.handle_request().is_ok() {}
    let id = connection.lock().unwrap().id;
    if let Some(id) = id {
        world.lock().unwrap().end(id);
    }
}

fn peer(stream: &UnixStream) -> i32 {
    // SAFETY: an option of this type and size.
    unsafe {
        let mut cred: libc::ucred = std::mem::zeroed();
        let mut len = size_of::<libc::ucred>() as u32;
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut cred).cast(),
            &mut len,
        );
        cred.pid
    }
}

/// What the device says of itself.
pub(crate) fn config() -> Config {
    let mut device_name = [0; 32];
    device_name[..5].copy_from_slice(b"masq0");
    Config {
        spec_version: SPEC_VERSION,
        queue_layout: QUEUE_LAYOUT_MASQ,
        node_guid: 0x0250_00ff_fe00_0001,
        vendor_id: 0x1af4,
        vendor_part_id: 42,
        hw_ver: 1,
        max_event_queues: 200,
        doorbell_len: 4096,
        max_command_len: 4096,
        device_name,
        backend_version: version_text("test"),
    }
}

impl Connection {
    fn with<R>(&mut self, f: impl FnOnce(&mut Session) -> R) -> R {
        match self.id {
            Some(id) => f(self.world.lock().unwrap().sessions.get_mut(&id).unwrap()),
            None => f(&mut self.session),
        }
    }

    fn vring<R>(&mut self, index: u32, f: impl FnOnce(&mut crate::vring::Vring) -> R) -> Result<R> {
        // The control queue of a connection that joined stays its own.
        let (id, base) = if index == 0 {
            (self.id, 0)
        } else {
            self.place()
        };
        match id {
            Some(id) => {
                let mut world = self.world.lock().unwrap();
                let session = world.sessions.get_mut(&id).unwrap();
                Ok(f(session.vrings.entry(base + index).or_default()))
            }
            None => Ok(f(self.session.vrings.entry(index).or_default())),
        }
    }

    /// Where this connection's queues are: the session and the name of the first.
    fn place(&mut self) -> (Option<u64>, u32) {
        match self.with(|s| s.joined) {
            Some((session, base)) => (Some(session), base),
            None => (self.id, 0),
        }
    }
}

fn memfd() -> File {
    // SAFETY: a new descriptor that nobody else has.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(c"doorbell".as_ptr(), 0)) };
    file.set_len(4096).unwrap();
    file
}

impl VhostUserBackendReqHandlerMut for Connection {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }
    fn get_features(&mut self) -> Result<u64> {
        // It is no iWARP card: programs would treat it as one.
        let left_out = Features::XRC | Features::IWARP;
        Ok(Features::all().difference(left_out).bits())
    }
    fn set_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }
    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::all())
    }
    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }
    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Ok(config().as_bytes().to_vec())
    }
    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        fd: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        let process = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{}/mem", self.process))
            .unwrap();
        let mut session = std::mem::take(&mut self.session);
        session.memory = Some(Memory {
            shared: fd,
            process,
        });
        session.doorbell = Some(memfd());
        self.id = Some(self.world.lock().unwrap().add(session));
        Ok(None)
    }
    fn set_backend_req_fd(&mut self, backend: Backend) {
        let request = VhostUserMMap {
            len: 4096,
            flags: VhostUserMMapFlags::WRITABLE.bits(),
            ..VhostUserMMap::default()
        };
        backend.set_shmem_flag(true);
        let page = self.with(|s| s.doorbell.as_ref().unwrap().try_clone().unwrap());
        backend.shmem_map(&request, &page).unwrap();
        self.with(|s| s.backend = Some(backend));
    }
    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.vring(index, |v| v.num = num as u16)
    }
    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        self.vring(index, |v| {
            (v.desc, v.used, v.avail) = (descriptor, used, available);
        })
    }
    fn set_vring_base(&mut self, _index: u32, _base: u32) -> Result<()> {
        Ok(())
    }
    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.vring(index, |v| *v = crate::vring::Vring::default())?;
        Ok(VhostUserVringState::new(index, 0))
    }
    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.vring(index.into(), |v| v.kick = fd)
    }
    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.vring(index.into(), |v| v.call = fd)
    }
    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.vring(index, |v| v.enabled = enable)
    }
    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(256)
    }

    // What no frontend of ours asks for.
    fn reset_owner(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("test"))
    }
    fn reset_device(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("test"))
    }
    fn set_mem_table(
        &mut self,
        _: &[VhostUserMemoryRegion],
        _: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        Err(Error::InvalidOperation("test"))
    }
    fn set_vring_err(&mut self, _: u8, _: Option<File>) -> Result<()> {
        Err(Error::InvalidOperation("test"))
    }
    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(Error::InvalidOperation("test"))
    }
    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("test"))
    }
    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("test"))
    }
    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(Error::InvalidOperation("test"))
    }
    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(Error::InvalidOperation("test"))
    }
    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(1)
    }
    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(Error::InvalidOperation("test"))
    }
    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidOperation("test"))
    }
    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("test"))
    }
    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Ok(VhostUserShMemConfig::new(1, &[4096]))
    }
    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(Error::InvalidOperation("test"))
    }
}
