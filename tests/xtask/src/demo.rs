//! `cargo xtask demo`: two tenants, unmodified programs, no RDMA hardware.

use crate::progress::{heading, say, step, table};
use crate::{build, setup};
use anyhow::{Context as _, bail, ensure};
use masq_e2e::{Binaries, Finished, Host, Pair, workspace};

pub(crate) fn demo() -> anyhow::Result<()> {
    heading("Getting ready");
    setup::ensure_installed()?;
    say("  building in release mode; the first time takes minutes");
    let dir = build::build()?;
    let file = workspace().join("policy/examples/two-tenants.yaml");
    let policy = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let starting = step("masqd --policy policy/examples/two-tenants.yaml");
    let host = Host::launch(Binaries::at(&dir)?, &policy, &[])?;
    starting.done(&format!("pid {}", host.pid()));

    heading("Tenant blue: a and b may talk to each other");
    let mut rows = vec![strings(["PROGRAM", "BETWEEN", "RESULT"])];
    for (program, args, result) in programs() {
        let text = format!("{program} {}", args.join(" "));
        let running = step(&text);
        let out = Pair::new(program).args(args.iter().copied()).run(&host)?;
        let result = result(&out.client).with_context(|| format!("{}", out.client))?;
        running.done(&result);
        rows.push(vec![
            program.to_owned(),
            "blue/a, blue/b".to_owned(),
            result,
        ]);
    }

    heading("Tenant red: no rule lets its endpoints talk");
    let refusing = step("ibv_rc_pingpong from red/b to red/a");
    let out = Pair::new("ibv_rc_pingpong")
        .args(["-g", "3"])
        // The server connects its queue pair first, and is refused.
        .between("red/b", "red/a")
        .outcome(&host)?;
    ensure!(
        !out.client.status.success() && !out.server.status.success(),
        "red was not refused: {}{}",
        out.client,
        out.server
    );
    let words = complaint(&out.server);
    refusing.done(&format!("{}: {words}", out.server.status));
    rows.push(vec![
        "ibv_rc_pingpong".to_owned(),
        "red/b, red/a".to_owned(),
        format!("refused ({words})"),
    ]);

    say("\n  The policy says why (masq policy explain --from red/b --to red/a):");
    let why = host.masq_output(["policy", "explain", "--from", "red/b", "--to", "red/a"])?;
    ensure!(why.status.code() == Some(1), "{why}");
    quote(&why.output);
    say("  And masqd's log has a line for the operator:");
    let log = host.log();
    let Some(line) = log
        .lines()
        .rev()
        .find(|line| line.contains("red") && line.contains("deny"))
    else {
        bail!("masqd's log has no line about the refusal:\n{log}");
    };
    quote(line);

    heading("In short");
    say(&table(&rows));
    host.wait_until_empty()?;
    say("Every program was the distribution's own, and `masq ps` shows nothing left behind.");
    Ok(())
}

type Program = (
    &'static str,
    &'static [&'static str],
    fn(&Finished) -> anyhow::Result<String>,
);

fn programs() -> [Program; 3] {
    [
        (
            "ibv_rc_pingpong",
            &["-g", "3", "-c", "-n", "10000"],
            pingpong,
        ),
        (
            "ib_write_bw",
            &["-x", "3", "-F", "-s", "65536", "-n", "20000"],
            bandwidth,
        ),
        (
            "ib_send_lat",
            &["-x", "3", "-F", "-s", "2", "-n", "20000"],
            latency,
        ),
    ]
}

/// `10000 iters in 0.05 seconds = 5.00 usec/iter`.
fn pingpong(out: &Finished) -> anyhow::Result<String> {
    let line = out.output.lines().find(|line| line.contains("usec/iter"));
    let line = line.context("it printed no time")?;
    let time = line.rsplit(" = ").next().unwrap_or(line);
    Ok(format!("{}, contents checked", time.trim()))
}

/// The column `BW average[MB/sec]`.
fn bandwidth(out: &Finished) -> anyhow::Result<String> {
    let row = perftest_row(out)?;
    Ok(format!("{} MB/s at 64 KiB", cell(&row, 3)?))
}

/// The columns `t_typical[usec]` and `99% percentile[usec]`.
fn latency(out: &Finished) -> anyhow::Result<String> {
    let row = perftest_row(out)?;
    Ok(format!(
        "{} us half round trip, p99 {} us",
        cell(&row, 4)?,
        cell(&row, 7)?
    ))
}

fn cell<'r>(row: &[&'r str], column: usize) -> anyhow::Result<&'r str> {
    row.get(column)
        .copied()
        .context("perftest printed fewer columns than expected")
}

/// The last line of numbers that perftest printed.
fn perftest_row(out: &Finished) -> anyhow::Result<Vec<&str>> {
    out.output
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .rfind(|row| row.len() >= 4 && row.iter().all(|cell| cell.parse::<f64>().is_ok()))
        .context("perftest printed no row of numbers")
}

/// The line in which a pingpong says what failed.
fn complaint(out: &Finished) -> String {
    let line = out
        .output
        .lines()
        .find(|line| line.starts_with("Failed") || line.starts_with("Couldn't"));
    line.unwrap_or("no complaint").trim().to_owned()
}

fn quote(text: &str) {
    for line in text.lines() {
        say(&format!("    | {line}"));
    }
}

fn strings<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    fn finished(output: &str) -> Finished {
        Finished {
            name: String::new(),
            status: std::process::ExitStatus::from_raw(0),
            output: output.to_owned(),
        }
    }

    #[test]
    fn results_are_read_from_the_programs_tables() {
        let bw = " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n \
                  65536      5000             9876.50            9512.25\t\t   0.152196\n-----\n";
        assert_eq!(bandwidth(&finished(bw)).unwrap(), "9512.25 MB/s at 64 KiB");
        let lat = " 2       1000          1.10           9.81         1.25     \t       1.31        \t0.20   \t\t2.50    \t\t9.81   \n";
        assert_eq!(
            latency(&finished(lat)).unwrap(),
            "1.25 us half round trip, p99 2.50 us"
        );
        let pp = "8192000 bytes in 0.01 seconds = 11346.95 Mbit/sec\n1000 iters in 0.01 seconds = 5.78 usec/iter\n";
        assert_eq!(
            pingpong(&finished(pp)).unwrap(),
            "5.78 usec/iter, contents checked"
        );
        assert!(latency(&finished("no numbers")).is_err());
    }
}
