//! perftest's tools, on a card and through masq.

use super::super::report::{Row, Sense};
use super::super::tools::{cell, row_of};
use super::super::wire::cpu::machine;
use super::super::wire::samples::Samples;
use crate::interop::cards::host::CardHost;
use crate::interop::cards::{Card, Cards};
use crate::interop::scenarios::Ready;
use crate::progress::{say, step};
use anyhow::{Context as _, bail};
use masq_guest::Job;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const LISTENS: Ready = Ready::Tcp(18515);
/// Of a run whose clock goes wrong.
const TRIES: u32 = 5;
/// What a tick of a guest's accounts is, in seconds.
const TICK: f64 = 0.01;

/// What of perftest's row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    /// Half a round trip, or a READ's whole one: the median in microseconds.
    Latency,
    /// 10^6 bytes a second.
    Bandwidth,
    /// Thousands of messages a second.
    Rate,
}

/// One command, run by both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contest {
    command: &'static str,
    figure: Figure,
    target: Sense,
    /// None: over every card.
    only: Option<Card>,
}

const LATENCY: Sense = Sense::AtMost(1.5, 1.2);

// By events where the tool offers them, because with one processor a program that polls
// keeps it from whom it waits for. A guest may stand still for longer than the usual
// timeout (-u).
#[rustfmt::skip]
pub(super) const CONTESTS: &[Contest] = &[
    Contest { command: "ib_send_lat -F -u 18 -e -s 2 -n 2000", figure: Figure::Latency, target: LATENCY, only: None },
    Contest { command: "ib_read_lat -F -u 18 -e -s 2 -n 2000", figure: Figure::Latency, target: LATENCY, only: None },
    Contest { command: "ib_write_lat -F -u 18 -s 2 -n 500", figure: Figure::Latency, target: LATENCY, only: None },
    Contest { command: "ib_write_bw -F -u 18 -s 65536 -n 3000", figure: Figure::Bandwidth, target: Sense::AtLeast(0.95, 1.0), only: None },
    Contest { command: "ib_read_bw -F -u 18 -e -s 65536 -n 3000", figure: Figure::Bandwidth, target: Sense::Shown, only: None },
    Contest { command: "ib_write_bw -F -u 18 -s 64 -n 20000", figure: Figure::Rate, target: Sense::AtLeast(0.5, 1.0), only: None },
    Contest { command: "ib_send_bw -F -u 18 -e -s 64 -n 20000", figure: Figure::Rate, target: Sense::AtLeast(0.5, 1.0), only: Some(Card::Rxe) },
    // There its server grants credits by WRITE, and a client that waits for an event of its
    // own SENDs does not see them: with -e it stands still on the bare card too.
    Contest { command: "ib_send_bw -F -u 18 -s 64 -n 20000", figure: Figure::Rate, target: Sense::AtLeast(0.5, 1.0), only: Some(Card::Siw) },
];

/// By which way a command goes.
#[derive(Clone, Copy, Debug)]
enum Way {
    Masq,
    Bare,
}

/// What one run gave.
struct Run {
    figure: f64,
    /// Processor seconds of both guests, for the whole run.
    cpu: f64,
}

impl Contest {
    pub(super) fn is_over(&self, card: Card) -> bool {
        self.only.is_none_or(|only| only == card)
    }

    /// In turns; a row for the figure, and one for the processor's time.
    pub(super) fn compare(&self, cards: &Cards, rounds: usize) -> anyhow::Result<Vec<Row>> {
        let measuring = step(self.command);
        let (mut masq, mut bare) = (Samples::default(), Samples::default());
        let (mut masq_cpu, mut bare_cpu) = (Samples::default(), Samples::default());
        for _ in 0..rounds {
            for (way, figures, cpu) in [
                (Way::Masq, &mut masq, &mut masq_cpu),
                (Way::Bare, &mut bare, &mut bare_cpu),
            ] {
                match self.run_until_timed(cards, way) {
                    Ok(run) => {
                        figures.push(run.figure);
                        cpu.push(run.cpu);
                    }
                    // The rest still counts.
                    Err(error) => {
                        drop(measuring);
                        say(&format!("  LEFT OUT: {way:?}: {error:#}"));
                        return Ok(vec![self.left_out()]);
                    }
                }
            }
        }
        let (digits, unit) = self.unit();
        let (ours, other) = (masq.told(digits, unit), bare.told(digits, unit));
        measuring.done(&format!("masq {ours}, bare {other}"));
        let ratio = masq.median() / bare.median();
        let cpu = masq_cpu.median() / bare_cpu.median();
        Ok(vec![
            Row::ratio(self.title(), ours, other, ratio, self.target),
            Row::ratio(
                format!("{}, processor time of both guests", self.title()),
                masq_cpu.told(2, "s"),
                bare_cpu.told(2, "s"),
                cpu,
                Sense::Shown,
            ),
        ])
    }

    fn title(&self) -> String {
        let what = match self.figure {
            Figure::Latency => "p50",
            Figure::Bandwidth => "bandwidth",
            Figure::Rate => "messages",
        };
        format!("`{}`, {what}", self.command)
    }

    fn unit(&self) -> (usize, &'static str) {
        match self.figure {
            Figure::Latency => (1, "us"),
            Figure::Bandwidth => (0, "MB/s"),
            Figure::Rate => (1, "k/s"),
        }
    }

    fn left_out(&self) -> Row {
        let failed = || "failed".to_owned();
        Row::ratio(self.title(), failed(), failed(), f64::NAN, Sense::Shown)
    }

    fn run(&self, cards: &Cards, way: Way) -> anyhow::Result<Run> {
        let (line, address, ready) = self.line(cards, way)?;
        let asking = format!("{line} {address}");
        let (alpha, beta) = (&cards.alpha, &cards.beta);
        let server = serve(alpha, way, &line, ready)?;
        let before = busy(alpha)? + busy(beta)?;
        let client = start(beta, way, &asking)?.wait(LIMIT).with_context(|| {
            let (out, err) = server.output().unwrap_or_default();
            format!("server:\n{out}{err}")
        })?;
        let cpu = busy(alpha)? + busy(beta)? - before;
        let client = client.success()?;
        server.wait(LIMIT)?.success()?;
        let row = row_of(&client.stdout);
        let row = row.with_context(|| format!("no row of numbers: {client}"))?;
        let figure = match self.figure {
            Figure::Latency => cell(&row, 4)?,
            // perftest says MB and means MiB.
            Figure::Bandwidth => cell(&row, 3)? * 1.048_576,
            // It says millions.
            Figure::Rate => cell(&row, 4)? * 1000.0,
        };
        Ok(Run { figure, cpu })
    }

    /// perftest calibrates its clock when it starts, in vain if it is disturbed.
    fn run_until_timed(&self, cards: &Cards, way: Way) -> anyhow::Result<Run> {
        for _ in 0..TRIES {
            let run = self.run(cards, way)?;
            if run.figure.is_finite() && run.figure > 0.0 {
                return Ok(run);
            }
        }
        bail!("perftest's clock went wrong {TRIES} times")
    }

    /// The command with its device, the server's address, and how to see that it listens.
    fn line(&self, cards: &Cards, way: Way) -> anyhow::Result<(String, String, Ready)> {
        let by_cm = cards.card == Card::Siw;
        let alpha = &cards.alpha;
        let mut line = self.command.to_owned();
        if let Way::Bare = way {
            line += &format!(" -d {}", alpha.bare_device()?);
        }
        Ok(match (way, by_cm) {
            (Way::Bare, true) => (line + " -R", alpha.bare_address().to_owned(), Ready::Cm),
            (Way::Masq, true) => (line + " -R", "10.0.0.1".to_owned(), Ready::Cm),
            (Way::Bare, false) => (
                format!("{line} -x {}", alpha.bare_gid()?),
                alpha.bare_address().to_owned(),
                LISTENS,
            ),
            (Way::Masq, false) => (line + " -x 3", alpha.address().to_owned(), LISTENS),
        })
    }
}

fn serve<'c>(host: &'c CardHost, way: Way, line: &str, ready: Ready) -> anyhow::Result<Job<'c>> {
    match way {
        Way::Masq => host.serve("blue/a", line, ready),
        Way::Bare => host.serve_bare(line, ready),
    }
}

fn start<'c>(host: &'c CardHost, way: Way, line: &str) -> anyhow::Result<Job<'c>> {
    match way {
        Way::Masq => host.start("blue/b", line),
        Way::Bare => host.start_bare(line),
    }
}

/// Seconds for which the guest's processor was busy so far.
fn busy(host: &CardHost) -> anyhow::Result<f64> {
    let stat = host.run_bare("cat /proc/stat")?;
    let (ticks, _) = machine(&stat).context("/proc/stat is odd")?;
    Ok(ticks as f64 * TICK)
}
