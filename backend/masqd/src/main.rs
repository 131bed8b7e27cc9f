//! `masqd --policy FILE --run-dir DIR`

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match masqd::run(&masqd::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("masqd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
