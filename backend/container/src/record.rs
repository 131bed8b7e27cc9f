//! What the hook had to create in a root filesystem to mount upon: written down before it
//! is made, removed when the container is gone.
//!
//! The record stands in `RUN_DIR/injected/ID.json`, apart from masqd's own directory of
//! the container, which goes as soon as the init process does. A runtime without the right
//! to write there (rootless) has it in the bundle.

use crate::ContainerError;
use crate::oci::ContainerId;
use crate::process::ProcessId;
use crate::rootfs::{Root, facts};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Directory below masqd's run directory.
const DIR: &str = "injected";
const IN_BUNDLE: &str = "masq-injected.json";
const MAX_RECORD: u64 = 1 << 20;

/// A mount point that was not there before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Created {
    /// Its path in the root filesystem.
    pub path: PathBuf,
    /// Whether it is a directory; else a file.
    pub directory: bool,
}

/// The hook's record of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The container.
    pub container: String,
    /// Its init process.
    pub process: ProcessId,
    /// Its root filesystem on the host.
    pub rootfs: PathBuf,
    /// What was created there, outermost first.
    pub created: Vec<Created>,
}

/// Where a container's record is kept; good in any mount namespace.
#[derive(Debug)]
pub(crate) struct Place {
    dir: OwnedFd,
    name: OsString,
    path: PathBuf,
}

fn dir_flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// `RUN_DIR/injected`.
pub(crate) fn directory(run_dir: &Path) -> PathBuf {
    run_dir.join(DIR)
}

impl Place {
    fn open(dir: &Path, name: OsString) -> io::Result<Self> {
        Ok(Self {
            dir: rustix::fs::open(dir, dir_flags(), Mode::empty())?,
            path: dir.join(&name),
            name,
        })
    }

    /// Where the record of `id` can be written.
    pub(crate) fn to_write(
        run_dir: &Path,
        id: &ContainerId,
        bundle: &Path,
    ) -> Result<Self, ContainerError> {
        let dir = directory(run_dir);
        let made = match std::fs::create_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => rustix::fs::access(&dir, rustix::fs::Access::WRITE_OK).map_err(Into::into),
        };
        match made {
            Ok(()) => Self::open(&dir, format!("{id}.json").into())
                .map_err(ContainerError::io("open", &dir)),
            Err(_) => {
                Self::open(bundle, IN_BUNDLE.into()).map_err(ContainerError::io("open", bundle))
            }
        }
    }

    /// Where records of `id` may stand.
    pub(crate) fn all(run_dir: &Path, id: &ContainerId, bundle: &Path) -> Vec<Self> {
        let places = [
            Self::open(&directory(run_dir), format!("{id}.json").into()),
            Self::open(bundle, IN_BUNDLE.into()),
        ];
        places.into_iter().flatten().collect()
    }

    /// Writes `record`, whole or not at all.
    pub(crate) fn write(&self, record: &Record) -> Result<(), ContainerError> {
        let mut part = self.name.clone();
        part.push(".part");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let write = || -> io::Result<()> {
            let mode = Mode::RUSR | Mode::WUSR;
            let fd = rustix::fs::openat(&self.dir, &part, flags | OFlags::NOFOLLOW, mode)?;
            File::from(fd).write_all(&serde_json::to_vec(record)?)?;
            rustix::fs::renameat(&self.dir, &part, &self.dir, &self.name)?;
            Ok(())
        };
        write().map_err(ContainerError::io("write", &self.path))
    }

    /// Reads the record; none if there is none.
    pub(crate) fn read(&self) -> Result<Option<Record>, ContainerError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.dir, &self.name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            other => other.map_err(ContainerError::io("read", &self.path))?,
        };
        let mut text = Vec::new();
        File::from(fd)
            .take(MAX_RECORD)
            .read_to_end(&mut text)
            .map_err(ContainerError::io("read", &self.path))?;
        match serde_json::from_slice(&text) {
            Ok(record) => Ok(Some(record)),
            Err(e) => Err(ContainerError::Garbled {
                path: self.path.clone(),
                why: e.to_string(),
            }),
        }
    }

    /// Removes the record.
    pub(crate) fn remove(&self) -> Result<(), ContainerError> {
        match rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(ContainerError::io("remove", &self.path)(e)),
        }
    }
}

/// Removes what was created in the root filesystem, as far as it is still there and still
/// empty. Says what could not be removed.
pub(crate) fn remove_created(record: &Record) -> Vec<String> {
    // A root filesystem that is unmounted, or gone, has nothing to remove.
    let Ok(root) = Root::open(&record.rootfs) else {
        return Vec::new();
    };
    let mut failures = Vec::new();
    for created in record.created.iter().rev() {
        if let Err(e) = remove_one(&root, created) {
            failures.push(format!(
                "{} below {} stays: {e}",
                created.path.display(),
                record.rootfs.display()
            ));
        }
    }
    failures
}

fn remove_one(root: &Root, created: &Created) -> io::Result<()> {
    use rustix::io::Errno;
    let (Some(parent), Some(name)) = (created.path.parent(), created.path.file_name()) else {
        return Ok(());
    };
    let gone = |e: Errno| matches!(e, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV);
    let parent = match root.resolve_here(parent) {
        Err(e) if gone(e) => return Ok(()),
        other => other?,
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
        Err(e) if gone(e) => return Ok(()),
        other => facts(other?)?,
    };
    let result = match found.kind {
        FileType::Directory if created.directory => {
            rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)
        }
        // What has contents now is the container's.
        FileType::RegularFile if !created.directory && found.size == 0 => {
            rustix::fs::unlinkat(&parent, name, AtFlags::empty())
        }
        _ => Ok(()),
    };
    match result {
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}
