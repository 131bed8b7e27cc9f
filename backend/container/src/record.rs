//! What the hook had to create in a root filesystem to mount upon: written down before it
//! is made, removed when the container is gone.
//!
//! The record stands in `RUN_DIR/injected/ROOTFS@ID.json`, apart from masqd's own directory of
//! the container, which goes as soon as the init process does. A runtime without the right
//! to write there (rootless) has it in the bundle.
//!
//! Containers may share a root filesystem. To remove a mount point takes the mount from
//! whoever has it there, so each record names all that its container's mounts stand upon,
//! whoever created it, and the last one removes it.

use crate::ContainerError;
use crate::rootfs::{Root, facts};
use masq_admin::{ContainerId, ProcessId};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Directory below masqd's run directory.
const DIR: &str = "injected";
const IN_BUNDLE: &str = "masq-injected.json";
const MAX_RECORD: u64 = 1 << 20;
const LOCK_TRIES: usize = 1000;
const LOCK_PAUSE: Duration = Duration::from_millis(2);

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
    run_dir: PathBuf,
}

fn dir_flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// `RUN_DIR/injected`.
pub(crate) fn directory(run_dir: &Path) -> PathBuf {
    run_dir.join(DIR)
}

/// Which root filesystem a record is of. It stands in the record's name, so that those of
/// containers that share one are found without reading all.
fn key(rootfs: &Path) -> String {
    let found = Root::open(rootfs).and_then(|root| Ok(facts(root)?.inode));
    found.map_or_else(|_| "0".to_owned(), |inode| inode.to_string())
}

/// The containers with records below `run_dir`, and the names of these.
pub(crate) fn list(run_dir: &Path) -> io::Result<Vec<(ContainerId, OsString)>> {
    let entries = match std::fs::read_dir(directory(run_dir)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((split(&entry.file_name())?.1, entry.file_name())))
        .collect();
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}

/// Key and container of a record's name.
fn split(name: &OsStr) -> Option<(&str, ContainerId)> {
    let (key, id) = name.to_str()?.strip_suffix(".json")?.split_once('@')?;
    Some((key, ContainerId::new(id).ok()?))
}

/// Keeps other hooks from creating and removing mount points while it lives.
pub(crate) struct Lock {
    _dir: OwnedFd,
}

/// Takes the lock. Whoever holds it for long is stuck, and not waited for: it matters only
/// to containers that share a root filesystem.
pub(crate) fn lock(run_dir: &Path) -> Option<Lock> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(directory(run_dir), flags, Mode::empty()).ok()?;
    for _ in 0..LOCK_TRIES {
        match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(Lock { _dir: dir }),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(_) => return None,
        }
    }
    None
}

impl Place {
    fn open(run_dir: &Path, dir: &Path, name: OsString) -> io::Result<Self> {
        Ok(Self {
            dir: rustix::fs::open(dir, dir_flags(), Mode::empty())?,
            path: dir.join(&name),
            name,
            run_dir: run_dir.to_owned(),
        })
    }

    /// Where the record of `id`, with the root filesystem `rootfs`, can be written.
    pub(crate) fn to_write(
        run_dir: &Path,
        id: &ContainerId,
        rootfs: &Path,
        bundle: &Path,
    ) -> Result<Self, ContainerError> {
        let dir = directory(run_dir);
        // Whoever can open it can lock it.
        let made = match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => rustix::fs::access(&dir, rustix::fs::Access::WRITE_OK).map_err(Into::into),
        };
        let name = format!("{}@{id}.json", key(rootfs));
        match made {
            Ok(()) => {
                Self::open(run_dir, &dir, name.into()).map_err(ContainerError::io("open", &dir))
            }
            Err(_) => Self::open(run_dir, bundle, IN_BUNDLE.into())
                .map_err(ContainerError::io("open", bundle)),
        }
    }

    /// The record of that name in `run_dir`.
    pub(crate) fn named(run_dir: &Path, name: OsString) -> io::Result<Self> {
        Self::open(run_dir, &directory(run_dir), name)
    }

    /// Where records of `id` stand, or may.
    pub(crate) fn all(run_dir: &Path, id: &ContainerId, bundle: &Path) -> Vec<Self> {
        let names = list(run_dir).unwrap_or_default();
        let own = names.into_iter().filter(|(found, _)| found == id);
        own.map(|(_, name)| Self::named(run_dir, name))
            .chain([Self::open(run_dir, bundle, IN_BUNDLE.into())])
            .flatten()
            .collect()
    }

    /// Records of other containers with the same root filesystem.
    pub(crate) fn others(&self) -> Vec<Record> {
        let Some((key, _)) = split(&self.name).filter(|(key, _)| *key != "0") else {
            return Vec::new();
        };
        let names = list(&self.run_dir).unwrap_or_default();
        names
            .into_iter()
            .filter(|(_, name)| *name != self.name)
            .filter(|(_, name)| split(name).is_some_and(|(other, _)| other == key))
            .filter_map(|(_, name)| Self::named(&self.run_dir, name).ok()?.read().ok()?)
            .collect()
    }

    /// Whether the root filesystem is still the one that the record was written of: another
    /// at its path is somebody else's. A record in a bundle does not tell.
    fn is_of(&self, rootfs: &Path) -> bool {
        split(&self.name).is_none_or(|(of, _)| of == "0" || of == key(rootfs))
    }

    /// Where it stands.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what was created for `record`, and the record. What a running container of
    /// the same root filesystem has mounts upon is left to that. Says what failed.
    pub(crate) fn undo(&self, record: &Record) -> Vec<String> {
        let mut failures = Vec::new();
        if self.is_of(&record.rootfs) {
            let others = self.others();
            failures = remove_created(record, |created| {
                let mut alive = others.iter().filter(|other| other.process.is_alive());
                alive.any(|other| other.created.contains(created))
            });
        }
        failures.extend(self.remove().err().map(|e| e.to_string()));
        failures
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
            Err(Errno::NOENT) => return Ok(None),
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
    fn remove(&self) -> Result<(), ContainerError> {
        match rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(ContainerError::io("remove", &self.path)(e)),
        }
    }
}

/// Removes what was created in the root filesystem, as far as it is still there and still
/// empty, and nobody else's. Says what could not be removed.
fn remove_created(record: &Record, is_used: impl Fn(&Created) -> bool) -> Vec<String> {
    // A root filesystem that is unmounted, or gone, has nothing to remove.
    let Ok(root) = Root::open(&record.rootfs) else {
        return Vec::new();
    };
    let mut failures = Vec::new();
    for created in record.created.iter().rev().filter(|c| !is_used(c)) {
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
