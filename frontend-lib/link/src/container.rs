//! What is brought into containers besides the library, taken from this machine:
//! librdmacm for images without one, providers' libraries for programs that name them,
//! and, for images without any C library, glibc and two programs.
//!
//! The directory is flat, files are named as the loader asks for them, programs lie in
//! `bin/`. Which glibc each file needs stands in `manifest.json`.

use crate::elf::Dynamic;
use crate::glibc::Version;
use crate::{LinkError, io};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the manifest in the directory.
pub const MANIFEST: &str = "manifest.json";

/// What masq itself brings, from elsewhere.
const OURS: &str = "libibverbs.so.1";

const PROGRAMS: [&str; 2] = ["ibv_devices", "ibv_devinfo"];

/// Programs load them by name, or glibc does.
const LIBRARIES: [&str; 7] = [
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librdmacm.so.1",
    "librt.so.1",
];

/// perftest and UCX are linked with providers' libraries. Those bind the private part of
/// ours and are never called; which there are depends on the release and the machine.
const PROVIDERS: [&str; 5] = [
    "libefa.so.1",
    "libhns.so.1",
    "libmana.so.1",
    "libmlx4.so.1",
    "libmlx5.so.1",
];

/// What lies in the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The glibc among the files, `2.36`. Its own files fit each other only.
    pub glibc: String,
    /// The newest glibc whose names a file uses, by path in the directory: with that
    /// one or a newer one it can be loaded.
    pub glibc_needed: BTreeMap<String, String>,
    /// Where the loader among the files looks for libraries first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library_dir: Option<PathBuf>,
    /// What this machine does not have, providers aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
}

/// Fills `dir` with what this machine has; files that are the same stay untouched.
///
/// # Errors
/// A file cannot be read or written.
pub fn collect(dir: &Path) -> Result<Manifest, LinkError> {
    collect_from(&System::here(), dir)
}

/// Where things are looked for.
struct System {
    programs: PathBuf,
    libraries: Vec<PathBuf>,
}

impl System {
    fn here() -> Self {
        let arch = std::env::consts::ARCH;
        let triplet = format!("{arch}-linux-gnu");
        Self {
            programs: PathBuf::from("/usr/bin"),
            libraries: vec![
                Path::new("/lib").join(&triplet),
                Path::new("/usr/lib").join(&triplet),
                PathBuf::from("/lib64"),
                PathBuf::from("/usr/lib64"),
                PathBuf::from("/lib"),
                PathBuf::from("/usr/lib"),
            ],
        }
    }

    fn library(&self, name: &str) -> Option<PathBuf> {
        let places = self.libraries.iter().map(|dir| dir.join(name));
        places.into_iter().find(|path| path.is_file())
    }
}

fn collect_from(system: &System, dir: &Path) -> Result<Manifest, LinkError> {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).map_err(|source| io(&bin, source))?;
    let mut manifest = Manifest::default();
    let mut found: BTreeMap<String, (PathBuf, Dynamic)> = BTreeMap::new();
    let mut wanted: Vec<String> = Vec::new();
    for name in PROGRAMS {
        let path = system.programs.join(name);
        if !path.is_file() {
            manifest.absent.push(format!("bin/{name}"));
            continue;
        }
        let program = Dynamic::read(&path)?;
        wanted.extend(program.interpreter.as_deref().map(base));
        wanted.extend(program.needed.iter().cloned());
        found.insert(format!("bin/{name}"), (path, program));
    }
    wanted.extend(LIBRARIES.map(str::to_owned));
    wanted.extend(PROVIDERS.map(str::to_owned));
    while let Some(name) = wanted.pop() {
        if name == OURS || found.contains_key(&name) || manifest.absent.contains(&name) {
            continue;
        }
        let Some(path) = system.library(&name) else {
            if !PROVIDERS.contains(&name.as_str()) {
                manifest.absent.push(name);
            }
            continue;
        };
        let library = Dynamic::read(&path)?;
        wanted.extend(library.needed.iter().cloned());
        found.insert(name, (path, library));
    }
    manifest.absent.sort();
    let glibc = glibc_of(&found)?;
    manifest.glibc = glibc.to_string();
    let libc = found.get("libc.so.6").map(|(path, _)| path);
    manifest.library_dir = libc.and_then(|path| Some(path.parent()?.to_owned()));
    for (name, (path, file)) in &found {
        // Parts of glibc know each other by private names, which change without notice.
        let private = file
            .versions
            .iter()
            .any(|(_, node)| node == "GLIBC_PRIVATE");
        let needed = if private || is_glibc(name) {
            Some(glibc)
        } else {
            file.glibc_needed()
        };
        let needed = needed.map_or_else(|| "2.0".to_owned(), |version| version.to_string());
        manifest.glibc_needed.insert(name.clone(), needed);
        copy(path, &dir.join(name))?;
    }
    remove_others(dir, &found.keys().map(String::as_str).collect())?;
    let mut text = serde_json::to_string_pretty(&manifest).unwrap_or_default();
    text.push('\n');
    replace(&dir.join(MANIFEST), text.as_bytes(), 0o644)?;
    Ok(manifest)
}

fn is_glibc(name: &str) -> bool {
    const PARTS: [&str; 5] = ["libc.so.", "libdl.so.", "libm.so.", "libpthread.", "librt."];
    name.starts_with("ld-linux") || PARTS.iter().any(|part| name.starts_with(part))
}

/// The newest version that libc.so.6 has, which is its own.
fn glibc_of(found: &BTreeMap<String, (PathBuf, Dynamic)>) -> Result<Version, LinkError> {
    let Some((path, libc)) = found.get("libc.so.6") else {
        return Ok(Version(0, 0));
    };
    let nodes = libc.defines.iter();
    let newest = nodes.filter_map(|node| Version::of_node(node)).max();
    newest.ok_or_else(|| LinkError::Elf {
        path: path.clone(),
        detail: "it defines no version of glibc".to_owned(),
    })
}

fn base(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

fn copy(from: &Path, to: &Path) -> Result<(), LinkError> {
    let data = fs::read(from).map_err(|source| io(from, source))?;
    replace(to, &data, 0o755)
}

/// Made aside and renamed: containers may have the old file mapped.
fn replace(path: &Path, data: &[u8], mode: u32) -> Result<(), LinkError> {
    use std::os::unix::fs::PermissionsExt as _;
    if fs::read(path).is_ok_and(|old| old == data) {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    let aside = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(dir)
        .map_err(|source| io(dir, source))?;
    fs::write(aside.path(), data).map_err(|source| io(aside.path(), source))?;
    fs::set_permissions(aside.path(), fs::Permissions::from_mode(mode))
        .map_err(|source| io(aside.path(), source))?;
    aside.persist(path).map_err(|e| io(path, e.error))?;
    Ok(())
}

/// What an earlier build left. Temporary files of builds that run now are hidden ones.
fn remove_others(dir: &Path, keep: &BTreeSet<&str>) -> Result<(), LinkError> {
    for (part, prefix) in [(dir.to_owned(), ""), (dir.join("bin"), "bin/")] {
        let entries = fs::read_dir(&part).map_err(|source| io(&part, source))?;
        for entry in entries.flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let name = format!("{prefix}{file}");
            let kept = keep.contains(name.as_str()) || file == "bin" || file == MANIFEST;
            if !kept && !file.starts_with('.') {
                fs::remove_file(entry.path()).map_err(|source| io(&entry.path(), source))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_collected_needs_nothing_else_but_our_library() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = collect(dir.path()).unwrap();
        assert_eq!(manifest.absent, Vec::<String>::new());
        let mut files = 0;
        for name in manifest.glibc_needed.keys() {
            let path = dir.path().join(name);
            assert!(path.symlink_metadata().unwrap().is_file(), "{name}");
            let file = Dynamic::read(&path).unwrap();
            for needed in &file.needed {
                let there = manifest.glibc_needed.contains_key(needed);
                assert!(there || needed == OURS, "{name} needs {needed}");
            }
            if let (false, Some(soname)) = (name.starts_with("bin/"), file.soname) {
                assert_eq!(&soname, name);
            }
            files += 1;
        }
        assert!(files > 8, "{files}");
        let again: Manifest =
            serde_json::from_slice(&fs::read(dir.path().join(MANIFEST)).unwrap()).unwrap();
        assert_eq!(again, manifest);
    }

    #[test]
    fn the_manifest_says_which_glibc_a_file_loads_with() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = collect(dir.path()).unwrap();
        let needed = |name: &str| Version::parse(&manifest.glibc_needed[name]).unwrap();
        let own = Version::parse(&manifest.glibc).unwrap();
        assert!(own >= Version(2, 17));
        assert_eq!(needed("libc.so.6"), own);
        let rdmacm = Dynamic::read(&dir.path().join("librdmacm.so.1")).unwrap();
        assert_eq!(Some(needed("librdmacm.so.1")), rdmacm.glibc_needed());
        assert!(needed("librdmacm.so.1") <= own);
    }

    #[test]
    fn what_is_gone_from_the_machine_is_said_and_what_was_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("libold.so.1"), "left").unwrap();
        let mut system = System::here();
        system.programs = dir.path().join("nowhere");
        let manifest = collect_from(&system, dir.path()).unwrap();
        assert_eq!(manifest.absent, ["bin/ibv_devices", "bin/ibv_devinfo"]);
        assert!(!dir.path().join("libold.so.1").exists());
    }
}
