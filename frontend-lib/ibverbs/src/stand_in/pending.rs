//! Requests that will write stand-ins, by their running index.

use super::Region;
use crate::lock::Lock;
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// An element of a request that touches a stand-in.
pub(crate) struct Piece {
    pub(super) region: Arc<Region>,
    /// Addresses.
    pub(super) range: Range<usize>,
    /// Bytes of the message that go elsewhere before it.
    pub(super) skip: u32,
}

/// Those of one request.
pub(crate) type Pieces = SmallVec<[Piece; 2]>;

/// What the queues of a QP will write.
#[derive(Clone)]
pub(crate) struct Queues {
    pub(crate) send: Arc<Lock<Sends>>,
    /// The SRQ's, if it has one.
    pub(crate) recv: Arc<Lock<Receives>>,
}

impl Queues {
    /// Those of a QP on an SRQ, or of one with a receive queue of its own.
    pub(crate) fn new(shared: Option<&Arc<Lock<Receives>>>) -> Self {
        Self {
            send: Arc::new(Lock::new(Sends::default())),
            recv: shared.map_or_else(Receives::shared, Arc::clone),
        }
    }

    /// Whether both are of one QP.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.send, &other.send)
    }
}

/// Of a send queue, in which requests complete in order; many complete silently.
pub(crate) struct Sends<T = Pieces>(VecDeque<(u32, T)>);

impl<T> Default for Sends<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Sends<T> {
    /// Remembers the request with this index, which follows those that are remembered.
    pub(super) fn push(&mut self, index: u32, request: T) {
        self.0.push_back((index, request));
    }

    /// Takes all up to the one with this index, which completed: earlier ones have succeeded
    /// without saying so, it itself is passed on if it was a success.
    pub(super) fn complete(&mut self, index: u32, success: bool, mut done: impl FnMut(T)) {
        while let Some((first, _)) = self.0.front() {
            let behind = index.wrapping_sub(*first) as i32;
            if behind < 0 {
                break;
            }
            if let Some((_, request)) = self.0.pop_front()
                && (behind > 0 || success)
            {
                done(request);
            }
        }
    }

    /// Forgets all: the queue is empty.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Sends {
    /// The parts of `range` that no remembered request will have written: of the others the
    /// stand-in knows better than the program, which has seen no completion and may have
    /// posted a fenced request that passes them on.
    pub(super) fn unwritten(
        &self,
        region: &Arc<Region>,
        range: Range<usize>,
    ) -> SmallVec<[Range<usize>; 2]> {
        let pieces = self.0.iter().flat_map(|(_, pieces)| pieces);
        let written = pieces.filter(|piece| Arc::ptr_eq(&piece.region, region));
        without(range, written.map(|piece| piece.range.clone()))
    }
}

/// What is left of `range` without `holes`.
fn without(
    range: Range<usize>,
    holes: impl Iterator<Item = Range<usize>>,
) -> SmallVec<[Range<usize>; 2]> {
    let mut left: SmallVec<[Range<usize>; 2]> = SmallVec::from_iter([range]);
    for hole in holes {
        if left
            .iter()
            .all(|r| hole.end <= r.start || r.end <= hole.start)
        {
            continue;
        }
        left = left
            .into_iter()
            .flat_map(|r| {
                let before = r.start..r.end.min(hole.start.max(r.start));
                let after = r.start.max(hole.end.min(r.end))..r.end;
                [before, after]
            })
            .filter(|r| !r.is_empty())
            .collect();
    }
    left
}

/// Of a receive queue. Those of a shared one complete in any order, and some never do: a
/// destroyed QP had taken them.
pub(crate) struct Receives<T = Pieces>(HashMap<u32, T>);

impl<T> Default for Receives<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl Receives {
    /// A new one, that several QPs may name.
    pub(crate) fn shared() -> Arc<Lock<Self>> {
        Arc::new(Lock::new(Self::default()))
    }
}

impl<T> Receives<T> {
    /// Remembers the receive with this index.
    pub(super) fn push(&mut self, index: u32, receive: T) {
        self.0.insert(index, receive);
    }

    /// Takes the one with this index, if it is remembered.
    pub(super) fn complete(&mut self, index: u32) -> Option<T> {
        self.0.remove(&index)
    }

    /// Forgets all: the queue is empty.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Indexes of those that were passed on.
    fn complete(sends: &mut Sends<u32>, index: u32, success: bool) -> Vec<u32> {
        let mut done = Vec::new();
        sends.complete(index, success, |request| done.push(request));
        done
    }

    #[test]
    fn a_completion_is_one_of_all_before_it() {
        let mut sends = Sends::default();
        for index in [u32::MAX - 1, u32::MAX, 1, 4] {
            sends.push(index, index);
        }
        assert!(complete(&mut sends, u32::MAX - 2, true).is_empty());
        let both = [u32::MAX - 1, u32::MAX];
        assert_eq!(complete(&mut sends, 0, true), both);
        assert_eq!(complete(&mut sends, 1, true), [1]);
        assert!(complete(&mut sends, 1, true).is_empty());
    }

    #[test]
    fn a_failed_request_is_dropped_and_those_before_it_were_successes() {
        let mut sends = Sends::default();
        for index in 0..4 {
            sends.push(index, index);
        }
        assert_eq!(complete(&mut sends, 2, false), [0, 1], "those before it");
        assert!(complete(&mut sends, 3, false).is_empty(), "flushed");
    }

    #[test]
    fn receives_complete_in_any_order_and_once() {
        let mut receives = Receives::default();
        for index in 0..3 {
            receives.push(index, index);
        }
        let order = [2, 0, 2, 7, 1].map(|index| receives.complete(index));
        assert_eq!(order, [Some(2), Some(0), None, None, Some(1)]);
    }

    proptest! {
        /// What is left names just the bytes that no hole has.
        #[test]
        fn without_leaves_what_no_hole_has(
            (start, len) in (0..40usize, 0..40usize),
            holes in prop::collection::vec((0..80usize, 0..20usize), 0..6),
        ) {
            let holes: Vec<_> = holes.into_iter().map(|(at, len)| at..at + len).collect();
            let left = without(start..start + len, holes.iter().cloned());
            for at in 0..100 {
                let named = left.iter().filter(|r| r.contains(&at)).count();
                let meant = (start..start + len).contains(&at)
                    && !holes.iter().any(|hole| hole.contains(&at));
                prop_assert_eq!(named, usize::from(meant), "byte {}", at);
            }
        }

        /// Whatever is signalled: each request is passed on once, in order, and before the
        /// completion that proves it is given out.
        #[test]
        fn each_request_is_done_once_in_order(
            first: u32,
            kinds in prop::collection::vec((any::<bool>(), any::<bool>()), 1..50),
        ) {
            let index = |n: usize| first.wrapping_add(n as u32);
            let mut sends = Sends::default();
            for (n, (remembered, _)) in kinds.iter().enumerate() {
                if *remembered {
                    sends.push(index(n), n as u32);
                }
            }
            let mut done = Vec::new();
            for (n, (_, signalled)) in kinds.iter().enumerate() {
                if *signalled || n + 1 == kinds.len() {
                    done.extend(complete(&mut sends, index(n), true));
                    let upto = kinds.iter().take(n + 1).enumerate();
                    let expected: Vec<u32> =
                        upto.filter(|(_, kind)| kind.0).map(|(n, _)| n as u32).collect();
                    prop_assert_eq!(&done, &expected);
                }
            }
        }
    }
}
