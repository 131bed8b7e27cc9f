//! `cargo xtask dist --check`: the package in a fresh Debian 12.

use super::{arguments, output, run};
use crate::build::target_dir;
use crate::progress::{say, step};
use anyhow::{Context as _, ensure};
use masq_container_tests::{SUITE, mirror};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SCRIPT: &str = include_str!("check.sh");

/// Why the check cannot be made here, if it cannot.
fn hindrance() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root: a Debian is unpacked and entered");
    }
    let found = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    };
    for (program, why) in [
        ("debootstrap", "there is no debootstrap"),
        ("dpkg-deb", "there is no dpkg-deb"),
        ("unshare", "there is no unshare"),
    ] {
        if !found(program) {
            return Some(why);
        }
    }
    None
}

/// The suite `package`: builds the package and checks it, or says why not.
pub(crate) fn suite() -> anyhow::Result<()> {
    if let Some(why) = hindrance() {
        say(&format!("left out: {why}"));
        return Ok(());
    }
    let package = super::package()?;
    let first = fs::read(&package)?;
    let again = super::pack(&crate::build::build()?)?;
    ensure!(
        fs::read(&again)? == first,
        "packed twice, {} differs",
        again.display()
    );
    check(&package)
}

pub(super) fn check(package: &Path) -> anyhow::Result<()> {
    if let Some(why) = hindrance() {
        anyhow::bail!("the package cannot be checked here: {why}");
    }
    lint(package)?;
    let archive = rootfs()?;
    let step_ = step("installing in a fresh Debian 12, using it, removing it");
    let dir = tempfile::tempdir_in(archive.parent().context("no directory")?)?;
    let root = dir.path().join("root");
    fs::create_dir(&root)?;
    run(Command::new("tar")
        .arg("-xpf")
        .arg(&archive)
        .arg("-C")
        .arg(&root))?;
    fs::copy(package, root.join("masq.deb"))?;
    let script = dir.path().join("check.sh");
    fs::write(&script, SCRIPT)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh"]);
    command.arg(&script).arg(&root).stdin(Stdio::null());
    let out = command.output().context("cannot run unshare")?;
    ensure!(
        out.status.success(),
        "{} failed:\n{}{}",
        arguments(&command),
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    step_.done("");
    Ok(())
}

/// Debian's own rules, where its checker is installed. Warnings are allowed.
fn lint(package: &Path) -> anyhow::Result<()> {
    if !Path::new("/usr/bin/lintian").exists() {
        return Ok(());
    }
    let step_ = step("lintian");
    run(Command::new("lintian")
        .args(["--allow-root", "--fail-on", "error"])
        .arg(package))?;
    step_.done("");
    Ok(())
}

/// A minimal Debian 12 as an archive, made once.
fn rootfs() -> anyhow::Result<PathBuf> {
    let dir = target_dir()?.join("rootfs");
    let archive = dir.join(format!("{SUITE}-minbase.tar"));
    if archive.is_file() {
        return Ok(archive);
    }
    let step_ = step("debootstrap of Debian 12 (once)");
    fs::create_dir_all(&dir)?;
    let made = tempfile::tempdir_in(&dir)?;
    let (root, aside) = (made.path().join("root"), made.path().join("tar"));
    run(Command::new("debootstrap")
        .args(["--variant=minbase", SUITE])
        .arg(&root)
        .arg(mirror(SUITE)?))?;
    run(Command::new("tar")
        .args(["--one-file-system", "-cpf"])
        .arg(&aside)
        .arg("-C")
        .arg(&root)
        .arg("."))?;
    fs::rename(&aside, &archive)?;
    step_.done(&output(Command::new("du").args(["-h"]).arg(&archive)).unwrap_or_default());
    Ok(archive)
}
