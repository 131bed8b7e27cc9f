#![allow(unsafe_code)]
use crate::*;
use masq_spec::verbs::{Ring, Segment, SegmentKind};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::os::fd::OwnedFd;

fn memfd(len: u64, seals: SealFlags) -> OwnedFd {
    let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, len).unwrap();
    fcntl_add_seals(&fd, seals).unwrap();
    fd
}

fn sealed(len: u64) -> SharedFile {
    SharedFile::check(memfd(
        len,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    ))
    .unwrap()
}

#[test]
fn a_file_that_may_shrink_or_is_no_memfd_is_refused() {
    for seals in [
        SealFlags::empty(),
        SealFlags::SHRINK,
        SealFlags::SHRINK | SealFlags::GROW,
        SealFlags::GROW | SealFlags::SEAL,
    ] {
        assert!(SharedFile::check(memfd(4096, seals)).is_err(), "{seals:?}");
    }
    let plain = std::fs::File::open("/proc/self/exe").unwrap();
    assert!(SharedFile::check(plain.into()).is_err());
}

#[test]
fn a_range_outside_the_file_is_refused() {
    let file = sealed(8192);
    for (addr, len) in [
        (0, 0),
        (0, 8193),
        (8192, 1),
        (u64::MAX, 2),
        (u64::MAX - 10, 5),
    ] {
        assert!(
            Window::map(&file, addr, len, false).is_err(),
            "{addr:#x}+{len}"
        );
    }
    let window = Window::map(&file, 4097, 1, false).unwrap();
    assert_eq!((window.addr(), window.len()), (4096, 4096));
    assert!(window.pointer(4096, 4096).is_some());
    assert!(window.pointer(4096, 4097).is_none());
    assert!(window.pointer(4095, 1).is_none());
    assert!(window.pointer(u64::MAX, 1).is_none());
}

#[test]
fn ring_geometry_is_checked() {
    let file = sealed(1 << 20);
    let good = Ring {
        addr: 4096,
        slots: 16,
        stride: 64,
    };
    assert!(MappedRing::map(&file, good).is_ok());
    for bad in [
        Ring { slots: 0, ..good },
        Ring { slots: 17, ..good },
        Ring {
            slots: 1 << 30,
            ..good
        },
        Ring { stride: 16, ..good },
        Ring { stride: 96, ..good },
        Ring {
            stride: 8192,
            ..good
        },
        Ring { addr: 4100, ..good },
        Ring {
            addr: (1 << 20) - 64,
            ..good
        },
        Ring {
            addr: u64::MAX - 63,
            ..good
        },
    ] {
        assert!(MappedRing::map(&file, bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_slot_is_published_by_its_stamp_only() {
    let file = sealed(1 << 20);
    let ring = MappedRing::map(
        &file,
        Ring {
            addr: 0,
            slots: 4,
            stride: 64,
        },
    )
    .unwrap();
    assert!(!ring.is_published(0));
    ring.publish(0, &[9; 64]);
    assert!(ring.is_published(0));
    assert!(!ring.is_published(4), "the next lap needs its own stamp");
    let mut out = [0; 64];
    ring.read(0, 0, &mut out);
    assert_eq!(out[..4], [1, 0, 0, 0]);
    assert_eq!(out[4..], [9; 60]);
    let mut past = [7; 8];
    ring.read(0, 62, &mut past);
    assert_eq!(past, [9, 9, 7, 7, 7, 7, 7, 7], "a read ends with the slot");
}

#[test]
fn pieces_cross_segments_and_never_leave_the_region() {
    let file = sealed(1 << 20);
    let segments = [
        Segment {
            addr: 8000,
            len: 192,
            at: 8000,
            kind: SegmentKind::Remote as u32,
            reserved: 0,
        },
        Segment {
            addr: 8192,
            len: 8192,
            at: 8192,
            kind: SegmentKind::Window as u32,
            reserved: 0,
        },
        Segment {
            addr: 16384,
            len: 16,
            at: 16384,
            kind: SegmentKind::Remote as u32,
            reserved: 0,
        },
    ];
    let region = Region::map(&file, 8000, 8400, &segments).unwrap();
    let mut out = Vec::new();
    assert!(region.pieces(3, 0, 8400, &mut out));
    let lens: Vec<u64> = out.iter().map(|p| p.len).collect();
    assert_eq!(lens, [192, 8192, 16]);
    assert_eq!(
        out[2].target,
        Target::Remote {
            session: 3,
            addr: 16384
        }
    );
    out.clear();
    assert!(region.pieces(3, 191, 2, &mut out));
    assert_eq!(out.iter().map(|p| p.len).collect::<Vec<_>>(), [1, 1]);
    out.clear();
    for (offset, len) in [(8400, 1), (0, 8401), (u64::MAX, 1), (1, u64::MAX)] {
        assert!(!region.pieces(3, offset, len, &mut out));
    }
    assert!(out.is_empty());
    assert!(
        Region::map(&file, 8000, 8401, &segments).is_err(),
        "a range not covered"
    );
    assert!(
        Region::map(&file, 8000, 192, &segments[..2]).is_err(),
        "more than the range"
    );
}

#[test]
fn a_copy_in_chunks_equals_a_copy_at_once() {
    let file = sealed(1 << 20);
    let window = Window::map(&file, 0, 1 << 20, true).unwrap();
    let piece = |addr, len| Piece {
        target: Target::Mapped(window.pointer(addr, len).unwrap()),
        len,
    };
    let data: Vec<u8> = (0..3000u32).map(|i| (i * 7) as u8).collect();
    // SAFETY: inside the window.
    unsafe { store_bytes(window.pointer(0, 3000).unwrap(), &data) };
    let from = [piece(0, 1000), piece(1000, 1), piece(1001, 1999)];
    let to = [piece(10_000, 500), piece(20_000, 2499), piece(30_000, 1)];
    let mut at = 0;
    while at < 3000 {
        // SAFETY: inside the window.
        at += unsafe { copy_pieces(&from, &to, at, 333, 3000) };
    }
    let mut out = vec![0; 3000];
    // SAFETY: inside the window.
    unsafe {
        load_bytes(window.pointer(10_000, 500).unwrap(), &mut out[..500]);
        load_bytes(window.pointer(20_000, 2499).unwrap(), &mut out[500..2999]);
        load_bytes(window.pointer(30_000, 1).unwrap(), &mut out[2999..]);
    }
    assert_eq!(out, data);
}

#[test]
fn doorbells_arrive_once_and_garbage_is_harmless() {
    let page = DoorbellPage::new().unwrap();
    assert!(!page.is_rung());
    for slot in [0, 63, 64, 16383] {
        assert!(!page.ring(slot), "the device does not sleep");
    }
    assert!(!page.ring(16384));
    let mut got = Vec::new();
    page.take(16384, |slot| got.push(slot));
    assert_eq!(got, [0, 63, 64, 16383]);
    assert!(!page.is_rung());
    for slot in [1, 64, 16383] {
        page.ring(slot);
    }
    got.clear();
    page.take(2, |slot| got.push(slot));
    assert_eq!(got, [1], "words without slots are not looked at");
    assert!(!page.is_rung());
    page.set_armed(true);
    assert!(page.ring(5), "a sleeping device wants a kick");
}

#[test]
fn a_span_shows_all_windows_of_a_region_side_by_side() {
    let file = sealed(1 << 20);
    // 100 bytes at the end of a page that stands in, two pages, 50 bytes that stand in.
    let window = |addr, len, at| Segment {
        addr,
        len,
        at,
        kind: SegmentKind::Window as u32,
        reserved: 0,
    };
    let segments = [
        window(3996, 100, 0x8000 + 3996),
        window(4096, 8192, 4096),
        window(12288, 50, 0xa000),
    ];
    let region = Region::map(&file, 3996, 8342, &segments).unwrap();
    let span = Span::of(&region).unwrap();
    let mut pieces = Vec::new();
    assert!(region.pieces(0, 0, 8342, &mut pieces));
    let mut at = 0;
    for (n, piece) in pieces.iter().enumerate() {
        let Target::Mapped(to) = piece.target else {
            panic!("no piece is remote");
        };
        // What is written by the region's own windows is seen through the span.
        let fill = vec![n as u8 + 1; piece.len as usize];
        let mut seen = fill.clone();
        seen.fill(0);
        // SAFETY: both ranges are mapped as long as the region and the span.
        unsafe {
            store_bytes(to, &fill);
            load_bytes(span.first().add(at), &mut seen);
        }
        assert_eq!(seen, fill);
        at += piece.len as usize;
    }
}

#[test]
fn a_region_with_remote_parts_or_shared_pages_has_no_span() {
    let file = sealed(1 << 20);
    let segment = |addr, len, kind: SegmentKind| Segment {
        addr,
        len,
        at: addr,
        kind: kind as u32,
        reserved: 0,
    };
    for segments in [
        [
            segment(4096, 4096, SegmentKind::Window),
            segment(8192, 8, SegmentKind::Remote),
        ],
        [
            segment(4096, 4000, SegmentKind::Window),
            segment(8096, 104, SegmentKind::Window),
        ],
    ] {
        let region = Region::map(&file, 4096, 4104, &segments).unwrap();
        assert!(matches!(Span::of(&region), Err(MemoryError::Scattered)));
    }
}
