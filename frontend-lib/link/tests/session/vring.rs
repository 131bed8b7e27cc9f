//! The device's half of a split virtqueue.

use crate::memory::Memory;
use std::fs::File;
use std::io::Write as _;

#[derive(Default)]
pub(crate) struct Vring {
    pub(crate) num: u16,
    pub(crate) desc: u64,
    pub(crate) used: u64,
    pub(crate) avail: u64,
    pub(crate) call: Option<File>,
    pub(crate) kick: Option<File>,
    pub(crate) enabled: bool,
    seen: u16,
    done: u16,
}

/// One buffer of a chain.
pub(crate) struct Buffer {
    pub(crate) addr: u64,
    pub(crate) len: usize,
    pub(crate) writable: bool,
}

impl Vring {
    /// The next available chain: its head and buffers.
    pub(crate) fn next(&mut self, memory: &Memory) -> Option<(u16, Vec<Buffer>)> {
        if !self.enabled || self.num == 0 || memory.get::<u16>(self.avail + 2) == self.seen {
            return None;
        }
        let slot = u64::from(self.seen % self.num);
        let head = memory.get::<u16>(self.avail + 4 + 2 * slot);
        self.seen = self.seen.wrapping_add(1);
        let mut chain = Vec::new();
        let mut at = head;
        loop {
            let desc = self.desc + 16 * u64::from(at);
            let rest = memory.get::<u64>(desc + 8);
            let flags = (rest >> 32) as u16;
            chain.push(Buffer {
                addr: memory.get(desc),
                len: rest as u32 as usize,
                writable: flags & 2 != 0,
            });
            if flags & 1 == 0 {
                return Some((head, chain));
            }
            at = (rest >> 48) as u16;
        }
    }

    /// Gives a chain back, and signals it if that is wanted (always, for events).
    pub(crate) fn finish(&mut self, memory: &Memory, head: u16, len: u32, is_event: bool) {
        let slot = u64::from(self.done % self.num);
        memory.put(self.used + 4 + 8 * slot, &[u32::from(head), len]);
        self.done = self.done.wrapping_add(1);
        memory.put(self.used + 2, &self.done);
        let unwanted = memory.get::<u16>(self.avail) & 1 != 0;
        if is_event || !unwanted {
            let call = self.call.as_mut().expect("a call eventfd");
            call.write_all(&1u64.to_ne_bytes()).unwrap();
        }
    }
}
