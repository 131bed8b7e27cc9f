use super::*;
use crate::testing::*;
use masq_wire::{Ip, Ipv4, build_ip};
use proptest::prelude::*;

proptest! {
    #[test]
    fn whatever_a_frame_holds_is_read_without_a_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
        v6: bool,
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = if v6 { 0x60 } else { 0x45 };
        }
        let _ = open(&bytes);
    }

    #[test]
    fn headers_are_read_as_they_were_written(id: u16, class: u8, ttl: u8, port: u16) {
        let ip = Ipv4 {
            class: TrafficClass(class),
            id,
            dont_fragment: true,
            ttl,
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
        };
        let mut out = [0; 200];
        let len = build_ip(&headers(7, 1), &[&[9; 100]], &Ip::V4(ip), port, &mut out).unwrap();
        let opened = open(&out[..len]).unwrap();
        prop_assert_eq!(opened.id, id);
        prop_assert_eq!(opened.envelope.traffic_class, TrafficClass(class));
        prop_assert_eq!(opened.envelope.hop_limit, ttl);
        prop_assert_eq!(opened.envelope.flow.src_port, port);
        prop_assert_eq!(opened.payload_at + opened.payload.len(), len);
    }
}
