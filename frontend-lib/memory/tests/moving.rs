//! What moves, what stays, and what the program sees of it.
#![allow(unsafe_code, reason = "the tests are about raw memory")]

mod common;

use std::os::fd::AsRawFd;

use common::*;
use masq_regmem::{ARENA_SIZE, Arena, RegError, SegmentKind};

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

#[test]
fn address_and_contents_stay_and_the_window_is_the_same_memory() {
    let mut memory = Memory::anon(5 << 20);
    memory.fill(1);
    let registration = register(&memory);
    assert_eq!(
        registration.segments,
        [window_segment(memory.addr, memory.len)]
    );
    memory.assert_filled(1);

    let mut window = Memory::window(arena(), memory.addr, memory.len);
    window.assert_filled(1);
    window.bytes_mut()[777_777] = 0xAB;
    assert_eq!(memory.bytes()[777_777], 0xAB);
    memory.bytes_mut()[3] = 0xCD;
    assert_eq!(window.bytes()[3], 0xCD);
    memory.fill(2);
    window.assert_filled(2);

    arena().unregister(registration.id).unwrap();
    memory.assert_filled(2);
}

#[test]
fn a_partial_page_moves_if_its_owner_says_that_it_holds_nothing_else() {
    let mut memory = Memory::anon(2 * 4096);
    memory.fill(1);
    let register = |addr, len| arena().register(addr, len, true).unwrap();
    let shared = register(memory.addr, 100);
    assert_eq!(shared.segments[0].kind, SegmentKind::Remote);
    arena().unregister(shared.id).unwrap();

    masq_regmem::claim(memory.addr, memory.len);
    let own = register(memory.addr + 4000, 196);
    assert_eq!(own.segments, [window_segment(memory.addr + 4000, 196)]);
    memory.assert_filled(1);
    let mut window = Memory::window(arena(), memory.addr, memory.len);
    window.bytes_mut()[4100] = 0xAB;
    assert_eq!(memory.bytes()[4100], 0xAB);
    arena().unregister(own.id).unwrap();

    masq_regmem::disclaim(memory.addr);
    let shared = register(memory.addr, 100);
    assert_eq!(shared.segments[0].kind, SegmentKind::Remote);
    arena().unregister(shared.id).unwrap();
}

#[test]
fn a_large_allocation_of_malloc_moves_whole_and_lives_on_after_it() {
    const LEN: usize = 3 << 20;
    // SAFETY: allocated, used within its length and freed here.
    unsafe {
        let memory = libc::malloc(LEN).cast::<u8>();
        memory.write_bytes(7, LEN);
        let registration = arena().register(memory as usize, LEN, true).unwrap();
        assert_eq!(
            registration.segments,
            [window_segment(memory as usize, LEN)]
        );
        // A small one shares its page with others.
        let small = libc::malloc(100).cast::<u8>();
        let other = arena().register(small as usize, 100, true).unwrap();
        assert_eq!(other.segments[0].kind, SegmentKind::Remote);
        arena().unregister(other.id).unwrap();
        libc::free(small.cast());
        assert_eq!((*memory, *memory.add(LEN - 1)), (7, 7));
        arena().unregister(registration.id).unwrap();
        let memory = libc::realloc(memory.cast(), 2 * LEN).cast::<u8>();
        assert_eq!((*memory, *memory.add(LEN - 1)), (7, 7));
        libc::free(memory.cast());
    }
}

#[test]
fn small_queues_share_a_mapping_and_nothing_else() {
    const SIZES: [usize; 8] = [64, 100, 256, 257, 4096, 5000, 20_000, 32 << 10];
    let take = |round: usize| -> Vec<masq_regmem::SharedRegion> {
        (0..200)
            .map(|i| {
                arena()
                    .alloc_shared(SIZES[(i + round) % SIZES.len()])
                    .unwrap()
            })
            .collect()
    };
    let threads: Vec<_> = (0..4)
        .map(|round| {
            std::thread::spawn(move || {
                let mut queues = take(round);
                for (i, queue) in queues.iter().enumerate() {
                    // SAFETY: the queue's own bytes.
                    unsafe {
                        assert!((0..queue.len()).all(|at| *queue.as_ptr().add(at) == 0));
                        queue
                            .as_ptr()
                            .write_bytes((round * 50 + i % 50) as u8 + 1, queue.len());
                    }
                }
                queues.swap_remove(7);
                queues
            })
        })
        .collect();
    let queues: Vec<_> = threads
        .into_iter()
        .flat_map(|t| t.join().unwrap())
        .collect();
    let mut spans: Vec<_> = queues.iter().map(|q| (q.offset(), q.len())).collect();
    spans.sort_unstable();
    assert!(
        spans.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0),
        "no two overlap"
    );
    for queue in &queues {
        // SAFETY: as above.
        let bytes = unsafe { std::slice::from_raw_parts(queue.as_ptr(), queue.len()) };
        assert!(
            bytes.iter().all(|b| *b == bytes[0]),
            "nobody else wrote there"
        );
        let chunk = |at| at / (256 << 10);
        assert_eq!(
            chunk(queue.offset()),
            chunk(queue.offset() + queue.len() - 1)
        );
    }
}

#[test]
fn the_memfd_is_as_large_as_the_address_space_and_sealed() {
    let fd = arena().memfd().as_raw_fd();
    // SAFETY: takes no pointers.
    let (seals, flags) = unsafe {
        (
            libc::fcntl(fd, libc::F_GET_SEALS),
            libc::fcntl(fd, libc::F_GETFD),
        )
    };
    let wanted = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    assert_eq!(seals & wanted, wanted);
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    // SAFETY: takes no pointers.
    let ret = unsafe { libc::lseek(fd, 0, libc::SEEK_END) };
    assert_eq!(ret as usize, ARENA_SIZE);
}

#[test]
fn memory_is_private_again_and_its_storage_free_after_the_last_registration() {
    in_own_process(
        "memory_is_private_again_and_its_storage_free_after_the_last_registration",
        &[],
        || {
            let mut memory = Memory::anon(3 << 20);
            memory.fill(3);
            let registration = register(&memory);
            assert_eq!(stored(), memory.len);
            assert!(smaps(memory.addr)[0].contains("rw-s"));
            arena().unregister(registration.id).unwrap();
            assert_eq!(stored(), 0);
            let line = &smaps(memory.addr)[0];
            assert!(line.contains("rw-p") && !line.contains("memfd"), "{line}");
            memory.assert_filled(3);
            memory.advise(libc::MADV_DONTNEED);
            assert!(memory.bytes().iter().all(|&byte| byte == 0));
        },
    );
}

#[test]
fn partial_pages_stay_where_they_are() {
    let page = page();
    let mut memory = Memory::anon(4 * page);
    memory.fill(4);
    let (addr, len) = (memory.addr + 100, 3 * page);
    let registration = arena().register(addr, len, true).unwrap();
    assert_eq!(
        registration.segments,
        [
            remote_segment(addr, page - 100),
            window_segment(memory.addr + page, 2 * page),
            remote_segment(memory.addr + 3 * page, 100),
        ]
    );
    let small = arena().register(memory.addr + 7, 1, true).unwrap();
    assert_eq!(small.segments, [remote_segment(memory.addr + 7, 1)]);
    for id in [registration.id, small.id] {
        arena().unregister(id).unwrap();
    }
    memory.assert_filled(4);
}

#[test]
fn a_page_stays_moved_until_its_last_registration_ends() {
    let page = page();
    let mut memory = Memory::anon(8 * page);
    memory.fill(5);
    let part = |first: usize, count: usize| {
        arena()
            .register(memory.addr + first * page, count * page, true)
            .unwrap()
    };
    let shared = |at: usize| smaps(memory.addr + at * page)[0].contains("rw-s");
    let whole = part(0, 8);
    let repeated: Vec<_> = (0..10).map(|_| part(0, 8)).collect();
    let middle = part(2, 4);
    let inside = arena()
        .register(memory.addr + 3 * page + 5, 10, true)
        .unwrap();
    assert_eq!(
        inside.segments,
        [window_segment(memory.addr + 3 * page + 5, 10)]
    );
    for again in repeated {
        arena().unregister(again.id).unwrap();
    }
    arena().unregister(whole.id).unwrap();
    assert_eq!(
        [0, 1, 2, 3, 5, 6, 7].map(shared),
        [false, false, true, true, true, false, false]
    );
    arena().unregister(middle.id).unwrap();
    assert_eq!([2, 3, 4].map(shared), [false, true, false]);
    arena().unregister(inside.id).unwrap();
    assert!(!shared(3));
    assert!(matches!(
        arena().unregister(inside.id),
        Err(RegError::Unknown)
    ));
    memory.assert_filled(5);
}

#[test]
fn memory_reused_at_the_same_address_is_moved_anew() {
    let page = page();
    let memory = Memory::anon(6 * page);
    let stale = register(&memory);
    // SAFETY: replaces this test's own memory.
    let again = unsafe {
        libc::mmap(
            memory.addr as _,
            memory.len,
            RW,
            PRIVATE | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    assert_eq!(again as usize, memory.addr);
    let mut memory = memory;
    assert!(memory.bytes().iter().all(|&byte| byte == 0));
    memory.fill(6);

    let fresh = register(&memory);
    assert_eq!(fresh.segments, [window_segment(memory.addr, memory.len)]);
    Memory::window(arena(), memory.addr, memory.len).assert_filled(6);
    // The registration of the memory that is gone must not take the new memory's away.
    arena().unregister(stale.id).unwrap();
    memory.fill(7);
    Memory::window(arena(), memory.addr, memory.len).assert_filled(7);
    arena().unregister(fresh.id).unwrap();
    memory.assert_filled(7);
}

#[test]
fn storage_of_memory_unmapped_while_registered_is_freed_with_the_registration() {
    in_own_process(
        "storage_of_memory_unmapped_while_registered_is_freed_with_the_registration",
        &[],
        || {
            let memory = Memory::anon(1 << 20);
            let registration = register(&memory);
            drop(memory);
            assert_eq!(stored(), 1 << 20);
            arena().unregister(registration.id).unwrap();
            assert_eq!(stored(), 0);
        },
    );
}

#[test]
fn memory_that_the_program_remapped_keeps_its_contents() {
    let mut memory = Memory::anon(1 << 20);
    memory.fill(8);
    let registration = register(&memory);
    let target = Memory::anon(1 << 20);
    // SAFETY: moves this test's memory over its own other memory.
    let moved = unsafe {
        libc::mremap(
            memory.addr as _,
            memory.len,
            memory.len,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            target.addr,
        )
    };
    assert_eq!(moved as usize, target.addr);
    target.assert_filled(8);
    let second = register(&target);
    assert_eq!(second.segments, [window_segment(target.addr, target.len)]);
    Memory::window(arena(), target.addr, target.len).assert_filled(8);
    arena().unregister(registration.id).unwrap();
    target.assert_filled(8);
    arena().unregister(second.id).unwrap();
    target.assert_filled(8);

    // And the other order: the registration ends while its pages are mapped elsewhere.
    let third = register(&target);
    let place = Memory::anon(1 << 20);
    // SAFETY: as above.
    let moved = unsafe {
        libc::mremap(
            target.addr as _,
            target.len,
            target.len,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            place.addr,
        )
    };
    assert_eq!(moved as usize, place.addr);
    arena().unregister(third.id).unwrap();
    place.assert_filled(8);
    assert!(smaps(place.addr)[0].contains("rw-p"));
    std::mem::forget((memory, target));
}

static mut ZEROED: [u8; 1 << 18] = [0; 1 << 18];

#[test]
fn bss_and_brk_are_moved() {
    in_own_process("bss_and_brk_are_moved", &[], || {
        // SAFETY: only the address is taken.
        let bss = (&raw mut ZEROED) as usize;
        // SAFETY: the break is moved up only, and the C library copes with foreign use of it.
        let heap = unsafe { libc::sbrk(1 << 18) } as usize;
        for addr in [bss, heap] {
            let mut buffer = std::mem::ManuallyDrop::new(Memory { addr, len: 1 << 18 });
            buffer.fill(9);
            let registration = register(&buffer);
            let moved: usize = registration
                .segments
                .iter()
                .filter(|segment| segment.kind == SegmentKind::Window)
                .map(|segment| segment.len)
                .sum();
            assert!(
                moved >= (1 << 18) - 3 * page(),
                "{:?}",
                registration.segments
            );
            buffer.assert_filled(9);
            arena().unregister(registration.id).unwrap();
            buffer.assert_filled(9);
        }
        // The break can still be lowered and raised over what was moved.
        // SAFETY: gives back what was taken above.
        unsafe {
            libc::sbrk(-(1 << 18));
            assert_eq!(libc::sbrk(1 << 18) as usize, heap);
        }
    });
}

#[test]
fn heap_buffers_and_the_allocator_survive() {
    let mut buffers: Vec<Vec<u8>> = (0..40).map(|i| vec![i as u8; 10_000 + i * 3_000]).collect();
    let mut ids = Vec::new();
    for buffer in &mut buffers {
        ids.push(
            arena()
                .register(buffer.as_ptr() as usize, buffer.len(), true)
                .unwrap()
                .id,
        );
    }
    let churn: Vec<Vec<u8>> = (0..200).map(|i| vec![7; i * 97]).collect();
    for (i, buffer) in buffers.iter_mut().enumerate() {
        assert!(buffer.iter().all(|&byte| byte == i as u8));
        buffer.fill(0xEE);
    }
    for id in ids {
        arena().unregister(id).unwrap();
    }
    drop(churn);
    assert!(buffers.iter().flatten().all(|&byte| byte == 0xEE));
}

#[test]
fn stacks_of_all_threads_stay() {
    let mut local = [1u8; 1 << 17];
    let own = arena()
        .register(local.as_mut_ptr() as usize, local.len(), true)
        .unwrap();
    assert_eq!(
        own.segments,
        [remote_segment(local.as_ptr() as usize, local.len())]
    );

    let (to_main, addresses) = std::sync::mpsc::channel();
    let (quit, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let mut local = [2u8; 1 << 17];
        to_main.send(local.as_mut_ptr() as usize).unwrap();
        wait.recv().unwrap_err();
        assert!(std::hint::black_box(&local).iter().all(|&byte| byte == 2));
    });
    let addr = addresses.recv().unwrap();
    let other = arena().register(addr, 1 << 17, true).unwrap();
    assert_eq!(other.segments, [remote_segment(addr, 1 << 17)]);
    drop(quit);
    thread.join().unwrap();
    for id in [own.id, other.id] {
        arena().unregister(id).unwrap();
    }
}

#[test]
fn the_main_threads_stack_stays() {
    // The harness runs tests in threads: the main stack is found by its name.
    let text = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = text.lines().find(|line| line.ends_with("[stack]")).unwrap();
    let end = line.split([' ', '-']).nth(1).unwrap();
    let addr = usize::from_str_radix(end, 16).unwrap() - 4 * page();
    let registration = arena().register(addr, 2 * page(), true).unwrap();
    assert_eq!(registration.segments, [remote_segment(addr, 2 * page())]);
    arena().unregister(registration.id).unwrap();
}

#[test]
fn shared_memory_and_files_stay() {
    let page = page();
    let len = 4 * page;
    // SAFETY: makes and attaches a segment of its own, which goes when detached.
    let sysv = unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, len, 0o600);
        assert!(id >= 0);
        let addr = libc::shmat(id, std::ptr::null(), 0) as usize;
        libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut());
        addr
    };
    let path = std::env::temp_dir().join(format!("masq-regmem-{}", std::process::id()));
    std::fs::write(&path, vec![1; len]).unwrap();
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let fd = file.as_raw_fd();
    let others = [
        Memory::mapped(len, RW, libc::MAP_SHARED, fd, 0),
        Memory::mapped(len, RW, libc::MAP_PRIVATE, fd, 0),
        Memory::mapped(len, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0),
    ];
    for addr in others.iter().map(|memory| memory.addr).chain([sysv]) {
        let registration = arena().register(addr, len, true).unwrap();
        assert_eq!(registration.segments, [remote_segment(addr, len)]);
        arena().unregister(registration.id).unwrap();
    }
    // Past the file's end there is nothing to register.
    file.set_len(0).unwrap();
    let error = arena().register(others[0].addr, len, true).unwrap_err();
    assert_eq!(error.errno(), libc::EFAULT);
    // SAFETY: nobody uses the segment any more.
    unsafe { libc::shmdt(sysv as _) };
}

#[test]
fn huge_pages_stay() {
    let len = 2 << 20;
    // SAFETY: no fixed address.
    let addr = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            RW,
            PRIVATE | libc::MAP_HUGETLB,
            -1,
            0,
        )
    };
    if addr == libc::MAP_FAILED {
        eprintln!("skipped: no huge pages on this machine (vm.nr_hugepages)");
        return;
    }
    let memory = Memory {
        addr: addr as usize,
        len,
    };
    let registration = register(&memory);
    assert_eq!(registration.segments, [remote_segment(memory.addr, len)]);
    arena().unregister(registration.id).unwrap();
}

#[test]
fn transparent_huge_pages_are_moved() {
    let mut memory = Memory::anon(8 << 20);
    memory.advise(libc::MADV_HUGEPAGE);
    memory.fill(10);
    let len = (5 << 20) - 4096;
    let registration = arena().register(memory.addr + 8192, len, true).unwrap();
    assert_eq!(
        registration.segments,
        [window_segment(memory.addr + 8192, len)]
    );
    memory.assert_filled(10);
    arena().unregister(registration.id).unwrap();
    memory.assert_filled(10);
    assert!(vm_flags(memory.addr + 8192).contains(&"hg".to_owned()));
}

#[test]
fn what_cannot_be_accessed_is_efault() {
    let page = page();
    let memory = Memory::anon(4 * page);
    let code = |addr, len, write| arena().register(addr, len, write).unwrap_err();
    // The neighbours of `memory` are inaccessible.
    let error = code(memory.addr, 5 * page, false);
    assert!(matches!(error, RegError::NoAccess { addr } if addr == memory.addr + 4 * page));
    assert_eq!(error.errno(), libc::EFAULT);
    // A hole in the middle: nothing before it was moved.
    // SAFETY: unmaps this test's own page, which nothing can reuse but by an exact fit.
    unsafe { libc::munmap((memory.addr + 2 * page) as _, page) };
    let error = code(memory.addr, 4 * page, true);
    assert!(matches!(error, RegError::Unmapped { .. }), "{error}");
    assert_eq!(error.errno(), libc::EFAULT);
    assert!(smaps(memory.addr)[0].contains("rw-p"));

    let fixed = Memory::anon(2 * page);
    fixed.protect(libc::PROT_READ);
    let error = code(fixed.addr, page, true);
    assert!(matches!(error, RegError::ReadOnly { .. }));
    assert_eq!(error.errno(), libc::EFAULT);
    assert_eq!(code(fixed.addr, 0, false).errno(), libc::EINVAL);
    assert_eq!(code(usize::MAX - 10, 100, false).errno(), libc::EINVAL);
}

#[test]
fn device_memory_is_efault() {
    // The kernel's own vvar page is device-like memory that every process has.
    let text = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = text.lines().find(|line| line.ends_with("[vvar]")).unwrap();
    let addr = usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
    let error = arena().register(addr, page(), false).unwrap_err();
    assert!(matches!(error, RegError::Device { .. }), "{error}");
    assert_eq!(error.errno(), libc::EFAULT);
}

#[test]
fn protection_is_kept_both_ways() {
    let page = page();
    let mut memory = Memory::anon(4 * page);
    memory.fill(11);
    memory.protect(libc::PROT_READ);
    let registration = arena().register(memory.addr, memory.len, false).unwrap();
    assert_eq!(
        registration.segments,
        [window_segment(memory.addr, memory.len)]
    );
    assert!(smaps(memory.addr)[0].contains(" r--s "));
    memory.protect(RW);
    memory.fill(12);
    memory.protect(libc::PROT_READ);
    arena().unregister(registration.id).unwrap();
    assert!(smaps(memory.addr)[0].contains(" r--p "));
    memory.assert_filled(12);

    // Even memory that the program made inaccessible meanwhile comes back with its contents.
    memory.protect(RW);
    let registration = register(&memory);
    memory.protect(libc::PROT_NONE);
    arena().unregister(registration.id).unwrap();
    assert!(smaps(memory.addr)[0].contains(" ---p "));
    memory.protect(RW);
    memory.assert_filled(12);
}

#[test]
fn locks_and_advice_are_carried_over_both_ways() {
    in_own_process("locks_and_advice_are_carried_over_both_ways", &[], || {
        let memory = Memory::anon(16 * page());
        // SAFETY: locks this test's memory.
        assert_eq!(unsafe { libc::mlock(memory.addr as _, memory.len) }, 0);
        memory.advise(libc::MADV_DONTDUMP);
        memory.advise(libc::MADV_DONTFORK);
        let has_all = || {
            let flags = vm_flags(memory.addr);
            ["lo", "dd", "dc"]
                .iter()
                .all(|flag| flags.contains(&(*flag).to_owned()))
        };
        assert!(has_all());
        let registration = register(&memory);
        assert_eq!(
            registration.segments,
            [window_segment(memory.addr, memory.len)]
        );
        assert!(has_all());
        arena().unregister(registration.id).unwrap();
        assert!(has_all());
        assert!(smaps(memory.addr)[0].contains("rw-p"));
    });
}

#[test]
fn numa_policy_is_carried_over_and_does_not_stick_to_the_address() {
    in_own_process(
        "numa_policy_is_carried_over_and_does_not_stick_to_the_address",
        &[],
        || {
            let policy = |addr: usize| {
                let mut mode = -1i32;
                let mut nodes = [0u64; 16];
                // SAFETY: the pointers are to locals; 2 is MPOL_F_ADDR.
                let ret = unsafe {
                    libc::syscall(
                        libc::SYS_get_mempolicy,
                        &raw mut mode,
                        nodes.as_mut_ptr(),
                        1024usize,
                        addr,
                        2usize,
                    )
                };
                assert_eq!(ret, 0);
                mode
            };
            let memory = Memory::anon(16 * page());
            let node0 = 1u64;
            // SAFETY: the mask is a local of 64 bits.
            let ret = unsafe {
                libc::syscall(
                    libc::SYS_mbind,
                    memory.addr,
                    memory.len,
                    libc::MPOL_BIND,
                    &raw const node0,
                    64usize,
                    0usize,
                )
            };
            if ret != 0 {
                eprintln!("skipped: this kernel has no NUMA policies");
                return;
            }
            let registration = register(&memory);
            assert_eq!(policy(memory.addr), libc::MPOL_BIND);
            arena().unregister(registration.id).unwrap();
            assert_eq!(policy(memory.addr), libc::MPOL_BIND);
            // SAFETY: replaces this test's own memory by fresh memory without a policy.
            unsafe {
                libc::mmap(
                    memory.addr as _,
                    memory.len,
                    RW,
                    PRIVATE | libc::MAP_FIXED,
                    -1,
                    0,
                )
            };
            let registration = register(&memory);
            assert_eq!(policy(memory.addr), libc::MPOL_DEFAULT);
            arena().unregister(registration.id).unwrap();
        },
    );
}

#[test]
fn moving_can_be_turned_off() {
    in_own_process(
        "moving_can_be_turned_off",
        &[(masq_regmem::MOVE_ENV, "off")],
        || {
            let memory = Memory::anon(1 << 20);
            let registration = register(&memory);
            assert_eq!(
                registration.segments,
                [remote_segment(memory.addr, memory.len)]
            );
            assert!(!arena().moves());
            assert!(smaps(memory.addr)[0].contains("rw-p"));
            // Queues still lie in the memfd.
            let queue = arena().alloc_shared(100).unwrap();
            let registration = arena().register(queue.offset(), queue.len(), true).unwrap();
            assert_eq!(
                registration.segments,
                [window_segment(queue.offset(), queue.len())]
            );
        },
    );
}

#[test]
fn one_gibibyte_never_touched_moves_whole() {
    in_own_process("one_gibibyte_never_touched_moves_whole", &[], || {
        let mut memory = Memory::anon(1 << 30);
        let far = (1 << 30) - 5;
        memory.bytes_mut()[far] = 42;
        let registration = register(&memory);
        assert_eq!(
            registration.segments,
            [window_segment(memory.addr, memory.len)]
        );
        assert_eq!(
            stored(),
            1 << 30,
            "storage is charged to the owner, not to who faults first"
        );
        assert_eq!(memory.bytes()[far], 42);
        memory.bytes_mut()[1 << 29] = 43;
        arena().unregister(registration.id).unwrap();
        assert_eq!((memory.bytes()[far], memory.bytes()[1 << 29]), (42, 43));
        assert_eq!(stored(), 0);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(maps.lines().count() < 120, "mappings stay few:\n{maps}");
    });
}

#[test]
fn shared_regions_are_born_zeroed_in_the_memfd_and_leave_nothing() {
    in_own_process(
        "shared_regions_are_born_zeroed_in_the_memfd_and_leave_nothing",
        &[],
        || {
            let region = arena().alloc_shared(3 * page() - 1).unwrap();
            assert_eq!(region.len(), 3 * page());
            assert_eq!(region.as_ptr() as usize, region.offset());
            assert_eq!(region.offset() % page(), 0);
            let window = Memory::window(arena(), region.offset(), region.len());
            assert!(window.bytes().iter().all(|&byte| byte == 0));
            // SAFETY: the region is this test's alone.
            unsafe { region.as_ptr().add(page()).write_volatile(9) };
            assert_eq!(window.bytes()[page()], 9);
            // A registration over it comes and goes; the region stays where it is.
            let registration = arena()
                .register(region.offset(), region.len(), true)
                .unwrap();
            arena().unregister(registration.id).unwrap();
            // SAFETY: as above.
            unsafe { region.as_ptr().write_volatile(8) };
            assert_eq!(window.bytes()[0], 8);
            let addr = region.offset();
            drop(region);
            assert_eq!(stored(), 0);
            assert!(smaps(addr).is_empty());
            assert_eq!(arena().alloc_shared(0).unwrap_err().errno(), libc::EINVAL);
        },
    );
}

#[test]
fn a_program_that_closes_all_descriptors_gets_an_error_and_keeps_its_memory() {
    in_own_process(
        "a_program_that_closes_all_descriptors_gets_an_error_and_keeps_its_memory",
        &[],
        || {
            let mut memory = Memory::anon(1 << 20);
            memory.fill(13);
            let registration = register(&memory);
            let fd = arena().memfd().as_raw_fd();
            // Another file takes the number.
            let other = std::fs::File::open("/dev/null").unwrap();
            // SAFETY: what the test is about.
            assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), fd) }, fd);
            let error = arena().register(memory.addr, memory.len, true).unwrap_err();
            assert!(matches!(error, RegError::Lost));
            assert!(matches!(
                arena().unregister(registration.id),
                Err(RegError::Lost)
            ));
            memory.assert_filled(13);
        },
    );
}

#[test]
fn a_file_size_limit_is_told_not_died_of() {
    in_own_process("a_file_size_limit_is_told_not_died_of", &[], || {
        let limit = libc::rlimit {
            rlim_cur: 1 << 30,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the pointer is to a local.
        let ret = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
        assert_eq!(ret, 0);
        assert!(matches!(Arena::global(), Err(RegError::FileSizeLimit)));
    });
}

#[test]
fn without_descriptors_nothing_is_moved_unguarded() {
    in_own_process(
        "without_descriptors_nothing_is_moved_unguarded",
        &[],
        || {
            let mut memory = Memory::anon(1 << 20);
            memory.fill(14);
            let held = register(&memory);
            let mut other = Memory::anon(1 << 20);
            other.fill(15);
            let mut hoard = Vec::new();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                hoard.push(file);
            }
            for spare in 0..3 {
                match arena().register(other.addr, other.len, true) {
                    Err(error) => assert_eq!(error.errno(), libc::EMFILE),
                    Ok(registration) => {
                        assert!(spare >= 2, "one for the maps and one for the guard");
                        arena().unregister(registration.id).unwrap();
                    }
                }
                hoard.pop();
            }
            let more: Vec<_> =
                std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
            // What cannot be made private now stays shared, and right.
            arena().unregister(held.id).unwrap();
            memory.assert_filled(14);
            drop((hoard, more));
            let again = register(&memory);
            arena().unregister(again.id).unwrap();
            memory.assert_filled(14);
            other.assert_filled(15);
            assert_eq!(stored(), 0);
        },
    );
}
