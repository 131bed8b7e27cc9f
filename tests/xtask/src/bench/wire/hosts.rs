//! Two hosts: namespaces with a masqd in each.

use super::cpu::{Cpu, Meter};
use anyhow::{Context as _, bail};
use masq_e2e::{Binaries, Finished, HostsConfig, Joined, Namespace, spawn, wait_for_listener_in};
use std::process::Command;
use std::time::Duration;

const LISTENS: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(120);
/// A program with nobody else on its core.
const CORES: [&str; 2] = ["0", "1"];

/// How masqd receives packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Udp,
    Raw,
}

impl Port {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Raw => "raw",
        }
    }
}

/// Who serves is the first of the two.
#[derive(Clone, Copy, Debug)]
enum Side {
    Server,
    Client,
}

const ENDPOINTS: [&str; 2] = ["blue/a", "blue/b"];

/// Both hosts; they end with it.
pub(crate) struct Hosts {
    hosts: masq_e2e::Hosts,
}

/// How a run of two programs ended: the client's words, and what both cost.
pub(crate) struct Run {
    pub(crate) client: Finished,
    pub(crate) cpu: Cpu,
}

impl Hosts {
    /// Joined by one veth pair.
    pub(crate) fn joined(binaries: &Binaries, port: Port, mtu: u32) -> anyhow::Result<Self> {
        Self::start(binaries, port, mtu, Joined::Cable)
    }

    /// Joined by a bridge that can lose packets. What leaves the hosts is cut into packets
    /// before, so that one loss is one packet's and not that of 60 KB in one piece.
    pub(crate) fn over_bridge(binaries: &Binaries, port: Port, mtu: u32) -> anyhow::Result<Self> {
        let both = Self::start(binaries, port, mtu, Joined::Bridge)?;
        for side in [Side::Server, Side::Client] {
            both.namespace(side)
                .shell("ip link set eth0 gso_max_segs 1")?;
        }
        Ok(both)
    }

    fn start(binaries: &Binaries, port: Port, mtu: u32, joined: Joined) -> anyhow::Result<Self> {
        let config = HostsConfig::default().binaries(binaries).joined(joined);
        let args = ["--port", port.name(), "--log", "warn"];
        let hosts = config.mtu(mtu).args(&args).start()?;
        Ok(Self { hosts })
    }

    /// Of a thousand packets of this kind, the bridge loses so many, each way.
    pub(crate) fn lose(&self, per_mille: u32, which: &[&str]) -> anyhow::Result<()> {
        let middle = self.hosts.bridge()?.namespace();
        let rules = which
            .iter()
            .map(|which| format!("        {which} numgen random mod 1000 < {per_mille} drop\n"));
        let chain = "type filter hook forward priority 0; policy accept;";
        // Made first, so that it can be deleted.
        middle.shell(&format!(
            "nft -f - <<'END'
table bridge lossy
delete table bridge lossy
table bridge lossy {{
    chain forward {{
        {chain}
{}    }}
}}
END",
            rules.collect::<String>()
        ))?;
        Ok(())
    }

    fn namespace(&self, side: Side) -> &Namespace {
        self.hosts.namespace(side as usize)
    }

    fn server(&self) -> String {
        self.hosts.address(Side::Server as usize).to_string()
    }

    /// A program of RDMA as the side's endpoint.
    fn as_endpoint(&self, side: Side, words: &[&str]) -> anyhow::Result<Command> {
        let host = self.hosts.at(side as usize);
        let (program, args) = words.split_first().context("no program")?;
        let mut command = host.command(ENDPOINTS[side as usize], program);
        command.args(args);
        Ok(command)
    }

    /// perftest between the hosts.
    pub(crate) fn perftest(&self, words: &[&str]) -> anyhow::Result<Run> {
        const PERFTEST: u16 = 18515;
        let server = self.as_endpoint(Side::Server, words)?;
        let address = self.server();
        let words = [words, &[address.as_str()]].concat();
        let client = self.as_endpoint(Side::Client, &words)?;
        let masqds = [self.hosts.alpha(), self.hosts.beta()];
        let pids = masqds.map(|host| host.pid()).to_vec();
        self.run(pids, server, client, Ready::Listens(PERFTEST))
            .with_context(|| {
                let logs = masqds.map(|host| host.log());
                format!("masqds:\n{}", logs.join("\n"))
            })
    }

    /// Programs of TCP or UDP between the hosts, each with a core of its own, where they do
    /// best. `{server}` is the server's address.
    pub(crate) fn plain(&self, server: &str, client: &str, ready: Ready) -> anyhow::Result<Run> {
        let pinned = |side: Side, line: &str| {
            let line = line.replace("{server}", &self.server());
            let mut command = Command::new("taskset");
            command.args(["-c", CORES[side as usize]]);
            command.args(line.split(' '));
            command
        };
        self.run(
            Vec::new(),
            pinned(Side::Server, server),
            pinned(Side::Client, client),
            ready,
        )
    }

    fn run(
        &self,
        masqds: Vec<u32>,
        server: Command,
        client: Command,
        ready: Ready,
    ) -> anyhow::Result<Run> {
        let meter = Meter::start(masqds)?;
        let there = self.namespace(Side::Server);
        let mut server = there.inside(|| spawn(server))?;
        match ready {
            Ready::Listens(port) => {
                wait_for_listener_in(&there.tables(), port, LISTENS, || server.is_running())
                    .with_context(|| format!("server:\n{}", server.output()))?;
            }
            Ready::After(time) => std::thread::sleep(time),
        }
        let client = self
            .namespace(Side::Client)
            .inside(|| spawn(client))?
            .wait(LIMIT)
            .with_context(|| format!("server:\n{}", server.output()))?;
        if !client.status.success() {
            std::thread::sleep(Duration::from_millis(300));
            bail!("client {client}server:\n{}", server.output());
        }
        match ready {
            Ready::Listens(_) => drop(server.wait(LIMIT)?.success()?),
            Ready::After(_) => {
                server.signal(rustix::process::Signal::INT);
                server.wait(LIMIT)?;
            }
        }
        let cpu = meter.used()?;
        Ok(Run { client, cpu })
    }
}

/// How to see that a server waits for its client.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ready {
    /// It listens on this TCP port, and ends with its client.
    Listens(u16),
    /// Some time has passed; it stays, and is told to end.
    After(Duration),
}
