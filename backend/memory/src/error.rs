use std::io;

/// Why tenant memory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The tenant's fault: the file could shrink, grow or fault.
    #[error("the shared file is not usable: {0}")]
    BadFile(&'static str),
    /// The tenant's fault: a range lies outside the file or is misaligned.
    #[error("range {addr:#x}+{len:#x} is outside the shared file or misaligned")]
    BadRange {
        /// First byte.
        addr: u64,
        /// Bytes.
        len: u64,
    },
    /// A region has no address range of its own: a part is reached through the process
    /// only, or two parts share a page.
    #[error("the region cannot be mapped in one piece")]
    Scattered,
    /// The host's fault, or a limit of it such as vm.max_map_count.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl MemoryError {
    pub(crate) fn host(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Host {
            what,
            source: errno.into(),
        }
    }
}
