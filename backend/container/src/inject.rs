//! Brings a plan's mounts into a container.
//!
//! The runtime waits meanwhile: nothing of the container runs yet. Sources are cloned in
//! the hook's own mount namespace, targets are resolved in the container's, below its root
//! filesystem, and a mount goes from the one to the other by descriptor. So no path of the
//! image is ever resolved on the host.

use crate::ContainerError;
use crate::bundled::Bundled;
use crate::image;
use crate::mountpoint;
use crate::namespace::Container;
use crate::plan::{Item, Kind, Plan};
use crate::record::{Place, Record};
use crate::rootfs::{Inode, Root, facts};
use crate::{attributes, device, edit, sysfs};
use rustix::fs::{CWD, Mode};
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// What is injected where.
#[derive(Debug)]
pub(crate) struct Injection<'a> {
    /// The container's init process.
    pub(crate) pid: i32,
    /// masqd's directory for the container.
    pub(crate) dir: &'a Path,
    /// What masq brings; none if the image is to be left alone.
    pub(crate) bundled: Option<&'a Bundled>,
    /// Where the record is kept.
    pub(crate) place: &'a Place,
    /// The record so far.
    pub(crate) record: Record,
}

/// A clone of a source, mounted nowhere yet.
struct Detached<'a> {
    item: &'a Item,
    mount: OwnedFd,
    inode: Inode,
}

/// Does it. The record is complete before anything is created.
///
/// # Errors
/// [`ContainerError`]; what was mounted goes with the container, what was created is in the
/// record.
pub(crate) fn inject(mut injection: Injection<'_>) -> Result<Vec<String>, ContainerError> {
    // Others than root must be able to look into the directories that are made.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let container = Container::open(injection.pid, &injection.record.rootfs)?;
    let mut plan = Plan::default();
    plan.directories(injection.dir);
    if let Some(bundled) = injection.bundled {
        let image = container.within(|root| Ok(image::inspect(root, bundled.names())))?;
        plan.libraries(&image, bundled)?;
    }
    let mut notes = plan.notes;
    let mut mounts = Vec::new();
    for item in &plan.items {
        match clone(&item.source, item.kind) {
            Ok((mount, inode)) => mounts.push(Detached { item, mount, inode }),
            Err(e) if item.essential => return Err(e),
            Err(e) => notes.push(e.to_string()),
        }
    }
    // The host's, while this is the host.
    let userfaultfd = edit::userfaultfd();
    let sys = clone(&injection.dir.join("sys"), Kind::Directory);
    // An ended container's record may be of a root filesystem that is gone, and its number
    // another's now.
    let mut others = injection.place.others();
    others.retain(|o| o.process.is_alive() || o.rootfs == injection.record.rootfs);
    container.within(|root| {
        prepare(
            root,
            &container,
            &others,
            &mut mounts,
            &mut injection,
            &mut notes,
        )?;
        if let Some(number) = userfaultfd
            && let Err(e) = device::open_userfaultfd(root, &container, number)
        {
            notes.push(e.to_string());
        }
        for mount in &mounts {
            let attached = attach(root, &container, &mount.mount, mount.inode, mount.item);
            essential(attached, mount.item, &mut notes)?;
        }
        if let Err(e) = sys.and_then(|(mount, inode)| sysfs::show(root, &container, mount, inode)) {
            notes.push(format!("/sys/class/infiniband is left out: {e}"));
        }
        Ok(())
    })?;
    Ok(notes)
}

fn essential(
    result: Result<(), ContainerError>,
    item: &Item,
    notes: &mut Vec<String>,
) -> Result<(), ContainerError> {
    match result {
        Err(e) if !item.essential => {
            notes.push(e.to_string());
            Ok(())
        }
        other => other,
    }
}

/// Makes all mount points, after recording those that would outlive the container: those
/// that it makes, and those that `others` made in the same root filesystem.
fn prepare(
    root: &Root,
    container: &Container,
    others: &[Record],
    mounts: &mut Vec<Detached<'_>>,
    injection: &mut Injection<'_>,
    notes: &mut Vec<String>,
) -> Result<(), ContainerError> {
    let mut planned = Vec::new();
    for mount in mounts.drain(..) {
        let target = &mount.item.target;
        let missing = if mountpoint::is_plain(target) {
            mountpoint::missing(root, target, mount.item.kind)
        } else {
            Err(mountpoint::not_plain(target))
        };
        match missing {
            // A volume is the host's: nothing is left there that can be done without.
            Ok(missing)
                if !mount.item.essential
                    && !missing.in_rootfs
                    && missing.device.is_some_and(|d| container.is_of_host(d)) =>
            {
                notes.push(format!(
                    "{} is left out: it would have to be created on a volume",
                    target.display()
                ));
            }
            Ok(missing) => planned.push((mount, missing)),
            Err(e) => essential(Err(e), mount.item, notes)?,
        }
    }
    let created = &mut injection.record.created;
    for part in others.iter().flat_map(|other| &other.created) {
        let is_used = planned
            .iter()
            .any(|(m, _)| m.item.target.starts_with(&part.path));
        if is_used && !created.contains(part) {
            created.push(part.clone());
        }
    }
    for part in planned
        .iter()
        .filter(|(_, m)| m.in_rootfs)
        .flat_map(|(_, m)| &m.parts)
    {
        if !created.contains(part) {
            created.push(part.clone());
        }
    }
    injection.place.write(&injection.record)?;
    for (mount, missing) in planned {
        match mountpoint::make(root, &missing.parts, container.owner) {
            Ok(()) => mounts.push(mount),
            Err(e) => essential(Err(e), mount.item, notes)?,
        }
    }
    Ok(())
}

/// A clone of the mount at `source`, which shows it read-only.
fn clone(source: &Path, kind: Kind) -> Result<(OwnedFd, Inode), ContainerError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, source, flags).map_err(ContainerError::io("clone", source))?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    if kind == Kind::Directory {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    attributes::set(&mount, attributes)
        .map_err(ContainerError::io("make a read-only view of", source))?;
    let inode = facts(&mount)
        .map_err(ContainerError::io("look at", source))?
        .inode;
    Ok((mount, inode))
}

/// Mounts `mount` at the target of `item`, unless it is there already.
fn attach(
    root: &Root,
    container: &Container,
    mount: &OwnedFd,
    inode: Inode,
    item: &Item,
) -> Result<(), ContainerError> {
    let target = mountpoint::open(root, &item.target, item.kind)?;
    attach_at(container, mount, inode, &target, &item.target)
}

/// Mounts `mount`, which shows `inode`, upon `target`; `path` is for messages.
pub(crate) fn attach_at(
    container: &Container,
    mount: impl AsFd,
    inode: Inode,
    target: impl AsFd,
    path: &Path,
) -> Result<(), ContainerError> {
    let found = facts(&target).map_err(ContainerError::io("look at", path))?;
    if found.inode == inode {
        return Ok(());
    }
    if container.is_shared(found.mount) {
        return Err(ContainerError::Image(format!(
            "{} of the container lies in a mount that the host shares with it: what is \
             mounted there would appear on the host\n  \
             start the container with rprivate or rslave propagation there",
            path.display()
        )));
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).map_err(ContainerError::io("mount at", path))
}
