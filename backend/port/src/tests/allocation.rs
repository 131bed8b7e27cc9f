//! The data path allocates nothing.
#![allow(unsafe_code)] // a global allocator

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::*;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Counts the allocations of each thread.
struct Counting;

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
        let before = COUNT.with(Cell::get);
        let mut seen = 0;
        for _ in 0..50 {
            seen += round(&mut *from, &mut threads, &payload);
        }
        assert_eq!(COUNT.with(Cell::get) - before, 0);
        // IPv6 has no identification that could be wrong.
        assert_eq!(seen, 50 * if v6 { 14 } else { 12 });
        let counters = threads[0].counters().plus(&threads[1].counters());
        assert!(counters.handed_over > 0);
    });
}
