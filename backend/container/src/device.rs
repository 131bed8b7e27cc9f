//! The container's /dev/userfaultfd. Where a container has a user namespace, runtimes bind
//! the host's node there, which belongs to nobody that it knows; one of its own is put
//! over it.

use crate::ContainerError;
use crate::inject::attach_at;
use crate::namespace::Container;
use crate::rootfs::{Root, facts};
use crate::tmpfs;
use rustix::fs::{FileType, Mode, chmodat, mknodat, statat};
use rustix::mount::{OpenTreeFlags, open_tree};
use std::path::Path;

const NODE: &str = "/dev/userfaultfd";
/// A directory that holds the node's filesystem until it is mounted over.
const HOLDER: &str = "/dev/infiniband";

/// Makes the node one that every user may open, if the container has it at all. `wanted`
/// is the device's number: an image may have any other device there.
pub(crate) fn open_userfaultfd(
    root: &Root,
    container: &Container,
    wanted: (u32, u32),
) -> Result<(), ContainerError> {
    let path = Path::new(NODE);
    let Ok(node) = root.resolve_link(path) else {
        return Ok(());
    };
    let failed = || ContainerError::io("let every user open", path);
    let found = facts(&node).map_err(|e| failed()(e))?;
    if found.kind != FileType::CharacterDevice || found.mode & 0o666 == 0o666 {
        return Ok(());
    }
    let number = statat(&node, "", rustix::fs::AtFlags::EMPTY_PATH)
        .map_err(|e| failed()(e))?
        .st_rdev;
    if (rustix::fs::major(number), rustix::fs::minor(number)) != wanted {
        return Ok(());
    }
    let fs = tmpfs::new(tmpfs::Devices::Allowed)?;
    let mode = Mode::from_raw_mode(0o666);
    mknodat(&fs, "node", FileType::CharacterDevice, mode, number).map_err(|e| failed()(e))?;
    chmodat(&fs, "node", mode, rustix::fs::AtFlags::empty()).map_err(|e| failed()(e))?;
    let holder = root.resolve(Path::new(HOLDER)).map_err(|e| failed()(e))?;
    let inode = facts(&fs).map_err(|e| failed()(e))?.inode;
    attach_at(container, &fs, inode, &holder, Path::new(HOLDER))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(&fs, "node", flags).map_err(|e| failed()(e))?;
    let inode = facts(&clone).map_err(|e| failed()(e))?.inode;
    attach_at(container, &clone, inode, &node, path)
}
