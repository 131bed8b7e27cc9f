//! `masq doctor`: what this host can and cannot do, and what to do about it.

mod cards;
mod containers;
mod daemon;
mod host;
mod hosts;
mod library;
mod memory;
mod uffd;

use crate::CliError;
use crate::cli::DoctorArgs;
use crate::output::{BAD, DIM, GOOD, Output, WARN};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Nothing to do.
    Ok,
    /// Works, with a limit that somebody may meet.
    Warn,
    /// Something does not work.
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    name: &'static str,
    level: Level,
    /// What was found.
    found: String,
    /// What to do; absent if all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    pub(crate) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    pub(crate) fn warn(name: &'static str, found: impl Into<String>, remedy: &str) -> Self {
        Self {
            name,
            level: Level::Warn,
            found: found.into(),
            remedy: Some(remedy.to_owned()),
        }
    }

    pub(crate) fn fail(name: &'static str, found: impl Into<String>, remedy: &str) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(name, found, remedy)
        }
    }
}

/// Exit status 1 if something does not work.
pub(crate) fn examine(
    run_dir: &Path,
    args: &DoctorArgs,
    out: &Output,
) -> Result<ExitCode, CliError> {
    let mut checks = host::checks();
    checks.extend(memory::checks());
    checks.extend(library::checks(args.library.as_deref()));
    checks.extend(daemon::checks(run_dir));
    checks.extend(cards::checks(run_dir));
    checks.extend(hosts::checks(run_dir));
    checks.extend(containers::checks(run_dir));
    out.emit(&checks, || render(&checks))?;
    let failed = checks.iter().any(|check| check.level == Level::Fail);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn render(checks: &[Check]) -> String {
    let width = checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for check in checks {
        let (style, word) = match check.level {
            Level::Ok => (GOOD, "ok  "),
            Level::Warn => (WARN, "warn"),
            Level::Fail => (BAD, "FAIL"),
        };
        let _ = writeln!(
            out,
            "{style}{word}{style:#}  {:<width$}  {}",
            check.name, check.found
        );
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(out, "      {:<width$}  {DIM}{remedy}{DIM:#}", "");
        }
    }
    let count = |level| checks.iter().filter(|c| c.level == level).count();
    let _ = write!(
        out,
        "\n{} ok, {} warnings, {} failures",
        count(Level::Ok),
        count(Level::Warn),
        count(Level::Fail)
    );
    out
}

/// A file of /proc or /sys without its line end.
fn read(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_stands_below_what_needs_it() {
        let text = render(&[
            Check::ok("cores", "2"),
            Check::fail("library", "not found", "build it"),
        ]);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(
            text,
            "ok    cores    2\nFAIL  library  not found\n               build it\n\n\
             1 ok, 0 warnings, 1 failures"
        );
    }
}
