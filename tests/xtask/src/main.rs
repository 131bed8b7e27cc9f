//! Chores of the project: `cargo xtask --help`.

mod bench;
mod build;
mod conformance;
mod demo;
mod dist;
mod fuzz;
mod interop;
mod man;
mod progress;
mod setup;
mod suites;
mod sysfs;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Chores of the project.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    arg_required_else_help = true,
    after_help = "The two to begin with: `cargo xtask demo` and `cargo xtask test`."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install the Debian packages that the demo and the tests need.
    Setup {
        /// Only say what is missing; exit status 1 if something is.
        #[arg(long)]
        check: bool,
    },
    /// Build everything in release mode and link libibverbs.so.1.
    Build,
    /// Run unmodified RDMA programs as endpoints of two tenants.
    Demo,
    /// Run every test.
    Test(suites::TestArgs),
    /// Run rdma-core's own Python tests through masq.
    Conformance(conformance::ConformanceArgs),
    /// Run programs between masq and the kernel's rdma_rxe in guests (needs root).
    Interop(interop::InteropArgs),
    /// Measure, against TCP over a bridge and against memcpy.
    Bench(bench::BenchArgs),
    /// Run the property tests with many more cases.
    Fuzz(fuzz::FuzzArgs),
    /// Make the Debian package in target/dist.
    Dist(dist::DistArgs),
    /// Make manual pages and completions.
    Man,
    /// Formatting, clippy, then every test.
    Ci,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            progress::failed(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    ctrlc::set_handler(|| {
        masq_e2e::end_all();
        std::process::exit(130);
    })
    .context("cannot catch Ctrl-C")?;
    match &cli.command {
        Command::Setup { check } => return setup::setup(*check),
        Command::Build => {
            let dir = build::build()?;
            progress::say(&format!("built in {}", dir.display()));
        }
        Command::Demo => demo::demo()?,
        Command::Test(args) => suites::test(args)?,
        Command::Conformance(args) => conformance::conformance(args)?,
        Command::Interop(args) => interop::interop(args)?,
        Command::Bench(args) => bench::bench(args)?,
        Command::Fuzz(args) => fuzz::fuzz(args)?,
        Command::Dist(args) => dist::dist(args)?,
        Command::Man => man::man()?,
        Command::Ci => suites::ci()?,
    }
    Ok(ExitCode::SUCCESS)
}
