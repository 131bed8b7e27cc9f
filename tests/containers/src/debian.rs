//! The Debian that containers and guests run.

use crate::command::{command, output_of};
use anyhow::Context as _;
use std::path::Path;
use std::process::Command;

/// Debian 12.
pub const SUITE: &str = "bookworm";

/// Not needed inside, and most of the size.
const EXCESS: [&str; 5] = [
    "var/cache/apt",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
];

/// The command that makes the smallest [`SUITE`] with these packages, by the mirror of this
/// machine.
///
/// # Errors
/// It knows no mirror.
pub fn debootstrap(dir: &Path, packages: &str) -> anyhow::Result<Command> {
    let mut make = command(["debootstrap", "--variant=minbase"]);
    make.arg(format!("--include={packages}"));
    make.arg(SUITE).arg(dir).arg(mirror(SUITE)?);
    Ok(make)
}

/// Removes what is not needed inside.
///
/// # Errors
/// It cannot be removed.
pub fn slim(dir: &Path) -> anyhow::Result<()> {
    for excess in EXCESS {
        // The directory stays: programs expect it.
        for entry in std::fs::read_dir(dir.join(excess)).into_iter().flatten() {
            let path = entry?.path();
            if path.is_dir() {
                std::fs::remove_dir_all(&path)?;
            } else {
                std::fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

/// The mirror from which apt takes this Debian `suite` on this machine.
///
/// # Errors
/// It knows none.
pub fn mirror(suite: &str) -> anyhow::Result<String> {
    let mut ask = command(["apt-get", "indextargets", "--format"]);
    ask.args([
        "$(RELEASE) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]);
    let targets = output_of(ask)?;
    let wanted = format!("{suite} main ");
    targets
        .lines()
        .find_map(|line| line.strip_prefix(&wanted))
        .map(str::to_owned)
        .with_context(|| format!("apt knows no mirror of {suite}"))
}
