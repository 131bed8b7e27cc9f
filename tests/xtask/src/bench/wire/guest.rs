//! masq and the kernel's rdma_rxe in one guest.

use super::samples::Samples;
use crate::bench::report::{Row, Sense};
use crate::progress::{say, step};
use anyhow::Context as _;
use masq_e2e::{Binaries, HostsConfig};
use masq_guest::{Driver, Guest, GuestConfig, Kind, Kit, Namespace, SHARE};
use std::fs;
use std::time::Duration;

const SCRIPT: &str = include_str!("guest.sh");
const LIMIT: Duration = Duration::from_secs(45);
/// Two masqds with their buffers, and programs.
const MEMORY_MIB: u32 = 1536;
/// A guest is slow, and its figures are ratios within one boot.
const MOST_ROUNDS: usize = 3;

/// How long the part of a run that counts takes, roughly: long beside what a guest takes
/// to start a program, which varies.
const COUNTED: Duration = Duration::from_secs(3);
/// Iterations of the short run, whose time is taken off.
const SHORT: u32 = 50;
/// Iterations by which the long run is measured out, and their limits.
const TRIAL: u32 = 500;
const LONG: (f64, f64) = (500.0, 40_000.0);
/// What a long run takes at most, if nothing of the trial was the programs' start. What two
/// starts take differs by more than some trials' iterations do: their difference alone can
/// say that an iteration takes nothing.
const LONGEST: Duration = Duration::from_secs(20);

/// How one side is measured.
#[derive(Clone, Copy)]
struct Plan {
    /// Nanoseconds of a short run.
    short: f64,
    /// Iterations of a long one.
    long: u32,
}

/// One command, run by both.
struct Contest {
    command: &'static str,
    what: &'static str,
    /// What one iteration moves: MB/s are told, else microseconds.
    bytes: Option<f64>,
}

const BANDWIDTH: Contest = Contest {
    command: "ib_write_bw -F -m 4096 -s 65536",
    what: "ib_write_bw 64 KiB",
    bytes: Some(65_536.0),
};

/// By events, because with one processor a program that polls keeps it from whom it waits
/// for. ib_send_lat by events hangs there between ends of rdma_rxe: perftest 4.5 has one
/// channel for both CQs and takes any event for the one it waits for, so it fails where an
/// answer is told of before the completion of what it answers.
const UML: [Contest; 3] = [
    BANDWIDTH,
    Contest {
        command: "ibv_rc_pingpong -e -s 2",
        what: "ibv_rc_pingpong 2 B, events, a round trip",
        bytes: None,
    },
    Contest {
        command: "ib_read_lat -F -e -s 2",
        what: "ib_read_lat 2 B, events, a round trip",
        bytes: None,
    },
];

const QEMU: [Contest; 5] = [
    BANDWIDTH,
    Contest {
        command: "ib_send_lat -F -s 2",
        what: "ib_send_lat 2 B, polling, a round trip",
        bytes: None,
    },
    Contest {
        command: "ib_read_lat -F -s 2",
        what: "ib_read_lat 2 B, polling, a round trip",
        bytes: None,
    },
    Contest {
        command: "ib_send_lat -F -e -s 2",
        what: "ib_send_lat 2 B, events, a round trip",
        bytes: None,
    },
    Contest {
        command: "ib_read_lat -F -e -s 2",
        what: "ib_read_lat 2 B, events, a round trip",
        bytes: None,
    },
];

/// A title with what the guest is, and its rows.
pub(crate) fn measure(
    binaries: &Binaries,
    kind: Kind,
    rounds: usize,
) -> anyhow::Result<(String, Vec<Row>)> {
    let kit = Kit::prepare(kind, &[Driver::Rxe], &mut |words| {
        say(&format!("  {words}"))
    })?;
    let share = tempfile::tempdir()?;
    for file in [binaries.masqd(), binaries.masq(), binaries.library()] {
        let name = file.file_name().context("a program without a name")?;
        fs::copy(&file, share.path().join(name))?;
    }
    fs::write(
        share.path().join("policy.yaml"),
        HostsConfig::default().text(),
    )?;
    fs::write(share.path().join("guest.sh"), SCRIPT)?;
    let namespace = Namespace::new()?;
    let booting = step("a guest with rdma_rxe, and a masqd in each of two namespaces");
    let guest = Guest::boot(
        &kit,
        &GuestConfig {
            namespace: &namespace,
            interfaces: Vec::new(),
            memory_mib: MEMORY_MIB,
            share: Some(share.path().to_owned()),
        },
    )?;
    let kernel = run(&guest, "set_up_rxe >&2; set_up_masq; uname -r")?;
    booting.done(&kernel);
    let contests = match kind {
        Kind::Uml => &UML[..],
        Kind::Qemu => &QEMU[..],
    };
    let mut rows = Vec::new();
    for contest in contests {
        let measuring = step(contest.what);
        match contest.compare(&guest, rounds.min(MOST_ROUNDS)) {
            Ok((told, row)) => {
                measuring.done(&told);
                rows.push(row);
            }
            // A kernel's fault, mostly; the rest still counts.
            Err(error) => {
                drop(measuring);
                say(&format!("  LEFT OUT: {error:#}"));
                rows.push(contest.left_out());
            }
        }
    }
    Ok((format!("In a guest by {kind}, Linux {kernel}"), rows))
}

impl Contest {
    /// In turns; what to say, and the row.
    fn compare(&self, guest: &Guest, rounds: usize) -> anyhow::Result<(String, Row)> {
        let plans = [self.plan(guest, "masq")?, self.plan(guest, "rxe")?];
        let (mut masq, mut rxe) = (Samples::default(), Samples::default());
        for _ in 0..rounds {
            masq.push(self.once(guest, "masq", plans[0])?);
            rxe.push(self.once(guest, "rxe", plans[1])?);
        }
        Ok((self.told(&masq, &rxe), self.row(&masq, &rxe)))
    }

    /// A row without a result.
    fn left_out(&self) -> Row {
        Row::ratio(
            format!("{}, against rdma_rxe", self.what),
            "failed".to_owned(),
            "failed".to_owned(),
            f64::NAN,
            Sense::Shown,
        )
    }

    /// Nanoseconds of a run.
    fn took(&self, guest: &Guest, of: &str, count: u32) -> anyhow::Result<f64> {
        let line = format!("measure {of} {count} {}", self.command);
        let out = run(guest, &line)?;
        out.parse().with_context(|| format!("{line} said {out}"))
    }

    /// Two short runs and a trial, from which follows the length of a long one.
    fn plan(&self, guest: &Guest, of: &str) -> anyhow::Result<Plan> {
        let short = self.took(guest, of, SHORT)?;
        let trial = self.took(guest, of, TRIAL)?;
        let short = f64::midpoint(short, self.took(guest, of, SHORT)?);
        Ok(Plan {
            short,
            long: long_run(short, trial),
        })
    }

    /// What one iteration takes in microseconds, or MB/s.
    fn once(&self, guest: &Guest, of: &str, plan: Plan) -> anyhow::Result<f64> {
        let took = self.took(guest, of, plan.long)? - plan.short;
        let nanoseconds = took.max(1.0) / f64::from(plan.long - SHORT);
        Ok(match self.bytes {
            Some(bytes) => bytes * 1000.0 / nanoseconds,
            None => nanoseconds / 1000.0,
        })
    }

    fn unit(&self) -> &'static str {
        match self.bytes {
            Some(_) => "MB/s",
            None => "us",
        }
    }

    fn told(&self, masq: &Samples, rxe: &Samples) -> String {
        let (masq, rxe) = (masq.told(1, self.unit()), rxe.told(1, self.unit()));
        format!("masq {masq}, rdma_rxe {rxe}")
    }

    fn row(&self, masq: &Samples, rxe: &Samples) -> Row {
        let sense = match self.bytes {
            Some(_) => Sense::AtLeast(2.0, 4.0),
            None => Sense::AtMost(1.0, 0.5),
        };
        Row::ratio(
            format!("{}, against rdma_rxe", self.what),
            masq.told(1, self.unit()),
            rxe.told(1, self.unit()),
            masq.median() / rxe.median(),
            sense,
        )
    }
}

/// Iterations of a long run, by the nanoseconds of a short one and of the trial.
fn long_run(short: f64, trial: f64) -> u32 {
    let each = (trial - short).max(1.0) / f64::from(TRIAL - SHORT);
    let long = COUNTED.as_nanos() as f64 / each;
    let slowest = trial.max(1.0) / f64::from(TRIAL);
    let most = (LONGEST.as_nanos() as f64 / slowest).clamp(LONG.0, LONG.1);
    long.clamp(LONG.0, most) as u32
}

/// Runs a line of the script's functions; what it printed.
fn run(guest: &Guest, line: &str) -> anyhow::Result<String> {
    let script = format!("set -e\n. {SHARE}/guest.sh\n{line}\n");
    let out = guest.run(&script, LIMIT)?.success()?;
    Ok(out.stdout.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_ends_in_time_although_a_start_took_longer_than_the_trial() {
        let second = 1e9;
        let count = long_run(3.4 * second, 3.2 * second);
        assert!(f64::from(count) * 3.2 / f64::from(TRIAL) <= LONGEST.as_secs_f64());
        // Where the trial tells, its length is what counts.
        assert_eq!(long_run(second, 1.9 * second), 1500);
        assert_eq!(long_run(second, 15.0 * second), LONG.0 as u32);
    }
}
