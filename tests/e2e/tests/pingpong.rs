//! The four pingpongs of rdma-core, which check contents with `-c`.

use masq_e2e::{Host, Pair};

/// Bytes, with fewer rounds for large ones.
const SIZES: [(u32, u32); 7] = [
    (1, 1000),
    (7, 1000),
    (64, 1000),
    (4096, 1000),
    (65_536, 300),
    (1 << 20, 50),
    (16 << 20, 8),
];
/// A datagram is at most the port's MTU.
const UD_SIZES: [(u32, u32); 5] = [
    (1, 1000),
    (64, 1000),
    (1024, 1000),
    (2048, 1000),
    (4096, 1000),
];

fn run(
    host: &Host,
    program: &str,
    (size, rounds): (u32, u32),
    more: &[&str],
) -> anyhow::Result<()> {
    let size = size.to_string();
    let rounds = rounds.to_string();
    Pair::new(program)
        .args(["-g", "3", "-c", "-s", &size, "-n", &rounds])
        .args(more.iter().copied())
        .run(host)?;
    Ok(())
}

#[test]
fn ibv_rc_pingpong_sizes() -> anyhow::Result<()> {
    let host = Host::start()?;
    for size in SIZES {
        run(&host, "ibv_rc_pingpong", size, &[])?;
        run(&host, "ibv_rc_pingpong", size, &["-e"])?;
    }
    host.wait_until_empty()
}

#[test]
fn ibv_rc_pingpong_by_ibv_wr_and_with_timestamps() -> anyhow::Result<()> {
    let host = Host::start()?;
    run(&host, "ibv_rc_pingpong", (4096, 1000), &["-N"])?;
    // Not with -e: the tool takes an event whose completion it has polled
    // already for a failure, on any device.
    run(&host, "ibv_rc_pingpong", (4096, 1000), &["-t"])
}

#[test]
fn ibv_uc_pingpong_sizes() -> anyhow::Result<()> {
    let host = Host::start()?;
    for size in SIZES {
        run(&host, "ibv_uc_pingpong", size, &[])?;
        run(&host, "ibv_uc_pingpong", size, &["-e"])?;
    }
    host.wait_until_empty()
}

#[test]
fn ibv_ud_pingpong_sizes() -> anyhow::Result<()> {
    let host = Host::start()?;
    for size in UD_SIZES {
        run(&host, "ibv_ud_pingpong", size, &[])?;
        run(&host, "ibv_ud_pingpong", size, &["-e"])?;
    }
    host.wait_until_empty()
}

#[test]
fn ibv_srq_pingpong_sizes() -> anyhow::Result<()> {
    let host = Host::start()?;
    for (size, rounds) in SIZES {
        // Rounds are of each of 16 queue pairs.
        let rounds = rounds.div_ceil(8);
        run(&host, "ibv_srq_pingpong", (size, rounds), &[])?;
        run(&host, "ibv_srq_pingpong", (size, rounds), &["-e"])?;
    }
    host.wait_until_empty()
}

#[test]
fn an_endpoint_may_reach_itself() -> anyhow::Result<()> {
    let host = Host::start()?;
    Pair::new("ibv_rc_pingpong")
        .args(["-g", "3", "-c"])
        .between("red/a", "red/a")
        .run(&host)?;
    Ok(())
}
