//! Random operations against a model: what each page must contain, and what is registered.
#![allow(unsafe_code, reason = "the tests are about raw memory")]

mod common;

use common::*;
use masq_regmem::{RegError, RegId, SegmentKind};
use proptest::prelude::*;

/// Pages of the playing field.
const PAGES: usize = 48;

#[derive(Clone, Debug)]
enum Op {
    Map { first: usize, count: usize },
    Unmap { first: usize, count: usize },
    Write { page: usize, value: u8 },
    WriteByWindow { pick: usize, value: u8 },
    DontNeed { page: usize },
    Protect { page: usize, writable: bool },
    Register { offset: usize, len: usize },
    Unregister { pick: usize },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let range = || (0..PAGES, 1..PAGES / 2);
    let op = prop_oneof![
        2 => range().prop_map(|(first, count)| Op::Map { first, count }),
        1 => (0..PAGES, 1..6usize).prop_map(|(first, count)| Op::Unmap { first, count }),
        6 => (0..PAGES, any::<u8>()).prop_map(|(page, value)| Op::Write { page, value }),
        2 => (any::<usize>(), any::<u8>())
            .prop_map(|(pick, value)| Op::WriteByWindow { pick, value }),
        1 => (0..PAGES).prop_map(|page| Op::DontNeed { page }),
        1 => (0..PAGES, any::<bool>()).prop_map(|(page, writable)| Op::Protect { page, writable }),
        6 => (0..PAGES * 4096, 1..PAGES * 2048)
            .prop_map(|(offset, len)| Op::Register { offset, len }),
        4 => any::<usize>().prop_map(|pick| Op::Unregister { pick }),
    ];
    prop::collection::vec(op, 1..80)
}

/// One page as the program should see it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Page {
    value: u8,
    writable: bool,
}

struct World {
    field: Memory,
    pages: Vec<Option<Page>>,
    /// Registrations, each with its window segments as (first page, pages).
    live: Vec<(RegId, Vec<(usize, usize)>)>,
}

impl World {
    fn new() -> Self {
        let field = Memory::anon(PAGES * page());
        let pages = vec![
            Some(Page {
                value: 0,
                writable: true
            });
            PAGES
        ];
        Self {
            field,
            pages,
            live: Vec::new(),
        }
    }

    fn at(&self, index: usize) -> usize {
        self.field.addr + index * page()
    }

    fn held(&self, index: usize) -> bool {
        self.live
            .iter()
            .flat_map(|(_, windows)| windows)
            .any(|&(first, count)| (first..first + count).contains(&index))
    }

    fn write(&mut self, index: usize, value: u8) {
        // SAFETY: the model says that the page is mapped and writable.
        unsafe { std::ptr::write_bytes(self.at(index) as *mut u8, value, page()) };
        self.pages[index].as_mut().unwrap().value = value;
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Map { first, count } => {
                let count = count.min(PAGES - first);
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                let prot = libc::PROT_READ | libc::PROT_WRITE;
                // SAFETY: within the field, which is this test's.
                let addr =
                    unsafe { libc::mmap(self.at(first) as _, count * page(), prot, flags, -1, 0) };
                assert_eq!(addr as usize, self.at(first));
                self.pages[first..first + count].fill(Some(Page {
                    value: 0,
                    writable: true,
                }));
            }
            Op::Unmap { first, count } => {
                let count = count.min(PAGES - first);
                // Inaccessible rather than unmapped, so that no other thread's mapping gets in.
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                // SAFETY: within the field.
                unsafe {
                    libc::mmap(
                        self.at(first) as _,
                        count * page(),
                        libc::PROT_NONE,
                        flags,
                        -1,
                        0,
                    )
                };
                self.pages[first..first + count].fill(None);
            }
            Op::Write { page, value } => {
                if self.pages[page].is_some_and(|page| page.writable) {
                    self.write(page, value);
                }
            }
            Op::WriteByWindow { pick, value } => self.write_by_window(pick, value),
            Op::DontNeed { page: index } => {
                // On moved memory it keeps the contents: a documented difference.
                if self.pages[index].is_some() && !self.held(index) {
                    // SAFETY: within the field.
                    let ret =
                        unsafe { libc::madvise(self.at(index) as _, page(), libc::MADV_DONTNEED) };
                    assert_eq!(ret, 0);
                    self.pages[index].as_mut().unwrap().value = 0;
                }
            }
            Op::Protect {
                page: index,
                writable,
            } => {
                let addr = self.at(index);
                if let Some(state) = self.pages[index].as_mut() {
                    let prot = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
                    // SAFETY: within the field.
                    assert_eq!(unsafe { libc::mprotect(addr as _, page(), prot) }, 0);
                    state.writable = writable;
                }
            }
            Op::Register { offset, len } => self.register(offset, len),
            Op::Unregister { pick } => {
                if !self.live.is_empty() {
                    let (id, _) = self.live.swap_remove(pick % self.live.len());
                    arena().unregister(id).unwrap();
                }
            }
        }
    }

    fn register(&mut self, offset: usize, len: usize) {
        let len = len.min(PAGES * page() - offset);
        let touched = offset / page()..(offset + len).div_ceil(page());
        let want_write = len.is_multiple_of(2);
        let result = arena().register(self.field.addr + offset, len, want_write);
        let bad = self.pages[touched.clone()]
            .iter()
            .find_map(|state| match state {
                None => Some("no access"),
                Some(state) if want_write && !state.writable => Some("read-only"),
                Some(_) => None,
            });
        let registration = match (result, bad) {
            (Err(RegError::NoAccess { .. }), Some("no access"))
            | (Err(RegError::ReadOnly { .. }), Some("read-only")) => return,
            (Ok(registration), None) => registration,
            (result, bad) => panic!("{result:?} where {bad:?}"),
        };
        let mut at = self.field.addr + offset;
        let mut windows = Vec::new();
        for segment in &registration.segments {
            assert_eq!(segment.addr, at);
            at += segment.len;
            if segment.kind == SegmentKind::Window {
                let first = (segment.addr - self.field.addr) / page();
                let end = (at - self.field.addr).div_ceil(page());
                windows.push((first, end - first));
            }
        }
        assert_eq!(at, self.field.addr + offset + len);
        // Every page that lies wholly inside must have been moved.
        for index in offset.div_ceil(page())..(offset + len) / page() {
            assert!(
                windows
                    .iter()
                    .any(|&(first, n)| (first..first + n).contains(&index))
            );
        }
        self.live.push((registration.id, windows));
    }

    /// The backend stores to a page of some window, if the program still has that memory.
    fn write_by_window(&mut self, pick: usize, value: u8) {
        let held: Vec<usize> = (0..PAGES).filter(|&index| self.held(index)).collect();
        let Some(&index) = held.get(pick % held.len().max(1)) else {
            return;
        };
        if self.is_moved(index) {
            Memory::window(arena(), self.at(index), page())
                .bytes_mut()
                .fill(value);
            self.pages[index].as_mut().unwrap().value = value;
        }
    }

    fn is_moved(&self, index: usize) -> bool {
        self.pages[index].is_some() && {
            let line = &smaps(self.at(index))[0];
            line.contains("s ") && line.contains("memfd:masq-memory")
        }
    }

    fn check(&self) {
        for (index, state) in self.pages.iter().enumerate() {
            if let Some(state) = state {
                // SAFETY: the model says that the page is readable.
                let bytes =
                    unsafe { std::slice::from_raw_parts(self.at(index) as *const u8, page()) };
                assert!(
                    bytes.iter().all(|&byte| byte == state.value),
                    "page {index}: {state:?}"
                );
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (id, _) in self.live.drain(..) {
            let _ = arena().unregister(id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn contents_follow_the_model(ops in ops()) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
            world.check();
        }
        // Every page is private again, and no storage is left, when all have been unregistered.
        for (id, _) in world.live.drain(..) {
            arena().unregister(id).unwrap();
        }
        world.check();
        for index in 0..PAGES {
            prop_assert!(!world.is_moved(index));
        }
        prop_assert_eq!(stored(), 0);
    }
}
