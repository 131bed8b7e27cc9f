//! Which kinds of memory a range consists of, and whether it may be registered at all.

use crate::arena::can_populate;
use crate::error::RegError;
use crate::maps::{Backing, Maps, Vma};
use crate::span::{Span, page_size};
use crate::sys::{self, Errno, FileId};

/// What can be done with a piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// In the memfd at its own address already.
    Window,
    /// A mapping of the memfd that the program moved elsewhere: private memory first.
    Displaced { offset: usize },
    /// Private anonymous memory.
    Movable,
    /// Stays where it is.
    Fixed,
}

/// Whole pages of one mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) span: Span,
    pub(crate) prot: i32,
    pub(crate) class: Class,
}

/// The pages that `range` touches, in pieces; an error for what may not be registered.
pub(crate) fn survey(
    maps: &mut Maps,
    range: Span,
    want_write: bool,
    file: FileId,
) -> Result<Vec<Piece>, RegError> {
    let pages = range.outer_pages();
    let mut pieces = Vec::new();
    let mut at = pages.start;
    while at < pages.end {
        let found = maps
            .covering_or_next(at)
            .map_err(|error| error.during("ioctl(PROCMAP_QUERY)"))?;
        let addr = at.max(range.start);
        let Some(vma) = found.filter(|vma| vma.span.start <= at && at < vma.span.end) else {
            return Err(RegError::Unmapped { addr });
        };
        if vma.prot & (libc::PROT_READ | libc::PROT_WRITE) == 0 {
            return Err(RegError::NoAccess { addr });
        }
        if want_write && vma.prot & libc::PROT_WRITE == 0 {
            return Err(RegError::ReadOnly { addr });
        }
        let span = Span::new(at, vma.span.end.min(pages.end));
        pieces.push(Piece {
            span,
            prot: vma.prot,
            class: classify(&vma, span, file),
        });
        at = span.end;
    }
    Ok(pieces)
}

fn classify(vma: &Vma, part: Span, file: FileId) -> Class {
    if let Some(offset) = vma.offset_in(file) {
        return if offset == vma.span.start {
            Class::Window
        } else {
            Class::Displaced {
                offset: offset + (part.start - vma.span.start),
            }
        };
    }
    match vma.backing {
        // Executable too where the kernel makes it so (User-Mode Linux, personalities).
        Backing::Heap => Class::Movable,
        // Code that the program generates is not worth the risk.
        Backing::Anonymous if vma.prot & libc::PROT_EXEC == 0 => Class::Movable,
        _ => Class::Fixed,
    }
}

/// Refuses device memory and files that end before their mapping does, by asking the kernel to
/// make the first page of each such piece present. This may wait for a file server, so no lock is
/// held; the pages of a mapping are all of one kind.
pub(crate) fn probe_devices(
    maps: &mut Maps,
    range: Span,
    want_write: bool,
    file: FileId,
) -> Result<(), RegError> {
    for piece in survey(maps, range, want_write, file)? {
        if piece.class != Class::Fixed || !can_populate() {
            continue;
        }
        let first = Span::new(piece.span.start, piece.span.start + page_size());
        let addr = piece.span.start.max(range.start);
        match sys::advise(first, libc::MADV_POPULATE_READ) {
            Err(Errno(libc::EINVAL | libc::EFAULT | libc::EHWPOISON)) => {
                return Err(RegError::Device { addr });
            }
            Err(Errno(libc::ENOMEM)) => return Err(RegError::Unmapped { addr }),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_executable_memory_only_the_heap_moves() {
        let file = FileId {
            dev_major: 0,
            dev_minor: 1,
            inode: 7,
        };
        let span = Span::new(0x1000, 0x3000);
        let class = |prot, backing| {
            let vma = Vma {
                span,
                prot,
                backing,
            };
            classify(&vma, span, file)
        };
        let data = libc::PROT_READ | libc::PROT_WRITE;
        for (backing, executable) in [
            (Backing::Heap, Class::Movable),
            (Backing::Anonymous, Class::Fixed),
        ] {
            assert_eq!(class(data, backing), Class::Movable);
            assert_eq!(class(data | libc::PROT_EXEC, backing), executable);
        }
    }
}
