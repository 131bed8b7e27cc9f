//! The library's queues, events and memory under load, with the real daemon.

use masq_e2e::{Host, compile};
use std::time::Duration;

fn run(host: &Host, name: &str, args: &[&str]) -> anyhow::Result<()> {
    let program = compile(name, host.scratch())?;
    let running = host.start_as("blue/a", &program, args)?;
    running.wait(Duration::from_secs(110))?.success()?;
    host.wait_until_empty()
}

#[test]
fn queues_keep_their_rules_at_their_limits() -> anyhow::Result<()> {
    run(&Host::start()?, "queue_edges", &[])
}

#[test]
fn no_wake_up_is_lost() -> anyhow::Result<()> {
    let host = Host::start()?;
    run(&host, "wakeups", &["20000", "0", "block"])?;
    run(&host, "wakeups", &["20000", "0", "nonblock"])
}

#[test]
fn no_kick_is_lost_while_the_device_falls_asleep() -> anyhow::Result<()> {
    run(&Host::start()?, "wakeups", &["5000", "200", "block"])
}

#[test]
fn each_kind_of_memory_is_source_and_destination() -> anyhow::Result<()> {
    run(&Host::start()?, "memory_kinds", &[])
}

#[test]
fn the_data_path_allocates_nothing_and_calls_only_to_yield_or_kick() -> anyhow::Result<()> {
    run(&Host::start()?, "steady", &[])
}

#[test]
fn threads_share_queues_while_all_else_changes() -> anyhow::Result<()> {
    run(&Host::start()?, "contention", &[])
}

#[test]
fn a_process_has_more_channels_than_a_connection_has_queues() -> anyhow::Result<()> {
    let policy = "
version: 1
tenants:
  blue:
    quotas: { event_queues: 512 }
    endpoints:
      a: { address: 10.0.0.1, quotas: { event_queues: 512 } }
";
    run(&Host::with_policy(policy)?, "many", &["320", "1000"])
}
