//! The host's verbs, made safe: each object keeps alive what it needs and is
//! released when it is dropped, so whatever order a session ends in, the card sees
//! the right one.

mod context;
mod library;
mod memory;
mod post;
mod queues;
mod ucm;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use context::{AsyncElement, Context, Ticket, cards};
pub(crate) use memory::{Ah, Mr, Pd};
pub(crate) use post::{BATCH, MAX_INLINE, MAX_SGE, Payload, ReceiveBatch, SendBatch, To, Wc};
pub(crate) use queues::{Channel, Cq, Qp, QpShape, Srq};
pub(crate) use ucm::{Agreement, CmId, Parameters, Told, USER_CM, UserCm};

use masq_device::DeviceError;
use std::io;

/// What a failed call of the host's verbs means to a tenant.
pub(crate) fn refused(what: &'static str, error: &io::Error) -> DeviceError {
    tracing::debug!(what, %error, "the card refuses");
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::EPERM | libc::ERANGE) => DeviceError::Invalid(what),
        Some(libc::EOPNOTSUPP | libc::ENOSYS) => DeviceError::Unsupported(what),
        Some(libc::EBUSY) => DeviceError::Busy(what),
        Some(libc::EIO | libc::ENODEV) => DeviceError::Gone,
        Some(libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH) => {
            DeviceError::Unreachable(what)
        }
        _ => DeviceError::Exhausted(what),
    }
}

/// The result of a call that returns an errno.
fn check(code: libc::c_int) -> io::Result<()> {
    match code {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        code => Err(io::Error::from_raw_os_error(code.abs())),
    }
}

/// The result of a call that returns a pointer and sets errno.
fn made<T>(pointer: *mut T) -> io::Result<std::ptr::NonNull<T>> {
    std::ptr::NonNull::new(pointer).ok_or_else(io::Error::last_os_error)
}
