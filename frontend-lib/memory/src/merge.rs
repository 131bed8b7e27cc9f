//! Two copies of the same bytes, each written by its own side, kept in step.
//!
//! *Ours* is the program's memory, *theirs* its stand-in, which peers write. A base remembers
//! what both last agreed on: a byte of theirs that differs from it was written by a peer and goes
//! to ours; else a byte of ours that differs was written by the program and goes to theirs. Bytes
//! are changed in whole words by compare-and-swap, so that no neighbouring store is lost and
//! nobody sees half of a word that was written as one.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a word.
pub(crate) const WORD: usize = size_of::<u64>();

/// What both copies of a range of bytes last agreed on. The copies are passed to each call as the
/// words that touch the range; both begin at the same place in a word.
#[derive(Debug)]
pub(crate) struct Merge {
    /// The bytes meant, counted from the first word's beginning.
    bytes: Range<usize>,
    base: Box<[u64]>,
    /// Theirs, as of the merge that is under way.
    seen: Box<[u64]>,
}

/// All bits of those bytes of word `number` that lie in `bytes`.
fn mask(bytes: &Range<usize>, number: usize) -> u64 {
    let first = number * WORD;
    if bytes.start <= first && first + WORD <= bytes.end {
        return u64::MAX;
    }
    let mut mask = [0; WORD];
    for (at, byte) in mask.iter_mut().enumerate() {
        *byte = if bytes.contains(&(first + at)) {
            0xff
        } else {
            0
        };
    }
    u64::from_ne_bytes(mask)
}

/// All bits of the bytes in which two words differ.
fn changed(one: u64, other: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let difference = one ^ other;
    let high = (((difference & LOW) + LOW) | difference) & !LOW;
    (high >> 7) * 0xff
}

/// Gives the bytes of `mask` in `word` the values that they have in `value`.
fn put(word: &AtomicU64, mask: u64, value: u64) {
    if mask == 0 {
        return;
    }
    let mut old = word.load(Ordering::Relaxed);
    while let Err(now) = word.compare_exchange_weak(
        old,
        old & !mask | value & mask,
        Ordering::AcqRel,
        Ordering::Relaxed,
    ) {
        old = now;
    }
}

impl Merge {
    /// Copies ours to theirs: what both begin with. `bytes` counts from the first word.
    pub(crate) fn begin(bytes: Range<usize>, ours: &[AtomicU64], theirs: &[AtomicU64]) -> Self {
        let base: Box<[u64]> = ours
            .iter()
            .zip(theirs)
            .enumerate()
            .map(|(number, (our, their))| {
                let value = our.load(Ordering::Acquire);
                put(their, mask(&bytes, number), value);
                value
            })
            .collect();
        Self {
            seen: base.clone(),
            base,
            bytes,
        }
    }

    /// Brings both in step. Where both sides wrote the same byte, theirs wins.
    pub(crate) fn run(&mut self, ours: &[AtomicU64], theirs: &[AtomicU64]) {
        // Downwards: peers write upwards, so whoever is given a message's last byte is given
        // all of it.
        for (their, seen) in theirs.iter().zip(&mut self.seen).rev() {
            *seen = their.load(Ordering::Acquire);
        }
        let words = ours.iter().zip(theirs).zip(&self.seen).zip(&mut self.base);
        for (number, (((our, their), seen), base)) in words.enumerate() {
            let now = our.load(Ordering::Acquire);
            if now == *base && *seen == *base {
                continue;
            }
            let meant = mask(&self.bytes, number);
            let from_them = changed(*seen, *base) & meant;
            let from_us = changed(now, *base) & meant & !from_them;
            put(our, from_them, *seen);
            put(their, from_us, now);
            *base = *base & !(from_them | from_us) | *seen & from_them | now & from_us;
        }
    }

    /// Copies those of theirs to ours, as a request of the program itself wrote them, even where
    /// they are what they were before.
    pub(crate) fn take(&mut self, bytes: Range<usize>, ours: &[AtomicU64], theirs: &[AtomicU64]) {
        let bytes = bytes.start.max(self.bytes.start)..bytes.end.min(self.bytes.end);
        if bytes.is_empty() {
            return;
        }
        let words = bytes.start / WORD..bytes.end.div_ceil(WORD);
        let all = ours.iter().zip(theirs).zip(&mut self.base).enumerate();
        for (number, ((our, their), base)) in all.skip(words.start).take(words.len()) {
            let mask = mask(&bytes, number);
            let value = their.load(Ordering::Acquire);
            put(our, mask, value);
            *base = *base & !mask | value & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WORDS: usize = 5;
    const LEN: usize = WORDS * WORD;

    fn memory(fill: impl Fn(usize) -> u8) -> [AtomicU64; WORDS] {
        std::array::from_fn(|word| {
            AtomicU64::new(u64::from_ne_bytes(std::array::from_fn(|at| {
                fill(word * WORD + at)
            })))
        })
    }

    fn store(memory: &[AtomicU64], at: usize, value: u8) {
        let mut bytes = memory[at / WORD].load(Ordering::Relaxed).to_ne_bytes();
        bytes[at % WORD] = value;
        memory[at / WORD].store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    }

    fn load(memory: &[AtomicU64], at: usize) -> u8 {
        memory[at / WORD].load(Ordering::Relaxed).to_ne_bytes()[at % WORD]
    }

    /// One step of either side.
    #[derive(Clone, Debug)]
    enum Step {
        Program(usize, u8),
        Peer(usize, u8),
        Merge,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..LEN, 0..4u8).prop_map(|(at, value)| Step::Program(at, value)),
            (0..LEN, 0..4u8).prop_map(|(at, value)| Step::Peer(at, value)),
            Just(Step::Merge),
        ]
    }

    proptest! {
        /// Bytes with even number are the program's, odd ones the peer's: after a merge both
        /// copies hold what each last wrote, and nothing outside of the range has changed.
        #[test]
        fn no_write_is_lost_while_each_side_writes_its_own_bytes(
            start in 0..WORD,
            len in 1..=LEN - WORD,
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let bytes = start..start + len;
            let (ours, theirs) = (memory(|at| at as u8), memory(|_| 0xee));
            let mut merge = Merge::begin(bytes.clone(), &ours, &theirs);
            let mut model: Vec<u8> = (0..LEN).map(|at| at as u8).collect();
            for step in steps.into_iter().chain([Step::Merge]) {
                match step {
                    Step::Program(at, value) if bytes.contains(&at) && at % 2 == 0 => {
                        store(&ours, at, value);
                        model[at] = value;
                    }
                    Step::Peer(at, value) if bytes.contains(&at) && at % 2 == 1 => {
                        store(&theirs, at, value);
                        model[at] = value;
                    }
                    Step::Merge => {
                        merge.run(&ours, &theirs);
                        for (at, value) in model.iter().enumerate() {
                            prop_assert_eq!(load(&ours, at), *value, "ours, byte {}", at);
                            let expected = if bytes.contains(&at) { *value } else { 0xee };
                            prop_assert_eq!(load(&theirs, at), expected, "theirs, byte {}", at);
                        }
                    }
                    Step::Program(..) | Step::Peer(..) => {}
                }
            }
        }

        /// The bytes that differ, and no others.
        #[test]
        fn changed_names_whole_bytes(one: u64, mut other: u64, same: u8) {
            for byte in (0..WORD).filter(|byte| same >> byte & 1 != 0) {
                let bits = 0xff << (8 * byte);
                other = other & !bits | one & bits;
            }
            let named = changed(one, other).to_ne_bytes();
            for (at, (a, b)) in one.to_ne_bytes().iter().zip(other.to_ne_bytes()).enumerate() {
                prop_assert_eq!(named[at], if *a == b { 0 } else { 0xff });
            }
        }
    }

    #[test]
    fn the_peer_wins_where_both_wrote() {
        let (ours, theirs) = (memory(|_| 0), memory(|_| 0));
        let mut merge = Merge::begin(0..LEN, &ours, &theirs);
        store(&ours, 9, 1);
        store(&theirs, 9, 2);
        merge.run(&ours, &theirs);
        assert_eq!((load(&ours, 9), load(&theirs, 9)), (2, 2));
    }

    #[test]
    fn what_a_request_wrote_is_taken_even_if_it_wrote_what_was_there() {
        let (ours, theirs) = (memory(|_| 0), memory(|_| 0));
        let mut merge = Merge::begin(3..LEN, &ours, &theirs);
        for at in 0..LEN {
            store(&ours, at, 7); // the program clears its buffer its own way
        }
        merge.take(0..12, &ours, &theirs);
        merge.run(&ours, &theirs);
        let expected = |at| if (3..12).contains(&at) { 0 } else { 7 };
        assert!((0..LEN).all(|at| load(&ours, at) == expected(at)));
        assert!((12..LEN).all(|at| load(&theirs, at) == 7));
    }

    #[test]
    fn stores_beside_a_merge_survive_it() {
        const ROUNDS: u64 = 2000;
        let (ours, theirs) = (memory(|_| 0), memory(|_| 0));
        let mut merge = Merge::begin(0..LEN, &ours, &theirs);
        // The program counts in the low half of each word, the peer in the high half.
        let count = |memory: &[AtomicU64], shift: u32| {
            for _ in 0..ROUNDS {
                for word in memory {
                    word.fetch_add(1 << shift, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            let program = scope.spawn(|| count(&ours, 0));
            let peer = scope.spawn(|| count(&theirs, 32));
            while !(program.is_finished() && peer.is_finished()) {
                merge.run(&ours, &theirs);
            }
        });
        merge.run(&ours, &theirs);
        for word in ours.iter().chain(&theirs) {
            assert_eq!(word.load(Ordering::Relaxed), ROUNDS << 32 | ROUNDS);
        }
    }
}
