//! How fast memory moves: GB/s for large buffers, µs for small ones.
//!
//! `cargo bench -p masq-regmem`
#![allow(unsafe_code, missing_docs, reason = "a benchmark of raw memory")]

use std::time::{Duration, Instant};

use masq_regmem::Arena;

fn anon(len: usize) -> usize {
    // SAFETY: no fixed address.
    let addr = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(addr, libc::MAP_FAILED);
    addr as usize
}

fn touch(addr: usize, len: usize) {
    // SAFETY: the benchmark's own memory.
    unsafe { std::ptr::write_bytes(addr as *mut u8, 1, len) };
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let arena = Arena::global().unwrap();
    println!("stores guarded: {:?}", arena.store_guard());
    println!(
        "{:>10} {:>22} {:>22} {:>14}",
        "bytes", "register", "unregister", "memcpy"
    );
    for (len, rounds) in [
        (4 << 10, 500),
        (64 << 10, 500),
        (1 << 20, 100),
        (64 << 20, 9),
        (1 << 30, 3),
    ] {
        let addr = anon(len);
        let target = anon(len);
        touch(addr, len);
        touch(target, len);
        let (mut in_times, mut out_times, mut copy_times) = (vec![], vec![], vec![]);
        for _ in 0..rounds {
            let start = Instant::now();
            let registration = arena.register(addr, len, true).unwrap();
            in_times.push(start.elapsed());
            let start = Instant::now();
            arena.unregister(registration.id).unwrap();
            out_times.push(start.elapsed());
            let start = Instant::now();
            // SAFETY: two separate mappings of `len` bytes.
            unsafe { std::ptr::copy_nonoverlapping(addr as *const u8, target as *mut u8, len) };
            copy_times.push(start.elapsed());
        }
        let show = |times| {
            let time = median(times);
            let rate = len as f64 / time.as_secs_f64() / 1e9;
            format!("{:>9.1} µs {rate:>5.2} GB/s", time.as_secs_f64() * 1e6)
        };
        println!(
            "{len:>10} {} {} {}",
            show(in_times),
            show(out_times),
            show(copy_times)
        );
        // SAFETY: the benchmark's own memory.
        unsafe {
            libc::munmap(addr as _, len);
            libc::munmap(target as _, len);
        }
    }

    let len = 1 << 20;
    let addr = anon(len);
    touch(addr, len);
    let held = arena.register(addr, len, true).unwrap();
    let times = (0..2000)
        .map(|_| {
            let start = Instant::now();
            let registration = arena.register(addr, len, true).unwrap();
            arena.unregister(registration.id).unwrap();
            start.elapsed()
        })
        .collect();
    println!(
        "registering moved memory again, and back: {:?}",
        median(times)
    );
    arena.unregister(held.id).unwrap();
}
