//! `masq`: see `masq --help`.

use clap::Parser as _;
use masq_cli::{Cli, CliError, RUN_DIR, as_runtime, become_runtime, execute};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(arguments) = as_runtime(std::env::args_os()) {
        let run_dir = std::env::var_os("MASQ_RUN_DIR").unwrap_or_else(|| RUN_DIR.into());
        return failed(&become_runtime(Path::new(&run_dir), arguments));
    }
    let cli = Cli::parse();
    cli.color.write_global();
    match execute(&cli) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn failed(error: &CliError) -> ExitCode {
    error.report();
    ExitCode::from(error.exit_status())
}
