//! What masqd holds.

use anyhow::Context as _;
use std::collections::BTreeMap;
use std::path::Path;

/// Counts by kind: descriptors, threads, mappings, files below the run directory, mounts of
/// the host that lie there, sockets that are bound there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    counts: BTreeMap<String, usize>,
    resident: usize,
}

impl Footprint {
    /// Of the process `pid` with this run directory.
    ///
    /// # Errors
    /// It has ended.
    pub fn of(pid: u32, run_dir: &Path) -> anyhow::Result<Self> {
        let mut counts = BTreeMap::new();
        let proc = std::path::PathBuf::from(format!("/proc/{pid}"));
        let gone = || format!("process {pid} has ended");
        for fd in std::fs::read_dir(proc.join("fd")).with_context(gone)? {
            // One that was closed meanwhile counts no more.
            let Ok(target) = std::fs::read_link(fd?.path()) else {
                continue;
            };
            *counts.entry(kind(&target.to_string_lossy())).or_default() += 1;
        }
        let threads = std::fs::read_dir(proc.join("task")).with_context(gone)?;
        counts.insert("threads".to_owned(), threads.count());
        let own = run_dir.to_string_lossy();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let here = mounts.lines().filter(|line| line.contains(&*own)).count();
        counts.insert("mounts in the run directory".to_owned(), here);
        let sockets = std::fs::read_to_string("/proc/net/unix")?;
        let bound = sockets.lines().filter(|line| line.contains(&*own)).count();
        counts.insert("bound sockets".to_owned(), bound);
        // The directories that stand there always, some made when first needed, are none.
        let standing = dirs(run_dir);
        let found = files(run_dir).saturating_sub(standing);
        counts.insert("files in the run directory".to_owned(), found);
        let status = std::fs::read_to_string(proc.join("status")).with_context(gone)?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_ascii_whitespace().next())
            .and_then(|number| number.parse().ok())
            .context("no VmRSS")?;
        Ok(Self { counts, resident })
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> usize {
        self.resident
    }

    /// What there is more of than `before`, but memory: `anon_inode:[pidfd] 1 -> 4`.
    pub fn grown_since(&self, before: &Self) -> Vec<String> {
        self.counts
            .iter()
            .map(|(kind, now)| (kind, before.counts.get(kind).copied().unwrap_or(0), *now))
            .filter(|(_, then, now)| now > then)
            .map(|(kind, then, now)| format!("{kind}: {then} -> {now}"))
            .collect()
    }
}

/// Numbers of inodes do not matter: `socket:[123]` is `socket`, `net:[4026531833]` is `net`.
fn kind(target: &str) -> String {
    match target.split_once(":[") {
        Some((kind, number)) if number.trim_end_matches(']').parse::<u64>().is_ok() => {
            format!("descriptors of {kind}")
        }
        _ => format!("descriptors of {target}"),
    }
}

fn files(dir: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        count += 1;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            count += files(&entry.path());
        }
    }
    count
}

fn dirs(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_and_its_file_are_seen_while_they_exist() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let before = Footprint::of(std::process::id(), dir.path())?;
        let path = dir.path().join("deep");
        std::fs::create_dir(&path)?;
        let socket = UnixListener::bind(path.join("s"))?;
        let grown = Footprint::of(std::process::id(), dir.path())?.grown_since(&before);
        for word in [
            "bound sockets: 0 -> 1",
            "run directory: 0 -> 1",
            "of socket:",
        ] {
            assert!(grown.iter().any(|line| line.contains(word)), "{grown:?}");
        }
        drop(socket);
        Ok(())
    }

    #[test]
    fn namespaces_that_are_held_are_told_apart_from_sockets() {
        assert_eq!(kind("net:[4026531833]"), "descriptors of net");
        assert_eq!(
            kind("anon_inode:[pidfd]"),
            "descriptors of anon_inode:[pidfd]"
        );
        assert_eq!(
            kind("/memfd:x (deleted)"),
            "descriptors of /memfd:x (deleted)"
        );
    }
}
