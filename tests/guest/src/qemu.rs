//! QEMU in software emulation with Debian's stock kernel, nothing of it rebuilt.

use crate::apt::{Package, dependency};
use crate::cache::{Cache, key};
use crate::guest::GuestConfig;
use crate::root::AGENT;
use crate::siw;
use crate::watch::output_of;
use anyhow::{Context as _, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

const META: &str = "linux-image-amd64";
const INIT: &str = include_str!("scripts/initramfs.sh");
/// The checksums come first: others ask for them by name when they start.
const MODULES: [&str; 12] = [
    "crc32c_generic",
    "crc32_generic",
    "virtio_pci",
    "virtio_rng",
    "virtio_blk",
    "virtio_net",
    "ext4",
    "ib_uverbs",
    "ib_umad",
    "rdma_ucm",
    "rdma_rxe",
    "veth",
];

/// Directory with `vmlinuz` and `initrd`; fetched and made unless it is kept.
pub(crate) fn kernel(
    cache: &Cache,
    with_siw: bool,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<PathBuf> {
    // The lists may be missing, which the first look-up mends.
    Package::find(META)?;
    let image = Package::find(&dependency(META, "linux-image-")?)?;
    let entry = |what: &str| {
        let key = key(&[INIT, AGENT, &MODULES.join(" ")]);
        format!("{what}-{}-{key}", image.version)
    };
    if !with_siw {
        return cache.kept(&entry("stock"), |part| make(&image, None, part, say));
    }
    let module = siw::module(cache, &image, say)?;
    cache.kept(&entry("stock-siw"), |part| {
        make(&image, Some(&module), part, say)
    })
}

/// `siw` is a module beyond those of the package.
fn make(
    image: &Package,
    siw: Option<&Path>,
    dir: &Path,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    say(&format!(
        "fetching {} ({} MB) and making its initramfs; some seconds",
        image.name,
        image.mib()
    ));
    let work = dir.join("work");
    std::fs::create_dir(&work)?;
    let file = image.download(&work)?;
    let tree = work.join("tree");
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(file).arg(&tree);
    output_of(unpack)?;
    let version = image
        .name
        .strip_prefix("linux-image-")
        .context("the package's name has no version")?;
    std::fs::copy(
        tree.join(format!("boot/vmlinuz-{version}")),
        dir.join("vmlinuz"),
    )?;

    let initramfs = work.join("initramfs");
    for name in ["bin", "dev", "modules", "new"] {
        std::fs::create_dir_all(initramfs.join(name))?;
    }
    std::fs::copy("/bin/busybox", initramfs.join("bin/busybox"))
        .context("busybox-static is not installed")?;
    std::fs::write(initramfs.join("init"), INIT)?;
    std::fs::write(initramfs.join("agent.sh"), AGENT)?;
    let mut names = MODULES.to_vec();
    if let Some(siw) = siw {
        let extra = tree.join(format!("lib/modules/{version}/extra"));
        std::fs::create_dir_all(&extra)?;
        std::fs::copy(siw, extra.join("siw.ko"))?;
        names.push("siw");
    }
    for (number, module) in modules(&tree, version, &names)?.iter().enumerate() {
        copy_module(module, &initramfs.join("modules"), number)?;
    }
    let mut pack = Command::new("sh");
    pack.args([
        "-ec",
        r#"chmod 755 init bin/busybox; find . | cpio -o -H newc --quiet | gzip -1 >"$1""#,
        "sh",
    ]);
    pack.arg(dir.join("initrd")).current_dir(&initramfs);
    output_of(pack)?;
    std::fs::remove_dir_all(&work)?;
    Ok(())
}

/// The files of the modules and of what they need, in the order in which they load.
fn modules(tree: &Path, version: &str, names: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut depmod = Command::new("depmod");
    depmod.arg("-b").arg(tree).arg(version);
    output_of(depmod)?;
    let mut lines = String::new();
    for module in names {
        let mut ask = Command::new("modprobe");
        ask.arg("-d").arg(tree);
        ask.args(["-S", version, "--show-depends", module]);
        lines += &output_of(ask)?;
    }
    let files = in_order(&lines);
    ensure!(!files.is_empty(), "modprobe names no modules:\n{lines}");
    Ok(files)
}

/// The files of lines `insmod FILE`, each once.
fn in_order(lines: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for line in lines.lines() {
        let Some(file) = line.strip_prefix("insmod ") else {
            continue;
        };
        let file = PathBuf::from(file.trim());
        if !files.contains(&file) {
            files.push(file);
        }
    }
    files
}

/// As `NN-NAME.ko`, unpacked: busybox loads no packed ones.
fn copy_module(file: &Path, dir: &Path, number: usize) -> anyhow::Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').next().unwrap_or_default();
    let to = dir.join(format!("{number:02}-{stem}.ko"));
    match file.extension().and_then(|e| e.to_str()) {
        Some("ko") => {
            std::fs::copy(file, to)?;
        }
        Some("xz") => {
            let mut unpack = Command::new("sh");
            unpack.args(["-ec", r#"xz -dc "$1" >"$2""#, "sh"]);
            output_of({
                unpack.arg(file).arg(&to);
                unpack
            })?;
        }
        _ => bail!("{} is packed in an unknown way", file.display()),
    }
    Ok(())
}

/// Carry-less multiplication is emulated bit by bit: with it, checksums by tables, as the
/// guest's kernel computes them, would be the faster ones.
const CPU: &str = "max,pclmulqdq=off";

/// The command that runs a guest whose channel is the terminal `channel`.
pub(crate) fn command(
    (kernel, image): (&Path, &Path),
    shared: Option<&Path>,
    config: &GuestConfig<'_>,
    channel: &str,
) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2"]);
    command.args(["-m", &config.memory_mib.to_string()]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    command.args(["-no-reboot", "-serial", "stdio"]);
    command.args(["-chardev", &format!("serial,id=channel,path={channel}")]);
    command.args(["-serial", "chardev:channel"]);
    command.args(["-device", "virtio-rng-pci"]);
    // In this order they are /dev/vda and /dev/vdb.
    for image in [Some(image), shared].into_iter().flatten() {
        command.arg("-drive").arg(format!(
            "file={},format=raw,if=virtio,readonly=on",
            image.display()
        ));
    }
    for (number, interface) in config.interfaces.iter().enumerate() {
        command.args([
            "-netdev",
            &format!(
                "tap,id=n{number},ifname={},script=no,downscript=no",
                interface.tap
            ),
            "-device",
            &format!(
                "virtio-net-pci,netdev=n{number},mac={},host_mtu={}",
                interface.mac(),
                interface.mtu
            ),
        ]);
    }
    command.arg("-kernel").arg(kernel.join("vmlinuz"));
    command.arg("-initrd").arg(kernel.join("initrd"));
    command.args([
        "-append",
        "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable masq_channel=/dev/ttyS1",
    ]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_two_need_is_loaded_once_and_before_both() {
        let lines = "insmod /m/core.ko \ninsmod /m/a.ko \nbuiltin unix\n\
                     insmod /m/core.ko \ninsmod /m/b.ko \n";
        let expected = ["/m/core.ko", "/m/a.ko", "/m/b.ko"].map(PathBuf::from);
        assert_eq!(in_order(lines), expected);
    }
}
