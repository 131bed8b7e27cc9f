//! What masqd costs while nothing happens.

use anyhow::{Context as _, bail};
use masq_e2e::{Host, Running, compile};
use std::time::{Duration, Instant};

const SESSIONS: u64 = 200;
const QPS: u64 = 1_000;
const WATCHED: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) cpu_percent: f64,
    pub(crate) kib_per_session: f64,
    pub(crate) kib_per_qp: f64,
}

pub(crate) fn idle(host: &Host) -> anyhow::Result<Idle> {
    let program = compile("hold", host.scratch())?;
    let before = resident(host)?;
    let count = SESSIONS.to_string();
    let mut holder = host.start_as("blue/a", &program, ["sessions", &count])?;
    wait_for(&mut holder, "held")?;
    let with_sessions = resident(host)?;
    let (ticks, since) = (cpu_ticks(host)?, Instant::now());
    std::thread::sleep(WATCHED);
    let ticks = cpu_ticks(host)? - ticks;
    let seconds = since.elapsed().as_secs_f64();
    drop(holder);
    host.wait_until_empty()?;
    let empty = resident(host)?;
    let count = QPS.to_string();
    let mut holder = host.start_as("blue/a", &program, ["qps", &count])?;
    wait_for(&mut holder, "held")?;
    let with_qps = resident(host)?;
    drop(holder);
    host.wait_until_empty()?;
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok(Idle {
        cpu_percent: 100.0 * ticks as f64 / per_second / seconds,
        kib_per_session: with_sessions.saturating_sub(before) as f64 / SESSIONS as f64,
        kib_per_qp: with_qps.saturating_sub(empty) as f64 / QPS as f64,
    })
}

pub(super) fn wait_for(running: &mut Running, word: &str) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while !running.output().contains(word) {
        if !running.is_running() || Instant::now() > end {
            bail!("it holds nothing:\n{}", running.output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn resident(host: &Host) -> anyhow::Result<u64> {
    resident_of(host.pid())
}

/// VmRSS in KiB.
pub(super) fn resident_of(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.context("the process has no VmRSS")
}

/// User and system time in clock ticks.
fn cpu_ticks(host: &Host) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", host.pid()))?;
    // The name, in parentheses, may hold blanks.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: Vec<u64> = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse().ok())
        .collect();
    Ok(ticks.iter().sum())
}
