//! The Debian inside guests: a directory for User-Mode Linux, an image of it for QEMU.

use crate::cache::{Cache, key};
use crate::watch::{output_of, watch};
use anyhow::Context as _;
use masq_container_tests::{SUITE, debootstrap, slim};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The script that is a guest's first process.
pub(crate) const AGENT: &str = include_str!("scripts/agent.sh");

const PACKAGES: &str = "rdma-core,ibverbs-providers,ibverbs-utils,rdmacm-utils,perftest,\
                        iproute2,iputils-ping,procps,python3-pyverbs,tcpdump,nftables";

/// The directory, and the path inside it of the agent.
pub(crate) fn directory(
    cache: &Cache,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<(PathBuf, String)> {
    let entry = format!("root-{SUITE}-{}", key(&[PACKAGES]));
    let dir = cache.kept(&entry, |part| debian(part, say))?;
    // The agent may change without the rest: each version has a name of its own.
    let inside = format!("/masq/agent-{}.sh", key(&[AGENT]));
    let path = dir.join(inside.trim_start_matches('/'));
    if !path.exists() {
        let parent = path.parent().context("no parent")?;
        std::fs::create_dir_all(parent)?;
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        std::io::Write::write_all(&mut file, AGENT.as_bytes())?;
        let permissions = std::fs::Permissions::from_mode(0o755);
        file.as_file().set_permissions(permissions)?;
        file.persist(&path)?;
    }
    Ok((dir, inside))
}

/// The image of the directory as ext4, to be mounted read-only.
pub(crate) fn image(cache: &Cache, say: &mut dyn FnMut(&str)) -> anyhow::Result<PathBuf> {
    let (root, _) = directory(cache, say)?;
    let entry = format!("image-{SUITE}-{}", key(&[PACKAGES]));
    let dir = cache.kept(&entry, |part| {
        say("making an ext4 image of the guests' Debian; some seconds");
        make_image(&root, &part.join("root.ext4"), "640M")
    })?;
    Ok(dir.join("root.ext4"))
}

/// An image of a directory that is shared with one guest, in `scratch`.
pub(crate) fn image_of(dir: &Path, scratch: &Path) -> anyhow::Result<PathBuf> {
    let image = scratch.join("share.ext4");
    make_image(dir, &image, "512M")?;
    Ok(image)
}

fn make_image(dir: &Path, image: &Path, size: &str) -> anyhow::Result<()> {
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"]);
    make.arg(dir).arg(image).arg(size);
    output_of(make).map(drop)
}

fn debian(dir: &Path, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    say("making the guests' Debian 12 by debootstrap: about 100 MB to fetch, about a minute");
    watch(debootstrap(dir, PACKAGES)?, say, |output| {
        let last = output.lines().rfind(|line| line.starts_with("I: "));
        last.unwrap_or("beginning")
            .trim_start_matches("I: ")
            .to_owned()
    })?;
    slim(dir)
}
