//! Answers for `/dev/infiniband/rdma_cm` towards the stock `librdmacm.so.1`.
//!
//! librdmacm talks to the kernel by `open`, `fstat`, `close` and one `write` per command.
//! Inside an endpoint these calls come here instead ([`attach`]). A channel is an event
//! queue of the device, whose eventfd is the descriptor that the program polls; a command
//! is decoded, crosses the control ring (SPEC clause 9.9) and is answered where its
//! response pointer says. The connection manager itself lives in masqd.
//!
//! # Rules
//! 1. The slots of librdmacm alone are redirected: other calls of the process cost
//!    nothing and see nothing. A duplicate of a channel's descriptor can be polled, not
//!    written to.
//! 2. No lock is held while GET_EVENT blocks, and nothing is pending that would have to
//!    be undone if the thread is cancelled there.
//! 3. A pointer that leads nowhere is EFAULT, found before the device is asked.
//! 4. Channels of a session that is gone, or of the parent of a forked process, answer
//!    ENODEV.
//!
//! The modules [`abi`], [`decode`] and [`encode`] are pure.

mod address;
mod caller;
mod channel;
pub mod decode;
pub mod encode;
mod error;
mod got;
mod interpose;
mod os;
mod table;

pub use error::CmError;
pub use masq_verbs_abi::ucm as abi;

/// Redirects the calls of every librdmacm that is loaded by now. To be called when the
/// library is loaded and whenever librdmacm is about to open the device; cheap if nothing
/// was loaded since the last call.
pub fn attach() {
    os::install_fork_handlers();
    got::redirect();
}
