//! Memory windows.

use crate::context::Context;
use crate::errno;
use crate::send::post_send;
use libc::c_int;
use masq_spec::command::Opcode;
use masq_spec::queue::SendWqe;
use masq_spec::verbs::{AllocMw, MrCreated, MwType};
use masq_verbs_abi::*;

/// What a BIND_MW request says.
pub(crate) struct Binding {
    new_key: u32,
    old_key: u32,
    lkey: u32,
    addr: u64,
    len: u64,
    access: u32,
}

impl Binding {
    /// # Safety
    /// The region of `info` is NULL or valid.
    pub(crate) unsafe fn new(mw: &ibv_mw, new_key: u32, info: &ibv_mw_bind_info) -> Self {
        // SAFETY: the caller's promise. Without a region the window is unbound.
        let lkey = unsafe { info.mr.as_ref() }.map_or(0, |mr| mr.lkey);
        Self {
            new_key,
            old_key: mw.rkey,
            lkey,
            addr: info.addr,
            len: if lkey == 0 { 0 } else { info.length },
            access: info.mw_access_flags,
        }
    }

    pub(crate) fn write(&self, wqe: &mut SendWqe) {
        wqe.imm_data = self.new_key;
        wqe.rkey = self.old_key;
        wqe.ah = self.lkey;
        wqe.remote_addr = self.addr;
        wqe.compare_add = self.len;
        wqe.swap = u64::from(self.access);
    }

    /// A window has its new key from the posting on, as with hardware drivers.
    ///
    /// # Safety
    /// A valid window.
    pub(crate) unsafe fn posted(mw: *mut ibv_mw, new_key: u32) {
        // SAFETY: the caller's promise.
        unsafe { (*mw).rkey = new_key };
    }
}

/// `ibv_inc_rkey`: the low 8 bits of a key are its owner's.
fn next_key(key: u32) -> u32 {
    key & !0xff | u32::from((key as u8).wrapping_add(1))
}

/// `ibv_alloc_mw`.
pub(crate) unsafe extern "C" fn alloc_mw(pd: *mut ibv_pd, kind: c_enum) -> *mut ibv_mw {
    if kind != MwType::Type1 as u32 && kind != MwType::Type2 as u32 {
        return errno::null(libc::EINVAL);
    }
    // SAFETY: the caller's PD.
    let (context, pd_handle) = unsafe { ((*pd).context, (*pd).handle) };
    // SAFETY: the PD's context.
    let ctx = unsafe { Context::of(context) };
    let request = AllocMw {
        pd: pd_handle,
        mw_type: kind,
    };
    match ctx
        .session
        .command::<_, MrCreated>(Opcode::AllocMw, &request)
    {
        Ok(created) => Box::into_raw(Box::new(ibv_mw {
            context,
            pd,
            rkey: created.rkey,
            handle: created.handle,
            type_: kind,
        })),
        Err(error) => errno::null(error.errno()),
    }
}

/// `ibv_dealloc_mw`.
pub(crate) unsafe extern "C" fn dealloc_mw(mw: *mut ibv_mw) -> c_int {
    // SAFETY: the caller's window and its context.
    let (ctx, id) = unsafe { (Context::of((*mw).context), (*mw).handle) };
    if let Err(error) = ctx.session.destroy(Opcode::DeallocMw, id) {
        return error.errno();
    }
    // SAFETY: made as a box, and the caller's last use.
    drop(unsafe { Box::from_raw(mw) });
    0
}

/// `ibv_bind_mw`: a BIND_MW request with the window's next key.
pub(crate) unsafe extern "C" fn bind_mw(
    qp: *mut ibv_qp,
    mw: *mut ibv_mw,
    bind: *mut ibv_mw_bind,
) -> c_int {
    // SAFETY: the caller's structures.
    let (mw_ref, bind) = unsafe { (&*mw, &*bind) };
    // SAFETY: a structure of integers, pointers and unions of such.
    let mut wr: ibv_send_wr = unsafe { std::mem::zeroed() };
    wr.wr_id = bind.wr_id;
    wr.opcode = IBV_WR_BIND_MW;
    wr.send_flags = bind.send_flags;
    wr.tail.bind_mw = ibv_wr_bind_mw {
        mw,
        rkey: next_key(mw_ref.rkey),
        bind_info: bind.bind_info,
    };
    let mut bad = std::ptr::null_mut();
    // SAFETY: the caller's QP, and a list of one request.
    unsafe { post_send(qp, &mut wr, &mut bad) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_key_changes_only_the_owners_byte() {
        assert_eq!(next_key(0x1234_56fe), 0x1234_56ff);
        assert_eq!(next_key(0x1234_56ff), 0x1234_5600);
    }
}
