//! Posting sends (`ibv_post_send`), and what it shares with `ibv_wr_*`.

use crate::mw::Binding;
use crate::qp::Qp;
use crate::recv::copy_sges;
use crate::ring::WorkRing;
use crate::stand_in::StandIns;
use libc::c_int;
use masq_spec::queue::{SEND_DATA, SendFlags, SendOpcode, SendWqe};
use masq_verbs_abi::*;

/// A send queue.
pub(crate) struct SendQueue {
    pub(crate) ring: WorkRing,
    pub(crate) max_sge: u32,
    pub(crate) max_inline: u32,
    /// SIGNALED, if every send is.
    pub(crate) always: SendFlags,
    /// Opcodes that the QP's type has, one bit each.
    pub(crate) allowed: u32,
    pub(crate) batch: Batch,
}

/// What `ibv_wr_start` began.
#[derive(Default)]
pub(crate) struct Batch {
    /// Running index of its first request.
    pub(crate) first: u32,
    /// Slot of the request that setters still change; NULL before the first.
    pub(crate) slot: usize,
    /// First error; the whole batch is dropped for it.
    pub(crate) error: c_int,
}

/// Opcodes of a QP type.
pub(crate) fn allowed_opcodes(qp_type: c_enum) -> u32 {
    const SENDS: u32 = 1 << SendOpcode::Send as u32 | 1 << SendOpcode::SendWithImm as u32;
    const WRITES: u32 = 1 << SendOpcode::RdmaWrite as u32
        | 1 << SendOpcode::RdmaWriteWithImm as u32
        | 1 << SendOpcode::SendWithInv as u32
        | 1 << SendOpcode::LocalInv as u32
        | 1 << SendOpcode::BindMw as u32;
    const READS: u32 = 1 << SendOpcode::RdmaRead as u32
        | 1 << SendOpcode::CompareSwap as u32
        | 1 << SendOpcode::FetchAdd as u32;
    match qp_type {
        IBV_QPT_UD => SENDS,
        IBV_QPT_UC => SENDS | WRITES,
        _ => SENDS | WRITES | READS,
    }
}

/// Writes the part of a slot before its data, all but the stamp.
///
/// # Safety
/// `slot` is the next free slot of a send ring.
#[inline]
pub(crate) unsafe fn write_head(slot: *mut u8, wqe: &SendWqe) {
    const STAMP: usize = 4;
    // SAFETY: the slot is the driver's until it is published; a slot has at least the
    // size of the head.
    unsafe {
        let from = (&raw const *wqe).cast::<u8>();
        let len = size_of::<SendWqe>() - STAMP;
        std::ptr::copy_nonoverlapping(from.add(STAMP), slot.add(STAMP), len);
    }
}

/// Fields that only some opcodes have.
///
/// # Safety
/// A valid work request, whose unions are those of its opcode.
#[inline]
unsafe fn operands(wqe: &mut SendWqe, opcode: SendOpcode, is_ud: bool, wr: &ibv_send_wr) {
    // SAFETY: the opcode and QP type say which member the program has set.
    unsafe {
        match opcode {
            SendOpcode::RdmaWrite | SendOpcode::RdmaWriteWithImm | SendOpcode::RdmaRead => {
                wqe.remote_addr = wr.wr.rdma.remote_addr;
                wqe.rkey = wr.wr.rdma.rkey;
            }
            SendOpcode::CompareSwap | SendOpcode::FetchAdd => {
                wqe.remote_addr = wr.wr.atomic.remote_addr;
                wqe.rkey = wr.wr.atomic.rkey;
                wqe.compare_add = wr.wr.atomic.compare_add;
                wqe.swap = wr.wr.atomic.swap;
            }
            SendOpcode::BindMw => {
                let bind = &wr.tail.bind_mw;
                Binding::new(&*bind.mw, bind.rkey, &bind.bind_info).write(wqe);
            }
            SendOpcode::Send | SendOpcode::SendWithImm if is_ud => {
                let ud = &wr.wr.ud;
                address(wqe, &*ud.ah, ud.remote_qpn, ud.remote_qkey);
            }
            SendOpcode::Send
            | SendOpcode::SendWithImm
            | SendOpcode::SendWithInv
            | SendOpcode::LocalInv => {}
        }
    }
}

/// Where a datagram goes.
#[inline]
pub(crate) fn address(wqe: &mut SendWqe, ah: &ibv_ah, qpn: u32, qkey: u32) {
    wqe.ah = ah.handle;
    wqe.compare_add = u64::from(qpn) | u64::from(qkey) << 32;
}

/// Copies inline data behind the head; `None` if it is more than the QP was created for.
///
/// # Safety
/// Readable pieces; the slot's stride holds `max` bytes of data.
pub(crate) unsafe fn copy_inline(
    slot: *mut u8,
    max: u32,
    pieces: impl Iterator<Item = (*const u8, usize)>,
) -> Option<u32> {
    let mut len = 0usize;
    for (from, bytes) in pieces {
        if bytes > max as usize - len {
            return None;
        }
        // SAFETY: the caller's promise, and the sum so far is at most `max`.
        unsafe { std::ptr::copy_nonoverlapping(from, slot.add(SEND_DATA + len), bytes) };
        len += bytes;
    }
    Some(len as u32)
}

impl SendQueue {
    /// The opcode, if this queue takes it.
    #[inline]
    pub(crate) fn opcode(&self, raw: u32) -> Option<SendOpcode> {
        let opcode = SendOpcode::from_raw(u8::try_from(raw).ok()?)?;
        (self.allowed & 1 << raw != 0).then_some(opcode)
    }

    /// The flags of a request, as the ring has them.
    #[inline]
    pub(crate) fn flags(&self, asked: u32) -> SendFlags {
        // IP_CSUM is a hint for raw packets.
        SendFlags::from_bits_truncate(asked as u8) | self.always
    }

    /// Posts one request.
    ///
    /// # Safety
    /// A valid work request.
    #[inline]
    unsafe fn post(
        &mut self,
        qp: &Qp,
        stand_ins: Option<&StandIns>,
        wr: &ibv_send_wr,
    ) -> Result<(), c_int> {
        let opcode = self.opcode(wr.opcode).ok_or(libc::EINVAL)?;
        if wr.num_sge < 0 || wr.num_sge as u32 > self.max_sge {
            return Err(libc::EINVAL);
        }
        let slot = self.ring.next_slot().ok_or(libc::ENOMEM)?;
        let flags = self.flags(wr.send_flags);
        let mut wqe = SendWqe {
            opcode: opcode as u8,
            flags: flags.bits(),
            wr_id: wr.wr_id,
            imm_data: wr.imm_data,
            ..SendWqe::default()
        };
        let count = wr.num_sge as usize;
        // SAFETY: the caller's request; the stride holds `max_sge` elements and
        // `max_inline` bytes.
        unsafe {
            operands(&mut wqe, opcode, qp.is_ud(), wr);
            if flags.contains(SendFlags::INLINE) {
                let pieces = (0..count).map(|i| {
                    let sge = &*wr.sg_list.add(i);
                    (sge.addr as *const u8, sge.length as usize)
                });
                let len = copy_inline(slot, self.max_inline, pieces);
                wqe.inline_len = len.ok_or(libc::EINVAL)?;
            } else {
                wqe.num_sge = copy_sges(slot.add(SEND_DATA), wr.sg_list, count) as u8;
            }
            write_head(slot, &wqe);
            if let Some(stand_ins) = stand_ins {
                let index = self.ring.posted();
                stand_ins.before_send(&qp.pending.send, index, slot, self.max_sge);
            }
        }
        self.ring.commit();
        if opcode == SendOpcode::BindMw {
            // SAFETY: the caller's window.
            unsafe { Binding::posted(wr.tail.bind_mw.mw, wr.tail.bind_mw.rkey) };
        }
        Ok(())
    }
}

/// Whether a queue pair takes sends in a state. One of an RNIC is connected by RTR already:
/// iWARP has no state between being connected and sending (RFC 5040, 5044).
///
/// # Safety
/// A queue pair of this library.
pub(crate) unsafe fn takes_sends(qp: *const ibv_qp, state: c_enum) -> bool {
    // SAFETY: its context and that one's device live as long.
    let is_rnic = || unsafe { (*(*(*qp).context).device).transport_type == IBV_TRANSPORT_IWARP };
    state >= IBV_QPS_RTS || state == IBV_QPS_RTR && is_rnic()
}

/// `ibv_post_send`. Sends may be posted from RTS on, and in SQE and ERR, where they are
/// flushed.
pub(crate) unsafe extern "C" fn post_send(
    qp: *mut ibv_qp,
    wr: *mut ibv_send_wr,
    bad: *mut *mut ibv_send_wr,
) -> c_int {
    // SAFETY: the caller's QP.
    let (this, state) = unsafe { (Qp::of(qp), (*qp).state) };
    // SAFETY: the caller's QP.
    if !unsafe { takes_sends(qp, state) } {
        // SAFETY: the caller's variable.
        unsafe { *bad = wr };
        return libc::EINVAL;
    }
    let stand_ins = this.context().stand_ins.in_use();
    if let Some(stand_ins) = stand_ins {
        stand_ins.merge();
    }
    let result = this.send.with(|queue| {
        let mut wr = wr;
        // SAFETY: the caller's list.
        while let Some(request) = unsafe { wr.as_ref() } {
            // SAFETY: as above.
            if let Err(error) = unsafe { queue.post(this, stand_ins, request) } {
                // SAFETY: the caller's variable.
                unsafe { *bad = wr };
                return error;
            }
            wr = request.next;
        }
        0
    });
    // What came before a bad request is posted all the same.
    this.ring_doorbell();
    result
}
