//! Keeps masq's libraries open. Containers have the host's files, and whose user owns a
//! file may take a lease on it (fcntl(2)): then each other that opens it waits, for up to
//! 45 seconds. A write lease is had on no file that somebody has open for reading.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Holds them as long as it lives.
#[derive(Debug)]
pub struct Held {
    again: Sender<()>,
}

impl Held {
    /// Holds what is in `dir`, masq's directory of libraries. To open it may take as long
    /// as a lease does, so a thread of its own does that.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(dir: PathBuf) -> io::Result<Self> {
        let (again, asked) = channel();
        std::thread::Builder::new()
            .name("masq-libraries".into())
            .spawn(move || hold(&dir, &asked))?;
        Ok(Self { again })
    }

    /// Looks for files that are newly installed.
    pub fn look_again(&self) {
        let _ = self.again.send(());
    }
}

fn hold(dir: &Path, asked: &Receiver<()>) {
    let mut held = open(dir);
    while asked.recv().is_ok() {
        held = open(dir);
    }
    drop(held);
}

fn open(dir: &Path) -> Vec<File> {
    ["", "container", "container/bin"]
        .iter()
        .filter_map(|below| std::fs::read_dir(dir.join(below)).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .filter_map(|path| File::open(path).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(unsafe_code)] // fcntl(F_SETLEASE), which no crate wraps
    use super::*;
    use std::os::fd::AsRawFd as _;

    fn leases(path: &Path) -> bool {
        let file = File::open(path).unwrap();
        // SAFETY: the command takes a number, and the descriptor is open.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) == 0 }
    }

    #[test]
    fn nobody_has_a_lease_on_a_library_that_is_held() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("container/bin")).unwrap();
        let names = ["libibverbs.so.1", "container/libc.so.6", "container/bin/x"];
        let paths = names.map(|name| dir.path().join(name));
        for path in &paths {
            std::fs::write(path, "").unwrap();
        }
        if !paths.iter().all(|path| leases(path)) {
            eprintln!("no leases here: left out");
            return;
        }
        let held = open(dir.path());
        assert!(!paths.iter().any(|path| leases(path)));
        drop(held);
        assert!(paths.iter().all(|path| leases(path)));
    }
}
