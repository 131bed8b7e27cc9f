//! What a mapping carries beside its contents: locks, advice and NUMA policy.
//!
//! Only `/proc/self/smaps` tells locks and advice, and it walks every page table of the process to
//! do so. It is therefore read when it is cheap next to the move itself, and always when the
//! process has locked memory; otherwise advice is lost (docs/memory.md says so).

use std::os::fd::AsFd;

use crate::maps::{decimal, hex};
use crate::span::{Span, page_size};
use crate::sys::{self, NumaPolicy, SysResult};

/// Locks and advice of a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VmFlags {
    pub(crate) locked: bool,
    locked_on_fault: bool,
    dont_fork: bool,
    dont_dump: bool,
    huge_pages: bool,
    no_huge_pages: bool,
    random: bool,
    sequential: bool,
    mergeable: bool,
    /// The mapping is of a kind whose meaning would be lost if it were replaced.
    pub(crate) pinned_in_place: bool,
}

impl VmFlags {
    fn parse(words: &str) -> Self {
        let mut flags = Self::default();
        for word in words.split_ascii_whitespace() {
            match word {
                "lo" => flags.locked = true,
                "lf" => flags.locked_on_fault = true,
                "dc" => flags.dont_fork = true,
                "dd" => flags.dont_dump = true,
                "hg" => flags.huge_pages = true,
                "nh" => flags.no_huge_pages = true,
                "rr" => flags.random = true,
                "sr" => flags.sequential = true,
                "mg" => flags.mergeable = true,
                // Wiped at fork, growing stacks, device memory, huge pages, shadow stacks, memory
                // whose faults the program serves, sealed mappings, droppable memory.
                "wf" | "gd" | "io" | "pf" | "mm" | "ht" | "ss" | "um" | "uw" | "ui" | "sl"
                | "dp" => flags.pinned_in_place = true,
                _ => {}
            }
        }
        flags
    }

    /// Gives `span` the same advice. Best effort: a kernel without KSM or THP refuses those.
    pub(crate) fn advise(self, span: Span) {
        for (wanted, advice) in [
            (self.dont_fork, libc::MADV_DONTFORK),
            (self.dont_dump, libc::MADV_DONTDUMP),
            (self.huge_pages, libc::MADV_HUGEPAGE),
            (self.no_huge_pages, libc::MADV_NOHUGEPAGE),
            (self.random, libc::MADV_RANDOM),
            (self.sequential, libc::MADV_SEQUENTIAL),
            (self.mergeable, libc::MADV_MERGEABLE),
        ] {
            if wanted {
                let _ = sys::advise(span, advice);
            }
        }
    }

    /// Locks `span` as the old mapping was. Best effort: the old lock's account is free again.
    pub(crate) fn lock(self, span: Span) {
        if self.locked {
            let _ = sys::lock_pages(span, self.locked_on_fault);
        }
    }
}

/// The flags of each mapping that touches one of `wanted`, by part of the address space.
pub(crate) fn flags_of(wanted: Span, moving: usize) -> Vec<(Span, VmFlags)> {
    if !worth_reading(moving) {
        return Vec::new();
    }
    read_smaps(wanted).unwrap_or_default()
}

/// Beyond this multiple of the bytes to move, resident memory makes smaps cost more than moving.
const RESIDENT_PER_MOVED: usize = 16;
/// Below this many resident bytes smaps costs some 100 µs at most.
const SMALL_PROCESS: usize = 64 << 20;

fn worth_reading(moving: usize) -> bool {
    let resident = statm_resident().unwrap_or(usize::MAX);
    resident <= SMALL_PROCESS.max(moving.saturating_mul(RESIDENT_PER_MOVED)) || has_locked_memory()
}

fn statm_resident() -> Option<usize> {
    let mut buf = [0u8; 128];
    let file = sys::open(c"/proc/self/statm", libc::O_RDONLY).ok()?;
    let len = sys::read(file.as_fd(), &mut buf).ok()?;
    let pages = decimal(buf.get(..len)?.split(|&byte| byte == b' ').nth(1)?)?;
    usize::try_from(pages).ok()?.checked_mul(page_size())
}

fn has_locked_memory() -> bool {
    let read = || {
        let mut buf = [0u8; 4096];
        let file = sys::open(c"/proc/self/status", libc::O_RDONLY).ok()?;
        let len = sys::read(file.as_fd(), &mut buf).ok()?;
        let text = std::str::from_utf8(buf.get(..len)?).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmLck:"))?;
        Some(line.trim_start() != "0 kB")
    };
    read().unwrap_or(false)
}

fn read_smaps(wanted: Span) -> SysResult<Vec<(Span, VmFlags)>> {
    let file = sys::open(c"/proc/self/smaps", libc::O_RDONLY)?;
    let mut found = Vec::new();
    let mut buf = vec![0u8; 32 << 10];
    let mut filled = 0;
    let mut current = Span::new(0, 0);
    loop {
        let count = sys::read(file.as_fd(), buf.get_mut(filled..).unwrap_or_default())?;
        if count == 0 {
            return Ok(found);
        }
        filled += count;
        let ready = buf.get(..filled).unwrap_or_default();
        let complete = ready
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        for line in ready
            .get(..complete)
            .unwrap_or_default()
            .split(|&byte| byte == b'\n')
        {
            if let Some(span) = header(line) {
                if span.start >= wanted.end {
                    return Ok(found);
                }
                current = span;
            } else if let Some(words) = line.strip_prefix(b"VmFlags:") {
                let part = current.intersect(wanted);
                if !part.is_empty()
                    && let Ok(words) = std::str::from_utf8(words)
                {
                    found.push((part, VmFlags::parse(words)));
                }
            }
        }
        buf.copy_within(complete..filled, 0);
        filled -= complete;
        if filled == buf.len() {
            filled = 0; // a line longer than the buffer is none of those looked for
        }
    }
}

/// `start-end …`; field lines start with a capital letter and a colon instead.
fn header(line: &[u8]) -> Option<Span> {
    let range = line.split(|&byte| byte == b' ').next()?;
    let dash = range.iter().position(|&byte| byte == b'-')?;
    let start = hex(range.get(..dash)?)?;
    let end = hex(range.get(dash + 1..)?)?;
    Some(Span::new(start as usize, end as usize))
}

/// The NUMA policy of the mapping at `addr`, where it is not the default one.
pub(crate) fn numa_policy_of(addr: usize) -> Option<NumaPolicy> {
    NumaPolicy::of(addr).filter(|policy| *policy != NumaPolicy::DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_forbid_replacing_are_told_from_advice() {
        let plain = VmFlags::parse(" rd wr mr mw me ac sd");
        assert_eq!(plain, VmFlags::default());
        let advised = VmFlags::parse("rd wr mr mw me lo ac dd hg");
        assert!(advised.locked && advised.dont_dump && advised.huge_pages);
        assert!(!advised.pinned_in_place);
        assert!(VmFlags::parse("rd wr mr mw me ac wf").pinned_in_place);
        assert!(VmFlags::parse("rd wr mr mw me gd ac").pinned_in_place);
    }

    #[test]
    fn smaps_of_this_thread_names_its_own_mapping() {
        let page = page_size();
        let span = sys::map_anon(4 * page, libc::PROT_READ | libc::PROT_WRITE, 0).unwrap();
        let middle = Span::new(span.start + page, span.start + 2 * page);
        sys::advise(middle, libc::MADV_DONTDUMP).unwrap();
        let found = read_smaps(span).unwrap();
        let covered: usize = found.iter().map(|(part, _)| part.len()).sum();
        assert_eq!(covered, span.len());
        for (part, flags) in found {
            assert_eq!(flags.dont_dump, part == middle, "{part:?}");
        }
    }
}
