//! What is mapped where, asked of the kernel and never remembered.
//!
//! `PROCMAP_QUERY` answers for one address; kernels before 6.11 have the text of
//! `/proc/self/maps` instead. Neither path allocates: a forked child walks its mappings before it
//! may touch the heap.

use std::os::fd::{AsFd, OwnedFd};

use crate::span::Span;
use crate::sys::{self, Errno, FileId, SysResult};

/// What lies behind a mapping, as far as moving is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Private anonymous memory without a special role: `.bss`, `mmap`.
    Anonymous,
    /// The same, by `brk`: the heap, which holds data whatever its protection says.
    Heap,
    /// A shared mapping of a file, at this offset in bytes.
    SharedFile { id: FileId, offset: usize },
    /// Everything else.
    Other,
}

/// One mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vma {
    pub(crate) span: Span,
    /// `PROT_*` bits.
    pub(crate) prot: i32,
    pub(crate) backing: Backing,
}

impl Backing {
    /// Whether it is private anonymous memory without a special role.
    pub(crate) fn is_plain(self) -> bool {
        matches!(self, Self::Anonymous | Self::Heap)
    }

    /// Of a private mapping without a file. Special ones carry a name in brackets: `[stack]`,
    /// `[vdso]`, `[vvar]`, `[uprobes]`. Plain are those without one, the `brk` heap, and those
    /// that the program itself named.
    fn of_name(name: &[u8]) -> Self {
        match name {
            b"[heap]" => Self::Heap,
            b"" => Self::Anonymous,
            name if name.starts_with(b"[anon:") => Self::Anonymous,
            _ => Self::Other,
        }
    }
}

impl Vma {
    /// Whether this maps `file`, and if so at which offset.
    pub(crate) fn offset_in(&self, file: FileId) -> Option<usize> {
        match self.backing {
            Backing::SharedFile { id, offset } if id == file => Some(offset),
            _ => None,
        }
    }
}

const TEXT_BYTES: usize = 4096;
const NAME_BYTES: usize = 96;

/// Walks the mappings of this process.
pub(crate) struct Maps {
    file: OwnedFd,
    text: Option<Text>,
}

/// The state of reading the textual form, which is sequential.
struct Text {
    buf: [u8; TEXT_BYTES],
    filled: usize,
    used: usize,
    /// The mapping last returned: asked again as long as the cursor stays in it.
    last: Option<Vma>,
}

impl Maps {
    pub(crate) fn open() -> SysResult<Self> {
        let file = sys::open(c"/proc/self/maps", libc::O_RDONLY)?;
        let mut maps = Self { file, text: None };
        // Any address will do to learn whether the kernel knows the request.
        if matches!(
            maps.query(0),
            Err(Errno(libc::ENOTTY | libc::EINVAL | libc::ENOSYS))
        ) {
            maps = maps.into_text();
        }
        Ok(maps)
    }

    fn into_text(mut self) -> Self {
        self.text = Some(Text {
            buf: [0; TEXT_BYTES],
            filled: 0,
            used: 0,
            last: None,
        });
        self
    }

    /// Forgets what was read ahead.
    pub(crate) fn restart(&mut self) {
        if let Some(text) = self.text.as_mut() {
            let _ = sys::rewind(self.file.as_fd());
            (text.filled, text.used, text.last) = (0, 0, None);
        }
    }

    /// The mapping that holds `addr`, or else the next one above it.
    pub(crate) fn covering_or_next(&mut self, addr: usize) -> SysResult<Option<Vma>> {
        if self.text.is_some() {
            self.scan(addr)
        } else {
            self.query(addr)
        }
    }

    fn query(&self, addr: usize) -> SysResult<Option<Vma>> {
        let mut query = ProcmapQuery {
            size: size_of::<ProcmapQuery>() as u64,
            query_flags: COVERING_OR_NEXT,
            query_addr: addr as u64,
            ..ProcmapQuery::default()
        };
        match self.ask(&mut query) {
            Ok(()) => {}
            Err(Errno(libc::ENOENT)) => return Ok(None),
            Err(error) => return Err(error),
        }
        let id = FileId {
            dev_major: query.dev_major,
            dev_minor: query.dev_minor,
            inode: query.inode,
        };
        let shared = query.vma_flags & VMA_SHARED != 0;
        let backing = if shared && query.inode != 0 {
            Backing::SharedFile {
                id,
                offset: query.vma_offset as usize,
            }
        } else if !shared && query.inode == 0 {
            self.backing_by_name(query.vma_start)?
        } else {
            Backing::Other
        };
        let mut prot = libc::PROT_NONE;
        for (flag, bit) in [
            (VMA_READABLE, libc::PROT_READ),
            (VMA_WRITABLE, libc::PROT_WRITE),
            (VMA_EXECUTABLE, libc::PROT_EXEC),
        ] {
            if query.vma_flags & flag != 0 {
                prot |= bit;
            }
        }
        let span = Span::new(query.vma_start as usize, query.vma_end as usize);
        Ok(Some(Vma {
            span,
            prot,
            backing,
        }))
    }

    /// Only anonymous mappings are asked for their name, which makes the kernel format it.
    fn backing_by_name(&self, addr: u64) -> SysResult<Backing> {
        let mut name = [0u8; NAME_BYTES];
        let mut query = ProcmapQuery {
            size: size_of::<ProcmapQuery>() as u64,
            query_addr: addr,
            vma_name_size: NAME_BYTES as u32,
            vma_name_addr: name.as_mut_ptr() as u64,
            ..ProcmapQuery::default()
        };
        match self.ask(&mut query) {
            Ok(()) => {
                let len = (query.vma_name_size as usize).saturating_sub(1);
                Ok(Backing::of_name(name.get(..len).unwrap_or_default()))
            }
            // Gone since, or a name too long to be one of those known here.
            Err(Errno(libc::ENOENT | libc::ENAMETOOLONG)) => Ok(Backing::Other),
            Err(error) => Err(error),
        }
    }

    #[allow(unsafe_code)] // one ioctl with its own structure
    fn ask(&self, query: &mut ProcmapQuery) -> SysResult<()> {
        // SAFETY: the request's argument is this structure; the kernel writes to it and to the
        // name buffer that the caller lent for the call.
        unsafe { sys::ioctl(self.file.as_fd(), PROCMAP_QUERY, query) }.map(drop)
    }

    fn rescan(&mut self, addr: usize) -> SysResult<Option<Vma>> {
        self.restart();
        self.scan(addr)
    }

    fn scan(&mut self, addr: usize) -> SysResult<Option<Vma>> {
        let Some(text) = self.text.as_mut() else {
            return Ok(None);
        };
        if let Some(last) = text.last {
            if last.span.start <= addr && addr < last.span.end {
                return Ok(Some(last));
            }
            if addr < last.span.start {
                return self.rescan(addr);
            }
        }
        loop {
            let rest = text.buf.get(text.used..text.filled).unwrap_or_default();
            if let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                let vma = rest.get(..end).and_then(parse_line);
                text.used += end + 1;
                if let Some(vma) = vma
                    && vma.span.end > addr
                {
                    text.last = Some(vma);
                    return Ok(Some(vma));
                }
                continue;
            }
            // Keep the partial line, read on behind it. A line longer than the buffer (a path of
            // thousands of bytes) loses its head and is then skipped as unparsable.
            let kept = if rest.len() == TEXT_BYTES {
                0
            } else {
                rest.len()
            };
            text.buf.copy_within(text.filled - kept..text.filled, 0);
            let free = text.buf.get_mut(kept..).unwrap_or_default();
            let count = sys::read(self.file.as_fd(), free)?;
            (text.used, text.filled) = (0, kept + count);
            if count == 0 {
                return Ok(None);
            }
        }
    }
}

/// `start-end perms offset major:minor inode   name`
fn parse_line(line: &[u8]) -> Option<Vma> {
    let mut words = line
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty());
    let mut range = words.next()?.split(|&byte| byte == b'-');
    let span = Span::new(hex(range.next()?)? as usize, hex(range.next()?)? as usize);
    let perms = words.next()?;
    let offset = hex(words.next()?)? as usize;
    let mut dev = words.next()?.split(|&byte| byte == b':');
    let (dev_major, dev_minor) = (hex(dev.next()?)? as u32, hex(dev.next()?)? as u32);
    let inode = decimal(words.next()?)?;
    let name = words.next().unwrap_or_default();

    let mut prot = libc::PROT_NONE;
    for (letter, bit) in [
        (b'r', libc::PROT_READ),
        (b'w', libc::PROT_WRITE),
        (b'x', libc::PROT_EXEC),
    ] {
        if perms.contains(&letter) {
            prot |= bit;
        }
    }
    let backing = match (perms.contains(&b's'), inode) {
        (true, 1..) => Backing::SharedFile {
            id: FileId {
                dev_major,
                dev_minor,
                inode,
            },
            offset,
        },
        (false, 0) => Backing::of_name(name),
        _ => Backing::Other,
    };
    Some(Vma {
        span,
        prot,
        backing,
    })
}

pub(crate) fn hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `struct procmap_query` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct ProcmapQuery {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

const _: () = assert!(size_of::<ProcmapQuery>() == 104);

/// `_IOWR('f', 17, struct procmap_query)`
const PROCMAP_QUERY: u64 = (3 << 30) | (104 << 16) | (0x66 << 8) | 17;
const VMA_READABLE: u64 = 1;
const VMA_WRITABLE: u64 = 2;
const VMA_EXECUTABLE: u64 = 4;
const VMA_SHARED: u64 = 8;
const COVERING_OR_NEXT: u64 = 0x10;

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(mut maps: Maps) -> Vec<(Span, i32, Backing)> {
        let mut found = Vec::with_capacity(4096);
        let mut at = 0;
        while let Some(vma) = maps.covering_or_next(at).unwrap() {
            if vma.span.start <= isize::MAX as usize {
                found.push((vma.span, vma.prot, vma.backing)); // the text also has [vsyscall]
            }
            at = vma.span.end;
        }
        found
    }

    #[test]
    fn a_line_gives_range_protection_and_file() {
        let vma = parse_line(b"7f00-8000 rw-s 00007f00 00:01 1038 /memfd:masq (deleted)").unwrap();
        let id = FileId {
            dev_major: 0,
            dev_minor: 1,
            inode: 1038,
        };
        assert_eq!(vma.span, Span::new(0x7f00, 0x8000));
        assert_eq!(vma.prot, libc::PROT_READ | libc::PROT_WRITE);
        assert_eq!(vma.offset_in(id), Some(0x7f00));
    }

    #[test]
    fn only_unnamed_heap_and_program_named_memory_is_plain() {
        let backing = |name: &str| {
            parse_line(format!("1000-2000 rw-p 00000000 00:00 0   {name}").as_bytes())
                .unwrap()
                .backing
        };
        assert_eq!(backing(""), Backing::Anonymous);
        assert_eq!(backing("[heap]"), Backing::Heap);
        assert_eq!(backing("[anon:glibc malloc]"), Backing::Anonymous);
        assert_eq!(backing("[stack]"), Backing::Other);
        assert_eq!(backing("[vdso]"), Backing::Other);
    }

    #[test]
    fn the_ioctl_and_the_text_agree() {
        let queried = Maps::open().unwrap();
        if queried.text.is_some() {
            return; // this kernel has the text only
        }
        // Other tests map and unmap meanwhile: what one walk and the next agree on is compared.
        let stable = |maps: fn() -> Maps| {
            let (one, two) = (walk(maps()), walk(maps()));
            one.into_iter()
                .filter(|vma| two.contains(vma))
                .collect::<Vec<_>>()
        };
        let by_ioctl = stable(|| Maps::open().unwrap());
        let by_text = stable(|| Maps::open().unwrap().into_text());
        let special = by_text.iter().filter(|vma| vma.2 == Backing::Other).count();
        assert!(special > 3, "program text, vdso and stack must be there");
        for vma in by_text.iter().filter(|vma| vma.2 == Backing::Other) {
            assert!(by_ioctl.contains(vma), "{vma:?}");
        }
    }

    #[test]
    fn scanning_backwards_starts_over() {
        let mut maps = Maps::open().unwrap().into_text();
        let first = maps.covering_or_next(0).unwrap().unwrap();
        let second = maps.covering_or_next(first.span.end).unwrap().unwrap();
        assert!(second.span.start >= first.span.end);
        assert_eq!(maps.covering_or_next(0).unwrap().unwrap().span, first.span);
    }
}
