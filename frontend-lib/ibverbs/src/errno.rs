//! The ways in which verbs report failure: errno, a value, or NULL with errno.

use libc::c_int;

/// Sets errno.
pub(crate) fn set(value: c_int) {
    // SAFETY: the location is this thread's own.
    unsafe { *libc::__errno_location() = value }
}

/// Reads errno.
#[cfg(test)]
pub(crate) fn get() -> c_int {
    // SAFETY: the location is this thread's own.
    unsafe { *libc::__errno_location() }
}

/// Sets errno and answers -1.
pub(crate) fn minus_one(value: c_int) -> c_int {
    set(value);
    -1
}

/// Sets errno and answers NULL.
pub(crate) fn null<T>(value: c_int) -> *mut T {
    set(value);
    std::ptr::null_mut()
}
