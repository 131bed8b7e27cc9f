//! Why a command is not answered.

use masq_driver::DriverError;
use masq_spec::command::Status;

/// An error of a command, with the errno that the kernel would give.
#[derive(Debug, thiserror::Error)]
pub enum CmError {
    /// Shorter than its header, or than the header says, or than the command's structure.
    #[error("the command is cut short")]
    Truncated,
    /// No command has this number.
    #[error("no command has the number {0}")]
    UnknownCommand(u32),
    /// A command of the header that is not served.
    #[error("command {0} is not served")]
    NotServed(u32),
    /// The caller's room for the response is too small.
    #[error("the response does not fit")]
    NoRoom,
    /// An address, a port space or a flag that rdma_cm does not know.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// A pointer leads nowhere.
    #[error("a pointer leads nowhere")]
    Fault,
    /// MIGRATE_ID names a descriptor that is not open.
    #[error("no such descriptor")]
    NoDescriptor,
    /// The session, or the device behind it.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl CmError {
    /// The errno that `write` fails with.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Truncated | Self::UnknownCommand(_) | Self::Malformed(_) => libc::EINVAL,
            Self::NotServed(_) => libc::ENOSYS,
            Self::NoRoom => libc::ENOSPC,
            Self::Fault => libc::EFAULT,
            Self::NoDescriptor => libc::ENOENT,
            Self::Driver(error) => error.errno(),
        }
    }
}

impl From<Status> for CmError {
    fn from(status: Status) -> Self {
        Self::Driver(DriverError::Refused(status))
    }
}
