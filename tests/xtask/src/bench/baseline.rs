//! What TCP does between the namespaces.

use super::network::{Network, Side};
use super::tools::{self, Latency};
use anyhow::Context as _;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
const PORT: &str = "18600";

/// A core for each side, where TCP does best.
fn pinned(network: &Network, side: Side, program: &str) -> std::process::Command {
    let core = match side {
        Side::Server => "0",
        Side::Client => "1",
    };
    let mut command = network.command(side, "taskset");
    command.args(["-c", core, program]);
    command
}

/// Half round trips of 14 bytes, the least that sockperf sends.
pub(crate) fn sockperf(network: &Network) -> anyhow::Result<Latency> {
    let address = network.server();
    let mut server = pinned(network, Side::Server, "sockperf");
    server.args(["server", "--tcp", "-i", &address, "-p", PORT]);
    let server = masq_e2e::spawn(server)?;
    std::thread::sleep(Duration::from_millis(500));
    let mut client = pinned(network, Side::Client, "sockperf");
    client.args(["ping-pong", "--tcp", "-i", &address, "-p", PORT]);
    client.args(["-t", "4", "-m", "14"]);
    let out = masq_e2e::spawn(client)?.wait(LIMIT)?.success()?;
    drop(server);
    percentiles(&out.output)
}

pub(super) fn percentiles(output: &str) -> anyhow::Result<Latency> {
    let find = |name: &str| -> anyhow::Result<f64> {
        let line = output
            .lines()
            .find(|line| line.contains(&format!("percentile {name}")));
        let number = line.and_then(|line| line.rsplit('=').next()?.trim().parse().ok());
        number.with_context(|| format!("sockperf told no percentile {name}:\n{output}"))
    };
    Ok(Latency {
        p50: find("50.000")?,
        p99: find("99.000")?,
        p999: find("99.900")?,
    })
}

/// Megabytes (10^6) a second of one stream.
pub(crate) fn iperf3(network: &Network) -> anyhow::Result<f64> {
    let address = network.server();
    let mut server = pinned(network, Side::Server, "iperf3");
    server.args(["-s", "-1", "-B", &address]);
    let server = masq_e2e::spawn(server)?;
    std::thread::sleep(Duration::from_millis(500));
    let mut client = pinned(network, Side::Client, "iperf3");
    client.args(["-c", &address, "-t", "4", "-J"]);
    let out = masq_e2e::spawn(client)?.wait(LIMIT)?.success()?;
    drop(server);
    Ok(received(&out.output)?.1)
}

/// What iperf3's JSON says: bytes that arrived, and 10^6 of them a second.
pub(super) fn received(json: &str) -> anyhow::Result<(f64, f64)> {
    let value: serde_json::Value = serde_json::from_str(json)?;
    let sum = &value["end"]["sum_received"];
    let bits = sum["bits_per_second"].as_f64();
    let bytes = sum["bytes"].as_f64();
    let bytes = bytes.context("iperf3 told no bytes")?;
    Ok((bytes, bits.context("iperf3 told no rate")? / 8e6))
}

/// How TCP connects: one at a time, and all begun before the first is awaited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connects {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Of a batch: connecting alone, and with making the sockets.
    pub(crate) batch_us: f64,
    pub(crate) batch_all_us: f64,
}

/// Connections between the namespaces, by a program like that for rdma_cm.
pub(crate) fn connects(network: &Network, dir: &Path) -> anyhow::Result<Connects> {
    let program = masq_e2e::compile("tcp_connect", dir)?;
    let program = program.to_string_lossy();
    let address = network.server();
    let mut server = network.command(Side::Server, &program);
    server.args(["server", &address]);
    let server = masq_e2e::spawn(server)?;
    std::thread::sleep(Duration::from_millis(300));
    let mut client = network.command(Side::Client, &program);
    client.args(["client", "5000", &address]);
    let out = masq_e2e::spawn(client)?.wait(LIMIT)?.success()?;
    drop(server);
    let figure = |name: &str| tools::figure(&out, name);
    Ok(Connects {
        p50_us: figure("connect_p50_us")?,
        p99_us: figure("connect_p99_us")?,
        batch_us: figure("batch_connect_us")?,
        batch_all_us: figure("batch_all_us")?,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn percentiles_are_read_from_sockperf() {
        let text = "sockperf: ---> percentile 99.900 =   35.410\n\
                    sockperf: ---> percentile 99.000 =   22.000\n\
                    sockperf: ---> percentile 50.000 =   15.500\n";
        let latency = super::percentiles(text).unwrap();
        assert_eq!((latency.p50, latency.p999), (15.5, 35.41));
    }
}
