//! From the command line to a running daemon.

use crate::args::{Args, LogFormat, PortKind};
use crate::cdi::CdiFile;
use crate::cpus;
use crate::device;
use anyhow::{Context, Result, bail};
use masq_container::Held;
use masq_control::{
    DeviceIdentity, Directory, Embedded, LocalHost, Server, ServerConfig, ServerHandle,
};
use masq_datapath::DataPathConfig;
use masq_directory::{AddressError, Etcd, EtcdConfig, Tls};
use masq_policy::Policy;
use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Environment variable with the password for etcd: arguments are seen by everybody.
const ETCD_PASSWORD: &str = "MASQ_ETCD_PASSWORD";

/// Runs masqd until it is told to stop.
///
/// # Errors
/// What people have to mend: the policy, a flag, a path, a limit of the host.
pub fn run(args: &Args) -> Result<()> {
    start_log(args)?;
    let policy = read_policy(args)?;
    if args.device_name.is_empty() || args.device_name.len() > 31 {
        bail!("--device-name: expected 1 to 31 bytes");
    }
    // Before any thread starts, so that only the one below sees them.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("block signals")?;
    raise_descriptors();
    let underlay = underlay(args, &policy)?;
    if let Some(Underlay { host, port }) = &underlay {
        tracing::info!(%host, ?port, "one of several hosts");
    }
    let directory = directory(args, underlay.as_ref())?;
    let devices = device::start(args, &data_path(args)?, underlay.as_ref())?;
    let carriers = devices.names().collect::<Vec<_>>().join(" ");
    let config = ServerConfig {
        run_dir: args.run_dir.clone(),
        policy_file: std::path::absolute(&args.policy).unwrap_or_else(|_| args.policy.clone()),
        socket_mode: args.socket_mode,
        identity: DeviceIdentity {
            name: args.device_name.clone(),
            vendor_id: args.vendor_id,
            vendor_part_id: args.vendor_part_id,
            hw_ver: 1,
        },
        drain: Duration::from_secs(args.drain),
        host: underlay.map(|underlay| underlay.host),
    };
    let endpoints = policy.endpoints().count();
    let cdi = args.cdi_dir.as_ref();
    let cdi = cdi
        .map(|dir| CdiFile::new(dir, &args.run_dir))
        .transpose()?;
    let mut server = Server::new(config, policy, devices, directory)?;
    let held = library_dir().map(Held::start).transpose();
    let held = held.context("start a thread")?;
    server.on_policy(move |policy| {
        if let Some(cdi) = &cdi {
            cdi.write(policy);
        }
        if let Some(held) = &held {
            held.look_again();
        }
    });
    watch_signals(signals, server.handle())?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        endpoints,
        run_dir = %args.run_dir.display(),
        devices = carriers,
        "ready"
    );
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    server.run()?;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopped");
    Ok(())
}

/// The way to other hosts.
#[derive(Clone, Debug)]
pub(crate) struct Underlay {
    /// This host; its address is the source of all packets.
    pub(crate) host: LocalHost,
    /// How they go.
    pub(crate) port: PortKind,
}

/// What tells of other hosts.
fn directory(args: &Args, underlay: Option<&Underlay>) -> Result<Box<dyn Directory>> {
    let (Some(address), Some(underlay)) = (&args.directory, underlay) else {
        return Ok(Box::new(Embedded));
    };
    let password = std::env::var(ETCD_PASSWORD).ok();
    let mut config = EtcdConfig::parse(address, password).context("--directory")?;
    let files = [
        &args.directory_ca,
        &args.directory_cert,
        &args.directory_key,
    ];
    if config.tls.is_some() {
        let [ca, cert, key] = files.map(|file| file.as_deref().map(read_file).transpose());
        let (ca, cert, key) = (ca?, cert?, key?);
        let client = cert.as_deref().zip(key.as_deref());
        let tls = Tls::new(ca.as_deref(), client);
        let flags = "--directory-ca, --directory-cert, --directory-key";
        config.tls = Some(tls.context(flags)?);
    } else if files.iter().any(|file| file.is_some()) {
        return Err(AddressError::NotEncrypted).context("--directory");
    }
    tracing::info!(directory = %config, "following");
    let etcd = Etcd::start(config, underlay.host.address).context("--directory: start")?;
    Ok(Box::new(etcd))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// None if this host is the only one.
fn underlay(args: &Args, policy: &Policy) -> Result<Option<Underlay>> {
    let host = LocalHost::find(policy, args.host.as_deref())?;
    Ok(host.map(|host| Underlay {
        host,
        port: args.port,
    }))
}

/// The directory of masq's libraries, if there is one.
fn library_dir() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok();
    let mut candidates = masq_container::libraries(exe.as_deref()).into_iter();
    let found = candidates.find(|path| path.is_file())?;
    found.parent().map(Path::to_owned)
}

/// Each session takes about eight descriptors, each completion channel four:
/// all that the host allows may be needed.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let result = setrlimit(Resource::Nofile, wanted);
    let now = getrlimit(Resource::Nofile).current;
    match (result, now) {
        (Ok(()), Some(descriptors)) => tracing::info!(descriptors, "limit of open descriptors"),
        (Ok(()), None) => {}
        (Err(error), now) => {
            tracing::warn!(%error, ?now, "the limit of open descriptors was not raised");
        }
    }
}

fn start_log(args: &Args) -> Result<()> {
    let filter = EnvFilter::try_new(&args.log)
        .with_context(|| format!("--log {:?} is no filter", args.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => log
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

fn read_policy(args: &Args) -> Result<Policy> {
    let name = args.policy.display().to_string();
    let text = std::fs::read_to_string(&args.policy)
        .with_context(|| format!("cannot read the policy {name}"))?;
    let policy = Policy::parse(&name, &text)
        .map_err(|errors| anyhow::anyhow!("the policy is refused\n{errors}"))?;
    for warning in policy.warnings() {
        tracing::warn!(policy = name, "{}", warning.message);
    }
    Ok(policy)
}

/// How long a data-path thread polls if nobody says.
fn idle() -> Duration {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        1 => Duration::ZERO,
        _ => DataPathConfig::default().idle,
    }
}

fn data_path(args: &Args) -> Result<DataPathConfig> {
    let cpus = match (&args.cpus, args.numa_node) {
        (Some(list), _) => cpus::parse(list).context("--cpus")?,
        (None, Some(node)) => cpus::of_node(node).context("--numa-node")?,
        (None, None) => Vec::new(),
    };
    if args.threads == 0 || args.threads > 256 {
        bail!("--threads: expected 1 to 256");
    }
    Ok(DataPathConfig {
        threads: args.threads,
        cpus,
        idle: args.idle_us.map_or_else(idle, Duration::from_micros),
        yield_after: args.yield_after.max(1),
    })
}

fn watch_signals(signals: SigSet, server: ServerHandle) -> Result<()> {
    let watch = move || {
        while let Ok(signal) = signals.wait() {
            match signal {
                Signal::SIGHUP => server.reload(),
                _ => server.shutdown(),
            }
        }
    };
    std::thread::Builder::new()
        .name("masq-signals".into())
        .spawn(watch)
        .context("start a thread")?;
    Ok(())
}
