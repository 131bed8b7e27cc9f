//! From the data path to the reader of a capture.

use crossbeam_queue::ArrayQueue;
use masq_device::{CaptureView, EndpointKey};
use masq_wire::{Flow, TrafficClass};
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory of a ring.
const BUDGET: usize = 32 << 20;
/// What a place takes besides its bytes, about.
const OVERHEAD: usize = 128;
const MOST_PLACES: usize = 1 << 16;

/// One capture. The engine writes, another thread reads.
pub(crate) struct Tap {
    pub(super) endpoint: EndpointKey,
    pub(super) view: CaptureView,
    free: ArrayQueue<Box<Kept>>,
    full: ArrayQueue<Box<Kept>>,
    lost: AtomicU64,
}

/// A packet, as far as it is not in the bytes that were kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The engine's.
    pub(crate) time: u64,
    pub(crate) flow: Flow,
    /// None: it is not known, but follows from the ICRC.
    pub(crate) ip_id: Option<u16>,
    /// The ICRC has to be made.
    pub(crate) renamed: bool,
    pub(crate) class: TrafficClass,
    pub(crate) hop_limit: u8,
    /// From BTH to ICRC.
    pub(crate) length: usize,
}

/// What was kept of a packet.
pub(crate) struct Kept {
    pub(crate) shape: Option<Shape>,
    bytes: Box<[u8]>,
    len: usize,
}

impl Kept {
    /// Its first bytes, from the BTH on.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Tap {
    /// A ring for packets of which `keep` bytes are kept, from the BTH on.
    pub(crate) fn new(endpoint: EndpointKey, view: CaptureView, keep: usize) -> Self {
        let keep = keep.min(masq_port::MAX_PACKET);
        let places = (BUDGET / (keep + OVERHEAD)).clamp(1, MOST_PLACES);
        Self::with_places(endpoint, view, keep, places)
    }

    pub(crate) fn with_places(
        endpoint: EndpointKey,
        view: CaptureView,
        keep: usize,
        places: usize,
    ) -> Self {
        let free = ArrayQueue::new(places);
        for _ in 0..places {
            let _ = free.push(Box::new(Kept {
                shape: None,
                bytes: vec![0; keep].into_boxed_slice(),
                len: 0,
            }));
        }
        Self {
            endpoint,
            view,
            free,
            full: ArrayQueue::new(places),
            lost: AtomicU64::new(0),
        }
    }

    /// Keeps a packet, if there is a place. `copy` fills the front of it and says
    /// how much of it it filled.
    pub(super) fn keep(&self, shape: Shape, copy: impl Fn(&mut [u8]) -> usize) {
        let Some(mut kept) = self.free.pop() else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let most = shape.length.min(kept.bytes.len());
        kept.len = kept.bytes.get_mut(..most).map_or(0, copy).min(most);
        kept.shape = Some(shape);
        // As many places as there are in all.
        let _ = self.full.push(kept);
    }

    /// The oldest packet; to be given back.
    pub(crate) fn take(&self) -> Option<Box<Kept>> {
        self.full.pop()
    }

    /// Its place is free again.
    pub(crate) fn give_back(&self, kept: Box<Kept>) {
        let _ = self.free.push(kept);
    }

    /// Packets that found no place.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
