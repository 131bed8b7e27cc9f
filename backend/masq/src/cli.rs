//! The command line.

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use masq_container::Device;
use masq_policy::{EndpointId, QpType, Service};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Where masqd's run directory is, unless somebody says otherwise.
pub const RUN_DIR: &str = "/run/masq";

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
        default_value = RUN_DIR,
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
    /// Write an endpoint's RDMA traffic to a file that Wireshark reads.
    #[command(long_about = CAPTURE_ABOUT, after_long_help = CAPTURE_EXAMPLES)]
    Capture(CaptureArgs),
    /// List the hosts, what lives on each, and how the directory fares.
    #[command(after_long_help = "Examples:\n  masq hosts\n  masq hosts --json")]
    Hosts,
    /// List the containers that are endpoints.
    Containers,
    /// Write or list the CDI devices by which container engines give containers an endpoint.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Cdi(CdiArgs),
    /// Make a container an endpoint; run by container runtimes.
    #[command(long_about = HOOK_ABOUT, after_long_help = HOOK_EXAMPLES)]
    Hook(HookArgs),
    /// Stand before an OCI runtime and add the hook to containers that ask for it.
    #[command(long_about = RUNTIME_ABOUT, after_long_help = RUNTIME_EXAMPLES)]
    Runtime(RuntimeArgs),
    /// Remove what containers left behind whose runtime or masqd died.
    #[command(
        long_about = "Remove what containers left behind whose runtime or masqd died: their \
                      directories below the run directory, and empty mount points in their root \
                      filesystems. Containers whose first process runs are left alone."
    )]
    Gc(GcArgs),
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

const CAPTURE_ABOUT: &str = "\
Write an endpoint's RDMA traffic to a file that Wireshark reads.

The packets that the endpoint sends and gets, as RoCEv2 over UDP port 4791, with payload.
Peers on the same host exchange no packets: their messages are shown as the packets that
they would have been. Nothing of other endpoints is in it. Whoever may talk to masqd's own
socket may capture, and sees what the programs send, and their keys.

A capture costs the copy of what it keeps, so --snap makes it cheaper. Programs never wait
for a slow reader: packets that find no room are lost from the file, and the summary says
how many. Ctrl-C ends the capture.";

const CAPTURE_EXAMPLES: &str = "\
Addresses are the tenant's (--virtual), because only these tell endpoints apart and
same-host peers have no others. --wire shows the hosts' addresses instead, and only what
travels between hosts, as it was on the network.

Wireshark takes UDP port 4791 for RoCEv2 by itself. Of packets that were cut (--snap), its
Info column says \"Invalid Packet Length\"; their headers are right. Useful filters:
  infiniband.bth.destqp == 0x12ab       one direction of a connection
  infiniband.aeth.syndrome.opcode == 3  refusals (NAK)
  infiniband.bth.opcode == 12           RDMA READ requests

Examples:
  masq capture --endpoint blue/a -w a.pcap
  masq capture --endpoint blue/a -w a.pcap --snap 128 --duration 10
  masq capture --endpoint blue/a -w - | tshark -r -
  masq capture --endpoint blue/a -w - | wireshark -k -i -
  masq capture --endpoint blue/a -w a.pcap --wire --count 1000";

#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// Endpoint, as TENANT/NAME.
    #[arg(short, long, value_name = "TENANT/NAME")]
    pub(crate) endpoint: EndpointId,
    /// File to write, replaced if it exists; `-` for standard output.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) write: PathBuf,
    /// Keep so many bytes of each packet, from the IP header on; else all.
    #[arg(
        short,
        long,
        value_name = "BYTES",
        default_value_t = *masq_admin::SNAP.end(),
        hide_default_value = true,
        value_parser = clap::value_parser!(u32)
            .range(i64::from(*masq_admin::SNAP.start())..=i64::from(*masq_admin::SNAP.end()))
    )]
    pub(crate) snap: u32,
    /// End after so many packets.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End after so many seconds.
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,
    /// Show the tenant's addresses; the default.
    #[arg(long = "virtual", overrides_with = "wire")]
    pub(crate) by_virtual: bool,
    /// Show the hosts' addresses, and only what travels between hosts.
    #[arg(long)]
    pub(crate) wire: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    match duration.is_zero() {
        true => Err("expected more than nothing".to_owned()),
        false => Ok(duration),
    }
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
pub(crate) struct CdiArgs {
    #[command(subcommand)]
    pub(crate) command: CdiCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CdiCommand {
    /// Write the file with one device for each tenant and endpoint of the policy.
    #[command(after_long_help = "Examples:\n  masq cdi generate\n  \
                                 masq cdi generate --policy policy.yaml --output -")]
    Generate {
        /// Policy file; by default the one that masqd reads.
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        policy: Option<PathBuf>,
        /// File to write; `-` for standard output.
        #[arg(
            long,
            value_name = "FILE",
            default_value = "/etc/cdi/masq.json",
            value_hint = ValueHint::FilePath
        )]
        output: PathBuf,
        /// Kind of the devices.
        #[arg(long, value_name = "VENDOR/CLASS", default_value = masq_container::cdi::KIND)]
        kind: String,
    },
    /// List the devices of a file.
    List {
        /// The file.
        #[arg(
            long,
            value_name = "FILE",
            default_value = "/etc/cdi/masq.json",
            value_hint = ValueHint::FilePath
        )]
        file: PathBuf,
    },
}

const HOOK_ABOUT: &str = "\
Make a container an endpoint; run by container runtimes.

createRuntime  reads the container's state from standard input, registers the container
               with masqd and brings the socket, the library and the device's files into
               it. Fails, and so keeps the container from starting, if it asks for what it
               may not have.
poststop       undoes that. Never fails.
createContainer
               does nothing: at that stage runtimes do not tell the container's process,
               and createRuntime has done all there is to do.
precreate      reads a config.json from standard input and writes it, with the two hooks
               added if the container asks for them, to standard output (podman).";

const HOOK_EXAMPLES: &str = "\
A container asks by --device, or by its annotations dev.masq/tenant and
dev.masq/endpoint. With --select, the policy's selectors choose for one that asks for
nothing. The annotation dev.masq/library=none leaves the image's libraries alone.

Example, in the config.json of a bundle:
  \"hooks\": { \"createRuntime\": [ { \"path\": \"/usr/bin/masq\",
      \"args\": [\"masq\", \"hook\", \"createRuntime\", \"--device\", \"blue:pod\"] } ],
    \"poststop\": [ { \"path\": \"/usr/bin/masq\",
      \"args\": [\"masq\", \"hook\", \"poststop\"] } ] }";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "camelCase")]
pub(crate) enum Stage {
    #[value(alias = "prestart")]
    CreateRuntime,
    CreateContainer,
    Poststop,
    Precreate,
}

#[derive(Debug, Args)]
pub(crate) struct HookArgs {
    /// Stage of the container's life.
    pub(crate) stage: Stage,
    /// What the container asks for, as TENANT or TENANT:ENDPOINT.
    #[arg(long = "device", value_name = "DEVICE")]
    pub(crate) devices: Vec<Device>,
    /// Let the policy choose for a container that asks for nothing.
    #[arg(long)]
    pub(crate) select: bool,
    /// The library that is brought along, as for `masq run`.
    #[arg(long, env = "MASQ_LIBRARY", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) library: Option<PathBuf>,
}

const RUNTIME_ABOUT: &str = "\
Stand before an OCI runtime and add the hook to containers that ask for it.

At `create` and `run` the config.json of the bundle is edited; then, and for every other
command, this program becomes the real runtime with the same arguments. Called as
masq-runtime, it does the same.";

const RUNTIME_EXAMPLES: &str = "\
Options of its own, which come first:
  --masq-device DEVICE   every container asks for it, as TENANT or TENANT:ENDPOINT
  --masq-runtime PATH    the real runtime; else $MASQ_RUNTIME, runc, crun
  --masq-run-dir DIR     run directory of masqd
  --masq-select          the policy chooses for containers that ask for nothing

Examples:
  ctr run --runc-binary /usr/bin/masq-runtime --annotation dev.masq/tenant=blue …
  /etc/docker/daemon.json:
    { \"runtimes\": { \"masq-blue\": { \"path\": \"/usr/bin/masq-runtime\",
                                    \"runtimeArgs\": [\"--masq-device\", \"blue:pod\"] } } }
  docker run --runtime masq-blue …";

#[derive(Debug, Args)]
pub(crate) struct RuntimeArgs {
    /// Options of masq-runtime, then the runtime's command line.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARG"
    )]
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
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
