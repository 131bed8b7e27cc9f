//! perftest and programs of ours, through masq.

use anyhow::Context as _;
use masq_e2e::{Finished, Host, Pair, compile};
use std::time::Duration;

/// Half round trips in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bandwidth {
    /// 10^6 bytes a second.
    pub(crate) megabytes: f64,
    pub(crate) million_messages: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Control {
    pub(crate) verb_us: f64,
    pub(crate) connections_per_second: f64,
}

/// Per message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    pub(crate) yields: f64,
    pub(crate) others: f64,
}

/// The last line of numbers that perftest printed.
pub(crate) fn row(out: &Finished) -> anyhow::Result<Vec<f64>> {
    row_of(&out.output).with_context(|| format!("no row of numbers: {out}"))
}

/// The last row of numbers that perftest printed.
pub(super) fn row_of(output: &str) -> Option<Vec<f64>> {
    output.lines().rev().find_map(|line| {
        let row: Option<Vec<f64>> = line
            .split_ascii_whitespace()
            .map(|cell| cell.parse().ok())
            .collect();
        row.filter(|row| row.len() >= 4)
    })
}

pub(super) fn cell(row: &[f64], column: usize) -> anyhow::Result<f64> {
    row.get(column)
        .copied()
        .context("perftest printed fewer columns than expected")
}

pub(crate) fn latency(host: &Host, tool: &str) -> anyhow::Result<Latency> {
    let out = Pair::new(tool)
        .args(["-x", "3", "-F", "-s", "2", "-n", "200000"])
        .run(host)?;
    let row = row(&out.client)?;
    Ok(Latency {
        p50: cell(&row, 4)?,
        p99: cell(&row, 7)?,
        p999: cell(&row, 8)?,
    })
}

pub(crate) fn bandwidth(
    host: &Host,
    tool: &str,
    size: u32,
    rounds: u32,
) -> anyhow::Result<Bandwidth> {
    let (size, rounds) = (size.to_string(), rounds.to_string());
    let out = Pair::new(tool)
        .args(["-x", "3", "-F", "-N", "-s", &size, "-n", &rounds])
        .run(host)?;
    let row = row(&out.client)?;
    Ok(Bandwidth {
        // perftest says MB and means MiB.
        megabytes: cell(&row, 3)? * 1.048_576,
        million_messages: cell(&row, 4)?,
    })
}

pub(crate) fn control(host: &Host) -> anyhow::Result<Control> {
    let program = compile("control_rate", host.scratch())?;
    let out = host
        .run_as("blue/a", &program, [] as [&str; 0])?
        .success()?;
    Ok(Control {
        verb_us: figure(&out, "verb_median_us")?,
        connections_per_second: figure(&out, "connections_per_second")?,
    })
}

/// The number of a line `NAME NUMBER` that a program of ours printed.
pub(super) fn figure(out: &Finished, name: &str) -> anyhow::Result<f64> {
    out.output
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        .with_context(|| format!("no {name}: {out}"))
}

/// The difference of a long and a short run, so that setting up falls out.
pub(crate) fn system_calls(host: &Host, tool: &str) -> anyhow::Result<Calls> {
    const SHORT: u32 = 1_000;
    const LONG: u32 = 21_000;
    let short = traced(host, tool, SHORT)?;
    let long = traced(host, tool, LONG)?;
    let messages = f64::from(LONG - SHORT);
    Ok(Calls {
        yields: (long.yields - short.yields) / messages,
        others: ((long.others - short.others) / messages).max(0.0),
    })
}

/// Both programs' system calls in one run.
fn traced(host: &Host, tool: &str, rounds: u32) -> anyhow::Result<Calls> {
    let port = masq_e2e::free_port()?.to_string();
    let rounds = rounds.to_string();
    let file = host.scratch().join("calls");
    let file = file.to_string_lossy();
    let trace = ["-f", "-c", "-U", "calls,name", "-o", &file];
    let tool = [tool, "-x", "3", "-F", "-n", &rounds, "-p", &port];
    let mut server = host.start_as("blue/a", tool[0], &tool[1..])?;
    masq_e2e::wait_for_listener(port.parse()?, Duration::from_secs(20), || {
        server.is_running()
    })?;
    let args = [&trace[..], &tool[..], &["127.0.0.1"]].concat();
    host.start_as("blue/b", "strace", args)?
        .wait(Duration::from_secs(60))?
        .success()?;
    server.wait(Duration::from_secs(20))?.success()?;
    Ok(count(&std::fs::read_to_string(&*file)?))
}

fn count(table: &str) -> Calls {
    let mut calls = Calls {
        yields: 0.0,
        others: 0.0,
    };
    for line in table.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(Ok(number)), Some(name)) = (words.next().map(str::parse::<f64>), words.next())
        else {
            continue;
        };
        match name {
            "total" => {}
            "sched_yield" => calls.yields += number,
            _ => calls.others += number,
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yields_are_counted_apart_and_the_total_not_at_all() {
        let table = "    calls syscall\n--------- ------\n     1200 sched_yield\n       30 mmap\n        7 read\n--------- ------\n     1237 total\n";
        let calls = count(table);
        assert_eq!((calls.yields, calls.others), (1200.0, 37.0));
    }
}
