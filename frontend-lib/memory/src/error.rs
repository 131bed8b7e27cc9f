//! What can go wrong, and the errno that verbs give for it.

/// Why memory could not be registered or allocated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegError {
    /// The range is empty or wraps around the address space.
    #[error("{len} bytes at {addr:#x} are no range of memory")]
    BadRange {
        /// First byte.
        addr: usize,
        /// Bytes.
        len: usize,
    },
    /// A page of the range is not mapped.
    #[error("nothing is mapped at {addr:#x}")]
    Unmapped {
        /// First unmapped byte.
        addr: usize,
    },
    /// A page of the range is mapped `PROT_NONE`.
    #[error("the memory at {addr:#x} may not be accessed")]
    NoAccess {
        /// First byte of the mapping's part in the range.
        addr: usize,
    },
    /// Write access was wanted to a mapping that is not writable.
    #[error("the memory at {addr:#x} is read-only")]
    ReadOnly {
        /// First byte of the mapping's part in the range.
        addr: usize,
    },
    /// A device's memory, or a file mapping past the file's end.
    #[error("the memory at {addr:#x} belongs to a device or cannot be read")]
    Device {
        /// First byte of the mapping's part in the range.
        addr: usize,
    },
    /// Storage for the moved pages could not be had.
    #[error("no memory to hold {len} bytes at {addr:#x}")]
    NoMemory {
        /// First byte.
        addr: usize,
        /// Bytes.
        len: usize,
    },
    /// `RLIMIT_FSIZE` forbids a file as large as the address space.
    #[error(
        "the file size limit (ulimit -f) forbids the registered-memory file: set it to unlimited"
    )]
    FileSizeLimit,
    /// The registration is unknown, or already gone.
    #[error("no such registration")]
    Unknown,
    /// The arena belongs to the process that forked this one.
    #[error("this arena belongs to the parent process; take Arena::global() anew")]
    Forked,
    /// The program closed the memfd's descriptor, or put another file in its place.
    #[error("the program closed the descriptor of the registered-memory file")]
    Lost,
    /// A system call failed.
    #[error("{call}: {}", std::io::Error::from_raw_os_error(*errno))]
    System {
        /// The system call.
        call: &'static str,
        /// Its errno.
        errno: i32,
    },
}

impl RegError {
    /// The errno that a verb reports for this error.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::BadRange { .. } | Self::Unknown | Self::Forked => libc::EINVAL,
            Self::Unmapped { .. }
            | Self::NoAccess { .. }
            | Self::ReadOnly { .. }
            | Self::Device { .. } => libc::EFAULT,
            Self::NoMemory { .. } => libc::ENOMEM,
            Self::FileSizeLimit => libc::EFBIG,
            Self::Lost => libc::EBADF,
            Self::System { errno, .. } => *errno,
        }
    }
}
