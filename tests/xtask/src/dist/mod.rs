//! `cargo xtask dist`: the Debian package.

mod check;
mod control;
mod tree;

use crate::build::{build, target_dir};
use crate::progress::{say, step};
use anyhow::{Context as _, bail, ensure};
pub(crate) use check::suite;
use clap::Args;
use masq_e2e::workspace;
use masq_link::container::Manifest;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask dist\n  cargo xtask dist --check")]
pub(crate) struct DistArgs {
    /// Install the package in a fresh Debian 12 and look at it (as root; makes
    /// target/rootfs/bookworm-minbase.tar once).
    #[arg(long)]
    check: bool,
}

pub(crate) fn dist(args: &DistArgs) -> anyhow::Result<()> {
    let package = package()?;
    say(&package.display().to_string());
    if args.check {
        check::check(&package)?;
    }
    Ok(())
}

/// Builds everything and packs it; the package.
fn package() -> anyhow::Result<PathBuf> {
    let step_ = step("building masq, masqd, the library");
    let bin_dir = build()?;
    step_.done("");
    crate::man::man()?;
    pack(&bin_dir)
}

fn pack(bin_dir: &Path) -> anyhow::Result<PathBuf> {
    let step_ = step("packing");
    let manifest: Manifest = serde_json::from_slice(&std::fs::read(
        bin_dir.join("lib/masq/container/manifest.json"),
    )?)?;
    if !manifest.absent.is_empty() {
        bail!(
            "this machine has not all that containers may need: {}; `cargo xtask setup` installs it",
            manifest.absent.join(", ")
        );
    }
    let target = target_dir()?;
    let dir = target.join("dist");
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let epoch = epoch()?;
    let root = tempfile::tempdir_in(&dir)?;
    tree::fill(root.path(), bin_dir, &target, epoch)?;
    let arch = output(Command::new("dpkg").arg("--print-architecture"))?;
    control::write(root.path(), &arch)?;
    let package = dir.join(format!("masq_{}_{arch}.deb", env!("CARGO_PKG_VERSION")));
    output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .args([root.path(), &package])
            .env("SOURCE_DATE_EPOCH", epoch.to_string()),
    )?;
    let size = std::fs::metadata(&package)?.len();
    step_.done(&format!("{} KiB", size / 1024));
    Ok(package)
}

/// The time that all files carry, so that the same sources give the same package: that
/// of the last commit, or `SOURCE_DATE_EPOCH`.
fn epoch() -> anyhow::Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => output(
            Command::new("git")
                .args(["log", "-1", "--format=%ct"])
                .current_dir(workspace()),
        )
        .context("no SOURCE_DATE_EPOCH and no commit to take the time of")?,
    };
    text.parse().with_context(|| format!("`{text}` is no time"))
}

/// Standard output, without its line end, of a program that must succeed.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let out = run(command)?;
    Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
}

fn run(command: &mut Command) -> anyhow::Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    ensure!(
        out.status.success(),
        "{name} {} failed:\n{}{}",
        arguments(command),
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(out)
}

fn arguments(command: &Command) -> String {
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    words.join(" ")
}
