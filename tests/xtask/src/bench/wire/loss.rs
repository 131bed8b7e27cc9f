//! What arrives where packets are lost.

use super::hosts::{Hosts, Port, Ready};
use super::link::rate;
use super::samples::Samples;
use crate::bench::baseline::received;
use crate::bench::plot;
use crate::progress::step;
use anyhow::Context as _;
use masq_e2e::Binaries;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// Lost packets of a thousand, each way.
const RATES: [u32; 4] = [0, 1, 10, 50];
const MTUS: [(u32, u32); 2] = [(9000, 4096), (1500, 1024)];
const MASQ: &str = "udp dport 4791";
/// Only the stream, not what iperf3 says besides.
const TCP: [&str; 2] = ["tcp dport 5300", "tcp sport 5300"];
/// Runs of each: what loss does varies little, and silence takes its time.
const MOST_ROUNDS: usize = 3;

/// One line: 10^6 bytes a second that arrived.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Loss {
    pub(crate) mtu: u32,
    pub(crate) per_mille: u32,
    pub(crate) masq: f64,
    pub(crate) tcp: f64,
    told: [String; 2],
}

pub(crate) fn measure(binaries: &Binaries, rounds: usize) -> anyhow::Result<Vec<Loss>> {
    let mut losses = Vec::new();
    for (mtu, roce) in MTUS {
        let hosts = Hosts::over_bridge(binaries, Port::Udp, mtu)?;
        for per_mille in RATES {
            let measuring = step(&format!(
                "{} % loss, interface MTU {mtu}",
                f64::from(per_mille) / 10.0
            ));
            let (mut masq, mut tcp) = (Samples::default(), Samples::default());
            for _ in 0..rounds.min(MOST_ROUNDS) {
                hosts.lose(per_mille, &[MASQ])?;
                masq.push(writes(&hosts, roce)?);
                hosts.lose(per_mille, &TCP)?;
                tcp.push(stream(&hosts)?);
            }
            let told = [masq.told(1, "MB/s"), tcp.told(1, "MB/s")];
            measuring.done(&format!("masq {}, TCP {}", told[0], told[1]));
            losses.push(Loss {
                mtu,
                per_mille,
                masq: masq.median(),
                tcp: tcp.median(),
                told,
            });
        }
    }
    Ok(losses)
}

/// The middle of four seconds.
fn writes(hosts: &Hosts, roce: u32) -> anyhow::Result<f64> {
    let mtu = roce.to_string();
    let words = ["ib_write_bw", "-x", "3", "-F", "-s", "65536", "-m", &mtu];
    let run = hosts.perftest(&[&words[..], &["-D", "4", "-f", "1"]].concat())?;
    rate(&run)
}

/// Without the first second, which perftest leaves out too.
fn stream(hosts: &Hosts) -> anyhow::Result<f64> {
    let run = hosts.plain(
        "iperf3 -s -1",
        "iperf3 -c {server} --cport 5300 -t 3 -O 1 -J",
        Ready::Listens(5201),
    )?;
    let (_, megabytes) = received(&run.client.output)?;
    Ok(megabytes)
}

pub(crate) fn table(losses: &[Loss]) -> String {
    let mut out = String::from(
        "Goodput where packets are lost, ib_write_bw 64 KiB (`--port udp`) against iperf3:\n\n\
         | Interface MTU | Lost, each way | masq | TCP | masq / TCP |\n|---|---|---|---|---|\n",
    );
    for loss in losses {
        let [masq, tcp] = &loss.told;
        let _ = writeln!(
            out,
            "| {} | {} % | {masq} | {tcp} | {:.2} |",
            loss.mtu,
            f64::from(loss.per_mille) / 10.0,
            loss.masq / loss.tcp
        );
    }
    out
}

pub(crate) fn plot(file: &Path, losses: &[Loss]) -> anyhow::Result<()> {
    let groups: Vec<_> = RATES
        .iter()
        .map(|per_mille| format!("{} %", f64::from(*per_mille) / 10.0))
        .collect();
    let mut series = Vec::new();
    for (mtu, _) in MTUS {
        let of = |pick: fn(&Loss) -> f64| -> Vec<f64> {
            let lines = losses.iter().filter(|loss| loss.mtu == mtu);
            lines.map(pick).collect()
        };
        series.push((format!("masq, MTU {mtu}"), of(|loss| loss.masq)));
        series.push((format!("TCP, MTU {mtu}"), of(|loss| loss.tcp)));
    }
    let bars = plot::Bars {
        caption: "Goodput where packets are lost",
        unit: "MB/s",
        groups,
        series,
    };
    plot::bars(file, &bars).context("the picture of losses")
}
