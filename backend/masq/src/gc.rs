//! `masq gc`.

use crate::CliError;
use crate::cli::GcArgs;
use crate::output::{BAD, Output};
use masq_container::gc::{Leftover, collect};
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn execute(run_dir: &Path, args: &GcArgs, out: &Output) -> Result<ExitCode, CliError> {
    let leftovers = collect(run_dir, args.dry_run)?;
    out.emit(&leftovers, || render(&leftovers, args.dry_run))?;
    let failed = leftovers.iter().any(|l| !l.failures.is_empty());
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn render(leftovers: &[Leftover], dry_run: bool) -> String {
    if leftovers.is_empty() {
        return "nothing is left behind".to_owned();
    }
    let verb = if dry_run { "would remove" } else { "removed" };
    let mut text = String::new();
    for leftover in leftovers {
        text.push_str(&format!(
            "{verb} {} with {} mount points\n",
            leftover.path.display(),
            leftover.mount_points.len()
        ));
        for failure in &leftover.failures {
            text.push_str(&format!("  {BAD}not{BAD:#}: {failure}\n"));
        }
    }
    text
}
