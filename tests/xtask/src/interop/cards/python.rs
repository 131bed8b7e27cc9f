//! rdma-core's own Python tests inside a guest, through masq.

use super::{Card, Cards};
use crate::conformance::{self, Outcome};
use anyhow::ensure;
use masq_guest::SHARE;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(150);
const ENDPOINT: &str = "blue/a";
/// The tests, beside the programs.
pub(super) const DIR: &str = "conformance";

/// Those that connect no queue pair: iWARP connects by its connection manager only.
const WITHOUT_PEERS: &[&str] = &[
    "tests.test_cq.CQTest",
    "tests.test_device.DeviceTest",
    "tests.test_mr.MRTest",
    "tests.test_pd",
];

/// Which of the core tests run, and how many of them must pass; the rest a card may lack.
fn expected(card: Card) -> (&'static [&'static str], usize) {
    match card {
        Card::Soft => (conformance::CORE, conformance::CORE_PASSES),
        Card::Rxe => (conformance::CORE, 60),
        Card::Siw => (WITHOUT_PEERS, 15),
    }
}

/// None may fail, and enough must pass.
pub(super) fn core(cards: &Cards) -> anyhow::Result<()> {
    let (names, wanted) = expected(cards.card);
    let line = format!(
        "/usr/bin/python3 {SHARE}/{DIR}/tests/run_tests.py --dev masq0 --port 1 --gid 3 -v {}",
        names.join(" ")
    );
    // It compiles what it imports unless told not to; the share is read-only.
    let line = format!("env PYTHONDONTWRITEBYTECODE=1 {line}");
    let out = cards.alpha.start(ENDPOINT, &line)?.wait(LIMIT)?;
    let text = format!("{}{}", out.stdout, out.stderr);
    let outcomes = conformance::read(&text);
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|(_, outcome)| **outcome == Outcome::Failed)
        .map(|(id, _)| id.as_str())
        .collect();
    ensure!(failed.is_empty(), "{} failed:\n{text}", failed.join(", "));
    let passed = outcomes.values().filter(|o| **o == Outcome::Ok).count();
    ensure!(
        passed >= wanted,
        "{passed} passed; at least {wanted} must:\n{text}"
    );
    cards.alpha.wait_until_at_rest(None)
}
