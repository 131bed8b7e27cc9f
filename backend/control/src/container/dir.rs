//! The directory of a container below the run directory: what is mounted into it, and
//! what a masqd that is started again must know.

use super::{Before, sysfs};
use crate::gid::GidTable;
use masq_admin::{ProcessId, Registration};
use rustix::fs::{Mode, OFlags, open};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What is mounted at /run/masq.
const RUN: &str = "run";
/// What is mounted at /sys/class/infiniband.
const SYS: &str = "sys";
/// What is mounted at /dev/infiniband.
const DEV: &str = "dev";
const SOCKET: &str = "masq.sock";
/// The record of masqd.
const STATE: &str = "state.json";
/// How directories are called that are being removed: no id begins so.
const ASIDE: &str = ".gone-";

/// What is kept of a container for a masqd that is started again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(flatten)]
    pub(crate) init: ProcessId,
    pub(crate) registration: Registration,
    pub(crate) before: Before,
}

/// A container's directory. It stays when this is dropped.
#[derive(Debug)]
pub(crate) struct ContainerDir(PathBuf);

impl ContainerDir {
    /// The directories there are below `root`, with their records.
    pub(crate) fn existing(root: &Path) -> Vec<(Self, io::Result<Record>)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                // Whoever put it out of the way did not get to remove it.
                let _ = fs::remove_dir_all(entry.path());
                continue;
            }
            let dir = Self(entry.path());
            let record = dir.record();
            found.push((dir, record));
        }
        found
    }

    /// That of `id`, whether it is there or not.
    pub(crate) fn of(root: &Path, id: &str) -> Self {
        Self(root.join(id))
    }

    /// Makes what is missing of it. What is there stays: it may be mounted.
    pub(crate) fn make(&self) -> io::Result<()> {
        for name in [RUN, SYS, DEV] {
            fs::create_dir_all(self.0.join(name))?;
        }
        for name in ["uverbs0", "rdma_cm"] {
            match fs::File::create_new(self.0.join(DEV).join(name)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join(RUN).join(SOCKET)
    }

    /// The container's socket. Anybody inside may connect: who that is, is asked of the
    /// kernel.
    pub(crate) fn listen(&self) -> io::Result<UnixListener> {
        // Through a descriptor: the path may be longer than a socket address.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(self.0.join(RUN), flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())).join(SOCKET);
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    pub(crate) fn write_record(&self, record: &Record) -> io::Result<()> {
        replace(&self.0.join(STATE), &serde_json::to_vec(record)?)
    }

    fn record(&self) -> io::Result<Record> {
        Ok(serde_json::from_slice(&fs::read(self.0.join(STATE))?)?)
    }

    /// What programs find of the device in sysfs.
    pub(crate) fn write_sysfs(&self, device: &str, gids: &GidTable) -> io::Result<()> {
        sysfs::write(&self.0.join(SYS).join(device), gids)
    }

    /// Puts the directory out of the way at once, and has what is in it removed by a
    /// thread: that may take milliseconds.
    pub(crate) fn remove(&self) -> io::Result<()> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        // One of an earlier masqd may lie there yet.
        let aside = format!("{ASIDE}{}-{number}", std::process::id());
        let aside = self.0.with_file_name(aside);
        match fs::rename(&self.0, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result?,
        }
        let thread = std::thread::Builder::new().name("masq-remove".into());
        thread.spawn(move || fs::remove_dir_all(aside)).map(drop)
    }
}

/// Writes a file whole or not at all. What is there is not opened: a container may hold a
/// lease on all that it can read, and whoever opens that waits (fcntl(2)).
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::File::create_new(&fresh)?.write_all(bytes)?;
    fs::rename(&fresh, path)
}

/// Reads a file that a container may hold a lease on: an error then.
pub(super) fn read_at_once(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut bytes = Vec::new();
    fs::File::from(open(path, flags, Mode::empty())?).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::Namespaces;
    use super::*;

    #[test]
    fn what_is_written_is_found_again_and_the_mounted_directory_stays() {
        let root = tempfile::tempdir().unwrap();
        let dir = ContainerDir::of(root.path(), "c1");
        dir.make().unwrap();
        let record = Record {
            init: ProcessId {
                pid: 7,
                start_time: 9,
            },
            registration: Registration {
                container: "c1".into(),
                ..Registration::default()
            },
            before: Before {
                net: Namespaces::of(std::process::id() as i32).unwrap().net,
                placed_at: vec![[10, 0, 0, 1].into()],
                held: vec![],
            },
        };
        dir.write_record(&record).unwrap();
        let inode = |dir: &ContainerDir| {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(dir.path().join(RUN)).unwrap().ino()
        };
        let before = inode(&dir);
        drop(dir.listen().unwrap());
        let again = ContainerDir::of(root.path(), "c1");
        again.make().unwrap();
        again.listen().unwrap();
        assert_eq!(inode(&again), before);
        let (found, read) = ContainerDir::existing(root.path()).pop().unwrap();
        let read = read.unwrap();
        assert_eq!((read.init, read.before), (record.init, record.before));
        found.remove().unwrap();
        assert!(!found.path().exists());
        found.remove().unwrap();
        assert!(ContainerDir::existing(root.path()).is_empty());
    }
}
