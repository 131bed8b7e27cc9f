//! What masq adds to each control verb.

use super::super::report::{Row, Sense};
use crate::interop::cards::{Card, Cards};
use crate::progress::step;
use anyhow::Context as _;
use masq_guest::{Output, SHARE};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A row for each verb; its result is what is added, in microseconds.
pub(super) fn compare(cards: &Cards) -> anyhow::Result<Vec<Row>> {
    let measuring = step("control verbs");
    // iWARP connects by its connection manager only.
    let connects = cards.card != Card::Siw;
    let program = format!("{SHARE}/control_each");
    let with = |gid: String| match connects {
        true => format!("{program} {gid}"),
        false => program.clone(),
    };
    let alpha = &cards.alpha;
    let masq = alpha.start("blue/a", &with("3".to_owned()))?.wait(LIMIT)?;
    let gid = match connects {
        true => alpha.bare_gid()?.to_string(),
        false => String::new(),
    };
    let bare = alpha.start_bare(&with(gid))?.wait(LIMIT)?;
    let (masq, bare) = (verbs(&masq.success()?)?, verbs(&bare.success()?)?);
    let rows = masq.iter().zip(&bare).map(|((verb, ours), (_, other))| {
        Row::ratio(
            format!("{verb}, median, added us"),
            format!("{ours:.1} us"),
            format!("{other:.1} us"),
            ours - other,
            Sense::Shown,
        )
    });
    let rows: Vec<_> = rows.collect();
    measuring.done(&format!("{} verbs", rows.len()));
    Ok(rows)
}

/// Lines `VERB MICROSECONDS`.
fn verbs(out: &Output) -> anyhow::Result<Vec<(String, f64)>> {
    let line = |line: &str| -> anyhow::Result<(String, f64)> {
        let (verb, took) = line.split_once(' ').context("no number")?;
        Ok((verb.to_owned(), took.parse()?))
    };
    let verbs: anyhow::Result<Vec<_>> = out.stdout.lines().map(line).collect();
    verbs.with_context(|| out.to_string())
}
