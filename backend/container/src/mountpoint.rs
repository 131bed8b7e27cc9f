//! Mount points below a root filesystem: found, or planned, recorded and made.

use crate::ContainerError;
use crate::plan::Kind;
use crate::record::Created;
use crate::rootfs::{Root, facts};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::{FileType, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// What is missing for a mount at some path.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// Outermost first.
    pub(crate) parts: Vec<Created>,
    /// Whether they would be made in the root filesystem itself, and not in a tmpfs or
    /// volume of the container.
    pub(crate) in_rootfs: bool,
    /// Filesystem on which they would be made, if there are any.
    pub(crate) device: Option<(u32, u32)>,
}

/// What has to be made before something of `kind` can be mounted at `target`.
///
/// # Errors
/// If something else is in the way.
pub(crate) fn missing(root: &Root, target: &Path, kind: Kind) -> Result<Missing, ContainerError> {
    let look = |path: &Path| root.facts(path);
    match look(target) {
        Ok(found) if fits(found.kind, kind) => return Ok(Missing::default()),
        Ok(_) => return Err(in_the_way(target, kind)),
        Err(Errno::NOENT) if is_absent(root, target) => {}
        Err(Errno::NOENT) => return Err(in_the_way(target, kind)),
        Err(e) => return Err(ContainerError::io("look at", target)(e)),
    }
    let mut parts = vec![Created {
        path: target.to_owned(),
        directory: kind == Kind::Directory,
    }];
    for ancestor in target.ancestors().skip(1) {
        match look(ancestor) {
            Ok(found) if found.kind == FileType::Directory => {
                let root_mount = facts(root).map_err(ContainerError::io("look at", target))?;
                parts.reverse();
                return Ok(Missing {
                    parts,
                    in_rootfs: found.mount == root_mount.mount,
                    device: Some(found.inode.device),
                });
            }
            Ok(_) => return Err(in_the_way(ancestor, Kind::Directory)),
            Err(Errno::NOENT) if is_absent(root, ancestor) => parts.push(Created {
                path: ancestor.to_owned(),
                directory: true,
            }),
            Err(Errno::NOENT) => return Err(in_the_way(ancestor, Kind::Directory)),
            Err(e) => return Err(ContainerError::io("look at", ancestor)(e)),
        }
    }
    Err(in_the_way(target, kind))
}

/// Whether there is not even a link that leads nowhere.
fn is_absent(root: &Root, path: &Path) -> bool {
    matches!(root.resolve_link(path), Err(Errno::NOENT))
}

fn fits(found: FileType, kind: Kind) -> bool {
    match kind {
        Kind::Directory => found == FileType::Directory,
        Kind::File => found == FileType::RegularFile,
    }
}

fn in_the_way(path: &Path, kind: Kind) -> ContainerError {
    let wanted = match kind {
        Kind::Directory => "a directory",
        Kind::File => "a regular file",
    };
    ContainerError::Image(format!(
        "the image has something at {} that is not {wanted}, where masq has to mount one",
        path.display()
    ))
}

/// Makes what [`missing`] found. `owner` is root of the container, as the host numbers it.
pub(crate) fn make(
    root: &Root,
    parts: &[Created],
    owner: (u32, u32),
) -> Result<(), ContainerError> {
    for part in parts {
        let result = match make_one(root, part) {
            // A filesystem of the container's user namespace takes files of its users only.
            Err(Errno::OVERFLOW | Errno::ACCESS | Errno::PERM) if owner != (0, 0) => {
                as_user(owner, || make_one(root, part))
            }
            other => other,
        };
        match result {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(ContainerError::io("create the mount point", &part.path)(e)),
        }
    }
    Ok(())
}

fn make_one(root: &Root, part: &Created) -> rustix::io::Result<()> {
    let (parent, name) = split(&part.path).ok_or(Errno::INVAL)?;
    let parent = root.resolve(parent)?;
    if part.directory {
        mkdirat(&parent, name, Mode::from_raw_mode(0o755))
    } else {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        openat(&parent, name, flags, Mode::from_raw_mode(0o755)).map(drop)
    }
}

fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

/// Does file operations as another user, for one call.
fn as_user<T>((uid, gid): (u32, u32), work: impl FnOnce() -> T) -> T {
    let gid_before = setfsgid(Gid::from_raw(gid));
    let uid_before = setfsuid(Uid::from_raw(uid));
    let result = work();
    setfsuid(uid_before);
    setfsgid(gid_before);
    result
}

/// Opens what is mounted upon.
pub(crate) fn open(root: &Root, target: &Path, kind: Kind) -> Result<OwnedFd, ContainerError> {
    let fd = root
        .resolve(target)
        .map_err(ContainerError::io("open the mount point", target))?;
    let found = facts(&fd).map_err(ContainerError::io("look at", target))?;
    if !fits(found.kind, kind) {
        return Err(in_the_way(target, kind));
    }
    Ok(fd)
}

/// Whether a path is absolute and has no `..`: all targets are.
pub(crate) fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path
            .components()
            .all(|c| matches!(c, Component::RootDir | Component::Normal(_)))
}

/// For messages about a target that is no path of ours.
pub(crate) fn not_plain(path: &Path) -> ContainerError {
    ContainerError::io("mount at", PathBuf::from(path))(io::Error::other("it is no plain path"))
}
