//! Cards, and one that is open.
#![allow(unsafe_code)] // calls of the host's libibverbs

use super::library::Library;
use super::{check, made};
use crate::CardError;
use masq_spec::verbs::Gid;
use masq_verbs_abi::*;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Names of the cards of the host, in the order of libibverbs.
pub(crate) fn cards() -> Result<Vec<String>, CardError> {
    with_cards(&*Library::load()?, |list| {
        Ok(list.iter().map(|(name, _)| name.clone()).collect())
    })
}

fn with_cards<R>(
    library: &Library,
    f: impl FnOnce(&[(String, *mut ibv_device)]) -> Result<R, CardError>,
) -> Result<R, CardError> {
    let mut count = 0;
    // SAFETY: the count is ours.
    let list = unsafe { (library.ibv_get_device_list)(&mut count) };
    if list.is_null() {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            // The kernel has no RDMA at all.
            Some(libc::ENOSYS | libc::ENOENT) => f(&[]),
            _ => Err(CardError::Host {
                what: "list the cards",
                source: error,
            }),
        };
    }
    let named = (0..count.max(0) as usize).map(|i| {
        // SAFETY: the list has `count` entries, each with a name.
        unsafe {
            let device = *list.add(i);
            let name = CStr::from_ptr((library.ibv_get_device_name)(device));
            (name.to_string_lossy().into_owned(), device)
        }
    });
    let result = f(&named.collect::<Vec<_>>());
    // SAFETY: made above; an open device keeps what it needs.
    unsafe { (library.ibv_free_device_list)(list) };
    result
}

/// Names an object of ours in events of the card: it travels as the context pointer
/// of a CQ, QP, SRQ or connection id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(pub(crate) usize);

impl Ticket {
    /// One that names nothing yet; never given twice.
    pub(crate) fn unused() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What an asynchronous event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsyncElement {
    Cq(Ticket),
    Qp(Ticket),
    Srq(Ticket),
    Port,
    Device,
}

/// An asynchronous event: its number in `ibv_event_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AsyncReport {
    pub(crate) kind: c_enum,
    pub(crate) element: AsyncElement,
}

/// An open card.
#[derive(Debug)]
pub(crate) struct Context {
    pub(super) library: Arc<Library>,
    pub(super) ptr: NonNull<ibv_context>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for Context {}
// SAFETY: as above; it locks what it shares.
unsafe impl Sync for Context {}

impl Context {
    /// Opens the card called `name`.
    pub(crate) fn open(name: &str) -> Result<Arc<Self>, CardError> {
        let library = Library::load()?;
        let ptr = with_cards(&library, |list| {
            let found = list.iter().find(|(this, _)| this == name);
            let Some((_, device)) = found else {
                return Err(CardError::NoCard {
                    name: name.to_owned(),
                    cards: list.iter().map(|(name, _)| name.clone()).collect(),
                });
            };
            // SAFETY: a device of the list, which is not freed yet.
            made(unsafe { (library.ibv_open_device)(*device) }).map_err(|source| CardError::Open {
                name: name.to_owned(),
                source,
            })
        })?;
        Ok(Arc::new(Self { library, ptr }))
    }

    /// Its attributes.
    pub(crate) fn query(&self) -> io::Result<ibv_device_attr> {
        // SAFETY: integers only.
        let mut attr: ibv_device_attr = unsafe { std::mem::zeroed() };
        // SAFETY: an open context, and a structure of ours.
        check(unsafe { (self.library.ibv_query_device)(self.ptr.as_ptr(), &mut attr) })?;
        Ok(attr)
    }

    /// State of a port.
    pub(crate) fn query_port(&self, port: u8) -> io::Result<ibv_port_attr> {
        let mut attr = ibv_port_attr::default();
        // SAFETY: as above; the exported function writes a prefix of the structure.
        check(unsafe { (self.library.ibv_query_port)(self.ptr.as_ptr(), port, &mut attr) })?;
        Ok(attr)
    }

    /// An entry of the GID table.
    pub(crate) fn query_gid(&self, port: u8, index: u32) -> io::Result<Gid> {
        let mut gid = ibv_gid::default();
        // SAFETY: as above.
        check(unsafe {
            (self.library.ibv_query_gid)(self.ptr.as_ptr(), port, index as i32, &mut gid)
        })?;
        Ok(gid.raw)
    }

    /// Waits for the next asynchronous event.
    pub(crate) fn next_event(&self) -> io::Result<AsyncReport> {
        // SAFETY: integers and pointers.
        let mut event: ibv_async_event = unsafe { std::mem::zeroed() };
        // SAFETY: an open context, and a structure of ours.
        check(unsafe { (self.library.ibv_get_async_event)(self.ptr.as_ptr(), &mut event) })?;
        let kind = event.event_type;
        // SAFETY: the object exists until the event is acknowledged, below; the
        // kind says which pointer is valid.
        let element = unsafe {
            match kind {
                IBV_EVENT_CQ_ERR => {
                    AsyncElement::Cq(Ticket((*event.element.cq).cq_context as usize))
                }
                IBV_EVENT_QP_FATAL
                | IBV_EVENT_QP_REQ_ERR
                | IBV_EVENT_QP_ACCESS_ERR
                | IBV_EVENT_COMM_EST
                | IBV_EVENT_SQ_DRAINED
                | IBV_EVENT_PATH_MIG
                | IBV_EVENT_PATH_MIG_ERR
                | IBV_EVENT_QP_LAST_WQE_REACHED => {
                    AsyncElement::Qp(Ticket((*event.element.qp).qp_context as usize))
                }
                IBV_EVENT_SRQ_ERR | IBV_EVENT_SRQ_LIMIT_REACHED => {
                    AsyncElement::Srq(Ticket((*event.element.srq).srq_context as usize))
                }
                IBV_EVENT_DEVICE_FATAL => AsyncElement::Device,
                _ => AsyncElement::Port,
            }
        };
        // SAFETY: just got.
        unsafe { (self.library.ibv_ack_async_event)(&mut event) };
        Ok(AsyncReport { kind, element })
    }

    /// Readable while an asynchronous event waits.
    pub(crate) fn async_descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: an open context has it open.
        unsafe { BorrowedFd::borrow_raw(self.ptr.as_ref().async_fd) }
    }
}

impl AsFd for Context {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: an open context has it open.
        unsafe { BorrowedFd::borrow_raw(self.ptr.as_ref().cmd_fd) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: all objects hold an Arc of this and are gone.
        let _ = unsafe { (self.library.ibv_close_device)(self.ptr.as_ptr()) };
    }
}
