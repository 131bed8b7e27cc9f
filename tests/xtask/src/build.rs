//! Building everything.

use anyhow::{Context as _, ensure};
pub(crate) use masq_e2e::target_dir;
use masq_e2e::{Binaries, workspace};
use std::path::PathBuf;
use std::process::Command;

/// Builds all in release mode, links the library; the directory.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let dir = Binaries::build()?;
    Binaries::at(&dir)?;
    Ok(dir)
}

/// Runs cargo in the source tree, with its output on the terminal.
pub(crate) fn cargo(args: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(args)
        .current_dir(workspace())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "`cargo {}` failed", args.join(" "));
    Ok(())
}
