//! What is installed beside masq's library for images that lack it: `LIBDIR/container/`.

use crate::ContainerError;
use crate::elf::{self, GlibcVersion};
use crate::image::{LOADER, MULTIARCH_DIR};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of masq's library, and of what it replaces.
pub(crate) const VERBS: &str = "libibverbs.so.1";

/// Libraries that only fit their own loader: never mixed with an image's glibc.
const LIBC_FAMILY: &[&str] = &[
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libresolv.so.2",
    "libutil.so.1",
    "libanl.so.1",
];

/// `LIBDIR/container/manifest.json`.
#[derive(Debug, Default, Deserialize)]
struct Manifest {
    /// Which glibc a library needs, by its file name.
    #[serde(default)]
    glibc_needed: BTreeMap<String, GlibcVersion>,
    /// Where the loader that is brought along looks for libraries.
    library_dir: Option<PathBuf>,
}

/// Everything of masq that an image may need.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bundled {
    /// masq's libibverbs.so.1.
    pub verbs: PathBuf,
    /// glibc that it needs.
    pub verbs_needs: GlibcVersion,
    /// Libraries for any image with a glibc of at least that version, by file name.
    pub libraries: BTreeMap<String, (PathBuf, GlibcVersion)>,
    /// The C library, for images without one; the loader is not among it.
    pub libc: BTreeMap<String, PathBuf>,
    /// The loader, for images without one.
    pub loader: Option<PathBuf>,
    /// Where that loader looks.
    pub library_dir: PathBuf,
    /// Programs for images without a loader, by file name.
    pub programs: BTreeMap<String, PathBuf>,
}

impl Bundled {
    /// Looks at what is installed in `dir`. `dir/container` may be missing: then images
    /// need a glibc and, for rdma_cm, a librdmacm of their own.
    ///
    /// # Errors
    /// [`ContainerError::Io`] if there is no libibverbs.so.1, [`ContainerError::Garbled`]
    /// for a manifest that is none.
    pub(crate) fn read(dir: &Path) -> Result<Self, ContainerError> {
        let verbs = dir.join(VERBS);
        let file = crate::oci::open_regular(&verbs)
            .map_err(ContainerError::io("read masq's library", &verbs))?;
        let mut bundled = Self {
            verbs,
            verbs_needs: elf::newest_glibc(&file).unwrap_or_default(),
            library_dir: MULTIARCH_DIR.into(),
            ..Self::default()
        };
        let extra = dir.join("container");
        if extra.is_dir() {
            bundled.read_extra(&extra)?;
        }
        Ok(bundled)
    }

    fn read_extra(&mut self, dir: &Path) -> Result<(), ContainerError> {
        let path = dir.join("manifest.json");
        let manifest: Manifest = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| ContainerError::Garbled {
                path,
                why: e.to_string(),
            })?,
            Err(_) => Manifest::default(),
        };
        if let Some(dir) = manifest.library_dir {
            self.library_dir = dir;
        }
        let loader = Path::new(LOADER).file_name().and_then(|name| name.to_str());
        for (name, path) in files(dir)? {
            if Some(name.as_str()) == loader {
                self.loader = Some(path);
            } else if LIBC_FAMILY.contains(&name.as_str()) {
                self.libc.insert(name, path);
            } else if name.contains(".so") && name != VERBS {
                let needs = manifest.glibc_needed.get(&name).copied();
                self.libraries
                    .insert(name, (path, needs.unwrap_or_default()));
            }
        }
        if dir.join("bin").is_dir() {
            self.programs = files(&dir.join("bin"))?;
        }
        Ok(())
    }

    /// File names that an image may have already.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let libraries = self.libraries.keys();
        libraries.chain(self.programs.keys()).map(String::as_str)
    }
}

/// The regular files of `dir`, links followed.
fn files(dir: &Path) -> Result<BTreeMap<String, PathBuf>, ContainerError> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(ContainerError::io("list", dir))? {
        let entry = entry.map_err(ContainerError::io("list", dir))?;
        let path = entry.path();
        if let Ok(name) = entry.file_name().into_string()
            && path.is_file()
        {
            files.insert(name, path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_sorted_by_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        assert!(Bundled::read(dir.path()).is_err(), "no library at all");
        let library = elf::tests::shared_object(&["GLIBC_2.28"]);
        std::fs::write(dir.path().join(VERBS), library).unwrap();
        assert!(Bundled::read(dir.path()).unwrap().libraries.is_empty());
        std::fs::create_dir_all(dir.path().join("container/bin")).unwrap();
        put("container/librdmacm.so.1", "");
        put("container/libc.so.6", "");
        put("container/bin/ibv_devinfo", "");
        put(
            "container/manifest.json",
            r#"{"glibc_needed":{"librdmacm.so.1":"2.34"}}"#,
        );
        let loader = Path::new(LOADER).file_name().unwrap().to_str().unwrap();
        put(&format!("container/{loader}"), "");
        let bundled = Bundled::read(dir.path()).unwrap();
        assert_eq!(bundled.verbs_needs, GlibcVersion::new(2, 28));
        assert_eq!(
            bundled.libraries["librdmacm.so.1"].1,
            GlibcVersion::new(2, 34)
        );
        assert!(bundled.libc.contains_key("libc.so.6"));
        assert!(bundled.loader.is_some());
        assert_eq!(
            bundled.names().collect::<Vec<_>>(),
            ["librdmacm.so.1", "ibv_devinfo"]
        );
        put("container/manifest.json", "[");
        assert!(Bundled::read(dir.path()).is_err());
    }
}
