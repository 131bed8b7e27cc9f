//! Where masqd, masq and the library are.

use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Environment variable with the directory that holds `masqd`, `masq` and
/// `lib/masq/libibverbs.so.1`. Unset, they are built in release mode.
pub const BIN_DIR: &str = "MASQ_BIN_DIR";

/// The built programs.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// Those of `MASQ_BIN_DIR`, or freshly built ones.
    ///
    /// # Errors
    /// They cannot be built, or are not where they should be.
    pub fn find() -> anyhow::Result<Self> {
        static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let dir = match std::env::var_os(BIN_DIR) {
            Some(dir) => PathBuf::from(dir),
            None => BUILT
                .get_or_init(|| Self::build().map_err(|e| format!("{e:#}")))
                .clone()
                .map_err(anyhow::Error::msg)?,
        };
        Self::at(&dir)
    }

    /// Those of `dir`.
    ///
    /// # Errors
    /// One is missing.
    pub fn at(dir: &Path) -> anyhow::Result<Self> {
        let found = Self {
            dir: dir.to_owned(),
        };
        for file in [found.masqd(), found.masq(), found.library()] {
            ensure!(
                file.is_file(),
                "{} is missing; `cargo xtask build` makes it",
                file.display()
            );
        }
        Ok(found)
    }

    /// Builds them all in release mode and links the library; the directory.
    ///
    /// # Errors
    /// cargo or the C compiler failed; their words are on the terminal.
    pub fn build() -> anyhow::Result<PathBuf> {
        let target = target_dir()?;
        cargo(&[
            "build",
            "--release",
            "-p",
            "masqd",
            "-p",
            "masq",
            "-p",
            "masq-ibverbs",
        ])?;
        let dir = target.join("release");
        masq_link::link(&dir, &dir.join("lib/masq")).context("linking libibverbs.so.1 failed")?;
        masq_link::container::collect(&dir.join("lib/masq/container"))
            .context("collecting what containers need failed")?;
        Ok(dir)
    }

    /// The daemon.
    pub fn masqd(&self) -> PathBuf {
        self.dir.join("masqd")
    }

    /// The command.
    pub fn masq(&self) -> PathBuf {
        self.dir.join("masq")
    }

    /// The library.
    pub fn library(&self) -> PathBuf {
        self.dir.join("lib/masq/libibverbs.so.1")
    }
}

/// The root of the source tree.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// Where cargo puts what it builds.
///
/// # Errors
/// The working directory is gone.
pub fn target_dir() -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR") {
        return Ok(std::path::absolute(PathBuf::from(dir))?);
    }
    Ok(workspace().join("target"))
}

fn cargo(args: &[&str]) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(args)
        .current_dir(workspace())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo {} failed", args.join(" "));
    Ok(())
}
