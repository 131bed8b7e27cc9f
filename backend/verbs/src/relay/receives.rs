//! A receive queue, a queue pair's own or a shared one: what the driver posted, and
//! what the card has of it.

use super::headers::{Headers, behind_header};
use super::objects::{Mr, place};
use crate::host::{MAX_SGE, ReceiveBatch};
use masq_memory::MappedRing;
use masq_spec::queue::{RECV_DATA, RecvWqe, Sge};
use masq_wire::GRH_LEN;
use rustc_hash::FxHashMap;
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
    /// Of a queue pair for datagrams.
    headers: Option<Headers>,
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
            headers: None,
            batch: Vec::with_capacity(crate::host::BATCH),
        }
    }

    /// Has the card put the headers of datagrams elsewhere.
    pub(crate) fn with_headers(self, headers: Headers) -> Self {
        Self {
            headers: Some(headers),
            ..self
        }
    }

    /// The header of a datagram, if the card put it elsewhere.
    pub(crate) fn header(&self, entry: u32) -> Option<[u8; GRH_LEN]> {
        self.headers.as_ref()?.read(entry)
    }

    /// Puts one receive into a batch.
    fn push(&self, batch: &mut ReceiveBatch, id: u64, entry: u32, list: &[Sge]) {
        let mut behind = [Sge::default(); MAX_SGE + 1];
        let Some(headers) = &self.headers else {
            batch.push(id, list);
            return;
        };
        match behind_header(list, &mut behind) {
            Some(count) => {
                behind[0] = headers.sge(entry);
                batch.push(id, behind.get(..count).unwrap_or_default());
            }
            // No datagram fits it.
            None => {
                batch.push(id, list);
            }
        }
    }

    /// Puts a receive that the card has given back into a batch again.
    pub(crate) fn push_again(&self, batch: &mut ReceiveBatch, id: u64, entry: u32) {
        self.push(batch, id, entry, self.list(entry));
    }

    /// Whether the driver has posted something that the card could get.
    pub(crate) fn has_news(&self) -> bool {
        !self.free.is_empty() && self.ring.is_published(self.head)
    }

    /// Receives that the card has.
    pub(crate) fn outstanding(&self) -> usize {
        self.posted.len() - self.free.len()
    }

    /// Receives that the card may have.
    pub(crate) fn most(&self) -> usize {
        self.posted.len()
    }

    /// Puts what the driver posted into a batch, by the names that `id` gives.
    /// `regions`: on a card that goes by where memory is mapped.
    pub(crate) fn fill(
        &mut self,
        batch: &mut ReceiveBatch,
        regions: Option<&FxHashMap<u32, Mr>>,
        id: impl Fn(u32) -> u64,
    ) {
        self.batch.clear();
        while !batch.is_full() {
            let index = self.head.wrapping_add(self.batch.len() as u32);
            if !self.ring.is_published(index) {
                return;
            }
            let Some(entry) = self.free.pop() else { return };
            let mut sges = [Sge::default(); MAX_SGE];
            let (wr_id, count) = self.read(index, &mut sges);
            if let Some(regions) = regions {
                place(regions, sges.get_mut(..count).unwrap_or_default());
            }
            let list = sges.get(..count).unwrap_or_default();
            self.keep(entry, wr_id, index, list);
            self.push(batch, id(entry), entry, list);
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

#[cfg(test)]
mod tests {
    use super::*;
    use masq_memory::SharedFile;
    use masq_spec::queue::{HDR_DEVICE_INDEX, ring_len};
    use masq_spec::verbs::Ring;
    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

    const SLOTS: u32 = 8;
    const STRIDE: u32 = 64;

    /// A ring of its own, and the driver's side of it.
    struct Driver {
        ring: MappedRing,
        next: u32,
    }

    impl Driver {
        fn new() -> Self {
            let fd = memfd_create("ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
            ftruncate(&fd, ring_len(SLOTS, STRIDE).next_multiple_of(4096)).unwrap();
            let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
            fcntl_add_seals(&fd, seals).unwrap();
            let file = SharedFile::check(fd).unwrap();
            let ring = Ring {
                addr: 0,
                slots: SLOTS,
                stride: STRIDE,
            };
            Self {
                ring: MappedRing::map(&file, ring).unwrap(),
                next: 0,
            }
        }

        /// Posts a receive of this name, whose element has the name as its address.
        fn post(&mut self, wr_id: u64) {
            let wqe = RecvWqe {
                stamp: 0,
                num_sge: 1,
                wr_id,
            };
            let sge = Sge {
                addr: wr_id,
                length: 8,
                lkey: 1,
            };
            let slot = [wqe.as_bytes(), sge.as_bytes()].concat();
            self.ring.publish(self.next, &slot);
            self.next = self.next.wrapping_add(1);
        }
    }

    fn queue(driver: &Driver, max_wr: u32) -> ReceiveQueue {
        ReceiveQueue::new(driver.ring.clone(), max_wr, 2, true)
    }

    /// Hands all that there is to a card that takes `most`.
    fn hand_over(queue: &mut ReceiveQueue, most: usize) -> Vec<u32> {
        let mut batch = ReceiveBatch::default();
        let entries = std::cell::RefCell::new(Vec::new());
        queue.fill(&mut batch, None, |entry| {
            entries.borrow_mut().push(entry);
            u64::from(entry)
        });
        let mut entries = entries.into_inner();
        entries.truncate(most);
        queue.taken(entries.len());
        entries
    }

    #[test]
    fn the_card_has_no_more_than_may_be_outstanding() {
        let mut driver = Driver::new();
        let mut queue = queue(&driver, 3);
        (1..=5).for_each(|id| driver.post(id));
        let first = hand_over(&mut queue, usize::MAX);
        assert_eq!((first.len(), queue.outstanding()), (3, 3));
        assert!(!queue.has_news(), "there is no room");
        assert_eq!(queue.finish(first[1]).unwrap().wr_id, 2);
        assert!(queue.has_news());
        let second = hand_over(&mut queue, usize::MAX);
        assert_eq!(queue.finish(second[0]).unwrap().wr_id, 4);
        assert_eq!(driver.ring.load_header(HDR_DEVICE_INDEX), 2);
    }

    #[test]
    fn what_a_card_did_not_take_is_handed_over_again() {
        let mut driver = Driver::new();
        let mut queue = queue(&driver, 4);
        (1..=3).for_each(|id| driver.post(id));
        assert_eq!(hand_over(&mut queue, 1).len(), 1);
        let rest = hand_over(&mut queue, usize::MAX);
        let ids: Vec<_> = rest
            .iter()
            .map(|e| queue.finish(*e).unwrap().wr_id)
            .collect();
        assert_eq!(ids, [2, 3]);
    }

    #[test]
    fn an_entry_completes_once_and_keeps_its_elements_until_then() {
        let mut driver = Driver::new();
        let mut queue = queue(&driver, 2);
        driver.post(7);
        let entries = hand_over(&mut queue, usize::MAX);
        assert_eq!(queue.list(entries[0])[0].addr, 7);
        assert!(queue.finish(entries[0]).is_some());
        assert!(queue.finish(entries[0]).is_none());
        assert!(queue.list(entries[0]).is_empty());
        assert!(queue.finish(99).is_none());
    }

    #[test]
    fn reset_forgets_what_the_card_had() {
        let mut driver = Driver::new();
        let mut queue = queue(&driver, 2);
        driver.post(1);
        hand_over(&mut queue, usize::MAX);
        queue.reset();
        assert_eq!((queue.outstanding(), queue.oldest()), (0, None));
        assert_eq!(driver.ring.load_header(HDR_DEVICE_INDEX), 0);
    }

    proptest! {
        /// Whatever order a card completes in: each receive once, with its own index,
        /// and the oldest is the oldest.
        #[test]
        fn every_receive_completes_once(steps in prop::collection::vec(any::<(bool, u8)>(), 1..200)) {
            let mut driver = Driver::new();
            let mut queue = queue(&driver, 5);
            let (mut posted, mut done) = (0u64, Vec::new());
            let mut held: Vec<u32> = Vec::new();
            for (post, pick) in steps {
                let free = SLOTS - (posted as u32 - driver.ring.load_header(HDR_DEVICE_INDEX));
                if post && free > 0 {
                    posted += 1;
                    driver.post(posted);
                    held.extend(hand_over(&mut queue, usize::from(pick % 3)));
                } else if !held.is_empty() {
                    let entry = match pick % 2 {
                        0 => queue.oldest().unwrap(),
                        _ => held[usize::from(pick) % held.len()],
                    };
                    held.retain(|other| *other != entry);
                    let receive = queue.finish(entry).unwrap();
                    prop_assert_eq!(u64::from(receive.index) + 1, receive.wr_id);
                    if pick % 2 == 0 {
                        prop_assert!(held.iter().all(|e| queue.list(*e)[0].addr > receive.wr_id));
                    }
                    done.push(receive.wr_id);
                }
            }
            let all = done.len();
            done.sort_unstable();
            done.dedup();
            prop_assert_eq!(done.len(), all);
        }
    }
}
