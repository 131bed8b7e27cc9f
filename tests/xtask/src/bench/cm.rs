//! rdma_cm and what is built on it: connecting, many connections, rsockets.

use super::Tcp;
use super::daemon::{resident_of, wait_for};
use super::report::{Row, Sense};
use super::tools::figure;
use crate::progress::step;
use anyhow::Context as _;
use masq_e2e::{
    Binaries, Finished, Host, Meeting, Running, compile, free_port, spawn, start_over_rdma,
    wait_for_listener, wait_for_listeners,
};
use std::process::Command;
use std::time::Duration;

/// Room for the tens of thousands of objects below.
const POLICY: &str = "\
version: 1
tenants:
  blue:
    quotas:
      sessions: 4096
      qps: 65536
      cqs: 65536
      mrs: 262144
      cm_ids: 65536
      event_queues: 16384
      windows: 65536
      pinned: 16GiB
    endpoints:
      a: { address: 10.0.0.1 }
      b: { address: 10.0.0.2 }
    rules:
      - { from: a, to: b, both_ways: true, action: allow }
";
const LIMIT: Duration = Duration::from_secs(100);
/// As many as cmtime makes at once; each has two event queues a side.
const AT_ONCE: u32 = 1_000;
const CONNECTIONS: u32 = 10_000;
const RSOCKETS: u32 = 1_000;

/// Measures, and fills the table.
pub(crate) fn measure(binaries: &Binaries, tcp: Option<&Tcp>) -> anyhow::Result<Vec<Row>> {
    let host = Host::launch(binaries.clone(), POLICY, &["--log", "warn"])?;
    let mut rows = Vec::new();
    steps_of_cmtime(&host, tcp, &mut rows)?;
    one_connect(&host, tcp, &mut rows)?;
    rstream(&host, tcp, &mut rows)?;
    over_librspreload(&host, &mut rows)?;
    held_connections(&host, &mut rows)?;
    held_rsockets(&host, &mut rows)?;
    Ok(rows)
}

/// Microseconds a connection of a step that cmtime's client printed.
fn step_us(out: &Finished, name: &str) -> anyhow::Result<f64> {
    let line = out.output.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.split_ascii_whitespace().last()?.parse().ok());
    number.with_context(|| format!("cmtime told nothing of `{name}`: {out}"))
}

fn steps_of_cmtime(host: &Host, tcp: Option<&Tcp>, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let measuring = step("cmtime, 1,000 connections at once");
    let out = Meeting::new(
        &format!("cmtime -c {AT_ONCE}"),
        &format!("cmtime -s 10.0.0.1 -c {AT_ONCE}"),
    )
    .limit(LIMIT)
    .server_stays()
    .run(host)?;
    let connect = step_us(&out.client, "connect ")?;
    let mut all = connect;
    for name in ["create id", "resolve addr", "resolve route", "create qp"] {
        all += step_us(&out.client, name)?;
    }
    measuring.done(&format!(
        "connect {connect:.1} us each, all steps {all:.1} us"
    ));
    let Some(tcp) = tcp.map(|tcp| tcp.connects) else {
        return Ok(());
    };
    let rate = |us: f64| format!("{:.0}/s", 1e6 / us);
    rows.push(Row::ratio(
        "cmtime: connections a second, step `connect`, against TCP connect+accept",
        rate(connect),
        rate(tcp.batch_us),
        tcp.batch_us / connect,
        Sense::AtLeast(0.5, 1.0),
    ));
    rows.push(Row::ratio(
        "cmtime: the same, with ids, routes and queue pairs, against TCP with its sockets",
        rate(all),
        rate(tcp.batch_all_us),
        tcp.batch_all_us / all,
        Sense::Shown,
    ));
    Ok(())
}

fn one_connect(host: &Host, tcp: Option<&Tcp>, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let measuring = step("rdma_cm, one connection at a time");
    let program = compile("cm_connect", host.scratch())?;
    let program = program.to_string_lossy();
    let out = Meeting::new(
        &format!("{program} server"),
        &format!("{program} client 5000"),
    )
    .limit(LIMIT)
    .server_stays()
    .run(host)?;
    let p50 = figure(&out.client, "connect_p50_us")?;
    let p99 = figure(&out.client, "connect_p99_us")?;
    measuring.done(&format!("p50 {p50:.1} us, p99 {p99:.1}"));
    let Some(tcp) = tcp.map(|tcp| tcp.connects) else {
        return Ok(());
    };
    for (what, ours, other) in [
        (
            "one connection, p50, address to ESTABLISHED, against TCP",
            p50,
            tcp.p50_us,
        ),
        ("one connection, p99", p99, tcp.p99_us),
    ] {
        let text = |us: f64| format!("{us:.1} us");
        rows.push(Row::ratio(
            what,
            text(ours),
            text(other),
            ours / other,
            Sense::Shown,
        ));
    }
    Ok(())
}

fn rstream(host: &Host, tcp: Option<&Tcp>, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let measuring = step("rstream, 64 KiB");
    let common = "-S 65536 -I 1 -C 40000";
    let out = Meeting::new(
        &format!("rstream {common}"),
        &format!("rstream -s 10.0.0.1 {common}"),
    )
    .limit(LIMIT)
    .run(host)?;
    let line = out.client.output.lines().find(|l| l.starts_with("custom"));
    let gigabits: Option<f64> = line.and_then(|line| {
        let mut words = line.split_ascii_whitespace();
        words.nth_back(1)?.parse().ok()
    });
    let megabytes =
        gigabits.with_context(|| format!("rstream told no rate: {}", out.client))? * 125.0;
    measuring.done(&format!("{megabytes:.0} MB/s"));
    if let Some(tcp) = tcp {
        rows.push(Row::ratio(
            "rstream 64 KiB, against iperf3",
            format!("{megabytes:.0} MB/s"),
            format!("{:.0} MB/s", tcp.megabytes),
            megabytes / tcp.megabytes,
            Sense::AtLeast(2.0, 2.0),
        ));
    }
    Ok(())
}

/// The same two programs over RDMA and over loopback TCP.
fn over_librspreload(host: &Host, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let measuring = step("iperf3 by librspreload, and over loopback");
    let rdma = iperf3(&On::Rdma(host))?;
    let tcp = iperf3(&On::Loopback)?;
    measuring.done(&format!("{rdma:.0} MB/s, {tcp:.0} MB/s"));
    rows.push(Row::ratio(
        "iperf3 by librspreload, against loopback TCP",
        format!("{rdma:.0} MB/s"),
        format!("{tcp:.0} MB/s"),
        rdma / tcp,
        Sense::Shown,
    ));
    let measuring = step("memcached by librspreload, and over loopback");
    let rdma = memcached(&On::Rdma(host))?;
    let tcp = memcached(&On::Loopback)?;
    measuring.done(&format!("{rdma:.0}/s, {tcp:.0}/s"));
    rows.push(Row::ratio(
        "memcached by librspreload, memcaslap's operations, against loopback TCP",
        format!("{rdma:.0}/s"),
        format!("{tcp:.0}/s"),
        rdma / tcp,
        Sense::Shown,
    ));
    host.wait_until_empty()
}

/// Where a TCP program runs.
enum On<'h> {
    /// As endpoints of this host.
    Rdma(&'h Host),
    /// As it is.
    Loopback,
}

impl On<'_> {
    fn address(&self) -> &'static str {
        match self {
            On::Rdma(_) => "10.0.0.1",
            On::Loopback => "127.0.0.1",
        }
    }

    fn start(&self, endpoint: &str, vars: &[&str], line: &str) -> anyhow::Result<Running> {
        match self {
            On::Rdma(host) => start_over_rdma(host, endpoint, vars, line),
            On::Loopback => {
                let mut command = Command::new("env");
                command.args(vars).args(line.split(' '));
                spawn(command)
            }
        }
    }

    fn wait(&self, port: u16, server: &mut Running) -> anyhow::Result<()> {
        match self {
            On::Rdma(host) => wait_for_listeners(host, "blue/a", 1, server),
            On::Loopback => wait_for_listener(port, LIMIT, || server.is_running()),
        }
    }
}

/// Megabytes (10^6) a second.
fn iperf3(on: &On<'_>) -> anyhow::Result<f64> {
    let (address, port) = (on.address(), free_port()?);
    let line = format!("iperf3 -s -1 -4 -B {address} -p {port}");
    let mut server = on.start("blue/a", &[], &line)?;
    on.wait(port, &mut server)?;
    let line = format!("iperf3 -c {address} -p {port} -t 4 -J");
    let out = on.start("blue/b", &[], &line)?.wait(LIMIT)?.success()?;
    server.wait(LIMIT)?;
    let value: serde_json::Value = serde_json::from_str(&out.output)?;
    let bits = value["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.context("iperf3 told no rate")? / 8e6)
}

/// Operations a second, nine gets to a set, of 1 KiB, each get verified.
fn memcached(on: &On<'_>) -> anyhow::Result<f64> {
    let (address, port) = (on.address(), free_port()?);
    let line = format!("memcached -u root -U 0 -l {address} -p {port} -t 2 -m 256");
    let vars = ["EVENT_NOEPOLL=1"];
    let mut server = on.start("blue/a", &vars, &line)?;
    on.wait(port, &mut server)?;
    let line = format!("memcaslap -s {address}:{port} -T 1 -c 3 -x 100000 -v 1.0 -X 1024");
    let out = on.start("blue/b", &["EVENT_NOEPOLL=1"], &line)?;
    let out = out.wait(LIMIT)?.success()?;
    operations(&out.output).with_context(|| format!("no rate: {out}"))
}

/// `Run time: 1.6s Ops: 40000 TPS: 24771 Net_rate: 26.9M/s`
fn operations(output: &str) -> Option<f64> {
    let (_, rest) = output.split_once("TPS:")?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// What the client, the server and masqd grow by, KiB for each of `count`, under
/// these names; an empty one is left out.
fn held(
    host: &Host,
    server: &[&str],
    client: &[&str],
    (count, listeners): (u32, usize),
    rows: &mut Vec<Row>,
    names: [&'static str; 3],
) -> anyhow::Result<()> {
    let before = resident_of(host.pid())?;
    let start = |endpoint: &str, words: &[&str]| {
        let (program, args) = words.split_first().context("no program")?;
        host.start_as(endpoint, program, args)
    };
    let mut server = start("blue/a", server)?;
    wait_for_listeners(host, "blue/a", listeners, &mut server)?;
    let empty = resident_of(server.pid())?;
    let mut client = start("blue/b", client)?;
    wait_for(&mut client, "held").map_err(|e| e.context(server.output()))?;
    wait_for(&mut server, "held")?;
    let grown = [
        resident_of(client.pid())?.saturating_sub(empty),
        resident_of(server.pid())?.saturating_sub(empty),
        resident_of(host.pid())?.saturating_sub(before),
    ];
    let shown = names.into_iter().zip(grown);
    for (name, kib) in shown.filter(|(name, _)| !name.is_empty()) {
        rows.push(Row::value(
            name,
            kib as f64 / f64::from(count),
            Sense::Shown,
        ));
    }
    drop(client);
    drop(server);
    host.wait_until_empty()
}

fn held_connections(host: &Host, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let measuring = step("10,000 connections on shared channels");
    let program = compile("cm_many", host.scratch())?;
    let program = program.to_string_lossy();
    let count = CONNECTIONS.to_string();
    held(
        host,
        &[&program, "server", &count],
        &[&program, "client", &count],
        (CONNECTIONS, 1),
        rows,
        [
            "10,000 connections: KiB each of the client",
            "10,000 connections: KiB each of the server",
            "10,000 connections: KiB each of masqd, both ends",
        ],
    )?;
    measuring.done("");
    Ok(())
}

fn held_rsockets(host: &Host, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let measuring = step("1,000 rsockets in a process");
    let program = compile("rs_many", host.scratch())?;
    let program = program.to_string_lossy();
    let count = RSOCKETS.to_string();
    held(
        host,
        &[&program, "server", &count, "10.0.0.1"],
        &[&program, "client", &count, "10.0.0.1"],
        (RSOCKETS, RSOCKETS as usize / 4),
        rows,
        [
            "1,000 rsockets: KiB each of the client",
            "",
            "1,000 rsockets: KiB each of masqd, both ends and 250 servers",
        ],
    )?;
    measuring.done("");
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn memaslaps_rate_is_read() {
        let line = "Run time: 1.6s Ops: 40000 TPS: 24771 Net_rate: 26.9M/s\n";
        assert_eq!(super::operations(line), Some(24771.0));
        assert_eq!(super::operations("nothing"), None);
    }
}
