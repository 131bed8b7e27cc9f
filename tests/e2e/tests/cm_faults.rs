//! Peers that vanish or stop in every state of a connection, and programs that
//! ask for too much: an event for the other side, nothing left behind, nobody
//! else disturbed.

use masq_e2e::{Host, Meeting, Running, compile, wait_for_words};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Within which the side that stays must have heard.
const SOON: Duration = Duration::from_secs(20);

struct Stage {
    host: Host,
    program: PathBuf,
}

impl Stage {
    fn new() -> anyhow::Result<Self> {
        let host = Host::start()?;
        let program = compile("cm_states", host.scratch())?;
        Ok(Self { host, program })
    }

    /// A server that goes as far as `state`; it listens.
    fn server(&self, state: &str) -> anyhow::Result<Running> {
        let mut server = self
            .host
            .start_as("blue/a", &self.program, ["server", state])?;
        wait_for_words(&mut server, "in listening")?;
        Ok(server)
    }

    fn client(&self, state: &str) -> anyhow::Result<Running> {
        self.host
            .start_as("blue/b", &self.program, ["client", state])
    }

    /// A client that is killed in `state`, while the server is in `server`;
    /// what the server said until it ended.
    fn kill_client(&self, state: &str, server: &str) -> anyhow::Result<String> {
        let mut watching = self.server(server)?;
        let mut client = self.client(state)?;
        wait_for_words(&mut client, &format!("in {state}"))?;
        if state == "connecting" {
            wait_for_words(&mut watching, "in accepted")?;
        }
        client.signal(Signal::KILL);
        drop(client);
        let done = watching.wait(SOON)?.success()?;
        self.host.wait_until_empty()?;
        Ok(done.output)
    }

    /// A server that is killed in `state`; what its client said.
    fn kill_server(&self, state: &str) -> anyhow::Result<String> {
        let mut server = self.server(state)?;
        let mut client = self.client("watch")?;
        wait_for_words(&mut server, &format!("in {state}"))?;
        if state == "connected" {
            wait_for_words(&mut client, "in connected")?;
        }
        server.signal(Signal::KILL);
        drop(server);
        let done = client.wait(SOON)?.success()?;
        self.host.wait_until_empty()?;
        Ok(done.output)
    }
}

#[test]
fn a_client_killed_before_it_asks_leaves_nothing() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    for state in ["addr_resolved", "route_resolved"] {
        let mut client = stage.client(state)?;
        wait_for_words(&mut client, &format!("in {state}"))?;
        client.signal(Signal::KILL);
        drop(client);
        stage.host.wait_until_empty()?;
    }
    Ok(())
}

#[test]
fn a_client_killed_while_connecting_is_reported_if_it_was_answered() -> anyhow::Result<()> {
    let said = Stage::new()?.kill_client("connecting", "watch")?;
    assert!(said.contains("event RDMA_CM_EVENT_"), "{said}");
    assert!(said.ends_with("end\n"), "{said}");
    Ok(())
}

/// As the kernel has it, nobody is told of a request that came to nothing before
/// it was accepted.
#[test]
fn a_client_killed_before_it_was_answered_cannot_be_accepted() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let mut server = stage.server("late")?;
    let mut client = stage.client("connecting")?;
    wait_for_words(&mut client, "in connecting")?;
    wait_for_words(&mut server, "in requested")?;
    client.signal(Signal::KILL);
    drop(client);
    while !stage.host.endpoint("blue/b")?.0.is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    server.signal(Signal::USR1);
    let said = server.wait(SOON)?.success()?.output;
    assert!(said.contains("accept -1"), "{said}");
    stage.host.wait_until_empty()
}

#[test]
fn a_client_killed_when_connected_or_disconnecting_is_disconnected() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    for state in ["connected", "disconnecting"] {
        let said = stage.kill_client(state, "watch")?;
        let event = "event RDMA_CM_EVENT_DISCONNECTED status 0";
        assert!(said.contains(event), "{state}: {said}");
    }
    Ok(())
}

#[test]
fn a_server_killed_while_it_decides_is_reported() -> anyhow::Result<()> {
    let said = Stage::new()?.kill_server("requested")?;
    assert!(
        said.contains("RDMA_CM_EVENT_REJECTED") || said.contains("RDMA_CM_EVENT_UNREACHABLE"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_server_killed_when_connected_is_disconnected() -> anyhow::Result<()> {
    let said = Stage::new()?.kill_server("connected")?;
    let event = "event RDMA_CM_EVENT_DISCONNECTED status 0";
    assert!(said.contains(event), "{said}");
    Ok(())
}

#[test]
fn a_listener_killed_frees_its_port() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    for _ in 0..2 {
        let server = stage.server("listening")?;
        server.signal(Signal::KILL);
        drop(server);
        stage.host.wait_until_empty()?;
    }
    let out = stage.client("watch")?.wait(SOON)?.success()?;
    let event = "event RDMA_CM_EVENT_REJECTED status 8";
    assert!(out.output.contains(event), "{out}");
    Ok(())
}

/// Both sides at once, in mid-traffic.
#[test]
fn rping_killed_in_mid_traffic_is_disconnected() -> anyhow::Result<()> {
    let host = Host::start()?;
    let meeting = Meeting::new("rping -s -a 10.0.0.1", "rping -c -v -a 10.0.0.1");
    for server_dies in [false, true] {
        let server = meeting.start_server(&host)?;
        let mut client = meeting.start_client(&host)?;
        wait_for_words(&mut client, "rdma-ping-50:")?;
        let (dying, staying) = if server_dies {
            (server, client)
        } else {
            (client, server)
        };
        dying.signal(Signal::KILL);
        drop(dying);
        let out = staying.wait(SOON)?;
        // rping ends at whichever it sees first: the event, or a request that was under way.
        let heard = ["DISCONNECT EVENT", "cq completion failed"];
        assert!(
            heard.iter().any(|words| out.output.contains(words)),
            "{out}"
        );
        host.wait_until_empty()?;
    }
    Ok(())
}

#[test]
fn a_client_that_stops_after_its_request_holds_up_nobody() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let mut server = stage.server("watch")?;
    let mut client = stage.client("connecting")?;
    wait_for_words(&mut client, "in connecting")?;
    client.signal(Signal::STOP);
    wait_for_words(&mut server, "in accepted")?;
    // The same tenant and the other one go on.
    Meeting::new(
        "rping -s -a 10.0.0.1 -V -C 100",
        "rping -c -a 10.0.0.1 -V -C 100",
    )
    .run(&stage.host)?;
    other_tenant(&stage.host)?;
    client.signal(Signal::KILL);
    drop(client);
    let said = server.wait(SOON)?.success()?.output;
    assert!(said.ends_with("end\n"), "{said}");
    stage.host.wait_until_empty()
}

/// red/a with itself, which needs no rule.
fn other_tenant(host: &Host) -> anyhow::Result<()> {
    Meeting::new(
        "rping -s -a 10.0.0.1 -V -C 100",
        "rping -c -a 10.0.0.1 -V -C 100",
    )
    .between("red/a", "red/a")
    .run(host)?;
    Ok(())
}

/// masqd's resident memory in KiB.
fn resident(host: &Host) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    Ok(number.expect("masqd has no VmRSS"))
}

fn nobody(host: &Host, program: &Path, count: &str) -> anyhow::Result<()> {
    let out = host
        .start_as("blue/b", program, [count, "0"])?
        .wait(Duration::from_secs(110))?
        .success()?;
    assert!(out.output.contains(&format!("refused {count} ")), "{out}");
    Ok(())
}

#[test]
fn a_hundred_thousand_connects_to_nobody_cost_no_memory() -> anyhow::Result<()> {
    let host = Host::start()?;
    let program = compile("cm_nobody", host.scratch())?;
    nobody(&host, &program, "2000")?;
    let before = resident(&host)?;
    nobody(&host, &program, "100000")?;
    let grown = resident(&host)?.saturating_sub(before);
    assert!(grown < 8 << 10, "masqd grew by {grown} KiB");
    other_tenant(&host)?;
    host.wait_until_empty()
}

#[test]
fn ids_are_a_quota() -> anyhow::Result<()> {
    let host = Host::with_policy(
        "version: 1\ntenants:\n  blue:\n    quotas: { cm_ids: 16 }\n    endpoints:\n      \
         a: { address: 10.0.0.1 }\n",
    )?;
    let program = compile("cm_nobody", host.scratch())?;
    let out = host.run_as("blue/a", &program, ["100", "100"])?;
    assert!(!out.status.success(), "{out}");
    assert!(out.output.contains("Cannot allocate memory"), "{out}");
    host.wait_until_empty()
}
