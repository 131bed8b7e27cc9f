//! `masq runtime`, and masq-runtime.

use crate::CliError;
use masq_container::runtime::{CommandLine, edit_config, exec};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Name by which this program is a runtime.
const NAME: &str = "masq-runtime";

/// The arguments for a runtime, if this program was called as one: as masq-runtime, or by
/// `masq runtime`, whose arguments are the runtime's and none of masq's.
pub fn as_runtime(args: impl IntoIterator<Item = OsString>) -> Option<Vec<OsString>> {
    let mut args = args.into_iter();
    let program = PathBuf::from(args.next()?);
    if program.file_name()? == NAME {
        return Some(args.collect());
    }
    if args.next()? != "runtime" {
        return None;
    }
    let rest: Vec<_> = args.collect();
    let help = rest.first().is_none_or(|a| a == "--help" || a == "-h");
    (!help).then_some(rest)
}

/// Edits what is to be edited and becomes the real runtime; returns only if that failed.
pub fn become_runtime(run_dir: &Path, arguments: Vec<OsString>) -> CliError {
    match prepare(run_dir, arguments) {
        Ok(line) => exec(&line).into(),
        Err(error) => error,
    }
}

fn prepare(run_dir: &Path, arguments: Vec<OsString>) -> Result<CommandLine, CliError> {
    let line = CommandLine::parse(arguments)?;
    if let Some(config) = line.config() {
        let run_dir = absolute(line.own.run_dir.as_deref().unwrap_or(run_dir))?;
        edit_config(&config, &line.own, &own_path()?, &run_dir)?;
    }
    Ok(line)
}

/// Where this program is.
pub(crate) fn own_path() -> Result<PathBuf, CliError> {
    std::env::current_exe().map_err(|source| CliError::Read {
        path: "/proc/self/exe".into(),
        source,
    })
}

pub(crate) fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|source| CliError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(args: &[&str]) -> Option<Vec<OsString>> {
        as_runtime(args.iter().map(OsString::from))
    }

    #[test]
    fn the_programs_name_or_its_first_word_makes_it_a_runtime() {
        assert_eq!(
            ask(&["/usr/bin/masq-runtime", "--help"]).unwrap(),
            ["--help"]
        );
        assert_eq!(
            ask(&["masq", "runtime", "--json", "x"]).unwrap(),
            ["--json", "x"]
        );
        assert_eq!(ask(&["masq", "runtime", "--help"]), None);
        assert_eq!(ask(&["masq", "ps"]), None);
        assert_eq!(ask(&["masq"]), None);
        assert_eq!(ask(&[]), None);
    }
}
