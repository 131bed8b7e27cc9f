//! Somebody on the network between two hosts, who sends packets of his own making.

use anyhow::Context as _;
use masq_e2e::{HostsConfig, is_roce, pair};
use masq_wire::{Bth, Datagram, Extended, Headers, Ip, Opcode, PKey, Psn, Qpn, build_ip};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const ETHERNET: usize = 14;
const ROUNDS: u32 = 1000;

/// The latest RoCE packet to alpha of each opcode.
type Seen = Arc<Mutex<BTreeMap<u8, Vec<u8>>>>;

/// A frame like this one, with its ICRC right, but for what `change` does.
fn forge(frame: &[u8], change: impl FnOnce(&mut Headers, &mut Ip)) -> anyhow::Result<Vec<u8>> {
    let (ethernet, rest) = frame.split_at(ETHERNET);
    let datagram = Datagram::parse(rest)?;
    let (mut headers, mut ip) = (datagram.packet().headers(), datagram.ip());
    change(&mut headers, &mut ip);
    let mut out = vec![0; 9000];
    let payload = datagram.packet().payload();
    let port = datagram.flow().src_port;
    let len = build_ip(&headers, &[payload], &ip, port, &mut out)?;
    out.truncate(len);
    Ok([ethernet, &out].concat())
}

fn from(host: [u8; 4]) -> impl Fn(&mut Headers, &mut Ip) {
    move |_, ip| {
        if let Ip::V4(ip) = ip {
            ip.src = Ipv4Addr::from(host);
        }
    }
}

#[test]
fn forged_packets_are_counted_by_the_reason_and_transfers_go_on() -> anyhow::Result<()> {
    for port in ["udp", "raw"] {
        let hosts = HostsConfig::at_hub().args(&["--port", port]).start()?;
        let hub = hosts.hub()?;
        let seen = Seen::default();
        let sink = seen.clone();
        hub.observe(Box::new(move |from, frame| {
            const OPCODE: usize = ETHERNET + 20 + 8;
            if from == 1 && is_roce(frame) {
                let mut sink = sink.lock().unwrap();
                sink.insert(frame[OPCODE], frame.to_owned());
            }
        }));
        // A conversation of connection management, and datagrams, to be abused.
        hosts.meet("rping -s -V -C 3", "rping -c -a 10.0.0.1 -V -C 3")?;
        hosts.pair("ibv_ud_pingpong -g 3 -c -s 100 -n 10")?;
        // Transfers that check what they get, before, amid and after the flood.
        let transfer = pair("ibv_rc_pingpong -g 3 -c -e -s 20000 -n 3000");
        let (server, tcp) = transfer.start_server(hosts.alpha())?;
        let client = transfer.start_client(hosts.beta(), hosts.meeting_point(), tcp)?;
        let real = wait_for(&seen, Opcode::RcSendFirst)?;
        let flood = vec![
            forge(&real, from([192, 0, 2, 66]))?,
            forge(&real, |headers, _| {
                headers.bth.dest_qpn = Qpn::new(0x00ab_cdef)
            })?,
            forge(&real, |headers, _| headers.bth.pkey = PKey(0x9abc))?,
            forge(&real, |headers, _| {
                headers.bth.psn = Psn::new(headers.bth.psn.get().wrapping_add(1 << 22));
            })?,
            damaged(&real),
            garbage(&real),
            // Requests of a host that the policy does not know, and of one in a partition
            // that is nobody's.
            forge(&management(&real)?, from([192, 0, 2, 66]))?,
            forge(&management(&real)?, |headers, _| {
                headers.bth.pkey = PKey(0x9abc)
            })?,
        ];
        for _ in 0..ROUNDS {
            for frame in &flood {
                hub.inject(0, frame)?;
            }
        }
        // Whoever is in charge is answered meanwhile.
        let asked = Instant::now();
        hosts.alpha().overview()?;
        assert!(asked.elapsed() < Duration::from_secs(10));
        client.wait(Duration::from_secs(60))?.success()?;
        server.wait(Duration::from_secs(60))?.success()?;
        let dropped = hosts
            .alpha()
            .overview()?
            .hosts
            .context("hosts")?
            .wire
            .dropped;
        for reason in [
            "wrong_host",
            "unknown_qp",
            "wrong_partition",
            "bad_icrc",
            "malformed",
        ] {
            assert!(dropped[reason] > 0, "{reason} by {port}: {dropped:?}");
        }
        let strange = dropped["unknown_management"] + dropped["misplaced"];
        assert!(strange > 0, "{port}: {dropped:?}");
        let metrics = hosts.alpha().masq_output(["metrics"])?.success()?.output;
        assert!(
            metrics.contains("masq_wire_dropped_total{device=\"soft\",reason=\"wrong_host\"}"),
            "{metrics}"
        );
        hosts.pair("ibv_ud_pingpong -g 3 -c -s 1000 -n 50")?;
        hosts.meet("rping -s -V -C 5", "rping -c -a 10.0.0.1 -V -C 5")?;
        hosts.wait_until_empty()?;
    }
    Ok(())
}

fn wait_for(seen: &Seen, opcode: Opcode) -> anyhow::Result<Vec<u8>> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(frame) = seen.lock().unwrap().get(&(opcode as u8)) {
            return Ok(frame.clone());
        }
        anyhow::ensure!(Instant::now() < end, "no {opcode:?} was seen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A datagram for QP1 that says nothing.
fn management(like: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (ethernet, rest) = like.split_at(ETHERNET);
    let datagram = Datagram::parse(rest)?;
    let mut bth = Bth::new(Opcode::UdSendOnly, Qpn::GSI, Psn::new(1));
    bth.pkey = PKey(datagram.packet().bth().pkey().0);
    let headers = Headers {
        bth,
        extended: Extended::Deth(masq_wire::Deth {
            qkey: masq_wire::QKey(0x8001_0000),
            src_qpn: Qpn::GSI,
        }),
    };
    let mut out = vec![0; 1000];
    let len = build_ip(&headers, &[&[7; 256]], &datagram.ip(), 50000, &mut out)?;
    out.truncate(len);
    Ok([ethernet, &out].concat())
}

/// One bit of the payload is another; UDP has no opinion.
fn damaged(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_owned();
    frame[ETHERNET + 26..ETHERNET + 28].fill(0);
    frame[ETHERNET + 100] ^= 4;
    frame
}

/// Nothing makes sense behind the UDP header.
fn garbage(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_owned();
    frame[ETHERNET + 26..ETHERNET + 28].fill(0);
    frame[ETHERNET + 28..].fill(0xff);
    frame
}
