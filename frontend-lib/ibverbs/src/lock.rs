//! A lock that may be held from one C call to a later one (`ibv_wr_start` to
//! `ibv_wr_complete`), which a guard cannot express.

use lock_api::RawMutex as _;
use parking_lot::RawMutex;
use std::cell::UnsafeCell;

/// A value behind a lock of one byte; uncontended, no system call.
pub(crate) struct Lock<T> {
    raw: RawMutex,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only by the lock's holder.
unsafe impl<T: Send> Sync for Lock<T> {}
// SAFETY: nothing is tied to a thread.
unsafe impl<T: Send> Send for Lock<T> {}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            raw: RawMutex::INIT,
            value: UnsafeCell::new(value),
        }
    }

    /// The value, which nobody else can reach any more.
    pub(crate) fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// Runs `f` as the holder.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        self.raw.lock();
        // SAFETY: the lock is held; `f` cannot keep the reference.
        let result = f(unsafe { &mut *self.value.get() });
        // SAFETY: taken above by this thread. (A panic in `f` aborts: all callers are
        // `extern "C"`.)
        unsafe { self.raw.unlock() };
        result
    }

    /// Takes the lock until [`Lock::release`].
    #[inline]
    pub(crate) fn acquire(&self) {
        self.raw.lock();
    }

    /// The value, between [`Lock::acquire`] and [`Lock::release`].
    ///
    /// # Safety
    /// The caller holds the lock, and no other reference of this call is alive.
    #[inline]
    #[allow(clippy::mut_from_ref, reason = "the lock makes it unique")]
    pub(crate) unsafe fn held(&self) -> &mut T {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.value.get() }
    }

    /// Gives the lock back.
    ///
    /// # Safety
    /// The caller holds the lock.
    #[inline]
    pub(crate) unsafe fn release(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.raw.unlock() };
    }
}
