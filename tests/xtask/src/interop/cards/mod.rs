//! `cargo xtask interop --cards`: two guests as two hosts, each with a masqd that programs
//! its kernel's RDMA device, and tenants' programs inside.

mod cases;
pub(crate) mod host;
mod pairs;
mod plain;
mod policy;
mod python;
mod two;

use super::{Outcome, keep};
use crate::conformance;
use crate::progress::{heading, say, step};
use anyhow::Context as _;
use cases::{CASES, Case};
use clap::ValueEnum;
use host::{CardHost, Objects};
use masq_e2e::{Binaries, compile};
use masq_guest::{Driver, Kit, Wire};
use pairs::{PAIRS, Pair};
use policy::{HOSTS, PLAIN};
use std::fs;
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;

/// What masqd programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Card {
    /// Nothing of the kernel: its own soft device, to prove guests and scenarios.
    Soft,
    /// The kernel's soft RoCE.
    Rxe,
    /// The kernel's soft iWARP.
    Siw,
}

/// What a scenario needs of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Objects, but no peer.
    Nothing,
    /// Connected queue pairs whose programs exchange their numbers themselves.
    Rc,
    /// The same by a program that does so on InfiniBand only: towards an RNIC perftest's
    /// `ib_send_bw` counts receives in memory that it forgets when it ends.
    RcOfInfiniBand,
    Uc,
    Ud,
    Atomics,
    /// Connections by rdma_cm.
    Cm,
    /// A device of the kernel.
    Card,
    /// Connections by rdma_cm with a host that runs no masqd.
    PlainCm,
    /// The same, and that host names memory of this one.
    Plain,
    /// The same by datagrams.
    PlainUd,
}

impl Card {
    pub(crate) fn driver(self) -> Driver {
        match self {
            Self::Soft => Driver::Bare,
            Self::Rxe => Driver::Rxe,
            Self::Siw => Driver::Siw,
        }
    }

    /// What masqd is started with.
    fn options(self) -> String {
        let device = self.driver().device(0);
        device.map_or_else(String::new, |device| format!("--device verbs:{device}"))
    }

    fn is_kernels(self) -> bool {
        self != Self::Soft
    }

    pub(crate) fn has(self, needs: Needs) -> bool {
        match (self, needs) {
            (_, Needs::Nothing | Needs::Cm) => true,
            (_, Needs::PlainCm) => true,
            // The kernel's and masq's own RoCE meet as well. Over siw memory has another
            // address than its program says, which a plain host does not know.
            (card, Needs::Plain | Needs::PlainUd) => card != Self::Siw,
            (Self::Soft, needs) => needs != Needs::Card,
            (Self::Rxe, _) | (Self::Siw, Needs::Card | Needs::Rc) => true,
            // iWARP is RC without atomics.
            (Self::Siw, Needs::Uc | Needs::Ud | Needs::Atomics | Needs::RcOfInfiniBand) => false,
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Soft => "the soft device",
            Self::Rxe => "rdma_rxe",
            Self::Siw => "siw",
        }
    }
}

/// Either sort of scenario.
#[derive(Clone, Copy)]
pub(super) enum Scenario {
    Pair(&'static Pair),
    Case(&'static Case),
}

impl Scenario {
    pub(super) fn all() -> Vec<Self> {
        let pairs = PAIRS.iter().map(Self::Pair);
        pairs.chain(CASES.iter().map(Self::Case)).collect()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pair(pair) => pair.name,
            Self::Case(case) => case.name,
        }
    }

    fn needs(self) -> Needs {
        match self {
            Self::Pair(pair) => pair.needs,
            Self::Case(case) => case.needs,
        }
    }

    fn run(self, cards: &Cards) -> anyhow::Result<()> {
        match self {
            Self::Pair(pair) => pair.run(cards),
            Self::Case(case) => (case.run)(cards),
        }
    }
}

/// The most telling ones: each sort of verb and of peer, and what ends a connection.
pub(super) const SHORT: &[&str] = &[
    "ibv_rc_pingpong",
    "ibv_uc_pingpong",
    "ibv_ud_pingpong",
    "ibv_srq_pingpong",
    "ib_send_bw",
    "ib_send_lat",
    "ib_write_bw",
    "ib_read_bw",
    "ib_atomic_lat",
    "near-ibv_rc_pingpong",
    "rping",
    "udaddy",
    "rstream",
    "plain-ucmatose",
    "to-plain-ucmatose",
    "plain-ibv_rc_pingpong",
    "same-addresses",
    "refused-connection",
    "rule-change-cuts",
    "quotas",
    "client-killed",
    "masqd-killed",
    "link-deleted",
    "two-devices",
];

/// Two hosts.
#[derive(Debug)]
pub(crate) struct Cards {
    pub(crate) card: Card,
    pub(crate) alpha: CardHost,
    pub(crate) beta: CardHost,
    /// What alpha's card held before there was a masqd.
    without_masqd: Option<Objects>,
    /// A host without masqd, once it is needed.
    plain: Option<CardHost>,
    wire: Wire,
    share: TempDir,
}

impl Cards {
    /// Boots both guests and starts both masqd. `beside` a soft device there is also a
    /// card of the kernel, to compare with.
    pub(crate) fn start(
        kit: &Kit,
        binaries: &Binaries,
        card: Card,
        mtu: u32,
        beside: bool,
    ) -> anyhow::Result<Self> {
        let share = share(binaries)?;
        let wire = Wire::new(mtu)?;
        let boot = |host| CardHost::boot(kit, &wire, card, host, share.path(), beside);
        let [alpha, beta] = HOSTS;
        let (alpha, beta) = (boot(alpha)?, boot(beta)?);
        let without_masqd = match card.is_kernels() {
            true => Some(alpha.objects()?),
            false => None,
        };
        alpha.start_masqd()?;
        beta.start_masqd()?;
        Ok(Self {
            card,
            alpha,
            beta,
            without_masqd,
            plain: None,
            wire,
            share,
        })
    }

    /// Boots a third host, which runs no masqd; with the kernel's card in any case.
    fn boot_plain(&mut self, kit: &Kit) -> anyhow::Result<()> {
        let card = match self.card {
            Card::Soft => Card::Rxe,
            card => card,
        };
        let plain = CardHost::boot(kit, &self.wire, card, PLAIN, self.share.path(), false)?;
        self.plain = Some(plain);
        Ok(())
    }

    fn plain(&self) -> anyhow::Result<&CardHost> {
        self.plain.as_ref().context("there is no plain host")
    }

    fn logs(&self) -> String {
        let of = |host: &CardHost| {
            format!(
                "{}'s masqd:\n{}\nits kernel:\n{}\n",
                host.address(),
                host.log(),
                host.console()
            )
        };
        of(&self.alpha) + &of(&self.beta)
    }
}

/// What guests see: masq, the policy, test programs.
fn share(binaries: &Binaries) -> anyhow::Result<TempDir> {
    let share = tempfile::tempdir()?;
    let dir = share.path();
    for file in [binaries.masqd(), binaries.masq(), binaries.library()] {
        let name = file.file_name().context("a program without a name")?;
        fs::copy(&file, dir.join(name))?;
    }
    fs::write(dir.join("policy.yaml"), policy::whole())?;
    fs::write(dir.join("guest.sh"), include_str!("guest.sh"))?;
    for program in ["refusals", "control_each"] {
        compile(program, dir)?;
    }
    let tests = conformance::unpack(Path::new(conformance::PACKAGED))?.join("tests");
    let to = dir.join(python::DIR).join("tests");
    fs::create_dir_all(&to)?;
    for entry in fs::read_dir(tests)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(share)
}

/// Runs what the card can do; what it cannot is left out and said.
pub(super) fn run(
    kit: &Kit,
    binaries: &Binaries,
    card: Card,
    mtu: u32,
    scenarios: &[Scenario],
    results: &mut Vec<Outcome>,
) -> anyhow::Result<()> {
    let title = format!("masq over {}", card.title());
    heading(&format!("{title}, two hosts by {}", kit.kind()));
    let (fitting, rest): (Vec<Scenario>, Vec<Scenario>) =
        scenarios.iter().copied().partition(|s| card.has(s.needs()));
    if !rest.is_empty() {
        let names: Vec<_> = rest.iter().map(|s| s.name()).collect();
        say(&format!("  not of this device: {}", names.join(", ")));
    }
    let starting = step("two guests, a masqd in each");
    let mut cards = Cards::start(kit, binaries, card, mtu, false)?;
    let meets_plain =
        |s: &Scenario| matches!(s.needs(), Needs::Plain | Needs::PlainCm | Needs::PlainUd);
    if fitting.iter().any(meets_plain) {
        cards.boot_plain(kit)?;
    }
    starting.done("");
    for scenario in fitting {
        let running = step(scenario.name());
        let since = Instant::now();
        let failure = match scenario.run(&cards) {
            Ok(()) => {
                running.done("");
                None
            }
            Err(error) => {
                drop(running);
                let text = format!("{error:#}\n\n{}", cards.logs());
                for host in [&cards.alpha, &cards.beta] {
                    host.revive(&policy::whole())?;
                }
                let name = format!("{}-{:?}-{:?}", scenario.name(), card, kit.kind());
                Some(keep(&name, &text)?)
            }
        };
        results.push(Outcome {
            name: scenario.name(),
            sides: title.clone(),
            kind: kit.kind(),
            took: since.elapsed(),
            failure,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scenario_of_the_short_list_exists() {
        let all: Vec<_> = Scenario::all().iter().map(|s| s.name()).collect();
        for name in SHORT {
            assert!(all.contains(name), "{name}");
        }
    }
}
