//! `masq`: see `masq --help`.

use clap::Parser as _;
use masq_cli::{Cli, execute};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.color.write_global();
    match execute(&cli) {
        Ok(code) => code,
        Err(error) => {
            error.report();
            ExitCode::from(error.exit_status())
        }
    }
}
