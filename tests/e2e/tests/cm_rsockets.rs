//! Sockets over RDMA: the tools of librdmacm, which verify what they receive,
//! and a file that is compared afterwards.

use masq_e2e::{Host, Meeting, PairOutput};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

fn meet(host: &Host, server: &str, client: &str) -> anyhow::Result<PairOutput> {
    Meeting::new(server, client)
        .limit(Duration::from_secs(400))
        .run(host)
}

/// How many lines of measurements it printed.
fn rows(out: &PairOutput) -> usize {
    let is_row = |line: &&str| line.contains("_lat") || line.contains("_bw");
    out.client.output.lines().filter(is_row).count()
}

#[test]
fn rstream_verifies_all_sizes_in_each_way_of_waiting() -> anyhow::Result<()> {
    let host = Host::start()?;
    for way in ["b", "a", "n", "r"] {
        let common = format!("-S all -T v -T {way}");
        let out = meet(
            &host,
            &format!("rstream {common}"),
            &format!("rstream -s 10.0.0.1 {common}"),
        )?;
        assert!(rows(&out) >= 20, "-T {way}: {}", out.client);
    }
    host.wait_until_empty()
}

#[test]
fn rstream_with_its_own_sizes_and_buffers() -> anyhow::Result<()> {
    let host = Host::start()?;
    for common in [
        "",
        "-S 1 -I 1000 -C 10 -T v",
        "-S 100001 -I 10 -C 20 -T v",
        "-S 65536 -I 4 -C 100 -B 16384 -T v",
        "-i 0 -S 512 -I 100 -C 10 -T v",
        "-i 256 -S 512 -I 100 -C 10 -T v",
        "-k 5 -S 512 -I 100 -C 10 -T v",
        "-f ip -S 512 -I 100 -C 10 -T v",
    ] {
        meet(
            &host,
            &format!("rstream {common}"),
            &format!("rstream -s 10.0.0.1 {common}"),
        )?;
    }
    host.wait_until_empty()
}

/// `-T f` serves in a child, by sockets of the host: with librspreload they
/// become rsockets there (tests/rspreload.rs). Without, it shows that programs
/// that are linked with the library fork as they please.
#[test]
fn rstream_serves_in_a_child() -> anyhow::Result<()> {
    let host = Host::start()?;
    let port = masq_e2e::free_port()?;
    let common = format!("-p {port} -S 4096 -I 100 -C 10 -T v");
    let server = format!("-b 127.0.0.1 -T f {common}");
    let mut server = host.start_as("blue/a", "rstream", server.split(' '))?;
    masq_e2e::wait_for_listener(port, Duration::from_secs(20), || server.is_running())?;
    let client = format!("-s 127.0.0.1 -T s {common}");
    host.run_as("blue/b", "rstream", client.split(' '))?
        .success()?;
    Ok(())
}

#[test]
fn riostream_writes_into_its_peer_and_verifies() -> anyhow::Result<()> {
    let host = Host::start()?;
    for way in ["b", "a", "n"] {
        let common = format!("-S all -T v -T {way}");
        let out = meet(
            &host,
            &format!("riostream {common}"),
            &format!("riostream -s 10.0.0.1 {common}"),
        )?;
        assert!(rows(&out) >= 10, "-T {way}: {}", out.client);
    }
    host.wait_until_empty()
}

/// Bytes that repeat nowhere soon (xorshift).
fn fill(file: &Path, len: u64) -> anyhow::Result<()> {
    let mut to = BufWriter::with_capacity(1 << 20, File::create(file)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..len / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        to.write_all(&state.to_le_bytes())?;
    }
    // A tail that is no multiple of anything.
    let tail = usize::try_from(len % 8)?;
    to.write_all(&state.to_le_bytes()[..tail])?;
    to.flush()?;
    Ok(())
}

fn same(a: &Path, b: &Path) -> anyhow::Result<bool> {
    if fs::metadata(a)?.len() != fs::metadata(b)?.len() {
        return Ok(false);
    }
    let mut a = BufReader::with_capacity(1 << 20, File::open(a)?);
    let mut b = BufReader::with_capacity(1 << 20, File::open(b)?);
    let (mut x, mut y) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let n = a.read(&mut x)?;
        if n == 0 {
            return Ok(true);
        }
        b.read_exact(&mut y[..n])?;
        if x[..n] != y[..n] {
            return Ok(false);
        }
    }
}

#[test]
fn rcopy_copies_a_gibibyte_byte_for_byte() -> anyhow::Result<()> {
    let host = Host::start()?;
    let meeting = Meeting::new("rcopy", "");
    let mut server = meeting.start_server(&host)?;
    let (from, to) = (host.scratch().join("from"), host.scratch().join("to"));
    // The server serves one after another.
    for len in [1, 4095, (1 << 20) + 3, (1 << 30) + 7] {
        fill(&from, len)?;
        let _ = fs::remove_file(&to);
        let destination = format!("10.0.0.1:{}", to.display());
        let args = [from.as_os_str(), destination.as_ref()];
        host.start_as("blue/b", "rcopy", args)?
            .wait(Duration::from_secs(400))?
            .success()?;
        assert!(same(&from, &to)?, "{len} bytes are not the same");
    }
    assert!(server.is_running(), "{}", server.output());
    drop(server);
    host.wait_until_empty()
}
