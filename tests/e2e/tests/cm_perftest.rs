//! perftest's tools with `-R`: rdma_cm connects them, on a port of the
//! endpoint's own.

use masq_e2e::{Host, Meeting};
use std::time::Duration;

/// perftest's server listens anew for each further connection, and its client does not
/// wait for that: where both share a core with others it may find nobody listening, which
/// is reason 8 as with a card, and ends there. So a meeting that missed is held again.
fn run(host: &Host, tool: &str, args: &str) -> anyhow::Result<()> {
    const MISSED: &str = "RDMA_CM_EVENT_REJECTED; error: 8.";
    let server = format!("{tool} -R -F {args}");
    let meeting = Meeting::new(&server, &format!("{server} 10.0.0.1"));
    let meeting = meeting.limit(Duration::from_secs(120));
    for _ in 0..4 {
        match meeting.run(host) {
            Err(error) if error.to_string().contains(MISSED) => host.wait_until_empty()?,
            result => return result.map(drop),
        }
    }
    meeting.run(host).map(drop)
}

#[test]
fn every_tool_connects_by_rdma_cm() -> anyhow::Result<()> {
    let host = Host::start()?;
    for tool in [
        "ib_send_bw",
        "ib_write_bw",
        "ib_read_bw",
        "ib_atomic_bw",
        "ib_send_lat",
        "ib_write_lat",
        "ib_read_lat",
        "ib_atomic_lat",
    ] {
        run(&host, tool, "-n 1000")?;
    }
    host.wait_until_empty()
}

#[test]
fn several_queue_pairs_and_both_directions() -> anyhow::Result<()> {
    let host = Host::start()?;
    run(&host, "ib_write_bw", "-n 1000 -q 4")?;
    run(&host, "ib_send_bw", "-n 1000 -b")?;
    run(&host, "ib_send_bw", "-n 500 -a")?;
    host.wait_until_empty()
}

#[test]
fn datagrams_find_their_peer_by_rdma_cm() -> anyhow::Result<()> {
    let host = Host::start()?;
    run(&host, "ib_send_lat", "-c UD -n 1000 -s 512")?;
    run(&host, "ib_send_bw", "-c UD -n 1000 -s 512")?;
    host.wait_until_empty()
}
