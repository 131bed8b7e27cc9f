//! Why a port was not opened.

use std::io;
use std::net::IpAddr;

/// Why a port was not opened: the host's fault.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No interface has the host's address.
    #[error("no interface has the address {0}")]
    NoInterface(IpAddr),
    /// The interface's MTU is below that of any RoCE packet.
    #[error("the MTU of {interface}, {mtu}, is too small for RoCE")]
    Mtu {
        /// The interface.
        interface: String,
        /// Its MTU, in bytes.
        mtu: usize,
    },
    /// No number of threads, or too many.
    #[error("{0} threads cannot share a host")]
    Threads(usize),
    /// The system refused something.
    #[error("cannot {doing}")]
    System {
        /// What was to be done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Says what was being done when the system refused.
pub(crate) fn doing<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> PortError {
    move |error| PortError::System {
        doing,
        source: error.into(),
    }
}
