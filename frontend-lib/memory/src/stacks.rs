//! Where the stacks are. They are never moved: a forked child runs on the stack it was forked
//! with before it can own anything, and the moving thread may not write-protect its own.
//!
//! The main thread's stack has a name in the maps. A thread's stack is plain anonymous memory; the
//! kernel knows the address of its robust-mutex list, which lies in the thread descriptor at the
//! stack's upper end. Stacks of coroutines cannot be found; of those, the part around the running
//! frame is spared.

use std::os::fd::AsFd;

use crate::maps::Maps;
use crate::span::{Span, page_down, page_up};
use crate::sys;

/// Bytes of a thread descriptor (and, where it lies above, thread-local storage) over the list.
const DESCRIPTOR: usize = if cfg!(target_arch = "x86_64") {
    4 << 10
} else {
    64 << 10
};
/// The largest usual stack; larger ones lose nothing but this protection for their far end.
const USUAL_STACK: usize = 8 << 20;
/// Spared below and above the running frame.
const FRAMES_BELOW: usize = 64 << 10;
const FRAMES_ABOVE: usize = 16 << 10;

/// The stacks of the other threads and the running part of this one's.
pub(crate) fn stack_spans(maps: &mut Maps) -> Vec<Span> {
    let marker = 0u8;
    let here = std::ptr::from_ref(&marker).addr();
    let mut spans = vec![Span::new(
        page_down(here.saturating_sub(FRAMES_BELOW)),
        page_up(here + FRAMES_ABOVE),
    )];
    let largest = sys::stack_limit().unwrap_or(0).max(USUAL_STACK);
    let main = sys::process_id();
    for tid in thread_ids() {
        // The main thread's descriptor was allocated by the loader, not on its stack.
        if tid == main {
            continue;
        }
        let Some(head) = sys::robust_list_of(tid) else {
            continue;
        };
        let Ok(Some(vma)) = maps.covering_or_next(head) else {
            continue;
        };
        if vma.span.start > head || !vma.backing.is_plain() {
            continue;
        }
        let top = page_up(head + DESCRIPTOR).min(vma.span.end);
        spans.push(Span::new(
            vma.span.start.max(top.saturating_sub(largest)),
            top,
        ));
    }
    spans
}

fn thread_ids() -> Vec<i32> {
    let mut ids = Vec::new();
    let Ok(directory) = sys::open(c"/proc/self/task", libc::O_RDONLY | libc::O_DIRECTORY) else {
        return ids;
    };
    let mut buf = [0u8; 4096];
    while let Ok(filled @ 1..) = sys::read_directory(directory.as_fd(), &mut buf) {
        let mut rest = buf.get(..filled).unwrap_or_default();
        // struct linux_dirent64: inode 8, offset 8, record length 2, type 1, name.
        while let Some(&[low, high]) = rest.get(16..18) {
            let len = usize::from(u16::from_ne_bytes([low, high]));
            let name = rest.get(19..len).unwrap_or_default();
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            if let Some(id) = std::str::from_utf8(name)
                .ok()
                .and_then(|name| name.parse().ok())
            {
                ids.push(id);
            }
            rest = rest.get(len.max(1)..).unwrap_or_default();
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stacks_of_waiting_and_running_threads_are_found() {
        let (to_main, from_thread) = std::sync::mpsc::channel();
        let (quit, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let local = 1u8;
            to_main.send(std::ptr::from_ref(&local).addr()).unwrap();
            wait.recv().unwrap_err();
        });
        let theirs = from_thread.recv().unwrap();
        let own = std::ptr::from_ref(&theirs).addr();
        let spans = stack_spans(&mut Maps::open().unwrap());
        for addr in [theirs, own] {
            assert!(
                spans.iter().any(|s| s.start <= addr && addr < s.end),
                "{addr:#x} {spans:x?}"
            );
        }
        drop(quit);
        thread.join().unwrap();
    }
}
