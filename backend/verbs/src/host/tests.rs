//! A card without hardware: what is sent by a queue pair is received by the same one.
#![allow(unsafe_code)] // calls of the verbs API, from the other side

use super::library::Library;
use super::*;
use masq_verbs_abi::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem::zeroed;
use std::ptr::NonNull;
use std::sync::Arc;

/// The only queue pair's number.
pub(crate) const QPN: u32 = 7;
const MOST: usize = 1024;

thread_local! {
    static CARD: RefCell<State> = RefCell::new(State {
        receives: VecDeque::with_capacity(MOST),
        done: VecDeque::with_capacity(MOST),
    });
}

struct State {
    receives: VecDeque<u64>,
    done: VecDeque<ibv_wc>,
}

impl State {
    fn complete(&mut self, wr_id: u64, opcode: c_enum) {
        self.done.push_back(ibv_wc {
            wr_id,
            opcode,
            byte_len: 8,
            qp_num: QPN,
            ..ibv_wc::default()
        });
    }
}

unsafe extern "C" fn post_send(
    _: *mut ibv_qp,
    mut wr: *mut ibv_send_wr,
    bad: *mut *mut ibv_send_wr,
) -> libc::c_int {
    CARD.with_borrow_mut(|card| {
        // SAFETY: the list that was posted.
        while let Some(request) = unsafe { wr.as_ref() } {
            let Some(receive) = card.receives.pop_front() else {
                // SAFETY: a variable of the caller's.
                unsafe { *bad = wr };
                return libc::ENOMEM;
            };
            card.complete(receive, IBV_WC_RECV);
            if request.send_flags & IBV_SEND_SIGNALED != 0 {
                card.complete(request.wr_id, IBV_WC_SEND);
            }
            wr = request.next;
        }
        0
    })
}

unsafe extern "C" fn post_recv(
    _: *mut ibv_qp,
    mut wr: *mut ibv_recv_wr,
    _: *mut *mut ibv_recv_wr,
) -> libc::c_int {
    CARD.with_borrow_mut(|card| {
        // SAFETY: the list that was posted.
        while let Some(request) = unsafe { wr.as_ref() } {
            card.receives.push_back(request.wr_id);
            wr = request.next;
        }
        0
    })
}

unsafe extern "C" fn poll_cq(_: *mut ibv_cq, most: libc::c_int, out: *mut ibv_wc) -> libc::c_int {
    CARD.with_borrow_mut(|card| {
        let count = card.done.len().min(most as usize);
        for (at, done) in card.done.drain(..count).enumerate() {
            // SAFETY: room for `most`.
            unsafe { *out.add(at) = done };
        }
        count as libc::c_int
    })
}

unsafe extern "C" fn req_notify_cq(_: *mut ibv_cq, _: libc::c_int) -> libc::c_int {
    0
}

unsafe extern "C" fn modify_qp(_: *mut ibv_qp, _: *mut ibv_qp_attr, _: libc::c_int) -> libc::c_int {
    0
}

/// Objects of the card, which live as long as the process: nothing may be released.
pub(crate) struct FakeCard {
    pub(crate) context: Arc<Context>,
    pub(crate) channel: Arc<Channel>,
    pub(crate) cq: Arc<Cq>,
    pub(crate) qp: Arc<Qp>,
}

fn leaked<T>(of: T) -> NonNull<T> {
    NonNull::from(Box::leak(Box::new(of)))
}

impl FakeCard {
    pub(crate) fn new() -> Self {
        // SAFETY: integers, pointers and optional functions.
        let mut raw: ibv_context = unsafe { zeroed() };
        raw.ops.post_send = Some(post_send);
        raw.ops.post_recv = Some(post_recv);
        raw.ops.poll_cq = Some(poll_cq);
        raw.ops.req_notify_cq = Some(req_notify_cq);
        let mut library = Library::aborting();
        library.ibv_modify_qp = modify_qp;
        let context = Arc::new(Context {
            library: Arc::new(library),
            ptr: leaked(raw),
        });
        let pd = Arc::new(Pd {
            context: Arc::clone(&context),
            // SAFETY: integers and pointers.
            ptr: leaked(unsafe { zeroed() }),
        });
        let (channel, cq, qp) = queues::tests::fake(&context, &pd, QPN);
        // Nothing is released even if the test lets go of all of it.
        std::mem::forget((Arc::clone(&context), pd, Arc::clone(&channel)));
        std::mem::forget((Arc::clone(&cq), Arc::clone(&qp)));
        Self {
            context,
            channel,
            cq,
            qp,
        }
    }
}
