//! The mount namespace of a container: entered for the length of a closure.

use crate::ContainerError;
use crate::rootfs::{Descriptors, Root, facts};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags};
use std::collections::HashSet;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const MAX_MOUNTINFO: u64 = 64 << 20;
const MAX_MAP: u64 = 1 << 20;

/// The mount namespaces of this process and of a container's init process, and what else
/// only `/proc` of the host tells of it.
#[derive(Debug)]
pub(crate) struct Container {
    own: OwnedFd,
    theirs: OwnedFd,
    /// Mounts that others see what is mounted upon.
    shared: HashSet<u64>,
    /// Filesystems that the host has mounted somewhere.
    of_host: HashSet<(u32, u32)>,
    /// Who is root there, as the host numbers it.
    pub(crate) owner: (u32, u32),
    fds: Descriptors,
    rootfs: PathBuf,
    rootfs_on_host: Option<crate::rootfs::Inode>,
}

fn open(path: &Path) -> Result<OwnedFd, ContainerError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(ContainerError::io("open", path))
}

fn read(path: &Path, limit: u64) -> Result<String, ContainerError> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .map_err(ContainerError::io("read", path))?;
    Ok(text)
}

impl Container {
    /// The namespaces of `pid`, whose root filesystem is `rootfs`.
    pub(crate) fn open(pid: i32, rootfs: &Path) -> Result<Self, ContainerError> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let own = open(Path::new("/proc/self/ns/mnt"))?;
        let path = proc.join("ns/mnt");
        let theirs = open(&path)?;
        let inode = |fd| {
            facts(fd)
                .map(|f| f.inode)
                .map_err(ContainerError::io("look at", &path))
        };
        if inode(&own)? == inode(&theirs)? {
            return Err(ContainerError::Image(format!(
                "process {pid} has no mount namespace of its own: what is brought into the \
                 container would be brought into the host"
            )));
        }
        let shared = read(&proc.join("mountinfo"), MAX_MOUNTINFO)?
            .lines()
            .filter_map(shared_mount)
            .collect();
        let of_host = read(Path::new("/proc/self/mountinfo"), MAX_MOUNTINFO)?
            .lines()
            .filter_map(device)
            .collect();
        let root_of = |name| read(&proc.join(name), MAX_MAP).map(|map| root_of_map(&map));
        Ok(Self {
            own,
            theirs,
            shared,
            of_host,
            owner: (root_of("uid_map")?, root_of("gid_map")?),
            fds: Descriptors::of_host()
                .map_err(ContainerError::io("open", Path::new("/proc/self/fd")))?,
            rootfs: rootfs.to_owned(),
            rootfs_on_host: Root::open(rootfs)
                .and_then(|root| Ok(facts(root)?.inode))
                .ok(),
        })
    }

    /// Whether what is mounted upon `mount` would be seen elsewhere.
    pub(crate) fn is_shared(&self, mount: u64) -> bool {
        self.shared.contains(&mount)
    }

    /// Whether the host would see what is created on the filesystem `device`.
    pub(crate) fn is_of_host(&self, device: (u32, u32)) -> bool {
        self.of_host.contains(&device)
    }

    /// Runs `work` in the container's mount namespace, with its root filesystem.
    pub(crate) fn within<T>(
        &self,
        work: impl FnOnce(&Root) -> Result<T, ContainerError>,
    ) -> Result<T, ContainerError> {
        let failed = |what| {
            move |e: nix::Error| {
                ContainerError::io(what, "the mount namespace of the container")(io::Error::from(e))
            }
        };
        // Only a thread with a root and working directory of its own may enter.
        unshare(CloneFlags::CLONE_FS).map_err(failed("prepare for"))?;
        setns(&self.theirs, CloneFlags::CLONE_NEWNS).map_err(failed("enter"))?;
        let result = self.root().and_then(|root| work(&root));
        setns(&self.own, CloneFlags::CLONE_NEWNS).map_err(failed("leave"))?;
        result
    }

    /// Finds the root filesystem from within. Before the runtime has pivoted it stands
    /// where the host has it, afterwards it is `/`.
    fn root(&self) -> Result<Root, ContainerError> {
        let open = |path: &Path| Root::with(path, self.fds.try_clone()?);
        let there = open(&self.rootfs);
        let Some(wanted) = self.rootfs_on_host else {
            return there.map_err(ContainerError::io("find the root filesystem", &self.rootfs));
        };
        let is_it = |root: &Root| facts(root).is_ok_and(|f| f.inode == wanted);
        [there, open(Path::new("/"))]
            .into_iter()
            .flatten()
            .find(is_it)
            .ok_or_else(|| {
                ContainerError::io("find the root filesystem", &self.rootfs)(io::Error::other(
                    "the container's mount namespace shows something else there",
                ))
            })
    }
}

/// The mount that a line of mountinfo is of, if it is shared.
fn shared_mount(line: &str) -> Option<u64> {
    let (head, _) = line.split_once(" - ")?;
    let mut fields = head.split(' ');
    let id = fields.next()?.parse().ok()?;
    // Six fields, then the optional ones.
    fields
        .skip(5)
        .any(|f| f.starts_with("shared:"))
        .then_some(id)
}

/// The filesystem that a line of mountinfo is of.
fn device(line: &str) -> Option<(u32, u32)> {
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Who is 0 within, by a `uid_map`; 0 if nobody is.
fn root_of_map(map: &str) -> u32 {
    map.lines()
        .find_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (inside, outside) = (fields.next()?, fields.next()?);
            (inside == "0").then(|| outside.parse().ok())?
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_mounts_are_told_from_slaves() {
        let line =
            |options: &str| format!("36 35 98:0 / /mnt rw,noatime{options} - ext3 /dev/a rw");
        assert_eq!(shared_mount(&line(" shared:1")), Some(36));
        assert_eq!(shared_mount(&line(" shared:1 master:2")), Some(36));
        assert_eq!(shared_mount(&line(" master:1")), None);
        assert_eq!(shared_mount(&line("")), None);
        assert_eq!(shared_mount("nonsense"), None);
        assert_eq!(device(&line("")), Some((98, 0)));
        assert_eq!(device("nonsense"), None);
    }

    #[test]
    fn root_within_is_whom_the_map_says() {
        assert_eq!(root_of_map("         0          0 4294967295\n"), 0);
        assert_eq!(root_of_map("0 100000 65536\n"), 100_000);
        assert_eq!(root_of_map("1 100001 5\n0 1000 1\n"), 1000);
        assert_eq!(root_of_map(""), 0);
    }

    #[test]
    fn the_hosts_own_mount_namespace_is_never_mounted_into() {
        let own = std::process::id() as i32;
        let error = Container::open(own, Path::new("/")).unwrap_err();
        assert!(error.to_string().contains("no mount namespace"), "{error}");
    }
}
