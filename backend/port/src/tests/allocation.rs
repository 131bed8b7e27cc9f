//! The data path allocates nothing.

use super::*;
use allocation_counter::measure;

/// Sends packets, alone and in trains, some of them wrong; receives them.
fn round(from: &mut dyn Port, to: &mut [AnyPort], payload: &[u8]) -> usize {
    let host = to[0].host();
    for (number, len) in [4096, 4096, 4096, 64, 64, 0, 8].into_iter().enumerate() {
        for qpn in 0..2 {
            let place = from.place(&path(host), len + SHORTEST).unwrap();
            let id = if number == 3 { 0x8000 } else { place.ip_id };
            let headers = headers(qpn, number as u32);
            build(&headers, &[&payload[..len]], &place.flow, id, place.buffer).unwrap();
            from.commit();
        }
    }
    from.flush();
    let mut seen = 0;
    for _ in 0..20 {
        for port in &mut *to {
            for index in 0..port.receive() {
                seen += usize::from(port.packet(index).is_some());
            }
        }
    }
    seen
}

#[test]
fn packets_in_and_out_allocate_nothing() {
    for_all(9000, |[a, b], kind, v6| {
        let mut from = open(kind, a, v6);
        let threads = open_with(kind, b, v6, |config| config.threads = 2);
        let mut threads = threads.unwrap();
        let payload = payload(1, 4096);
        round(&mut *from, &mut threads, &payload);
        let mut seen = 0;
        let allocations = measure(|| {
            for _ in 0..50 {
                seen += round(&mut *from, &mut threads, &payload);
            }
        });
        assert_eq!(allocations.count_total, 0);
        // IPv6 has no identification that could be wrong.
        assert_eq!(seen, 50 * if v6 { 14 } else { 12 });
        let counters = threads[0].counters().plus(&threads[1].counters());
        assert!(counters.handed_over > 0);
    });
}
