//! The package's control files.

use super::{output, tree};
use anyhow::{Context as _, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

pub(super) const MAINTAINER: &str = "masq developers <masq-rdma@users.noreply.github.com>";

const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("debian/postinst")),
    ("prerm", include_str!("debian/prerm")),
    ("postrm", include_str!("debian/postrm")),
];

const DESCRIPTION: &str = "\
Description: RDMA for containers and virtual machines, shared and governed
 Containers get an RDMA device of their own: unmodified programs, no privilege,
 no RDMA hardware needed. A daemon decides, by a policy, who may talk to whom;
 the data path is shared memory.
 .
 This package holds the daemon masqd, the command masq with its OCI hooks, and
 the library that is brought into containers.
";

pub(super) fn write(root: &Path, arch: &str) -> anyhow::Result<()> {
    let dir = root.join("DEBIAN");
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    let control = format!(
        "Package: masq\nVersion: {}\nArchitecture: {arch}\nMaintainer: {MAINTAINER}\n\
         Installed-Size: {}\nDepends: {}\nSuggests: podman | docker.io | containerd\n\
         Built-Using: {}\nSection: net\nPriority: optional\nHomepage: {}\n{DESCRIPTION}",
        env!("CARGO_PKG_VERSION"),
        kibibytes(root)?,
        depends(root)?,
        built_using(root)?,
        env!("CARGO_PKG_REPOSITORY"),
    );
    put(&dir.join("control"), &control, 0o644)?;
    put(&dir.join("conffiles"), "/etc/masq/policy.yaml\n", 0o644)?;
    for (name, text) in SCRIPTS {
        put(&dir.join(name), text, 0o755)?;
    }
    let sums = sums(root)?;
    put(&dir.join("md5sums"), &sums, 0o644)
}

fn put(path: &Path, text: &str, bits: u32) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(bits))?;
    Ok(())
}

/// What the programs are linked with, by dpkg's own rules.
fn depends(root: &Path) -> anyhow::Result<String> {
    let dir = tempfile::tempdir()?;
    fs::create_dir(dir.path().join("debian"))?;
    // It asks the source package which architecture is meant, and nothing else.
    fs::write(
        dir.path().join("debian/control"),
        "Source: masq\n\nPackage: masq\nArchitecture: any\n",
    )?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.arg("-O").current_dir(dir.path());
    for program in ["usr/bin/masq", "usr/bin/masqd"] {
        command.arg(root.join(program));
    }
    let line = output(&mut command)?;
    let depends = line.strip_prefix("shlibs:Depends=");
    Ok(depends
        .with_context(|| format!("dpkg-shlibdeps said: {line}"))?
        .to_owned())
}

/// Source packages of what is brought along for containers: their licences ask that the
/// sources can be found.
fn built_using(root: &Path) -> anyhow::Result<String> {
    let dir = root.join("usr/lib/masq/container");
    let mut sources = BTreeSet::new();
    let mut names = tree::files(&dir)?;
    names.retain(|name| name.contains(".so"));
    let programs = tree::files(&dir.join("bin"))?;
    let triplet = output(Command::new("dpkg-architecture").arg("-qDEB_HOST_MULTIARCH"))?;
    // Packages name their files before /lib became /usr/lib, or after.
    let mut places: Vec<_> = programs.iter().map(|n| format!("/usr/bin/{n}")).collect();
    for name in &names {
        places.extend(["", "/usr"].map(|top| format!("{top}/lib/{triplet}/{name}")));
    }
    // It fails as some of them are nobody's.
    let found = Command::new("dpkg").arg("-S").args(&places).output()?;
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    for name in names.iter().chain(&programs) {
        let line = found.lines().find(|l| l.ends_with(&format!("/{name}")));
        let owner = line.and_then(|line| line.split_once(": "));
        let (package, _) = owner.with_context(|| format!("no package holds {name}"))?;
        sources.insert(output(Command::new("dpkg-query").args([
            "-W",
            "-f",
            "${source:Package} (= ${source:Version})",
            package,
        ]))?);
    }
    ensure!(!sources.is_empty(), "nothing is brought along");
    Ok(sources.into_iter().collect::<Vec<_>>().join(", "))
}

fn kibibytes(root: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    visit(root, root, &mut |path, _| {
        sum += fs::symlink_metadata(path)?.len().div_ceil(1024);
        Ok(())
    })?;
    Ok(sum)
}

fn sums(root: &Path) -> anyhow::Result<String> {
    let mut names = Vec::new();
    visit(root, root, &mut |path, name| {
        let regular = fs::symlink_metadata(path)?.is_file();
        let control = name.starts_with("DEBIAN/") || name.starts_with("etc/");
        if regular && !control {
            names.push(name.to_owned());
        }
        Ok(())
    })?;
    names.sort();
    let text = output(Command::new("md5sum").args(&names).current_dir(root))?;
    Ok(text + "\n")
}

/// Calls `each` with every file and its name below `root`.
fn visit(
    root: &Path,
    dir: &Path,
    each: &mut impl FnMut(&Path, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            visit(root, &path, each)?;
        } else {
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            each(&path, &name)?;
        }
    }
    Ok(())
}
