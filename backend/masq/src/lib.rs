//! The `masq` command as a library, so that its manual pages and completions
//! can be made, and its parts tested, without the binary.

mod capture;
mod cdi;
mod cli;
mod completions;
mod containers;
mod doctor;
mod error;
mod gc;
mod hook;
mod hosts;
mod metrics;
mod output;
mod policy;
mod ps;
mod reload;
mod run;
mod runtime;
mod show;

pub use cli::{Cli, RUN_DIR, command};
pub use error::CliError;
pub use runtime::{as_runtime, become_runtime};

use cli::Command;
use output::Output;
use std::process::ExitCode;

/// Does what the command line says. `Ok` carries the exit status of a command
/// that ran and has something to say by it, such as a denied request.
///
/// # Errors
/// [`CliError`], with the exit status that goes with it.
pub fn execute(cli: &Cli) -> Result<ExitCode, CliError> {
    let out = Output::new(cli.json);
    match &cli.command {
        Command::Run(args) => Err(run::exec(&cli.run_dir, args)),
        Command::Ps => ps::print(&cli.run_dir, &out),
        Command::Show(args) => show::print(&cli.run_dir, args, &out),
        Command::Reload => reload::reload(&cli.run_dir, &out),
        Command::Policy(args) => policy::execute(&cli.run_dir, args, &out),
        Command::Doctor(args) => doctor::examine(&cli.run_dir, args, &out),
        Command::Capture(args) => capture::capture(&cli.run_dir, args, &out),
        Command::Hosts => hosts::print(&cli.run_dir, &out),
        Command::Containers => containers::print(&cli.run_dir, &out),
        Command::Cdi(args) => cdi::execute(&cli.run_dir, args, &out),
        Command::Hook(args) => hook::execute(&cli.run_dir, args, &out),
        Command::Runtime(args) => Err(become_runtime(&cli.run_dir, args.arguments.clone())),
        Command::Gc(args) => gc::execute(&cli.run_dir, args, &out),
        Command::Metrics => metrics::print(&cli.run_dir, &out),
        Command::Completions(args) => Ok(completions::print(args)),
    }
}
