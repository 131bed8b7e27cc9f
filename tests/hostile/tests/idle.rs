//! What idle sessions cost. The numbers are printed; the bounds are wide enough
//! for any machine.

use masq_hostile::Masqd;
use std::fs;
use std::time::Duration;

/// Processor time, in ticks of 10 ms.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let after = stat.rsplit(')').next().expect("fields");
    let fields: Vec<&str> = after.split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}

fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    // Without the tenants' memory that it maps.
    let line = status.lines().find(|l| l.starts_with("RssAnon:"));
    let number = line.and_then(|l| l.split_whitespace().nth(1));
    number.and_then(|n| n.parse().ok()).expect("RssAnon")
}

#[test]
#[ignore = "measures for ten seconds; run with --ignored --nocapture, in release"]
fn two_hundred_idle_sessions_cost_nearly_nothing() {
    let policy = "
version: 1
tenants:
  red:
    quotas: { sessions: 1000, qps: 4000, cqs: 4000, event_queues: 1000 }
    endpoints:
      a: { address: 10.0.0.1 }
";
    let masqd = Masqd::with_policy(policy);
    let _warm: Vec<_> = (0..10).map(|_| masqd.open("red/a")).collect();
    let empty = resident_kib(masqd.pid());
    let mut sessions: Vec<_> = (0..200).map(|_| masqd.open("red/a")).collect();
    let with_sessions = resident_kib(masqd.pid());
    let mut qps = 0;
    for session in &mut sessions {
        let first = session.endpoint(2);
        for _ in 0..4 {
            let (reply, _, _) = session.try_create_qp(first.pd, first.cq, 2);
            qps += u64::from(reply.0 == masq_spec::command::Status::Ok);
        }
    }
    let with_qps = resident_kib(masqd.pid());
    std::thread::sleep(Duration::from_secs(2));
    let before = ticks(masqd.pid());
    std::thread::sleep(Duration::from_secs(10));
    let used = ticks(masqd.pid()) - before;
    let counts = masqd.counts();
    println!(
        "200 idle sessions: {used} ticks of 10 ms in 10 s ({} % of a core)",
        used as f64 / 10.0
    );
    println!(
        "RSS a session: {:.1} KiB",
        (with_sessions - empty) as f64 / 200.0
    );
    println!(
        "RSS a queue pair: {:.1} KiB ({} QPs, 200 CQs among them)",
        (with_qps - with_sessions) as f64 / (qps + 200) as f64,
        qps + 200
    );
    println!(
        "fds {}, threads {}, maps {}",
        counts.fds, counts.threads, counts.maps
    );
    assert!(used < 20, "{used} ticks");
}
