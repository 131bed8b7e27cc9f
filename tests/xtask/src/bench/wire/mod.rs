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

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Runs of each kind, taken in turns.
    pub(crate) rounds: usize,
    /// Also in guests.
    pub(crate) guests: bool,
}

const PICTURE: &str = "wire-loss.svg";

/// Measures, and writes to `target/bench`, and to docs/ if it shall.
pub(crate) fn measure(binaries: &Binaries, extent: Extent, write: bool) -> anyhow::Result<()> {
    let since = Instant::now();
    let out = build::target_dir()?.join("bench");
    fs::create_dir_all(&out).context("cannot make target/bench")?;

    heading("Between two hosts, joined by veth");
    let link = link::measure(binaries, extent.rounds)?;
    heading("Where packets are lost");
    let losses = loss::measure(binaries, extent.rounds)?;
    loss::plot(&out.join(PICTURE), &losses)?;

    let mut text = Report::of(link.rows.clone()).markdown();
    let _ = writeln!(text, "\n{}", link::costs(&link.spent));
    let _ = writeln!(text, "{}", loss::table(&losses));
    let _ = writeln!(text, "![Goodput where packets are lost]({PICTURE})\n");
    let mut guests = Vec::new();
    if extent.guests {
        for kind in [Kind::Uml, Kind::Qemu] {
            heading(&format!("In a guest by {kind}, against rdma_rxe"));
            setup::ensure_also(&kind.packages())?;
            let (title, rows) = guest::measure(binaries, kind, extent.rounds)?;
            let _ = writeln!(text, "**{title}**\n\n{}", report::table(&rows));
            guests.push((title, rows));
        }
    }
    let _ = write!(
        text,
        "{} runs of each, taken in turns; {:.0} minutes in all.",
        extent.rounds,
        since.elapsed().as_secs_f64() / 60.0
    );

    heading("In short");
    say(&text);
    let json = serde_json::json!({ "link": link, "losses": losses, "guests": guests });
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
