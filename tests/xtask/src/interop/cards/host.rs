//! A guest as a host: its kernel's card, a masqd, and programs of tenants.

use super::Card;
use crate::interop::scenarios::Ready;
use crate::interop::station::wait_in_guest;
use anyhow::{Context as _, bail, ensure};
use masq_admin::{EndpointReport, SessionDetail, SessionReport};
use masq_guest::{Driver, GidIndex, Guest, GuestConfig, Job, Kit, Output, SHARE, Wire};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// For what takes a moment, with room for a loaded machine.
const SOON: Duration = Duration::from_secs(30);
/// The same for what this machine asks again and again, of guests by QEMU too.
pub(super) const LATE: Duration = Duration::from_secs(90);
/// A masqd and some programs.
const MEMORY_MIB: u32 = 1024;
const SCRIPT: &str = "guest.sh";

/// What a kernel holds for user space, by the names of `rdma resource`.
pub(crate) type Objects = BTreeMap<String, u64>;

/// One host.
#[derive(Debug)]
pub(crate) struct CardHost {
    guest: Guest,
    card: Card,
    name: &'static str,
    address: &'static str,
    bare: Bare,
}

/// The kernel's card itself, without masq.
#[derive(Debug)]
struct Bare {
    interface: usize,
    device: Option<String>,
    address: String,
}

/// What `masq show ENDPOINT` says.
#[derive(Debug, Deserialize)]
pub(crate) struct Shown {
    pub(crate) sessions: Vec<SessionDetail>,
    pub(crate) endpoint: EndpointReport,
}

impl CardHost {
    /// Boots it; masqd is not started yet. `beside` a soft device there is a card of the
    /// kernel on an interface of its own, to compare with.
    pub(super) fn boot(
        kit: &Kit,
        wire: &Wire,
        card: Card,
        (name, address): (&'static str, &'static str),
        share: &Path,
        beside: bool,
    ) -> anyhow::Result<Self> {
        let mut config =
            GuestConfig::on(wire, format!("{address}/24").parse()?)?.driver(card.driver());
        let mut bare = Bare {
            interface: 0,
            device: card.driver().device(0),
            address: address.to_owned(),
        };
        if beside && !card.is_kernels() {
            bare = Bare {
                interface: 1,
                device: Driver::Rxe.device(1),
                address: address.replacen("10.77", "10.78", 1),
            };
            let second = GuestConfig::on(wire, format!("{}/24", bare.address).parse()?)?;
            config.interfaces.extend(second.interfaces);
        }
        config.memory_mib = MEMORY_MIB;
        config.share = Some(share.to_owned());
        let host = Self {
            guest: Guest::boot(kit, &config)?,
            card,
            name,
            address,
            bare,
        };
        if !card.is_kernels() {
            let script = format!("set -e\n. {SHARE}/{SCRIPT}\nnamespace_of_e0 {address}/24");
            host.guest.run(&script, SOON)?.success()?;
        }
        Ok(host)
    }

    /// Its address between hosts.
    pub(crate) fn address(&self) -> &'static str {
        self.address
    }

    /// The kernel's name of its card.
    pub(crate) fn device(&self) -> anyhow::Result<String> {
        let device = self.card.driver().device(0);
        device.context("the soft device is none of the kernel's")
    }

    /// Runs a script of shell functions to its end; what it printed.
    pub(crate) fn run(&self, line: &str) -> anyhow::Result<String> {
        Ok(self.output(line, SOON)?.success()?.stdout)
    }

    /// The same, however it ends.
    pub(crate) fn output(&self, line: &str, limit: Duration) -> anyhow::Result<Output> {
        self.guest.run(&self.script(line), limit)
    }

    fn script(&self, line: &str) -> String {
        let options = self.card.options();
        let script = format!(
            "host={} options='{options}'\n. {SHARE}/{SCRIPT}\n{line}\n",
            self.name
        );
        match self.card.is_kernels() {
            true => script,
            false => format!(
                "exec nsenter --net=/run/netns/host sh -c \"$(cat <<'SCRIPT'\n{script}SCRIPT\n)\""
            ),
        }
    }

    /// Starts masqd and waits until it answers.
    pub(crate) fn start_masqd(&self) -> anyhow::Result<()> {
        self.run("start_masqd").map(drop)
    }

    /// Ends masqd by a signal, waits until it is gone.
    pub(crate) fn end_masqd(&self, signal: &str) -> anyhow::Result<()> {
        self.run(&format!("end_masqd {signal}")).map(drop)
    }

    /// Starts a second masqd with this device, which must refuse; what it said.
    pub(crate) fn refused_start(&self, device: &str) -> anyhow::Result<String> {
        let line = format!("refused_start {device}");
        let out = self.output(&line, SOON)?;
        ensure!(out.status == 0, "masqd started with {device}: {out}");
        Ok(out.stdout)
    }

    /// Makes its card again, and waits until it works.
    pub(crate) fn add_device(&self) -> anyhow::Result<()> {
        let (kind, device) = (self.card.driver(), self.device()?);
        self.run(&format!("rdma link add {device} type {kind} netdev e0"))?;
        self.wait_for_device()
    }

    /// Waits until its card's port is up.
    pub(crate) fn wait_for_device(&self) -> anyhow::Result<()> {
        self.wait_for(&self.device()?)
    }

    /// The same for any device of its kernel.
    pub(super) fn wait_for(&self, device: &str) -> anyhow::Result<()> {
        self.run(&format!(
            "for i in $(seq 200); do\n\
             rdma link show {device}/1 | grep -q 'state ACTIVE' && sleep 0.5 && exit 0\n\
             sleep 0.05\ndone\nexit 1"
        ))
        .map(drop)
    }

    pub(crate) fn masqd_runs(&self) -> anyhow::Result<bool> {
        Ok(self.output("masqd_runs", SOON)?.status == 0)
    }

    /// What masqd said since the guest booted.
    pub(crate) fn log(&self) -> String {
        self.run("tail -n 300 /run/masqd.log")
            .unwrap_or_else(|error| format!("(it is lost: {error:#})"))
    }

    /// What its kernel printed.
    pub(crate) fn console(&self) -> String {
        self.guest.console()
    }

    /// Starts a program as an endpoint, split as a shell does.
    pub(crate) fn start(&self, endpoint: &str, line: &str) -> anyhow::Result<Job<'_>> {
        self.guest
            .spawn(&self.script(&format!("as {endpoint} {line}")))
    }

    /// The address of the card that programs use without masq.
    pub(crate) fn bare_address(&self) -> &str {
        &self.bare.address
    }

    /// That card's name.
    pub(crate) fn bare_device(&self) -> anyhow::Result<&str> {
        self.bare.device.as_deref().context("no card of the kernel")
    }

    /// The place of its RoCEv2 GID; none of iWARP.
    pub(crate) fn bare_gid(&self) -> anyhow::Result<GidIndex> {
        let gids = self.guest.gids(self.bare.interface);
        gids.context("no interface")?.of(self.bare.address.parse()?)
    }

    /// Runs a script without masq to its end; what it printed.
    pub(crate) fn run_bare(&self, script: &str) -> anyhow::Result<String> {
        Ok(self.guest.run(script, SOON)?.success()?.stdout)
    }

    /// Starts a program without masq.
    pub(crate) fn start_bare(&self, line: &str) -> anyhow::Result<Job<'_>> {
        self.guest.spawn(&format!("exec {line}"))
    }

    /// Starts a server without masq and waits until it waits for its client.
    pub(crate) fn serve_bare(&self, line: &str, ready: Ready) -> anyhow::Result<Job<'_>> {
        let job = self.start_bare(line)?;
        wait_in_guest(&self.guest, ready).with_context(|| {
            let (out, err) = job.output().unwrap_or_default();
            format!("{line}:\n{out}{err}")
        })?;
        Ok(job)
    }

    /// Starts a server and waits until it waits for its client.
    pub(crate) fn serve(
        &self,
        endpoint: &str,
        line: &str,
        ready: Ready,
    ) -> anyhow::Result<Job<'_>> {
        let job = self.start(endpoint, line)?;
        let condition = match ready {
            Ready::Tcp(port) => {
                format!("grep -q ':{port:04X} [0-9A-F]*:0000 0A ' /proc/net/tcp /proc/net/tcp6")
            }
            Ready::Cm => format!("masq --json show {endpoint} | grep -q '\"listening\"'"),
        };
        let wait =
            format!("for i in $(seq 200); do {condition} && exit 0; sleep 0.05; done\nexit 1");
        let waiting = self.guest.spawn(&self.script(&wait))?;
        while waiting.is_running() && job.is_running() {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !job.is_running() || waiting.wait(SOON)?.status != 0 {
            let (out, err) = job.output()?;
            bail!("the server {line} does not wait for a client:\n{out}{err}");
        }
        Ok(job)
    }

    /// Makes up for what a failed case left: a card that is gone, a masqd that has ended, a
    /// policy with a rule less.
    pub(super) fn revive(&self, policy: &str) -> anyhow::Result<()> {
        self.guest.run("ip link set e0 up 2>/dev/null", SOON)?;
        if self.card.is_kernels() && self.objects().is_err() {
            // A masqd that holds on to it would keep its name.
            if self.masqd_runs()? {
                self.end_masqd("KILL")?;
            }
            self.add_device()?;
        }
        if !self.masqd_runs()? {
            self.start_masqd()?;
        }
        self.reload(policy).map(drop)
    }

    /// All sessions.
    pub(crate) fn sessions(&self) -> anyhow::Result<Vec<SessionReport>> {
        let text = self.run("masq --json ps")?;
        serde_json::from_str(&text).with_context(|| format!("masq ps said {text}"))
    }

    /// An endpoint and its sessions.
    pub(crate) fn show(&self, endpoint: &str) -> anyhow::Result<Shown> {
        let text = self.run(&format!("masq --json show {endpoint}"))?;
        serde_json::from_str(&text).with_context(|| format!("masq show said {text}"))
    }

    /// Puts a policy into force; what `masq reload` said.
    pub(crate) fn reload(&self, policy: &str) -> anyhow::Result<String> {
        self.run(&format!("{}\nmasq reload", writing(policy)))
    }

    /// The same for a masqd that is still to be started.
    pub(super) fn write_policy(&self, policy: &str) -> anyhow::Result<()> {
        self.run(&writing(policy)).map(drop)
    }

    /// What the kernel's card holds, its own objects included.
    pub(crate) fn objects(&self) -> anyhow::Result<Objects> {
        let device = self.device()?;
        let text = self.run(&format!("rdma resource show {device}"))?;
        let objects = objects(&text);
        ensure!(!objects.is_empty(), "rdma resource show said {text}");
        Ok(objects)
    }

    /// Waits until no session is left and the card holds no more than it did at rest.
    pub(crate) fn wait_until_at_rest(&self, at_rest: Option<&Objects>) -> anyhow::Result<()> {
        let left = wait_until(LATE, || {
            let sessions = self.sessions()?;
            if !sessions.is_empty() {
                return Ok(Some(format!("{sessions:?}")));
            }
            let Some(at_rest) = at_rest else {
                return Ok(None);
            };
            Ok(beyond(&self.objects()?, at_rest))
        })?;
        match left {
            None => Ok(()),
            Some(left) => bail!(
                "{} does not forget {left}\n{}",
                self.name,
                self.run("rdma resource show qp; rdma resource show mr; rdma resource show cq")
                    .unwrap_or_default()
            ),
        }
    }
}

fn writing(policy: &str) -> String {
    format!("cat >/run/policy.yaml <<'END'\n{policy}END")
}

/// Asks until there is nothing to complain of; the last complaint.
pub(crate) fn wait_until(
    limit: Duration,
    complaint: impl Fn() -> anyhow::Result<Option<String>>,
) -> anyhow::Result<Option<String>> {
    let end = Instant::now() + limit;
    loop {
        let complaint = complaint()?;
        if complaint.is_none() || Instant::now() > end {
            return Ok(complaint);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Reads `0: rxe0: pd 1 cq 1 qp 1 …`.
fn objects(text: &str) -> Objects {
    let words: Vec<_> = text.split_ascii_whitespace().skip(2).collect();
    let pairs = words.chunks_exact(2).filter_map(|pair| match pair {
        [name, count] => Some(((*name).to_owned(), count.parse().ok()?)),
        _ => None,
    });
    pairs.collect()
}

/// What there is more of than at rest.
fn beyond(now: &Objects, at_rest: &Objects) -> Option<String> {
    let more = now.iter().filter_map(|(name, count)| {
        let before = at_rest.get(name).copied().unwrap_or_default();
        (*count > before).then(|| format!("{} {name}", count - before))
    });
    let more: Vec<_> = more.collect();
    (!more.is_empty()).then(|| more.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_beyond_those_at_rest_are_named() {
        let at_rest = objects("0: rxe0: pd 2 cq 1 qp 1 cm_id 0 mr 0 ctx 1 srq 0 \n");
        assert_eq!(at_rest.len(), 7);
        assert_eq!(beyond(&at_rest, &at_rest), None);
        let now = objects("0: rxe0: pd 2 cq 3 qp 2 cm_id 0 mr 0 ctx 1 srq 0 \n");
        assert_eq!(beyond(&now, &at_rest).unwrap(), "2 cq, 1 qp");
        // Less than at rest is no leak.
        assert_eq!(beyond(&objects("0: rxe0: pd 1"), &at_rest), None);
    }
}
