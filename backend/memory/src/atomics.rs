//! 64-bit RDMA atomics on mapped memory.
#![allow(unsafe_code)] // atomics on raw pointers

use masq_transport::AtomicOp;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Performs `op` at `ptr`, atomically among all QPs and all CPUs, and returns
/// the former value.
///
/// # Safety
/// `ptr` is 8-byte aligned and 8 bytes from it stay mapped during the call.
pub unsafe fn atomic_u64(ptr: NonNull<u8>, op: AtomicOp) -> u64 {
    // SAFETY: aligned and mapped by contract; tenants reach these bytes only
    // through their own mappings.
    let cell = unsafe { AtomicU64::from_ptr(ptr.as_ptr().cast()) };
    match op {
        AtomicOp::CompareSwap { compare, swap } => {
            match cell.compare_exchange(compare, swap, SeqCst, SeqCst) {
                Ok(old) | Err(old) => old,
            }
        }
        AtomicOp::FetchAdd { add } => cell.fetch_add(add, SeqCst),
    }
}
