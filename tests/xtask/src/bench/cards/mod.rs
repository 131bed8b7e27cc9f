//! masqd over a card of the kernel, against the same card without masq: two guests as two
//! hosts, the same command in turns.

mod contest;
mod control;

use super::report::{self, Document, Report, Row};
use crate::interop::cards::{Card, Cards};
use crate::progress::{heading, say};
use crate::{build, setup};
use anyhow::Context as _;
use contest::CONTESTS;
use masq_e2e::Binaries;
use masq_guest::{Kind, Kit};
use std::fmt::Write as _;
use std::fs;

/// A guest is slow, and its figures are ratios within one boot.
const MOST_ROUNDS: usize = 5;
/// So that a card's largest path MTU fits.
const MTU: u32 = 9000;

/// Measures each of these cards, and writes to `target/bench`, and to docs/ if it shall.
pub(crate) fn measure(
    binaries: &Binaries,
    cards: &[Card],
    rounds: usize,
    write: bool,
) -> anyhow::Result<()> {
    setup::ensure_also(&Kind::Uml.packages())?;
    let drivers: Vec<_> = cards.iter().map(|card| card.driver()).collect();
    let kit = Kit::prepare(Kind::Uml, &drivers, &mut |words| say(&format!("  {words}")))?;
    let mut text = Report::of(Vec::new()).heading();
    let mut all = Vec::new();
    for card in cards {
        let title = match card {
            Card::Soft => "masq's soft device, against rdma_rxe".to_owned(),
            _ => format!("masq over {0}, against {0}", card.title()),
        };
        heading(&title);
        let rows = rows(&kit, binaries, *card, rounds.min(MOST_ROUNDS))?;
        let _ = writeln!(text, "\n**{title}**\n\n{}", report::table(&rows));
        all.push((title, rows));
    }
    heading("In short");
    say(&text);
    let out = build::target_dir()?.join("bench");
    fs::create_dir_all(&out).context("cannot make target/bench")?;
    fs::write(out.join("cards.md"), &text)?;
    fs::write(out.join("cards.json"), serde_json::to_string_pretty(&all)?)?;
    say(&format!("written to {}", out.display()));
    if write {
        let file = masq_e2e::workspace().join("docs/benchmarks.md");
        report::write_into(&file, Document::Cards, &text)?;
        say("docs/benchmarks.md is updated");
    }
    Ok(())
}

fn rows(kit: &Kit, binaries: &Binaries, card: Card, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let cards = Cards::start(kit, binaries, card, MTU, true)?;
    for host in [&cards.alpha, &cards.beta] {
        tell_clock(host)?;
    }
    let mut rows = Vec::new();
    for contest in CONTESTS.iter().filter(|contest| contest.is_over(card)) {
        rows.extend(contest.compare(&cards, rounds)?);
    }
    rows.extend(control::compare(&cards)?);
    Ok(rows)
}

/// perftest believes its own calibration of the processor's clock only if /proc/cpuinfo
/// names a frequency near it, which that of User-Mode Linux does not do; the guest runs on
/// this machine's clock.
fn tell_clock(host: &crate::interop::cards::host::CardHost) -> anyhow::Result<()> {
    let here = fs::read_to_string("/proc/cpuinfo")?;
    let line = here
        .lines()
        .find(|line| line.starts_with("cpu MHz"))
        .context("this machine's /proc/cpuinfo names no frequency")?;
    host.run_bare(&format!(
        "(cat /proc/cpuinfo; echo '{line}') >/run/cpuinfo\n\
         mount --bind /run/cpuinfo /proc/cpuinfo"
    ))
    .map(drop)
}
