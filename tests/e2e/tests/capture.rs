//! `masq capture`, read by tshark.

use anyhow::{Context as _, ensure};
use masq_e2e::{Host, Hosts, Pair, Running, spawn, wait_for_words};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Opcodes (IBA 9.2.1).
const RC_SEND_FIRST: u8 = 0;
const RC_SEND_LAST: u8 = 2;
const RC_SEND_ONLY: u8 = 4;
const RC_READ_REQUEST: u8 = 12;
const RC_READ_FIRST: u8 = 13;
const RC_READ_LAST: u8 = 15;
const RC_ACK: u8 = 17;
const RC_ATOMIC_ACK: u8 = 18;
const RC_FETCH_ADD: u8 = 20;
const UD_SEND_ONLY: u8 = 100;

/// A running capture.
struct Capture {
    masq: Running,
    file: PathBuf,
}

impl Capture {
    fn of(host: &Host, endpoint: &str, more: &[&str]) -> anyhow::Result<Self> {
        let name = format!("{}.pcap", endpoint.replace('/', "-"));
        let file = host.scratch().join(name);
        let mut command = host.masq();
        command.args(["capture", "--endpoint", endpoint, "--write"]);
        command.arg(&file).args(more);
        let mut masq = spawn(command)?;
        wait_for_words(&mut masq, "capturing")?;
        Ok(Self { masq, file })
    }

    /// Ends it as Ctrl-C does; what tshark makes of it, and the summary.
    fn end(self) -> anyhow::Result<(Vec<Packet>, String)> {
        self.masq.signal(Signal::INT);
        let done = self.masq.wait(PATIENCE)?.success()?;
        Ok((dissect(&self.file)?, done.output))
    }
}

/// A packet as tshark shows it.
#[derive(Clone, Debug)]
struct Packet {
    from: String,
    to: String,
    opcode: u8,
    psn: u32,
    destination: u32,
    payload: String,
}

fn tshark(file: &Path, args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(args);
    // Which it takes short payloads for.
    command.args(["--disable-protocol", "rpcordma"]);
    let out = command.output().context("tshark; cargo xtask setup")?;
    ensure!(
        out.status.success(),
        "tshark: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(String::from_utf8(out.stdout)?)
}

/// All packets: each is RoCEv2, whole, and well-formed.
fn dissect(file: &Path) -> anyhow::Result<Vec<Packet>> {
    let odd = tshark(file, &["-Y", "!infiniband || _ws.malformed || _ws.short"])?;
    ensure!(odd.is_empty(), "no RoCEv2: {odd}");
    let fields = [
        "ip.src",
        "ip.dst",
        "infiniband.bth.opcode",
        "infiniband.bth.psn",
        "infiniband.bth.destqp",
        "data.data",
    ];
    let mut args = vec!["-T", "fields", "-E", "separator=;"];
    args.extend(fields.iter().flat_map(|field| ["-e", field]));
    let text = tshark(file, &args)?;
    text.lines().map(packet).collect()
}

fn packet(line: &str) -> anyhow::Result<Packet> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    let fields: Vec<_> = line.split(';').collect();
    let [from, to, opcode, psn, destination, payload] = fields[..] else {
        anyhow::bail!("{line}")
    };
    let read = || -> Result<_, std::num::ParseIntError> {
        Ok((number(opcode)?, number(psn)?, number(destination)?))
    };
    let (opcode, psn, destination) = read().with_context(|| line.to_owned())?;
    Ok(Packet {
        from: from.to_owned(),
        to: to.to_owned(),
        opcode: opcode as u8,
        psn,
        destination,
        payload: payload.to_owned(),
    })
}

fn count(packets: &[Packet], opcode: u8) -> usize {
    packets.iter().filter(|p| p.opcode == opcode).count()
}

/// The requests of each direction count on without a gap.
fn assert_in_order(packets: &[Packet], requests: impl Fn(u8) -> bool) {
    let mut next = std::collections::HashMap::new();
    for packet in packets.iter().filter(|p| requests(p.opcode)) {
        let expected = next.entry(packet.destination).or_insert(packet.psn);
        assert_eq!(packet.psn, *expected, "{packet:?}");
        *expected = (packet.psn + 1) & 0xff_ffff;
    }
    assert!(!next.is_empty());
}

fn pingpong(host: &Host, program: &str, more: &[&str]) -> anyhow::Result<()> {
    let args = ["-g", "3", "-c"].into_iter().chain(more.iter().copied());
    Pair::new(program).args(args).run(host).map(drop)
}

#[test]
fn messages_within_a_host_read_as_packets_between_virtual_addresses() -> anyhow::Result<()> {
    let host = Host::start()?;
    let capture = Capture::of(&host, "blue/a", &[])?;
    pingpong(
        &host,
        "ibv_rc_pingpong",
        &["-n", "5", "-s", "2500", "-m", "1024"],
    )?;
    let (packets, summary) = capture.end()?;
    // Five each way: three packets and an ACK.
    assert_eq!(packets.len(), 40);
    assert!(summary.contains("40 packets"), "{summary}");
    assert_eq!(count(&packets, RC_SEND_FIRST), 10);
    assert_eq!(count(&packets, RC_SEND_LAST), 10);
    assert_eq!(count(&packets, RC_ACK), 10);
    assert_in_order(&packets, |opcode| opcode <= RC_SEND_ONLY);
    let (a, b) = ("10.0.0.1", "10.0.0.2");
    let from = |address: &str| packets.iter().filter(|p| p.from == address).count();
    assert_eq!((from(a), from(b)), (20, 20));
    assert!(packets.iter().all(|p| p.from != p.to));
    // What the program fills its buffer with.
    let sent = packets.iter().filter(|p| p.opcode != RC_ACK);
    for packet in sent {
        assert!(packet.payload.contains("7b7b7b7b7b"), "{packet:?}");
    }
    let log = host.log();
    assert!(
        log.contains("capture begins") && log.contains("capture ends"),
        "{log}"
    );
    Ok(())
}

#[test]
fn reads_atomics_and_datagrams_are_in_it() -> anyhow::Result<()> {
    let host = Host::start()?;
    let capture = Capture::of(&host, "blue/b", &[])?;
    Pair::new("ib_read_lat")
        .args(["-x", "3", "-n", "5", "-s", "9000", "-m", "4096"])
        .run(&host)?;
    Pair::new("ib_atomic_lat")
        .args(["-x", "3", "-n", "5"])
        .run(&host)?;
    pingpong(&host, "ibv_ud_pingpong", &["-n", "5", "-s", "100"])?;
    let (packets, _) = capture.end()?;
    assert_eq!(count(&packets, RC_READ_REQUEST), 5);
    assert_eq!(count(&packets, RC_READ_FIRST), 5);
    assert_eq!(count(&packets, RC_READ_LAST), 5);
    assert_eq!(count(&packets, RC_FETCH_ADD), 5);
    assert_eq!(count(&packets, RC_ATOMIC_ACK), 5);
    assert_eq!(count(&packets, UD_SEND_ONLY), 10);
    Ok(())
}

#[test]
fn another_endpoint_sees_nothing_of_it() -> anyhow::Result<()> {
    let host = Host::start()?;
    // red/a has the same address as blue/a.
    let capture = Capture::of(&host, "red/a", &[])?;
    pingpong(&host, "ibv_rc_pingpong", &["-n", "5"])?;
    let (packets, summary) = capture.end()?;
    assert!(packets.is_empty(), "{packets:?}");
    assert!(summary.contains("0 packets"), "{summary}");
    Ok(())
}

#[test]
fn it_ends_by_itself_and_cuts_packets() -> anyhow::Result<()> {
    let host = Host::start()?;
    let capture = Capture::of(&host, "blue/a", &["--count", "7", "--snap", "96"])?;
    pingpong(&host, "ibv_rc_pingpong", &["-n", "100", "-s", "4096"])?;
    capture.masq.wait(PATIENCE)?.success()?;
    let lengths = ["-T", "fields", "-e", "frame.cap_len", "-e", "frame.len"];
    let lengths = tshark(&capture.file, &lengths)?;
    assert_eq!(lengths.lines().count(), 7);
    assert!(lengths.lines().any(|l| l.starts_with("96\t")), "{lengths}");
    let idle = Capture::of(&host, "blue/a", &["--duration", "0.2"])?;
    let done = idle.masq.wait(PATIENCE)?.success()?;
    assert!(done.output.contains("0 packets"), "{done}");
    Ok(())
}

#[test]
fn it_is_piped_into_a_reader() -> anyhow::Result<()> {
    let host = Host::start()?;
    let script = format!(
        "{} --run-dir {} capture -e blue/a -w - | tshark -l -r - -c 3 -T fields \
         -e infiniband.bth.opcode",
        host.binaries().masq().display(),
        host.run_dir().display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    let mut reader = spawn(command)?;
    wait_for_words(&mut reader, "capturing")?;
    pingpong(&host, "ibv_rc_pingpong", &["-n", "2", "-s", "10"])?;
    // It has seen enough, and masq ends with it.
    wait_for_words(&mut reader, "\n4\n")?;
    pingpong(&host, "ibv_rc_pingpong", &["-n", "2", "-s", "10"])?;
    let done = reader.wait(PATIENCE)?;
    assert_eq!(done.output.matches("\n4").count(), 2, "{done}");
    Ok(())
}

#[test]
fn captures_are_few_and_only_of_endpoints_that_live_here() -> anyhow::Result<()> {
    let mut host = Host::start()?;
    let file = host.scratch().join("x.pcap").display().to_string();
    let refused = host.masq_output(["capture", "-e", "blue/nobody", "-w", &file])?;
    assert!(!refused.status.success());
    assert!(
        refused.output.contains("no endpoint blue/nobody"),
        "{refused}"
    );
    assert!(!Path::new(&file).exists(), "nothing to write");
    let running: Vec<_> = (0..4)
        .map(|_| Capture::of(&host, "blue/a", &[]))
        .collect::<Result<_, _>>()?;
    let refused = host.masq_output(["capture", "-e", "blue/a", "-w", &file])?;
    assert!(
        refused.output.contains("4 captures are running"),
        "{refused}"
    );
    // One that is killed gives its place back.
    for capture in running {
        capture.masq.signal(Signal::KILL);
        capture.masq.wait(PATIENCE)?;
    }
    let again = ["capture", "-e", "blue/a", "-w", &file, "-d", "0.1"];
    let end = Instant::now() + PATIENCE;
    while !host.masq_output(again)?.status.success() {
        ensure!(Instant::now() < end, "the places are not free");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(host.is_running());
    Ok(())
}

#[test]
fn a_reader_that_sleeps_costs_packets_and_stops_nobody() -> anyhow::Result<()> {
    let host = Host::start()?;
    let capture = Capture::of(&host, "blue/a", &[])?;
    capture.masq.signal(Signal::STOP);
    // Four times what the ring and the socket hold.
    Pair::new("ib_write_bw")
        .args(["-x", "3", "-n", "2000", "-s", "65536"])
        .run(&host)?;
    host.overview()?;
    capture.masq.signal(Signal::CONT);
    let (_, summary) = capture.end()?;
    assert!(summary.contains("lost"), "{summary}");
    Ok(())
}

#[test]
fn what_was_captured_stays_when_masqd_dies() -> anyhow::Result<()> {
    let mut host = Host::start()?;
    let capture = Capture::of(&host, "blue/a", &[])?;
    pingpong(&host, "ibv_rc_pingpong", &["-n", "5", "-s", "10"])?;
    let written = || std::fs::metadata(&capture.file).map_or(0, |file| file.len());
    let end = Instant::now() + PATIENCE;
    // The header of the file, and twenty packets.
    while written() < 24 + 20 * 64 {
        ensure!(Instant::now() < end, "{} bytes", written());
        std::thread::sleep(Duration::from_millis(5));
    }
    let mode = std::fs::metadata(&capture.file)?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    host.kill();
    let done = capture.masq.wait(PATIENCE)?;
    assert_eq!(done.status.code(), Some(1), "{done}");
    assert!(done.output.contains("masqd is gone"), "{done}");
    assert_eq!(dissect(&capture.file)?.len(), 20);
    Ok(())
}

#[test]
fn packets_between_hosts_are_shown_by_either_address() -> anyhow::Result<()> {
    let hosts = Hosts::two()?;
    let (alpha, beta) = (hosts.alpha(), hosts.beta());
    let virtual_a = Capture::of(alpha, "blue/a", &[])?;
    let wire_b = Capture::of(beta, "blue/b", &["--wire"])?;
    let refused = alpha.masq_output(["capture", "-e", "blue/b", "-w", "/dev/null"])?;
    assert!(refused.output.contains("lives on host"), "{refused}");
    for program in ["ibv_rc_pingpong", "ibv_ud_pingpong"] {
        hosts.pair(&format!("{program} -g 3 -c -n 5 -s 1000"))?;
    }
    let ((by_name, _), (by_host, _)) = (virtual_a.end()?, wire_b.end()?);
    for (packets, own, peer) in [
        (&by_name, "10.0.0.1", "10.0.0.2"),
        (&by_host, "192.0.2.2", "192.0.2.1"),
    ] {
        let from = |address: &str| packets.iter().filter(|p| p.from == address).count();
        assert!(from(own) >= 10 && from(peer) >= 10, "{packets:?}");
        assert_eq!(from(own) + from(peer), packets.len());
        assert!(packets.iter().all(|p| p.to == own || p.to == peer));
        assert_eq!(count(packets, UD_SEND_ONLY), 10);
        assert!(count(packets, RC_SEND_ONLY) >= 10);
        assert!(packets.iter().any(|p| p.payload.contains("7b7b7b7b7b")));
    }
    Ok(())
}
