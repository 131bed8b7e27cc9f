//! Real memory of a real process, for the tests of this crate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(unsafe_code, reason = "the tests are about raw memory")]

use std::os::fd::AsRawFd;
use std::process::Command;

use masq_regmem::{Arena, Registration, Segment, SegmentKind};

/// Bytes of a page.
pub fn page() -> usize {
    // SAFETY: takes no pointers.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Mapped memory, unmapped when dropped.
pub struct Memory {
    pub addr: usize,
    pub len: usize,
}

impl Memory {
    pub fn mapped(len: usize, prot: i32, flags: i32, fd: i32, offset: usize) -> Self {
        // SAFETY: no fixed address: existing memory stays.
        let addr = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, offset as i64) };
        assert_ne!(
            addr,
            libc::MAP_FAILED,
            "{}",
            std::io::Error::last_os_error()
        );
        Self {
            addr: addr as usize,
            len,
        }
    }

    /// Private anonymous memory with inaccessible pages around it, so that it is a mapping alone.
    pub fn anon(len: usize) -> Self {
        let guarded = Self::mapped(
            len + 2 * page(),
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        let memory = Self {
            addr: guarded.addr + page(),
            len,
        };
        std::mem::forget(guarded);
        memory.protect(libc::PROT_READ | libc::PROT_WRITE);
        memory
    }

    /// The window that the backend would map.
    pub fn window(arena: &Arena, addr: usize, len: usize) -> Self {
        Self::mapped(
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            arena.memfd().as_raw_fd(),
            addr,
        )
    }

    pub fn protect(&self, prot: i32) {
        // SAFETY: the memory is this test's.
        assert_eq!(unsafe { libc::mprotect(self.addr as _, self.len, prot) }, 0);
    }

    pub fn advise(&self, advice: i32) {
        // SAFETY: the memory is this test's.
        let ret = unsafe { libc::madvise(self.addr as _, self.len, advice) };
        assert_eq!(ret, 0, "{}", std::io::Error::last_os_error());
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped and readable in every test that asks; stores by others are synchronised
        // by the test.
        unsafe { std::slice::from_raw_parts(self.addr as *const u8, self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and writable.
        unsafe { std::slice::from_raw_parts_mut(self.addr as *mut u8, self.len) }
    }

    /// A pattern that differs from byte to byte and from seed to seed.
    pub fn fill(&mut self, seed: u8) {
        for (at, byte) in self.bytes_mut().iter_mut().enumerate() {
            *byte = pattern(at, seed);
        }
    }

    pub fn assert_filled(&self, seed: u8) {
        let wrong = self
            .bytes()
            .iter()
            .enumerate()
            .position(|(at, &b)| b != pattern(at, seed));
        assert_eq!(wrong, None, "first differing byte");
    }
}

pub fn pattern(at: usize, seed: u8) -> u8 {
    ((at.wrapping_mul(0x9E37_79B9) >> 11) as u8) ^ seed
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the memory is this test's.
        unsafe { libc::munmap(self.addr as _, self.len) };
    }
}

pub fn arena() -> &'static Arena {
    Arena::global().unwrap()
}

/// Registers for remote write.
pub fn register(memory: &Memory) -> Registration {
    arena().register(memory.addr, memory.len, true).unwrap()
}

pub fn window_segment(addr: usize, len: usize) -> Segment {
    Segment {
        addr,
        len,
        kind: SegmentKind::Window,
    }
}

pub fn remote_segment(addr: usize, len: usize) -> Segment {
    Segment {
        addr,
        len,
        kind: SegmentKind::Remote,
    }
}

/// Bytes of storage that the memfd holds.
pub fn stored() -> usize {
    // SAFETY: an all-zero stat is a valid value; the pointer is to a local.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        assert_eq!(libc::fstat(arena().memfd().as_raw_fd(), &raw mut stat), 0);
        stat.st_blocks as usize * 512
    }
}

/// The lines of smaps for the mapping that holds `addr`: its first line, then its fields.
pub fn smaps(addr: usize) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut found = Vec::new();
    for line in text.lines() {
        let range = line.split(' ').next().unwrap().split_once('-');
        let bounds = range.and_then(|(start, end)| {
            Some((
                usize::from_str_radix(start, 16).ok()?,
                usize::from_str_radix(end, 16).ok()?,
            ))
        });
        match bounds {
            Some((start, end)) if start <= addr && addr < end => found.push(line.to_owned()),
            Some(_) if !found.is_empty() => break,
            None if !found.is_empty() => found.push(line.to_owned()),
            _ => {}
        }
    }
    found
}

pub fn vm_flags(addr: usize) -> Vec<String> {
    let lines = smaps(addr);
    let flags = lines
        .iter()
        .find_map(|line| line.strip_prefix("VmFlags:"))
        .unwrap();
    flags.split_ascii_whitespace().map(str::to_owned).collect()
}

const INSIDE: &str = "MASQ_REGMEM_TEST_PROCESS";

/// Runs `body` in a process of its own, which is this test binary running this one test.
pub fn in_own_process(test: &str, environment: &[(&str, &str)], body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What a forked child runs: true makes its exit status 0.
pub fn fork(child: impl FnOnce() -> bool) -> libc::pid_t {
    // SAFETY: the child runs test code on memory that the library made its own, then exits at
    // once.
    match unsafe { libc::fork() } {
        0 => {
            let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(if good.unwrap_or(false) { 0 } else { 1 }) }
        }
        pid => {
            assert!(pid > 0);
            pid
        }
    }
}

/// Waits for a child; true when it exited with 0.
pub fn succeeded(pid: libc::pid_t) -> bool {
    let mut status = 0;
    // SAFETY: the pointer is to a local.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}
