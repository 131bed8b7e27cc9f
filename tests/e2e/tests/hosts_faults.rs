//! Two hosts on a network that loses, repeats, reorders and damages packets. Programs over
//! UC and UD, which cannot do without a packet, are left out.

use masq_e2e::{Faults, Hosts, HostsConfig, compile, pair};

const BAD: Faults = Faults {
    seed: 5,
    lost: 10,
    repeated: 10,
    reordered: 20,
    corrupted: 3,
};

const PAIRS: [&str; 10] = [
    "ibv_rc_pingpong -g 3 -c -s 100001 -n 100",
    "ibv_rc_pingpong -g 3 -c -e -s 4096 -n 300",
    "ibv_rc_pingpong -g 3 -c -s 100 -n 300",
    "ibv_srq_pingpong -g 3 -c -e -s 10000 -n 20",
    "ib_send_bw -x 3 -F -n 300",
    "ib_write_bw -x 3 -F -n 300 -q 4",
    "ib_write_bw -x 3 -F -n 20 -s 1048576",
    "ib_read_bw -x 3 -F -n 300",
    "ib_atomic_bw -x 3 -F -n 300",
    "ib_send_lat -x 3 -F -n 300",
];

const MEETINGS: [(&str, &str); 4] = [
    (
        "rping -s -a 10.0.0.1 -v -V -C 50 -S 20000",
        "rping -c -a 10.0.0.1 -v -V -C 50 -S 20000",
    ),
    (
        "ucmatose -c 5 -C 50 -S 4096",
        "ucmatose -s 10.0.0.1 -c 5 -C 50 -S 4096",
    ),
    (
        "rstream -S 100001 -I 10 -C 10 -T v",
        "rstream -s 10.0.0.1 -S 100001 -I 10 -C 10 -T v",
    ),
    (
        "riostream -S 100001 -I 10 -C 10 -T v",
        "riostream -s 10.0.0.1 -S 100001 -I 10 -C 10 -T v",
    ),
];

/// A pair, again if one side was content and gone while the acknowledgement of the other's
/// last message was lost: pingpongs do not take leave of each other, so on any device the
/// one that is left repeats its message to nobody.
fn run(hosts: &Hosts, line: &str) -> anyhow::Result<()> {
    const LEFT_ALONE: &str = "transport retry counter exceeded (12)";
    for _ in 0..3 {
        let (alpha, at, beta) = (hosts.alpha(), hosts.meeting_point(), hosts.beta());
        let out = pair(line).outcome_across(alpha, at, beta)?;
        let sides = [&out.server, &out.client];
        let failed: Vec<_> = sides.iter().filter(|s| !s.status.success()).collect();
        match failed.as_slice() {
            [] => return Ok(()),
            [one] if line.contains("pingpong") && one.output.contains(LEFT_ALONE) => {}
            _ => break,
        }
    }
    hosts.pair(line).map(drop)
}

/// All of them, whose contents must be right; then, that the network was as bad as meant.
fn survive(config: HostsConfig) -> anyhow::Result<()> {
    let hosts = config.start()?;
    hosts.hub()?.set_faults(BAD);
    for line in PAIRS {
        run(&hosts, line)?;
    }
    for (server, client) in MEETINGS {
        hosts.meet(server, client)?;
    }
    let program = compile("opcodes", hosts.alpha().scratch())?;
    hosts.pair(&format!("{} -t RC", program.display()))?;
    let happened = hosts.hub()?.happened();
    for count in [
        happened.lost,
        happened.repeated,
        happened.reordered,
        happened.corrupted,
    ] {
        assert!(count > 10, "{happened:?}");
    }
    hosts.wait_until_empty()
}

#[test]
fn reliable_programs_survive_a_bad_network() -> anyhow::Result<()> {
    survive(HostsConfig::at_hub())
}

#[test]
fn reliable_programs_survive_a_bad_network_by_the_raw_port_in_large_packets() -> anyhow::Result<()>
{
    survive(HostsConfig::at_hub().mtu(9000).args(&["--port", "raw"]))
}

#[test]
fn reliable_programs_survive_a_bad_network_over_ipv6() -> anyhow::Result<()> {
    survive(HostsConfig::at_hub().ipv6().args(&["--threads", "3"]))
}

/// A damaged packet is one that was lost: it is counted, and nothing of it is believed.
#[test]
fn the_icrc_finds_what_the_network_damaged() -> anyhow::Result<()> {
    for port in ["udp", "raw"] {
        let hosts = HostsConfig::at_hub().args(&["--port", port]).start()?;
        hosts.hub()?.set_faults(Faults {
            seed: 7,
            corrupted: 20,
            ..Faults::default()
        });
        for line in PAIRS.iter().take(3) {
            run(&hosts, line)?;
        }
        let found: u64 = [hosts.alpha(), hosts.beta()]
            .map(|host| dropped(host, "bad_icrc"))
            .into_iter()
            .sum();
        let happened = hosts.hub()?.happened();
        // Some are so damaged that they are no packets any more.
        assert!(found > happened.corrupted / 2, "{found} of {happened:?}");
        let shown = hosts.alpha().masq_output(["hosts"])?.success()?.output;
        assert!(shown.contains("bad icrc"), "{shown}");
        hosts.wait_until_empty()?;
    }
    Ok(())
}

fn dropped(host: &masq_e2e::Host, reason: &str) -> u64 {
    let hosts = host.overview().unwrap().hosts.unwrap();
    hosts.wire.dropped[reason]
}

/// No meltdown: what is lost is sent again, and little else is.
#[test]
fn transfers_end_and_repeat_little_where_a_twentieth_is_lost() -> anyhow::Result<()> {
    let hosts = HostsConfig::at_hub().start()?;
    hosts.hub()?.set_faults(Faults {
        seed: 9,
        lost: 50,
        ..Faults::default()
    });
    let before = sent(&hosts);
    run(&hosts, "ib_write_bw -x 3 -F -n 100 -s 1048576")?;
    run(&hosts, "ib_read_bw -x 3 -F -n 100 -s 1048576")?;
    run(&hosts, "ibv_rc_pingpong -g 3 -c -s 100001 -n 50")?;
    let packets = sent(&hosts) - before;
    // 1024 bytes each, and an acknowledgement for each at most: it would be twice this if
    // every packet were repeated.
    let needed = (200 * 1_048_576 + 100 * 100_001) / 1024;
    assert!(packets < 4 * needed, "{packets} for {needed}");
    hosts.wait_until_empty()
}

fn sent(hosts: &Hosts) -> u64 {
    let of = |host: &masq_e2e::Host| host.overview().unwrap().hosts.unwrap().wire.sent_packets;
    of(hosts.alpha()) + of(hosts.beta())
}
