//! The binary, without a masqd.

use assert_cmd::Command;
use predicates::str::contains;
use std::path::Path;

fn masq() -> Command {
    let mut command = Command::cargo_bin("masq").unwrap();
    command.env_remove("MASQ_RUN_DIR").env_remove("LD_PRELOAD");
    command
}

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../policy/examples")
        .join(name)
        .display()
        .to_string()
}

#[test]
fn help_teaches_by_example() {
    masq()
        .arg("--help")
        .assert()
        .success()
        .stdout(contains("masq run --endpoint blue/a -- "));
    masq()
        .args(["run", "--help"])
        .assert()
        .success()
        .stdout(contains("LD_PRELOAD"));
}

#[test]
fn a_missing_daemon_is_named_with_the_way_to_start_it() {
    let dir = tempfile::tempdir().unwrap();
    for command in [&["ps"][..], &["show", "1"], &["reload"]] {
        masq()
            .arg("--run-dir")
            .arg(dir.path())
            .args(command)
            .assert()
            .code(1)
            .stderr(contains("masqd does not answer"))
            .stderr(contains("masqd --policy FILE --run-dir DIR"));
    }
}

#[test]
fn running_without_a_daemon_does_not_start_the_program() {
    let dir = tempfile::tempdir().unwrap();
    masq()
        .arg("--run-dir")
        .arg(dir.path())
        .args(["run", "--endpoint", "blue/a", "--", "echo", "ran"])
        .assert()
        .code(1)
        .stdout("")
        .stderr(contains("masqd does not answer"));
}

#[test]
fn an_endpoint_without_a_slash_is_a_mistake_of_usage() {
    masq()
        .args(["run", "--endpoint", "blue", "--", "true"])
        .assert()
        .code(2)
        .stderr(contains("blue"));
}

#[test]
fn a_good_policy_passes_and_a_bad_one_is_shown_with_the_place() {
    masq()
        .args(["policy", "check", &example("two-tenants.yaml")])
        .assert()
        .success()
        .stdout(contains("2 tenants, 4 endpoints, 1 rules"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    std::fs::write(&file, "version: 1\ntenants:\n  blue:\n    endpoint: {}\n").unwrap();
    masq()
        .args(["policy", "check"])
        .arg(&file)
        .assert()
        .code(1)
        .stderr(contains("bad.yaml:4:5"))
        .stderr(contains("did you mean `endpoints`?"));
    let out = masq()
        .args(["--json", "policy", "check"])
        .arg(&file)
        .assert()
        .code(1)
        .get_output()
        .stdout
        .clone();
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(value["errors"][0]["line"], 4);
}

#[test]
fn explain_ends_by_the_verdict() {
    let policy = example("two-tenants.yaml");
    let explain = |from: &str, to: &str| {
        let mut command = masq();
        command.args([
            "policy", "explain", "--policy", &policy, "--from", from, "--to", to,
        ]);
        command.assert()
    };
    explain("blue/a", "blue/b")
        .success()
        .stdout(contains("allowed by blue rule 1 \"a-and-b\""));
    explain("blue/a", "10.0.0.2").success();
    explain("red/b", "red/a")
        .code(1)
        .stdout(contains("denied by default deny"));
    explain("red/b", "10.0.0.2")
        .code(1)
        .stdout(contains("tenant red has no endpoint"));
    explain("blue/a", "red/b")
        .code(1)
        .stdout(contains("another tenant"));
    explain("blue/z", "blue/a")
        .code(1)
        .stderr(contains("it has: blue/a, blue/b, red/a, red/b"));
    explain("blue/a", "nonsense").code(2);
}

#[test]
fn the_schema_and_the_completions_are_printed() {
    let out = masq()
        .args(["policy", "schema"])
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let schema: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert!(schema["properties"]["tenants"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        masq()
            .args(["completions", shell])
            .assert()
            .success()
            .stdout(contains("explain"));
    }
}

#[test]
fn a_hook_without_a_good_state_fails_and_says_who_runs_it() {
    for state in ["", "{", "[]", r#"{"id":"../x","bundle":"/b"}"#] {
        masq()
            .args(["hook", "createRuntime", "--library", "/bin/sh"])
            .write_stdin(state)
            .assert()
            .code(1)
            .stderr(contains("state on standard input is wrong"));
    }
    masq()
        .args(["hook", "createRuntime", "--library", "/bin/sh"])
        .write_stdin(r#"{"id":"x","pid":1,"bundle":"/no/such/bundle"}"#)
        .assert()
        .code(1)
        .stderr(contains("/no/such/bundle/config.json"));
    masq()
        .args(["hook", "createRuntime", "--device", "../x"])
        .assert()
        .code(2)
        .stderr(contains("no device of masq"));
}

#[test]
fn poststop_never_keeps_a_container_from_ending() {
    let dir = tempfile::tempdir().unwrap();
    for state in ["", r#"{"id":"x","bundle":"/no/such/bundle"}"#] {
        masq()
            .arg("--run-dir")
            .arg(dir.path())
            .args(["hook", "poststop"])
            .write_stdin(state)
            .assert()
            .success();
    }
}

#[test]
fn precreate_adds_hooks_to_a_config_that_asks() {
    let asks = r#"{"annotations":{"dev.masq/tenant":"blue"},"ociVersion":"1.0.2"}"#;
    masq()
        .args(["hook", "precreate"])
        .write_stdin(asks)
        .assert()
        .success()
        .stdout(contains("createRuntime"))
        .stdout(contains(r#""ociVersion":"1.0.2""#));
    masq()
        .args(["hook", "precreate"])
        .write_stdin("{}")
        .assert()
        .success()
        .stdout("{}\n");
}

#[test]
fn a_runtime_keeps_its_arguments_input_and_status() {
    let script = r#"read line; echo "$line:$*"; exit 7"#;
    masq()
        .args([
            "runtime",
            "--masq-runtime",
            "/bin/sh",
            "-c",
            script,
            "sh",
            "--json",
            "-h",
        ])
        .write_stdin("in\n")
        .assert()
        .code(7)
        .stdout("in:--json -h\n");
}

#[test]
fn cdi_devices_of_a_policy_are_written_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cdi/masq.json");
    masq()
        .args(["cdi", "generate", "--policy"])
        .arg(example("containers.yaml"))
        .arg("--output")
        .arg(&file)
        .assert()
        .success();
    masq()
        .args(["cdi", "list", "--file"])
        .arg(&file)
        .assert()
        .success()
        .stdout(contains("masq.dev/endpoint=blue:pod\n"))
        .stdout(contains("masq.dev/endpoint=red\n"));
}

#[test]
fn a_host_without_leftovers_has_nothing_to_collect() {
    let dir = tempfile::tempdir().unwrap();
    masq()
        .arg("--run-dir")
        .arg(dir.path())
        .args(["gc", "--dry-run"])
        .assert()
        .success()
        .stdout(contains("nothing is left"));
}
