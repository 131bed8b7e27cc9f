//! Posting receives, to a QP's own queue or a shared one.

use crate::lock::Lock;
use crate::ring::WorkRing;
use crate::stand_in::{Receives, StandIns};
use crate::{qp, srq};
use libc::c_int;
use masq_spec::queue::{HDR_RECEIVE_BELL, RECV_DATA, RecvWqe, Sge};
use masq_verbs_abi::*;
use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

/// What has to be told of posted receives, if any region has stand-ins.
type Watch<'a> = Option<(&'a StandIns, &'a Lock<Receives>)>;

/// A receive queue.
pub(crate) struct RecvQueue {
    pub(crate) ring: WorkRing,
    pub(crate) max_sge: u32,
}

impl RecvQueue {
    /// Posts one receive.
    ///
    /// # Safety
    /// A valid work request.
    #[inline]
    unsafe fn post(&mut self, watch: Watch<'_>, wr: &ibv_recv_wr) -> Result<(), c_int> {
        if wr.num_sge < 0 || wr.num_sge as u32 > self.max_sge {
            return Err(libc::EINVAL);
        }
        let slot = self.ring.next_slot().ok_or(libc::ENOMEM)?;
        // SAFETY: the stride of a slot holds `max_sge` elements.
        let num_sge = unsafe { copy_sges(slot.add(RECV_DATA), wr.sg_list, wr.num_sge as usize) };
        // SAFETY: the slot is the driver's until it is committed; the stamp is left.
        unsafe {
            slot.add(offset_of!(RecvWqe, num_sge))
                .cast::<u32>()
                .write(num_sge);
            slot.add(offset_of!(RecvWqe, wr_id))
                .cast::<u64>()
                .write(wr.wr_id);
            if let Some((stand_ins, receives)) = watch {
                stand_ins.before_receive(receives, self.ring.posted(), slot, self.max_sge);
            }
        }
        self.ring.commit();
        Ok(())
    }

    /// Posts a list; on failure says which request failed.
    ///
    /// # Safety
    /// A valid list.
    unsafe fn post_list(
        &mut self,
        watch: Watch<'_>,
        mut wr: *mut ibv_recv_wr,
        bad: *mut *mut ibv_recv_wr,
    ) -> c_int {
        // SAFETY: the caller's list.
        while let Some(this) = unsafe { wr.as_ref() } {
            // SAFETY: as above.
            if let Err(error) = unsafe { self.post(watch, this) } {
                // SAFETY: the caller's variable.
                unsafe { *bad = wr };
                return error;
            }
            wr = this.next;
        }
        0
    }

    /// Posts a list and says which doorbell slot is to be rung for it, if any.
    ///
    /// # Safety
    /// As [`Self::post_list`].
    unsafe fn post_and_listen(
        &mut self,
        watch: Watch<'_>,
        wr: *mut ibv_recv_wr,
        bad: *mut *mut ibv_recv_wr,
    ) -> (c_int, Option<u32>) {
        // SAFETY: the caller's promise.
        let result = unsafe { self.post_list(watch, wr, bad) };
        // A QP that fails while this is posted finds it, or has said so by now.
        fence(Ordering::SeqCst);
        let bell = self.ring.memory.header(HDR_RECEIVE_BELL);
        (result, bell.load(Ordering::Relaxed).checked_sub(1))
    }
}

/// Copies the elements that are not empty (a length of 0 would mean 2^31 on the wire of
/// the ring, and nothing to the program). Returns how many.
///
/// # Safety
/// `list` has `count` elements, `to` room for them.
#[inline]
pub(crate) unsafe fn copy_sges(to: *mut u8, list: *const ibv_sge, count: usize) -> u32 {
    let mut kept = 0;
    for i in 0..count {
        // SAFETY: the caller's promise.
        unsafe {
            let sge = &*list.add(i);
            if sge.length == 0 {
                continue;
            }
            to.cast::<Sge>().add(kept as usize).write(Sge {
                addr: sge.addr,
                length: sge.length,
                lkey: sge.lkey,
            });
        }
        kept += 1;
    }
    kept
}

/// Whether receives that are posted now have to be watched. What the program wrote to its
/// buffers before goes to their stand-ins first, so that it does not look newer than what
/// arrives.
#[inline]
fn watch<'a>(stand_ins: &'a StandIns, receives: &'a Lock<Receives>) -> Watch<'a> {
    let stand_ins = stand_ins.in_use()?;
    stand_ins.merge();
    Some((stand_ins, receives))
}

/// `ibv_post_recv`. EINVAL in RESET and for a QP on an SRQ.
pub(crate) unsafe extern "C" fn post_recv(
    qp: *mut ibv_qp,
    wr: *mut ibv_recv_wr,
    bad: *mut *mut ibv_recv_wr,
) -> c_int {
    // SAFETY: the caller's QP.
    let (this, state) = unsafe { (qp::Qp::of(qp), (*qp).state) };
    let usable = this.recv.as_ref().filter(|_| state != IBV_QPS_RESET);
    let Some(queue) = usable else {
        // SAFETY: the caller's variable.
        unsafe { *bad = wr };
        return libc::EINVAL;
    };
    let watch = watch(&this.context().stand_ins, &this.pending.recv);
    // SAFETY: the caller's list.
    let (result, bell) = queue.with(|queue| unsafe { queue.post_and_listen(watch, wr, bad) });
    if let Some(slot) = bell {
        this.context().session.doorbell().ring(slot);
    }
    result
}

/// `ibv_post_srq_recv`.
pub(crate) unsafe extern "C" fn post_srq_recv(
    srq: *mut ibv_srq,
    wr: *mut ibv_recv_wr,
    bad: *mut *mut ibv_recv_wr,
) -> c_int {
    // SAFETY: the caller's SRQ.
    let this = unsafe { srq::Srq::of(srq) };
    let watch = watch(&this.context().stand_ins, &this.pending);
    // SAFETY: the caller's list.
    let (result, bell) = this
        .queue
        .with(|queue| unsafe { queue.post_and_listen(watch, wr, bad) });
    if let Some(slot) = bell {
        this.context().session.doorbell().ring(slot);
    }
    result
}
