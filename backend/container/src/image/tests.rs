use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A tree with a library of this machine's architecture at each of `libraries`.
fn tree(libraries: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for path in libraries {
        let path = dir.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let names = ["GLIBC_2.36", "GLIBC_2.2.5"];
        fs::write(path, elf::tests::shared_object(&names)).unwrap();
    }
    dir
}

fn look(dir: &TempDir) -> Image {
    let root = Root::open(dir.path()).unwrap();
    inspect(&root, ["librdmacm.so.1", "ibv_devinfo"])
}

fn multiarch(name: &str) -> String {
    format!("{MULTIARCH_DIR}/{name}")
}

#[test]
fn an_image_with_rdma_core_is_read() {
    let dir = tree(&[
        LOADER,
        &multiarch("libc.so.6"),
        &multiarch("libibverbs.so.1.14.44.0"),
        &multiarch("librdmacm.so.1"),
        &multiarch("glibc-hwcaps/x86-64-v3/libibverbs.so.1"),
        "/opt/rdma/libibverbs.so.1",
    ]);
    let lib = dir.path().join(MULTIARCH_DIR.trim_start_matches('/'));
    symlink("libibverbs.so.1.14.44.0", lib.join("libibverbs.so.1")).unwrap();
    fs::create_dir_all(dir.path().join("etc/ld.so.conf.d")).unwrap();
    fs::write(
        dir.path().join("etc/ld.so.conf"),
        "include ld.so.conf.d/*.conf\n",
    )
    .unwrap();
    fs::write(
        dir.path().join("etc/ld.so.conf.d/a.conf"),
        "# x\n/opt/rdma\n",
    )
    .unwrap();
    let image = look(&dir);
    assert_eq!(image.libc, Libc::Glibc(GlibcVersion::new(2, 36)));
    assert_eq!(image.default_dir.as_deref(), Some(Path::new(MULTIARCH_DIR)));
    assert_eq!(image.verbs.len(), 3, "{:?}", image.verbs);
    assert_eq!(image.verbs[0], Path::new("/opt/rdma/libibverbs.so.1"));
    assert!(image.present.contains("librdmacm.so.1"));
    assert!(!image.present.contains("ibv_devinfo"));
}

#[test]
fn musl_and_static_images_are_told_apart() {
    assert_eq!(look(&tree(&["/lib/ld-musl-x86_64.so.1"])).libc, Libc::Musl);
    assert_eq!(look(&tree(&["/bin/busybox"])).libc, Libc::None);
    assert_eq!(look(&tree(&[LOADER])).libc, Libc::None);
}

#[test]
fn a_library_of_another_architecture_is_left_alone() {
    let dir = tree(&[LOADER, &multiarch("libc.so.6")]);
    let lib32 = dir.path().join("usr/lib/libibverbs.so.1");
    fs::create_dir_all(lib32.parent().unwrap()).unwrap();
    fs::write(lib32, b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x03\0").unwrap();
    assert!(look(&dir).verbs.is_empty());
}

#[test]
fn hostile_library_paths_neither_hang_nor_escape_nor_count() {
    let outside = tree(&["/libibverbs.so.1"]);
    let dir = tree(&[LOADER, &multiarch("libc.so.6")]);
    let lib = dir.path().join(MULTIARCH_DIR.trim_start_matches('/'));
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&lib.join("libibverbs.so.1.1"), mode).unwrap();
    fs::create_dir(lib.join("libibverbs.so.1.2")).unwrap();
    symlink("libibverbs.so.1.3", lib.join("libibverbs.so.1.3")).unwrap();
    symlink(
        outside.path().join("libibverbs.so.1"),
        lib.join("libibverbs.so.1.4"),
    )
    .unwrap();
    symlink("/proc/self/exe", lib.join("libibverbs.so.1.5")).unwrap();
    std::os::unix::net::UnixListener::bind(lib.join("libibverbs.so.1.6")).unwrap();
    symlink("/dev/zero", lib.join("libibverbs.so.1.7")).unwrap();
    nix::unistd::mkfifo(&lib.join("librdmacm.so.1"), mode).unwrap();
    // Only root may make one; the host's is as good behind a link.
    let device = nix::sys::stat::makedev(1, 5);
    let made = nix::sys::stat::mknod(
        &lib.join("libibverbs.so.1.8"),
        nix::sys::stat::SFlag::S_IFCHR,
        mode,
        device,
    );
    let image = look(&dir);
    assert_eq!(image.verbs, Vec::<PathBuf>::new(), "device made: {made:?}");
    assert!(image.present.is_empty());
}

#[test]
fn a_circular_include_tree_ends() {
    let dir = tree(&[LOADER, &multiarch("libc.so.6")]);
    let etc = dir.path().join("etc/conf");
    fs::create_dir_all(&etc).unwrap();
    fs::write(
        dir.path().join("etc/ld.so.conf"),
        "include /etc/ld.so.conf\ninclude conf/*\ninclude /dev/zero\n",
    )
    .unwrap();
    for i in 0..500 {
        let text = format!("include /etc/conf/*\n/d{i}\n").repeat(1000);
        fs::write(etc.join(format!("{i}.conf")), text).unwrap();
    }
    let begun = Instant::now();
    let image = look(&dir);
    assert!(matches!(image.libc, Libc::Glibc(_)));
    // Not a speed: an unbounded tree would take hours.
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_huge_library_is_not_read_to_its_end() {
    let dir = tree(&[LOADER, &multiarch("libc.so.6")]);
    let libc = dir
        .path()
        .join(multiarch("libc.so.6").trim_start_matches('/'));
    let file = fs::File::options().write(true).open(libc).unwrap();
    file.set_len(1 << 40).unwrap();
    assert_eq!(look(&dir).libc, Libc::Glibc(GlibcVersion::new(2, 36)));
}

#[test]
fn no_more_patterns_are_followed_than_an_image_has() {
    let dir = tree(&[LOADER, &multiarch("libc.so.6"), "/far/libibverbs.so.1"]);
    let conf = |before: usize| {
        let text = "include /etc/none/*\n".repeat(before) + "include /etc/conf/*\n";
        fs::write(dir.path().join("etc/ld.so.conf"), text).unwrap();
        look(&dir).verbs.len()
    };
    fs::create_dir_all(dir.path().join("etc/conf")).unwrap();
    fs::write(dir.path().join("etc/conf/far"), "/far\n").unwrap();
    assert_eq!(conf(100), 1);
    assert_eq!(conf(3000), 0);
}

#[test]
fn countless_copies_are_not_all_looked_at() {
    let dir = tree(&[LOADER, &multiarch("libc.so.6")]);
    let lib = dir.path().join(MULTIARCH_DIR.trim_start_matches('/'));
    let put = |from: usize, to: usize| {
        for number in from..to {
            fs::write(lib.join(format!("libibverbs.so.1.{number}")), "").unwrap();
        }
    };
    put(0, 64);
    assert!(!look(&dir).has_too_many_verbs());
    put(64, 200);
    let image = look(&dir);
    assert!(image.has_too_many_verbs());
    assert_eq!(image.verbs.len(), 65);
}
