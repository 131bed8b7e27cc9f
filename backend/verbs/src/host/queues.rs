//! Completion channels and queues, shared receive queues, queue pairs.
#![allow(unsafe_code)] // calls of the host's libibverbs

use super::memory::released;
use super::{Context, Pd, Ticket, Wc, check, made};
use masq_verbs_abi::*;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// A completion channel: says which CQs have news. Never blocks.
#[derive(Debug)]
pub(crate) struct Channel {
    context: Arc<Context>,
    ptr: NonNull<ibv_comp_channel>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl Channel {
    /// Creates one.
    pub(crate) fn new(context: &Arc<Context>) -> io::Result<Arc<Self>> {
        // SAFETY: an open context.
        let ptr = made(unsafe { (context.library.ibv_create_comp_channel)(context.ptr.as_ptr()) })?;
        let channel = Self {
            context: Arc::clone(context),
            ptr,
        };
        let flags = rustix::fs::fcntl_getfl(&channel)?;
        rustix::fs::fcntl_setfl(&channel, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Arc::new(channel))
    }

    /// The next CQ with news, if there is one.
    pub(crate) fn next(&self) -> Option<Ticket> {
        let mut cq = std::ptr::null_mut();
        let mut ticket = std::ptr::null_mut();
        let library = &self.context.library;
        // SAFETY: a live channel, variables of ours.
        let code = unsafe { (library.ibv_get_cq_event)(self.ptr.as_ptr(), &mut cq, &mut ticket) };
        if code != 0 {
            return None;
        }
        // At once: a CQ is destroyed only when its events are acknowledged.
        // SAFETY: the event keeps the CQ alive until then.
        unsafe { (library.ibv_ack_cq_events)(cq, 1) };
        Some(Ticket(ticket as usize))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: a live channel has it open.
        unsafe { BorrowedFd::borrow_raw(self.ptr.as_ref().fd) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: its CQs hold an Arc of it and are gone.
        let code = unsafe { (self.context.library.ibv_destroy_comp_channel)(self.ptr.as_ptr()) };
        released("completion channel", code);
    }
}

/// A completion queue of the card.
#[derive(Debug)]
pub(crate) struct Cq {
    channel: Arc<Channel>,
    ptr: NonNull<ibv_cq>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for Cq {}
// SAFETY: as above.
unsafe impl Sync for Cq {}

impl Cq {
    /// Creates one for `cqe` completions, at least.
    pub(crate) fn new(channel: &Arc<Channel>, cqe: u32, ticket: Ticket) -> io::Result<Arc<Self>> {
        let context = &channel.context;
        // SAFETY: an open context and a live channel.
        let ptr = made(unsafe {
            (context.library.ibv_create_cq)(
                context.ptr.as_ptr(),
                cqe.try_into().unwrap_or(i32::MAX),
                ticket.0 as *mut _,
                channel.ptr.as_ptr(),
                0,
            )
        })?;
        Ok(Arc::new(Self {
            channel: Arc::clone(channel),
            ptr,
        }))
    }

    /// Makes room for `cqe` completions.
    pub(crate) fn resize(&self, cqe: u32) -> io::Result<()> {
        let cqe = cqe.try_into().unwrap_or(i32::MAX);
        // SAFETY: a live CQ.
        check(unsafe { (self.channel.context.library.ibv_resize_cq)(self.ptr.as_ptr(), cqe) })
    }

    /// Takes completions off; returns how many. [`io::ErrorKind::Other`] and the
    /// like: the CQ is broken.
    #[inline]
    pub(crate) fn poll(&self, out: &mut [Wc]) -> io::Result<usize> {
        // SAFETY: an open context.
        let Some(poll) = (unsafe { self.channel.context.ptr.as_ref().ops.poll_cq }) else {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        };
        // SAFETY: a live CQ, and room for as many completions.
        let count = unsafe { poll(self.ptr.as_ptr(), out.len() as i32, out.as_mut_ptr()) };
        usize::try_from(count).map_err(|_| io::Error::from_raw_os_error(libc::EIO))
    }

    /// Has the channel tell of the next completion.
    #[inline]
    pub(crate) fn arm(&self) -> io::Result<()> {
        // SAFETY: an open context.
        let Some(arm) = (unsafe { self.channel.context.ptr.as_ref().ops.req_notify_cq }) else {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        };
        // SAFETY: a live CQ.
        check(unsafe { arm(self.ptr.as_ptr(), 0) })
    }
}

impl Drop for Cq {
    fn drop(&mut self) {
        // SAFETY: its queue pairs hold an Arc of it and are gone.
        let code = unsafe { (self.channel.context.library.ibv_destroy_cq)(self.ptr.as_ptr()) };
        released("completion queue", code);
    }
}

/// A shared receive queue of the card.
#[derive(Debug)]
pub(crate) struct Srq {
    pub(super) pd: Arc<Pd>,
    pub(super) ptr: NonNull<ibv_srq>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for Srq {}
// SAFETY: as above.
unsafe impl Sync for Srq {}

impl Srq {
    /// Creates one.
    pub(crate) fn new(
        pd: &Arc<Pd>,
        max_wr: u32,
        max_sge: u32,
        ticket: Ticket,
    ) -> io::Result<Arc<Self>> {
        let mut init = ibv_srq_init_attr {
            srq_context: ticket.0 as *mut _,
            attr: ibv_srq_attr {
                max_wr,
                max_sge,
                srq_limit: 0,
            },
        };
        // SAFETY: a live domain, and a structure of ours.
        let ptr = made(unsafe { (pd.context.library.ibv_create_srq)(pd.ptr.as_ptr(), &mut init) })?;
        Ok(Arc::new(Self {
            pd: Arc::clone(pd),
            ptr,
        }))
    }

    /// Arms the limit event.
    pub(crate) fn set_limit(&self, limit: u32) -> io::Result<()> {
        let mut attr = ibv_srq_attr {
            srq_limit: limit,
            ..ibv_srq_attr::default()
        };
        // SAFETY: a live queue, and a structure of ours.
        check(unsafe {
            (self.pd.context.library.ibv_modify_srq)(
                self.ptr.as_ptr(),
                &mut attr,
                IBV_SRQ_LIMIT as i32,
            )
        })
    }

    /// The armed limit.
    pub(crate) fn limit(&self) -> io::Result<u32> {
        let mut attr = ibv_srq_attr::default();
        // SAFETY: a live queue, and a structure of ours.
        check(unsafe { (self.pd.context.library.ibv_query_srq)(self.ptr.as_ptr(), &mut attr) })?;
        Ok(attr.srq_limit)
    }
}

impl Drop for Srq {
    fn drop(&mut self) {
        // SAFETY: its queue pairs hold an Arc of it and are gone.
        let code = unsafe { (self.pd.context.library.ibv_destroy_srq)(self.ptr.as_ptr()) };
        released("shared receive queue", code);
    }
}

/// What a queue pair is created with.
pub(crate) struct QpShape {
    pub(crate) qp_type: c_enum,
    pub(crate) cap: ibv_qp_cap,
    pub(crate) sq_sig_all: bool,
    pub(crate) ticket: Ticket,
}

/// A queue pair of the card.
#[derive(Debug)]
pub(crate) struct Qp {
    pub(super) pd: Arc<Pd>,
    pub(super) ptr: NonNull<ibv_qp>,
    _send_cq: Arc<Cq>,
    _recv_cq: Arc<Cq>,
    _srq: Option<Arc<Srq>>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for Qp {}
// SAFETY: as above.
unsafe impl Sync for Qp {}

impl Qp {
    /// Creates one, in RESET.
    pub(crate) fn new(
        pd: &Arc<Pd>,
        send_cq: &Arc<Cq>,
        recv_cq: &Arc<Cq>,
        srq: Option<&Arc<Srq>>,
        shape: &QpShape,
    ) -> io::Result<Arc<Self>> {
        let mut init = ibv_qp_init_attr {
            qp_context: shape.ticket.0 as *mut _,
            send_cq: send_cq.ptr.as_ptr(),
            recv_cq: recv_cq.ptr.as_ptr(),
            srq: srq.map_or(std::ptr::null_mut(), |srq| srq.ptr.as_ptr()),
            cap: shape.cap,
            qp_type: shape.qp_type,
            sq_sig_all: i32::from(shape.sq_sig_all),
        };
        // SAFETY: live objects, and a structure of ours.
        let ptr = made(unsafe { (pd.context.library.ibv_create_qp)(pd.ptr.as_ptr(), &mut init) })?;
        Ok(Arc::new(Self {
            pd: Arc::clone(pd),
            ptr,
            _send_cq: Arc::clone(send_cq),
            _recv_cq: Arc::clone(recv_cq),
            _srq: srq.cloned(),
        }))
    }

    pub(crate) fn qpn(&self) -> u32 {
        // SAFETY: a live queue pair.
        unsafe { self.ptr.as_ref().qp_num }
    }

    /// Changes it. To RTR it may block while the neighbour is looked for.
    pub(crate) fn modify(&self, mut attr: ibv_qp_attr, mask: u32) -> io::Result<()> {
        // SAFETY: a live queue pair, and a structure of ours.
        check(unsafe {
            (self.pd.context.library.ibv_modify_qp)(self.ptr.as_ptr(), &mut attr, mask as i32)
        })
    }

    /// Its attributes, those of `mask`.
    pub(crate) fn query(&self, mask: u32) -> io::Result<ibv_qp_attr> {
        let mut attr = ibv_qp_attr::default();
        // SAFETY: integers and pointers.
        let mut init: ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        // SAFETY: a live queue pair, and structures of ours.
        check(unsafe {
            (self.pd.context.library.ibv_query_qp)(
                self.ptr.as_ptr(),
                &mut attr,
                mask as i32,
                &mut init,
            )
        })?;
        Ok(attr)
    }
}

impl Drop for Qp {
    fn drop(&mut self) {
        // SAFETY: a live queue pair; nobody posts to it any more.
        let code = unsafe { (self.pd.context.library.ibv_destroy_qp)(self.ptr.as_ptr()) };
        released("queue pair", code);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::mem::zeroed;

    fn leaked<T>(of: T) -> NonNull<T> {
        NonNull::from(Box::leak(Box::new(of)))
    }

    /// Queues of a card without hardware.
    pub(crate) fn fake(
        context: &Arc<Context>,
        pd: &Arc<Pd>,
        qpn: u32,
    ) -> (Arc<Channel>, Arc<Cq>, Arc<Qp>) {
        let channel = Arc::new(Channel {
            context: Arc::clone(context),
            // SAFETY: integers and pointers.
            ptr: leaked(unsafe { zeroed() }),
        });
        let cq = Arc::new(Cq {
            channel: Arc::clone(&channel),
            // SAFETY: integers and pointers.
            ptr: leaked(unsafe { zeroed() }),
        });
        // SAFETY: integers and pointers.
        let mut raw: ibv_qp = unsafe { zeroed() };
        raw.qp_num = qpn;
        let qp = Arc::new(Qp {
            pd: Arc::clone(pd),
            ptr: leaked(raw),
            _send_cq: Arc::clone(&cq),
            _recv_cq: Arc::clone(&cq),
            _srq: None,
        });
        (channel, cq, qp)
    }
}
