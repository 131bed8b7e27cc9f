//! The extended polling of completion queues (`ibv_start_poll` and what follows).

use crate::cq::{Cq, CqState, NewCq, announce, create, rest};
use crate::errno;
use libc::c_int;
use masq_spec::verbs::CreateCq;
use masq_verbs_abi::*;

/// What can be read of a completion here.
const SUPPORTED: u64 = (IBV_WC_STANDARD_FLAGS
    | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP
    | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK) as u64;
const TIMESTAMPS: u64 =
    (IBV_WC_EX_WITH_COMPLETION_TIMESTAMP | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK) as u64;

/// `ibv_create_cq_ex`.
pub(crate) unsafe extern "C" fn create_cq_ex(
    context: *mut ibv_context,
    attr: *mut ibv_cq_init_attr_ex,
) -> *mut ibv_cq_ex {
    // SAFETY: the caller's structure.
    let attr = unsafe { &*attr };
    let masks = IBV_CQ_INIT_ATTR_MASK_FLAGS | IBV_CQ_INIT_ATTR_MASK_PD;
    let has_flags = attr.comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS != 0;
    let create_flags = if has_flags { attr.flags } else { 0 };
    let known = IBV_CREATE_CQ_ATTR_SINGLE_THREADED | IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN;
    if attr.comp_mask & !masks != 0 || create_flags & !known != 0 {
        return errno::null(libc::EINVAL);
    }
    if attr.wc_flags & !SUPPORTED != 0 {
        return errno::null(libc::EOPNOTSUPP);
    }
    let mut flags = 0;
    if attr.wc_flags & TIMESTAMPS != 0 {
        flags |= CreateCq::TIMESTAMP;
    }
    if create_flags & IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN != 0 {
        flags |= CreateCq::IGNORE_OVERRUN;
    }
    let new = NewCq {
        cqe: attr.cqe,
        cq_context: attr.cq_context,
        channel: attr.channel,
        comp_vector: attr.comp_vector,
        flags,
    };
    // SAFETY: the caller's context and channel.
    match unsafe { create(context, new) } {
        Ok(mut cq) => {
            fill_readers(&mut cq.abi);
            announce(cq).cast()
        }
        Err(error) => errno::null(error),
    }
}

fn fill_readers(cq: &mut ibv_cq_ex) {
    cq.start_poll = Some(start_poll);
    cq.next_poll = Some(next_poll);
    cq.end_poll = Some(end_poll);
    cq.read_opcode = Some(read_opcode);
    cq.read_vendor_err = Some(read_vendor_err);
    cq.read_byte_len = Some(read_byte_len);
    cq.read_imm_data = Some(read_imm_data);
    cq.read_qp_num = Some(read_qp_num);
    cq.read_src_qp = Some(read_src_qp);
    cq.read_wc_flags = Some(read_wc_flags);
    cq.read_slid = Some(read_slid);
    cq.read_sl = Some(read_sl);
    cq.read_dlid_path_bits = Some(read_dlid_path_bits);
    cq.read_completion_ts = Some(read_completion_ts);
    cq.read_completion_wallclock_ns = Some(read_completion_ts);
    // Never asked for: `create_cq_ex` refused the flags. A zero is better than NULL.
    cq.read_cvlan = Some(read_cvlan);
    cq.read_flow_tag = Some(read_flow_tag);
    cq.read_tm_info = Some(read_tm_info);
}

/// Takes a completion for the program to read; false if there is none.
///
/// # Safety
/// The state is that of `cq`, whose lock is held.
unsafe fn advance(cq: *mut ibv_cq_ex, state: &mut CqState) -> bool {
    // SAFETY: the caller's promise.
    let stand_ins = unsafe { Cq::of(cq.cast()) }.context().stand_ins.in_use();
    let taken = state.take();
    if let Some(stand_ins) = stand_ins {
        if let Some(cqe) = &taken {
            stand_ins.completed(cqe);
        }
        stand_ins.merge();
    }
    let Some(cqe) = taken else {
        return false;
    };
    state.current = cqe;
    // SAFETY: the caller's CQ, held by this thread.
    unsafe {
        (*cq).status = u32::from(cqe.status);
        (*cq).wr_id = cqe.wr_id;
    }
    true
}

/// Begins a batch, holding the CQ's lock until `end_poll`; ENOENT if it is empty.
unsafe extern "C" fn start_poll(cq: *mut ibv_cq_ex, attr: *mut ibv_poll_cq_attr) -> c_int {
    // SAFETY: the caller's structure.
    if !attr.is_null() && unsafe { (*attr).comp_mask } != 0 {
        return libc::EINVAL;
    }
    // SAFETY: the caller's CQ.
    let this = unsafe { Cq::of(cq.cast()) };
    this.state.acquire();
    // SAFETY: the lock is held.
    let state = unsafe { this.state.held() };
    // SAFETY: as above.
    if unsafe { advance(cq, state) } {
        return 0;
    }
    let idle = this.idle(state);
    // SAFETY: taken above.
    unsafe { this.state.release() };
    if rest(&idle) { libc::EIO } else { libc::ENOENT }
}

/// The next completion of the batch; ENOENT if there is none.
unsafe extern "C" fn next_poll(cq: *mut ibv_cq_ex) -> c_int {
    // SAFETY: the caller's CQ, between start_poll and end_poll.
    let found = unsafe { advance(cq, Cq::of(cq.cast()).state.held()) };
    if found { 0 } else { libc::ENOENT }
}

/// Ends the batch.
unsafe extern "C" fn end_poll(cq: *mut ibv_cq_ex) {
    // SAFETY: the caller's CQ, after start_poll.
    unsafe {
        let this = Cq::of(cq.cast());
        this.state.held().publish_consumer();
        this.state.release();
    }
}

/// Functions that read one field of the current completion.
macro_rules! readers {
    ($($name:ident -> $type:ty: |$cqe:ident| $value:expr;)*) => {$(
        unsafe extern "C" fn $name(cq: *mut ibv_cq_ex) -> $type {
            // SAFETY: the caller's CQ, between start_poll and end_poll.
            let $cqe = unsafe { &Cq::of(cq.cast()).state.held().current };
            $value
        }
    )*};
}

readers! {
    read_opcode -> c_enum: |cqe| u32::from(cqe.opcode);
    read_vendor_err -> u32: |cqe| cqe.vendor_err;
    read_byte_len -> u32: |cqe| cqe.byte_len;
    read_imm_data -> u32: |cqe| cqe.imm_data;
    read_qp_num -> u32: |cqe| cqe.qp_num;
    read_src_qp -> u32: |cqe| cqe.src_qp;
    read_wc_flags -> u32: |cqe| u32::from(cqe.flags);
    read_slid -> u32: |cqe| u32::from(cqe.slid);
    read_sl -> u8: |cqe| cqe.sl;
    read_dlid_path_bits -> u8: |cqe| cqe.dlid_path_bits;
    read_completion_ts -> u64: |cqe| cqe.timestamp;
    read_cvlan -> u16: |_cqe| 0;
    read_flow_tag -> u32: |_cqe| 0;
}

unsafe extern "C" fn read_tm_info(_cq: *mut ibv_cq_ex, info: *mut ibv_wc_tm_info) {
    // SAFETY: the caller's structure.
    unsafe { *info = ibv_wc_tm_info { tag: 0, priv_: 0 } };
}
