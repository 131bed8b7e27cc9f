//! Virtqueues in tenant memory (SPEC clause 3). The queue arithmetic is
//! virtio-queue's; descriptors are walked here, once, into private memory.

use masq_memory::SharedFile;
use masq_spec::command::{MAX_CHAIN, MAX_COMMAND_LEN};
use masq_spec::device::{MAX_QUEUE_SIZE, PAGE_SIZE};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

/// Bytes from the descriptor table within which a virtqueue and its buffers
/// lie (clause 3.3).
const WINDOW: u64 = 64 << 10;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const NO_INTERRUPT: u16 = 1;

/// Why a virtqueue cannot go on; its session ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RingError {
    #[error("the virtqueue's addresses or size are not usable")]
    Geometry,
    #[error("a window for the virtqueue cannot be mapped: {0}")]
    Map(String),
    #[error("the available index jumped")]
    Index,
    #[error("a descriptor chain breaks the rules of clause 3.3")]
    Chain,
    #[error("the virtqueue's memory is gone")]
    Memory,
}

/// The kick eventfd of a virtqueue.
#[derive(Debug, Default)]
pub(crate) enum Kick {
    #[default]
    Missing,
    /// It was given, and is not needed.
    Unused,
    Kept(File),
}

impl Kick {
    pub(crate) fn file(&self) -> Option<&File> {
        match self {
            Self::Kept(file) => Some(file),
            _ => None,
        }
    }
}

/// What a frontend said about a virtqueue.
#[derive(Debug, Default)]
pub(crate) struct VringConfig {
    pub(crate) size: u16,
    pub(crate) desc: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
    /// Running index of the next chain: where the queue begins, and where it
    /// stopped.
    pub(crate) position: Arc<AtomicU16>,
    /// Of an event queue only its presence counts: nobody waits for its kicks.
    pub(crate) kick: Kick,
    pub(crate) call: Option<Arc<File>>,
    pub(crate) enabled: bool,
    /// Whether it counts against the quota of event queues.
    pub(crate) charged: bool,
}

/// A running virtqueue.
pub(crate) struct Vring {
    memory: GuestMemoryMmap,
    queue: Queue,
    desc: GuestAddress,
    avail: GuestAddress,
    position: Arc<AtomicU16>,
}

/// A piece of a chain.
#[derive(Clone, Copy, Default)]
struct Buffer {
    addr: GuestAddress,
    len: usize,
}

/// Where a response goes.
#[derive(Clone, Copy, Default)]
struct Room {
    buffers: [Buffer; MAX_CHAIN],
    count: usize,
}

impl Room {
    fn push(&mut self, buffer: Buffer) -> Result<(), RingError> {
        let free = self.buffers.get_mut(self.count).ok_or(RingError::Chain)?;
        *free = buffer;
        self.count += 1;
        Ok(())
    }

    fn buffers(&self) -> &[Buffer] {
        self.buffers.get(..self.count).unwrap_or_default()
    }
}

/// A chain that was taken: the head to give back, the request, and where the
/// response goes.
pub(crate) struct Chain {
    head: u16,
    pub(crate) request: Vec<u8>,
    response: Room,
}

impl Vring {
    /// Maps and checks a virtqueue.
    pub(crate) fn new(file: &SharedFile, config: &VringConfig) -> Result<Self, RingError> {
        let size = config.size;
        if !size.is_power_of_two() || size > MAX_QUEUE_SIZE {
            return Err(RingError::Geometry);
        }
        let start = config.desc & !(PAGE_SIZE - 1);
        let end = start
            .checked_add(WINDOW)
            .ok_or(RingError::Geometry)?
            .min(file.len());
        let inside = |addr: u64, len: u64| {
            addr >= start && addr.checked_add(len).is_some_and(|last| last <= end)
        };
        let n = u64::from(size);
        if !inside(config.desc, n * 16)
            || !inside(config.avail, n * 2 + 6)
            || !inside(config.used, n * 8 + 6)
        {
            return Err(RingError::Geometry);
        }
        let map = |what: String| RingError::Map(what);
        let region = MmapRegion::build(
            Some(FileOffset::from_arc(file.file(), start)),
            (end - start) as usize,
            nix::libc::PROT_READ | nix::libc::PROT_WRITE,
            nix::libc::MAP_SHARED | nix::libc::MAP_NORESERVE,
        )
        .map_err(|e| map(e.to_string()))?;
        let region = GuestRegionMmap::new(region, GuestAddress(start))
            .ok_or_else(|| map("address wraps".into()))?;
        let memory = GuestMemoryMmap::from_regions(vec![region]).map_err(|e| map(e.to_string()))?;
        let mut queue = Queue::new(MAX_QUEUE_SIZE).map_err(|_| RingError::Geometry)?;
        let geometry = |_| RingError::Geometry;
        queue.try_set_size(size).map_err(geometry)?;
        queue
            .try_set_desc_table_address(GuestAddress(config.desc))
            .map_err(geometry)?;
        queue
            .try_set_avail_ring_address(GuestAddress(config.avail))
            .map_err(geometry)?;
        queue
            .try_set_used_ring_address(GuestAddress(config.used))
            .map_err(geometry)?;
        let base = config.position.load(Ordering::Relaxed);
        queue.set_next_avail(base);
        queue.set_next_used(base);
        queue.set_ready(true);
        if !queue.is_valid(&memory) {
            return Err(RingError::Geometry);
        }
        Ok(Self {
            memory,
            queue,
            desc: GuestAddress(config.desc),
            avail: GuestAddress(config.avail),
            position: Arc::clone(&config.position),
        })
    }

    /// Whether a chain waits.
    pub(crate) fn is_ready(&self) -> bool {
        self.queue
            .avail_idx(&self.memory, Ordering::Acquire)
            .is_ok_and(|index| index.0 != self.queue.next_avail())
    }

    /// Asks the driver to kick, or not to. Returns whether a chain waits.
    pub(crate) fn want_kicks(&mut self, wanted: bool) -> bool {
        let result = if wanted {
            self.queue.enable_notification(&self.memory)
        } else {
            self.queue
                .disable_notification(&self.memory)
                .map(|()| false)
        };
        result.unwrap_or(true)
    }

    /// Whether the driver wants its call eventfd written.
    pub(crate) fn wants_call(&self) -> bool {
        std::sync::atomic::fence(Ordering::SeqCst);
        match self.memory.load::<u16>(self.avail, Ordering::Relaxed) {
            Ok(flags) => flags & NO_INTERRUPT == 0,
            Err(_) => false,
        }
    }

    /// Takes the next chain of a queue for commands: its descriptors and its request are
    /// copied once.
    pub(crate) fn take(&mut self) -> Result<Option<Chain>, RingError> {
        self.take_up_to(MAX_COMMAND_LEN)
    }

    /// Takes the next chain of a queue for events, which has no request. Allocates nothing:
    /// it is the data path that has an event.
    pub(crate) fn take_room(&mut self) -> Result<Option<Chain>, RingError> {
        self.take_up_to(0)
    }

    /// Takes the next chain, with a request of at most so many bytes.
    fn take_up_to(&mut self, longest: usize) -> Result<Option<Chain>, RingError> {
        let index = self
            .queue
            .avail_idx(&self.memory, Ordering::Acquire)
            .map_err(|_| RingError::Memory)?;
        let waiting = index.0.wrapping_sub(self.queue.next_avail());
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > self.queue.size() {
            return Err(RingError::Index);
        }
        let head = self
            .queue
            .pop_descriptor_chain(&self.memory)
            .ok_or(RingError::Chain)?
            .head_index();
        self.walk(head, longest).map(Some)
    }

    fn walk(&self, head: u16, longest: usize) -> Result<Chain, RingError> {
        let mut chain = Chain {
            head,
            request: Vec::new(),
            response: Room::default(),
        };
        let (mut index, mut room) = (head, longest);
        for _ in 0..MAX_CHAIN {
            if index >= self.queue.size() {
                return Err(RingError::Chain);
            }
            let mut raw = [0; 16];
            let at = GuestAddress(self.desc.0 + u64::from(index) * 16);
            self.memory
                .read_slice(&mut raw, at)
                .map_err(|_| RingError::Memory)?;
            let field = |range: std::ops::Range<usize>| {
                raw.get(range)
                    .unwrap_or_default()
                    .iter()
                    .rev()
                    .fold(0u64, |n, b| n << 8 | u64::from(*b))
            };
            let (addr, len) = (GuestAddress(field(0..8)), field(8..12) as usize);
            let (flags, next) = (field(12..14) as u16, field(14..16) as u16);
            if flags & !(NEXT | WRITE) != 0 || flags & INDIRECT != 0 || len > MAX_COMMAND_LEN {
                return Err(RingError::Chain);
            }
            if flags & WRITE != 0 {
                chain.response.push(Buffer { addr, len })?;
            } else if !chain.response.buffers().is_empty() || len > room || longest == 0 {
                // Readable descriptors come first and hold one request, if there is any.
                return Err(RingError::Chain);
            } else {
                room -= len;
                let at = chain.request.len();
                chain.request.resize(at + len, 0);
                let out = chain.request.get_mut(at..).ok_or(RingError::Chain)?;
                self.memory
                    .read_slice(out, addr)
                    .map_err(|_| RingError::Memory)?;
            }
            if flags & NEXT == 0 {
                return Ok(chain);
            }
            index = next;
        }
        Err(RingError::Chain)
    }

    /// Writes a response, cut to what the driver has room for, and gives the
    /// chain back.
    pub(crate) fn answer(&mut self, chain: &Chain, response: &[u8]) -> Result<(), RingError> {
        let mut rest = response;
        for buffer in chain.response.buffers() {
            let (now, later) = rest.split_at(rest.len().min(buffer.len));
            self.memory
                .write_slice(now, buffer.addr)
                .map_err(|_| RingError::Memory)?;
            rest = later;
        }
        let written = (response.len() - rest.len()) as u32;
        self.queue
            .add_used(&self.memory, chain.head, written)
            .map_err(|_| RingError::Memory)?;
        // A chain that was taken and not answered is taken again.
        let next = self.position.load(Ordering::Relaxed).wrapping_add(1);
        self.position.store(next, Ordering::Relaxed);
        Ok(())
    }
}
