//! A registered memory region: a range of addresses and where its bytes lie.

use crate::{MemoryError, Piece, SharedFile, Target, Window};
use masq_spec::device::PAGE_SIZE;
use masq_spec::verbs::{Segment, SegmentKind};
use std::sync::Arc;

/// Where one segment of a region lies.
#[derive(Clone, Debug)]
pub enum MappedSegment {
    /// In a window.
    Window {
        /// The mapping.
        window: Arc<Window>,
        /// First byte, in the shared file.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// Only in the process.
    Remote {
        /// First byte, in the tenant.
        addr: u64,
        /// Bytes.
        len: u64,
    },
}

impl MappedSegment {
    fn len(&self) -> u64 {
        match self {
            Self::Window { len, .. } | Self::Remote { len, .. } => *len,
        }
    }
}

/// The bytes of a region, by offset from its start.
#[derive(Clone, Debug)]
pub struct Region {
    segments: Vec<MappedSegment>,
    len: u64,
}

impl Region {
    /// Maps the segments of a registration of `[addr, addr + len)`, which they
    /// must cover in order and without gaps (SPEC clause 4.2).
    ///
    /// # Errors
    /// [`MemoryError::BadRange`] names the segment that breaks the rule.
    pub fn map(
        file: &SharedFile,
        addr: u64,
        len: u64,
        segments: &[Segment],
    ) -> Result<Self, MemoryError> {
        Self::map_with(file, addr, len, segments, true)
    }

    /// As [`Self::map`], but pages are not faulted in: see [`Self::populate`].
    ///
    /// # Errors
    /// As [`Self::map`].
    pub fn map_lazily(
        file: &SharedFile,
        addr: u64,
        len: u64,
        segments: &[Segment],
    ) -> Result<Self, MemoryError> {
        Self::map_with(file, addr, len, segments, false)
    }

    /// Faults the pages of its windows in. Takes about a second for some GiB.
    pub fn populate(&self, mut go_on: impl FnMut() -> bool) {
        for segment in &self.segments {
            if let MappedSegment::Window { window, .. } = segment {
                window.populate(&mut go_on);
            }
        }
    }

    fn map_with(
        file: &SharedFile,
        addr: u64,
        len: u64,
        segments: &[Segment],
        populate: bool,
    ) -> Result<Self, MemoryError> {
        let mut at = addr;
        let mut mapped = Vec::with_capacity(segments.len());
        for segment in segments {
            let bad = MemoryError::BadRange {
                addr: segment.addr,
                len: segment.len,
            };
            if segment.addr != at || segment.len == 0 {
                return Err(bad);
            }
            let Some(end) = at.checked_add(segment.len) else {
                return Err(bad);
            };
            at = end;
            let (addr, len) = (segment.addr, segment.len);
            mapped.push(if segment.kind == SegmentKind::Window as u32 {
                let at = segment.at;
                if at % PAGE_SIZE != addr % PAGE_SIZE {
                    return Err(bad);
                }
                let window = Arc::new(Window::map(file, at, len, populate)?);
                MappedSegment::Window { window, at, len }
            } else if segment.kind == SegmentKind::Remote as u32 {
                MappedSegment::Remote { addr, len }
            } else {
                return Err(bad);
            });
        }
        if at.checked_sub(addr) != Some(len) {
            return Err(MemoryError::BadRange { addr, len });
        }
        Ok(Self {
            segments: mapped,
            len,
        })
    }

    /// Its parts, in order.
    pub fn segments(&self) -> &[MappedSegment] {
        &self.segments
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the region has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of windows that it holds.
    pub fn windows(&self) -> u64 {
        self.segments
            .iter()
            .filter(|s| matches!(s, MappedSegment::Window { .. }))
            .count() as u64
    }

    /// Whether part of it is reached through the process only.
    pub fn has_remote(&self) -> bool {
        self.segments
            .iter()
            .any(|s| matches!(s, MappedSegment::Remote { .. }))
    }

    /// Appends the pieces of `[offset, offset + len)` to `out`. Returns false,
    /// having appended nothing, if the range is not inside the region.
    #[inline]
    pub fn pieces(&self, session: u32, offset: u64, len: u64, out: &mut Vec<Piece>) -> bool {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => {}
            _ => return false,
        }
        let before = out.len();
        let (mut skip, mut left) = (offset, len);
        for segment in &self.segments {
            if left == 0 {
                break;
            }
            if skip >= segment.len() {
                skip -= segment.len();
                continue;
            }
            let take = left.min(segment.len() - skip);
            let target = match segment {
                MappedSegment::Window { window, at, .. } => match window.pointer(at + skip, take) {
                    Some(ptr) => Target::Mapped(ptr),
                    None => {
                        out.truncate(before);
                        return false;
                    }
                },
                MappedSegment::Remote { addr, .. } => Target::Remote {
                    session,
                    addr: addr + skip,
                },
            };
            out.push(Piece { target, len: take });
            left -= take;
            skip = 0;
        }
        true
    }
}
