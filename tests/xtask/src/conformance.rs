//! `cargo xtask conformance`: rdma-core's own Python tests through masq.
//!
//! Debian's python3-pyverbs carries the tests of its very version in its
//! documentation directory, so nothing has to be fetched.

use crate::progress::{heading, say, step};
use crate::{build, setup, sysfs};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use masq_e2e::{Binaries, Host, workspace};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the package puts them.
pub(crate) const PACKAGED: &str = "/usr/share/doc/rdma-core/tests";
/// The tests that need no rdma_cm, of a device like ours.
pub(crate) const CORE: &[&str] = &[
    "tests.test_addr.AHTest",
    "tests.test_atomic",
    "tests.test_cq",
    "tests.test_cq_events",
    "tests.test_cqex",
    "tests.test_device.DeviceTest",
    "tests.test_fork",
    "tests.test_mr.MRTest",
    "tests.test_mr.MWTest",
    "tests.test_pd",
    "tests.test_qp",
    "tests.test_qpex",
    "tests.test_relaxed_ordering",
];
/// How many those are in rdma-core 44.
const CORE_COUNT: usize = 102;
/// Without XRC.
pub(crate) const CORE_PASSES: usize = 86;
/// Of rdma_cm, which want to see a network interface with the device's address.
const RDMA_CM: &[&str] = &["tests.test_rdmacm"];
/// How many those are; none may be skipped.
const RDMA_CM_COUNT: usize = 10;
/// Of features that a device may lack.
const OPTIONAL: &[&str] = &["tests.test_parent_domain", "tests.test_shared_pd"];
/// The interpreter that python3-pyverbs is for.
const PYTHON: &str = "/usr/bin/python3";
const LIMIT: Duration = Duration::from_secs(300);

#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  cargo xtask conformance\n  \
                        cargo xtask conformance tests.test_qp.QPTest.test_modify_ud_qp")]
pub(crate) struct ConformanceArgs {
    /// Directory that holds rdma-core's `tests`; by default that of the
    /// package python3-pyverbs.
    #[arg(long, env = "MASQ_RDMA_CORE_TESTS")]
    tests: Option<PathBuf>,
    /// Only these tests, with their output and without expectations.
    only: Vec<String>,
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Skipped(String),
    Failed,
}

pub(crate) type Outcomes = BTreeMap<String, Outcome>;

pub(crate) fn conformance(args: &ConformanceArgs) -> anyhow::Result<()> {
    heading("Getting ready");
    setup::ensure_installed()?;
    let dir = build::build()?;
    suite(&dir, args)
}

/// The suite, with everything built.
pub(crate) fn suite(bin_dir: &Path, args: &ConformanceArgs) -> anyhow::Result<()> {
    let root = unpack(args.tests.as_deref().unwrap_or(Path::new(PACKAGED)))?;
    let file = workspace().join("policy/examples/two-tenants.yaml");
    let policy = fs::read_to_string(&file)?;
    let host = Host::launch(Binaries::at(bin_dir)?, &policy, &[])?;
    if !args.only.is_empty() {
        let python = if args.only.iter().any(|name| name.contains("rdmacm")) {
            sysfs::with_interface(&host, PYTHON)?
        } else {
            host.command(sysfs::ENDPOINT, PYTHON)
        };
        let out = run(python, &root, &args.only)?;
        say(&out);
        return Ok(());
    }
    let python = || host.command(sysfs::ENDPOINT, PYTHON);
    let core = run_and_read(python(), &root, "core", CORE)?;
    let optional = run_and_read(python(), &root, "optional", OPTIONAL)?;
    let python = sysfs::with_interface(&host, PYTHON)?;
    let rdma_cm = run_and_read(python, &root, "rdma_cm", RDMA_CM)?;
    host.wait_until_empty()?;
    let mut wrong = expectations(&core);
    let reasons = documented(&workspace().join("docs/conformance.md"))?;
    wrong.extend(undocumented(&core, &reasons));
    wrong.extend(undocumented(&optional, &reasons));
    wrong.extend(failures(&optional));
    wrong.extend(not_passed(&rdma_cm));
    ensure!(
        wrong.is_empty(),
        "{}\nthe outputs are in {}",
        wrong.join("\n"),
        root.display()
    );
    Ok(())
}

fn run_and_read(
    python: Command,
    root: &Path,
    what: &str,
    tests: &[&str],
) -> anyhow::Result<Outcomes> {
    let running = step(&format!("rdma-core's {what} tests"));
    let names: Vec<_> = tests.iter().map(|name| (*name).to_owned()).collect();
    let out = run(python, root, &names)?;
    fs::write(root.join(format!("{what}.txt")), &out)?;
    let outcomes = read(&out);
    ensure!(!outcomes.is_empty(), "no test ran:\n{out}");
    running.done(&summary(&outcomes));
    Ok(outcomes)
}

fn run(mut python: Command, root: &Path, tests: &[String]) -> anyhow::Result<String> {
    python.arg(root.join("tests/run_tests.py"));
    python.args(["--dev", sysfs::DEVICE, "--port", "1", "--gid", "3", "-v"]);
    python.args(tests);
    python.current_dir(root);
    Ok(masq_e2e::spawn(python)?.wait(LIMIT)?.output)
}

/// Copies the tests into the target directory and unpacks those that are
/// packed.
pub(crate) fn unpack(packaged: &Path) -> anyhow::Result<PathBuf> {
    ensure!(
        packaged.join("run_tests.py").is_file(),
        "{} holds no tests of rdma-core (some images leave documentation out). Have them \
         otherwise, of the same version as python3-pyverbs, and name them:\n  \
         apt-get download python3-pyverbs && dpkg -x python3-pyverbs_*.deb pyverbs\n  \
         cargo xtask conformance --tests pyverbs{PACKAGED}",
        packaged.display()
    );
    let root = build::target_dir()?.join("conformance");
    let to = root.join("tests");
    let _ = fs::remove_dir_all(&to);
    fs::create_dir_all(&to)?;
    for entry in fs::read_dir(packaged)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            continue;
        };
        match name.strip_suffix(".gz") {
            None if path.is_file() => fs::write(to.join(name), fs::read(&path)?)?,
            None => {}
            Some(plain) => {
                let out = Command::new("gzip").arg("-dc").arg(&path).output()?;
                ensure!(out.status.success(), "cannot unpack {}", path.display());
                fs::write(to.join(plain), out.stdout)?;
            }
        }
    }
    Ok(root)
}

/// Reads `unittest -v`: a test's id begins a line, its outcome ends that line
/// or a later one.
pub(crate) fn read(output: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut current = None;
    for line in output.lines() {
        if let Some(id) = test_id(line) {
            current = Some(id);
        }
        // A test that prints has its outcome on a line of its own.
        let word = line.rsplit_once(" ... ").map_or(line, |(_, word)| word);
        let outcome = match word.trim() {
            "ok" => Outcome::Ok,
            "FAIL" | "ERROR" => Outcome::Failed,
            other => match other.strip_prefix("skipped ") {
                Some(why) => Outcome::Skipped(why.trim_matches(['\'', '"']).to_owned()),
                None => continue,
            },
        };
        if let Some(id) = current.take() {
            outcomes.insert(id, outcome);
        }
    }
    // One that ended the interpreter, or whose outcome was garbled.
    if let Some(id) = current {
        outcomes.insert(id, Outcome::Failed);
    }
    outcomes
}

/// `test_x (tests.test_m.Class.test_x) …`, and without the last part as
/// Python before 3.11 has it.
fn test_id(line: &str) -> Option<String> {
    let (name, rest) = line.split_once(" (")?;
    let path = rest.split(')').next()?;
    if !name.starts_with("test_") || !path.starts_with("tests.") {
        return None;
    }
    if path.ends_with(&format!(".{name}")) {
        return Some(path.to_owned());
    }
    Some(format!("{path}.{name}"))
}

fn count(outcomes: &Outcomes, which: fn(&Outcome) -> bool) -> usize {
    outcomes.values().filter(|outcome| which(outcome)).count()
}

fn summary(outcomes: &Outcomes) -> String {
    format!(
        "{} passed, {} skipped, {} failed",
        count(outcomes, |o| *o == Outcome::Ok),
        count(outcomes, |o| matches!(o, Outcome::Skipped(_))),
        count(outcomes, |o| *o == Outcome::Failed)
    )
}

fn failures(outcomes: &Outcomes) -> Vec<String> {
    outcomes
        .iter()
        .filter(|(_, outcome)| **outcome == Outcome::Failed)
        .map(|(id, _)| format!("{id} failed"))
        .collect()
}

/// What keeps the tests of rdma_cm from being all there and all passed.
fn not_passed(rdma_cm: &Outcomes) -> Vec<String> {
    let mut wrong: Vec<_> = rdma_cm
        .iter()
        .filter_map(|(id, outcome)| match outcome {
            Outcome::Ok => None,
            Outcome::Skipped(why) => Some(format!("{id} is skipped ({why}) and may not be")),
            Outcome::Failed => Some(format!("{id} failed")),
        })
        .collect();
    if rdma_cm.len() != RDMA_CM_COUNT {
        wrong.push(format!(
            "{} tests of rdma_cm ran; rdma-core 44 has {RDMA_CM_COUNT}",
            rdma_cm.len()
        ));
    }
    wrong
}

/// What the issue asks of the core tests and is not so.
fn expectations(core: &Outcomes) -> Vec<String> {
    let mut wrong = failures(core);
    if core.len() != CORE_COUNT {
        wrong.push(format!(
            "{} core tests ran; rdma-core 44 has {CORE_COUNT}",
            core.len()
        ));
    }
    let passed = count(core, |o| *o == Outcome::Ok);
    if passed < CORE_PASSES {
        wrong.push(format!(
            "{passed} core tests passed; at least {CORE_PASSES} must"
        ));
    }
    wrong
}

/// The tests that docs/conformance.md gives reasons for.
fn documented(file: &Path) -> anyhow::Result<BTreeSet<String>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let reasons: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `tests."))
        .filter_map(|rest| rest.split_once('`'))
        .map(|(id, _)| format!("tests.{id}"))
        .collect();
    if reasons.is_empty() {
        bail!("{} lists no skip", file.display());
    }
    Ok(reasons)
}

/// Skips without a documented reason.
fn undocumented(outcomes: &Outcomes, reasons: &BTreeSet<String>) -> Vec<String> {
    outcomes
        .iter()
        .filter_map(|(id, outcome)| match outcome {
            Outcome::Skipped(why) if !reasons.contains(id) => Some(format!(
                "{id} is skipped ({why}); docs/conformance.md has no reason"
            )),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
test_a (tests.test_cq.CQTest.test_a)
What it does. ... ok
test_b (tests.test_cq.CQTest) ... skipped 'Create XRCD is not supported'
test_c (tests.test_cq.CQTest.test_c) ... /usr/lib/x.py:3: ResourceWarning: unclosed
FAIL
test_d (tests.test_cq.CQTest.test_d)
Has text ... ERROR
======
FAIL: test_d (tests.test_cq.CQTest.test_d)
Ran 3 tests in 0.1s
";

    #[test]
    fn outcomes_are_read_from_one_line_or_two() {
        let outcomes = read(OUTPUT);
        let get = |name: &str| outcomes.get(&format!("tests.test_cq.CQTest.{name}"));
        assert_eq!(get("test_a"), Some(&Outcome::Ok));
        let why = "Create XRCD is not supported".to_owned();
        assert_eq!(get("test_b"), Some(&Outcome::Skipped(why)));
        assert_eq!(get("test_c"), Some(&Outcome::Failed));
        assert_eq!(get("test_d"), Some(&Outcome::Failed));
    }

    #[test]
    fn an_interpreter_that_dies_fails_the_test_it_was_in() {
        let outcomes = read("test_a (tests.m.C.test_a)\nText ...");
        assert_eq!(outcomes.get("tests.m.C.test_a"), Some(&Outcome::Failed));
    }

    #[test]
    fn a_failure_a_missing_test_and_a_silent_skip_are_all_noticed() {
        let mut core: Outcomes = (0..CORE_COUNT)
            .map(|n| (format!("tests.m.C.test_{n}"), Outcome::Ok))
            .collect();
        assert!(expectations(&core).is_empty());
        core.insert("tests.m.C.test_0".into(), Outcome::Failed);
        assert_eq!(expectations(&core).len(), 1);
        core.remove("tests.m.C.test_0");
        assert_eq!(expectations(&core).len(), 1);
        let why = Outcome::Skipped("no".into());
        core.insert("tests.m.C.test_1".into(), why);
        assert_eq!(undocumented(&core, &BTreeSet::new()).len(), 1);
    }

    #[test]
    fn no_test_of_rdma_cm_may_be_skipped_or_missing() {
        let mut all: Outcomes = (0..RDMA_CM_COUNT)
            .map(|n| {
                (
                    format!("tests.test_rdmacm.CMTestCase.test_{n}"),
                    Outcome::Ok,
                )
            })
            .collect();
        assert!(not_passed(&all).is_empty());
        let why = Outcome::Skipped("no interface".into());
        all.insert("tests.test_rdmacm.CMTestCase.test_0".into(), why);
        assert_eq!(not_passed(&all).len(), 1);
        all.remove("tests.test_rdmacm.CMTestCase.test_0");
        assert_eq!(not_passed(&all).len(), 1);
    }
}
