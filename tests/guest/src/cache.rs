//! What takes minutes to make, kept outside the source tree: it survives `cargo clean`
//! and serves every clone.

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Environment variable: another directory than `$XDG_CACHE_HOME/masq` or
/// `~/.cache/masq`.
pub const CACHE_DIR: &str = "MASQ_CACHE_DIR";

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    pub(crate) fn find() -> anyhow::Result<Self> {
        let dir = directory(|name| std::env::var_os(name))?;
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Where the entry is, whole if it exists.
    pub(crate) fn path(&self, entry: &str) -> PathBuf {
        self.dir.join(entry)
    }

    /// The directory of this entry, filled by `make` unless it exists. Others that want
    /// it meanwhile wait.
    pub(crate) fn kept(
        &self,
        entry: &str,
        make: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<PathBuf> {
        let path = self.path(entry);
        let lock = self.dir.join(format!("{entry}.lock"));
        let lock =
            File::create(&lock).with_context(|| format!("cannot make {}", lock.display()))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        if !path.exists() {
            let part = self.dir.join(format!("{entry}.part"));
            if part.exists() {
                std::fs::remove_dir_all(&part)?;
            }
            std::fs::create_dir(&part)?;
            make(&part)?;
            std::fs::rename(&part, &path)?;
        }
        Ok(path)
    }
}

fn directory(variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<PathBuf> {
    // The base directory specification: a relative path is as good as none.
    let absolute = |name: &str| {
        variable(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    if let Some(dir) = variable(CACHE_DIR) {
        return Ok(std::path::absolute(dir)?);
    }
    if let Some(dir) = absolute("XDG_CACHE_HOME") {
        return Ok(dir.join("masq"));
    }
    if let Some(home) = absolute("HOME") {
        return Ok(home.join(".cache/masq"));
    }
    bail!("there is no HOME: say by {CACHE_DIR} where guests may be kept")
}

/// Eight digits that stand for how something is made.
pub(crate) fn key(parts: &[&str]) -> String {
    let mut crc = crc32fast::Hasher::new();
    for part in parts {
        crc.update(part.as_bytes());
        crc.update(&[0]);
    }
    format!("{:08x}", crc.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
        directory(|name| {
            let found = vars.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_variable_of_masq_goes_before_those_of_the_system() {
        let mut vars = vec![("HOME", "/home/u")];
        assert_eq!(with(&vars).unwrap(), Path::new("/home/u/.cache/masq"));
        vars.push(("XDG_CACHE_HOME", "relative"));
        assert_eq!(with(&vars).unwrap(), Path::new("/home/u/.cache/masq"));
        vars.pop();
        vars.push(("XDG_CACHE_HOME", "/cache"));
        assert_eq!(with(&vars).unwrap(), Path::new("/cache/masq"));
        vars.push((CACHE_DIR, "/here"));
        assert_eq!(with(&vars).unwrap(), Path::new("/here"));
        assert!(with(&[]).is_err());
    }

    #[test]
    fn an_entry_whose_making_failed_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache {
            dir: dir.path().to_owned(),
        };
        let half = cache.kept("a", |part| {
            std::fs::write(part.join("half"), "")?;
            bail!("no network")
        });
        assert!(half.is_err());
        assert!(!cache.path("a").exists());
        let whole = cache
            .kept("a", |part| Ok(std::fs::write(part.join("whole"), "")?))
            .unwrap();
        assert!(whole.join("whole").exists() && !whole.join("half").exists());
        cache.kept("a", |_| bail!("made twice")).unwrap();
    }

    #[test]
    fn keys_tell_apart_where_parts_end() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
    }
}
