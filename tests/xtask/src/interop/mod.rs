//! `cargo xtask interop`: programs between masq and the kernel's own rdma_rxe, and over
//! cards that masq programs.

pub(crate) mod cards;
pub(crate) mod scenarios;
mod station;

use crate::progress::{heading, say, step, table};
use crate::{build, setup};
use anyhow::{Context as _, bail, ensure};
use cards::Card;
use clap::{Args, Parser};
use masq_e2e::{Binaries, spawn};
use masq_guest::{Driver, Kind, Kit, Wire};
use scenarios::{SCENARIOS, Scenario, Sides};
use station::Station;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// For each program.
const LIMIT: Duration = Duration::from_secs(60);
/// For a server whose client has ended.
const SERVER_ENDS: Duration = Duration::from_secs(15);
/// For one card's scenarios once another's have ended.
const CARDS_END: Duration = Duration::from_secs(900);

#[derive(Debug, Args)]
#[command(
    after_help = "The first run fetches and builds what guests are made of, and says what; it is \
                  kept in MASQ_CACHE_DIR, else in ~/.cache/masq.\n\nExamples:\n  \
                  sudo -E cargo xtask interop\n  \
                  cargo xtask interop --qemu --only ibv_rc_pingpong\n  \
                  cargo xtask interop --cards --card siw"
)]
pub(crate) struct InteropArgs {
    /// Guests by User-Mode Linux 6.12, quick; the default.
    #[arg(long)]
    uml: bool,
    /// Guests by QEMU's software emulation with Debian's stock kernel, slow.
    #[arg(long)]
    qemu: bool,
    /// Both kinds.
    #[arg(long, conflicts_with_all = ["uml", "qemu"])]
    both: bool,
    /// Only scenarios whose name holds this.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Which side is masq.
    #[arg(long, value_enum, default_values = ["masq-rxe", "rxe-masq"])]
    sides: Vec<Sides>,
    /// Bytes of a packet on the wire between them.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=9000))]
    mtu: u32,
    /// Instead, masqd inside guests, over their kernels' devices.
    #[arg(long)]
    cards: bool,
    /// Which devices, with --cards.
    #[arg(long, value_enum, requires = "cards", default_values = ["rxe", "siw"])]
    card: Vec<Card>,
    /// Of those of --cards only the most telling ones, which `cargo xtask test` runs.
    #[arg(long, requires = "cards")]
    short: bool,
    /// Only name the scenarios.
    #[arg(long)]
    list: bool,
}

impl InteropArgs {
    fn kinds(&self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        if self.uml || self.both || !self.qemu {
            kinds.push(Kind::Uml);
        }
        if self.qemu || self.both {
            kinds.push(Kind::Qemu);
        }
        kinds
    }

    /// Of the guests' kernels; one masqd may have both.
    fn drivers(&self) -> Vec<Driver> {
        match self.cards {
            true => vec![Driver::Rxe, Driver::Siw],
            false => vec![Driver::Rxe],
        }
    }

    fn chosen(&self, name: &str) -> bool {
        let mut only = self.only.iter();
        self.only.is_empty() || only.any(|part| name.contains(part))
    }
}

pub(crate) fn interop(args: &InteropArgs) -> anyhow::Result<()> {
    let mut chosen: Vec<_> = SCENARIOS.iter().filter(|s| args.chosen(s.name)).collect();
    let mut of_cards = cards::Scenario::all();
    of_cards.retain(|scenario| args.chosen(scenario.name()));
    if args.short {
        of_cards.retain(|scenario| cards::SHORT.contains(&scenario.name()));
    }
    if args.cards {
        chosen.clear();
    } else {
        of_cards.clear();
    }
    let mut names: Vec<_> = chosen.iter().map(|scenario| scenario.name).collect();
    names.extend(of_cards.iter().map(|scenario| scenario.name()));
    ensure!(!names.is_empty(), "no scenario has such a name: --list");
    if args.list {
        say(&names.join("\n"));
        return Ok(());
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "namespaces and taps take root: sudo -E cargo xtask interop"
    );
    heading("Getting ready");
    let kinds = args.kinds();
    let packages: Vec<_> = kinds.iter().flat_map(|kind| kind.packages()).collect();
    setup::ensure_also(&packages)?;
    let masq = args.cards || args.sides.iter().any(|sides| *sides != Sides::RxeRxe);
    let binaries = if masq {
        setup::ensure_installed()?;
        say("  building in release mode; the first time takes minutes");
        Some(build::build()?)
    } else {
        None
    };
    let mut results = Vec::new();
    for kind in kinds {
        let since = Instant::now();
        let kit = Kit::prepare(kind, &args.drivers(), &mut |words| {
            say(&format!("  {words}"))
        })?;
        say(&format!(
            "  {kind}: kernel and Debian are there after {:.1} s",
            since.elapsed().as_secs_f64()
        ));
        if args.cards {
            let binaries = Binaries::at(binaries.as_ref().context("masq is not built")?)?;
            for card in &args.card {
                cards::run(&kit, &binaries, *card, args.mtu, &of_cards, &mut results)?;
            }
            continue;
        }
        for sides in &args.sides {
            heading(&format!("{} in {kind}", sides.title()));
            let fitting = chosen.iter().filter(|s| s.sides.contains(sides));
            let fitting: Vec<_> = fitting.copied().collect();
            run_all(&kit, *sides, &fitting, args.mtu, &binaries, &mut results)?;
        }
    }
    report(&results)
}

/// What `cargo xtask test` runs, by quick guests: both ways, then cards, both at once, since
/// a guest has one processor.
pub(crate) fn suite() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        say("LEFT OUT: namespaces and taps take root; sudo -E cargo xtask interop");
        return Ok(());
    }
    let line = |words: &str| {
        let words = words.split_ascii_whitespace();
        Line::try_parse_from(std::iter::once("interop").chain(words))
    };
    let peers = interop(&line("--uml")?.args);
    // Its output comes when the other's is whole.
    // This very program, also when a suite before has built it anew.
    let mut siw = Command::new("/proc/self/exe");
    siw.args(["interop", "--cards", "--short", "--card", "siw"]);
    let siw = spawn(siw)?;
    let rxe = interop(&line("--cards --short --card rxe")?.args);
    let siw = siw.wait(CARDS_END)?;
    say(&siw.output);
    peers.and(rxe).and(siw.success().map(drop))
}

/// The arguments, parsed alone.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: InteropArgs,
}

/// How a scenario ended.
struct Outcome {
    name: &'static str,
    sides: String,
    kind: Kind,
    took: Duration,
    failure: Option<PathBuf>,
}

fn run_all(
    kit: &Kit,
    sides: Sides,
    scenarios: &[&Scenario],
    mtu: u32,
    binaries: &Option<PathBuf>,
    results: &mut Vec<Outcome>,
) -> anyhow::Result<()> {
    let wire = Wire::new(mtu)?;
    let station = |masq: bool, number: u8| -> anyhow::Result<Station> {
        let starting = step(if masq { "masqd" } else { "a guest" });
        let station = if masq {
            let dir = binaries.as_ref().context("masq is not built")?;
            Station::masq(Binaries::at(dir)?, &wire, number, 3 - number)?
        } else {
            Station::rxe(kit, &wire, number)?
        };
        starting.done(&format!("at {}", station.address()?));
        Ok(station)
    };
    let server = station(sides == Sides::MasqRxe, 1)?;
    let client = station(sides == Sides::RxeMasq, 2)?;
    for scenario in scenarios {
        let running = step(scenario.name);
        let since = Instant::now();
        let outcome = run(scenario, &server, &client);
        let took = since.elapsed();
        let failure = match outcome {
            Ok(()) => {
                running.done("");
                None
            }
            Err(error) => {
                drop(running);
                let text = format!(
                    "{error:#}\n\nserver's log:\n{}\n\nclient's log:\n{}\n",
                    server.log(),
                    client.log()
                );
                let name = format!("{}-{:?}-{:?}", scenario.name, sides, kit.kind());
                Some(keep(&name, &text)?)
            }
        };
        results.push(Outcome {
            name: scenario.name,
            sides: sides.title().to_owned(),
            kind: kit.kind(),
            took,
            failure,
        });
    }
    Ok(())
}

/// Both must succeed and the client must say what it should.
fn run(scenario: &Scenario, server: &Station, client: &Station) -> anyhow::Result<()> {
    let serving = server.blanks(server)?.fill(scenario.server);
    let asking = client.blanks(server)?.fill(scenario.client);
    let waiting = server.serve(&serving, scenario.ready)?;
    let asked = client
        .start(&asking)?
        .wait(LIMIT)
        .with_context(|| format!("server:\n{}", waiting.output()))?;
    if !asked.success {
        std::thread::sleep(Duration::from_millis(500));
        let said = waiting.give_up().unwrap_or_else(|error| error.to_string());
        bail!("client {}\nserver {serving}:\n{said}", asked.text);
    }
    let served = waiting
        .wait(SERVER_ENDS)
        .with_context(|| format!("client {}", asked.text))?;
    ensure!(
        served.success,
        "client {}\nserver {}",
        asked.text,
        served.text
    );
    scenario.says.check(&asked.text).context(asked.text)
}

/// Writes what is known of a failure to `target/interop/`.
fn keep(name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let dir = build::target_dir()?.join("interop");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{name}.log"));
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn report(results: &[Outcome]) -> anyhow::Result<()> {
    heading("In short");
    let mut rows = vec![
        ["SCENARIO", "SIDES", "GUEST", "TIME", "RESULT"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for result in results {
        let word = match &result.failure {
            None => "passed".to_owned(),
            Some(path) => format!("FAILED: {}", path.display()),
        };
        rows.push(vec![
            result.name.to_owned(),
            result.sides.clone(),
            result.kind.to_string(),
            format!("{:.1} s", result.took.as_secs_f64()),
            word,
        ]);
    }
    say(&table(&rows));
    let failed = results.iter().filter(|r| r.failure.is_some()).count();
    ensure!(failed == 0, "{failed} of {} failed", results.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(line: &[&str]) -> Vec<Kind> {
        let words = ["interop"].iter().chain(line);
        Line::try_parse_from(words).unwrap().args.kinds()
    }

    #[test]
    fn the_quick_guests_are_taken_unless_others_are_asked_for() {
        assert_eq!(kinds(&[]), [Kind::Uml]);
        assert_eq!(kinds(&["--qemu"]), [Kind::Qemu]);
        assert_eq!(kinds(&["--both"]), [Kind::Uml, Kind::Qemu]);
        assert_eq!(kinds(&["--uml", "--qemu"]), [Kind::Uml, Kind::Qemu]);
    }
}
