//! A region that has stand-ins.

use crate::lock::Lock;
use masq_driver::DriverError;
use masq_regmem::{Arena, Registration, SegmentKind, StandIn};
use std::ops::Range;
use std::sync::Arc;

/// The stand-ins of one memory region.
pub(crate) struct Region {
    /// How requests name its first byte.
    base: u64,
    /// Its addresses.
    memory: Range<usize>,
    /// What has stand-ins, ascending.
    parts: Box<[Range<usize>]>,
    state: Lock<State>,
}

struct State {
    /// Those of `parts`; none when the region has ended.
    stand_ins: Vec<StandIn>,
    is_merged: bool,
}

impl Region {
    /// Stand-ins for all that is not in the shared file. Peers may name it if `merged`: it is
    /// filled then.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn new(
        arena: &'static Arena,
        registration: &Registration,
        base: u64,
        merged: bool,
    ) -> Result<Arc<Self>, DriverError> {
        let all = &registration.segments;
        let start = all.first().map_or(0, |s| s.addr);
        let end = all.last().map_or(start, |s| s.addr + s.len);
        let remote = all.iter().filter(|s| s.kind == SegmentKind::Remote);
        let stand_ins = remote.map(|s| StandIn::new(arena, s.addr, s.len));
        let stand_ins = stand_ins.collect::<Result<Vec<_>, _>>()?;
        let region = Arc::new(Self {
            base,
            memory: start..end,
            parts: stand_ins.iter().map(StandIn::bytes).collect(),
            state: Lock::new(State {
                stand_ins,
                is_merged: false,
            }),
        });
        if merged {
            region.begin_merging();
        }
        Ok(region)
    }

    /// Where the stand-in for the part that begins at `addr` lies.
    pub(crate) fn at(&self, addr: usize) -> Option<usize> {
        self.state.with(|state| {
            let mut all = state.stand_ins.iter();
            all.find(|s| s.bytes().start == addr).map(StandIn::at)
        })
    }

    /// The addresses of an element, if it lies in the region and touches a stand-in.
    #[inline]
    pub(super) fn touched(&self, addr: u64, len: u32) -> Option<Range<usize>> {
        let offset = usize::try_from(addr.checked_sub(self.base)?).ok()?;
        let end = offset.checked_add(len as usize)?;
        if end > self.memory.len() {
            return None; // the device refuses it
        }
        let range = self.memory.start + offset..self.memory.start + end;
        let touches = |part: &Range<usize>| part.start < range.end && range.start < part.end;
        self.parts.iter().any(touches).then_some(range)
    }

    /// Copies from the program.
    ///
    /// # Safety
    /// The range is in use by a request that is about to read it.
    pub(super) unsafe fn fetch(&self, range: Range<usize>) {
        self.state.with(|state| {
            for stand_in in &state.stand_ins {
                // SAFETY: the caller's promise.
                unsafe { stand_in.fetch(range.clone()) };
            }
        });
    }

    /// Copies to the program; nothing if the region has ended.
    ///
    /// # Safety
    /// The range was in use by a request that wrote it.
    pub(super) unsafe fn deliver(&self, range: Range<usize>) {
        self.state.with(|state| {
            for stand_in in &mut state.stand_ins {
                // SAFETY: the caller's promise.
                unsafe { stand_in.deliver(range.clone()) };
            }
        });
    }

    /// Whether peers may name it.
    pub(super) fn is_merged(&self) -> bool {
        self.state.with(|state| state.is_merged)
    }

    /// Fills it, to be merged from now on; false if it was already.
    pub(super) fn begin_merging(&self) -> bool {
        self.state.with(|state| {
            for stand_in in &mut state.stand_ins {
                // SAFETY: registered memory, which its owner keeps.
                unsafe { stand_in.begin_merging() };
            }
            !std::mem::replace(&mut state.is_merged, true)
        })
    }

    /// Brings it in step, if it is one of those.
    pub(super) fn merge(&self) {
        self.state.with(State::merge);
    }

    /// Frees the stand-ins. What peers wrote comes to the program before, if its memory is still
    /// there; nothing does after.
    pub(super) fn end(&self) {
        let freed = self.state.with(|state| {
            if state.is_merged && state.stand_ins.iter().all(StandIn::is_mapped) {
                state.merge();
            }
            std::mem::take(&mut state.stand_ins)
        });
        drop(freed);
    }

    /// Frees the stand-ins of a region that nobody ended.
    pub(super) fn abandon(&self) {
        drop(
            self.state
                .with(|state| std::mem::take(&mut state.stand_ins)),
        );
    }
}

impl State {
    fn merge(&mut self) {
        for stand_in in &mut self.stand_ins {
            // SAFETY: registered memory, which its owner keeps; the device writes only to what
            // was writable.
            unsafe { stand_in.merge() };
        }
    }
}
