//! The memfd of a process, whose offsets are its virtual addresses.

use crate::{MemoryError, Window};
use masq_spec::device::{MAX_ADDRESS, PAGE_SIZE};
use rustix::fs::{SealFlags, fcntl_get_seals, fstat, fstatfs};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What rings are mapped by, if they are small: a frontend cuts them from chunks
/// of this size and alignment.
const PIECE: u64 = 256 << 10;
const HUGETLBFS_MAGIC: i64 = 0x958458f6;

/// A file that was checked to be safe to map.
#[derive(Debug)]
pub struct SharedFile {
    file: Arc<File>,
    len: u64,
    /// Pieces of [`PIECE`] bytes that are mapped for rings, by where they begin.
    pieces: Mutex<HashMap<u64, Weak<Window>>>,
}

impl SharedFile {
    /// Takes `fd` if it is a memfd sealed against shrinking, growing and
    /// further seals, and not of huge pages (a punched one is a SIGBUS).
    ///
    /// # Errors
    /// [`MemoryError::BadFile`] says which of these it is not.
    pub fn check(fd: OwnedFd) -> Result<Self, MemoryError> {
        let bad = MemoryError::BadFile;
        let seals = fcntl_get_seals(&fd).map_err(|_| bad("not a memfd"))?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL) {
            return Err(bad(
                "not sealed against shrinking, growing and further seals",
            ));
        }
        if seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Err(bad("sealed against writing"));
        }
        let fs = fstatfs(&fd).map_err(MemoryError::host("fstatfs"))?;
        if fs.f_type as i64 == HUGETLBFS_MAGIC {
            return Err(bad("of huge pages"));
        }
        let stat = fstat(&fd).map_err(MemoryError::host("fstat"))?;
        let len = u64::try_from(stat.st_size).map_err(|_| bad("of negative size"))?;
        Ok(Self {
            file: Arc::new(File::from(fd)),
            pieces: Mutex::default(),
            len: len.min(MAX_ADDRESS),
        })
    }

    /// The file, for whoever maps parts of it.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Bytes that may be mapped.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to map.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A window that holds `[addr, addr + len)`, for a ring. Small rings that lie
    /// near each other share one, so that a tenant with thousands of queues
    /// needs no mapping for each.
    ///
    /// # Errors
    /// As [`Window::map`].
    pub(crate) fn ring_window(&self, addr: u64, len: u64) -> Result<Arc<Window>, MemoryError> {
        let start = addr & !(PIECE - 1);
        let end = addr.saturating_add(len);
        let piece = PIECE.min(self.len.saturating_sub(start));
        if end > start.saturating_add(piece) {
            return Ok(Arc::new(Window::map(self, addr, len, true)?));
        }
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let window = match pieces.get(&start).and_then(Weak::upgrade) {
            Some(window) => window,
            None => {
                pieces.retain(|_, window| window.strong_count() > 0);
                let window = Arc::new(Window::map(self, start, piece, false)?);
                pieces.insert(start, Arc::downgrade(&window));
                window
            }
        };
        window.populate_part(addr, len);
        Ok(window)
    }

    /// The page-aligned range around `[addr, addr + len)`, if inside the file.
    ///
    /// # Errors
    /// [`MemoryError::BadRange`] if empty, wrapping or outside.
    pub fn pages(&self, addr: u64, len: u64) -> Result<(u64, u64), MemoryError> {
        let bad = MemoryError::BadRange { addr, len };
        let end = match addr.checked_add(len) {
            Some(end) if len > 0 && end <= self.len => end,
            _ => return Err(bad),
        };
        let start = addr & !(PAGE_SIZE - 1);
        match end.checked_next_multiple_of(PAGE_SIZE) {
            Some(end) if end <= self.len => Ok((start, end - start)),
            _ => Err(bad),
        }
    }
}

impl AsFd for SharedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
