//! Root filesystems, made once and kept under `target/rootfs/`.
//!
//! Each has a name that holds a digest of how it was made, so a change makes a new one.
//! It is a directory (for bundles, under an overlay) and a tar file (for `import`).

use crate::command::{command, output_of};
use crate::debian::{SUITE, debootstrap, slim};
use crate::lock::{Lock, cache_dir};
use anyhow::{Context as _, ensure};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// What the Debian image has beyond the smallest system.
const PACKAGES: &str = "perftest,ibverbs-utils,rdmacm-utils,iproute2";
/// To be raised when the steps below change.
const RECIPE: u32 = 1;

/// A root filesystem.
#[derive(Clone, Debug)]
pub struct RootFs {
    dir: PathBuf,
    tar: PathBuf,
    image: String,
}

impl RootFs {
    /// Debian 12 with perftest and the programs of rdma-core. The first time it takes a
    /// minute, and the machine's package mirror.
    ///
    /// # Errors
    /// debootstrap failed; the error holds the end of what it said.
    pub fn debian() -> anyhow::Result<Self> {
        Self::kept("perftest", &[SUITE, PACKAGES], debian)
    }

    /// A static busybox and nothing else: no libc, no rdma-core.
    ///
    /// # Errors
    /// busybox-static is not installed.
    pub fn busybox() -> anyhow::Result<Self> {
        Self::kept("busybox", &[], busybox)
    }

    fn kept(
        name: &str,
        key: &[&str],
        make: fn(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut hasher = DefaultHasher::new();
        (RECIPE, key).hash(&mut hasher);
        let key = format!("{:08x}", hasher.finish() as u32);
        let cache = cache_dir()?;
        let _lock = Lock::take(name)?;
        let found = Self {
            dir: cache.join(format!("{name}-{key}")),
            tar: cache.join(format!("{name}-{key}.tar")),
            image: format!("localhost/masq-test/{name}:{key}"),
        };
        // The tar file comes last: it says that both are whole.
        if !found.tar.exists() {
            eprintln!("making the root filesystem {}", found.dir.display());
            if found.dir.exists() {
                std::fs::remove_dir_all(&found.dir)?;
            }
            make(&found.dir).with_context(|| format!("making {name} failed"))?;
            let part = found.tar.with_extension("part");
            let tar = command(["tar", "--exclude=./dev/*", "-C"]);
            let mut tar = tar;
            tar.arg(&found.dir).arg("-cf").arg(&part).arg(".");
            output_of(tar)?;
            std::fs::rename(&part, &found.tar)?;
        }
        Ok(found)
    }

    /// The tree. Others use it too: put an overlay over it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The tree as a tar file.
    pub fn tar(&self) -> &Path {
        &self.tar
    }

    /// Its name as an image: `localhost/masq-test/NAME:KEY`.
    pub fn image(&self) -> &str {
        &self.image
    }
}

fn debian(dir: &Path) -> anyhow::Result<()> {
    output_of(debootstrap(dir, PACKAGES)?)?;
    slim(dir)?;
    add_user(dir, "")
}

fn busybox(dir: &Path) -> anyhow::Result<()> {
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "run", "root"] {
        std::fs::create_dir_all(dir.join(name))?;
    }
    let program = dir.join("bin/busybox");
    std::fs::copy("/usr/bin/busybox", &program).context("busybox-static is not installed")?;
    let linked = output_of(command(["file", "-b", "/usr/bin/busybox"])).unwrap_or_default();
    ensure!(
        linked.is_empty() || linked.contains("static"),
        "this busybox is not static ({linked}): install busybox-static"
    );
    let mut list = command([&program]);
    list.arg("--list");
    for applet in output_of(list)?.lines().filter(|name| *name != "busybox") {
        symlink("busybox", dir.join("bin").join(applet))?;
    }
    add_user(dir, "root:x:0:0::/root:/bin/sh\n")
}

/// uid 1000 has a name, as in images that run as a user.
fn add_user(dir: &Path, before: &str) -> anyhow::Result<()> {
    let file = dir.join("etc/passwd");
    let mut users = std::fs::read_to_string(&file).unwrap_or_else(|_| before.to_owned());
    users.push_str("user:x:1000:1000::/tmp:/bin/sh\n");
    Ok(std::fs::write(&file, users)?)
}
