//! No store of another thread is lost while its page moves, in either direction.
#![allow(unsafe_code, reason = "the tests are about raw memory")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::*;
use masq_regmem::StoreGuard;

/// A counter in each page of `memory`, seen as the program sees it.
fn counters(memory: &Memory) -> Vec<&AtomicU64> {
    (0..memory.len / page())
        // SAFETY: aligned, mapped as long as `memory` lives, and used as an atomic only.
        .map(|at| unsafe { &*((memory.addr + at * page() + 64) as *const AtomicU64) })
        .collect()
}

fn no_increment_is_lost(memory: &Memory, rounds: usize, register_part: impl Fn(usize)) {
    let stop = AtomicBool::new(false);
    let counters = counters(memory);
    // Stores that are no read-modify-write show a lost page as well: each writer has its pages.
    let writers = 2;
    let counted: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let (counters, stop) = (&counters, &stop);
                scope.spawn(move || {
                    let mut expected = vec![0u64; counters.len()];
                    while !stop.load(Ordering::Relaxed) {
                        for (at, counter) in counters.iter().enumerate() {
                            if at % writers == writer {
                                expected[at] += 1;
                                let before = counter.load(Ordering::Relaxed);
                                counter.store(before + 1, Ordering::Relaxed);
                            }
                        }
                    }
                    expected
                })
            })
            .collect();
        for round in 0..rounds {
            register_part(round);
        }
        stop.store(true, Ordering::Relaxed);
        let each: Vec<Vec<u64>> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        (0..counters.len())
            .map(|at| each.iter().map(|e| e[at]).sum())
            .collect()
    });
    let found: Vec<u64> = counters.iter().map(|c| c.load(Ordering::Relaxed)).collect();
    let lost = counted
        .iter()
        .zip(&found)
        .filter(|(counted, found)| counted != found)
        .count();
    assert_eq!(lost, 0, "pages with lost increments, of {}", counters.len());
    assert!(counted.iter().sum::<u64>() > 0);
}

#[test]
fn a_concurrent_writer_loses_no_increment() {
    assert_ne!(
        arena().store_guard(),
        StoreGuard::None,
        "this machine can guard stores"
    );
    let memory = Memory::anon(3 << 20);
    no_increment_is_lost(&memory, 300, |_| {
        let registration = register(&memory);
        std::thread::yield_now();
        arena().unregister(registration.id).unwrap();
    });
}

#[test]
fn changing_overlaps_lose_no_increment() {
    let memory = Memory::anon(1 << 20);
    no_increment_is_lost(&memory, 300, |round| {
        let at = (round * 37) % 128 * page();
        let one = arena()
            .register(memory.addr + at, 64 * page() + 9, true)
            .unwrap();
        let two = arena()
            .register(memory.addr + at / 2, 70 * page() + 1, true)
            .unwrap();
        arena().unregister(one.id).unwrap();
        arena().unregister(two.id).unwrap();
    });
}

#[test]
fn pages_first_touched_during_the_move_lose_no_store() {
    for _ in 0..20 {
        let memory = Memory::anon(8 << 20);
        no_increment_is_lost(&memory, 2, |_| {
            let registration = register(&memory);
            arena().unregister(registration.id).unwrap();
            memory.advise(libc::MADV_COLD);
        });
    }
}

#[test]
fn concurrent_registrations_of_one_range_agree() {
    let mut memory = Memory::anon(1 << 20);
    memory.fill(1);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let memory = &memory;
            scope.spawn(move || {
                for round in 0..100 {
                    let at = (thread * 31 + round * 7) % 200 * page();
                    let registration = arena()
                        .register(memory.addr + at, 50 * page(), true)
                        .unwrap();
                    assert_eq!(
                        registration.segments,
                        [window_segment(memory.addr + at, 50 * page())]
                    );
                    arena().unregister(registration.id).unwrap();
                }
            });
        }
    });
    memory.assert_filled(1);
    assert!(smaps(memory.addr)[0].contains("rw-p"));
}

#[test]
fn system_calls_of_other_threads_wait_where_the_guard_is_full() {
    if arena().store_guard() != StoreGuard::Full {
        eprintln!("skipped: this process may only guard stores in user mode");
        return;
    }
    let memory = Memory::anon(4 << 20);
    let stop = AtomicBool::new(false);
    let zero = std::fs::File::open("/dev/zero").unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut calls = 0u64;
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: reads zeroes into this test's memory.
                let ret = unsafe {
                    libc::read(
                        std::os::fd::AsRawFd::as_raw_fd(&zero),
                        memory.addr as _,
                        memory.len,
                    )
                };
                assert_eq!(
                    ret,
                    memory.len as isize,
                    "{}",
                    std::io::Error::last_os_error()
                );
                calls += 1;
            }
            calls
        });
        for _ in 0..100 {
            let registration = register(&memory);
            arena().unregister(registration.id).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}
