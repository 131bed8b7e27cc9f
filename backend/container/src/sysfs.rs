//! `/sys/class/infiniband` of a container.
//!
//! Where the host has RDMA devices the directory exists, and is mounted over, which also
//! hides the host's. Elsewhere the kernel offers no place: then `/sys/class` is covered by
//! a filesystem in memory with the same classes. A class is a directory of relative links
//! into `/sys/devices`, so copied links lead where they led; those that change while a
//! container runs, or hold files, are bound as they are.

use crate::ContainerError;
use crate::attributes;
use crate::inject::attach_at;
use crate::namespace::Container;
use crate::rootfs::{self, Inode, Root, facts};
use crate::tmpfs::{self, Devices};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fstatfs, mkdirat, openat, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const CLASSES: &str = "/sys/class";
/// From linux/magic.h.
const SYSFS_MAGIC: rustix::fs::FsWord = 0x6265_6572;
const OURS: &str = "/sys/class/infiniband";
/// Changes with the container's network.
const NET: &str = "net";
/// More classes, or members of one, than a kernel has, bar a container's own directory.
const MAX_NAMES: usize = 4096;

/// Lets `/sys/class/infiniband` show `ours`, whose root is `inode`.
pub(crate) fn show(
    root: &Root,
    container: &Container,
    ours: OwnedFd,
    inode: Inode,
) -> Result<(), ContainerError> {
    let path = Path::new(OURS);
    match root.resolve(path) {
        Ok(target) => return attach_at(container, ours, inode, target, path),
        Err(Errno::NOENT) => {}
        Err(e) => return Err(ContainerError::io("open", path)(e)),
    }
    let classes = Path::new(CLASSES);
    let failed = |e: Errno| ContainerError::io("cover", classes)(e);
    let old = root.resolve(classes).map_err(failed)?;
    // What a tenant can change could be changed while it is copied.
    if fstatfs(&old).map_err(failed)?.f_type != SYSFS_MAGIC {
        return Err(failed(Errno::OPNOTSUPP));
    }
    if container.is_shared(facts(&old).map_err(failed)?.mount) {
        return Err(failed(Errno::BUSY));
    }
    let fs = tmpfs::new(Devices::Denied)?;
    let bound = copy(&old, &fs).map_err(failed)?;
    let name = path.file_name().unwrap_or_default();
    make_dir(&fs, name).map_err(failed)?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
    attributes::set(&fs, read_only).map_err(ContainerError::io("cover", classes))?;
    let inode_of_fs = facts(&fs).map_err(failed)?.inode;
    attach_at(container, &fs, inode_of_fs, &old, classes)?;
    for (name, mount) in bound {
        let target = open_dir(&fs, &name).map_err(failed)?;
        let inode = facts(&mount).map_err(failed)?.inode;
        attach_at(container, &mount, inode, &target, classes)?;
    }
    let target = open_dir(&fs, name).map_err(failed)?;
    attach_at(container, ours, inode, target, path)
}

fn make_dir(at: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
    mkdirat(at, name, Mode::from_raw_mode(0o755))
}

fn open_dir(at: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Copies the classes of `old` to `new`; returns those that have to be bound there.
fn copy(old: &OwnedFd, new: &OwnedFd) -> rustix::io::Result<Vec<(OsString, OwnedFd)>> {
    let list = |at: &OwnedFd, name: &OsStr| -> rustix::io::Result<(OwnedFd, Vec<OsString>)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(at, name, flags, Mode::empty())?;
        let names = rootfs::names(&dir, MAX_NAMES).map_err(|_| Errno::IO)?;
        Ok((dir, names))
    };
    let mut bound = Vec::new();
    let (_, classes) = list(old, OsStr::new("."))?;
    for class in classes {
        let kind = FileType::from_raw_mode(statat(old, &class, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
        if kind != FileType::Directory {
            continue;
        }
        make_dir(new, &class)?;
        let (dir, members) = list(old, &class)?;
        let to = open_dir(new, &class)?;
        let copied = class != NET && links(&dir, &members, &to)?;
        if !copied {
            // Of the directory that was looked at, not of what has its name now.
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH;
            bound.push((class.clone(), open_tree(&dir, "", flags)?));
        }
    }
    Ok(bound)
}

/// Copies `members` if all are links; says whether they were.
fn links(from: &OwnedFd, members: &[OsString], to: &OwnedFd) -> rustix::io::Result<bool> {
    for member in members {
        match readlinkat(from, member, Vec::new()) {
            Ok(target) => symlinkat(&target, to, member)?,
            // It is something else; what was copied so far is mounted over.
            Err(Errno::INVAL) => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}
