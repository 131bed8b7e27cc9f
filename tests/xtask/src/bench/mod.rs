//! `cargo xtask bench`: ratios, measured in one run on one machine.

mod baseline;
mod cards;
mod cm;
mod containers;
mod daemon;
mod memcpy;
mod network;
mod plot;
mod report;
mod tools;
mod wire;

use crate::interop::cards::Card;
use crate::progress::{heading, say, step};
use crate::{build, setup};
use anyhow::Context as _;
use clap::Args;
use masq_e2e::{Binaries, Host};
use report::{Document, Report, Row, Sense};
use std::fs;

/// Quotas that let one endpoint hold what the measurements need.
const POLICY: &str = "\
version: 1
tenants:
  blue:
    quotas: { sessions: 1000, qps: 20000, cqs: 20000, event_queues: 4096, windows: 65536 }
    endpoints:
      a: { address: 10.0.0.1 }
      b: { address: 10.0.0.2 }
    rules:
      - { from: a, to: b, both_ways: true, action: allow }
";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench --write\n\n\
                        Namespaces and a bridge are made for TCP, which needs root."
)]
pub(crate) struct BenchArgs {
    /// Put the table into docs/benchmarks.md.
    #[arg(long)]
    write: bool,
    /// Leave out what needs root: TCP over a bridge.
    #[arg(long)]
    no_network: bool,
    /// Only rdma_cm.
    #[arg(long, conflicts_with = "write")]
    only_cm: bool,
    /// Only what masq adds to the start of a container.
    #[arg(long, conflicts_with_all = ["write", "only_cm"])]
    only_containers: bool,
    /// Only between two hosts.
    #[arg(long, conflicts_with_all = ["no_network", "only_cm", "only_containers"])]
    only_wire: bool,
    /// Only in guests, against rdma_rxe.
    #[arg(long, conflicts_with_all = ["no_network", "only_cm", "only_containers", "only_wire"])]
    only_guests: bool,
    /// Only masqd over cards of the kernel, in guests, against these cards.
    #[arg(long, conflicts_with_all = ["no_network", "only_cm", "only_containers", "only_wire", "only_guests"])]
    only_cards: bool,
    /// Which cards, with --only-cards.
    #[arg(long, value_enum, requires = "only_cards", default_values = ["rxe", "siw"])]
    card: Vec<Card>,
    /// Leave out guests, of which the first ones take long to make.
    #[arg(long)]
    no_guests: bool,
    /// Runs of each kind between hosts and in guests, taken in turns.
    #[arg(long, default_value_t = 5, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=99))]
    rounds: usize,
}

/// What TCP does between the namespaces.
#[derive(Clone, Copy, Debug)]
struct Tcp {
    latency: tools::Latency,
    /// 10^6 bytes a second of iperf3.
    megabytes: f64,
    connects: baseline::Connects,
}

pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    heading("Getting ready");
    setup::ensure_installed()?;
    let binaries = Binaries::at(&build::build()?)?;
    if args.only_cards {
        return cards::measure(&binaries, &args.card, args.rounds, args.write);
    }
    if args.only_wire {
        return wire::measure(&binaries, args.rounds, args.write);
    }
    if args.only_guests {
        return wire::measure_guests(&binaries, args.rounds, args.write);
    }
    let host = Host::launch(binaries.clone(), POLICY, &["--log", "warn"])?;
    let mut report = Report::new();
    if args.only_containers {
        heading("Containers");
        for row in containers::measure(&binaries)? {
            report.push(row);
        }
        say(&report.markdown());
        return Ok(());
    }

    heading("TCP over veth and a bridge");
    let tcp = if args.no_network {
        None
    } else {
        let network = network::Network::make()?;
        let measuring = step("sockperf, 14 B ping-pong");
        let latency = baseline::sockperf(&network)?;
        measuring.done(&format!("p50 {:.2} us", latency.p50));
        let measuring = step("iperf3, one stream");
        let bandwidth = baseline::iperf3(&network)?;
        measuring.done(&format!("{bandwidth:.0} MB/s"));
        let measuring = step("connecting, 5,000 times, then 1,000 at once");
        let connects = baseline::connects(&network, host.scratch())?;
        measuring.done(&format!(
            "p50 {:.1} us, {:.1} us each of many",
            connects.p50_us, connects.batch_us
        ));
        Some(Tcp {
            latency,
            megabytes: bandwidth,
            connects,
        })
    };

    let mut latency = None;
    if !args.only_cm {
        latency = Some(verbs(&host, tcp.as_ref(), &mut report)?);
    }

    heading("rdma_cm");
    for row in cm::measure(&binaries, tcp.as_ref())? {
        report.push(row);
    }
    if !args.only_cm && !args.no_network {
        heading("Containers");
        for row in containers::measure(&binaries)? {
            report.push(row);
        }
    }

    heading("In short");
    let markdown = report.markdown();
    say(&markdown);
    let out = build::target_dir()?.join("bench");
    fs::create_dir_all(&out).context("cannot make target/bench")?;
    fs::write(out.join("bench.md"), &markdown)?;
    fs::write(out.join("bench.json"), report.json()?)?;
    if let Some(latency) = latency {
        let mut series = vec![("masq", latency)];
        if let Some(tcp) = tcp {
            series.push(("TCP", tcp.latency));
        }
        plot::latency(&out.join("latency.svg"), &series)?;
    }
    say(&format!("written to {}", out.display()));
    if args.write {
        let file = masq_e2e::workspace().join("docs/benchmarks.md");
        report::write_into(&file, Document::Bench, &markdown)?;
        say("docs/benchmarks.md is updated");
    }
    if args.only_cm || args.no_network {
        return Ok(());
    }
    drop(host);
    wire::measure(&binaries, args.rounds, args.write)?;
    if args.no_guests {
        return Ok(());
    }
    wire::measure_guests(&binaries, args.rounds, args.write)
}

/// What verbs do, against TCP and memory.
fn verbs(host: &Host, tcp: Option<&Tcp>, report: &mut Report) -> anyhow::Result<tools::Latency> {
    heading("masq");
    let measuring = step("memcpy, 1 MiB between two shared mappings");
    let copy = memcpy::megabytes_per_second()?;
    measuring.done(&format!("{copy:.0} MB/s"));

    let measuring = step("ib_send_lat, 2 B");
    let latency = tools::latency(host, "ib_send_lat")?;
    measuring.done(&format!(
        "p50 {:.2} us, p99 {:.2}, p99.9 {:.2}",
        latency.p50, latency.p99, latency.p999
    ));
    let measuring = step("ib_write_bw, 64 KiB");
    let at_64k = tools::bandwidth(host, "ib_write_bw", 65_536, 40_000)?;
    measuring.done(&format!("{:.0} MB/s", at_64k.megabytes));
    let measuring = step("ib_write_bw, 1 MiB");
    let at_1m = tools::bandwidth(host, "ib_write_bw", 1 << 20, 5_000)?;
    measuring.done(&format!("{:.0} MB/s", at_1m.megabytes));
    let measuring = step("ib_write_bw, 2 B");
    let small = tools::bandwidth(host, "ib_write_bw", 2, 2_000_000)?;
    measuring.done(&format!("{:.2} M messages/s", small.million_messages));
    let measuring = step("control verbs");
    let control = tools::control(host)?;
    measuring.done(&format!(
        "median {:.2} us, {:.0} connections/s",
        control.verb_us, control.connections_per_second
    ));
    let measuring = step("system calls of ib_send_lat (strace)");
    let calls = tools::system_calls(host, "ib_send_lat")?;
    measuring.done(&format!(
        "{:.4} a message, and {:.2} sched_yield",
        calls.others, calls.yields
    ));
    let measuring = step("system calls of ib_write_lat (strace)");
    let memory_calls = tools::system_calls(host, "ib_write_lat")?;
    measuring.done(&format!(
        "{:.4} a message, and {:.2} sched_yield",
        memory_calls.others, memory_calls.yields
    ));
    let measuring = step("masqd with 200 idle sessions, then 1,000 queue pairs");
    let idle = daemon::idle(host)?;
    measuring.done(&format!(
        "{:.3} % of a core, {:.1} KiB a session, {:.1} KiB a queue pair",
        idle.cpu_percent, idle.kib_per_session, idle.kib_per_qp
    ));

    if let Some(tcp) = tcp {
        report.push(Row::ratio(
            "ib_send_lat 2 B, p50, against sockperf TCP",
            format!("{:.2} us", latency.p50),
            format!("{:.2} us", tcp.latency.p50),
            latency.p50 / tcp.latency.p50,
            Sense::AtMost(0.2, 0.1),
        ));
        report.push(Row::ratio(
            "ib_write_bw 64 KiB, against iperf3",
            format!("{:.0} MB/s", at_64k.megabytes),
            format!("{:.0} MB/s", tcp.megabytes),
            at_64k.megabytes / tcp.megabytes,
            Sense::AtLeast(3.0, 5.0),
        ));
    }
    report.push(Row::ratio(
        "ib_write_bw 1 MiB, against memcpy",
        format!("{:.0} MB/s", at_1m.megabytes),
        format!("{copy:.0} MB/s"),
        at_1m.megabytes / copy,
        Sense::AtLeast(0.7, 0.9),
    ));
    report.push(Row::value(
        "ib_write_bw 2 B, million messages a second",
        small.million_messages,
        Sense::AtLeast(1.0, 3.0),
    ));
    report.push(Row::value(
        "control verb, median, us",
        control.verb_us,
        Sense::AtMost(8.0, 8.0),
    ));
    report.push(Row::value(
        "connections set up a second",
        control.connections_per_second,
        Sense::AtLeast(5000.0, 5000.0),
    ));
    report.push(Row::value(
        "ib_send_lat (polls its CQ): system calls a message, without sched_yield",
        calls.others,
        Sense::AtMost(0.01, 0.0),
    ));
    report.push(Row::value(
        "ib_send_lat: sched_yield a message",
        calls.yields,
        Sense::Shown,
    ));
    report.push(Row::value(
        "ib_write_lat (polls memory, never yields): system calls a message",
        memory_calls.others,
        Sense::Shown,
    ));
    report.push(Row::value(
        "masqd with 200 idle sessions, % of a core",
        idle.cpu_percent,
        Sense::AtMost(0.5, 0.1),
    ));
    report.push(Row::value(
        "masqd, KiB an idle session",
        idle.kib_per_session,
        Sense::Shown,
    ));
    report.push(Row::value(
        "masqd, KiB a queue pair",
        idle.kib_per_qp,
        Sense::Shown,
    ));
    report.push(Row::value(
        "ib_send_lat 2 B, p99, us",
        latency.p99,
        Sense::Shown,
    ));
    report.push(Row::value(
        "ib_send_lat 2 B, p99.9, us",
        latency.p999,
        Sense::Shown,
    ));
    Ok(latency)
}
