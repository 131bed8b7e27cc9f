//! The table.

use anyhow::{Context as _, bail};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// A place in the document, between marks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Document {
    Bench,
    Wire,
    Guests,
    Cards,
}

impl Document {
    fn marks(self) -> (&'static str, &'static str) {
        match self {
            Self::Bench => ("<!-- bench -->\n", "<!-- /bench -->\n"),
            Self::Wire => ("<!-- wire -->\n", "<!-- /wire -->\n"),
            Self::Guests => ("<!-- guests -->\n", "<!-- /guests -->\n"),
            Self::Cards => ("<!-- cards -->\n", "<!-- /cards -->\n"),
        }
    }
}

/// What is good: the target, then the aim.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sense {
    AtMost(f64, f64),
    AtLeast(f64, f64),
    /// Only shown.
    Shown,
}

impl Sense {
    fn met(self, value: f64) -> &'static str {
        let (target, aim) = match self {
            Self::AtMost(target, aim) => (value <= target, value <= aim),
            Self::AtLeast(target, aim) => (value >= target, value >= aim),
            Self::Shown => return "",
        };
        match (target, aim) {
            (_, true) => "aim met",
            (true, false) => "met",
            (false, false) => "**missed**",
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(target, aim) if target == aim => format!("≤ {target}"),
            Self::AtMost(target, aim) => format!("≤ {target} (aim {aim})"),
            Self::AtLeast(target, aim) if target == aim => format!("≥ {target}"),
            Self::AtLeast(target, aim) => format!("≥ {target} (aim {aim})"),
            Self::Shown => String::new(),
        }
    }
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    what: String,
    ours: String,
    other: String,
    value: f64,
    sense: Sense,
}

impl Row {
    /// A comparison; `value` is ours over the other's.
    pub(crate) fn ratio(
        what: impl Into<String>,
        ours: String,
        other: String,
        value: f64,
        sense: Sense,
    ) -> Self {
        Self {
            what: what.into(),
            ours,
            other,
            value,
            sense,
        }
    }

    /// A number by itself.
    pub(crate) fn value(what: impl Into<String>, value: f64, sense: Sense) -> Self {
        Self::ratio(what, String::new(), String::new(), value, sense)
    }
}

/// All lines of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: String,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self::of(Vec::new())
    }

    pub(crate) fn of(rows: Vec<Row>) -> Self {
        Self {
            machine: machine(),
            rows,
        }
    }

    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn markdown(&self) -> String {
        format!("{}\n\n{}", self.machine, table(&self.rows))
    }

    /// What machine it was.
    pub(crate) fn heading(&self) -> String {
        format!("{}\n", self.machine)
    }

    pub(crate) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }
}

/// The rows as Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut out =
        String::from("| What | masq | against | Result | Target | |\n|---|---|---|---|---|---|\n");
    for row in rows {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            row.what,
            row.ours,
            row.other,
            short(row.value),
            row.sense.text(),
            row.sense.met(row.value)
        );
    }
    out
}

/// Replaces what is between the marks of the document.
pub(crate) fn write_into(file: &Path, part: Document, new: &str) -> anyhow::Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let Some(replaced) = replace(&text, part, new) else {
        bail!("{} has no marks around its table", file.display());
    };
    std::fs::write(file, replaced)?;
    Ok(())
}

fn replace(text: &str, part: Document, new: &str) -> Option<String> {
    let (begin, end) = part.marks();
    let (head, rest) = text.split_once(begin)?;
    let (_, tail) = rest.split_once(end)?;
    Some(format!("{head}{begin}\n{new}\n{end}{tail}"))
}

/// Three significant digits, roughly.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_matches([':', ' ', '\t'])
        });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_judged_in_their_direction() {
        assert_eq!(Sense::AtMost(0.2, 0.1).met(0.3), "**missed**");
        assert_eq!(Sense::AtMost(0.2, 0.1).met(0.15), "met");
        assert_eq!(Sense::AtMost(0.2, 0.1).met(0.05), "aim met");
        assert_eq!(Sense::AtLeast(3.0, 5.0).met(2.0), "**missed**");
        assert_eq!(Sense::AtLeast(3.0, 5.0).met(6.0), "aim met");
    }

    #[test]
    fn only_the_table_of_the_document_changes() {
        let text = "a\n<!-- bench -->\nold\n<!-- /bench -->\nb\n";
        let new = replace(text, Document::Bench, "new").unwrap();
        assert_eq!(new, "a\n<!-- bench -->\n\nnew\n<!-- /bench -->\nb\n");
        assert_eq!(replace(text, Document::Wire, "new"), None);
    }
}
