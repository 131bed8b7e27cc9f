//! Stand-ins: memory in the shared file in place of what a region has outside of it
//! (SPEC clause 4.2).
//!
//! The device uses the stand-in's bytes; the library copies. What a send reads is copied
//! before it is published, what a receive, READ or atomic wrote when its completion is
//! taken ([`pending`]). What peers read and write by their own requests cannot be tied to
//! a request of this side: such regions are kept in step by a merge at each call
//! ([`region`]).
//!
//! A process without stand-ins pays one relaxed load on each post and poll.

mod pending;
mod region;

pub(crate) use pending::{Queues, Receives, Sends};
pub(crate) use region::Region;

use crate::lock::Lock;
use masq_regmem::fork_generation;
use masq_spec::queue::{
    Cqe, RECV_DATA, RecvWqe, SEND_DATA, SendFlags, SendOpcode, SendWqe, Sge, WcOpcode, WcStatus,
};
use parking_lot::RwLock;
use pending::{Piece, Pieces};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Receives' completions have this bit in their opcode.
const RECEIVES: u8 = WcOpcode::Recv as u8;

/// How many regions of this process have stand-ins.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Those that peers may name. Of the whole process: one context may be a peer of another.
static MERGED: AtomicPtr<Merged> = AtomicPtr::new(std::ptr::null_mut());

struct Merged {
    /// Of the process whose regions they are.
    generation: u32,
    regions: RwLock<Vec<Arc<Region>>>,
}

/// The regions of this process that are merged. A forked child begins with none, and with a lock
/// that none of its parent's threads held.
fn merged() -> &'static RwLock<Vec<Arc<Region>>> {
    let generation = fork_generation();
    let found = MERGED.load(Ordering::Acquire);
    // SAFETY: NULL or leaked below.
    if let Some(merged) = unsafe { found.as_ref() }
        && merged.generation == generation
    {
        return &merged.regions;
    }
    let new = Box::into_raw(Box::new(Merged {
        generation,
        regions: RwLock::default(),
    }));
    let installed = MERGED.compare_exchange(found, new, Ordering::AcqRel, Ordering::Acquire);
    match installed {
        // SAFETY: leaked from now on.
        Ok(_) => unsafe { &(*new).regions },
        Err(theirs) => {
            // SAFETY: made above, and known to nobody.
            drop(unsafe { Box::from_raw(new) });
            // SAFETY: as above; another thread was quicker.
            unsafe { &(*theirs).regions }
        }
    }
}

/// The regions of a context that have stand-ins, and the requests that will write them.
#[derive(Default)]
pub(crate) struct StandIns {
    by_key: RwLock<HashMap<u32, Arc<Region>>>,
    /// By QP number, of every QP.
    queues: RwLock<HashMap<u32, Queues>>,
}

impl StandIns {
    /// Itself, if there is any region in the process.
    #[inline]
    pub(crate) fn in_use(&self) -> Option<&Self> {
        // The program orders registering against posting and polling itself.
        (COUNT.load(Ordering::Relaxed) != 0).then_some(self)
    }

    /// Makes a region known by its local key.
    pub(crate) fn add(&self, key: u32, region: &Arc<Region>) {
        if let Some(old) = self.by_key.write().insert(key, Arc::clone(region)) {
            forget(&old); // it ends just now, and its key is used again
        } else {
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
        if region.is_merged() {
            merged().write().push(Arc::clone(region));
        }
    }

    /// Has a region that peers may name from now on kept in step.
    pub(crate) fn merge_too(&self, region: &Arc<Region>) {
        if region.begin_merging() {
            merged().write().push(Arc::clone(region));
        }
    }

    /// Ends a region, of which the device has let go. What is still pending for it is dropped.
    pub(crate) fn remove(&self, key: u32, region: &Arc<Region>) {
        let mut by_key = self.by_key.write();
        if by_key
            .get(&key)
            .is_some_and(|held| Arc::ptr_eq(held, region))
        {
            by_key.remove(&key);
            COUNT.fetch_sub(1, Ordering::Relaxed);
        }
        drop(by_key);
        forget(region);
        region.end();
    }

    /// Makes the queues of a QP known.
    pub(crate) fn add_queues(&self, qp_num: u32, queues: &Queues) {
        self.queues.write().insert(qp_num, queues.clone());
    }

    /// Forgets the queues of a destroyed QP, whose number may be another's already.
    pub(crate) fn remove_queues(&self, qp_num: u32, queues: &Queues) {
        let mut all = self.queues.write();
        if all.get(&qp_num).is_some_and(|held| held.is(queues)) {
            all.remove(&qp_num);
        }
    }

    /// Brings everything that peers may name in step with the program's memory.
    #[inline]
    pub(crate) fn merge(&self) {
        for region in merged().read().iter() {
            region.merge();
        }
    }

    /// Copies what a send reads; remembers what it will write. To be called when all of the
    /// slot but its stamp is written.
    ///
    /// # Safety
    /// A slot of a send ring with room for `max_sge` elements, whose elements name memory of
    /// the program.
    pub(crate) unsafe fn before_send(
        &self,
        sends: &Lock<Sends>,
        index: u32,
        slot: *const u8,
        max_sge: u32,
    ) {
        // SAFETY: a slot is at least a head long, and aligned to 64 bytes.
        let wqe = unsafe { &*slot.cast::<SendWqe>() };
        let Some(opcode) = SendOpcode::from_raw(wqe.opcode) else {
            return;
        };
        if wqe.flags & SendFlags::INLINE.bits() != 0 {
            return;
        }
        // SAFETY: the caller's promise.
        let list = unsafe { elements(slot, SEND_DATA, u32::from(wqe.num_sge), max_sge) };
        match opcode {
            SendOpcode::Send
            | SendOpcode::SendWithImm
            | SendOpcode::SendWithInv
            | SendOpcode::RdmaWrite
            | SendOpcode::RdmaWriteWithImm => {
                let by_key = self.by_key.read();
                for sge in list {
                    if let Some(region) = by_key.get(&sge.lkey)
                        && let Some(range) = region.touched(sge.addr, sge.length)
                    {
                        for range in sends.with(|sends| sends.unwritten(region, range)) {
                            // SAFETY: the program registered it and posts it now.
                            unsafe { region.fetch(range) };
                        }
                    }
                }
            }
            SendOpcode::RdmaRead | SendOpcode::CompareSwap | SendOpcode::FetchAdd => {
                let pieces = self.pieces(list);
                if !pieces.is_empty() {
                    sends.with(|sends| sends.push(index, pieces));
                }
            }
            SendOpcode::LocalInv | SendOpcode::BindMw => {}
        }
    }

    /// Remembers what a receive will write. To be called when all of the slot but its stamp is
    /// written.
    ///
    /// # Safety
    /// A slot of a receive ring with room for `max_sge` elements.
    pub(crate) unsafe fn before_receive(
        &self,
        receives: &Lock<Receives>,
        index: u32,
        slot: *const u8,
        max_sge: u32,
    ) {
        // SAFETY: a slot is at least a head long, and aligned to 16 bytes.
        let num_sge = unsafe { (*slot.cast::<RecvWqe>()).num_sge };
        // SAFETY: the caller's promise.
        let pieces = self.pieces(unsafe { elements(slot, RECV_DATA, num_sge, max_sge) });
        if !pieces.is_empty() {
            receives.with(|receives| receives.push(index, pieces));
        }
    }

    /// The elements that touch stand-ins.
    fn pieces(&self, list: &[Sge]) -> Pieces {
        let by_key = self.by_key.read();
        let mut skip = 0u32;
        let mut pieces = Pieces::new();
        for sge in list {
            if let Some(region) = by_key.get(&sge.lkey)
                && let Some(range) = region.touched(sge.addr, sge.length)
            {
                pieces.push(Piece {
                    region: Arc::clone(region),
                    range,
                    skip,
                });
            }
            skip = skip.saturating_add(sge.length);
        }
        pieces
    }

    /// Copies what a completed request wrote to the program, before the program is told.
    pub(crate) fn completed(&self, cqe: &Cqe) {
        let queues = self.queues.read();
        let Some(queues) = queues.get(&cqe.qp_num) else {
            return;
        };
        let success = cqe.status == WcStatus::Success as u8;
        if cqe.opcode & RECEIVES == 0 {
            // A success has written all that its list names, and so had earlier ones.
            queues.send.with(|sends| {
                sends.complete(cqe.index, success, |pieces| deliver(&pieces, u32::MAX));
            });
            return;
        }
        let pieces = queues.recv.with(|receives| receives.complete(cqe.index));
        // What came by RDMA_WRITE_WITH_IMM did not go where the receive says.
        if let Some(pieces) = pieces
            && success
            && cqe.opcode == RECEIVES
        {
            deliver(&pieces, cqe.byte_len);
        }
    }
}

impl Drop for StandIns {
    fn drop(&mut self) {
        for region in self.by_key.get_mut().values() {
            COUNT.fetch_sub(1, Ordering::Relaxed);
            forget(region);
            region.abandon();
        }
    }
}

/// Merges a region no more.
fn forget(region: &Arc<Region>) {
    merged().write().retain(|held| !Arc::ptr_eq(held, region));
}

/// Copies the first `len` bytes of a message.
fn deliver(pieces: &Pieces, len: u32) {
    for piece in pieces {
        let room = len.saturating_sub(piece.skip) as usize;
        let end = piece.range.end.min(piece.range.start.saturating_add(room));
        // SAFETY: the program's request named it as a place to write to.
        unsafe { piece.region.deliver(piece.range.start..end) };
    }
}

/// The elements of a slot.
///
/// # Safety
/// A slot with room for `max` elements from `offset` on.
unsafe fn elements<'a>(slot: *const u8, offset: usize, count: u32, max: u32) -> &'a [Sge] {
    // SAFETY: the caller's promise; elements are aligned to 16 bytes.
    unsafe { std::slice::from_raw_parts(slot.add(offset).cast(), count.min(max) as usize) }
}
