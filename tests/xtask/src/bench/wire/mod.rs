//! masq between two hosts, against TCP and UDP over the same link, and in a guest against
//! the kernel's rdma_rxe.

pub(super) mod cpu;
mod guest;
mod hosts;
mod link;
mod loss;
pub(super) mod samples;

use super::report::{self, Document, Report};
use crate::progress::{heading, say};
use crate::{build, setup};
use anyhow::Context as _;
use masq_e2e::Binaries;
use masq_guest::Kind;
use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

const PICTURE: &str = "wire-loss.svg";

/// Measures, and writes to `target/bench`, and to docs/ if it shall.
pub(crate) fn measure(binaries: &Binaries, rounds: usize, write: bool) -> anyhow::Result<()> {
    let since = Instant::now();
    let out = build::target_dir()?.join("bench");
    fs::create_dir_all(&out).context("cannot make target/bench")?;

    heading("Between two hosts, joined by veth");
    let link = link::measure(binaries, rounds)?;
    heading("Where packets are lost");
    let losses = loss::measure(binaries, rounds)?;
    loss::plot(&out.join(PICTURE), &losses)?;

    let mut text = Report::of(link.rows.clone()).markdown();
    let _ = writeln!(text, "\n{}", link::costs(&link.spent));
    let _ = writeln!(text, "{}", loss::table(&losses));
    let _ = writeln!(text, "![Goodput where packets are lost]({PICTURE})\n");
    let _ = write!(
        text,
        "{} runs of each, taken in turns; {:.0} minutes in all.",
        rounds,
        since.elapsed().as_secs_f64() / 60.0
    );

    heading("In short");
    say(&text);
    let json = serde_json::json!({ "link": link, "losses": losses });
    fs::write(out.join("wire.md"), &text)?;
    fs::write(out.join("wire.json"), serde_json::to_string_pretty(&json)?)?;
    say(&format!("written to {}", out.display()));
    if write {
        let docs = masq_e2e::workspace().join("docs");
        report::write_into(&docs.join("benchmarks.md"), Document::Wire, &text)?;
        fs::copy(out.join(PICTURE), docs.join(PICTURE))?;
        say("docs/benchmarks.md and its picture are updated");
    }
    Ok(())
}

/// The same for masq's soft device against rdma_rxe, in guests.
pub(crate) fn measure_guests(
    binaries: &Binaries,
    rounds: usize,
    write: bool,
) -> anyhow::Result<()> {
    let out = build::target_dir()?.join("bench");
    fs::create_dir_all(&out).context("cannot make target/bench")?;
    let mut text = Report::of(Vec::new()).heading();
    let mut guests = Vec::new();
    for kind in [Kind::Uml, Kind::Qemu] {
        heading(&format!("In a guest by {kind}, against rdma_rxe"));
        setup::ensure_also(&kind.packages())?;
        let (title, rows) = guest::measure(binaries, kind, rounds)?;
        let _ = write!(text, "\n**{title}**\n\n{}", report::table(&rows));
        guests.push((title, rows));
    }
    heading("In short");
    say(&text);
    fs::write(out.join("guests.md"), &text)?;
    fs::write(
        out.join("guests.json"),
        serde_json::to_string_pretty(&guests)?,
    )?;
    say(&format!("written to {}", out.display()));
    if write {
        let file = masq_e2e::workspace().join("docs/benchmarks.md");
        report::write_into(&file, Document::Guests, &text)?;
        say("docs/benchmarks.md is updated");
    }
    Ok(())
}
