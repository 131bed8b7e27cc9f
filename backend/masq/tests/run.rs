//! `masq run` against a stand-in for masqd's admin socket.

use assert_cmd::Command;
use masq_admin::{Answer, SOCKET_NAME};
use predicates::str::contains;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use tempfile::TempDir;

/// A run directory with the endpoint blue/a, a library, and somebody who
/// answers every question with an empty overview.
fn stand_in() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = dir.path().join("endpoints/blue/a");
    std::fs::create_dir_all(&endpoint).unwrap();
    let _ = UnixListener::bind(endpoint.join("masq.sock")).unwrap();
    std::fs::write(dir.path().join("libibverbs.so.1"), "").unwrap();
    let admin = UnixListener::bind(dir.path().join(SOCKET_NAME)).unwrap();
    std::thread::spawn(move || {
        for stream in admin.incoming().flatten() {
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            let answer = Answer::Overview(Box::default());
            let _ = writeln!(&stream, "{}", serde_json::to_string(&answer).unwrap());
        }
    });
    dir
}

fn run(dir: &Path, endpoint: &str, program: &[&str]) -> Command {
    let mut command = Command::cargo_bin("masq").unwrap();
    command.env_remove("LD_PRELOAD");
    command.arg("--run-dir").arg(dir);
    command.args(["run", "--endpoint", endpoint, "--library"]);
    command.arg(dir.join("libibverbs.so.1"));
    command.arg("--").args(program);
    command
}

#[test]
fn the_program_gets_socket_and_library_and_its_status_comes_back() {
    let dir = stand_in();
    let root = std::fs::canonicalize(dir.path()).unwrap();
    let socket = dir.path().join("endpoints/blue/a/masq.sock");
    let script = "echo $MASQ_SOCKET $LD_PRELOAD $LD_LIBRARY_PATH; exit 7";
    run(dir.path(), "blue/a", &["/bin/sh", "-c", script])
        .env("LD_PRELOAD", "/other.so")
        .env("LD_LIBRARY_PATH", "/elsewhere")
        .assert()
        .code(7)
        .stdout(format!(
            "{} {}/libibverbs.so.1:/other.so {}:/elsewhere\n",
            socket.display(),
            root.display(),
            root.display()
        ));
}

#[test]
fn an_unknown_endpoint_is_refused_with_those_that_exist() {
    let dir = stand_in();
    run(dir.path(), "blue/b", &["echo", "ran"])
        .assert()
        .code(1)
        .stdout("")
        .stderr(contains("no endpoint blue/b; it has: blue/a"));
}

#[test]
fn a_missing_program_ends_as_in_a_shell() {
    let dir = stand_in();
    run(dir.path(), "blue/a", &["no-such-program"])
        .assert()
        .code(127)
        .stderr(contains("cannot run no-such-program"));
    run(dir.path(), "blue/a", &["/etc/passwd"])
        .assert()
        .code(126);
}

#[test]
fn a_signal_that_ends_the_program_ends_the_command() {
    use std::os::unix::process::ExitStatusExt as _;
    let dir = stand_in();
    let out = run(dir.path(), "blue/a", &["/bin/sh", "-c", "kill -TERM $$"])
        .output()
        .unwrap();
    assert_eq!(out.status.signal(), Some(libc::SIGTERM));
}
