//! A receive queue, a queue pair's own or a shared one: what the driver posted, and
//! what the card has of it.

use crate::host::{MAX_SGE, ReceiveBatch};
use masq_memory::MappedRing;
use masq_spec::queue::{RECV_DATA, RecvWqe, Sge};
use zerocopy::{FromZeros, IntoBytes};

/// A receive that the card has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PostedReceive {
    pub(crate) wr_id: u64,
    /// Running index in the ring.
    pub(crate) index: u32,
    num_sge: u32,
    is_posted: bool,
}

/// A ring of receives. The card gets each with the number of an *entry*, of which
/// there are as many as may be outstanding, and may give them back in any order.
pub(crate) struct ReceiveQueue {
    pub(crate) ring: MappedRing,
    /// Running index of the next receive to hand to the card.
    head: u32,
    /// Receives that were completed: so many slots are free again.
    done: u32,
    pub(crate) max_sge: u32,
    posted: Box<[PostedReceive]>,
    /// Elements of the entries, `stride` for each.
    sges: Box<[Sge]>,
    stride: usize,
    free: Vec<u32>,
    /// Entries of the batch that is being put together.
    batch: Vec<u32>,
}

impl ReceiveQueue {
    /// `keep_sges`: [`Self::list`] will be asked for (datagrams).
    pub(crate) fn new(ring: MappedRing, max_wr: u32, max_sge: u32, keep_sges: bool) -> Self {
        let stride = if keep_sges { max_sge as usize } else { 0 };
        Self {
            ring,
            head: 0,
            done: 0,
            max_sge,
            posted: vec![PostedReceive::default(); max_wr as usize].into(),
            sges: vec![Sge::default(); max_wr as usize * stride].into(),
            stride,
            free: (0..max_wr).rev().collect(),
            batch: Vec::with_capacity(crate::host::BATCH),
        }
    }

    /// Whether the driver has posted something that the card could get.
    pub(crate) fn has_news(&self) -> bool {
        !self.free.is_empty() && self.ring.is_published(self.head)
    }

    /// Receives that the card has.
    pub(crate) fn outstanding(&self) -> usize {
        self.posted.len() - self.free.len()
    }

    /// Puts what the driver posted into a batch, by the names that `id` gives.
    pub(crate) fn fill(&mut self, batch: &mut ReceiveBatch, id: impl Fn(u32) -> u64) {
        self.batch.clear();
        while !batch.is_full() {
            let index = self.head.wrapping_add(self.batch.len() as u32);
            if !self.ring.is_published(index) {
                return;
            }
            let Some(entry) = self.free.pop() else { return };
            let mut sges = [Sge::default(); MAX_SGE];
            let (wr_id, count) = self.read(index, &mut sges);
            let list = sges.get(..count).unwrap_or_default();
            self.keep(entry, wr_id, index, list);
            batch.push(id(entry), list);
            self.batch.push(entry);
        }
    }

    /// The card took so many of the batch.
    pub(crate) fn taken(&mut self, count: usize) {
        self.head = self.head.wrapping_add(count as u32);
        for entry in self.batch.drain(..).skip(count) {
            if let Some(posted) = self.posted.get_mut(entry as usize) {
                posted.is_posted = false;
            }
            self.free.push(entry);
        }
    }

    /// Takes the next receive without the card.
    pub(crate) fn take_unposted(&mut self) -> Option<PostedReceive> {
        if !self.ring.is_published(self.head) {
            return None;
        }
        let mut wqe = RecvWqe::new_zeroed();
        self.ring.read(self.head, 0, wqe.as_mut_bytes());
        let taken = PostedReceive {
            wr_id: wqe.wr_id,
            index: self.head,
            ..PostedReceive::default()
        };
        self.head = self.head.wrapping_add(1);
        self.give_back_slot();
        Some(taken)
    }

    /// Whether the card has this entry.
    pub(crate) fn is_posted(&self, entry: u32) -> bool {
        let posted = self.posted.get(entry as usize);
        posted.is_some_and(|posted| posted.is_posted)
    }

    /// The elements of an entry, if they are kept.
    pub(crate) fn list(&self, entry: u32) -> &[Sge] {
        let entry = entry as usize;
        let count = self.posted.get(entry).map_or(0, |p| p.num_sge as usize);
        let first = entry * self.stride;
        self.sges.get(first..first + count).unwrap_or_default()
    }

    /// Takes an entry off the books.
    pub(crate) fn finish(&mut self, entry: u32) -> Option<PostedReceive> {
        let place = self.posted.get_mut(entry as usize)?;
        if !place.is_posted {
            return None;
        }
        let posted = std::mem::take(place);
        self.free.push(entry);
        self.give_back_slot();
        Some(posted)
    }

    /// The entry that the card has had for longest.
    pub(crate) fn oldest(&self) -> Option<u32> {
        let all = self.posted.iter().zip(0..);
        let posted = all.filter(|(posted, _)| posted.is_posted);
        let age = |posted: &PostedReceive| self.head.wrapping_sub(posted.index);
        posted
            .max_by_key(|(posted, _)| age(posted))
            .map(|(_, entry)| entry)
    }

    /// Forgets everything, as RESET does.
    pub(crate) fn reset(&mut self) {
        (self.head, self.done) = (0, 0);
        self.ring.set_device_index(0);
        self.posted.fill(PostedReceive::default());
        self.free.clear();
        self.free.extend((0..self.posted.len() as u32).rev());
    }

    fn give_back_slot(&mut self) {
        self.done = self.done.wrapping_add(1);
        self.ring.set_device_index(self.done);
    }

    /// Copies a receive once; returns its name and how many elements it has. A list
    /// longer than agreed is cut.
    fn read(&self, index: u32, sges: &mut [Sge; MAX_SGE]) -> (u64, usize) {
        let mut wqe = RecvWqe::new_zeroed();
        self.ring.read(index, 0, wqe.as_mut_bytes());
        let room = (self.ring.stride() as usize).saturating_sub(RECV_DATA) / size_of::<Sge>();
        let most = room.min(self.max_sge as usize).min(MAX_SGE);
        let count = (wqe.num_sge as usize).min(most);
        if let Some(sges) = sges.get_mut(..count) {
            self.ring.read(index, RECV_DATA, sges.as_mut_bytes());
        }
        (wqe.wr_id, count)
    }

    fn keep(&mut self, entry: u32, wr_id: u64, index: u32, list: &[Sge]) {
        let num_sge = list.len().min(self.stride);
        if let Some(posted) = self.posted.get_mut(entry as usize) {
            *posted = PostedReceive {
                wr_id,
                index,
                num_sge: num_sge as u32,
                is_posted: true,
            };
        }
        let first = entry as usize * self.stride;
        if let Some(room) = self.sges.get_mut(first..first + num_sge) {
            for (to, from) in room.iter_mut().zip(list) {
                *to = *from;
            }
        }
    }
}
