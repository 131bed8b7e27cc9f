//! Stock librdmacm programs between two endpoints.

use masq_e2e::{Finished, Host};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a server as blue/a and its client as blue/b, both to a good end.
fn pair(host: &Host, server: &[&str], client: &[&str]) -> anyhow::Result<(Finished, Finished)> {
    let running = host.start_as("blue/a", server[0], &server[1..])?;
    // A program says nothing when it listens; the client would be rejected before.
    std::thread::sleep(Duration::from_millis(500));
    let client = host.run_as("blue/b", client[0], &client[1..])?.success()?;
    Ok((running.wait(PATIENCE)?.success()?, client))
}

#[test]
fn rping_connects_by_virtual_address_and_its_data_arrives() -> anyhow::Result<()> {
    let host = Host::start()?;
    let arguments = ["-a", "10.0.0.1", "-C", "100", "-V", "-v"];
    let server = [&["rping", "-s"][..], &arguments].concat();
    let client = [&["rping", "-c"][..], &arguments].concat();
    let (_, client) = pair(&host, &server, &client)?;
    assert!(client.output.contains("rdma-ping-99"), "{client:?}");
    host.wait_until_empty()
}

#[test]
fn ucmatose_connects_many_and_migrates_their_ids() -> anyhow::Result<()> {
    let host = Host::start()?;
    let many = ["-c", "20", "-C", "10"];
    for more in [&many[..], &["-m"]] {
        let server = [&["ucmatose", "-b", "10.0.0.1"][..], more].concat();
        let client = [&["ucmatose", "-s", "10.0.0.1"][..], more].concat();
        pair(&host, &server, &client)?;
    }
    host.wait_until_empty()
}

#[test]
fn udaddy_finds_a_datagram_service() -> anyhow::Result<()> {
    let host = Host::start()?;
    let server = ["udaddy", "-b", "10.0.0.1"];
    pair(&host, &server, &["udaddy", "-s", "10.0.0.1"])?;
    host.wait_until_empty()
}

#[test]
fn rsockets_keep_their_data() -> anyhow::Result<()> {
    let host = Host::start()?;
    let how = ["-T", "v", "-S", "65536", "-I", "10", "-C", "10"];
    for mode in ["b", "n"] {
        let server = [&["rstream", "-b", "10.0.0.1", "-T", mode][..], &how].concat();
        let client = [&["rstream", "-s", "10.0.0.1", "-T", mode][..], &how].concat();
        pair(&host, &server, &client)?;
    }
    host.wait_until_empty()
}
