//! User-Mode Linux: a kernel that is a program, built from Debian's source.

use crate::apt::Package;
use crate::cache::{Cache, key};
use crate::guest::GuestConfig;
use crate::watch::{output_of, watch};
use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::available_parallelism;

const SOURCE: &str = "linux-source-6.12";
const FRAGMENT: &str = include_str!("scripts/uml.config");
/// The room for the processor's registers, and what it must be where they include AMX.
const REGISTERS: (&str, &str) = (
    "DEFINE_LONGS(HOST_FP_SIZE, 2696);",
    "DEFINE_LONGS(HOST_FP_SIZE, 12288);",
);
/// What make prints lines for, at this configuration.
const FILES: usize = 1530;

/// The kernel; fetched and built unless it is kept.
pub(crate) fn kernel(cache: &Cache, say: &mut dyn FnMut(&str)) -> anyhow::Result<PathBuf> {
    let source = Package::find(SOURCE)?;
    let entry = format!(
        "uml-{}-{}",
        source.version,
        key(&[FRAGMENT, REGISTERS.0, REGISTERS.1])
    );
    let dir = cache.kept(&entry, |part| build(&source, part, say))?;
    Ok(dir.join("linux"))
}

fn build(source: &Package, dir: &Path, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    say(&format!(
        "fetching {SOURCE} {} ({} MB), and building User-Mode Linux from it: 4 to 20 minutes, \
         2 GB meanwhile",
        source.version,
        source.mib()
    ));
    let work = dir.join("work");
    std::fs::create_dir(&work)?;
    let file = source.download(&work)?;
    let mut unpack = Command::new("sh");
    unpack.args([
        "-ec",
        r#"dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/$2.tar.xz" | xz -dc | tar -x"#,
        "sh",
    ]);
    unpack.arg(file).arg(SOURCE).current_dir(&work);
    output_of(unpack)?;
    let tree = work.join(SOURCE);
    widen(&tree.join("arch/x86/um/user-offsets.c"))?;

    let fragment = dir.join("fragment");
    std::fs::write(&fragment, FRAGMENT)?;
    let make = |target: &str| {
        let mut make = Command::new("nice");
        make.args(["make", "ARCH=um", target]);
        make.arg(format!("O={}", work.join("o").display()));
        make.arg(format!("KCONFIG_ALLCONFIG={}", fragment.display()));
        make.arg(format!(
            "-j{}",
            available_parallelism().map_or(1, usize::from)
        ));
        // Those of a calling make or cargo are not meant for it.
        make.env_remove("MAKEFLAGS").env_remove("MFLAGS");
        make.current_dir(&tree).stdin(Stdio::null());
        make
    };
    output_of(make("alldefconfig"))?;
    let config = std::fs::read_to_string(work.join("o/.config"))?;
    let refused = refused(FRAGMENT, &config);
    ensure!(
        refused.is_empty(),
        "this kernel refuses {}",
        refused.join(", ")
    );
    watch(make("linux"), say, |output| {
        let done = output.lines().filter(|line| line.starts_with("  ")).count();
        format!("{done} of about {FILES} files compiled")
    })?;
    std::fs::copy(work.join("o/linux"), dir.join("linux"))?;
    std::fs::write(dir.join("config"), config)?;
    std::fs::remove_dir_all(&work)?;
    Ok(())
}

/// Without this the kernel panics where processors have AMX.
fn widen(file: &Path) -> anyhow::Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        text.contains(REGISTERS.0),
        "{} is not as it was: it has no `{}`",
        file.display(),
        REGISTERS.0
    );
    Ok(std::fs::write(
        file,
        text.replace(REGISTERS.0, REGISTERS.1),
    )?)
}

/// What the fragment sets and the configuration has not.
fn refused<'f>(fragment: &'f str, config: &str) -> Vec<&'f str> {
    let wanted = fragment.lines().filter(|line| line.starts_with("CONFIG_"));
    wanted
        .filter(|wanted| !config.lines().any(|line| line == *wanted))
        .collect()
}

/// The command that runs a guest whose channel is the terminal `channel`.
pub(crate) fn command(
    (kernel, root, agent): (&Path, &Path, &str),
    config: &GuestConfig<'_>,
    channel: &str,
    scratch: &Path,
) -> Command {
    let mut command = Command::new(kernel);
    command.env("TMPDIR", memory_dir(config.memory_mib, scratch));
    command.arg(format!("mem={}M", config.memory_mib));
    command.args(["root=/dev/root", "rootfstype=hostfs", "ro", "quiet"]);
    command.arg(format!("rootflags={}", root.display()));
    command.arg(format!("uml_dir={}/", scratch.display()));
    command.args(["con=null", "ssl=null", "con0=null,fd:1"]);
    command.arg(format!("con1=tty:{channel}"));
    for (number, interface) in config.interfaces.iter().enumerate() {
        command.arg(format!(
            "vec{number}:transport=tap,ifname={},mac={},mtu={},depth=64",
            interface.tap,
            interface.mac(),
            interface.mtu
        ));
    }
    command.arg("masq_channel=/dev/tty1");
    command.arg(format!("init={agent}"));
    command
}

/// Where the guest's memory lies: in memory if there is room.
fn memory_dir(memory_mib: u32, scratch: &Path) -> PathBuf {
    const SHM: &str = "/dev/shm";
    let free = rustix::fs::statvfs(SHM).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
    if free >= u64::from(memory_mib) << 20 {
        PathBuf::from(SHM)
    } else {
        scratch.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_not_take_over_is_named() {
        let fragment = "# words\nCONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n";
        assert_eq!(
            refused(fragment, "CONFIG_A=y\nCONFIG_BB=y\n"),
            ["CONFIG_B=y"]
        );
    }

    #[test]
    fn a_source_without_the_line_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("user-offsets.c");
        std::fs::write(&file, format!("a\n\t{}\nb\n", REGISTERS.0)).unwrap();
        widen(&file).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, format!("a\n\t{}\nb\n", REGISTERS.1));
        assert!(widen(&file).is_err());
    }
}
