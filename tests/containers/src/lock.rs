//! Locks between processes.

use anyhow::Context as _;
use masq_e2e::target_dir;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::PathBuf;

/// An exclusive lock on a file under `target/rootfs/`, until it is dropped or the process
/// ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock of this name.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn take(name: &str) -> anyhow::Result<Self> {
        let path = cache_dir()?.join(format!("{name}.lock"));
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(Self { _file: file })
    }
}

/// Where root filesystems and locks are kept.
pub(crate) fn cache_dir() -> anyhow::Result<PathBuf> {
    let dir = target_dir()?.join("rootfs");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}
