//! Stock programs through the library, on a device that lives in the test: what the
//! frontend does is proven apart from masqd.
#![allow(unsafe_code, reason = "descriptors and peer credentials")]

mod cm;
mod connection;
mod device;
mod memory;
mod vring;

use device::Device;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

struct Bench {
    library: PathBuf,
    device: Device,
}

fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        let target = exe.ancestors().nth(3).unwrap();
        Bench {
            library: masq_link::build_and_link(target, false).unwrap(),
            device: Device::start(Path::new(env!("CARGO_TARGET_TMPDIR")), "device"),
        }
    })
}

fn command(words: &[&str]) -> Command {
    let bench = bench();
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .env("LD_LIBRARY_PATH", bench.library.parent().unwrap())
        .env("MASQ_SOCKET", &bench.device.socket)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn spawn(words: &[&str]) -> Child {
    let child = command(words).spawn();
    child.unwrap_or_else(|e| panic!("{}: {e}", words[0]))
}

/// A program that must end well within a minute; a hang is a failure with a name.
fn finish(child: Child, words: &[&str]) -> Output {
    let out = end(child);
    assert!(out.status.success(), "{words:?}: {out:?}");
    out
}

/// What became of a program; it is killed after a minute.
fn end(mut child: Child) -> Output {
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    child.wait_with_output().unwrap()
}

/// Compiles one of `programs/`.
fn program(name: &str) -> String {
    let source = format!(
        "{}/tests/session/programs/{name}.c",
        env!("CARGO_MANIFEST_DIR")
    );
    let out = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    let words = [
        "-Wall",
        "-Werror",
        "-O1",
        "-o",
        &out,
        &source,
        "-libverbs",
        "-lpthread",
    ];
    let built = Command::new("cc").args(words).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    out
}

/// Makes a library that passes for librdmacm and does as it is told: bound when it is
/// loaded (as Debian's is), or function by function.
fn stand_in(name: &str, binding: &str) -> String {
    let source = format!(
        "{}/tests/session/programs/stand_in.c",
        env!("CARGO_MANIFEST_DIR")
    );
    let out = format!("{}/{name}.so", env!("CARGO_TARGET_TMPDIR"));
    let binding = format!("-Wl,-z,{binding},-z,relro,-soname,librdmacm.so.1");
    let words = ["-shared", "-fPIC", "-O1", &binding, "-o", &out, &source];
    let built = Command::new("cc").args(words).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    out
}

/// A server and its client, on a TCP port of their own.
fn pair(tool: &str, port: &str, arguments: &[&str]) {
    let mut words = vec![tool, "-p", port];
    words.extend_from_slice(arguments);
    let server = spawn(&words);
    std::thread::sleep(Duration::from_millis(400));
    let mut client_words = words.clone();
    client_words.push("127.0.0.1");
    let client = end(spawn(&client_words));
    let server = end(server);
    let both = client.status.success() && server.status.success();
    assert!(both, "{words:?}: client {client:?}, server {server:?}");
}

#[test]
fn ibv_devices_and_devinfo_show_the_device() {
    let list = finish(spawn(&["ibv_devices"]), &["ibv_devices"]);
    let text = String::from_utf8(list.stdout).unwrap();
    assert!(
        text.contains("masq0") && text.contains("025000fffe000001"),
        "{text}"
    );
    let info = finish(spawn(&["ibv_devinfo", "-v"]), &["ibv_devinfo"]);
    let text = String::from_utf8(info.stdout).unwrap();
    assert!(text.contains("PORT_ACTIVE (4)"), "{text}");
    assert!(text.contains("::ffff:10.0.0.1, RoCE v2"), "{text}");
    assert!(text.contains("vendor_part_id:\t\t\t42"), "{text}");
}

#[test]
fn rc_pingpong_keeps_its_data_polling_and_by_events() {
    pair("ibv_rc_pingpong", "18515", &["-g", "3", "-n", "200", "-c"]);
    pair(
        "ibv_rc_pingpong",
        "18516",
        &["-g", "3", "-n", "200", "-c", "-e"],
    );
}

#[test]
fn large_messages_keep_their_data() {
    pair(
        "ibv_rc_pingpong",
        "18517",
        &["-g", "3", "-n", "10", "-c", "-s", "1000001"],
    );
}

#[test]
fn uc_and_ud_pingpong_work() {
    pair("ibv_uc_pingpong", "18518", &["-g", "3", "-n", "100", "-c"]);
    pair(
        "ibv_ud_pingpong",
        "18519",
        &["-g", "3", "-n", "100", "-c", "-s", "1024"],
    );
}

#[test]
fn srq_pingpong_shares_receives_of_many_queue_pairs() {
    pair("ibv_srq_pingpong", "18520", &["-g", "3", "-n", "200", "-c"]);
    pair(
        "ibv_srq_pingpong",
        "18521",
        &["-g", "3", "-n", "200", "-c", "-e"],
    );
}

#[test]
fn perftest_sends_writes_and_reads() {
    let few = ["-n", "200", "-x", "3", "-F"];
    pair("ib_send_bw", "18530", &few);
    pair("ib_write_bw", "18531", &few);
    pair("ib_read_bw", "18532", &few);
    pair(
        "ib_send_lat",
        "18533",
        &["-n", "200", "-x", "3", "-F", "-e"],
    );
    pair("ib_write_lat", "18534", &few);
}

#[test]
fn queues_behave_at_their_edges() {
    let words = [&program("queues")[..]];
    finish(spawn(&words), &words);
}

#[test]
fn a_forked_child_leaves_its_parents_session_alone() {
    let words = [&program("forked")[..]];
    finish(spawn(&words), &words);
}

#[test]
fn a_backend_that_hangs_up_is_a_fatal_event_and_nothing_hangs() {
    let device = Device::start(Path::new(env!("CARGO_TARGET_TMPDIR")), "ends");
    let words = [&program("fatal")[..]];
    let mut child = command(&words)
        .env("MASQ_SOCKET", &device.socket)
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut ready)
        .unwrap();
    device.hang_up();
    finish(child, &words);
}

#[test]
fn without_a_backend_the_list_is_empty() {
    let out = command(&["ibv_devices"])
        .env("MASQ_SOCKET", "/nonexistent")
        .output()
        .unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    assert!(!String::from_utf8_lossy(&out.stdout).contains("masq0"));
}

#[test]
fn commands_of_librdmacm_reach_the_device_and_bad_ones_end_with_an_errno() {
    let program = program("channels");
    for binding in ["now", "lazy"] {
        let library = stand_in(&format!("channels-{binding}"), binding);
        let words = [&program[..], &library];
        finish(spawn(&words), &words);
    }
}

#[test]
fn a_ring_that_is_kept_for_another_channel_is_stopped_with_its_session() {
    let device = Device::start(Path::new(env!("CARGO_TARGET_TMPDIR")), "spare");
    let words = [&program("spare")[..]];
    let child = command(&words).env("MASQ_SOCKET", &device.socket).spawn();
    finish(child.unwrap(), &words);
    let end = Instant::now() + Duration::from_secs(20);
    while device.left_started().is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(device.left_started(), [0]);
}

#[test]
fn a_channel_outlives_neither_its_backend_nor_its_process() {
    let device = Device::start(Path::new(env!("CARGO_TARGET_TMPDIR")), "channel-ends");
    let words = [&program("channel_ends")[..], &stand_in("ends", "now")];
    let mut child = command(&words)
        .env("MASQ_SOCKET", &device.socket)
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    let out = child.stdout.as_mut().unwrap();
    if out.read_exact(&mut ready).is_ok() {
        device.hang_up();
    }
    finish(child, &words);
}

#[test]
fn outside_an_endpoint_the_device_is_the_systems() {
    let program = program("channels");
    let words = [&program[..], &stand_in("outside", "now"), "outside"];
    let child = command(&words).env("MASQ_SOCKET", "").spawn().unwrap();
    finish(child, &words);
}
