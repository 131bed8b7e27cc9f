//! `masq reload`.

use crate::CliError;
use crate::output::Output;
use masq_admin::{Answer, Request};
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn reload(run_dir: &Path, out: &Output) -> Result<ExitCode, CliError> {
    let report = match masq_admin::call(run_dir, &Request::Reload)? {
        Answer::Reloaded(report) => report,
        _ => return Err(CliError::WrongAnswer),
    };
    out.emit(&report, || {
        let mut text = String::new();
        if report.changes.is_empty() {
            text.push_str("the policy says what it said before\n");
        }
        for change in &report.changes {
            text.push_str(change);
            text.push('\n');
        }
        text.push_str(&format!(
            "connections cut: {}, sessions closed: {}",
            report.connections_cut, report.sessions_closed
        ));
        text
    })?;
    Ok(ExitCode::SUCCESS)
}
