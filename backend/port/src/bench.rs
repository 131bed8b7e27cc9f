//! What a port carries over veth. Nothing is asserted of speed; run it by
//!
//! ```sh
//! cargo test --release -p masq-port bench -- --ignored --nocapture --test-threads 1
//! ```

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use masq_wire::{build, pad_count};

use crate::testing::hosts::{Host, two_hosts};
use crate::testing::*;
use crate::{Config, Port, open_raw, open_udp};

/// Bytes that are sent and not received yet, at most.
const WINDOW: u64 = 2 << 20;

fn seconds() -> Duration {
    let asked = std::env::var("MASQ_BENCH_SECONDS").ok();
    Duration::from_secs(asked.and_then(|s| s.parse().ok()).unwrap_or(3))
}

/// One thread sends, one receives; both copy the payload once, from and to
/// other memory, and the sender computes the ICRC.
fn carry(from: &mut dyn Port, to: &mut dyn Port, len: usize) {
    let received = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let path = path(to.host());
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let source = vec![0x5a; 1 << 20];
            let (mut sent, mut offset) = (0u64, 0);
            let window = WINDOW / (len as u64 + 64);
            let mut stuck = 0;
            while !stop.load(Ordering::Relaxed) {
                if sent - received.load(Ordering::Acquire) > window {
                    stuck += 1;
                    if stuck > 2_000_000 {
                        println!("stuck: something was lost");
                        stop.store(true, Ordering::Relaxed);
                    }
                    std::thread::yield_now();
                    continue;
                }
                stuck = 0;
                for _ in 0..64 {
                    let Some(place) = from.place(&path, len + pad_count(len) + SHORTEST) else {
                        break;
                    };
                    let payload = &source[offset..offset + len];
                    let headers = headers(7, sent as u32);
                    build(&headers, &[payload], &place.flow, place.ip_id, place.buffer).unwrap();
                    from.commit();
                    sent += 1;
                    offset = (offset + len) % (source.len() - 4096);
                }
                from.flush();
            }
        });
        scope.spawn(|| {
            let mut sink = vec![0; 1 << 20];
            let mut offset = 0;
            while !stop.load(Ordering::Relaxed) {
                let count = to.receive();
                for index in 0..count {
                    let payload = to.packet(index).unwrap().packet.payload();
                    sink[offset..offset + payload.len()].copy_from_slice(payload);
                    offset = (offset + payload.len()) % (sink.len() - 4096);
                }
                if count == 0 {
                    std::thread::yield_now();
                }
                received.fetch_add(count as u64, Ordering::Release);
            }
        });
        std::thread::sleep(seconds());
        stop.store(true, Ordering::Relaxed);
    });
    let elapsed = begin.elapsed().as_secs_f64();
    let (sent, counters) = (from.counters(), to.counters());
    let packets = counters.received.packets;
    println!(
        "{len:5} bytes: {:.2} GB/s of payload, {:.0} packets/s; {:.1} packets a send, {:.1} a look; bad {} overrun {} errors {}",
        packets as f64 * len as f64 / elapsed / 1e9,
        packets as f64 / elapsed,
        sent.sent.packets as f64 / sent.send_calls.max(1) as f64,
        packets as f64 / counters.receive_calls.max(1) as f64,
        counters.bad_icrc,
        counters.overrun,
        sent.send_errors.total(),
    );
}

/// CPU time of this thread.
fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The same by one thread, in turns, which tells what each side costs, however
/// busy the machine is. Whoever sends pays for the way through the veth pair.
fn cost(from: &mut dyn Port, to: &mut dyn Port, len: usize) {
    let path = path(to.host());
    let source = vec![0x5a; 1 << 20];
    let mut sink = vec![0; 1 << 20];
    let (mut sending, mut receiving, mut packets) = (0.0, 0.0, 0u64);
    let mut offset = 0;
    let begin = Instant::now();
    while begin.elapsed() < seconds() {
        let start = cpu();
        let mut sent = 0;
        while sent < 120 {
            let Some(place) = from.place(&path, len + pad_count(len) + SHORTEST) else {
                from.flush();
                continue;
            };
            let payload = &source[offset..offset + len];
            let headers = headers(7, sent as u32);
            build(&headers, &[payload], &place.flow, place.ip_id, place.buffer).unwrap();
            from.commit();
            sent += 1;
            offset = (offset + len) % (source.len() - 4096);
        }
        from.flush();
        let middle = cpu();
        let mut got = 0;
        let mut tries = 0;
        while got < sent && tries < 1000 {
            let count = to.receive();
            for index in 0..count {
                let payload = to.packet(index).unwrap().packet.payload();
                sink[offset..offset + payload.len()].copy_from_slice(payload);
                offset = (offset + payload.len()) % (sink.len() - 4096);
            }
            got += count;
            tries += 1;
        }
        sending += middle - start;
        receiving += cpu() - middle;
        packets += got as u64;
    }
    let each = |time: f64| time * 1e9 / packets as f64;
    println!(
        "{len:5} bytes: sending {:.0} ns, receiving {:.0} ns a packet: {:.2} GB/s by two threads",
        each(sending),
        each(receiving),
        len as f64 / each(sending).max(each(receiving)),
    );
}

fn udp(host: &Host, offload: bool) -> Box<dyn Port> {
    let config = Config {
        offload,
        ..Config::new(host.v4)
    };
    Box::new(host.run(|| open_udp(&config).unwrap().remove(0)))
}

#[test]
#[ignore = "a benchmark"]
fn bench_udp() {
    let Some([a, b]) = two_hosts(9000) else {
        return;
    };
    for (offload, len) in [(true, 4096), (true, 1024), (true, 64), (false, 4096)] {
        print!("udp {} ", if offload { "trains" } else { "single" });
        cost(&mut *udp(&a, offload), &mut *udp(&b, offload), len);
        carry(&mut *udp(&a, offload), &mut *udp(&b, offload), len);
    }
}

#[test]
#[ignore = "a benchmark"]
fn bench_raw() {
    let Some([a, b]) = two_hosts(9000) else {
        return;
    };
    for (offload, len) in [(true, 4096), (true, 1024), (true, 64), (false, 4096)] {
        let raw = || {
            let config = Config::new(b.v4);
            b.run(|| open_raw(&config).unwrap().remove(0))
        };
        print!("raw {} ", if offload { "trains" } else { "single" });
        cost(&mut *udp(&a, offload), &mut raw(), len);
        carry(&mut *udp(&a, offload), &mut raw(), len);
    }
}

/// One packet alone, sent and received by one thread: without the time in which
/// a thread is woken or looks elsewhere.
#[test]
#[ignore = "a benchmark"]
fn bench_one_packet() {
    let Some([a, b]) = two_hosts(9000) else {
        return;
    };
    let config = Config::new(b.v4);
    for name in ["udp", "raw"] {
        let mut from = udp(&a, true);
        let mut to = match name {
            "udp" => udp(&b, true),
            _ => Box::new(b.run(|| open_raw(&config).unwrap().remove(0))),
        };
        let path = path(to.host());
        let mut times: Vec<_> = (0..100_000)
            .map(|psn| {
                assert_eq!(to.receive(), 0);
                let begin = Instant::now();
                assert!(put(&mut *from, &path, 7, psn, 2));
                from.flush();
                let sent = begin.elapsed().as_nanos();
                while to.receive() == 0 {}
                (begin.elapsed().as_nanos(), sent)
            })
            .collect();
        times.sort_unstable();
        let (all, sent) = times[50_000];
        println!("{name}: median {all} ns, of them {sent} ns to send");
    }
}

/// What it costs to look, when nothing is there.
#[test]
#[ignore = "a benchmark"]
fn bench_empty() {
    let Some([a, b]) = two_hosts(9000) else {
        return;
    };
    let config = Config::new(b.v4);
    let raw = b.run(|| open_raw(&config).unwrap().remove(0));
    let ports: [(&str, Box<dyn Port>); 2] = [("udp", udp(&a, true)), ("raw", Box::new(raw))];
    for (name, mut port) in ports {
        let begin = cpu();
        for _ in 0..1_000_000 {
            assert_eq!(port.receive(), 0);
        }
        println!("{name}: {:.0} ns", (cpu() - begin) * 1e3);
    }
}

#[test]
#[ignore = "a benchmark"]
fn bench_iperf3() {
    let Some([a, b]) = two_hosts(9000) else {
        return;
    };
    let mut server = b.run(|| {
        Command::new("iperf3")
            .args(["-s", "-1"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    });
    std::thread::sleep(Duration::from_millis(300));
    let time = seconds().as_secs().to_string();
    let address = b.v4.to_string();
    let output = a.run(|| {
        Command::new("iperf3")
            .args(["-c", &address, "-t", &time, "-J"])
            .output()
            .unwrap()
    });
    server.wait().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let end = &report["end"];
    let speed = end["sum_received"]["bits_per_second"].as_f64().unwrap() / 8e9;
    let cpu = |side: &str| {
        let percent = end["cpu_utilization_percent"][side].as_f64().unwrap();
        percent / 100.0 / speed
    };
    let (sending, receiving) = (cpu("host_total"), cpu("remote_total"));
    println!(
        "{speed:.2} GB/s; sending {sending:.2}, receiving {receiving:.2} s of CPU a GB, hence {:.2} GB/s with free cores",
        1.0 / sending.max(receiving),
    );
}
