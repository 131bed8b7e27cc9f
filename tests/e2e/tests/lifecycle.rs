//! Programs that do not behave, daemons that end, policies that change.

use masq_e2e::{Binaries, Host, Pair, Running, compile, free_port, wait_for_listener};
use rustix::process::Signal;
use std::time::{Duration, Instant};

#[test]
fn a_careless_program_works_and_leaves_nothing() -> anyhow::Result<()> {
    let host = Host::start()?;
    let program = compile("careless", host.scratch())?;
    let out = host
        .run_as("blue/a", &program, [] as [&str; 0])?
        .success()?;
    for step in ["opened twice", "registered ten times", "child computed"] {
        assert!(out.output.contains(step), "{step} is not in {out}");
    }
    host.wait_until_empty()
}

/// A server at blue/a and its client at blue/b, in the middle of a long run.
fn mid_transfer(host: &Host, tool: &str) -> anyhow::Result<(Running, Running)> {
    let port = free_port()?.to_string();
    let args = ["-x", "3", "-F", "-D", "30", "-p", &port];
    let mut server = host.start_as("blue/a", tool, args)?;
    wait_for_listener(port.parse()?, Duration::from_secs(20), || {
        server.is_running()
    })?;
    let args = ["-x", "3", "-F", "-D", "30", "-p", &port, "127.0.0.1"];
    let client = host.start_as("blue/b", tool, args)?;
    let end = Instant::now() + Duration::from_secs(20);
    while !transferring(host)? {
        assert!(Instant::now() < end, "nothing is sent: {}", client.output());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((server, client))
}

#[test]
fn a_receiver_killed_in_mid_transfer_is_reported_to_its_sender() -> anyhow::Result<()> {
    let host = Host::start()?;
    let (server, client) = mid_transfer(&host, "ib_send_bw")?;
    server.signal(Signal::KILL);
    let client = client.wait(Duration::from_secs(25))?;
    assert!(!client.status.success(), "{client}");
    // IBV_WC_RETRY_EXC_ERR, or what was flushed after it.
    assert!(
        client.output.contains("status 12") || client.output.contains("status: 12"),
        "{client}"
    );
    drop(server);
    host.wait_until_empty()
}

/// Whether some queue pair is connected and has done work.
fn transferring(host: &Host) -> anyhow::Result<bool> {
    let (sessions, _) = host.endpoint("blue/b")?;
    Ok(sessions
        .iter()
        .flat_map(|s| &s.queue_pairs)
        .any(|qp| qp.state == "RTS" && qp.counters.values().any(|n| *n > 0)))
}

#[test]
fn a_sender_killed_in_mid_transfer_leaves_nothing() -> anyhow::Result<()> {
    let host = Host::start()?;
    let (server, client) = mid_transfer(&host, "ib_write_bw")?;
    drop(client);
    drop(server);
    host.wait_until_empty()?;
    // And the next pair finds everything in order.
    Pair::new("ibv_rc_pingpong")
        .args(["-g", "3", "-c"])
        .run(&host)?;
    Ok(())
}

#[test]
fn a_rule_that_goes_cuts_the_connections_it_allowed() -> anyhow::Result<()> {
    let host = Host::start()?;
    let (_server, client) = mid_transfer(&host, "ib_send_bw")?;
    let policy = std::fs::read_to_string(host.policy_file())?;
    std::fs::write(
        host.policy_file(),
        policy.replace("action: allow", "action: deny"),
    )?;
    let out = host.masq_output(["reload"])?.success()?;
    assert!(out.output.contains("connections cut: "), "{out}");
    assert!(!out.output.contains("connections cut: 0"), "{out}");
    let client = client.wait(Duration::from_secs(25))?;
    assert!(!client.status.success(), "{client}");
    Ok(())
}

#[test]
fn a_policy_with_a_mistake_is_refused_whole_and_the_old_one_stays() -> anyhow::Result<()> {
    let host = Host::start()?;
    std::fs::write(
        host.policy_file(),
        "version: 1\ntenants: { blue: { endpoint: 1 } }\n",
    )?;
    let out = host.masq_output(["reload"])?;
    assert_eq!(out.status.code(), Some(1), "{out}");
    assert!(out.output.contains("endpoint"), "{out}");
    Pair::new("ibv_rc_pingpong")
        .args(["-g", "3", "-c"])
        .run(&host)?;
    Ok(())
}

#[test]
fn a_policy_with_an_unknown_device_is_refused_whole_and_the_old_one_stays() -> anyhow::Result<()> {
    let host = Host::start()?;
    let text = std::fs::read_to_string(host.policy_file())?;
    let on = |device: &str| text.replace("  blue:\n", &format!("  blue:\n    device: {device}\n"));
    std::fs::write(host.policy_file(), on("siw0").replace("  red:", "  green:"))?;
    let out = host.masq_output(["reload"])?;
    assert_eq!(out.status.code(), Some(1), "{out}");
    for part in [
        "tenant blue",
        "the device siw0",
        "has soft",
        "--device verbs:siw0",
    ] {
        assert!(out.output.contains(part), "{part} is not in {out}");
    }
    host.endpoint("red/a")?;
    // The one that there is, said or not, is the same one: no session ends.
    let (_server, _client) = mid_transfer(&host, "ib_write_bw")?;
    std::fs::write(host.policy_file(), on("soft"))?;
    let out = host.masq_output(["reload"])?.success()?;
    assert!(transferring(&host)?, "{out}");
    Ok(())
}

#[test]
fn a_tenant_is_on_the_device_that_its_policy_names_and_show_says_so() -> anyhow::Result<()> {
    let policy = "version: 1\ntenants:\n  blue:\n    device: soft\n    endpoints:\n      \
         a: { address: 10.0.0.1 }\n";
    // With a card in this machine `auto` is that one, else soft, which is there already.
    let args = ["--device", "auto", "--device", "soft"];
    let host = Host::launch(Binaries::find()?, policy, &args)?;
    let overview = host.overview()?;
    let soft = overview.devices.iter().filter(|d| d.name == "soft");
    let tenants: Vec<_> = soft.map(|device| &device.tenants[..]).collect();
    assert_eq!(tenants, [["blue".to_owned()]]);
    let out = host.masq_output(["show", "blue/a"])?.success()?;
    assert!(
        out.output.contains("device soft, data path: direct copy"),
        "{out}"
    );
    let out = host.masq_output(["doctor"])?;
    assert!(out.output.contains("soft (direct copy): blue"), "{out}");
    Ok(())
}

#[test]
fn sigterm_ends_masqd_with_success_and_removes_its_sockets() -> anyhow::Result<()> {
    let mut host = Host::start()?;
    let socket = host.run_dir().join("endpoints/blue/a/masq.sock");
    assert!(socket.exists());
    host.signal(Signal::TERM);
    let end = Instant::now() + Duration::from_secs(10);
    while host.is_running() {
        assert!(Instant::now() < end, "it still runs:\n{}", host.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!socket.exists());
    Ok(())
}

#[test]
fn programs_end_when_masqd_dies() -> anyhow::Result<()> {
    let mut host = Host::start()?;
    let (_server, client) = mid_transfer(&host, "ib_send_bw")?;
    host.kill();
    // perftest's own clock ends it; what counts is that no verb hangs.
    client.wait(Duration::from_secs(45))?;
    Ok(())
}

#[test]
fn ps_and_show_speak_of_a_running_program() -> anyhow::Result<()> {
    let host = Host::start()?;
    let port = free_port()?;
    let args = ["-g", "3", "-p", &port.to_string()];
    let mut server = host.start_as("blue/a", "ibv_rc_pingpong", args)?;
    wait_for_listener(port, Duration::from_secs(20), || server.is_running())?;
    let out = host.masq_output(["ps"])?.success()?;
    let line = out.output.lines().find(|l| l.contains("blue/a"));
    let line = line.expect("no line of blue/a");
    assert!(line.contains(&server.pid().to_string()), "{out}");
    assert!(line.contains("1 qp"), "{out}");
    let out = host.masq_output(["show", "blue/a"])?.success()?;
    for part in ["RC", "INIT", "10.0.0.1", "qps"] {
        assert!(out.output.contains(part), "{part} is not in {out}");
    }
    let out = host.masq_output(["ps", "--json"])?.success()?;
    let value: serde_json::Value = serde_json::from_str(&out.output)?;
    assert_eq!(value[0]["endpoint"], "blue/a");
    Ok(())
}
