//! Moving pages between private memory and the memfd, in both directions.
//!
//! For each chunk: protect it against stores, copy it, put the copy's mapping in its place in one
//! system call, wake the threads that stored meanwhile (they retry, into the new mapping).
//! Between protecting and waking, the moving thread makes system calls only: it allocates nothing
//! and writes nowhere but to its own stack, which is never moved. Its signals are blocked.
#![allow(unsafe_code)] // replaces mappings of the running program

use std::os::fd::BorrowedFd;

use crate::span::Span;
use crate::sys::{self, Errno, SysResult};
use crate::uffd::Uffd;
use crate::vmflags::{self, VmFlags};

/// Bounds how long a storing thread sleeps. Aligned, so that huge pages and page tables stay whole.
const CHUNK: usize = 2 << 20;
/// Bounds the memory reserved at a time for the way back.
const STRIDE: usize = 64 << 20;

/// Moves pages of one process into and out of its memfd.
pub(crate) struct Mover<'a> {
    fd: BorrowedFd<'a>,
    uffd: Option<Uffd>,
    /// The descriptor is another file's by now: copies come from the mapping itself.
    fd_lost: bool,
}

/// Why a move stopped early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// No storage for the copy.
    NoMemory,
    /// The mapping cannot be replaced; it stays what it was.
    Immovable,
}

impl<'a> Mover<'a> {
    /// A mover that guards against stores as well as the kernel permits.
    pub(crate) fn guarded(fd: BorrowedFd<'a>) -> SysResult<Self> {
        Ok(Self {
            fd,
            uffd: Uffd::open()?,
            fd_lost: false,
        })
    }

    /// A mover for a process without other threads.
    pub(crate) fn alone(fd: BorrowedFd<'a>, fd_lost: bool) -> Self {
        Self {
            fd,
            uffd: None,
            fd_lost,
        }
    }

    /// Moves `span`, whole pages of one private mapping, into the memfd. Returns up to where it
    /// came, and why no further.
    pub(crate) fn move_in(
        &self,
        span: Span,
        prot: i32,
        flags: &[(Span, VmFlags)],
    ) -> (usize, Option<Stopped>) {
        // Nobody can store to what is not writable.
        let uffd = self.uffd.as_ref().filter(|_| prot & libc::PROT_WRITE != 0);
        if let Some(uffd) = uffd
            && uffd.watch(span).is_err()
        {
            return (span.start, Some(Stopped::Immovable));
        }
        let mut stopped = None;
        let mut reached = span.start;
        for chunk in span.chunks(CHUNK) {
            if let Err(reason) = self.move_chunk_in(uffd, chunk, prot) {
                if let Some(uffd) = uffd {
                    uffd.unprotect(chunk);
                }
                let _ = sys::punch(self.fd, chunk);
                stopped = Some(reason);
                break;
            }
            reached = chunk.end;
            // As hardware pins: the program takes no faults later. Without it all works too.
            let populate = if prot & libc::PROT_WRITE != 0 {
                libc::MADV_POPULATE_WRITE
            } else {
                libc::MADV_POPULATE_READ
            };
            let _ = sys::advise(chunk, populate);
        }
        carry_over(flags, Span::new(span.start, reached), |flags, part| {
            flags.advise(part);
            flags.lock(part);
        });
        (reached, stopped)
    }

    fn move_chunk_in(&self, uffd: Option<&Uffd>, chunk: Span, prot: i32) -> Result<(), Stopped> {
        if let Some(uffd) = uffd {
            uffd.protect(chunk).map_err(|_| Stopped::Immovable)?;
        }
        sys::write_from_memory(self.fd, chunk).map_err(|error| match error {
            Errno(libc::ENOMEM | libc::ENOSPC) => Stopped::NoMemory,
            _ => Stopped::Immovable,
        })?;
        // SAFETY: the memfd holds the chunk's contents, and no store has come since.
        unsafe { sys::map_file_over(self.fd, chunk, prot) }.map_err(|_| Stopped::Immovable)?;
        if let Some(uffd) = uffd {
            uffd.wake(chunk);
        }
        Ok(())
    }

    /// Makes `span`, which maps the memfd at `offset`, private memory with the same contents. With
    /// `punch` the memfd's copy is given back.
    pub(crate) fn move_out(
        &self,
        span: Span,
        offset: usize,
        prot: i32,
        flags: &[(Span, VmFlags)],
        punch: bool,
    ) -> SysResult<()> {
        let uffd = self
            .uffd
            .as_ref()
            .filter(|uffd| uffd.covers_shared() && prot & libc::PROT_WRITE != 0)
            .filter(|uffd| uffd.watch(span).is_ok());
        let policy = vmflags::numa_policy_of(span.start);
        for stride in span.chunks(STRIDE) {
            let mut spare = Spare::congruent_to(stride)?;
            if let Some(policy) = &policy {
                let _ = policy.apply(spare.rest);
            }
            carry_over(flags, stride, |flags, part| {
                flags.advise(spare.image_of(stride, part))
            });
            for chunk in stride.chunks(CHUNK) {
                let from = Span::new(spare.rest.start, spare.rest.start + chunk.len());
                let at = offset + (chunk.start - span.start);
                let _ = sys::advise(from, libc::MADV_POPULATE_WRITE);
                let moved = self.move_chunk_out(uffd, from, chunk, at, prot);
                if let Some(uffd) = uffd {
                    if moved.is_err() {
                        uffd.unprotect(chunk);
                    }
                    uffd.wake(chunk);
                }
                moved?;
                spare.rest.start += chunk.len();
                if punch {
                    let _ = sys::punch(self.fd, Span::new(at, at + chunk.len()));
                }
            }
        }
        carry_over(flags, span, VmFlags::lock);
        Ok(())
    }

    fn move_chunk_out(
        &self,
        uffd: Option<&Uffd>,
        from: Span,
        chunk: Span,
        offset: usize,
        prot: i32,
    ) -> SysResult<()> {
        if let Some(uffd) = uffd {
            uffd.protect(chunk)?;
        }
        if self.fd_lost {
            sys::protect(chunk, libc::PROT_READ)?;
            // SAFETY: `from` is spare memory that nobody else knows; `chunk` is mapped and was
            // made readable, and storage behind it was allocated when it was moved.
            unsafe { sys::copy(chunk, from) };
        } else {
            // SAFETY: `from` is spare memory that nobody else knows.
            unsafe { sys::read_to_memory(self.fd, from, offset) }?;
        }
        if prot != libc::PROT_READ | libc::PROT_WRITE {
            sys::protect(from, prot)?;
        }
        // SAFETY: `from` is ours and holds the chunk's contents; no store has come since.
        unsafe { sys::remap_over(from, chunk.start) }.inspect_err(|_| {
            if offset == chunk.start && !self.fd_lost {
                // A failure may come after the old mapping is gone: restore it.
                // SAFETY: the memfd still holds the chunk's contents.
                let _ = unsafe { sys::map_file_over(self.fd, chunk, prot) };
            }
        })
    }
}

/// Spare private memory at the same distance from a chunk boundary as its destination.
struct Spare {
    /// What has not been moved to its destination yet. Addresses already left may be in use by
    /// other threads again.
    rest: Span,
}

impl Spare {
    fn congruent_to(target: Span) -> SysResult<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let slack = if target.len() >= CHUNK { CHUNK } else { 0 };
        let all = sys::map_anon(target.len() + slack, prot, 0)?;
        let skip = if slack == 0 {
            0
        } else {
            target.start.wrapping_sub(all.start) % CHUNK
        };
        let rest = Span::new(all.start + skip, all.start + skip + target.len());
        for margin in all.without(rest) {
            // SAFETY: the margins were mapped just now, and nobody else knows them.
            unsafe { sys::unmap(margin) };
        }
        Ok(Self { rest })
    }

    /// Where in here the part `part` of `stride` will come from, while nothing has left yet.
    fn image_of(&self, stride: Span, part: Span) -> Span {
        let start = self.rest.start + (part.start - stride.start);
        Span::new(start, start + part.len())
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        // SAFETY: what is left was mapped by us and never shown to anyone.
        unsafe { sys::unmap(self.rest) };
    }
}

fn carry_over(flags: &[(Span, VmFlags)], span: Span, give: impl Fn(VmFlags, Span)) {
    for (part, flags) in flags {
        let part = part.intersect(span);
        if !part.is_empty() {
            give(*flags, part);
        }
    }
}
