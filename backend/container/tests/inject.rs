//! The hook against real mount namespaces and a stand-in for masqd. Needs root; without
//! it the tests say so and pass.

use masq_admin::{Answer, ContainerReport, Request, SOCKET_NAME};
use masq_container::hook::{Host, Outcome, create_runtime, poststop};
use masq_container::{ContainerError, Device, State, gc};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::slice;
use std::sync::mpsc::{Receiver, channel};
use tempfile::TempDir;

/// A host: a run directory with a masqd, a bundle, a library directory.
struct Scene {
    dir: TempDir,
    asked: Receiver<Request>,
}

/// A container that its runtime has made and not started.
struct Made {
    init: Child,
    _ready: BufReader<ChildStdout>,
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root may make mount namespaces");
    }
    root
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        for sub in ["run", "lib/container/bin", "bundle/rootfs"] {
            fs::create_dir_all(path.join(sub)).unwrap();
        }
        for (name, text) in [
            ("libibverbs.so.1", "masq\0GLIBC_2.17\0"),
            ("container/librdmacm.so.1", "cm"),
            ("container/libc.so.6", "c"),
            ("container/ld-linux-x86-64.so.2", "ld"),
            ("container/ld-linux-aarch64.so.1", "ld"),
            ("container/bin/ibv_devinfo", "devinfo"),
        ] {
            fs::write(path.join("lib").join(name), text).unwrap();
        }
        for sub in ["dev", "sys", "proc"] {
            fs::create_dir(path.join("bundle/rootfs").join(sub)).unwrap();
        }
        fs::write(
            path.join("bundle/config.json"),
            r#"{"root": {"path": "rootfs"}}"#,
        )
        .unwrap();
        let asked = masqd(path.join("run"));
        Self { dir, asked }
    }

    fn host(&self) -> Host {
        Host {
            run_dir: self.dir.path().join("run"),
            lib_dir: self.dir.path().join("lib"),
        }
    }

    fn rootfs(&self) -> PathBuf {
        self.dir.path().join("bundle/rootfs")
    }

    fn tree(&self) -> BTreeSet<PathBuf> {
        tree(&self.rootfs())
    }

    /// A mount namespace as runc leaves it for its hooks.
    fn make(&self, propagation: &str) -> Made {
        let script = "mount --bind $R $R && mount --make-$P $R && \
                      mount -t tmpfs tmpfs $R/dev && mount -t sysfs sysfs $R/sys && \
                      echo ready && exec sleep 1000";
        let mut init = Command::new("unshare")
            .args(["--mount", "--propagation", "slave", "sh", "-c", script])
            .env("R", self.rootfs())
            .env("P", propagation)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = BufReader::new(init.stdout.take().unwrap());
        let mut line = String::new();
        ready.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Made {
            init,
            _ready: ready,
        }
    }

    fn state(&self, made: &Made) -> State {
        self.named("c1", made)
    }

    fn named(&self, id: &str, made: &Made) -> State {
        let bundle = self.dir.path().join("bundle");
        let pid = made.init.id();
        let text = format!(
            r#"{{"id":"{id}","status":"creating","pid":{pid},"bundle":"{}"}}"#,
            bundle.display()
        );
        State::read(text.as_bytes()).unwrap()
    }

    fn start(&self, made: &Made) -> Result<Outcome, ContainerError> {
        let device: Device = "blue:pod".parse().unwrap();
        create_runtime(&self.host(), &[device], false, &self.state(made))
    }

    /// Binds `volume` at `path` of the container.
    fn bind(&self, made: &Made, volume: &Path, path: &str) {
        let bound = Command::new("nsenter")
            .args(["--mount", "--target", &made.init.id().to_string()])
            .args(["mount", "--bind"])
            .arg(volume)
            .arg(self.rootfs().join(path))
            .status()
            .unwrap();
        assert!(bound.success());
    }

    /// What the container has at `path`.
    fn seen(&self, made: &Made, path: &str) -> PathBuf {
        let rootfs = self.rootfs();
        let below = rootfs.strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", made.init.id()))
            .join(below)
            .join(path)
    }
}

fn tree(root: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            }
            all.insert(entry.path());
        }
    }
    all
}

/// Answers as masqd does, and tells what it was asked. Ends with the test.
fn masqd(run_dir: PathBuf) -> Receiver<Request> {
    let listener = UnixListener::bind(run_dir.join(SOCKET_NAME)).unwrap();
    let (tell, asked) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let request: Request = serde_json::from_str(&line).unwrap();
            let answer = answer(&run_dir, &request);
            if tell.send(request).is_err() {
                return;
            }
            let text = serde_json::to_string(&answer).unwrap();
            writeln!(&stream, "{text}").unwrap();
        }
    });
    asked
}

fn answer(run_dir: &Path, request: &Request) -> Answer {
    match request {
        Request::Register(r) => {
            let dir = run_dir.join("containers").join(&r.container);
            for sub in ["run", "sys/masq0", "dev"] {
                fs::create_dir_all(dir.join(sub)).unwrap();
            }
            fs::write(dir.join("run/masq.sock"), "").unwrap();
            fs::write(dir.join("dev/uverbs0"), "").unwrap();
            Answer::Registered(ContainerReport {
                container: r.container.clone(),
                dir,
                ..ContainerReport::default()
            })
        }
        Request::Unregister { .. } => Answer::Unregistered(true),
        _ => Answer::Error("not asked here".into()),
    }
}

#[test]
fn a_static_image_gets_everything_and_keeps_nothing() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let before = scene.tree();
    let made = scene.make("private");
    let outcome = scene.start(&made).unwrap();
    assert!(outcome.registered.is_some());
    assert_eq!(outcome.notes, Vec::<String>::new());
    let Request::Register(asked) = scene.asked.recv().unwrap() else {
        panic!("masqd was asked something else");
    };
    assert_eq!(asked.tenant.as_deref(), Some("blue"));
    assert_eq!(asked.endpoint.as_deref(), Some("pod"));
    assert_eq!(asked.pid, made.init.id() as i32);
    let read = |path: &str| fs::read_to_string(scene.seen(&made, path)).unwrap();
    let library_dir = if cfg!(target_arch = "x86_64") {
        "lib/x86_64-linux-gnu"
    } else {
        "lib/aarch64-linux-gnu"
    };
    assert!(scene.seen(&made, "run/masq/masq.sock").exists());
    assert!(scene.seen(&made, "dev/infiniband/uverbs0").exists());
    assert!(scene.seen(&made, "sys/class/infiniband/masq0").exists());
    assert!(read(&format!("{library_dir}/libibverbs.so.1")).starts_with("masq"));
    assert_eq!(read(&format!("{library_dir}/librdmacm.so.1")), "cm");
    assert_eq!(read("bin/ibv_devinfo"), "devinfo");
    // Links of classes lead where they led.
    assert!(scene.seen(&made, "sys/class/net/lo/address").exists());
    assert!(scene.seen(&made, "sys/class/mem/null/dev").exists());
    let write = fs::write(scene.seen(&made, "bin/ibv_devinfo"), "evil");
    assert!(write.is_err(), "the host's program can be written");

    let mounts = || {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", made.init.id())).unwrap();
        text.lines().count()
    };
    let once = mounts();
    scene.start(&made).unwrap();
    assert_eq!(mounts(), once, "twice is once");
    let injected = fs::metadata(scene.dir.path().join("run/injected")).unwrap();
    assert_eq!(injected.permissions().mode() & 0o077, 0, "others can lock");

    let state = scene.state(&made);
    drop(made);
    poststop(&scene.host(), &state);
    assert_eq!(scene.tree(), before);
    assert!(tree(&scene.dir.path().join("run/injected")).is_empty());
}

#[test]
fn containers_of_one_root_filesystem_do_not_take_each_others_mounts() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let before = scene.tree();
    let (first, second) = (scene.make("private"), scene.make("private"));
    let device: Device = "blue:pod".parse().unwrap();
    let (one, two) = (scene.named("one", &first), scene.named("two", &second));
    for state in [&one, &two] {
        create_runtime(&scene.host(), slice::from_ref(&device), false, state).unwrap();
    }
    drop(first);
    poststop(&scene.host(), &one);
    let socket = scene.seen(&second, "run/masq/masq.sock");
    assert!(socket.exists());
    assert!(scene.seen(&second, "bin/ibv_devinfo").exists());
    drop(second);
    poststop(&scene.host(), &two);
    assert_eq!(scene.tree(), before);
}

#[test]
fn the_end_of_another_container_of_the_same_id_takes_nothing() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let before = scene.tree();
    let made = scene.make("private");
    scene.start(&made).unwrap();
    assert!(matches!(scene.asked.recv().unwrap(), Request::Register(_)));
    // A runtime that failed to make a second one of that id runs its poststop hook.
    poststop(&scene.host(), &scene.state(&made));
    let asked = scene.asked.recv().unwrap();
    assert!(
        matches!(asked, Request::Unregister { pid: None, .. }),
        "{asked:?}"
    );
    assert!(scene.seen(&made, "run/masq/masq.sock").exists());
    assert!(scene.seen(&made, "bin/ibv_devinfo").exists());
    let state = scene.state(&made);
    drop(made);
    poststop(&scene.host(), &state);
    assert_eq!(scene.tree(), before);
}

#[test]
fn a_failure_leaves_neither_registration_nor_mount_points() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    fs::create_dir(scene.rootfs().join("lib")).unwrap();
    fs::write(scene.rootfs().join("lib/ld-musl-x86_64.so.1"), "x").unwrap();
    let before = scene.tree();
    let made = scene.make("private");
    let error = scene.start(&made).unwrap_err();
    assert!(error.to_string().contains("musl"), "{error}");
    assert!(matches!(scene.asked.recv().unwrap(), Request::Register(_)));
    assert!(matches!(
        scene.asked.recv().unwrap(),
        Request::Unregister { .. }
    ));
    assert_eq!(scene.tree(), before);
    // What is in the way of an essential mount, found after others were planned.
    fs::remove_dir_all(scene.rootfs().join("lib")).unwrap();
    fs::create_dir(scene.rootfs().join("run")).unwrap();
    fs::write(scene.rootfs().join("run/masq"), "a file").unwrap();
    let before = scene.tree();
    let error = scene.start(&made).unwrap_err();
    assert!(error.to_string().contains("not a directory"), "{error}");
    assert_eq!(scene.tree(), before);
}

#[test]
fn links_in_an_image_lead_to_nothing_of_the_host() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let outside = scene.dir.path().join("outside");
    fs::create_dir_all(outside.join("lib")).unwrap();
    fs::write(outside.join("lib/libibverbs.so.1"), "host's").unwrap();
    let before = tree(&outside);
    let rootfs = scene.rootfs();
    symlink(&outside, rootfs.join("run")).unwrap();
    symlink(outside.join("lib"), rootfs.join("lib")).unwrap();
    symlink("../../../outside", rootfs.join("bin")).unwrap();
    symlink("/proc/self/root", rootfs.join("lib64")).unwrap();
    let made = scene.make("private");
    let error = scene.start(&made).unwrap_err();
    assert!(error.to_string().contains("/run"), "{error}");
    // Where such a link leads to something of the image, that is where it is mounted.
    let inner = rootfs.join(outside.strip_prefix("/").unwrap());
    fs::create_dir_all(inner.join("lib")).unwrap();
    let outcome = scene.start(&made).unwrap();
    assert!(outcome.notes.iter().any(|n| n.contains("/lib64")));
    assert!(
        scene
            .seen(&made, "")
            .join(inner.strip_prefix(&rootfs).unwrap())
            .join("masq/masq.sock")
            .exists()
    );
    assert_eq!(tree(&outside), before);
    let text = fs::read_to_string(outside.join("lib/libibverbs.so.1")).unwrap();
    assert_eq!(text, "host's");
}

#[test]
fn nothing_is_mounted_where_the_host_would_see_it() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let made = scene.make("shared");
    let error = scene.start(&made).unwrap_err();
    assert!(error.to_string().contains("propagation"), "{error}");
}

#[test]
fn nothing_is_created_on_volumes_that_can_be_done_without() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let volume = scene.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let made = scene.make("private");
    scene.bind(&made, &volume, "dev");
    let outcome = scene.start(&made).unwrap();
    assert!(outcome.notes[0].contains("volume"), "{outcome:?}");
    assert!(scene.seen(&made, "run/masq/masq.sock").exists());
    assert_eq!(tree(&volume), BTreeSet::new());
}

#[test]
fn a_masqd_that_is_not_there_is_named() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let made = scene.make("private");
    fs::remove_file(scene.host().run_dir.join(SOCKET_NAME)).unwrap();
    let error = scene.start(&made).unwrap_err();
    assert!(
        error.to_string().contains("masqd does not answer"),
        "{error}"
    );
    // One that asks for nothing is none of masq's business.
    let outcome = create_runtime(&scene.host(), &[], true, &scene.state(&made)).unwrap();
    assert!(outcome.registered.is_none());
    assert_eq!(outcome.notes.len(), 1);
}

#[test]
fn what_a_dead_runtime_left_is_collected() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let before = scene.tree();
    let made = scene.make("private");
    scene.start(&made).unwrap();
    let run_dir = scene.host().run_dir;
    fs::remove_file(run_dir.join(SOCKET_NAME)).unwrap();
    assert!(gc::collect(&run_dir, false).unwrap().is_empty(), "it runs");
    drop(made);
    assert!(scene.tree() != before);
    assert_eq!(gc::collect(&run_dir, false).unwrap().len(), 1);
    assert_eq!(scene.tree(), before);
}

/// Puts a character device that only root may open at /dev/userfaultfd of a container.
fn put_node(scene: &Scene, made: &Made, number: u64) -> PathBuf {
    let node = scene.seen(made, "dev/userfaultfd");
    let mode = nix::sys::stat::Mode::S_IRUSR;
    nix::sys::stat::mknod(&node, nix::sys::stat::SFlag::S_IFCHR, mode, number).unwrap();
    node
}

#[test]
fn a_userfaultfd_that_only_root_may_open_is_replaced() {
    use std::os::unix::fs::MetadataExt as _;
    if !is_root() {
        return;
    }
    let Ok(of_host) = fs::metadata("/dev/userfaultfd") else {
        eprintln!("skipped: the host has no /dev/userfaultfd");
        return;
    };
    let scene = Scene::new();
    let made = scene.make("private");
    let node = put_node(&scene, &made, of_host.rdev());
    scene.start(&made).unwrap();
    let found = fs::metadata(&node).unwrap();
    assert!(found.file_type().is_char_device());
    assert_eq!(found.permissions().mode() & 0o777, 0o666);
    assert_eq!(found.rdev(), of_host.rdev());
    fs::File::open(&node).unwrap();
    assert!(scene.seen(&made, "dev/infiniband/uverbs0").exists());
}

#[test]
fn another_device_in_the_place_of_userfaultfd_is_opened_to_nobody() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let made = scene.make("private");
    let node = put_node(&scene, &made, nix::sys::stat::makedev(1, 3));
    scene.start(&made).unwrap();
    let found = fs::metadata(&node).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o400);
    assert!(scene.seen(&made, "dev/infiniband/uverbs0").exists());
}

#[test]
fn classes_that_are_not_the_kernels_are_not_covered() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let volume = scene.dir.path().join("volume");
    fs::create_dir_all(volume.join("class/net")).unwrap();
    fs::write(volume.join("class/net/file"), "").unwrap();
    let made = scene.make("private");
    scene.bind(&made, &volume, "sys");
    let outcome = scene.start(&made).unwrap();
    assert!(outcome.notes[0].contains("infiniband"), "{outcome:?}");
    assert!(!scene.seen(&made, "sys/class/infiniband").exists());
    let of_class = fs::read_to_string(format!("/proc/{}/mountinfo", made.init.id())).unwrap();
    assert!(!of_class.contains("/sys/class"), "{of_class}");
}
