use super::*;
use crate::sys::address::RawAddress;
use crate::sys::control::Control;
use crate::testing::hosts::two_hosts;
use crate::testing::*;
use proptest::prelude::*;

#[test]
fn trains_that_are_refused_go_packet_by_packet_and_no_more_are_made() {
    let Some([a, b]) = two_hosts(9000) else {
        return;
    };
    for v6 in [false, true] {
        let open = |host: IpAddr| open_udp(&Config::new(host)).unwrap().remove(0);
        let mut from = a.run(|| open(a.address(v6)));
        let mut to = b.run(|| open(b.address(v6)));
        // The kernel cuts no trains without checksums.
        socket::set_checksums(from.socket.as_fd(), from.host(), false).unwrap();
        let path = path(to.host());
        for round in 0..2 {
            let before = from.counters();
            for psn in 0..10 {
                assert!(put(&mut from, &path, 7, psn, 1024));
            }
            from.flush();
            let psns: Vec<_> = gather(&mut to, 10).iter().map(|(psn, _)| *psn).collect();
            assert_eq!(psns, (0..10).collect::<Vec<_>>(), "{:?}", to.counters());
            assert_eq!(from.counters().sent.packets - before.sent.packets, 10);
            let calls = from.counters().send_calls - before.send_calls;
            assert_eq!(calls, [11, 1][round]);
        }
        assert_eq!(from.counters().send_errors.total(), 0);
        assert_eq!(to.counters().bad_icrc, 0);
    }
}

fn desk() -> Desk {
    Desk::new(64, None)
}

proptest! {
    #[test]
    fn whatever_arrives_is_judged_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        control in proptest::collection::vec(any::<u8>(), Control::LEN),
        len in 0..=Control::LEN,
        v6: bool,
    ) {
        let mut raw = Control::EMPTY;
        raw.bytes_mut().copy_from_slice(&control);
        raw.set_len(len);
        let here = IpAddr::from([10, 0, 0, 1]);
        let from = if v6 { IpAddr::from([1; 16]) } else { here };
        let arrival = Arrival {
            start: 0,
            bytes: &bytes,
            from: &RawAddress::new(from, 1, 0),
            control: &raw,
            truncated: false,
        };
        let mut desk = desk();
        judge(&mut desk, &arrival, here, false);
        let counters = desk.counters;
        prop_assert_eq!(desk.len(), 0);
        let counted = counters.malformed_total() + counters.bad_icrc + counters.not_for_us;
        prop_assert!(counted > 0, "each packet is counted");
    }

    #[test]
    fn each_packet_of_an_aggregate_is_judged_for_itself(
        packet in (1..40usize).prop_map(|words| words * 4),
        count in 1..30usize,
        end in (0..40usize).prop_map(|words| words * 4),
        damaged: prop::sample::Index,
    ) {
        let end = end.min(packet);
        let mut sender = Sender::new([10, 0, 0, 2].into(), 0, true);
        let mut counters = Counters::default();
        let mut bytes = Vec::new();
        let lengths: Vec<_> = std::iter::repeat_n(packet, count).chain([end]).collect();
        let path = path([10, 0, 0, 1].into());
        let damaged = damaged.index(lengths.len());
        for (psn, len) in lengths.iter().enumerate() {
            let place = sender.place(&path, len + SHORTEST, &mut counters).unwrap();
            let headers = headers(7, psn as u32);
            let payload = payload(psn as u32, *len);
            masq_wire::build(&headers, &[&payload], &place.flow, place.ip_id, place.buffer).unwrap();
            if psn == damaged {
                place.buffer[len + SHORTEST - 1] ^= 0x10;
            }
            bytes.extend_from_slice(place.buffer);
            sender.commit();
        }
        let mut control = Control::EMPTY;
        let segment = (packet + SHORTEST) as i32;
        control.push(libc::SOL_UDP, libc::UDP_GRO, &segment.to_ne_bytes());
        let arrival = Arrival {
            start: 0,
            bytes: &bytes,
            from: &RawAddress::new([10, 0, 0, 2].into(), masq_wire::ROCE_PORT, 0),
            control: &control,
            truncated: false,
        };
        let mut desk = desk();
        judge(&mut desk, &arrival, [10, 0, 0, 1].into(), false);
        prop_assert_eq!(desk.counters.bad_icrc, 1);
        prop_assert_eq!(desk.len(), lengths.len() - 1);
        let psns: Vec<_> = (0..desk.len())
            .map(|index| {
                let incoming = desk.packet(index, |start, len| bytes.get(start..start + len));
                incoming.unwrap().packet.bth().psn().get() as usize
            })
            .collect();
        let expected: Vec<_> = (0..lengths.len()).filter(|psn| *psn != damaged).collect();
        prop_assert_eq!(psns, expected);
    }
}
