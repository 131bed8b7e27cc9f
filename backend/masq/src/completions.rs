//! `masq completions`.

use crate::cli::{CompletionsArgs, command};
use std::io;
use std::process::ExitCode;

pub(crate) fn print(args: &CompletionsArgs) -> ExitCode {
    clap_complete::generate(args.shell, &mut command(), "masq", &mut io::stdout());
    ExitCode::SUCCESS
}
