//! Tables for people, JSON for programs, colours for terminals.

use crate::CliError;
use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::Write as _;

/// Errors and refusals.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Warnings.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().bold();
/// What is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Headings.
pub(crate) const HEAD: Style = Style::new().bold();
/// What is less important.
pub(crate) const DIM: Style = Style::new().dimmed();

/// Where a command's result goes.
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Writes `value` as JSON if that was asked for, else what `text` makes.
    pub(crate) fn emit<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        let text = if self.json {
            serde_json::to_string_pretty(value)?
        } else {
            text()
        };
        self.line(&text)
    }

    /// Writes `text`, without its colours if standard output is no terminal.
    pub(crate) fn line(&self, text: &str) -> Result<(), CliError> {
        let mut out = anstream::stdout().lock();
        writeln!(out, "{}", text.trim_end())?;
        Ok(())
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }
}

/// A borderless table; columns whose heading begins with `>` are numbers.
pub(crate) fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headings.iter().map(|h| h.trim_start_matches('>')))
        .add_rows(rows);
    for (column, heading) in table.column_iter_mut().zip(headings) {
        column.set_padding((0, 2));
        if heading.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    let mut lines = text.lines().map(str::trim_end);
    let head = lines.next().unwrap_or_default();
    let mut out = format!("{HEAD}{head}{HEAD:#}\n");
    for line in lines {
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// `1.5 GiB`; exact below 1 KiB.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let unit = UNITS.get(unit).unwrap_or(&"B");
    if *unit == "B" || value.fract() < 0.05 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// `45s`, `3m 5s`, `2h 7m`, `4d 3h`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The same, line by line.
pub(crate) fn printable_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(printable).collect();
    lines.join("\n")
}

/// Text of a tenant's program or image without what a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_cannot_write_to_the_terminal_by_a_name() {
        let message = "cannot open /lib/\x1b]0;owned\x07.so\n  remove it";
        let shown = printable_lines(message);
        assert_eq!(shown, "cannot open /lib/?]0;owned?.so\n  remove it");
    }

    #[test]
    fn sizes_and_ages_are_read_at_a_glance() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(4096), "4 KiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(4 << 30), "4 GiB");
        assert_eq!(age(59), "59s");
        assert_eq!(age(125), "2m 5s");
        assert_eq!(age(7300), "2h 1m");
        assert_eq!(age(90_000), "1d 1h");
    }

    #[test]
    fn a_program_name_cannot_move_the_cursor() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a?[2Jb?");
    }

    #[test]
    fn numbers_stand_right_and_lines_end_without_blanks() {
        let text = table(
            &["NAME", ">COUNT"],
            vec![
                vec!["a".into(), "7".into()],
                vec!["long name".into(), "1234".into()],
            ],
        );
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(
            plain,
            "NAME       COUNT\na              7\nlong name   1234\n"
        );
    }
}
