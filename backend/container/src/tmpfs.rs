//! A small filesystem in memory that is mounted nowhere yet.

use crate::ContainerError;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use std::os::fd::OwnedFd;

/// Whether device nodes in it work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Devices {
    Allowed,
    Denied,
}

/// Files, directories and links in it: the size bounds what is in files only.
const MAX_INODES: &str = "32768";

/// Makes one. Its root is everybody's to look into.
pub(crate) fn new(devices: Devices) -> Result<OwnedFd, ContainerError> {
    let make = || -> rustix::io::Result<OwnedFd> {
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&fs, "mode", "0755")?;
        fsconfig_set_string(&fs, "size", "1m")?;
        fsconfig_set_string(&fs, "nr_inodes", MAX_INODES)?;
        fsconfig_create(&fs)?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        if devices == Devices::Denied {
            attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
        }
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().map_err(ContainerError::io("make", "a filesystem in memory"))
}
