//! After fork the child owns a private snapshot, and the parent its memory.
#![allow(unsafe_code, reason = "the tests are about raw memory")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::*;
use masq_regmem::{Arena, RegError};

/// Two ends of a pipe as files, to order what parent and child do.
fn pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    std::io::pipe().unwrap()
}

#[test]
fn neither_side_sees_the_others_stores() {
    use std::io::{Read, Write};
    in_own_process("neither_side_sees_the_others_stores", &[], || {
        let mut memory = Memory::anon(5 << 20);
        memory.fill(1);
        let registration = register(&memory);
        let (mut child_waits, mut parent_says) = pipe();
        let (mut parent_waits, mut child_says) = pipe();
        let addr = memory.addr;
        let pid = fork(|| {
            // The parent stores and RDMA arrives: neither shows here.
            child_waits.read_exact(&mut [0]).unwrap();
            let mut mine = std::mem::ManuallyDrop::new(Memory { addr, len: 5 << 20 });
            mine.assert_filled(1);
            mine.fill(9);
            child_says.write_all(&[1]).unwrap();
            child_waits.read_exact(&mut [0]).unwrap();
            mine.assert_filled(9);
            smaps(addr)[0].contains("rw-p")
        });
        memory.fill(2);
        Memory::window(arena(), memory.addr, memory.len).bytes_mut()[0] = 0x55;
        parent_says.write_all(&[1]).unwrap();
        parent_waits.read_exact(&mut [0]).unwrap();
        assert_eq!(memory.bytes()[0], 0x55);
        memory.bytes_mut()[0] = pattern(0, 2);
        memory.assert_filled(2);
        parent_says.write_all(&[1]).unwrap();
        assert!(succeeded(pid));
        // The parent's registration goes on as before.
        Memory::window(arena(), memory.addr, memory.len).assert_filled(2);
        arena().unregister(registration.id).unwrap();
        memory.assert_filled(2);
    });
}

#[test]
fn the_child_starts_an_arena_of_its_own() {
    in_own_process("the_child_starts_an_arena_of_its_own", &[], || {
        let mut memory = Memory::anon(1 << 20);
        memory.fill(1);
        let registration = register(&memory);
        let inherited = arena();
        let region = inherited.alloc_shared(4096).unwrap();
        // SAFETY: the region is this test's alone.
        unsafe { region.as_ptr().write(7) };
        let pid = fork(|| {
            // What came from the parent says so, and harms nobody.
            let stale = inherited.unregister(registration.id);
            assert!(matches!(stale, Err(RegError::Forked)));
            assert!(matches!(inherited.alloc_shared(1), Err(RegError::Forked)));
            // SAFETY: a private copy by now.
            unsafe {
                assert_eq!(region.as_ptr().read(), 7);
                region.as_ptr().write(8);
            }
            drop(region); // of the closure, so the parent drops its own when fork returns

            let own = Arena::global().unwrap();
            assert!(matches!(
                own.unregister(registration.id),
                Err(RegError::Forked)
            ));
            let addr = memory.addr;
            let mut mine = std::mem::ManuallyDrop::new(Memory { addr, len: 1 << 20 });
            let again = register(&mine);
            assert_eq!(again.segments, [window_segment(addr, 1 << 20)]);
            mine.fill(3);
            Memory::window(own, addr, 1 << 20).assert_filled(3);
            own.unregister(again.id).unwrap();
            mine.assert_filled(3);
            stored() == 0
        });
        assert!(succeeded(pid));
        memory.assert_filled(1);
        Memory::window(arena(), memory.addr, memory.len).assert_filled(1);
        assert_eq!(stored(), 1 << 20);
        arena().unregister(registration.id).unwrap();
    });
}

#[test]
fn grandchildren_own_their_memory_too() {
    in_own_process("grandchildren_own_their_memory_too", &[], || {
        let mut memory = Memory::anon(1 << 20);
        memory.fill(1);
        let registration = register(&memory);
        let addr = memory.addr;
        let view = |seed: u8| {
            let mut view = std::mem::ManuallyDrop::new(Memory { addr, len: 1 << 20 });
            view.fill(seed);
            view
        };
        let pid = fork(|| {
            let mine = view(2);
            let registration = register(&mine);
            let grandchild = fork(|| {
                mine.assert_filled(2);
                let theirs = view(3);
                let again = register(&theirs);
                theirs.assert_filled(3);
                arena().unregister(again.id).is_ok()
            });
            let good = succeeded(grandchild);
            mine.assert_filled(2);
            Memory::window(arena(), addr, 1 << 20).assert_filled(2);
            arena().unregister(registration.id).unwrap();
            good
        });
        assert!(succeeded(pid));
        memory.assert_filled(1);
        arena().unregister(registration.id).unwrap();
    });
}

#[test]
fn threads_of_the_parent_go_on_registering_and_forking() {
    in_own_process(
        "threads_of_the_parent_go_on_registering_and_forking",
        &[],
        || {
            let mut memory = Memory::anon(2 << 20);
            memory.fill(1);
            let registration = register(&memory);
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        let mut own = Memory::anon(64 * page());
                        own.fill(5);
                        while !stop.load(Ordering::Relaxed) {
                            let registration = register(&own);
                            arena().unregister(registration.id).unwrap();
                        }
                        own.assert_filled(5);
                    });
                }
                let forker = scope.spawn(|| {
                    for _ in 0..15 {
                        assert!(succeeded(fork(|| true)));
                    }
                });
                let addr = memory.addr;
                for _ in 0..15 {
                    let pid = fork(|| {
                        let mut mine = std::mem::ManuallyDrop::new(Memory { addr, len: 2 << 20 });
                        mine.assert_filled(1);
                        mine.fill(2);
                        let again = register(&mine);
                        arena().unregister(again.id).is_ok()
                    });
                    assert!(succeeded(pid));
                }
                forker.join().unwrap();
                stop.store(true, Ordering::Relaxed);
            });
            memory.assert_filled(1);
            arena().unregister(registration.id).unwrap();
        },
    );
}

extern "C" fn die_at_once() {
    // Registered before the arena's, so the child comes here first.
    // SAFETY: ends the process.
    unsafe { libc::_exit(3) }
}

#[test]
fn a_child_that_dies_before_its_copy_is_made_does_not_hang_the_parent() {
    in_own_process(
        "a_child_that_dies_before_its_copy_is_made_does_not_hang_the_parent",
        &[],
        || {
            // SAFETY: the handler only exits.
            let ret = unsafe { libc::pthread_atfork(None, None, Some(die_at_once)) };
            assert_eq!(ret, 0);
            let memory = Memory::anon(1 << 20);
            let registration = register(&memory);
            let start = Instant::now();
            let pid = fork(|| true);
            assert!(
                start.elapsed() < Duration::from_secs(8),
                "well before the wait's own end"
            );
            assert!(!succeeded(pid));
            arena().unregister(registration.id).unwrap();
        },
    );
}

#[test]
fn fork_without_a_free_descriptor_still_isolates() {
    in_own_process("fork_without_a_free_descriptor_still_isolates", &[], || {
        let mut memory = Memory::anon(1 << 20);
        memory.fill(1);
        let registration = register(&memory);
        let mut hoard = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            hoard.push(file);
        }
        let addr = memory.addr;
        let pid = fork(|| {
            let mut mine = std::mem::ManuallyDrop::new(Memory { addr, len: 1 << 20 });
            mine.assert_filled(1);
            mine.fill(2);
            true
        });
        assert!(succeeded(pid));
        drop(hoard);
        memory.assert_filled(1);
        arena().unregister(registration.id).unwrap();
    });
}

#[test]
fn memory_that_is_no_longer_registered_forks_as_ever() {
    in_own_process(
        "memory_that_is_no_longer_registered_forks_as_ever",
        &[],
        || {
            let mut memory = Memory::anon(1 << 20);
            memory.fill(1);
            let registration = register(&memory);
            arena().unregister(registration.id).unwrap();
            let addr = memory.addr;
            let pid = fork(|| {
                let mut mine = std::mem::ManuallyDrop::new(Memory { addr, len: 1 << 20 });
                mine.fill(2);
                true
            });
            assert!(succeeded(pid));
            memory.assert_filled(1);
        },
    );
}

#[test]
fn spawned_programs_run_while_memory_is_registered() {
    in_own_process(
        "spawned_programs_run_while_memory_is_registered",
        &[],
        || {
            let mut memory = Memory::anon(1 << 20);
            memory.fill(1);
            let registration = register(&memory);
            for _ in 0..5 {
                assert!(
                    std::process::Command::new("true")
                        .status()
                        .unwrap()
                        .success()
                );
            }
            memory.assert_filled(1);
            Memory::window(arena(), memory.addr, memory.len).assert_filled(1);
            arena().unregister(registration.id).unwrap();
        },
    );
}

#[test]
fn fork_after_the_program_closed_the_memfd_still_isolates() {
    in_own_process(
        "fork_after_the_program_closed_the_memfd_still_isolates",
        &[],
        || {
            let mut memory = Memory::anon(3 << 20);
            memory.fill(1);
            let _registration = register(&memory);
            let other = std::fs::File::open("/dev/null").unwrap();
            let fd = std::os::fd::AsRawFd::as_raw_fd(&arena().memfd());
            // SAFETY: what a daemon does that closes all its descriptors, and then opens others.
            let ret = unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&other), fd) };
            assert_eq!(ret, fd);
            let addr = memory.addr;
            let pid = fork(|| {
                let mut mine = std::mem::ManuallyDrop::new(Memory { addr, len: 3 << 20 });
                mine.assert_filled(1);
                mine.fill(2);
                true
            });
            assert!(succeeded(pid));
            memory.assert_filled(1);
        },
    );
}
