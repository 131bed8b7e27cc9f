//! Memory that only the address space of the process holds.

use crate::MemoryError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

/// An open `/proc/PID/mem`. It stays bound to the address space that it was
/// opened on: after an exec or exit it moves no more bytes.
///
/// An access can block without limit (the tenant may have put a userfault
/// handler or a FUSE file there), so only a helper thread of the session that
/// owns the memory may call [`Self::read`] and [`Self::write`].
#[derive(Debug)]
pub struct RemoteMemory {
    mem: File,
}

impl RemoteMemory {
    /// Opens the memory of the process that `pidfd` refers to, whose number is
    /// `pid` and whose user is `uid`. Afterwards the process must still live,
    /// so that a reused number cannot lead into another one, and must still
    /// belong to that user, so that a set-uid program that it executed in
    /// between is not opened.
    ///
    /// # Errors
    /// [`MemoryError::Host`] if the process is gone, changed its identity, or
    /// the daemon may not trace it.
    pub fn open(pidfd: BorrowedFd<'_>, pid: i32, uid: u32) -> Result<Self, MemoryError> {
        let host = |source| MemoryError::Host {
            what: "open the memory of the process",
            source,
        };
        let mem = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .map_err(host)?;
        if mem.metadata().map_err(host)?.uid() != uid {
            return Err(host(io::Error::from(io::ErrorKind::PermissionDenied)));
        }
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let exited = poll(&mut fds, Some(&Timespec::default())).map_err(|e| host(e.into()))?;
        if exited > 0 {
            return Err(host(io::Error::from(io::ErrorKind::NotFound)));
        }
        Ok(Self { mem })
    }

    /// Reads `out.len()` bytes at `addr`.
    ///
    /// # Errors
    /// EIO and EFAULT mean that there is no such memory any more.
    pub fn read(&self, addr: u64, out: &mut [u8]) -> io::Result<()> {
        self.mem.read_exact_at(out, addr)
    }

    /// Writes `data` at `addr`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn write(&self, addr: u64, data: &[u8]) -> io::Result<()> {
        self.mem.write_all_at(data, addr)
    }
}

impl AsFd for RemoteMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mem.as_fd()
    }
}
