//! One side of a scenario: a guest, or a masqd in a namespace.

use super::scenarios::{Blanks, Ready};
use anyhow::{Context as _, bail};
use ipnet::IpNet;
use masq_e2e::{
    Binaries, Host, Running, listeners, spawn, wait_for_listener_in, wait_for_listeners,
};
use masq_guest::{Guest, GuestConfig, Job, Kit, Namespace, Wire};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

const LISTENS: Duration = Duration::from_secs(20);
/// The endpoint as which masq's side runs.
const ENDPOINT: &str = "blue/a";
const GID_INDEX: &str = "3";
const POLICY: &str = "
version: 1
hosts: { here: { address: HOST } }
tenants:
  blue:
    # The partition of hosts that know of none.
    pkey: 0xffff
    endpoints:
      a: { address: HOST, host: here }
      peer: { outside: PEER }
    rules:
      - name: peer
        from: a
        to: peer
        both_ways: true
        qp_types: [RC, UC, UD]
        service: [verbs, rdma_cm]
        action: allow
";

pub(crate) enum Station {
    Rxe(Box<Guest>),
    Masq(Box<Masq>),
}

/// masqd in a namespace at the wire.
pub(crate) struct Masq {
    host: Host,
    namespace: Namespace,
    address: IpAddr,
}

impl Station {
    pub(crate) fn rxe(kit: &Kit, wire: &Wire, number: u8) -> anyhow::Result<Self> {
        let config = GuestConfig::with_addresses(wire, addresses_of(number)?)?;
        Ok(Self::Rxe(Box::new(Guest::boot(kit, &config)?)))
    }

    /// Its endpoint has the host's address: programs tell their peers which address they
    /// have, and a plain host has no way to another one. The peer is `number` `other`.
    pub(crate) fn masq(
        binaries: Binaries,
        wire: &Wire,
        number: u8,
        other: u8,
    ) -> anyhow::Result<Self> {
        let addresses = addresses_of(number)?;
        let address = addresses.first().context("no address")?.addr();
        let namespace = wire.host(&addresses)?;
        let peers = addresses_of(other)?;
        let peer = peers.first().context("no address")?.addr();
        let policy = POLICY
            .replace("HOST", &address.to_string())
            .replace("PEER", &peer.to_string());
        let host = namespace.inside(|| Host::launch(binaries, &policy, &["--host", "here"]))?;
        Ok(Self::Masq(Box::new(Masq {
            host,
            namespace,
            address,
        })))
    }

    pub(crate) fn address(&self) -> anyhow::Result<IpAddr> {
        match self {
            Self::Rxe(guest) => guest.address().context("the guest has no address"),
            Self::Masq(masq) => Ok(masq.address),
        }
    }

    pub(crate) fn blanks(&self, server: &Self) -> anyhow::Result<Blanks> {
        let own = self.address()?;
        let gid = match self {
            Self::Rxe(guest) => guest.gid_index(own)?.to_string(),
            Self::Masq(_) => GID_INDEX.to_owned(),
        };
        let server = server.address()?.to_string();
        Ok(Blanks {
            gid,
            cm: server.clone(),
            server,
            own: own.to_string(),
        })
    }

    /// Starts a command line, split at blanks.
    pub(crate) fn start(&self, line: &str) -> anyhow::Result<Program<'_>> {
        match self {
            Self::Rxe(guest) => Ok(Program::There(guest.spawn(&format!("exec {line}"))?)),
            Self::Masq(masq) => {
                let mut words = line.split_ascii_whitespace();
                let program = words.next().context("an empty command line")?;
                let mut command = masq.host.command(ENDPOINT, program);
                command.args(words);
                let running = masq.namespace.inside(|| spawn(command))?;
                Ok(Program::Here(running))
            }
        }
    }

    /// Starts a server and waits until it waits for its client.
    pub(crate) fn serve(&self, line: &str, ready: Ready) -> anyhow::Result<Program<'_>> {
        let before = match self {
            Self::Masq(masq) => listeners(&masq.host, ENDPOINT)?,
            Self::Rxe(_) => 0,
        };
        let mut program = self.start(line)?;
        let waited = match (self, &mut program) {
            (Self::Rxe(guest), _) => wait_in_guest(guest, ready),
            (Self::Masq(masq), Program::Here(running)) => match ready {
                Ready::Cm => wait_for_listeners(&masq.host, ENDPOINT, before + 1, running),
                Ready::Tcp(port) => {
                    let net = PathBuf::from(format!("/proc/{}/net", masq.namespace.pid()));
                    wait_for_listener_in(&net, port, LISTENS, || running.is_running())
                }
            },
            (Self::Masq(_), Program::There(_)) => unreachable!("masq's programs run here"),
        };
        waited.with_context(|| format!("the server {line}:\n{}", program.output()))?;
        Ok(program)
    }

    /// What its kernel or its daemon said.
    pub(crate) fn log(&self) -> String {
        match self {
            Self::Rxe(guest) => guest.console(),
            Self::Masq(masq) => masq.host.log(),
        }
    }
}

/// The first is the one that scenarios use.
fn addresses_of(number: u8) -> anyhow::Result<Vec<IpNet>> {
    let texts = [
        format!("10.77.0.{number}/24"),
        format!("fd77::{number:x}/64"),
    ];
    Ok(texts
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?)
}

pub(super) fn wait_in_guest(guest: &Guest, ready: Ready) -> anyhow::Result<()> {
    let condition = match ready {
        // A line of /proc/net/tcp whose state is LISTEN.
        Ready::Tcp(port) => {
            format!("grep -q ':{port:04X} [0-9A-F]*:0000 0A ' /proc/net/tcp /proc/net/tcp6")
        }
        // No table has such listeners: it has the device open, and some time to listen.
        Ready::Cm => {
            "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q infiniband/rdma_cm && sleep 0.5".to_owned()
        }
    };
    let wait = format!("for i in $(seq 200); do {condition} && exit 0; sleep 0.05; done; exit 1");
    guest
        .run(&wait, LISTENS * 2)?
        .success()
        .context("it does not listen")?;
    Ok(())
}

/// A running program of a side.
pub(crate) enum Program<'s> {
    There(Job<'s>),
    Here(Running),
}

/// How it ended.
pub(crate) struct Ended {
    pub(crate) success: bool,
    /// All that it said.
    pub(crate) text: String,
}

impl Program<'_> {
    pub(crate) fn output(&self) -> String {
        match self {
            Self::There(job) => job.output().map_or_else(
                |error| format!("(output is lost: {error:#})"),
                |(out, err)| out + &err,
            ),
            Self::Here(running) => running.output(),
        }
    }

    pub(crate) fn wait(self, limit: Duration) -> anyhow::Result<Ended> {
        match self {
            Self::There(job) => {
                let out = job.wait(limit)?;
                Ok(Ended {
                    success: out.status == 0,
                    text: out.to_string(),
                })
            }
            Self::Here(running) => {
                let done = running.wait(limit)?;
                Ok(Ended {
                    success: done.status.success(),
                    text: done.to_string(),
                })
            }
        }
    }

    /// For what waits although its peer failed: what it said until it was killed.
    pub(crate) fn give_up(self) -> anyhow::Result<String> {
        let text = self.output();
        match self {
            Self::There(job) => job.kill().map(drop)?,
            Self::Here(running) => drop(running),
        }
        if text.is_empty() {
            bail!("it said nothing");
        }
        Ok(text)
    }
}
