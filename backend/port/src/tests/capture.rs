//! What is on the wire, as a packet socket at the other host sees it.

use masq_wire::{Datagram, Ip, Ipv4};

use super::*;
use crate::sys::Ring;
use crate::{interface::Interface, raw};

/// Whole frames from their network header on, and whether one is a train.
fn capture(ring: &mut Ring, count: usize) -> Vec<(Vec<u8>, bool)> {
    let mut frames = Vec::new();
    for _ in 0..300 {
        while let Some(frame) = ring.take() {
            assert!(!frame.truncated);
            let train = frame.copied || frame.offload.kind != 0;
            let bytes = ring.bytes(frame.start, frame.len).unwrap();
            frames.push((bytes.to_vec(), train));
        }
        ring.release();
        if frames.len() >= count {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    frames
}

fn ring(host: &Host, v6: bool) -> Ring {
    let address = host.address(v6);
    host.run(|| {
        let interface = Interface::of(address).unwrap();
        let filter = raw::filter::roce(address, 0, 1);
        Ring::open(interface.index, v6, &filter, 4 << 20).unwrap()
    })
}

/// Packets of all kinds of trains, and some alone.
fn send_mixture(from: &mut dyn Port, to: IpAddr) -> usize {
    let mut count = 0;
    for (len, times) in [
        (4096, 20),
        (1024, 80),
        (100, 70),
        (60, 3),
        (0, 65),
        (4093, 2),
    ] {
        for _ in 0..times {
            if !put(from, &path(to), 7, count as u32, len) {
                from.flush();
                assert!(put(from, &path(to), 7, count as u32, len));
            }
            count += 1;
        }
    }
    from.flush();
    assert_eq!(from.counters().send_errors.total(), 0);
    count
}

/// Offloads of the sender's interface: with the first alone trains reach the
/// other host uncut.
const OFFLOADS: [&str; 4] = [
    "",
    "tx-udp-segmentation off",
    "tx-udp-segmentation off tx off",
    "tx off gso off sg off",
];

#[test]
fn every_icrc_on_the_wire_covers_the_identification_beside_it() {
    for offloads in OFFLOADS {
        for_all(9000, |[a, b], kind, v6| {
            if !offloads.is_empty() && !a.try_command(&format!("ethtool -K {VETH} {offloads}")) {
                println!("skipped: cannot set {offloads:?}");
                return;
            }
            let mut ring = ring(b, v6);
            let mut from = open(kind, a, v6);
            let count = send_mixture(&mut *from, b.address(v6));
            let frames = capture(&mut ring, count);
            let mut ids = Vec::new();
            for (bytes, train) in &frames {
                if *train {
                    assert!(offloads.is_empty(), "the kernel cuts trains");
                    continue;
                }
                let datagram = Datagram::parse(bytes).unwrap();
                assert!(datagram.icrc_is_right());
                if let Ip::V4(Ipv4 {
                    id, dont_fragment, ..
                }) = datagram.ip()
                {
                    assert!(dont_fragment);
                    ids.push(id);
                }
            }
            if offloads.is_empty() {
                assert!(frames.iter().any(|(_, train)| *train));
            } else {
                assert_eq!(frames.len(), count);
            }
            if !offloads.is_empty() && !v6 {
                // The kernel has numbered the packets of each train.
                let highest = (train::longest(16) - 1) as u16;
                assert_eq!(ids.iter().max(), Some(&highest));
                let steps = ids.iter().zip(ids.iter().skip(1));
                for (id, next) in steps {
                    assert!(*next == 0 || *next == id + 1, "{id} {next}");
                }
            }
        });
    }
}

#[test]
fn trains_that_were_cut_or_joined_on_the_way_arrive() {
    for offloads in OFFLOADS {
        for gro in ["off", "on"] {
            for_all(9000, |[a, b], kind, v6| {
                let cut =
                    offloads.is_empty() || a.try_command(&format!("ethtool -K {VETH} {offloads}"));
                let joined = b.try_command(&format!("ethtool -K {VETH} gro {gro}"));
                if !cut || !joined {
                    println!("skipped: cannot set {offloads:?}, GRO {gro}");
                    return;
                }
                let (mut from, mut to) = (open(kind, a, v6), open(kind, b, v6));
                let count = send_mixture(&mut *from, to.host());
                let all = gather(&mut *to, count);
                let psns: Vec<_> = all.iter().map(|(psn, _)| *psn as usize).collect();
                let counters = to.counters();
                assert_eq!(psns, (0..count).collect::<Vec<_>>(), "{counters:?}");
                assert_eq!(counters.bad_icrc, 0);
            });
        }
    }
}
