//! The command line.

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use masq_policy::{EndpointId, QpType, Service};
use std::ffi::OsString;
use std::path::PathBuf;

/// RDMA for containers and VMs, shared and governed.
#[derive(Debug, Parser)]
#[command(
    name = "masq",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    after_long_help = EXAMPLES,
    after_help = "`masq --help` shows examples; `masq COMMAND --help` explains a command."
)]
pub struct Cli {
    /// Run directory of masqd.
    #[arg(
        long,
        global = true,
        env = "MASQ_RUN_DIR",
        default_value = "/run/masq",
        value_name = "DIR",
        value_hint = ValueHint::DirPath
    )]
    pub run_dir: PathBuf,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// Colours: auto, always or never.
    #[command(flatten)]
    pub color: colorchoice_clap::Color,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  Start masqd with two tenants, in another terminal:
    masqd --policy policy/examples/two-tenants.yaml --run-dir /tmp/masq

  Run any RDMA program as an endpoint, unchanged:
    export MASQ_RUN_DIR=/tmp/masq
    masq run --endpoint blue/a -- ibv_rc_pingpong -g 3 -c
    masq run --endpoint blue/b -- ibv_rc_pingpong -g 3 -c 127.0.0.1

  Look:
    masq ps
    masq show blue/a

  Ask why:
    masq policy explain --from blue/a --to red/b

Exit status:
  0  done    1  failed, refused or denied    2  wrong usage
  `masq run` ends as its program does; 126 and 127: it could not be started.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program as an endpoint of a tenant.
    #[command(after_long_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// List sessions and their objects.
    Ps,
    /// Show a session or an endpoint in detail.
    #[command(after_long_help = "Examples:\n  masq show 7\n  masq show blue/a --json")]
    Show(ShowArgs),
    /// Make masqd read its policy file again.
    #[command(
        long_about = "Make masqd read its policy file again.\n\nThe file is checked as a whole and \
                      refused as a whole. Connections that it no longer allows go to the ERROR \
                      state: their work is flushed and their programs get an asynchronous event."
    )]
    Reload,
    /// Check a policy file, ask it, or print its schema.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Policy(PolicyArgs),
    /// Say what this host can and cannot do: exit status 1 if something does not work.
    #[command(after_long_help = "Examples:\n  masq doctor\n  masq doctor --json")]
    Doctor(DoctorArgs),
    /// Print masqd's counters in the text format of Prometheus.
    Metrics,
    /// Print a completion script for a shell.
    #[command(
        after_long_help = "Examples:\n  masq completions bash > /etc/bash_completion.d/masq\n  \
                           masq completions zsh > ~/.zfunc/_masq\n  \
                           masq completions fish > ~/.config/fish/completions/masq.fish"
    )]
    Completions(CompletionsArgs),
}

const RUN_EXAMPLES: &str = "\
The program finds masq's libibverbs.so.1 before the system's, by LD_PRELOAD and
LD_LIBRARY_PATH, and that library finds masqd by MASQ_SOCKET. Nothing else about
the program changes; no privilege is needed. Programs with the setuid bit ignore
LD_PRELOAD.

Examples:
  masq run --endpoint blue/a -- ibv_devinfo -v
  masq run --endpoint blue/a -- ib_write_bw -x 3
  masq run --endpoint blue/b -- ib_write_bw -x 3 127.0.0.1";

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Endpoint, as TENANT/NAME.
    #[arg(short, long, value_name = "TENANT/NAME")]
    pub(crate) endpoint: EndpointId,
    /// masq's libibverbs.so.1; by default the one beside this program or in
    /// /usr/lib/masq.
    #[arg(long, env = "MASQ_LIBRARY", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) library: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD",
        value_hint = ValueHint::CommandWithArguments
    )]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Number of a session, as `masq ps` lists it, or an endpoint as TENANT/NAME.
    #[arg(value_name = "SESSION|ENDPOINT")]
    pub(crate) what: String,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a policy file: exit status 1 if masqd would refuse it.
    #[command(after_long_help = "Examples:\n  masq policy check policy.yaml\n  \
                                 masq policy check policy.yaml --json")]
    Check {
        /// The file.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Say whether a connection is allowed, and by which rule: exit status 1 if not.
    #[command(
        after_long_help = "Examples:\n  masq policy explain --from blue/a --to blue/b\n  \
                                 masq policy explain --from red/b --to 10.0.0.2\n  \
                                 masq policy explain --from blue/a --to blue/b --qp-type UD \\\n    \
                                 --policy policy/examples/two-tenants.yaml"
    )]
    Explain(ExplainArgs),
    /// Print the JSON Schema of policy files, for editors.
    #[command(after_long_help = "Example:\n  masq policy schema > masq-policy.schema.json")]
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Who would connect, as TENANT/NAME.
    #[arg(long, value_name = "TENANT/NAME")]
    pub(crate) from: EndpointId,
    /// To whom: TENANT/NAME, or an address as the asker's tenant sees it.
    #[arg(long, value_name = "TENANT/NAME|ADDRESS")]
    pub(crate) to: String,
    /// Type of the queue pair.
    #[arg(long, default_value = "RC", value_name = "RC|UC|UD|XRC")]
    pub(crate) qp_type: QpType,
    /// By what it connects: verbs, or rdma_cm/SPACE/PORT.
    #[arg(long, default_value = "verbs", value_name = "SERVICE")]
    pub(crate) service: Service,
    /// Policy file; by default the one that masqd reads.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The library to look at, as for `masq run`.
    #[arg(long, env = "MASQ_LIBRARY", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) library: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: Shell,
}

/// The command line as clap describes it, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_no_contradictions() {
        command().debug_assert();
    }

    #[test]
    fn options_after_the_program_belong_to_the_program() {
        let cli = Cli::try_parse_from([
            "masq",
            "run",
            "-e",
            "blue/a",
            "--",
            "ib_write_bw",
            "--json",
            "-x",
            "3",
        ])
        .unwrap();
        assert!(!cli.json);
        let Command::Run(args) = cli.command else {
            panic!("not run")
        };
        assert_eq!(args.command, ["ib_write_bw", "--json", "-x", "3"]);
    }
}
