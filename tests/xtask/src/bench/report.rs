//! The table.

use anyhow::{Context as _, bail};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

const BEGIN: &str = "<!-- bench -->\n";
const END: &str = "<!-- /bench -->\n";

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
    what: &'static str,
    ours: String,
    other: String,
    value: f64,
    sense: Sense,
}

impl Row {
    /// A comparison; `value` is ours over the other's.
    pub(crate) fn ratio(
        what: &'static str,
        ours: String,
        other: String,
        value: f64,
        sense: Sense,
    ) -> Self {
        Self {
            what,
            ours,
            other,
            value,
            sense,
        }
    }

    /// A number by itself.
    pub(crate) fn value(what: &'static str, value: f64, sense: Sense) -> Self {
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
        Self {
            machine: machine(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("{}\n\n", self.machine);
        out.push_str("| What | masq | against | Result | Target | |\n|---|---|---|---|---|---|\n");
        for row in &self.rows {
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

    pub(crate) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Replaces the table between the marks of the document.
    pub(crate) fn write_into(&self, file: &Path) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let replaced = replace(&text, &self.markdown());
        let Some(replaced) = replaced else {
            bail!("{} has no marks around its table", file.display());
        };
        std::fs::write(file, replaced)?;
        Ok(())
    }
}

fn replace(text: &str, table: &str) -> Option<String> {
    let (head, rest) = text.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n{table}\n{END}{tail}"))
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
        let new = replace(text, "new").unwrap();
        assert_eq!(new, "a\n<!-- bench -->\n\nnew\n<!-- /bench -->\nb\n");
        assert_eq!(replace("no marks", "new"), None);
    }
}
