//! Memory that cannot be shared, on a device that reaches the process and as on one that
//! does not.

use masq_e2e::{Host, Meeting, Pair, compile, wait_for_words};
use std::time::Duration;

/// Programs find a device that reaches nothing but the shared file, as a card.
fn as_a_card() -> anyhow::Result<Host> {
    let mut host = Host::start()?;
    host.set_env("MASQ_REMOTE_MEMORY", "off");
    Ok(host)
}

fn run(host: &Host, name: &str) -> anyhow::Result<()> {
    let program = compile(name, host.scratch())?;
    let running = host.start_as("blue/a", &program, [""; 0])?;
    running.wait(Duration::from_secs(60))?.success()?;
    host.wait_until_empty()
}

#[test]
fn small_buffers_keep_their_contents_and_their_neighbours() -> anyhow::Result<()> {
    run(&Host::start()?, "stand_ins")
}

#[test]
fn small_buffers_keep_their_contents_on_a_device_that_reaches_no_process() -> anyhow::Result<()> {
    run(&as_a_card()?, "stand_ins")
}

/// How many bytes of each region masqd reaches through the process.
fn reached_through_the_process(host: &Host) -> anyhow::Result<Vec<(u64, u64)>> {
    let program = compile("stand_ins", host.scratch())?;
    let mut running = host.start_as("blue/a", &program, ["hold"])?;
    wait_for_words(&mut running, "held")?;
    let (sessions, _) = host.endpoint("blue/a")?;
    let mrs = sessions.iter().flat_map(|session| &session.memory_regions);
    let mut found: Vec<_> = mrs.map(|mr| (mr.len, mr.remote_bytes)).collect();
    found.sort_unstable();
    Ok(found)
}

#[test]
fn only_regions_that_peers_name_are_reached_through_the_process() -> anyhow::Result<()> {
    let found = reached_through_the_process(&Host::start()?)?;
    assert_eq!(found, [(60, 0), (61, 61)]);
    let found = reached_through_the_process(&as_a_card()?)?;
    assert_eq!(found, [(60, 0), (61, 0)]);
    Ok(())
}

#[test]
fn nothing_is_moved_and_all_contents_are_right() -> anyhow::Result<()> {
    let mut host = Host::start()?;
    host.set_env("MASQ_MOVE", "off");
    run(&host, "stand_ins")?;
    run(&host, "memory_kinds")?;
    host.set_env("MASQ_REMOTE_MEMORY", "off");
    run(&host, "stand_ins")?;
    run(&host, "memory_kinds")
}

#[test]
fn each_kind_of_memory_may_be_named_by_peers_of_a_card() -> anyhow::Result<()> {
    run(&as_a_card()?, "memory_kinds")
}

#[test]
fn pingpongs_check_small_buffers_on_a_card() -> anyhow::Result<()> {
    let host = as_a_card()?;
    for program in [
        "ibv_rc_pingpong",
        "ibv_uc_pingpong",
        "ibv_ud_pingpong",
        "ibv_srq_pingpong",
    ] {
        for more in [&["-s", "100"][..], &["-s", "1500", "-e"]] {
            Pair::new(program)
                .args(["-g", "3", "-c", "-n", "500"])
                .args(more.iter().copied())
                .run(&host)?;
        }
    }
    for more in ["-N", "-t"] {
        Pair::new("ibv_rc_pingpong")
            .args(["-g", "3", "-c", "-s", "100", "-n", "500", more])
            .run(&host)?;
    }
    host.wait_until_empty()
}

#[test]
fn rdma_cms_tools_run_on_a_card() -> anyhow::Result<()> {
    let host = as_a_card()?;
    for (server, client) in [
        (
            "rping -s -a 10.0.0.1 -v -V -C 100",
            "rping -c -a 10.0.0.1 -v -V -C 100",
        ),
        (
            "rping -s -a 10.0.0.1 -v -V -C 100 -S 4000",
            "rping -c -a 10.0.0.1 -v -V -C 100 -S 4000",
        ),
        ("ucmatose -C 100", "ucmatose -s 10.0.0.1 -C 100"),
        ("udaddy -C 100", "udaddy -s 10.0.0.1 -C 100"),
    ] {
        Meeting::new(server, client).run(&host)?;
    }
    host.wait_until_empty()
}
