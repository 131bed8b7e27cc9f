use clap::{CommandFactory, Parser, ValueEnum};
use std::path::PathBuf;
use std::str::FromStr;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How packets go to other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PortKind {
    /// UDP sockets: no privilege is needed.
    Udp,
    /// Whole packets of the interface: each one's ICRC is checked. It takes
    /// CAP_NET_RAW.
    Raw,
}

/// What carries the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The software NIC.
    Soft,
    /// A card, by its name.
    Verbs(String),
    /// A card if there is one.
    Auto,
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Soft => f.write_str("soft"),
            Self::Verbs(name) => write!(f, "verbs:{name}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("verbs:")) {
            ("soft", _) => Ok(Self::Soft),
            ("auto", _) => Ok(Self::Auto),
            (_, Some(name)) if !name.is_empty() => Ok(Self::Verbs(name.to_owned())),
            _ => Err("expected soft, auto, or verbs:NAME with the name of a card".into()),
        }
    }
}

/// Share RDMA among tenants, under a policy.
///
/// masqd runs in the foreground. It makes one socket for each endpoint of the
/// policy (DIR/endpoints/TENANT/NAME/masq.sock); whoever connects there is
/// that endpoint.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "masqd",
    version,
    after_help = "Signals:\n  \
        HUP   read the policy again: it is taken whole or refused\n  \
        TERM  take no new sessions, let open ones end, stop (again: at once)\n\n\
        Examples:\n  \
        masqd --policy policy/examples/two-tenants.yaml --run-dir /run/masq\n  \
        masqd --policy p.yaml --run-dir ./run --cpus 2,3 --threads 2\n  \
        masqd --policy policy/examples/two-hosts.yaml --host alpha\n\n\
        Then: masq --run-dir /run/masq run --endpoint blue/a -- ibv_devinfo"
)]
pub struct Args {
    /// Tenant policy (YAML); `masq policy check FILE` explains mistakes
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,

    /// Which host of the policy this one is: its name, or its own address on
    /// the network between hosts
    #[arg(long, value_name = "NAME|ADDRESS")]
    pub host: Option<String>,

    /// What tells hosts of each other's endpoints, besides the policy:
    /// etcd://[USER@]HOST:PORT[,HOST:PORT]/PREFIX, or etcds:// with TLS. USER's
    /// password is in the environment, as MASQ_ETCD_PASSWORD
    #[arg(long, value_name = "ADDRESS", requires = "host")]
    pub directory: Option<String>,

    /// Authorities (PEM) that vouch for the directory's members, instead of
    /// those that browsers know
    #[arg(long, value_name = "FILE", requires = "directory")]
    pub directory_ca: Option<PathBuf>,

    /// Certificate (PEM) that this host shows to the directory
    #[arg(long, value_name = "FILE", requires = "directory_key")]
    pub directory_cert: Option<PathBuf>,

    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "directory_cert")]
    pub directory_key: Option<PathBuf>,

    /// What carries the data: soft, verbs:NAME, or auto; several may be given
    ///
    /// soft is masq's own RoCEv2 NIC, which needs no card; verbs:NAME an RDMA card of this
    /// host, as `rdma link show` names it; auto the first usable card that is not given by
    /// name, and if there is none, soft.
    ///
    /// Given several times, each once, masqd has all of them: the first is for tenants whose
    /// policy says nothing, the others are for those that it puts there (`device: NAME`).
    /// Between hosts one card has this host's address, and with a RoCEv2 card that has it,
    /// soft serves this host only: packets for UDP port 4791 are the card's.
    #[arg(
        long,
        value_name = "DEVICE",
        default_value = "soft",
        verbatim_doc_comment
    )]
    pub device: Vec<DeviceChoice>,

    /// How the soft device's packets go to other hosts
    #[arg(long, value_enum, default_value_t = PortKind::Udp, requires = "host")]
    pub port: PortKind,

    /// Directory for sockets
    #[arg(
        long,
        value_name = "DIR",
        env = "MASQ_RUN_DIR",
        default_value = "/run/masq"
    )]
    pub run_dir: PathBuf,

    /// Keep DIR/masq.json in step with the policy: the devices that container
    /// engines offer (CDI). podman reads /etc/cdi and /var/run/cdi
    #[arg(long, value_name = "DIR")]
    pub cdi_dir: Option<PathBuf>,

    /// Permission bits of the endpoints' sockets (octal)
    #[arg(long, value_name = "MODE", default_value = "660", value_parser = octal)]
    pub socket_mode: u32,

    /// Data-path threads; a tenant's queue pairs share one
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,

    /// CPUs for the data-path threads, such as 2,4-6
    #[arg(long, value_name = "LIST", conflicts_with = "numa_node")]
    pub cpus: Option<String>,

    /// Run the data-path threads on the CPUs of this NUMA node
    #[arg(long, value_name = "NODE")]
    pub numa_node: Option<u32>,

    /// How long a data-path thread polls after its last work, in microseconds
    /// [default: 50; 0 on a machine with one processor, where nobody brings work meanwhile]
    #[arg(long, value_name = "US")]
    pub idle_us: Option<u64>,

    /// Empty polls after which a data-path thread yields its CPU
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub yield_after: u32,

    /// Name of the device that programs see
    #[arg(long, value_name = "NAME", default_value = "masq0")]
    pub device_name: String,

    /// Vendor id that programs see (hexadecimal after 0x)
    #[arg(long, value_name = "ID", default_value = "0x6d71", value_parser = number)]
    pub vendor_id: u32,

    /// Vendor part id that programs see; perftest posts by ibv_wr_* for the
    /// ids that it knows (4123, say), and by ibv_post_send for others
    #[arg(long, value_name = "ID", default_value = "1", value_parser = number)]
    pub vendor_part_id: u32,

    /// How long sessions may go on after SIGTERM, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub drain: u64,

    /// What to log: error, warn, info, debug, or a tracing filter
    #[arg(long, value_name = "FILTER", env = "MASQD_LOG", default_value = "info")]
    pub log: String,

    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("expected permission bits in octal, such as 660".into()),
    }
}

fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "expected a number, such as 4123 or 0x6d71".into())
}

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    Args::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn devices_are_chosen_by_name() {
        assert_eq!("soft".parse(), Ok(DeviceChoice::Soft));
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        let card = DeviceChoice::Verbs("rxe0".into());
        assert_eq!("verbs:rxe0".parse(), Ok(card.clone()));
        for choice in [DeviceChoice::Soft, DeviceChoice::Auto, card] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for wrong in ["", "verbs", "verbs:", "rxe0"] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn several_devices_may_be_given_and_soft_is_what_there_is_without() {
        let parse = |more: &[&str]| {
            let line = ["masqd", "--policy", "p"].iter().chain(more);
            Args::try_parse_from(line).unwrap().device
        };
        assert_eq!(parse(&[]), [DeviceChoice::Soft]);
        let two = parse(&["--device", "verbs:rxe0", "--device", "soft"]);
        assert_eq!(
            two,
            [DeviceChoice::Verbs("rxe0".into()), DeviceChoice::Soft]
        );
    }

    #[test]
    fn numbers_and_modes_are_read_or_explained() {
        assert_eq!(number("0x6d71"), Ok(0x6d71));
        assert_eq!(number("4123"), Ok(4123));
        assert!(number("mlx5").is_err());
        assert_eq!(octal("660"), Ok(0o660));
        assert!(octal("999").is_err());
        assert!(octal("7777").is_err());
    }
}
