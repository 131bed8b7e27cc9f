//! Address ranges, and the page arithmetic on them.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::RegError;

/// A half-open range of virtual addresses in bytes, `start <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Span {
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The bytes a caller names. Empty and wrapping ranges are the caller's fault; so is one
    /// whose last page is the last of the address space, which rounding up would wrap.
    pub(crate) fn checked(addr: usize, len: usize) -> Result<Self, RegError> {
        let bad = RegError::BadRange { addr, len };
        let Some(end) = addr.checked_add(len) else {
            return Err(bad);
        };
        if len == 0 || end.checked_add(page_size()).is_none() {
            return Err(bad);
        }
        Ok(Self::new(addr, end))
    }

    pub(crate) const fn len(self) -> usize {
        self.end.saturating_sub(self.start)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// The pages that the range touches.
    pub(crate) fn outer_pages(self) -> Self {
        Self::new(page_down(self.start), page_up(self.end))
    }

    /// The pages that lie wholly inside the range; may be empty.
    pub(crate) fn inner_pages(self) -> Self {
        let start = page_up(self.start);
        Self::new(start, page_down(self.end).max(start))
    }

    /// The common part; empty where there is none.
    pub(crate) fn intersect(self, other: Self) -> Self {
        let start = self.start.max(other.start);
        Self::new(start, self.end.min(other.end).max(start))
    }

    /// What is left of the range without `hole`: the part before and the part after.
    pub(crate) fn without(self, hole: Self) -> [Self; 2] {
        if hole.is_empty() {
            return [self, Self::new(self.end, self.end)];
        }
        let before = Self::new(self.start, self.end.min(hole.start).max(self.start));
        let after_start = self.start.max(hole.end).min(self.end);
        [before, Self::new(after_start, self.end)]
    }

    /// Cuts the range at multiples of `size`, so that huge pages and page tables stay whole.
    pub(crate) fn chunks(self, size: usize) -> impl Iterator<Item = Self> {
        let mut at = self.start;
        std::iter::from_fn(move || {
            if at >= self.end {
                return None;
            }
            let next = (at / size + 1).saturating_mul(size).min(self.end);
            let chunk = Self::new(at, next);
            at = next;
            Some(chunk)
        })
    }
}

/// Bytes of a page.
pub(crate) fn page_size() -> usize {
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    match SIZE.load(Ordering::Relaxed) {
        0 => {
            let size = crate::sys::page_size();
            SIZE.store(size, Ordering::Relaxed);
            size
        }
        size => size,
    }
}

pub(crate) fn page_down(addr: usize) -> usize {
    addr & !(page_size() - 1)
}

pub(crate) fn page_up(addr: usize) -> usize {
    page_down(addr.saturating_add(page_size() - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_pages_exclude_the_partial_head_and_tail() {
        let page = page_size();
        let span = Span::new(page + 1, 4 * page - 1);
        assert_eq!(span.inner_pages(), Span::new(2 * page, 3 * page));
        assert_eq!(span.outer_pages(), Span::new(page, 4 * page));
        assert!(Span::new(page + 1, page + 9).inner_pages().is_empty());
    }

    #[test]
    fn without_keeps_both_sides() {
        let all = Span::new(10, 20);
        assert_eq!(
            all.without(Span::new(12, 15)),
            [Span::new(10, 12), Span::new(15, 20)]
        );
        assert!(
            all.without(Span::new(0, 30))
                .iter()
                .all(|part| part.is_empty())
        );
        assert_eq!(all.without(Span::new(30, 40))[0], all);
        assert_eq!(all.without(Span::new(0, 5))[1], all);
    }

    #[test]
    fn chunks_cover_the_range_and_stop_at_boundaries() {
        let cut: Vec<_> = Span::new(5, 33).chunks(10).collect();
        assert_eq!(
            cut,
            [
                Span::new(5, 10),
                Span::new(10, 20),
                Span::new(20, 30),
                Span::new(30, 33)
            ]
        );
    }

    #[test]
    fn ranges_that_wrap_or_are_empty_are_refused() {
        assert!(Span::checked(4096, 0).is_err());
        assert!(Span::checked(usize::MAX, 2).is_err());
        assert!(Span::checked(usize::MAX - 5, 3).is_err());
    }
}
