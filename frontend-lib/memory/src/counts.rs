//! How many live registrations hold each page: disjoint ranges, each with its count.
//!
//! This says which pages are still wanted. It never says what is mapped at them.

use std::collections::BTreeMap;

use crate::span::Span;

/// Counts by range; ranges with count zero are absent, neighbours of equal count are one range.
#[derive(Debug)]
pub(crate) struct RangeCounts {
    /// Start → (end, count).
    ranges: BTreeMap<usize, (usize, u32)>,
}

impl RangeCounts {
    pub(crate) const fn new() -> Self {
        Self {
            ranges: BTreeMap::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn total_len(&self) -> usize {
        self.ranges
            .iter()
            .map(|(start, (end, _))| end - start)
            .sum()
    }

    /// Counts one more holder of every page in `span`.
    pub(crate) fn add(&mut self, span: Span) {
        self.split_at(span.start);
        self.split_at(span.end);
        let mut gaps = Vec::new();
        let mut at = span.start;
        for (&start, (end, count)) in self.ranges.range_mut(span.start..span.end) {
            if at < start {
                gaps.push(Span::new(at, start));
            }
            *count = count.saturating_add(1);
            at = *end;
        }
        if at < span.end {
            gaps.push(Span::new(at, span.end));
        }
        for gap in gaps {
            self.ranges.insert(gap.start, (gap.end, 1));
        }
        self.join_around(span);
    }

    /// Counts one holder less, and returns the parts that nobody holds any more.
    pub(crate) fn remove(&mut self, span: Span) -> Vec<Span> {
        self.split_at(span.start);
        self.split_at(span.end);
        let mut freed: Vec<Span> = Vec::new();
        for (&start, (end, count)) in self.ranges.range_mut(span.start..span.end) {
            *count -= 1;
            if *count == 0 {
                match freed.last_mut() {
                    Some(last) if last.end == start => last.end = *end,
                    _ => freed.push(Span::new(start, *end)),
                }
            }
        }
        self.ranges.retain_range(span, |count| count > 0);
        self.join_around(span);
        freed
    }

    /// The parts of `span` that nobody holds.
    pub(crate) fn unheld(&self, span: Span) -> Vec<Span> {
        let mut free = Vec::new();
        let mut at = span.start;
        let first = self
            .ranges
            .range(..=span.start)
            .next_back()
            .map_or(span.start, |(&start, _)| start);
        for (&start, &(end, _)) in self.ranges.range(first..span.end) {
            if at < start {
                free.push(Span::new(at, start.min(span.end)));
            }
            at = at.max(end);
        }
        if at < span.end {
            free.push(Span::new(at, span.end));
        }
        free
    }

    fn split_at(&mut self, at: usize) {
        if let Some((_, entry)) = self.ranges.range_mut(..at).next_back()
            && entry.0 > at
        {
            let (end, count) = *entry;
            entry.0 = at;
            self.ranges.insert(at, (end, count));
        }
    }

    /// Joins neighbours of equal count from just before `span` to just after it.
    fn join_around(&mut self, span: Span) {
        let first = self
            .ranges
            .range(..span.start)
            .next_back()
            .map_or(span.start, |(&at, _)| at);
        let starts: Vec<usize> = self
            .ranges
            .range(first..=span.end)
            .map(|(&at, _)| at)
            .collect();
        let mut kept: Option<usize> = None;
        for start in starts {
            let Some(&(end, count)) = self.ranges.get(&start) else {
                continue;
            };
            if let Some(entry) = kept.and_then(|at| self.ranges.get_mut(&at))
                && *entry == (start, count)
            {
                entry.0 = end;
                self.ranges.remove(&start);
            } else {
                kept = Some(start);
            }
        }
    }
}

trait RetainRange {
    fn retain_range(&mut self, span: Span, keep: impl Fn(u32) -> bool);
}

impl RetainRange for BTreeMap<usize, (usize, u32)> {
    fn retain_range(&mut self, span: Span, keep: impl Fn(u32) -> bool) {
        let gone: Vec<usize> = self
            .range(span.start..span.end)
            .filter(|(_, (_, count))| !keep(*count))
            .map(|(&start, _)| start)
            .collect();
        for start in gone {
            self.remove(&start);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CELLS: usize = 40;

    fn expand(counts: &RangeCounts) -> Vec<u32> {
        let mut cells = vec![0; CELLS];
        for (&start, &(end, count)) in &counts.ranges {
            assert!(start < end && count > 0);
            cells[start..end].iter_mut().for_each(|cell| *cell += count);
        }
        cells
    }

    proptest! {
        #[test]
        fn counts_equal_a_counter_for_each_cell(
            ops in prop::collection::vec((0..CELLS, 1..CELLS, any::<bool>(), any::<usize>()), 1..60)
        ) {
            let mut counts = RangeCounts::new();
            let mut model = vec![0u32; CELLS];
            let mut held: Vec<Span> = Vec::new();
            for (start, len, add, pick) in ops {
                if add || held.is_empty() {
                    let span = Span::new(start, (start + len).min(CELLS));
                    counts.add(span);
                    model[span.start..span.end].iter_mut().for_each(|cell| *cell += 1);
                    held.push(span);
                } else {
                    let span = held.swap_remove(pick % held.len());
                    let freed = counts.remove(span);
                    model[span.start..span.end].iter_mut().for_each(|cell| *cell -= 1);
                    let freed: Vec<usize> = freed.iter().flat_map(|s| s.start..s.end).collect();
                    let expected: Vec<usize> =
                        (span.start..span.end).filter(|&cell| model[cell] == 0).collect();
                    prop_assert_eq!(freed, expected);
                }
                prop_assert_eq!(expand(&counts), model.clone());
                let unheld: Vec<usize> =
                    counts.unheld(Span::new(3, 30)).iter().flat_map(|s| s.start..s.end).collect();
                let expected: Vec<usize> = (3..30).filter(|&cell| model[cell] == 0).collect();
                prop_assert_eq!(unheld, expected);
                let runs = model.chunk_by(|a, b| a == b).filter(|run| run[0] > 0).count();
                prop_assert_eq!(counts.ranges.len(), runs);
            }
        }
    }
}
