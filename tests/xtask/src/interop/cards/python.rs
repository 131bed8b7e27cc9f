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

/// Those that expect of an RC what iWARP has: neither immediate data nor requests of no
/// bytes, and no word to requesters of why a message was refused.
const IWARP: &[&str] = &[
    "tests.test_addr.AHTest",
    "tests.test_atomic",
    "tests.test_cq",
    "tests.test_cq_events",
    "tests.test_device.DeviceTest",
    "tests.test_fork",
    "tests.test_mr.MRTest.test_mr_rereg_access",
    "tests.test_mr.MRTest.test_reg_mr_bad_flags",
    "tests.test_mr.MWTest",
    "tests.test_pd",
    "tests.test_qp",
    "tests.test_qpex.QpExTestCase.test_qp_ex_rc_rdma_read",
    "tests.test_qpex.QpExTestCase.test_qp_ex_rc_rdma_write",
    "tests.test_qpex.QpExTestCase.test_qp_ex_rc_send",
];

/// Which of the core tests run, and how many of them must pass; the rest a card may lack.
fn expected(card: Card) -> (&'static [&'static str], usize) {
    match card {
        Card::Soft => (conformance::CORE, conformance::CORE_PASSES),
        Card::Rxe => (conformance::CORE, 60),
        Card::Siw => (IWARP, 35),
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
