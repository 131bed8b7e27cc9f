//! Why the backend cannot be used, or what it refused.

use masq_regmem::RegError;
use masq_spec::command::Status;
use std::io;
use std::path::PathBuf;

/// An error of the driver side.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No socket is configured and none lies in a usual place.
    #[error("this process belongs to no endpoint: MASQ_SOCKET is not set")]
    NoEndpoint,
    /// The socket does not answer.
    #[error("{path}: {source}")]
    Connect {
        /// The endpoint's socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The handshake failed.
    #[error("vhost-user: {0}")]
    Protocol(#[from] vhost::Error),
    /// A system call failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The two sides are of versions that cannot talk.
    #[error("libibverbs (masq {ours}) and masqd ({theirs}) do not fit together")]
    Version {
        /// This library.
        ours: String,
        /// The backend.
        theirs: String,
    },
    /// The backend is no device of ours, or lacks something that is needed.
    #[error("the backend {0}")]
    Unfit(&'static str),
    /// The backend refused a command.
    #[error("refused: {0:?}")]
    Refused(Status),
    /// The backend is gone.
    #[error("masqd closed the session")]
    Gone,
    /// Memory for queues could not be had.
    #[error(transparent)]
    Memory(#[from] RegError),
}

impl DriverError {
    /// The errno that a verb answers with.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoEndpoint | Self::Gone => libc::ENODEV,
            Self::Connect { source, .. } | Self::Io(source) => {
                source.raw_os_error().unwrap_or(libc::EIO)
            }
            Self::Protocol(_) => libc::EIO,
            Self::Version { .. } | Self::Unfit(_) => libc::EPROTO,
            Self::Refused(status) => status.errno(),
            Self::Memory(error) => error.errno(),
        }
    }
}
