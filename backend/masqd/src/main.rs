//! `masqd --policy FILE --run-dir DIR`

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // masqd starts itself so, to look into a network namespace.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == masq_control::NETNS_HELPER)
    {
        return match masq_control::netns_helper() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("masqd {}: {error}", masq_control::NETNS_HELPER);
                ExitCode::FAILURE
            }
        };
    }
    match masqd::run(&masqd::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("masqd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
