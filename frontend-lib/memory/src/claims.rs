//! Pages that an allocator gave to one allocation alone.
//!
//! The partial pages at the ends of a buffer stay where they are, because other data lies there.
//! Who knows that none does says so ([`claim`]), and they move like the rest. Large allocations
//! of glibc's malloc are known by their header.

use std::collections::BTreeMap;

use crate::arena;
use crate::span::{Span, page_down, page_size};
use crate::sys;

/// Claimed spans by their start; whole pages, disjoint.
#[derive(Debug)]
pub(crate) struct Claims(BTreeMap<usize, usize>);

impl Claims {
    pub(crate) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn add(&mut self, span: Span) {
        // Memory that was freed unseen and given out again.
        let stale = self.0.range(..span.end);
        let stale: Vec<usize> = stale
            .rev()
            .take_while(|(_, end)| **end > span.start)
            .map(|(start, _)| *start)
            .collect();
        for start in stale {
            self.0.remove(&start);
        }
        self.0.insert(span.start, span.end);
    }

    fn holds(&self, addr: usize) -> bool {
        let below = self.0.range(..=addr).next_back();
        below.is_some_and(|(_, end)| addr < *end)
    }

    /// The pages of `range`, which is mapped and not empty, that hold nothing but the allocation
    /// that it is part of.
    pub(crate) fn own_pages(&self, range: Span) -> Span {
        let (inner, outer) = (range.inner_pages(), range.outer_pages());
        if inner == outer || own_mapping(range).is_some_and(|own| outer.intersect(own) == outer) {
            return outer;
        }
        let start = match self.holds(outer.start) {
            true => outer.start,
            false => inner.start,
        };
        let end = match self.holds(range.end - 1) {
            true => outer.end,
            false => inner.end,
        };
        Span::new(start, end.max(start))
    }
}

/// The mapping that glibc's malloc made for one allocation, if `range` begins in its first page.
///
/// Such a chunk starts with two words: 0, and the mapping's length with bit 1 (`IS_MMAPPED`) set.
/// Whoever else's memory looks like that at the start of a page moves a little too much of it.
fn own_mapping(range: Span) -> Option<Span> {
    const HEADER: usize = 2 * size_of::<usize>();
    let start = page_down(range.start);
    if range.start < start + HEADER {
        return None;
    }
    let [before, size] = sys::read_own_words(start)?;
    let len = size & !7;
    let is_chunk = before == 0 && size & 7 == 2 && len > 0 && len.is_multiple_of(page_size());
    let end = start.checked_add(len).filter(|_| is_chunk)?;
    (range.end <= end).then_some(Span::new(start, end))
}

/// Says that the whole pages in `[addr, addr + len)` hold one allocation and nothing else, until
/// [`disclaim`]. A registration of part of it may then move all of its pages. Nothing happens if
/// `addr` is not the start of a page.
pub fn claim(addr: usize, len: usize) {
    if let Ok(range) = Span::checked(addr, len)
        && page_down(addr) == addr
    {
        let pages = range.inner_pages();
        if !pages.is_empty() {
            arena::lock().state.claims.add(pages);
        }
    }
}

/// Ends the claim that begins at `addr`, if there is one: the allocation is freed.
pub fn disclaim(addr: usize) {
    if addr != 0 && page_down(addr) == addr {
        arena::lock().state.claims.0.remove(&addr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::page_size;

    #[test]
    fn only_the_ends_that_lie_in_a_claim_are_owned() {
        let page = page_size();
        let mut claims = Claims::new();
        claims.add(Span::new(4 * page, 6 * page));
        let own = |start, end| claims.own_pages(Span::new(start, end));
        assert_eq!(own(4 * page, 4 * page + 40), Span::new(4 * page, 5 * page));
        assert_eq!(
            own(5 * page + 8, 5 * page + 16),
            Span::new(5 * page, 6 * page)
        );
        assert_eq!(
            own(3 * page + 8, 5 * page + 16),
            Span::new(4 * page, 6 * page)
        );
        assert!(own(6 * page, 6 * page + 40).is_empty(), "behind the claim");
        assert!(own(8, 40).is_empty());
    }

    #[test]
    fn memory_given_out_again_ends_the_old_claim() {
        let page = page_size();
        let mut claims = Claims::new();
        claims.add(Span::new(4 * page, 8 * page));
        claims.add(Span::new(5 * page, 6 * page));
        assert!(!claims.holds(4 * page) && claims.holds(5 * page) && !claims.holds(6 * page));
    }
}
