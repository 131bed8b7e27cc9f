//! perftest's eight tools with the options that each one's `--help` lists.
//! They check no contents; `tests/opcodes.rs` does.

use masq_e2e::{Host, Pair};
use std::process::Command;
use std::time::Duration;

const BW: [&str; 4] = ["ib_send_bw", "ib_write_bw", "ib_read_bw", "ib_atomic_bw"];
const LAT: [&str; 4] = [
    "ib_send_lat",
    "ib_write_lat",
    "ib_read_lat",
    "ib_atomic_lat",
];

fn tools() -> impl Iterator<Item = &'static str> {
    BW.into_iter().chain(LAT)
}

/// Whether the tool's help lists the option.
fn lists(tool: &str, option: &str) -> bool {
    let out = Command::new(tool).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&out.stdout).into_owned();
    help.lines().any(|line| {
        let line = line.trim_start();
        line.strip_prefix(option)
            .is_some_and(|rest| rest.starts_with([',', ' ', '=']))
    })
}

fn run(host: &Host, tool: &str, args: &[&str]) -> anyhow::Result<()> {
    Pair::new(tool)
        .args(["-x", "3", "-F"])
        .args(args.iter().copied())
        .limit(Duration::from_secs(90))
        .run(host)?;
    Ok(())
}

/// Runs each tool that lists `option`; `expected` says how many do, so that a
/// changed help text is noticed.
fn run_all(option: &str, args: &[&str], expected: usize) -> anyhow::Result<()> {
    let host = Host::start()?;
    let tools: Vec<_> = tools().filter(|tool| lists(tool, option)).collect();
    assert_eq!(tools.len(), expected, "{option} is listed by {tools:?}");
    for tool in tools {
        // Atomics have one size, and refuse to be told it.
        let size = args.iter().position(|arg| *arg == "-s");
        match size.filter(|_| tool.contains("atomic")) {
            Some(at) => run(&host, tool, &[&args[..at], &args[at + 2..]].concat())?,
            None => run(&host, tool, args)?,
        }
    }
    host.wait_until_empty()
}

#[test]
fn every_tool_over_rc() -> anyhow::Result<()> {
    let host = Host::start()?;
    for tool in tools() {
        run(&host, tool, &["-n", "1000"])?;
    }
    host.wait_until_empty()
}

#[test]
fn send_and_write_over_uc() -> anyhow::Result<()> {
    let host = Host::start()?;
    for tool in ["ib_send_bw", "ib_send_lat", "ib_write_bw", "ib_write_lat"] {
        run(&host, tool, &["-c", "UC", "-n", "1000"])?;
    }
    host.wait_until_empty()
}

#[test]
fn send_over_ud() -> anyhow::Result<()> {
    let host = Host::start()?;
    for tool in ["ib_send_bw", "ib_send_lat"] {
        run(&host, tool, &["-c", "UD", "-n", "1000", "-s", "1024"])?;
    }
    host.wait_until_empty()
}

#[test]
fn send_to_a_multicast_group() -> anyhow::Result<()> {
    let host = Host::start()?;
    run(&host, "ib_send_lat", &["-c", "UD", "-g", "-n", "1000"])
}

#[test]
fn all_sizes() -> anyhow::Result<()> {
    run_all("-a", &["-a", "-n", "50"], 6)
}

#[test]
fn all_sizes_over_uc_and_ud() -> anyhow::Result<()> {
    let host = Host::start()?;
    run(&host, "ib_write_bw", &["-c", "UC", "-a", "-n", "50"])?;
    run(&host, "ib_send_bw", &["-c", "UC", "-a", "-n", "50"])?;
    run(&host, "ib_send_bw", &["-c", "UD", "-a", "-n", "50"])
}

#[test]
fn both_directions() -> anyhow::Result<()> {
    run_all("-b", &["-b", "-n", "1000"], 4)
}

#[test]
fn sleeping_on_events() -> anyhow::Result<()> {
    run_all("-e", &["-e", "-n", "1000"], 6)
}

#[test]
fn sleeping_on_events_over_uc_and_ud() -> anyhow::Result<()> {
    let host = Host::start()?;
    run(&host, "ib_send_bw", &["-c", "UC", "-e", "-n", "1000"])?;
    run(&host, "ib_send_lat", &["-c", "UD", "-e", "-n", "1000"])
}

#[test]
fn sixteen_queue_pairs() -> anyhow::Result<()> {
    run_all("-q", &["-q", "16", "-n", "500", "-s", "4096"], 4)
}

#[test]
fn for_a_time() -> anyhow::Result<()> {
    run_all("-D", &["-D", "3", "-f", "1"], 8)
}

#[test]
fn inline() -> anyhow::Result<()> {
    run_all("-I", &["-I", "64", "-s", "32", "-n", "1000"], 4)
}

#[test]
fn with_a_shared_receive_queue() -> anyhow::Result<()> {
    run_all("--use-srq", &["--use-srq", "-n", "1000"], 2)?;
    let host = Host::start()?;
    run(
        &host,
        "ib_send_bw",
        &["--use-srq", "-q", "8", "-n", "500", "-s", "2048"],
    )
}

#[test]
fn lists_of_work_requests() -> anyhow::Result<()> {
    run_all("-l", &["-l", "16", "-n", "1024", "-s", "256"], 4)
}

#[test]
fn huge_pages_where_the_machine_has_them() -> anyhow::Result<()> {
    let info = std::fs::read_to_string("/proc/meminfo")?;
    let free = info
        .lines()
        .find_map(|line| line.strip_prefix("HugePages_Free:"))
        .map_or(0, |n| n.trim().parse().unwrap_or(0));
    if free < 8 {
        eprintln!("no huge pages here ({free} free): nothing to prove");
        return Ok(());
    }
    run_all("--use_hugepages", &["--use_hugepages", "-n", "1000"], 8)
}

#[test]
fn by_ibv_wr_calls_with_inline_data() -> anyhow::Result<()> {
    let policy =
        std::fs::read_to_string(masq_e2e::workspace().join("policy/examples/two-tenants.yaml"))?;
    // perftest knows this part, and posts by ibv_wr_* and inline for it.
    let args = ["--vendor-id", "0x2c9", "--vendor-part-id", "4123"];
    let host = Host::launch(masq_e2e::Binaries::find()?, &policy, &args)?;
    for tool in tools() {
        let out = Pair::new(tool)
            .args(["-x", "3", "-F", "-n", "1000"])
            .run(&host)?;
        let line = out
            .client
            .output
            .lines()
            .find(|l| l.contains("ibv_wr* API"));
        let line = line.expect("perftest names its API");
        assert!(line.contains("ON"), "{}", out.client);
    }
    for tool in ["ib_send_bw", "ib_send_lat"] {
        run(&host, tool, &["-c", "UD", "-n", "1000", "-s", "1024"])?;
    }
    host.wait_until_empty()
}
