//! Test programs in C, compiled against the distribution's headers and
//! library: to masq they are as unmodified as any.

use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `programs/NAME.c` into `dir`.
///
/// # Errors
/// No compiler, or it refuses the program.
pub fn compile(name: &str, dir: &Path) -> anyhow::Result<PathBuf> {
    cc(name, &[], &dir.join(name))
}

/// Compiles `programs/NAME.c` into `dir` as a library to preload.
///
/// # Errors
/// As [`compile`].
pub fn compile_shared(name: &str, dir: &Path) -> anyhow::Result<PathBuf> {
    cc(name, &["-shared", "-fPIC"], &dir.join(format!("{name}.so")))
}

fn cc(name: &str, more: &[&str], to: &Path) -> anyhow::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("programs")
        .join(format!("{name}.c"));
    let out = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"])
        .args(more)
        .arg("-o")
        .arg(to)
        .arg(&source)
        // Only the libraries that it needs.
        .args(["-Wl,--as-needed", "-lrdmacm", "-libverbs", "-lpthread"])
        .output()
        .context("no C compiler; `cargo xtask setup` installs it")?;
    ensure!(
        out.status.success(),
        "cc refuses {}:\n{}",
        source.display(),
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(to.to_owned())
}
