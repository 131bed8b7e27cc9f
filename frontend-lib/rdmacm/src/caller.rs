//! The caller's memory: pointers that may lead nowhere.
#![allow(unsafe_code, reason = "reads and writes where the caller says")]

use crate::CmError;

/// Bytes above the hook's own frame that are taken for the caller's stack: librdmacm
/// keeps commands and responses there.
const NEAR: u64 = 8 << 10;

/// The calling thread's stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    frame: u64,
}

impl Caller {
    /// With the address of something in the frame of the function that was called.
    pub(crate) fn new(frame: u64) -> Self {
        Self { frame }
    }

    /// Whether the bytes lie in the frames just above: those of functions that have not
    /// returned, so they are there.
    fn is_near(self, address: u64, len: usize) -> bool {
        let end = address.checked_add(len as u64);
        address > self.frame && end.is_some_and(|end| end <= self.frame.saturating_add(NEAR))
    }

    /// Copies from the caller.
    pub(crate) fn read(self, address: u64, to: &mut [u8]) -> Result<(), CmError> {
        if self.is_near(address, to.len()) || !self.copy(libc::process_vm_readv, address, to)? {
            // SAFETY: the caller's stack, or (where the kernel may not be asked) the
            // pointer that a caller of read(2) would have to answer for.
            unsafe {
                std::ptr::copy(address as *const u8, to.as_mut_ptr(), to.len());
            }
        }
        Ok(())
    }

    /// Copies to the caller.
    pub(crate) fn write(self, address: u64, from: &[u8]) -> Result<(), CmError> {
        let mut copy = [0u8; 512];
        let copy = copy.get_mut(..from.len()).ok_or(CmError::NoRoom)?;
        copy.copy_from_slice(from);
        if self.is_near(address, from.len())
            || !self.copy(libc::process_vm_writev, address, copy)?
        {
            // SAFETY: as in `read`.
            unsafe {
                std::ptr::copy(from.as_ptr(), address as *mut u8, from.len());
            }
        }
        Ok(())
    }

    /// Whether `len` bytes can be written there; they stay as they are. What is asked
    /// before a command that could not be undone.
    pub(crate) fn check(self, address: u64, len: usize) -> Result<(), CmError> {
        if self.is_near(address, len) {
            return Ok(());
        }
        let mut bytes = [0u8; 512];
        let bytes = bytes.get_mut(..len).ok_or(CmError::NoRoom)?;
        self.read(address, bytes)?;
        self.write(address, bytes)
    }

    /// Has the kernel copy, which knows what is mapped; false if it may not be asked.
    fn copy(self, how: Transfer, address: u64, local: &mut [u8]) -> Result<bool, CmError> {
        if local.is_empty() {
            return Ok(true);
        }
        let here = libc::iovec {
            iov_base: local.as_mut_ptr().cast(),
            iov_len: local.len(),
        };
        let there = libc::iovec {
            iov_base: address as *mut libc::c_void,
            iov_len: local.len(),
        };
        // SAFETY: one local part that is ours; the remote part is checked by the kernel.
        let n = unsafe { how(libc::getpid(), &here, 1, &there, 1, 0) };
        if n == local.len() as isize {
            return Ok(true);
        }
        let error = std::io::Error::last_os_error().raw_os_error();
        if n < 0 && matches!(error, Some(libc::EPERM | libc::ENOSYS)) {
            return Ok(false);
        }
        Err(CmError::Fault)
    }
}

type Transfer = unsafe extern "C" fn(
    libc::pid_t,
    *const libc::iovec,
    libc::c_ulong,
    *const libc::iovec,
    libc::c_ulong,
    libc::c_ulong,
) -> isize;

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Caller {
        let marker = 0u8;
        Caller::new((&raw const marker) as u64)
    }

    #[test]
    fn pointers_that_lead_nowhere_are_faults() {
        for address in [0, 8, 0xdead_0000, u64::MAX - 2, 1 << 63] {
            let error = here().write(address, &[1; 4]).unwrap_err();
            assert_eq!(error.errno(), libc::EFAULT, "{address:x}");
            assert!(here().read(address, &mut [0; 4]).is_err());
            assert!(here().check(address, 4).is_err());
        }
        static CONSTANT: [u8; 4] = [1, 2, 3, 4];
        let constant = std::hint::black_box(&CONSTANT).as_ptr() as u64;
        assert!(here().check(constant, 4).is_err(), "not writable");
    }

    #[test]
    fn memory_on_the_heap_and_on_the_stack_is_reached() {
        let heap = vec![0u8; 400];
        let at = heap.as_ptr() as u64;
        here().check(at, 400).unwrap();
        here().write(at + 1, &[7; 399]).unwrap();
        let mut back = [0; 400];
        here().read(at, &mut back).unwrap();
        assert_eq!(back[0], 0);
        assert!(back[1..].iter().all(|b| *b == 7));
        let mut local = [0u8; 16];
        here().write((&raw mut local) as u64, &[9; 16]).unwrap();
        assert_eq!(std::hint::black_box(local), [9; 16]);
    }
}
