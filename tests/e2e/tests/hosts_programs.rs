//! Unmodified programs between two hosts, each with a masqd of its own.

use masq_e2e::{Hosts, HostsConfig, Meeting, PairOutput, compile, mckey, pair};
use std::time::Duration;

/// perftest's tools, with what each transport has. Datagrams as fast as they go find a
/// receive each: the receiver would wait for ever for one that came while it had none.
const PERFTEST: [&str; 16] = [
    "ib_send_bw -n 1000",
    "ib_send_lat -n 1000",
    "ib_write_bw -n 1000",
    "ib_write_lat -n 1000",
    "ib_read_bw -n 1000",
    "ib_read_lat -n 1000",
    "ib_atomic_bw -n 1000",
    "ib_atomic_lat -n 1000",
    "ib_send_bw -c UC -n 500 -r 500 -s 4096",
    "ib_send_lat -c UC -n 1000",
    "ib_write_bw -c UC -n 1000",
    "ib_write_lat -c UC -n 1000",
    "ib_send_bw -c UD -n 1000 -r 1000 -s 1024",
    "ib_send_lat -c UD -n 1000 -s 1024",
    "ib_write_bw -n 200 -q 4",
    "ib_read_bw -n 50 -s 1048576",
];

fn each(hosts: &Hosts, lines: &[&str]) -> anyhow::Result<()> {
    for line in lines {
        hosts.pair(line)?;
    }
    Ok(())
}

fn perftest(hosts: &Hosts, lines: &[&str]) -> anyhow::Result<()> {
    for line in lines {
        hosts.pair(&format!("{line} -x 3 -F"))?;
    }
    Ok(())
}

/// A little of everything, each with its contents checked where the program can.
fn core(hosts: &Hosts) -> anyhow::Result<()> {
    let lines = [
        "ibv_rc_pingpong -g 3 -c -s 65537 -n 100",
        "ibv_rc_pingpong -g 3 -c -e -s 4096 -n 300",
        "ibv_rc_pingpong -g 3 -c -s 100 -n 300",
        "ibv_uc_pingpong -g 3 -c -s 20001 -n 100",
        "ibv_ud_pingpong -g 3 -c -s 1000 -n 300",
        "ibv_srq_pingpong -g 3 -c -s 10000 -n 20",
    ];
    each(hosts, &lines)?;
    let lines = [
        "ib_send_bw -n 200",
        "ib_write_bw -n 200 -q 4",
        "ib_read_bw -n 200",
        "ib_atomic_lat -n 200",
        "ib_send_lat -c UD -s 1024 -n 200",
    ];
    perftest(hosts, &lines)?;
    rping(hosts, "-S 5000")?;
    opcodes(hosts)?;
    hosts.wait_until_empty()
}

fn rping(hosts: &Hosts, more: &str) -> anyhow::Result<()> {
    let out = hosts.meet(
        &format!("rping -s -a 10.0.0.1 -v -V -C 50 {more}"),
        &format!("rping -c -a 10.0.0.1 -v -V -C 50 {more}"),
    )?;
    for side in [&out.server, &out.client] {
        let rounds = side.output.matches("ping data: ").count();
        assert_eq!(rounds, 50, "{side}");
    }
    Ok(())
}

/// Every opcode with its contents checked, by our own program.
fn opcodes(hosts: &Hosts) -> anyhow::Result<()> {
    let program = compile("opcodes", hosts.alpha().scratch())?;
    for (transport, steps) in [("RC", 17), ("UC", 10), ("UD", 4)] {
        let out = hosts.pair(&format!("{} -t {transport}", program.display()))?;
        for side in [&out.server, &out.client] {
            let done = side.output.lines().filter(|line| line.starts_with("ok "));
            assert_eq!(done.count(), steps, "{transport}: {side}");
        }
    }
    Ok(())
}

/// Both said so.
fn both_say(out: &PairOutput, words: &str) {
    for side in [&out.server, &out.client] {
        assert!(side.output.contains(words), "{side}");
    }
}

#[test]
fn pingpongs_of_all_sizes_and_ways_of_waiting_keep_every_byte() -> anyhow::Result<()> {
    let hosts = Hosts::two()?;
    for program in ["ibv_rc_pingpong", "ibv_uc_pingpong", "ibv_srq_pingpong"] {
        for (size, rounds) in [(1, 100), (100, 100), (4097, 100), (1 << 20, 10)] {
            let rounds = match program {
                "ibv_srq_pingpong" => i32::max(rounds / 8, 4),
                _ => rounds,
            };
            for more in ["", " -e"] {
                let line = format!("{program} -g 3 -c -s {size} -n {rounds}{more}");
                hosts.pair(&line)?;
            }
        }
    }
    for size in [1, 63, 100, 1024] {
        for more in ["", " -e"] {
            hosts.pair(&format!("ibv_ud_pingpong -g 3 -c -s {size} -n 200{more}"))?;
        }
    }
    hosts.wait_until_empty()
}

#[test]
fn path_mtus_of_the_programs_choice_keep_every_byte() -> anyhow::Result<()> {
    let hosts = HostsConfig::default().mtu(9000).start()?;
    for mtu in [256, 512, 1024, 2048, 4096] {
        for program in ["ibv_rc_pingpong", "ibv_uc_pingpong"] {
            hosts.pair(&format!("{program} -g 3 -c -m {mtu} -s 33333 -n 50"))?;
        }
        hosts.pair(&format!("ib_read_bw -x 3 -F -m {mtu} -n 100"))?;
    }
    hosts.wait_until_empty()
}

#[test]
fn perftest_between_hosts() -> anyhow::Result<()> {
    let hosts = Hosts::two()?;
    perftest(&hosts, &PERFTEST)?;
    hosts.wait_until_empty()
}

#[test]
fn perftest_connects_by_rdma_cm_between_hosts() -> anyhow::Result<()> {
    /// See `cm_perftest.rs`.
    const MISSED: &str = "RDMA_CM_EVENT_REJECTED; error: 8.";
    let hosts = Hosts::two()?;
    for line in [
        "ib_send_bw -n 500",
        "ib_write_bw -n 500 -q 4",
        "ib_read_lat -n 500",
        "ib_atomic_bw -n 500",
        "ib_send_lat -c UD -s 512 -n 500",
    ] {
        let server = format!("{line} -R -F");
        let client = format!("{server} 10.0.0.1");
        for again in (0..4).rev() {
            match hosts.meet(&server, &client) {
                Err(error) if again > 0 && format!("{error:#}").contains(MISSED) => {
                    hosts.wait_until_empty()?;
                }
                result => {
                    result?;
                    break;
                }
            }
        }
    }
    hosts.wait_until_empty()
}

#[test]
fn rdma_cms_own_tools_meet_between_hosts() -> anyhow::Result<()> {
    let hosts = Hosts::two()?;
    for more in ["", "-S 65535", "-q"] {
        rping(&hosts, more)?;
    }
    for more in ["", "-c 5 -C 50 -S 4096", "-c 3 -m"] {
        let out = hosts.meet(
            &format!("ucmatose {more}"),
            &format!("ucmatose -s 10.0.0.1 {more}"),
        )?;
        both_say(&out, "data transfers complete");
        both_say(&out, "return status 0");
    }
    for more in ["", "-c 8 -C 50 -S 1024"] {
        let out = hosts.meet(
            &format!("udaddy {more}"),
            &format!("udaddy -s 10.0.0.1 {more}"),
        )?;
        both_say(&out, "data transfers complete");
        both_say(&out, "return status 0");
    }
    hosts.meet("rdma_server", "rdma_client -s 10.0.0.1")?;
    hosts.wait_until_empty()
}

#[test]
fn a_group_has_members_on_both_hosts() -> anyhow::Result<()> {
    let hosts = Hosts::two()?;
    for (group, more) in [("239.1.1.1", ""), ("239.1.1.2", "-o")] {
        let out = mckey(group, more).run_across(hosts.alpha(), hosts.beta())?;
        both_say(&out, "data transfers complete");
        assert!(out.server.output.contains("joined dgid"), "{}", out.server);
    }
    hosts.wait_until_empty()
}

#[test]
fn sockets_over_rdma_verify_what_comes_from_another_host() -> anyhow::Result<()> {
    let hosts = Hosts::two()?;
    /// What rstream's client ends with now and then, between programs of one host too: it
    /// seems to be poll's POLLHUP, of a server that was content and left.
    const HUNG_UP: i32 = 0x10;
    // `-S all` is millions of round trips.
    let sizes = [
        "-S 64 -I 500 -C 10",
        "-S 100001 -I 10 -C 10",
        "-S 1048576 -I 2 -C 10",
    ];
    let ways = [("rstream", "b a n r"), ("riostream", "b a n")];
    for (tool, ways) in ways {
        for way in ways.split(' ') {
            for size in sizes {
                let common = format!("{size} -T v -T {way}");
                let meeting = Meeting::new(
                    &format!("{tool} {common}"),
                    &format!("{tool} -s 10.0.0.1 {common}"),
                );
                let out = meeting.outcome_across(hosts.alpha(), hosts.beta())?;
                assert!(out.server.status.success(), "{}", out.server);
                if out.client.status.code() == Some(HUNG_UP) {
                    continue;
                }
                assert!(out.client.status.success(), "{}", out.client);
                // The name, the size, four counts and a time.
                let row = out.client.output.lines().last().unwrap_or_default();
                assert!(row.split_whitespace().count() >= 7, "{}", out.client);
            }
        }
    }
    hosts.wait_until_empty()
}

#[test]
fn every_opcode_moves_the_right_bytes_between_hosts() -> anyhow::Result<()> {
    let hosts = Hosts::two()?;
    opcodes(&hosts)?;
    hosts.wait_until_empty()
}

#[test]
fn packets_of_4096_bytes_where_the_interface_carries_them() -> anyhow::Result<()> {
    let hosts = HostsConfig::default().mtu(9000).start()?;
    let out = hosts.pair("ib_send_bw -x 3 -F -n 100")?;
    assert!(out.client.output.contains("4096[B]"), "{}", out.client);
    hosts.pair("ibv_ud_pingpong -g 3 -c -s 4096 -n 100")?;
    core(&hosts)
}

#[test]
fn an_ipv6_underlay_carries_everything() -> anyhow::Result<()> {
    core(&HostsConfig::default().ipv6().start()?)
}

#[test]
fn the_raw_port_carries_everything() -> anyhow::Result<()> {
    core(&HostsConfig::default().args(&["--port", "raw"]).start()?)
}

#[test]
fn the_raw_port_carries_everything_in_large_packets_over_ipv6() -> anyhow::Result<()> {
    let hosts = HostsConfig::default().mtu(9000).ipv6();
    core(&hosts.args(&["--port", "raw"]).start()?)
}

/// Each thread has a port of its own; packets go to the one whose queue pair they are for.
#[test]
fn three_data_path_threads_serve_three_tenants() -> anyhow::Result<()> {
    let names = ["blue", "red", "green", "grey"];
    for port in ["udp", "raw"] {
        let hosts = HostsConfig::default()
            .tenants(&names)
            .args(&["--threads", "3", "--port", port])
            .start()?;
        core(&hosts)?;
        // All tenants at once, by the same virtual addresses.
        let mut running = Vec::new();
        for name in names {
            let (a, b) = (format!("{name}/a"), format!("{name}/b"));
            let line = "ibv_rc_pingpong -g 3 -c -e -s 50000 -n 200";
            let pair = pair(line).between(&a, &b);
            let (server, port) = pair.start_server(hosts.alpha())?;
            let client = pair.start_client(hosts.beta(), hosts.meeting_point(), port)?;
            running.extend([server, client]);
        }
        for program in running {
            program.wait(Duration::from_secs(60))?.success()?;
        }
        hosts.wait_until_empty()?;
    }
    Ok(())
}
