//! `cargo xtask test` and `cargo xtask ci`.

use crate::build::{build, cargo};
use crate::conformance::{self, ConformanceArgs};
use crate::dist;
use crate::interop;
use crate::progress::{heading, say, step};
use crate::setup;
use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use masq_container_tests::{LEFT_OUT, RootFs, Runtime, probe};
use masq_e2e::{BIN_DIR, workspace};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --only e2e\n  \
                        cargo xtask test --only e2e -- pingpong"
)]
pub(crate) struct TestArgs {
    /// Only these suites.
    #[arg(long, value_enum)]
    only: Vec<Suite>,
    /// For unit, e2e and containers: only tests whose name holds this.
    #[arg(last = true)]
    filter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Tests of each crate.
    Unit,
    /// Examples in the documentation.
    Doc,
    /// Unmodified programs through masqd.
    E2e,
    /// Real container runtimes.
    Containers,
    /// rdma-core's own Python tests.
    Conformance,
    /// The Debian package in a fresh Debian 12 (needs root).
    Package,
    /// The kernel's rdma_rxe in User-Mode Linux as peer (needs root).
    Interop,
}

impl Suite {
    fn title(self) -> &'static str {
        match self {
            Self::Unit => "Tests of each crate",
            Self::Doc => "Examples in the documentation",
            Self::E2e => "Unmodified programs through masqd",
            Self::Containers => "Real container runtimes",
            Self::Conformance => "rdma-core's own Python tests",
            Self::Package => "The package in a fresh Debian 12",
            Self::Interop => "Linux's rdma_rxe as peer",
        }
    }
}

pub(crate) fn test(args: &TestArgs) -> anyhow::Result<()> {
    let chosen = |suite: &Suite| args.only.is_empty() || args.only.contains(suite);
    heading("Getting ready");
    setup::ensure_installed()?;
    let bin_dir = build()?;
    let mut results = Vec::new();
    for suite in Suite::value_variants().iter().filter(|s| chosen(s)) {
        heading(suite.title());
        let since = Instant::now();
        let result = match suite {
            Suite::Unit => unit(args.filter.as_deref()),
            Suite::Doc => cargo(&["test", "--quiet", "--workspace", "--doc"]),
            Suite::E2e => serial("masq-e2e", &bin_dir, args.filter.as_deref(), &[]),
            Suite::Containers => containers(&bin_dir, args.filter.as_deref()),
            Suite::Conformance => conformance::suite(&bin_dir, &ConformanceArgs::default()),
            Suite::Package => dist::suite(),
            Suite::Interop => interop::suite(),
        };
        results.push((suite.title(), result, since.elapsed()));
    }
    heading("In short");
    let mut failed = 0;
    for (title, result, took) in results {
        let word = match &result {
            Ok(()) => "passed".to_owned(),
            Err(error) => {
                failed += 1;
                format!("FAILED: {error:#}")
            }
        };
        say(&format!(
            "{title:<36} {:>6.1} s  {word}",
            took.as_secs_f64()
        ));
    }
    ensure!(failed == 0, "{failed} of the suites failed");
    Ok(())
}

fn unit(filter: Option<&str>) -> anyhow::Result<()> {
    let mut args = if has_nextest() {
        vec!["nextest", "run", "--no-fail-fast", "--no-tests", "pass"]
    } else {
        vec!["test", "--no-fail-fast", "--lib", "--bins", "--tests"]
    };
    args.extend(["--workspace", "--exclude", "masq-e2e"]);
    args.extend(["--exclude", "masq-container-tests"]);
    args.extend(filter);
    cargo(&args)
}

/// Says which runtimes can work here, then runs the tests of those that do.
fn containers(bin_dir: &Path, filter: Option<&str>) -> anyhow::Result<()> {
    let mut left_out = Vec::new();
    for runtime in Runtime::ALL {
        let trying = step(&runtime.to_string());
        match probe(runtime) {
            Ok(version) => trying.done(&version),
            Err(why) => {
                trying.done("LEFT OUT");
                say(&why);
                left_out.push(runtime.to_string());
            }
        }
    }
    let all = [Runtime::Podman, Runtime::Runc].map(|runtime| runtime.to_string());
    if all.iter().any(|runtime| !left_out.contains(runtime)) {
        let making = step("Debian's root filesystem");
        RootFs::debian()?;
        making.done("made");
    }
    let env = [(LEFT_OUT, left_out.join(","))];
    serial("masq-container-tests", bin_dir, filter, &env)
}

/// One test at a time: two polling programs and the NIC fill two cores.
fn serial(
    package: &str,
    bin_dir: &Path,
    filter: Option<&str>,
    env: &[(&str, String)],
) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).env(BIN_DIR, bin_dir);
    command.envs(env.iter().map(|(name, value)| (name, value)));
    if has_nextest() {
        command.args(["nextest", "run", "-p", package, "--no-fail-fast", "-j1"]);
        command.args(filter);
    } else {
        command.args(["test", "-p", package, "--no-fail-fast"]);
        command.args(filter);
        command.args(["--", "--test-threads=1"]);
    }
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("some of them failed; each failure above shows the outputs of both programs");
    }
    Ok(())
}

fn has_nextest() -> bool {
    Command::new("cargo")
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

pub(crate) fn ci() -> anyhow::Result<()> {
    heading("Formatting");
    cargo(&["fmt", "--all", "--check"])?;
    heading("Clippy");
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])?;
    test(&TestArgs {
        only: Vec::new(),
        filter: None,
    })
}
