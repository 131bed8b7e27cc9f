//! The parts of rdma_cm that no tool uses, by C programs of ours that are
//! linked with the distribution's librdmacm.

use masq_e2e::{Host, compile};
use std::time::Duration;

const TWO_FAMILIES: &str = "
version: 1
tenants:
  blue:
    endpoints: { a: { address: 10.0.0.1 }, v6: { address: \"fd00::1\" } }
";

fn part(what: &str) -> anyhow::Result<()> {
    let host = Host::with_policy(TWO_FAMILIES)?;
    let program = compile("cm_api", host.scratch())?;
    for (endpoint, address) in [("blue/a", "10.0.0.1"), ("blue/v6", "fd00::1")] {
        let out = host
            .run_as(endpoint, &program, [what, address])?
            .success()?;
        assert!(out.output.contains(&format!("ok {what}")), "{out}");
        host.wait_until_empty()?;
    }
    Ok(())
}

#[test]
fn nonblocking_channels_are_polled_with_epoll() -> anyhow::Result<()> {
    part("epoll")
}

#[test]
fn an_id_migrates_with_the_events_that_wait_for_it() -> anyhow::Result<()> {
    part("migrate")
}

#[test]
fn options_are_kept_and_wrong_ones_refused() -> anyhow::Result<()> {
    part("options")
}

#[test]
fn endpoints_work_without_an_event_channel() -> anyhow::Result<()> {
    part("create_ep")
}

#[test]
fn notify_establishes_a_connection_whose_rtu_is_late() -> anyhow::Result<()> {
    part("notify")
}

#[test]
fn a_rejection_carries_private_data() -> anyhow::Result<()> {
    part("reject")
}

#[test]
fn private_data_reaches_both_sides_whole() -> anyhow::Result<()> {
    part("private_data")
}

#[test]
fn a_full_backlog_rejects_and_recovers() -> anyhow::Result<()> {
    part("backlog")
}

#[test]
fn a_close_in_every_state_is_heard_by_the_other_side() -> anyhow::Result<()> {
    let host = Host::start()?;
    let program = compile("cm_close", host.scratch())?;
    let out = host
        .start_as("blue/a", &program, ["all"])?
        .wait(Duration::from_secs(110))?
        .success()?;
    assert!(out.output.contains("ok 17 states"), "{out}");
    host.wait_until_empty()
}

#[test]
fn bad_commands_end_with_the_errno_of_the_kernel() -> anyhow::Result<()> {
    let host = Host::start()?;
    let program = compile("cm_raw", host.scratch())?;
    let out = host
        .run_as("blue/a", &program, [] as [&str; 0])?
        .success()?;
    assert!(out.output.ends_with("ok\n"), "{out}");
    host.wait_until_empty()
}
