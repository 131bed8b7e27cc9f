//! What the person at the terminal sees while things take time.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

/// One line of information.
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// A heading.
pub(crate) fn heading(text: &str) {
    println!("\n{}", paint("1", &format!("== {text}")));
}

/// The last line of a run that failed.
pub(crate) fn failed(text: &str) {
    let bold_red = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let word = if bold_red {
        "\x1b[1;31mfailed\x1b[0m"
    } else {
        "failed"
    };
    eprintln!("{word}: {text}");
}

/// A step that is under way; dropped without [`Self::done`], it failed.
pub(crate) struct Step {
    since: Instant,
    open: bool,
}

/// Announces a step.
pub(crate) fn step(text: &str) -> Step {
    print!("  {text:<58} ");
    let _ = std::io::stdout().flush();
    Step {
        since: Instant::now(),
        open: true,
    }
}

impl Step {
    /// It succeeded; `what` is its result, if there is one to show.
    pub(crate) fn done(mut self, what: &str) {
        self.open = false;
        let seconds = self.since.elapsed().as_secs_f64();
        println!("{} {seconds:5.1} s  {what}", paint("32", "ok"));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.open {
            println!("{}", paint("1;31", "failed"));
        }
    }
}

fn paint(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Lines up the cells of rows, the first being the heading.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        let lengths = rows.iter().filter_map(|row| row.get(c));
        lengths.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(cells.join("   ").trim_end());
        out.push('\n');
        if number == 0 {
            let rules: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
            out.push_str(&rules.join("   "));
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn cells_stand_below_their_heading() {
        let rows = vec![
            vec!["WHAT".to_owned(), "N".to_owned()],
            vec!["latency".to_owned(), "1".to_owned()],
        ];
        assert_eq!(
            super::table(&rows),
            "WHAT      N\n-------   -\nlatency   1\n"
        );
    }
}
