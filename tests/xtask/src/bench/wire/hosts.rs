//! Two hosts: namespaces with a masqd in each.

use super::cpu::{Cpu, Meter};
use anyhow::{Context as _, bail};
use masq_e2e::{Binaries, Finished, Host, spawn, wait_for_listener_in};
use masq_guest::{Namespace, Wire};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const LISTENS: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(120);
/// A program with nobody else on its core.
const CORES: [&str; 2] = ["0", "1"];

const POLICY: &str = "
version: 1
hosts:
  alpha: { address: 192.0.2.1 }
  beta: { address: 192.0.2.2 }
tenants:
  blue:
    endpoints:
      a: { address: 10.0.0.1, host: alpha }
      b: { address: 10.0.0.2, host: beta }
    rules:
      - { from: a, to: b, both_ways: true, action: allow }
";

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

const SERVER: &str = "192.0.2.1";
const ADDRESSES: [&str; 2] = ["192.0.2.1/24", "192.0.2.2/24"];
const ENDPOINTS: [(&str, &str); 2] = [("alpha", "blue/a"), ("beta", "blue/b")];

/// Both hosts; they end with it.
pub(crate) struct Hosts {
    masqds: Vec<Host>,
    namespaces: Vec<Namespace>,
    middle: Option<Wire>,
}

/// How a run of two programs ended: the client's words, and what both cost.
pub(crate) struct Run {
    pub(crate) client: Finished,
    pub(crate) cpu: Cpu,
}

impl Hosts {
    /// Joined by one veth pair.
    pub(crate) fn joined(binaries: &Binaries, port: Port, mtu: u32) -> anyhow::Result<Self> {
        let namespaces = vec![Namespace::new()?, Namespace::new()?];
        let [first, second] = namespaces.as_slice() else {
            bail!("not two namespaces");
        };
        first.shell(&format!(
            "ip link add eth0 mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}",
            second.pid()
        ))?;
        for (namespace, address) in namespaces.iter().zip(ADDRESSES) {
            namespace.shell(&format!(
                "ip address add {address} dev eth0\nip link set eth0 up"
            ))?;
        }
        Self::launch(binaries, port, namespaces, None)
    }

    /// Joined by a bridge that can lose packets. What leaves the hosts is cut into packets
    /// before, so that one loss is one packet's and not that of 60 KB in one piece.
    pub(crate) fn over_bridge(binaries: &Binaries, port: Port, mtu: u32) -> anyhow::Result<Self> {
        let wire = Wire::new(mtu)?;
        let mut namespaces = Vec::new();
        for address in ADDRESSES {
            let namespace = wire.host(&[address.parse()?])?;
            namespace.shell("ip link set eth0 gso_max_segs 1")?;
            namespaces.push(namespace);
        }
        Self::launch(binaries, port, namespaces, Some(wire))
    }

    fn launch(
        binaries: &Binaries,
        port: Port,
        namespaces: Vec<Namespace>,
        middle: Option<Wire>,
    ) -> anyhow::Result<Self> {
        let mut masqds = Vec::new();
        for (namespace, (name, _)) in namespaces.iter().zip(ENDPOINTS) {
            let args = ["--host", name, "--port", port.name(), "--log", "warn"];
            let binaries = binaries.clone();
            masqds.push(namespace.inside(|| Host::launch(binaries, POLICY, &args))?);
        }
        Ok(Self {
            masqds,
            namespaces,
            middle,
        })
    }

    /// Of a thousand packets of this kind, the bridge loses so many, each way.
    pub(crate) fn lose(&self, per_mille: u32, which: &[&str]) -> anyhow::Result<()> {
        let middle = self.middle.as_ref().context("no bridge")?.namespace();
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

    fn namespace(&self, side: Side) -> anyhow::Result<&Namespace> {
        let found = self.namespaces.get(side as usize);
        found.context("no such host")
    }

    /// A program of RDMA as the side's endpoint.
    fn as_endpoint(&self, side: Side, words: &[&str]) -> anyhow::Result<Command> {
        let host = self.masqds.get(side as usize).context("no such host")?;
        let (program, args) = words.split_first().context("no program")?;
        let (_, endpoint) = ENDPOINTS[side as usize];
        let mut command = host.command(endpoint, program);
        command.args(args);
        Ok(command)
    }

    /// perftest between the hosts.
    pub(crate) fn perftest(&self, words: &[&str]) -> anyhow::Result<Run> {
        const PERFTEST: u16 = 18515;
        let server = self.as_endpoint(Side::Server, words)?;
        let words = [words, &[SERVER]].concat();
        let client = self.as_endpoint(Side::Client, &words)?;
        let masqds = self.masqds.iter().map(Host::pid).collect();
        self.run(masqds, server, client, Ready::Listens(PERFTEST))
            .with_context(|| {
                let logs: Vec<_> = self.masqds.iter().map(Host::log).collect();
                format!("masqds:\n{}", logs.join("\n"))
            })
    }

    /// Programs of TCP or UDP between the hosts, each with a core of its own, where they do
    /// best. `{server}` is the server's address.
    pub(crate) fn plain(&self, server: &str, client: &str, ready: Ready) -> anyhow::Result<Run> {
        let pinned = |side: Side, line: &str| {
            let line = line.replace("{server}", SERVER);
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
        let there = self.namespace(Side::Server)?;
        let mut server = there.inside(|| spawn(server))?;
        match ready {
            Ready::Listens(port) => {
                let net = PathBuf::from(format!("/proc/{}/net", there.pid()));
                wait_for_listener_in(&net, port, LISTENS, || server.is_running())
                    .with_context(|| format!("server:\n{}", server.output()))?;
            }
            Ready::After(time) => std::thread::sleep(time),
        }
        let client = self
            .namespace(Side::Client)?
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
