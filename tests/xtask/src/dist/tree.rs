//! The files of the package, as they lie on the target's disk.

use super::{output, run};
use anyhow::{Context as _, ensure};
use masq_e2e::workspace;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

/// Files of the source tree, with their places.
const STATIC: &[(&str, &str)] = &[
    ("examples/policy.yaml", "etc/masq/policy.yaml"),
    (
        "examples/systemd/masqd.service",
        "lib/systemd/system/masqd.service",
    ),
    (
        "examples/podman/masq.json",
        "usr/share/containers/oci/hooks.d/masq.json",
    ),
    ("README.md", "usr/share/doc/masq/README.md"),
    ("docs/library.md", "usr/share/doc/masq/library.md"),
    ("docs/limits.md", "usr/share/doc/masq/limits.md"),
    (
        "tests/xtask/src/dist/debian/copyright",
        "usr/share/doc/masq/copyright",
    ),
    (
        "tests/xtask/src/dist/debian/lintian-overrides",
        "usr/share/lintian/overrides/masq",
    ),
];

/// Directories of which all is installed.
const TREES: &[(&str, &str)] = &[
    ("examples/docker", "usr/share/doc/masq/examples/docker"),
    (
        "examples/containerd",
        "usr/share/doc/masq/examples/containerd",
    ),
    ("policy/examples", "usr/share/doc/masq/examples/policy"),
];

pub(super) fn fill(root: &Path, bin_dir: &Path, target: &Path, epoch: u64) -> anyhow::Result<()> {
    mode(root, 0o755)?;
    for program in ["masq", "masqd"] {
        let to = root.join("usr/bin").join(program);
        install(&bin_dir.join(program), &to, 0o755)?;
        strip(&to, "--strip-unneeded")?;
    }
    // Docker and containerd name runtimes by a path only.
    symlink("masq", root.join("usr/bin/masq-runtime"))?;
    let library = root.join("usr/lib/masq/libibverbs.so.1");
    install(&bin_dir.join("lib/masq/libibverbs.so.1"), &library, 0o644)?;
    strip(&library, "--strip-unneeded")?;
    container(bin_dir, root)?;
    let source = workspace();
    for (from, to) in STATIC {
        install(&source.join(from), &root.join(to), 0o644)?;
    }
    for (from, to) in TREES {
        for file in files(&source.join(from))? {
            install(
                &source.join(from).join(&file),
                &root.join(to).join(&file),
                0o644,
            )?;
        }
    }
    manuals(target, root)?;
    completions(target, root)?;
    let changelog = root.join("usr/share/doc/masq/changelog");
    fs::write(&changelog, changes(epoch)?)?;
    mode(&changelog, 0o644)?;
    gzip(&changelog)?;
    let upstream = root.join("usr/share/doc/masq/NEWS");
    install(&source.join("CHANGELOG.md"), &upstream, 0o644)?;
    gzip(&upstream)?;
    // masqd keeps the devices there in step with the policy.
    directories(root, &["etc/cdi"])
}

fn container(bin_dir: &Path, root: &Path) -> anyhow::Result<()> {
    let from = bin_dir.join("lib/masq/container");
    let to = root.join("usr/lib/masq/container");
    for file in files(&from)? {
        // Executable is what is started: programs, and the loader.
        let program = file.starts_with("ld-linux");
        let bits = if program { 0o755 } else { 0o644 };
        install(&from.join(&file), &to.join(&file), bits)?;
    }
    for file in files(&from.join("bin"))? {
        install(
            &from.join("bin").join(&file),
            &to.join("bin").join(&file),
            0o755,
        )?;
    }
    Ok(())
}

fn manuals(target: &Path, root: &Path) -> anyhow::Result<()> {
    let from = target.join("man");
    for file in files(&from)? {
        let to = root.join("usr/share/man/man1").join(&file);
        install(&from.join(&file), &to, 0o644)?;
        gzip(&to)?;
    }
    Ok(())
}

fn completions(target: &Path, root: &Path) -> anyhow::Result<()> {
    let from = target.join("completions");
    for program in ["masq", "masqd"] {
        for (file, to) in [
            (
                format!("{program}.bash"),
                format!("bash-completion/completions/{program}"),
            ),
            (
                format!("_{program}"),
                format!("zsh/vendor-completions/_{program}"),
            ),
            (
                format!("{program}.fish"),
                format!("fish/vendor_completions.d/{program}.fish"),
            ),
        ] {
            install(&from.join(file), &root.join("usr/share").join(to), 0o644)?;
        }
    }
    Ok(())
}

/// The package's own history, which has one entry: that of the version.
fn changes(epoch: u64) -> anyhow::Result<String> {
    let date = output(
        Command::new("date")
            .args(["-R", "-u", "-d", &format!("@{epoch}")])
            .env("LC_ALL", "C"),
    )?;
    Ok(format!(
        "masq ({}) unstable; urgency=medium\n\n  * Version {}; what changed is in NEWS.gz.\n\n \
         -- {}  {date}\n",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_VERSION"),
        super::control::MAINTAINER
    ))
}

/// Names of the regular files in a directory, sorted, hidden ones aside.
pub(super) fn files(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    ensure!(!names.is_empty(), "{} is empty", dir.display());
    Ok(names)
}

fn install(from: &Path, to: &Path, bits: u32) -> anyhow::Result<()> {
    let dir = to.parent().context("a file without a directory")?;
    make(dir)?;
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    mode(to, bits)
}

fn directories(root: &Path, list: &[&str]) -> anyhow::Result<()> {
    list.iter().try_for_each(|dir| make(&root.join(dir)))
}

/// With mode 0755 whatever the umask is.
fn make(dir: &Path) -> anyhow::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent() {
        make(above)?;
    }
    fs::create_dir(dir).with_context(|| dir.display().to_string())?;
    mode(dir, 0o755)
}

fn mode(path: &Path, bits: u32) -> anyhow::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(bits))
        .with_context(|| path.display().to_string())
}

fn strip(path: &Path, how: &str) -> anyhow::Result<()> {
    let sections = ["--remove-section=.comment", "--remove-section=.note"];
    run(Command::new("strip").arg(how).args(sections).arg(path)).map(drop)
}

/// Without name and time in the result.
fn gzip(path: &Path) -> anyhow::Result<()> {
    run(Command::new("gzip").arg("-9nf").arg(path)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_is_installed_as_it_stands_exists() {
        for (from, _) in STATIC {
            assert!(workspace().join(from).is_file(), "{from}");
        }
        for (from, _) in TREES {
            assert!(!files(&workspace().join(from)).unwrap().is_empty());
        }
    }

    #[test]
    fn the_history_names_this_version_and_the_time_that_all_files_carry() {
        let text = changes(0).unwrap();
        assert!(text.starts_with(&format!("masq ({})", env!("CARGO_PKG_VERSION"))));
        assert!(
            text.ends_with("Thu, 01 Jan 1970 00:00:00 +0000\n"),
            "{text}"
        );
    }
}
