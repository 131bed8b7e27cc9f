//! Soft iWARP for Debian's stock kernel, which leaves it out: the driver of Debian's source
//! of that very kernel, built as a module against its headers.

use crate::apt::Package;
use crate::cache::{Cache, key};
use crate::watch::output_of;
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the driver is in the source.
const DRIVER: &str = "drivers/infiniband/sw/siw";
/// Headers name this directory by its whole path.
const HEADERS: &str = "/usr/src/";

/// The module for the kernel `image`; fetched and built unless it is kept.
pub(crate) fn module(
    cache: &Cache,
    image: &Package,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<PathBuf> {
    let entry = format!("siw-{}-{}", image.version, key(&[DRIVER]));
    let dir = cache.kept(&entry, |part| build(image, part, say))?;
    Ok(dir.join("siw.ko"))
}

/// What is fetched to build it, of one version: the headers, what they share with other
/// flavours, the programs that build, and the source.
fn packages(image: &Package) -> anyhow::Result<[String; 4]> {
    let release = image.name.strip_prefix("linux-image-");
    let release = release.context("the kernel's package has another name")?;
    let (version, _flavour) = release.rsplit_once('-').context("no flavour")?;
    let mut numbers = version.split(['.', '-']);
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("{release} is no version of Linux");
    };
    Ok([
        format!("linux-headers-{release}"),
        format!("linux-headers-{version}-common"),
        format!("linux-kbuild-{major}.{minor}"),
        format!("linux-source-{major}.{minor}"),
    ])
}

fn build(image: &Package, dir: &Path, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    say(&format!(
        "fetching the source and the headers of {} (150 MB), and building siw from them: \
         about a minute",
        image.name
    ));
    let work = dir.join("work");
    std::fs::create_dir(&work)?;
    let [headers, common, kbuild, source] = packages(image)?;
    let fetch = |name: &str| {
        let version = image.version.clone();
        Package::of_version(name, version).download(&work)
    };
    let tree = work.join("tree");
    for name in [&headers, &common, &kbuild] {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(fetch(name)?).arg(&tree);
        output_of(unpack)?;
    }
    let headers = tree.join(format!("usr/src/{headers}"));
    let makefile = headers.join("Makefile");
    let text = std::fs::read_to_string(&makefile).context("the headers have no Makefile")?;
    let here = format!("{}/", tree.join("usr/src").display());
    std::fs::write(&makefile, text.replace(HEADERS, &here))?;

    let mut unpack = Command::new("sh");
    unpack.args([
        "-ec",
        r#"dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/$2.tar.xz" | xz -dc | tar -x "$2/$3""#,
        "sh",
    ]);
    unpack.arg(fetch(&source)?).arg(&source).arg(DRIVER);
    output_of({
        unpack.current_dir(&work);
        unpack
    })?;
    let driver = work.join(source).join(DRIVER);
    let mut make = Command::new("make");
    make.arg("-C").arg(&headers);
    make.arg(format!("M={}", driver.display()));
    // Debian's kernel itself is not there to take type information from.
    make.args(["CONFIG_RDMA_SIW=m", "CONFIG_DEBUG_INFO_BTF_MODULES="]);
    make.arg("modules").stdin(Stdio::null());
    make.env_remove("MAKEFLAGS").env_remove("MFLAGS");
    output_of(make)?;
    let mut strip = Command::new("strip");
    strip.args(["--strip-debug", "-o"]).arg(dir.join("siw.ko"));
    strip.arg(driver.join("siw.ko"));
    output_of(strip)?;
    std::fs::remove_dir_all(&work)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_source_are_of_the_kernel_that_is_booted() {
        let image = Package::of_version("linux-image-6.1.0-56-amd64", "6.1.192-2".to_owned());
        let expected = [
            "linux-headers-6.1.0-56-amd64",
            "linux-headers-6.1.0-56-common",
            "linux-kbuild-6.1",
            "linux-source-6.1",
        ];
        assert_eq!(packages(&image).unwrap(), expected);
        let other = Package::of_version("linux-image-amd64", String::new());
        assert!(packages(&other).is_err());
    }
}
