//! What a link gives: bandwidth, latency, and what they cost.

use super::cpu::Cpu;
use super::hosts::{Hosts, Port, Ready, Run};
use super::samples::Samples;
use crate::bench::baseline::{percentiles, received};
use crate::bench::report::{Row, Sense};
use crate::bench::tools::{cell, row};
use crate::progress::step;
use masq_e2e::Binaries;
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;

/// Writes of 64 KiB, some seconds of them.
const WRITES: u32 = 80_000;
const SIZE: u32 = 65_536;
const MTUS: [(u32, u32); 2] = [(9000, 4096), (1500, 1024)];
const GIB: f64 = (1u64 << 30) as f64;

/// What a GiB costs, in seconds of processor time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Spent {
    pub(crate) what: String,
    pub(crate) programs: f64,
    pub(crate) daemons: f64,
    pub(crate) machine: f64,
    pub(crate) softirq: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Link {
    pub(crate) rows: Vec<Row>,
    pub(crate) spent: Vec<Spent>,
}

pub(crate) fn measure(binaries: &Binaries, rounds: usize) -> anyhow::Result<Link> {
    let mut link = Link {
        rows: Vec::new(),
        spent: Vec::new(),
    };
    for (mtu, roce) in MTUS {
        let udp = Hosts::joined(binaries, Port::Udp, mtu)?;
        let raw = Hosts::joined(binaries, Port::Raw, mtu)?;
        bandwidth(&mut link, (&udp, &raw), (mtu, roce), rounds)?;
        if mtu == 9000 {
            latency(&mut link, (&udp, &raw), rounds)?;
            messages(&mut link, (&udp, &raw), rounds)?;
        }
    }
    Ok(link)
}

/// Costs of several runs.
#[derive(Default)]
struct Costs {
    programs: Samples,
    daemons: Samples,
    machine: Samples,
    softirq: Samples,
}

impl Costs {
    fn push(&mut self, cpu: Cpu, bytes: f64) {
        let per_gib = |seconds: f64| seconds * GIB / bytes;
        self.programs.push(per_gib(cpu.programs));
        self.daemons.push(per_gib(cpu.daemons));
        self.machine.push(per_gib(cpu.machine));
        self.softirq.push(per_gib(cpu.softirq));
    }

    fn spent(&self, what: String) -> Spent {
        Spent {
            what,
            programs: self.programs.median(),
            daemons: self.daemons.median(),
            machine: self.machine.median(),
            softirq: self.softirq.median(),
        }
    }
}

fn bandwidth(
    link: &mut Link,
    (udp, raw): (&Hosts, &Hosts),
    (mtu, roce): (u32, u32),
    rounds: usize,
) -> anyhow::Result<()> {
    let contestants = ["masq, udp", "masq, raw", "iperf3"];
    let mut rates: [Samples; 3] = Default::default();
    let mut costs: [Costs; 3] = Default::default();
    let measuring = step(&format!(
        "ib_write_bw 64 KiB and iperf3, interface MTU {mtu}"
    ));
    for _ in 0..rounds {
        let runs = [writes(udp, roce)?, writes(raw, roce)?, stream(udp, 4)?];
        for ((rates, costs), run) in rates.iter_mut().zip(&mut costs).zip(runs) {
            rates.push(run.megabytes);
            costs.push(run.cpu, run.bytes);
        }
    }
    let [by_udp, by_raw, tcp] = &rates;
    measuring.done(&format!(
        "{} by udp, {} by raw, {} by TCP",
        by_udp.told(0, "MB/s"),
        by_raw.told(0, "MB/s"),
        tcp.told(0, "MB/s")
    ));
    for (port, ours) in [(Port::Udp, by_udp), (Port::Raw, by_raw)] {
        let sense = match mtu {
            9000 => Sense::AtLeast(0.7, 1.0),
            _ => Sense::Shown,
        };
        link.rows.push(Row::ratio(
            format!(
                "ib_write_bw 64 KiB, RoCE MTU {roce}, interface MTU {mtu}, `--port {}`, against iperf3",
                port.name()
            ),
            ours.told(0, "MB/s"),
            tcp.told(0, "MB/s"),
            ours.median() / tcp.median(),
            sense,
        ));
    }
    for (what, costs) in contestants.iter().zip(&costs) {
        link.spent
            .push(costs.spent(format!("{what}, interface MTU {mtu}")));
    }
    Ok(())
}

/// A transfer.
struct Moved {
    /// 10^6 bytes a second, as the program tells.
    megabytes: f64,
    bytes: f64,
    cpu: Cpu,
}

fn writes(hosts: &Hosts, roce: u32) -> anyhow::Result<Moved> {
    let (size, count, mtu) = (SIZE.to_string(), WRITES.to_string(), roce.to_string());
    let words = ["ib_write_bw", "-x", "3", "-F", "-N", "-s", &size];
    let run = hosts.perftest(&[&words[..], &["-n", &count, "-m", &mtu]].concat())?;
    Ok(Moved {
        megabytes: rate(&run)?,
        bytes: f64::from(WRITES) * f64::from(SIZE),
        cpu: run.cpu,
    })
}

/// 10^6 bytes a second of a perftest for bandwidth, which says MB and means MiB.
pub(super) fn rate(run: &Run) -> anyhow::Result<f64> {
    Ok(cell(&row(&run.client)?, 3)? * 1.048_576)
}

/// iperf3, one stream.
fn stream(hosts: &Hosts, seconds: u32) -> anyhow::Result<Moved> {
    const PORT: u16 = 5201;
    let client = format!("iperf3 -c {{server}} -t {seconds} -J");
    let run = hosts.plain("iperf3 -s -1", &client, Ready::Listens(PORT))?;
    let (bytes, megabytes) = received(&run.client.output)?;
    Ok(Moved {
        megabytes,
        bytes,
        cpu: run.cpu,
    })
}

const LATENCIES: [(&str, &str); 3] = [
    ("ib_send_lat", "ib_send_lat 2 B, p50"),
    ("ib_write_lat", "ib_write_lat 2 B, p50"),
    ("ib_read_lat", "ib_read_lat 2 B, p50, the whole round trip"),
];

fn latency(link: &mut Link, (udp, raw): (&Hosts, &Hosts), rounds: usize) -> anyhow::Result<()> {
    let measuring = step("ib_send_lat, ib_write_lat, ib_read_lat, sockperf");
    let mut ours: [[Samples; 2]; 3] = Default::default();
    let mut tails: [Samples; 3] = Default::default();
    let mut sockperf = Samples::default();
    for _ in 0..rounds {
        for ((tool, _), samples) in LATENCIES.iter().zip(&mut ours) {
            for (samples, hosts) in samples.iter_mut().zip([udp, raw]) {
                let words = [*tool, "-x", "3", "-F", "-s", "2", "-n", "30000"];
                let run = hosts.perftest(&words)?;
                let row = row(&run.client)?;
                samples.push(cell(&row, 4)?);
                if *tool == "ib_send_lat" {
                    let tail = usize::from(std::ptr::eq(hosts, raw));
                    if let Some(tail) = tails.get_mut(tail) {
                        tail.push(cell(&row, 7)?);
                    }
                }
            }
        }
        let run = udp.plain(
            "sockperf server -i {server} -p 18600",
            "sockperf ping-pong -i {server} -p 18600 -t 2 -m 14",
            Ready::After(Duration::from_millis(500)),
        )?;
        let told = percentiles(&run.client.output)?;
        sockperf.push(told.p50);
        if let Some(tail) = tails.last_mut() {
            tail.push(told.p99);
        }
    }
    measuring.done(&format!(
        "ib_send_lat by udp {}, sockperf {}",
        ours.first()
            .and_then(|ports| ports.first())
            .map_or_else(String::new, |s| s.told(1, "us")),
        sockperf.told(1, "us")
    ));
    for ((tool, what), samples) in LATENCIES.iter().zip(&ours) {
        for (samples, port) in samples.iter().zip([Port::Udp, Port::Raw]) {
            link.rows.push(Row::ratio(
                format!("{what}, `--port {}`, against sockperf UDP", port.name()),
                samples.told(1, "us"),
                sockperf.told(1, "us"),
                samples.median() / sockperf.median(),
                match *tool {
                    "ib_send_lat" => Sense::AtMost(1.3, 1.0),
                    _ => Sense::Shown,
                },
            ));
        }
    }
    let [by_udp, by_raw, plain] = &tails;
    for (samples, port) in [(by_udp, Port::Udp), (by_raw, Port::Raw)] {
        link.rows.push(Row::ratio(
            format!(
                "ib_send_lat 2 B, p99, `--port {}`, against sockperf UDP",
                port.name()
            ),
            samples.told(1, "us"),
            plain.told(1, "us"),
            samples.median() / plain.median(),
            Sense::Shown,
        ));
    }
    Ok(())
}

fn messages(link: &mut Link, (udp, raw): (&Hosts, &Hosts), rounds: usize) -> anyhow::Result<()> {
    let measuring = step("ib_write_bw 2 B, ib_send_bw 2 B");
    let mut told = Vec::new();
    for tool in ["ib_write_bw", "ib_send_bw"] {
        let mut rates: [Samples; 2] = Default::default();
        for _ in 0..rounds {
            for (rates, hosts) in rates.iter_mut().zip([udp, raw]) {
                let words = [tool, "-x", "3", "-F", "-N", "-s", "2", "-n", "400000"];
                let run = hosts.perftest(&words)?;
                rates.push(cell(&row(&run.client)?, 4)?);
            }
        }
        for (rates, port) in rates.iter().zip([Port::Udp, Port::Raw]) {
            told.push(format!(
                "{tool} by {} {}",
                port.name(),
                rates.told(2, "M/s")
            ));
            link.rows.push(Row::ratio(
                format!(
                    "{tool} 2 B, `--port {}`, million messages a second",
                    port.name()
                ),
                rates.told(2, "M/s"),
                String::new(),
                rates.median(),
                Sense::Shown,
            ));
        }
    }
    measuring.done(&told.join(", "));
    Ok(())
}

/// The table of processor time.
pub(crate) fn costs(spent: &[Spent]) -> String {
    let mut out = String::from(
        "Processor time of both ends, seconds a GiB moved:\n\n\
         | | programs | masqds | programs and masqds | whole machine | of that soft interrupts |\n\
         |---|---|---|---|---|---|\n",
    );
    for s in spent {
        let _ = writeln!(
            out,
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            s.what,
            s.programs,
            s.daemons,
            s.programs + s.daemons,
            s.machine,
            s.softirq
        );
    }
    out
}
