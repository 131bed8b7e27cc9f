//! Which container a process belongs to, by its namespaces.
#![allow(unsafe_code)] // ioctl_ns(2), which no crate wraps

use rustix::fs::{AtFlags, Mode, OFlags, open, openat, statat};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `NS_GET_PARENT` of ioctl_ns(2).
const NS_GET_PARENT: nix::libc::c_ulong = 0xb702;
/// PID namespaces within each other: what the kernel allows.
const MOST_NESTED: usize = 32;

/// A namespace, as the file system of namespaces numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Namespace {
    device: u64,
    inode: u64,
}

/// The namespaces that tell a container's processes from others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Namespaces {
    pid: Namespace,
    mount: Namespace,
    pub(crate) net: Namespace,
    /// Whether its PID namespace is its own: then everything within it is the container's.
    owns_pid: bool,
    own_mount: bool,
}

impl Namespaces {
    /// Those of a container's init process.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let process = process(pid)?;
        // masqd may have a mount namespace of its own; not everybody may look at process 1.
        let host = match open_process("1") {
            Ok(first) if namespace(&first, "ns/mnt").is_ok() => first,
            _ => open_process("self")?,
        };
        let pid = namespace(&process, "ns/pid")?;
        let mount = namespace(&process, "ns/mnt")?;
        Ok(Self {
            pid,
            mount,
            net: namespace(&process, "ns/net")?,
            owns_pid: pid != namespace(&host, "ns/pid")? && is_first(&process)?,
            own_mount: mount != namespace(&host, "ns/mnt")?,
        })
    }

    /// Whether its processes can be told from those of the host.
    pub(crate) fn tell_apart(&self) -> bool {
        self.owns_pid || self.own_mount
    }

    /// Whether a process is of the container: in its PID namespace or one within, or,
    /// if the container shares its PID namespace with others, in its mount namespace.
    pub(crate) fn admit(&self, pid: i32) -> io::Result<bool> {
        let process = process(pid)?;
        if !self.owns_pid {
            return Ok(self.own_mount && namespace(&process, "ns/mnt")? == self.mount);
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut at = openat(&process, "ns/pid", flags, Mode::empty())?;
        for _ in 0..MOST_NESTED {
            if of_file(&at)? == self.pid {
                return Ok(true);
            }
            match parent(&at)? {
                Some(parent) => at = parent,
                None => return Ok(false),
            }
        }
        Ok(false)
    }
}

fn process(pid: i32) -> io::Result<OwnedFd> {
    if pid <= 0 {
        return Err(io::Error::other("a process that masqd does not see"));
    }
    open_process(&pid.to_string())
}

/// A descriptor of `/proc/NAME`: it means that process, even if its number is used again.
fn open_process(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(open(format!("/proc/{name}"), flags, Mode::empty())?)
}

fn namespace(process: &OwnedFd, name: &str) -> io::Result<Namespace> {
    let stat = statat(process, name, AtFlags::empty())?;
    Ok(Namespace {
        device: stat.st_dev,
        inode: stat.st_ino,
    })
}

fn of_file(file: &OwnedFd) -> io::Result<Namespace> {
    let stat = rustix::fs::fstat(file)?;
    Ok(Namespace {
        device: stat.st_dev,
        inode: stat.st_ino,
    })
}

/// Whether the process is the first of its PID namespace: the last number of `NSpid`.
fn is_first(process: &OwnedFd) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let status = openat(process, "status", flags, Mode::empty())?;
    let text = io::read_to_string(std::fs::File::from(status))?;
    let numbers = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let last = numbers.and_then(|numbers| numbers.split_whitespace().last());
    Ok(last == Some("1"))
}

/// The PID namespace around this one; `None` if it lies beyond masqd's own.
fn parent(namespace: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    // SAFETY: the request takes no argument and returns a descriptor or -1.
    let fd = unsafe { nix::libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_PARENT) };
    if fd >= 0 {
        // SAFETY: the kernel has just made this descriptor for us.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(nix::libc::EPERM) => Ok(None),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A shell in namespaces of its own that has started; ended by dropping its stdin.
    fn unshared(flags: &str) -> Option<(Child, i32)> {
        let script = "echo ready; read x";
        let mut child = Command::new("unshare")
            .args([flags, "--kill-child", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = [0; 6];
        let out = child.stdout.as_mut()?;
        if io::Read::read_exact(out, &mut line).is_err() {
            let _ = child.wait();
            eprintln!("no namespaces here: left out");
            return None;
        }
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let text = std::fs::read_to_string(children).unwrap();
        let pid = text.split_whitespace().next().unwrap().parse().unwrap();
        Some((child, pid))
    }

    fn end(mut child: Child) {
        drop(child.stdin.take());
        let _ = child.wait();
    }

    #[test]
    fn the_host_is_no_container() {
        let own = Namespaces::of(std::process::id() as i32).unwrap();
        assert!(!own.tell_apart());
        assert!(!own.admit(std::process::id() as i32).unwrap());
    }

    #[test]
    fn a_container_admits_its_own_processes_and_no_others() {
        let Some((one, pid)) = unshared("-Urmpf") else {
            return;
        };
        let Some((other, other_pid)) = unshared("-Urmpf") else {
            return;
        };
        let container = Namespaces::of(pid).unwrap();
        assert!(container.tell_apart());
        assert!(container.admit(pid).unwrap());
        assert!(!container.admit(other_pid).unwrap());
        assert!(!container.admit(std::process::id() as i32).unwrap());
        assert!(container.admit(0).is_err());
        end(one);
        end(other);
    }
}
