//! TCP ports of the programs' out-of-band exchange.

use anyhow::{Context as _, bail};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// A port that nobody listens on now.
///
/// # Errors
/// The host has none left.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Waits until somebody listens on `port`, without connecting: the programs
/// accept one connection only. `alive` says whether waiting still makes sense.
///
/// # Errors
/// Nobody does within `limit`, or `alive` says no.
pub fn wait_for_listener(
    port: u16,
    limit: Duration,
    alive: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    wait_for_listener_in(Path::new("/proc/net"), port, limit, alive)
}

/// As [`wait_for_listener`], in the network namespace whose tables are in `net`
/// (`/proc/PID/net`).
///
/// # Errors
/// As [`wait_for_listener`].
pub fn wait_for_listener_in(
    net: &Path,
    port: u16,
    limit: Duration,
    mut alive: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    while !is_listening(net, port) {
        if !alive() {
            bail!("the server ended before it listened on port {port}");
        }
        if Instant::now() > end {
            bail!("nobody listens on port {port} after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn is_listening(net: &Path, port: u16) -> bool {
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(net.join(table)).ok())
        .any(|table| table.lines().skip(1).any(|line| listens(line, port)))
}

/// Whether a line of `/proc/net/tcp` is a listener on `port`.
fn listens(line: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let mut words = line.split_ascii_whitespace();
    let local = words.nth(1).unwrap_or_default();
    let state = words.nth(1).unwrap_or_default();
    let number = local.rsplit(':').next().unwrap_or_default();
    state == LISTEN && u16::from_str_radix(number, 16) == Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_seen_without_connecting_to_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        wait_for_listener(port, Duration::from_secs(5), || true).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "somebody connected");
    }

    #[test]
    fn waiting_ends_when_the_server_has_ended() {
        let port = free_port().unwrap();
        let error = wait_for_listener(port, Duration::from_secs(60), || false).unwrap_err();
        assert!(error.to_string().contains("ended before"), "{error}");
    }
}
