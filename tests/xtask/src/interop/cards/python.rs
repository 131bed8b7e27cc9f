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

/// How many of the core tests must pass; the rest a card may lack.
fn passes(card: Card) -> usize {
    match card {
        Card::Soft => conformance::CORE_PASSES,
        Card::Rxe => 60,
        Card::Siw => 20,
    }
}

/// None may fail, and enough must pass.
pub(super) fn core(cards: &Cards) -> anyhow::Result<()> {
    let line = format!(
        "/usr/bin/python3 {SHARE}/{DIR}/tests/run_tests.py --dev masq0 --port 1 --gid 3 -v {}",
        conformance::CORE.join(" ")
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
    let wanted = passes(cards.card);
    ensure!(
        passed >= wanted,
        "{passed} passed; at least {wanted} must:\n{text}"
    );
    cards.alpha.wait_until_at_rest(None)
}
