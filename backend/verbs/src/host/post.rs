//! Work requests on their way to the card, a batch at a time: the lists of the verbs
//! API, in memory that is allocated once.
#![allow(unsafe_code)] // calls of the host's libibverbs

use super::{Ah, Qp, Srq};
use masq_spec::queue::{SendOpcode, SendWqe, Sge};
use masq_verbs_abi::*;
use std::io;

/// A completion of the card.
pub(crate) type Wc = ibv_wc;

/// Requests of a batch.
pub(crate) const BATCH: usize = 32;
/// Elements of a request.
pub(crate) const MAX_SGE: usize = 32;
/// Inline bytes of a request.
pub(crate) const MAX_INLINE: usize = 512;

/// Requests that are handed to the card together.
pub(crate) struct SendBatch {
    wrs: Box<[ibv_send_wr]>,
    sges: Box<[[ibv_sge; MAX_SGE]]>,
    inline: Box<[[u8; MAX_INLINE]]>,
    len: usize,
}

/// Receives that are handed to the card together.
pub(crate) struct ReceiveBatch {
    wrs: Box<[ibv_recv_wr]>,
    /// One more for the header of a datagram.
    sges: Box<[[ibv_sge; MAX_SGE + 1]]>,
    len: usize,
    /// The card takes no receive without elements.
    pub(crate) needs_element: bool,
}

// SAFETY: the pointers inside lead into the batch itself.
unsafe impl Send for SendBatch {}
// SAFETY: as above.
unsafe impl Send for ReceiveBatch {}

const NO_SGE: ibv_sge = ibv_sge {
    addr: 0,
    length: 0,
    lkey: 0,
};

impl Default for SendBatch {
    fn default() -> Self {
        // SAFETY: integers and pointers.
        let empty: ibv_send_wr = unsafe { std::mem::zeroed() };
        Self {
            wrs: vec![empty; BATCH].into(),
            sges: vec![[NO_SGE; MAX_SGE]; BATCH].into(),
            inline: vec![[0; MAX_INLINE]; BATCH].into(),
            len: 0,
        }
    }
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        let empty = ibv_recv_wr {
            wr_id: 0,
            next: std::ptr::null_mut(),
            sg_list: std::ptr::null_mut(),
            num_sge: 0,
        };
        Self {
            wrs: vec![empty; BATCH].into(),
            sges: vec![[NO_SGE; MAX_SGE + 1]; BATCH].into(),
            len: 0,
            needs_element: false,
        }
    }
}

/// What a request carries.
pub(crate) enum Payload<'a> {
    /// Elements, which the card checks.
    List(&'a [Sge]),
    /// So many bytes, which are written by the closure.
    Inline(usize, &'a mut dyn FnMut(&mut [u8])),
}

/// Where a datagram goes.
#[derive(Clone, Copy)]
pub(crate) struct To<'a> {
    pub(crate) ah: &'a Ah,
    pub(crate) qpn: u32,
    pub(crate) qkey: u32,
}

fn copy_list(to: &mut [ibv_sge], from: &[Sge]) -> i32 {
    let mut count = 0;
    // Those without bytes are left out: to some cards 0 is 2^31.
    for (to, sge) in to.iter_mut().zip(from.iter().filter(|sge| sge.length > 0)) {
        *to = ibv_sge {
            addr: sge.addr,
            length: sge.length,
            lkey: sge.lkey,
        };
        count += 1;
    }
    count
}

impl SendBatch {
    pub(crate) fn is_full(&self) -> bool {
        self.len == self.wrs.len()
    }

    /// Adds a request; false if it has no room or its lengths do not fit.
    #[inline]
    pub(crate) fn push(
        &mut self,
        wr_id: u64,
        wqe: &SendWqe,
        opcode: SendOpcode,
        send_flags: u32,
        payload: Payload<'_>,
        to: Option<To<'_>>,
    ) -> bool {
        let (Some(wr), Some(sges), Some(inline)) = (
            self.wrs.get_mut(self.len),
            self.sges.get_mut(self.len),
            self.inline.get_mut(self.len),
        ) else {
            return false;
        };
        wr.num_sge = match payload {
            Payload::List(list) if list.len() <= MAX_SGE => copy_list(sges, list),
            Payload::Inline(len, write) if len <= MAX_INLINE => {
                let Some(bytes) = inline.get_mut(..len) else {
                    return false;
                };
                write(bytes);
                if let Some(first) = sges.first_mut() {
                    *first = ibv_sge {
                        addr: bytes.as_ptr() as u64,
                        length: len as u32,
                        lkey: 0,
                    };
                }
                i32::from(len > 0)
            }
            _ => return false,
        };
        wr.wr_id = wr_id;
        wr.next = std::ptr::null_mut();
        wr.sg_list = sges.as_mut_ptr();
        wr.opcode = opcode as u32;
        wr.send_flags = send_flags;
        wr.imm_data = wqe.imm_data;
        match (to, opcode) {
            (Some(to), _) => {
                wr.wr.ud = ibv_wr_ud {
                    ah: to.ah.ptr.as_ptr(),
                    remote_qpn: to.qpn,
                    remote_qkey: to.qkey,
                };
            }
            (None, SendOpcode::CompareSwap | SendOpcode::FetchAdd) => {
                wr.wr.atomic = ibv_wr_atomic {
                    remote_addr: wqe.remote_addr,
                    compare_add: wqe.compare_add,
                    swap: wqe.swap,
                    rkey: wqe.rkey,
                };
            }
            (None, _) => {
                wr.wr.rdma = ibv_wr_rdma {
                    remote_addr: wqe.remote_addr,
                    rkey: wqe.rkey,
                };
            }
        }
        self.len += 1;
        true
    }

    /// Hands all to the card; how many it took, and why it did not take the next.
    pub(crate) fn post(&mut self, qp: &Qp) -> (usize, io::Result<()>) {
        let len = std::mem::take(&mut self.len);
        let Some(list) = self.wrs.get_mut(..len).filter(|list| !list.is_empty()) else {
            return (0, Ok(()));
        };
        let first = list.as_mut_ptr();
        for i in 1..len {
            // SAFETY: both are in the list.
            unsafe { (*first.add(i - 1)).next = first.add(i) };
        }
        // SAFETY: an open context.
        let Some(post) = (unsafe { qp.pd.context.ptr.as_ref().ops.post_send }) else {
            return (0, Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)));
        };
        let mut bad = std::ptr::null_mut();
        // SAFETY: a live queue pair and a list of requests in our memory, whose
        // address handles are alive; elements are checked by the card against the
        // regions of the queue pair's domain.
        let code = unsafe { post(qp.ptr.as_ptr(), first, &mut bad) };
        taken(first, len, bad, code)
    }
}

impl ReceiveBatch {
    pub(crate) fn is_full(&self) -> bool {
        self.len == self.wrs.len()
    }

    /// Adds a receive; elements beyond the largest list are cut.
    pub(crate) fn push(&mut self, wr_id: u64, list: &[Sge]) -> bool {
        let (Some(wr), Some(sges)) = (self.wrs.get_mut(self.len), self.sges.get_mut(self.len))
        else {
            return false;
        };
        wr.num_sge = copy_list(sges, list);
        if let (0, true, Some(sge)) = (wr.num_sge, self.needs_element, sges.first_mut()) {
            (*sge, wr.num_sge) = (NO_SGE, 1);
        }
        wr.wr_id = wr_id;
        wr.next = std::ptr::null_mut();
        wr.sg_list = sges.as_mut_ptr();
        self.len += 1;
        true
    }

    fn list(&mut self) -> Option<(*mut ibv_recv_wr, usize)> {
        let len = std::mem::take(&mut self.len);
        let list = self.wrs.get_mut(..len).filter(|list| !list.is_empty())?;
        let first = list.as_mut_ptr();
        for i in 1..len {
            // SAFETY: both are in the list.
            unsafe { (*first.add(i - 1)).next = first.add(i) };
        }
        Some((first, len))
    }

    /// Hands all to a queue pair; how many it took, and why it did not take the next.
    pub(crate) fn post(&mut self, qp: &Qp) -> (usize, io::Result<()>) {
        let Some((first, len)) = self.list() else {
            return (0, Ok(()));
        };
        // SAFETY: an open context.
        let Some(post) = (unsafe { qp.pd.context.ptr.as_ref().ops.post_recv }) else {
            return (0, Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)));
        };
        let mut bad = std::ptr::null_mut();
        // SAFETY: a live queue pair and a list in our memory.
        let code = unsafe { post(qp.ptr.as_ptr(), first, &mut bad) };
        taken(first, len, bad, code)
    }

    /// The same for a shared receive queue.
    pub(crate) fn post_shared(&mut self, srq: &Srq) -> (usize, io::Result<()>) {
        let Some((first, len)) = self.list() else {
            return (0, Ok(()));
        };
        // SAFETY: an open context.
        let Some(post) = (unsafe { srq.pd.context.ptr.as_ref().ops.post_srq_recv }) else {
            return (0, Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)));
        };
        let mut bad = std::ptr::null_mut();
        // SAFETY: a live queue and a list in our memory.
        let code = unsafe { post(srq.ptr.as_ptr(), first, &mut bad) };
        taken(first, len, bad, code)
    }
}

/// How many requests of a list were taken, if the call ended with `code` at `bad`.
fn taken<T>(first: *mut T, len: usize, bad: *mut T, code: libc::c_int) -> (usize, io::Result<()>) {
    if code == 0 {
        return (len, Ok(()));
    }
    let offset = (bad as usize).wrapping_sub(first as usize) / size_of::<T>();
    let count = if bad.is_null() { 0 } else { offset.min(len) };
    (count, Err(io::Error::from_raw_os_error(code.abs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_counted_up_to_the_bad_request() {
        let mut list = [0u64; 4];
        let first = list.as_mut_ptr();
        assert_eq!(taken(first, 4, std::ptr::null_mut(), 0).0, 4);
        let third = first.wrapping_add(2);
        let (count, error) = taken(first, 4, third, libc::ENOMEM);
        assert_eq!(count, 2);
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        // A provider that does not say which took none.
        assert_eq!(taken(first, 4, std::ptr::null_mut(), libc::EIO).0, 0);
    }

    #[test]
    fn elements_without_bytes_are_left_out() {
        let mut batch = ReceiveBatch::default();
        let sge = |length| Sge {
            addr: 64,
            length,
            lkey: 7,
        };
        assert!(batch.push(1, &[sge(0), sge(5), sge(0)]));
        assert_eq!(batch.wrs[0].num_sge, 1);
        assert_eq!(batch.sges[0][0].length, 5);
    }

    #[test]
    fn a_receive_without_bytes_has_an_element_if_the_card_needs_one() {
        for needs_element in [false, true] {
            let mut batch = ReceiveBatch {
                needs_element,
                ..ReceiveBatch::default()
            };
            assert!(batch.push(1, &[]));
            assert_eq!(batch.wrs[0].num_sge, i32::from(needs_element));
            assert_eq!(batch.sges[0][0].length, 0);
        }
    }

    #[test]
    fn a_batch_takes_so_many_and_no_longer_ones() {
        let mut batch = SendBatch::default();
        let wqe = SendWqe::default();
        let long = [Sge::default(); MAX_SGE + 1];
        assert!(!batch.push(0, &wqe, SendOpcode::Send, 0, Payload::List(&long), None));
        let mut write = |_: &mut [u8]| {};
        let inline = Payload::Inline(MAX_INLINE + 1, &mut write);
        assert!(!batch.push(0, &wqe, SendOpcode::Send, 0, inline, None));
        for i in 0..BATCH {
            assert!(batch.push(
                i as u64,
                &wqe,
                SendOpcode::Send,
                0,
                Payload::List(&[]),
                None
            ));
        }
        assert!(batch.is_full());
        assert!(!batch.push(0, &wqe, SendOpcode::Send, 0, Payload::List(&[]), None));
    }
}
