//! Processes that end, change or are killed, and masqd's own beginning and end.

use masq_hostile::{Client, Endpoint, Masqd, POLICY, eventually, v4};
use masq_spec::event::AsyncEvent;
use masq_spec::queue::SendOpcode::{RdmaRead, RdmaWrite};
use masq_spec::queue::{Sge, WcStatus};
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

struct Victim {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    qpn: u32,
    rkey: u32,
    addr: u64,
}

impl Victim {
    fn start(masqd: &Masqd, mode: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_victim"))
            .arg(masqd.socket("blue/b"))
            .arg(mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the victim starts");
        let input = child.stdin.take().expect("it is piped");
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u64>());
        let mut next = || numbers.next().expect("three").expect("numbers");
        Self {
            qpn: next() as u32,
            rkey: next() as u32,
            addr: next(),
            child,
            input,
            output,
        }
    }

    fn say(&mut self, text: &str) -> String {
        writeln!(self.input, "{text}").expect("it reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    /// Connects a queue pair of blue/a with it.
    fn connect(&mut self, a: &mut Client) -> Endpoint {
        let qp = a.endpoint(2);
        assert_eq!(self.say(&qp.qpn.to_string()), "connected");
        a.connect(&qp, v4([10, 0, 0, 2]), self.qpn);
        qp
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn only_blue_a_is_left(masqd: &Masqd) -> bool {
    eventually(|| {
        let report = masqd.overview();
        let b = report.endpoints.iter().find(|e| e.endpoint == "blue/b");
        report.sessions.iter().all(|s| s.endpoint == "blue/a")
            && b.is_some_and(|e| e.quotas.values().all(|quota| quota.used == 0))
    })
}

#[test]
fn a_peer_that_is_killed_in_the_middle_of_transfers_fails_them() {
    let masqd = Masqd::start();
    let mut a = masqd.open("blue/a");
    let mut victim = Victim::start(&masqd, "kill");
    let mut qp = victim.connect(&mut a);
    let from = a.alloc(4 << 20);
    let lkey = a.register(qp.pd, from, 4 << 20).lkey;
    let sge = Sge {
        addr: from,
        length: 4 << 20,
        lkey,
    };
    a.post(&mut qp, RdmaWrite, 0, sge, victim.addr, victim.rkey);
    let first = a.poll(&mut qp).expect("a completion");
    assert_eq!(first.status, WcStatus::Success as u8);
    for id in 1..=40 {
        a.post(&mut qp, RdmaWrite, id, sge, victim.addr, victim.rkey);
    }
    victim.child.kill().expect("it lives");
    // Some arrived; the first that did not says why, the rest are flushed.
    let mut statuses = Vec::new();
    for id in 1..=40 {
        let done = a.poll(&mut qp).expect("each work request completes");
        assert_eq!(done.wr_id, id, "in order");
        statuses.push(done.status);
    }
    if statuses.iter().all(|s| *s == WcStatus::Success as u8) {
        a.post(&mut qp, RdmaWrite, 41, sge, victim.addr, victim.rkey);
        statuses.push(a.poll(&mut qp).expect("a completion").status);
    }
    let failed = statuses.iter().find(|s| **s != WcStatus::Success as u8);
    assert_eq!(failed, Some(&(WcStatus::RetryExcErr as u8)));
    let after = statuses
        .iter()
        .skip_while(|s| **s == WcStatus::Success as u8)
        .skip(1);
    for status in after {
        assert_eq!(*status, WcStatus::WrFlushErr as u8);
    }
    assert!(only_blue_a_is_left(&masqd));
    assert!(a.works());
}

#[test]
fn a_process_that_executes_another_program_is_not_reached_any_more() {
    let masqd = Masqd::start();
    let mut a = masqd.open("blue/a");
    let mut victim = Victim::start(&masqd, "exec");
    let mut qp = victim.connect(&mut a);
    let from = a.alloc(4096);
    let lkey = a.register(qp.pd, from, 4096).lkey;
    let sge = Sge {
        addr: from,
        length: 64,
        lkey,
    };
    a.post(&mut qp, RdmaRead, 1, sge, victim.addr, victim.rkey);
    let read = a.poll(&mut qp).expect("a completion");
    assert_eq!(read.status, WcStatus::Success as u8);
    assert_eq!(a.memory.read(from, 64), [7; 64], "it can be reached");
    writeln!(victim.input, "go").expect("it reads");
    let exe = format!("/proc/{}/exe", victim.child.id());
    let is_sleep = || std::fs::read_link(&exe).is_ok_and(|p| !p.ends_with("victim"));
    assert!(eventually(is_sleep), "it turns into another program");
    a.memory.write(from, &[0x5a; 64]);
    a.post(&mut qp, RdmaWrite, 2, sge, victim.addr, victim.rkey);
    let written = a.poll(&mut qp).expect("a completion");
    assert_ne!(written.status, WcStatus::Success as u8);
    assert!(masqd.serves_others());
}

#[test]
fn a_session_ends_with_its_process_though_a_child_holds_the_socket() {
    let masqd = Masqd::start();
    let mut a = masqd.open("blue/a");
    let mut victim = Victim::start(&masqd, "leave");
    victim.connect(&mut a);
    let child: i32 = victim.say("go").parse().expect("a pid");
    assert!(only_blue_a_is_left(&masqd));
    let child = rustix::process::Pid::from_raw(child).expect("a pid");
    rustix::process::kill_process(child, Signal::KILL).expect("the child lived");
}

#[test]
fn two_hundred_sessions_leave_nothing_behind() {
    let masqd = Masqd::start();
    let session = |endpoint: &str| {
        let mut client = masqd.open(endpoint);
        let mut qp = client.endpoint(2);
        assert_eq!(client.init(qp.qp), masq_spec::command::Status::Ok);
        let addr = client.alloc(1 << 16);
        let lkey = client.register(qp.pd, addr, 1 << 16).lkey;
        let sge = Sge {
            addr,
            length: 64,
            lkey,
        };
        client.post_recv(&mut qp, 1, sge);
        client.start_events(2);
        let mut joined = Client::negotiate(&masqd.socket(endpoint));
        joined.start_control();
        let hello = client.hello;
        joined.say_join(hello.session, hello.secret, 256);
        (client, joined)
    };
    assert!(masqd.serves_others());
    let fresh = masqd.counts();
    let as_fresh = || {
        let now = masqd.counts();
        now.fds <= fresh.fds && now.threads <= fresh.threads
    };
    // What a daemon allocates once, it has after these.
    for _ in 0..3 {
        let held: Vec<_> = (0..20).map(|_| session("blue/a")).collect();
        drop(held);
    }
    assert!(eventually(as_fresh), "{fresh:?}, now {:?}", masqd.counts());
    let before = masqd.counts();
    for round in 0..10 {
        let endpoint = ["blue/a", "red/a"][round % 2];
        let held: Vec<_> = (0..20).map(|_| session(endpoint)).collect();
        assert!(masqd.counts().fds > before.fds + 100);
        drop(held);
    }
    assert!(eventually(as_fresh), "{fresh:?}, now {:?}", masqd.counts());
    // The C library keeps arenas and stacks of threads; a session's mapping that
    // stayed would show 400 times.
    let maps = masqd.counts().maps;
    assert!(maps < before.maps + 100, "{before:?}, now {maps}");
    let report = masqd.overview();
    for endpoint in report.endpoints {
        for (kind, quota) in endpoint.quotas {
            assert_eq!((quota.used, quota.tenant_used), (0, 0), "{kind}");
        }
    }
}

#[test]
fn sigterm_lets_sessions_end_and_takes_no_new_ones() {
    let masqd = Masqd::start();
    let mut client = masqd.open("blue/a");
    masqd.signal(Signal::TERM);
    assert!(masqd.has_logged("stopping"));
    assert!(eventually(|| !masqd.socket("blue/a").exists()));
    assert!(client.works(), "what is open goes on for a while");
    let event = client.next_event().expect("an event");
    assert_eq!(event.kind, AsyncEvent::DeviceFatal as u32);
    assert!(client.raw.is_hung_up());
    assert!(masqd.wait().success());
    assert!(!masqd.dir().join("run/masqd.sock").exists());
}

#[test]
fn sigterm_without_sessions_ends_at_once_and_twice_ends_with_them() {
    let masqd = Masqd::start();
    masqd.signal(Signal::TERM);
    assert!(masqd.wait().success());
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("policy.yaml"), POLICY).expect("a policy");
    let masqd = Masqd::in_dir(dir, &["--log", "info"]);
    let _client = masqd.open("blue/a");
    masqd.signal(Signal::TERM);
    assert!(masqd.has_logged("stopping"));
    masqd.signal(Signal::TERM);
    assert!(masqd.wait().success());
}

#[test]
fn sighup_reads_the_policy_again() {
    let masqd = Masqd::start();
    let path = masqd.dir().join("policy.yaml");
    let more = POLICY.replace(
        "10.0.0.9 }",
        "10.0.0.9 }\n      other: { address: 10.0.0.8 }",
    );
    std::fs::write(path, more).expect("the policy is written");
    masqd.signal(Signal::HUP);
    assert!(eventually(|| masqd.socket("green/other").exists()));
    assert!(masqd.open("green/other").works());
}

#[test]
fn a_second_masqd_in_the_same_directory_is_refused_and_harms_nothing() {
    let masqd = Masqd::start();
    let mut client = masqd.open("blue/a");
    let second = Masqd::command(masqd.dir()).output().expect("it runs");
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains("another masqd is using"), "{text}");
    assert!(client.works());
    assert!(masqd.serves_others());
}

#[test]
fn sockets_of_a_masqd_that_was_killed_are_cleaned_up() {
    let masqd = Masqd::start();
    let mut client = masqd.open("blue/a");
    let stale = masqd.dir().join("run/endpoints/old/endpoint");
    std::fs::create_dir_all(&stale).expect("a directory");
    let dir = masqd.kill();
    assert!(dir.path().join("run/endpoints/blue/a/masq.sock").exists());
    assert!(client.raw.is_hung_up());
    assert!(
        client
            .try_call(masq_spec::command::Opcode::AllocPd, &[])
            .is_none()
    );
    let masqd = Masqd::in_dir(dir, &[]);
    assert!(!stale.exists());
    assert!(masqd.serves_others());
}

#[test]
fn without_descriptors_masqd_refuses_and_recovers() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("policy.yaml"), POLICY).expect("a policy");
    let masqd = Masqd::in_dir(dir, &[]);
    let mut client = masqd.open("blue/a");
    let limit = rustix::process::Rlimit {
        current: Some(masqd.counts().fds as u64 + 20),
        maximum: Some(masqd.counts().fds as u64 + 20),
    };
    let pid = rustix::process::Pid::from_raw(masqd.pid());
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).expect("a limit");
    let held: Vec<_> = (0..40)
        .map(|_| masq_hostile::Raw::connect(&masqd.socket("red/a")))
        .collect();
    let refused = || held.iter().filter(|raw| raw.looks_closed()).count();
    assert!(eventually(|| refused() > 20), "nobody is left waiting");
    assert!(client.works(), "who is in is served");
    drop(held);
    assert!(eventually(|| {
        let raw = masq_hostile::Raw::connect(&masqd.socket("red/a"));
        raw.ask_u64(masq_hostile::Code::GetFeatures, &[], &[])
            .is_some()
    }));
}
