//! A container's root filesystem: every path is resolved below it.
//!
//! What lies there is a tenant's: symlinks that point out are followed as the container
//! would follow them, so that `/etc/passwd` is always the container's; a device or a FIFO
//! is never opened; reading is bounded.

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxFlags, openat2, statx,
};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// How paths are resolved: never out of the root, never by /proc's links.
const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
/// openat2 gives up when somebody renames meanwhile; how often to try again.
const RACES: usize = 16;

/// Which file something is, whatever its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Inode {
    /// Filesystem.
    pub(crate) device: (u32, u32),
    number: u64,
}

impl fmt::Display for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.device;
        write!(f, "{major:x}.{minor:x}.{:x}", self.number)
    }
}

/// What is known of an open file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) inode: Inode,
    pub(crate) kind: FileType,
    pub(crate) size: u64,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Mount that it was reached by.
    pub(crate) mount: u64,
}

/// Looks at an open file.
pub(crate) fn facts(fd: impl AsFd) -> rustix::io::Result<Facts> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let stat: Statx = statx(fd, "", AtFlags::EMPTY_PATH, flags)?;
    Ok(Facts {
        inode: Inode {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            number: stat.stx_ino,
        },
        kind: FileType::from_raw_mode(stat.stx_mode.into()),
        size: stat.stx_size,
        mode: u32::from(stat.stx_mode) & 0o7777,
        mount: stat.stx_mnt_id,
    })
}

/// A directory that paths are resolved in as if it were `/`.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    fds: Descriptors,
}

/// `/proc/self/fd`, found in the host's mount namespace and good in any. By it a file is
/// opened that was only looked at, whatever has its path now.
#[derive(Debug)]
pub(crate) struct Descriptors(OwnedFd);

impl Descriptors {
    pub(crate) fn of_host() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/proc/self/fd", flags, Mode::empty())?;
        Ok(Self(fd))
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    fn open(&self, fd: BorrowedFd<'_>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let name = fd.as_raw_fd().to_string();
        rustix::fs::openat(&self.0, name, flags | OFlags::CLOEXEC, Mode::empty())
    }
}

impl Root {
    /// Opens `path`, of the caller's mount namespace.
    ///
    /// # Errors
    /// What the kernel says, ENOTDIR if it is no directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with(path, Descriptors::of_host()?)
    }

    /// As [`Root::open`], where /proc may be somebody else's.
    pub(crate) fn with(path: &Path, fds: Descriptors) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            fd: rustix::fs::open(path, flags, Mode::empty())?,
            fds,
        })
    }

    /// Opens `path` without touching what is there.
    pub(crate) fn resolve(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.open_with(path, OFlags::PATH, RESOLVE)
    }

    /// As [`Root::resolve`], with a symlink as the last component opened itself.
    pub(crate) fn resolve_link(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.open_with(path, OFlags::PATH | OFlags::NOFOLLOW, RESOLVE)
    }

    /// As [`Root::resolve`], staying on the filesystem of the root.
    pub(crate) fn resolve_here(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.open_with(path, OFlags::PATH, RESOLVE | ResolveFlags::NO_XDEV)
    }

    fn open_with(
        &self,
        path: &Path,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let mut tries = 0;
        loop {
            let flags = flags | OFlags::CLOEXEC;
            match openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if tries < RACES => tries += 1,
                other => return other,
            }
        }
    }

    /// Looks at `path`, following symlinks.
    pub(crate) fn facts(&self, path: &Path) -> rustix::io::Result<Facts> {
        facts(self.resolve(path)?)
    }

    /// Opens the regular file `path` for reading.
    pub(crate) fn open_file(&self, path: &Path) -> io::Result<File> {
        // Opening a device or a FIFO for reading does things; looking first does not.
        let found = self.resolve(path)?;
        if facts(&found)?.kind != FileType::RegularFile {
            return Err(io::Error::other("it is not a regular file"));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(self.fds.open(found.as_fd(), flags)?.into())
    }

    /// At most `limit` bytes from the beginning of the regular file `path`.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_file(path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The first `limit` names in the directory `path`.
    pub(crate) fn names(&self, path: &Path, limit: usize) -> io::Result<Vec<OsString>> {
        let fd = self.open_with(path, OFlags::RDONLY | OFlags::DIRECTORY, RESOLVE)?;
        names(&fd, limit)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The first `limit` names in an open directory, without `.` and `..`.
pub(crate) fn names(dir: impl AsFd, limit: usize) -> io::Result<Vec<OsString>> {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsStr::from_bytes(name).to_owned());
        }
        if names.len() >= limit {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_leads_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("secret");
        std::fs::write(&outside, "host").unwrap();
        let rootfs = dir.path().join("rootfs");
        std::fs::create_dir(&rootfs).unwrap();
        symlink(&outside, rootfs.join("absolute")).unwrap();
        symlink("../secret", rootfs.join("relative")).unwrap();
        symlink("..", rootfs.join("up")).unwrap();
        symlink("/proc/self/root", rootfs.join("magic")).unwrap();
        symlink("loop", rootfs.join("loop")).unwrap();
        let root = Root::open(&rootfs).unwrap();
        for path in [
            "absolute",
            "relative",
            "/up/secret",
            "../../secret",
            "magic",
            "loop",
        ] {
            assert!(root.read(Path::new(path), 10).is_err(), "{path}");
        }
        std::fs::write(rootfs.join("secret"), "own").unwrap();
        assert_eq!(root.read(Path::new("relative"), 10).unwrap(), b"own");
        assert_eq!(root.read(Path::new("/up/secret"), 2).unwrap(), b"ow");
    }

    #[test]
    fn what_is_no_file_is_never_opened() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for path in ["fifo", "dir"] {
            let error = root.read(Path::new(path), 10).unwrap_err();
            assert!(error.to_string().contains("regular"), "{error}");
        }
    }

    #[test]
    fn what_takes_a_files_place_is_not_opened_either() {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let (fifo, file) = (dir.path().join("fifo"), dir.path().join("file"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(&file, "text").unwrap();
        let opened = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        opened.add_watch(&fifo, AddWatchFlags::IN_OPEN).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let swap = rustix::fs::RenameFlags::EXCHANGE;
                while !over.load(Ordering::Relaxed) {
                    rustix::fs::renameat_with(rustix::fs::CWD, &fifo, rustix::fs::CWD, &file, swap)
                        .unwrap();
                }
            });
            for _ in 0..20_000 {
                let _ = root.read(Path::new("file"), 10);
            }
            over.store(true, Ordering::Relaxed);
        });
        let events = opened.read_events();
        assert_eq!(events.map(|e| e.len()), Err(nix::errno::Errno::EAGAIN));
    }
}
