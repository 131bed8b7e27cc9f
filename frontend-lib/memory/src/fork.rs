//! What fork does to registered memory: the child gets a private snapshot.
//!
//! The memfd's mappings are shared, so at first the child sees the parent's memory itself. It
//! copies every such page before its fork returns, and the parent waits for that in its own. The
//! child's walk over its mappings allocates nothing and writes to its stack only, until all is
//! private. Both learn of each other by a pipe, which also tells of a child that died; without
//! descriptors to spare, by a shared page.
#![allow(unsafe_code)] // replaces mappings of the child

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::arena::{Arena, GENERATION, Locked, State, lock, try_lock};
use crate::error::RegError;
use crate::maps::Maps;
use crate::mover::Mover;
use crate::span::Span;
use crate::sys::{self, Errno, SharedFlag};

/// The parent waits at most this long, and a second more for each [`COPY_PER_SECOND`]: a child
/// that a debugger stopped must not stop its parent too.
const PATIENCE: Duration = Duration::from_secs(10);
const COPY_PER_SECOND: usize = 256 << 20;
/// What a child copies at a time; what cannot be copied is lost to it in pieces of this size.
const COPY_STEP: usize = 32 << 20;

/// How the child says that its copy is made.
enum Signal {
    Pipe {
        read: OwnedFd,
        write: OwnedFd,
    },
    Flag(SharedFlag),
    /// Nothing is shared, or there is no way to wait.
    None,
}

/// What the forking thread holds from before fork to after it.
struct Held {
    locked: Locked,
    signal: Signal,
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// Registers the fork handlers, once for this process and its descendants. Worth calling from the
/// library's constructor: handlers registered first take their locks last, so that handlers of the
/// program, under whose locks verbs may be called, come before them.
///
/// # Errors
/// [`RegError::System`] when there is no memory for them.
pub fn install_handlers() -> Result<(), RegError> {
    static INSTALLED: OnceLock<Result<(), Errno>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| sys::at_fork(prepare, parent, child))
        .map_err(|error| error.during("pthread_atfork"))
}

/// Changes in each forked child: what was made before it belongs to the parent.
#[must_use]
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

extern "C" fn prepare() {
    let locked = lock();
    let shares = locked.state.lingering || !locked.state.counts.is_empty();
    let signal = if locked.state.arena.is_none() || !shares {
        Signal::None
    } else if let Ok((read, write)) = sys::pipe() {
        Signal::Pipe { read, write }
    } else {
        SharedFlag::new().map_or(Signal::None, Signal::Flag)
    };
    // A thread that forks from its last destructors holds no lock over the fork.
    let _ = HELD.try_with(|held| held.replace(Some(Held { locked, signal })));
}

fn take_held() -> Option<Held> {
    HELD.try_with(RefCell::take).ok().flatten()
}

extern "C" fn parent() {
    let Some(Held { locked, signal }) = take_held() else {
        return;
    };
    let copying = locked.state.counts.total_len() / COPY_PER_SECOND;
    let deadline = Instant::now() + PATIENCE + Duration::from_secs(copying as u64);
    match signal {
        Signal::Pipe { read, write } => {
            // From here on the child holds the only writing end: its death ends the wait.
            drop(write);
            while !sys::wait_readable(read.as_fd(), 100) && Instant::now() < deadline {}
        }
        Signal::Flag(flag) => {
            while !flag.is_set() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        Signal::None => {}
    }
    drop(locked);
}

extern "C" fn child() {
    let Some(Held { mut locked, signal }) = take_held() else {
        if let Some(mut locked) = try_lock() {
            become_own_process(&mut locked.state);
        }
        return;
    };
    match signal {
        Signal::Pipe { read, write } => {
            drop(read);
            become_own_process(&mut locked.state);
            let _ = sys::write(write.as_fd(), &[1]);
        }
        Signal::Flag(flag) => {
            become_own_process(&mut locked.state);
            flag.set();
        }
        Signal::None => become_own_process(&mut locked.state),
    }
    drop(locked);
}

/// Makes everything shared private, and forgets the parent's arena.
fn become_own_process(state: &mut State) {
    let Some(arena) = state.arena else { return };
    let shares = state.lingering || !state.counts.is_empty();
    let alive = arena.check_alive().is_ok();
    if let Some(spare) = state.spare.take() {
        match sys::file_id(spare.as_fd()) {
            Ok(id) if id == arena.file => drop(spare),
            _ => std::mem::forget(spare), // the number is another file's by now
        }
    }
    if shares {
        own_all(arena, !alive);
    }
    GENERATION.fetch_add(1, Ordering::Relaxed);
    *state = State::new();
    if alive {
        // Holding the parent's memory open would keep it from being freed. Whoever still borrows
        // the descriptor finds an empty file.
        if let Ok(empty) = sys::memfd(c"masq-forked") {
            let _ = sys::replace_fd(arena.memfd(), empty.as_fd());
        }
    }
}

fn own_all(arena: &Arena, fd_lost: bool) {
    let Ok(mut maps) = Maps::open() else { return };
    let mover = Mover::alone(arena.memfd(), fd_lost);
    let mut at = 0;
    while let Ok(Some(vma)) = maps.covering_or_next(at) {
        at = vma.span.end;
        let Some(offset) = vma.offset_in(arena.file) else {
            continue;
        };
        for part in vma.span.chunks(COPY_STEP) {
            let from = offset + (part.start - vma.span.start);
            if mover.move_out(part, from, vma.prot, &[], false).is_err() {
                // No memory: better that the child faults than that it writes to its parent.
                // SAFETY: the contents stay in the parent; the child loses access to its copy.
                let _ = unsafe { sys::map_none_over(Span::new(part.start, part.end)) };
            }
        }
    }
}
