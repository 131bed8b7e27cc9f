//! Extended queue pairs: `ibv_wr_start`, builders and setters, `ibv_wr_complete`.
//!
//! The send queue's lock is held from start to complete or abort. A builder fills the
//! head of the next slot at once, setters what lies behind it; slots are published
//! together by `wr_complete`.

use crate::errno;
use crate::mw::Binding;
use crate::qp::{Qp, announce, create};
use crate::recv::copy_sges;
use crate::send::takes_sends;
use crate::send::{SendQueue, address, copy_inline, write_head};
use libc::{c_int, c_void};
use masq_spec::queue::{SEND_DATA, SendFlags, SendWqe};
use masq_verbs_abi::*;

/// Operations that a QP may be created with.
const SUPPORTED: u64 = (IBV_QP_EX_WITH_RDMA_WRITE
    | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM
    | IBV_QP_EX_WITH_SEND
    | IBV_QP_EX_WITH_SEND_WITH_IMM
    | IBV_QP_EX_WITH_RDMA_READ
    | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP
    | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD
    | IBV_QP_EX_WITH_LOCAL_INV
    | IBV_QP_EX_WITH_BIND_MW
    | IBV_QP_EX_WITH_SEND_WITH_INV) as u64;

/// `ibv_create_qp_ex`.
pub(crate) unsafe extern "C" fn create_qp_ex(
    _context: *mut ibv_context,
    init: *mut ibv_qp_init_attr_ex,
) -> *mut ibv_qp {
    // SAFETY: the caller's structure.
    let ex = unsafe { &*init };
    let has = |bit: c_enum| ex.comp_mask & bit != 0;
    let known =
        IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
    let flags = has(IBV_QP_INIT_ATTR_CREATE_FLAGS) && ex.create_flags != 0;
    if ex.comp_mask & !known != 0 || flags {
        return errno::null(libc::EOPNOTSUPP);
    }
    if !has(IBV_QP_INIT_ATTR_PD) || ex.pd.is_null() {
        return errno::null(libc::EINVAL);
    }
    let extended = has(IBV_QP_INIT_ATTR_SEND_OPS_FLAGS);
    if extended && ex.send_ops_flags & !SUPPORTED != 0 {
        return errno::null(libc::EOPNOTSUPP);
    }
    // SAFETY: the basic structure is a prefix of the extended one; the caller's objects.
    match unsafe { create(ex.pd, &mut *init.cast::<ibv_qp_init_attr>()) } {
        Ok(mut qp) => {
            if extended {
                qp.is_extended = true;
                fill(&mut qp.abi);
            }
            announce(qp)
        }
        Err(error) => errno::null(error),
    }
}

/// The extended QP, or NULL if it was created without SEND_OPS_FLAGS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_qp_to_qp_ex(qp: *mut ibv_qp) -> *mut ibv_qp_ex {
    // SAFETY: the caller's QP.
    if unsafe { Qp::of(qp) }.is_extended {
        qp.cast()
    } else {
        std::ptr::null_mut()
    }
}

fn fill(qp: &mut ibv_qp_ex) {
    qp.wr_atomic_cmp_swp = Some(atomic_cmp_swp);
    qp.wr_atomic_fetch_add = Some(atomic_fetch_add);
    qp.wr_bind_mw = Some(bind_mw);
    qp.wr_local_inv = Some(local_inv);
    qp.wr_rdma_read = Some(rdma_read);
    qp.wr_rdma_write = Some(rdma_write);
    qp.wr_rdma_write_imm = Some(rdma_write_imm);
    qp.wr_send = Some(send);
    qp.wr_send_imm = Some(send_imm);
    qp.wr_send_inv = Some(send_inv);
    qp.wr_send_tso = Some(send_tso);
    qp.wr_set_ud_addr = Some(set_ud_addr);
    qp.wr_set_xrc_srqn = Some(set_xrc_srqn);
    qp.wr_set_inline_data = Some(set_inline_data);
    qp.wr_set_inline_data_list = Some(set_inline_data_list);
    qp.wr_set_sge = Some(set_sge);
    qp.wr_set_sge_list = Some(set_sge_list);
    qp.wr_start = Some(start);
    qp.wr_complete = Some(complete);
    qp.wr_abort = Some(abort);
    qp.wr_atomic_write = Some(atomic_write);
    qp.wr_flush = Some(flush);
}

unsafe extern "C" fn start(qp: *mut ibv_qp_ex) {
    // SAFETY: the caller's QP.
    let this = unsafe { Qp::of(qp.cast()) };
    this.send.acquire();
    // SAFETY: the lock is held.
    let queue = unsafe { this.send.held() };
    queue.batch.first = queue.ring.posted();
    queue.batch.slot = 0;
    // SAFETY: the caller's QP.
    let takes = unsafe { takes_sends(&raw const (*qp).qp_base, (*qp).qp_base.state) };
    queue.batch.error = if takes { 0 } else { libc::EINVAL };
}

unsafe extern "C" fn complete(qp: *mut ibv_qp_ex) -> c_int {
    // SAFETY: the caller's QP, after start.
    let this = unsafe { Qp::of(qp.cast()) };
    // SAFETY: start took the lock.
    let queue = unsafe { this.send.held() };
    let (first, error) = (queue.batch.first, queue.batch.error);
    if error == 0 {
        if let Some(stand_ins) = this.context().stand_ins.in_use() {
            stand_ins.merge();
            let mut index = first;
            while index != queue.ring.posted() {
                let slot = queue.ring.memory.slot(index);
                // SAFETY: built since start, and not yet published.
                unsafe {
                    stand_ins.before_send(&this.pending.send, index, slot, queue.max_sge);
                }
                index = index.wrapping_add(1);
            }
        }
        queue.ring.publish_since(first);
    } else {
        queue.ring.rewind(first);
    }
    // SAFETY: as above.
    unsafe { this.send.release() };
    if error == 0 {
        this.ring_doorbell();
    }
    error
}

unsafe extern "C" fn abort(qp: *mut ibv_qp_ex) {
    // SAFETY: the caller's QP, after start, which took the lock.
    unsafe {
        let this = Qp::of(qp.cast());
        let queue = this.send.held();
        queue.ring.rewind(queue.batch.first);
        this.send.release();
    }
}

impl SendQueue {
    fn fail(&mut self, error: c_int) {
        if self.batch.error == 0 {
            self.batch.error = error;
        }
        self.batch.slot = 0;
    }

    /// Begins a request whose fields `set` fills.
    fn build(&mut self, qp: &ibv_qp_ex, opcode: c_enum, set: impl FnOnce(&mut SendWqe)) {
        let Some(opcode) = self.opcode(opcode) else {
            return self.fail(libc::EINVAL);
        };
        if self.batch.error != 0 {
            return;
        }
        let Some(slot) = self.ring.next_slot() else {
            return self.fail(libc::ENOMEM);
        };
        // Data comes by a setter, which also says whether it is inline.
        let flags = self.flags(qp.wr_flags) - SendFlags::INLINE;
        let mut wqe = SendWqe {
            opcode: opcode as u8,
            flags: flags.bits(),
            wr_id: qp.wr_id,
            ..SendWqe::default()
        };
        set(&mut wqe);
        // SAFETY: a free slot.
        unsafe { write_head(slot, &wqe) };
        self.ring.take();
        self.batch.slot = slot as usize;
    }

    /// Changes the head of the request under way; `data` is what lies behind it.
    fn change(&mut self, f: impl FnOnce(&Self, &mut SendWqe, *mut u8) -> Result<(), c_int>) {
        if self.batch.slot == 0 {
            return;
        }
        let slot = self.batch.slot as *mut u8;
        // SAFETY: a slot of this ring that is not published yet.
        let mut wqe = unsafe { slot.cast::<SendWqe>().read() };
        match f(self, &mut wqe, slot) {
            // SAFETY: as above.
            Ok(()) => unsafe { write_head(slot, &wqe) },
            Err(error) => self.fail(error),
        }
    }
}

/// The queue of a QP whose batch is open.
///
/// # Safety
/// The caller's QP, between start and complete or abort.
unsafe fn queue<'a>(qp: *mut ibv_qp_ex) -> (&'a mut SendQueue, &'a ibv_qp_ex) {
    // SAFETY: the caller's promise; start took the lock.
    unsafe {
        let this = Qp::of(qp.cast());
        (this.send.held(), &*qp)
    }
}

/// Builders: a function of the QP and some arguments that sets fields of a request.
macro_rules! builders {
    ($($name:ident($($arg:ident: $type:ty),*) $opcode:ident |$wqe:ident| $set:expr;)*) => {$(
        unsafe extern "C" fn $name(qp: *mut ibv_qp_ex $(, $arg: $type)*) {
            // SAFETY: the program calls it between start and complete.
            let (queue, qp) = unsafe { queue(qp) };
            queue.build(qp, $opcode, |$wqe| $set);
        }
    )*};
}

builders! {
    atomic_cmp_swp(rkey: u32, addr: u64, compare: u64, swap: u64) IBV_WR_ATOMIC_CMP_AND_SWP |w| {
        remote(w, rkey, addr);
        w.compare_add = compare;
        w.swap = swap;
    };
    atomic_fetch_add(rkey: u32, addr: u64, add: u64) IBV_WR_ATOMIC_FETCH_AND_ADD |w| {
        remote(w, rkey, addr);
        w.compare_add = add;
    };
    local_inv(rkey: u32) IBV_WR_LOCAL_INV |w| w.imm_data = rkey;
    rdma_read(rkey: u32, addr: u64) IBV_WR_RDMA_READ |w| remote(w, rkey, addr);
    rdma_write(rkey: u32, addr: u64) IBV_WR_RDMA_WRITE |w| remote(w, rkey, addr);
    rdma_write_imm(rkey: u32, addr: u64, imm: u32) IBV_WR_RDMA_WRITE_WITH_IMM |w| {
        remote(w, rkey, addr);
        w.imm_data = imm;
    };
    send() IBV_WR_SEND |_w| {};
    send_imm(imm: u32) IBV_WR_SEND_WITH_IMM |w| w.imm_data = imm;
    send_inv(rkey: u32) IBV_WR_SEND_WITH_INV |w| w.imm_data = rkey;
}

fn remote(wqe: &mut SendWqe, rkey: u32, addr: u64) {
    wqe.rkey = rkey;
    wqe.remote_addr = addr;
}

unsafe extern "C" fn bind_mw(
    qp: *mut ibv_qp_ex,
    mw: *mut ibv_mw,
    rkey: u32,
    info: *const ibv_mw_bind_info,
) {
    // SAFETY: the program calls it between start and complete, with valid structures.
    let ((queue, qp), binding) = unsafe { (queue(qp), Binding::new(&*mw, rkey, &*info)) };
    queue.build(qp, IBV_WR_BIND_MW, |wqe| binding.write(wqe));
    if queue.batch.error == 0 {
        // SAFETY: the caller's window.
        unsafe { Binding::posted(mw, rkey) };
    }
}

unsafe extern "C" fn set_ud_addr(qp: *mut ibv_qp_ex, ah: *mut ibv_ah, qpn: u32, qkey: u32) {
    // SAFETY: the program calls it after a builder, with a valid handle.
    let ((queue, _), ah) = unsafe { (queue(qp), &*ah) };
    queue.change(|_, wqe, _| {
        address(wqe, ah, qpn, qkey);
        Ok(())
    });
}

unsafe extern "C" fn set_sge(qp: *mut ibv_qp_ex, lkey: u32, addr: u64, length: u32) {
    let sge = ibv_sge { addr, length, lkey };
    // SAFETY: a list of one.
    unsafe { set_sge_list(qp, 1, &sge) };
}

unsafe extern "C" fn set_sge_list(qp: *mut ibv_qp_ex, count: usize, list: *const ibv_sge) {
    // SAFETY: the program calls it after a builder.
    let (queue, _) = unsafe { queue(qp) };
    queue.change(|queue, wqe, slot| {
        if count > queue.max_sge as usize {
            return Err(libc::EINVAL);
        }
        // SAFETY: the caller's list; the stride holds `max_sge` elements.
        wqe.num_sge = unsafe { copy_sges(slot.add(SEND_DATA), list, count) } as u8;
        Ok(())
    });
}

unsafe extern "C" fn set_inline_data(qp: *mut ibv_qp_ex, addr: *mut c_void, length: usize) {
    let piece = ibv_data_buf { addr, length };
    // SAFETY: a list of one.
    unsafe { set_inline_data_list(qp, 1, &piece) };
}

unsafe extern "C" fn set_inline_data_list(
    qp: *mut ibv_qp_ex,
    count: usize,
    list: *const ibv_data_buf,
) {
    // SAFETY: the program calls it after a builder.
    let (queue, _) = unsafe { queue(qp) };
    queue.change(|queue, wqe, slot| {
        let pieces = (0..count).map(|i| {
            // SAFETY: the caller's list.
            let piece = unsafe { &*list.add(i) };
            (piece.addr.cast_const().cast::<u8>(), piece.length)
        });
        // SAFETY: the caller's pieces; the stride holds `max_inline` bytes.
        let len = unsafe { copy_inline(slot, queue.max_inline, pieces) };
        wqe.inline_len = len.ok_or(libc::ENOMEM)?;
        wqe.flags |= SendFlags::INLINE.bits();
        Ok(())
    });
}

/// Operations that no QP is created with: the batch fails.
macro_rules! unsupported {
    ($($name:ident($($type:ty),*);)*) => {$(
        unsafe extern "C" fn $name(qp: *mut ibv_qp_ex $(, _: $type)*) {
            // SAFETY: the program calls it between start and complete.
            unsafe { queue(qp) }.0.fail(libc::EOPNOTSUPP);
        }
    )*};
}

unsupported! {
    send_tso(*mut c_void, u16, u16);
    set_xrc_srqn(u32);
    atomic_write(u32, u64, *const c_void);
    flush(u32, u64, usize, u8, u8);
}
