//! The vhost-user side of a connection: collects what the frontend says. It
//! decides nothing; [`crate::server`] looks at what changed after each message.

use crate::identity::is_eventfd;
use crate::notifier::Notifier;
use crate::vring::{Kick, VringConfig};
use masq_memory::{DoorbellPage, SharedFile};
use masq_spec::device::{
    CONTROL_QUEUE, Config, FIRST_EVENT_QUEUE, Features, MAX_QUEUE_SIZE, MAX_QUEUES,
};
use masq_spec::doorbell::PAGE_LEN;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Backend, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use zerocopy::IntoBytes;

/// A change that the server has to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// This virtqueue runs now, or with other descriptors.
    Started(u8),
    /// This virtqueue stopped.
    Stopped(u8),
    /// This event queue would exceed the quota.
    OverQuota,
}

/// State of one connection.
pub(crate) struct Protocol {
    config: Config,
    offered: Features,
    pub(crate) accepted: Option<Features>,
    pub(crate) memory: Option<Arc<SharedFile>>,
    pub(crate) doorbell: Option<Arc<DoorbellPage>>,
    /// Where events are delivered, and the number of queue 0 there.
    pub(crate) events: (Arc<Notifier>, u32),
    /// Event queues that the quota still allows; set before each message.
    pub(crate) event_queues_left: u64,
    /// Protocol features that the frontend accepted.
    pub(crate) accepted_protocol: u64,
    vrings: Vec<VringConfig>,
    changes: Vec<Change>,
}

impl Protocol {
    pub(crate) fn new(config: Config, offered: Features, events: Arc<Notifier>) -> Self {
        let vrings = (0..MAX_QUEUES).map(|_| VringConfig::default()).collect();
        Self {
            config,
            offered: offered | Features::VERSION_1 | Features::PROTOCOL_FEATURES,
            accepted: None,
            memory: None,
            doorbell: None,
            events: (events, 0),
            event_queues_left: 0,
            accepted_protocol: 0,
            vrings,
            changes: Vec::new(),
        }
    }

    /// What happened since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    pub(crate) fn vring(&self, index: u8) -> Option<&VringConfig> {
        self.vrings.get(usize::from(index))
    }

    fn vring_mut(&mut self, index: u32) -> Result<&mut VringConfig> {
        self.vrings
            .get_mut(index as usize)
            .ok_or(Error::InvalidParam)
    }

    /// A virtqueue starts once it is enabled and complete.
    fn started(&mut self, index: u8) -> Result<()> {
        let left = self.event_queues_left;
        let vring = self.vring_mut(u32::from(index))?;
        let complete =
            vring.size > 0 && !matches!(vring.kick, Kick::Missing) && vring.call.is_some();
        if !vring.enabled || !complete {
            return Ok(());
        }
        let is_new_event_queue = index != CONTROL_QUEUE && !vring.charged;
        if is_new_event_queue && left == 0 {
            vring.enabled = false;
            self.changes.push(Change::OverQuota);
            return Err(Error::InvalidOperation("the quota of event queues"));
        }
        vring.charged = index != CONTROL_QUEUE;
        self.changes.push(Change::Started(index));
        Ok(())
    }

    /// An event queue has been let go of when this returns; the control queue
    /// when the change is acted on, which its only reader does first.
    fn stopped(&mut self, index: u8) {
        if index != CONTROL_QUEUE {
            let (events, base) = &self.events;
            events.remove_queue(base + u32::from(index));
        }
        self.changes.push(Change::Stopped(index));
    }

    fn set_fd(&mut self, index: u8, fd: Option<File>, is_kick: bool) -> Result<()> {
        if !fd.as_ref().is_some_and(|fd| is_eventfd(fd.as_fd())) {
            return Err(Error::InvalidParam);
        }
        let vring = self.vring_mut(u32::from(index))?;
        match fd {
            None => {}
            Some(call) if !is_kick => vring.call = Some(Arc::new(call)),
            // A session with thousands of channels has as many kicks.
            Some(_) if index >= FIRST_EVENT_QUEUE => vring.kick = Kick::Unused,
            Some(kick) => vring.kick = Kick::Kept(kick),
        }
        self.started(index)
    }
}

impl VhostUserBackendReqHandlerMut for Protocol {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("RESET_OWNER is obsolete"))
    }

    fn reset_device(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("close the connection instead"))
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let wanted = Features::from_bits(features).ok_or(Error::InvalidParam)?;
        let known = self.offered.contains(wanted) && wanted.contains(Features::REQUIRED);
        if !known || self.accepted.is_some_and(|before| before != wanted) {
            return Err(Error::InvalidParam);
        }
        self.accepted = Some(wanted);
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        _: &[VhostUserMemoryRegion],
        _: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        Err(Error::InvalidOperation("use ADD_MEM_REG"))
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        if !size.is_power_of_two() || size > MAX_QUEUE_SIZE {
            return Err(Error::InvalidParam);
        }
        self.vring_mut(index)?.size = size;
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        if !flags.is_empty() {
            return Err(Error::InvalidParam);
        }
        let vring = self.vring_mut(index)?;
        (vring.desc, vring.used, vring.avail) = (descriptor, used, available);
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        let position = &self.vring_mut(index)?.position;
        position.store(base, Ordering::Relaxed);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let vring = self.vring_mut(index)?;
        (vring.enabled, vring.charged) = (false, false);
        (vring.kick, vring.call) = (Kick::Missing, None);
        let position = Arc::clone(&vring.position);
        self.stopped(index as u8);
        let base = u32::from(position.load(Ordering::Relaxed));
        Ok(VhostUserVringState::new(index, base))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.set_fd(index, fd, true)
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.set_fd(index, fd, false)
    }

    fn set_vring_err(&mut self, _index: u8, _fd: Option<File>) -> Result<()> {
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::BACKEND_SEND_FD
            | VhostUserProtocolFeatures::SHMEM)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.accepted_protocol = features;
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(MAX_QUEUES as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let vring = self.vring_mut(index)?;
        vring.enabled = enable;
        if enable {
            return self.started(index as u8);
        }
        vring.charged = false;
        self.stopped(index as u8);
        Ok(())
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        let (from, len) = (offset as usize, size as usize);
        let end = from.checked_add(len).ok_or(Error::InvalidParam)?;
        let bytes = self
            .config
            .as_bytes()
            .get(from..end)
            .ok_or(Error::InvalidParam)?;
        Ok(bytes.to_vec())
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(Error::InvalidOperation(
            "the configuration space is read-only",
        ))
    }

    /// The server takes this message itself ([`crate::server`]): the crate
    /// would write to a socket that the tenant can fill.
    fn set_backend_req_fd(&mut self, _: Backend) {}

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("not a GPU"))
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("no shared objects"))
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(Error::InvalidOperation("no inflight region"))
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(Error::InvalidOperation("no inflight region"))
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(1)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        fd: File,
        _: Option<bool>,
    ) -> Result<Option<u64>> {
        // One region: the whole file, offset = address (clause 4.1).
        if self.memory.is_some() || region.guest_phys_addr != 0 || region.mmap_offset != 0 {
            return Err(Error::InvalidParam);
        }
        match SharedFile::check(fd.into()) {
            Ok(file) => {
                self.memory = Some(Arc::new(file));
                Ok(None)
            }
            Err(error) => {
                tracing::info!(%error, "shared memory refused");
                Err(Error::InvalidParam)
            }
        }
    }

    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(Error::InvalidOperation("close the connection instead"))
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidOperation("no migration"))
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("no migration"))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Ok(VhostUserShMemConfig::new(1, &[PAGE_LEN as u64]))
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(Error::InvalidOperation("no migration"))
    }
}
