//! What an image brings: its C library and its RDMA libraries.
//!
//! An image is hostile until shown otherwise: its paths are resolved by [`Root`], what is
//! read of it is bounded, and all that it can achieve is to be told that it will not do.

mod loader;
#[cfg(test)]
mod tests;

use crate::elf::{self, GlibcVersion};
use crate::rootfs::{Inode, Root};
use rustix::fs::FileType;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

pub(crate) use loader::{LOADER, MULTIARCH_DIR};

/// Directories that are searched for libraries.
const MAX_DIRS: usize = 128;
/// Names that are read of a directory.
const MAX_NAMES: usize = 1 << 16;
/// Copies of libibverbs.so.1 beyond which no more are looked for.
const MOST_VERBS: usize = 64;

/// The C library of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Libc {
    /// The GNU C library, of the newest version of its symbols.
    Glibc(GlibcVersion),
    /// musl.
    Musl,
    /// Neither: programs are linked statically.
    None,
}

/// What was found.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Its C library.
    pub libc: Libc,
    /// Directory that it searches without being told to.
    pub default_dir: Option<PathBuf>,
    /// Each libibverbs.so.1* that is a file of its own, of this machine's architecture;
    /// if there are more than anybody needs, not all.
    pub verbs: Vec<PathBuf>,
    /// Those of the wanted libraries and programs that it has.
    pub present: BTreeSet<String>,
    /// Whether it has /usr/bin.
    pub has_usr_bin: bool,
}

/// Looks into `root`. `wanted` are file names of libraries and programs that may have to be
/// brought along. Never fails: what cannot be read is not there.
pub(crate) fn inspect<'a>(root: &Root, wanted: impl IntoIterator<Item = &'a str>) -> Image {
    let wanted: BTreeSet<&str> = wanted.into_iter().collect();
    let (dirs, listings) = search(root, |name| is_verbs(name) || wanted.contains(name));
    let libc = libc(root, &dirs);
    let mut verbs = Vec::new();
    let mut seen: HashSet<Inode> = HashSet::new();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for (dir, listing) in dirs.iter().zip(&listings) {
        for name in listing {
            if is_verbs(name) && verbs.len() <= MOST_VERBS {
                let path = dir.join(name);
                if let Some(inode) = library(root, &path)
                    && seen.insert(inode)
                {
                    verbs.push(path);
                }
            }
            names.insert(name.as_str());
        }
    }
    let regular = |path: PathBuf| {
        root.facts(&path)
            .is_ok_and(|f| f.kind == FileType::RegularFile && f.size > 0)
    };
    let present = wanted
        .into_iter()
        .filter(|name| {
            let somewhere = |dirs: &mut dyn Iterator<Item = &Path>| {
                let mut dirs = dirs.map(|dir| dir.join(name));
                dirs.any(regular)
            };
            (names.contains(name) && somewhere(&mut dirs.iter().map(PathBuf::as_path)))
                || somewhere(&mut ["/usr/bin", "/bin"].iter().map(Path::new))
        })
        .map(str::to_owned)
        .collect();
    Image {
        libc: libc.as_ref().map_or_else(
            || {
                if loader::has_musl(root) {
                    Libc::Musl
                } else {
                    Libc::None
                }
            },
            |(version, _)| Libc::Glibc(*version),
        ),
        default_dir: libc.map(|(_, dir)| dir),
        verbs,
        present,
        has_usr_bin: root
            .facts(Path::new("/usr/bin"))
            .is_ok_and(|f| f.kind == FileType::Directory),
    }
}

impl Image {
    /// Whether there are more copies of libibverbs.so.1 than are looked for.
    pub(crate) fn has_too_many_verbs(&self) -> bool {
        self.verbs.len() > MOST_VERBS
    }
}

fn is_verbs(name: &str) -> bool {
    name.strip_prefix("libibverbs.so.1")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Directories that exist, each once, with the names in them that are to be kept.
fn search(root: &Root, keep: impl Fn(&str) -> bool) -> (Vec<PathBuf>, Vec<Vec<String>>) {
    let mut seen: HashSet<Inode> = HashSet::new();
    let mut dirs = Vec::new();
    let mut listings = Vec::new();
    let mut queue: std::collections::VecDeque<PathBuf> = loader::directories(root).into();
    while let Some(dir) = queue.pop_front() {
        if dirs.len() >= MAX_DIRS {
            break;
        }
        let Ok(facts) = root.facts(&dir) else {
            continue;
        };
        if facts.kind != FileType::Directory || !seen.insert(facts.inode) {
            continue;
        }
        let names = root.names(&dir, MAX_NAMES).unwrap_or_default();
        if names.iter().any(|name| name == loader::HWCAPS) {
            let below = dir.join(loader::HWCAPS);
            let levels = root.names(&below, MAX_DIRS).unwrap_or_default();
            queue.extend(levels.into_iter().map(|level| below.join(level)));
        }
        let names = names.into_iter().filter_map(|name| name.into_string().ok());
        listings.push(names.filter(|name| keep(name)).collect());
        dirs.push(dir);
    }
    (dirs, listings)
}

/// The version of glibc and the directory where it is, if the image has it and its loader.
fn libc(root: &Root, dirs: &[PathBuf]) -> Option<(GlibcVersion, PathBuf)> {
    library(root, Path::new(LOADER))?;
    dirs.iter().find_map(|dir| {
        let path = dir.join("libc.so.6");
        library(root, &path)?;
        let version = elf::newest_glibc(&root.open_file(&path).ok()?)?;
        Some((version, dir.clone()))
    })
}

/// Which file `path` is, if it is a library that a program of this machine can load. An
/// empty file is taken for one: a mount point of ours that was left behind.
fn library(root: &Root, path: &Path) -> Option<Inode> {
    let facts = root.facts(path).ok()?;
    if facts.kind != FileType::RegularFile {
        return None;
    }
    if facts.size > 0 && !elf::is_native(&root.read(path, elf::HEADER).ok()?) {
        return None;
    }
    Some(facts.inode)
}
