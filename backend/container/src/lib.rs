//! Containers as endpoints: what a container asks for, what is brought into it, and the
//! ways in which runtimes come to run masq's hook.
//!
//! The hook is run by a runtime on the host, as root of the host (or of the user namespace
//! of a rootless runtime), before anything of the container runs. The state and the bundle
//! are the runtime's word. The root filesystem is a tenant's: [`Root`] resolves every path
//! below it, and nothing that lies there is trusted.

mod asked;
mod attributes;
mod bundled;
pub mod cdi;
mod device;
mod edit;
mod elf;
mod error;
pub mod gc;
mod held;
pub mod hook;
mod image;
mod inject;
mod installed;
mod mountpoint;
mod namespace;
mod oci;
mod plan;
mod record;
mod rootfs;
pub mod runtime;
mod storage;
mod sysfs;
mod tmpfs;

pub use asked::{Asked, Device, ENDPOINT, LIBRARY, TENANT};
pub use edit::{HookCommand, add_hooks, asks};
pub use elf::GlibcVersion;
pub use error::ContainerError;
pub use held::Held;
pub use installed::{LIBRARY as LIBRARY_FILE, libraries};
pub use oci::{Config, State};
pub use rootfs::Root;
