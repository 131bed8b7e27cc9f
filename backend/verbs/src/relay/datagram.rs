//! Datagrams that arrive: who sent them, whether that sender may, and the header
//! that the tenant sees. The card has taken them by queue pair number and Q_Key
//! alone, so what is judged here is the completion: a datagram of a sender that may
//! not is never shown, and its receive goes back to the card.
#![allow(unsafe_code)] // rewrites the header in tenant memory

use super::Relay;
use super::complete::Taken;
use super::objects::{Qp, WrId};
use super::receives::ReceiveQueue;
use crate::card::address_of;
use crate::host::Wc;
use crate::network::Waiting;
use masq_device::{Arrival, Handle, Sender, SenderKey};
use masq_memory::{Piece, Target, load_bytes, store_bytes};
use masq_spec::queue::Sge;
use masq_spec::verbs::Gid;
use masq_transport::Nanos;
use masq_wire::{GRH_LEN, Qpn};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Datagrams of unknown senders that wait for news of them.
const MOST_HELD: usize = 1024;
/// How long they wait.
const HOLD: Nanos = 1_000_000_000;
/// Senders that are remembered.
const MOST_SENDERS: usize = 65_536;

/// A datagram whose sender is being asked for.
struct Held {
    qp: usize,
    epoch: u8,
    taken: Taken,
    wc: Wc,
    sender: SenderKey,
    until: Nanos,
}

/// What is known of senders on other hosts.
pub(super) struct Senders {
    known: FxHashMap<SenderKey, Option<Sender>>,
    /// The same by what their headers look like once they were shown.
    shown: FxHashMap<(Gid, u32), SenderKey>,
    held: Vec<Held>,
    waiting: Arc<Waiting>,
}

impl Senders {
    pub(super) fn new(waiting: Arc<Waiting>) -> Self {
        Self {
            known: FxHashMap::default(),
            shown: FxHashMap::default(),
            held: Vec::new(),
            waiting,
        }
    }

    /// When a datagram has waited long enough.
    pub(super) fn next_wake(&self) -> Option<Nanos> {
        self.held.iter().map(|held| held.until).min()
    }
}

/// What is to become of a datagram.
enum Judgement {
    /// It is shown, as of this GID.
    Of(Gid),
    /// Nobody is told.
    Dropped,
    /// Its sender is not known yet.
    Unknown(SenderKey),
}

impl Relay {
    /// A datagram lies in a receive of queue pair `q`.
    pub(super) fn arrived(&mut self, q: usize, taken: Taken, wc: &Wc) {
        let Some(header) = self.header(q, taken) else {
            // The receive has no room for the header that is to be judged.
            return self.repost(q, taken);
        };
        match self.judge_sender(q, &header, wc.src_qp) {
            Judgement::Of(gid) => self.show(q, taken, wc, &header, gid),
            Judgement::Dropped => self.repost(q, taken),
            Judgement::Unknown(sender) => {
                let Some(qp) = self
                    .qps
                    .get(q)
                    .filter(|_| self.senders.held.len() < MOST_HELD)
                else {
                    return self.repost(q, taken);
                };
                let epoch = qp.epoch;
                self.senders.waiting.push(Arrival::UnknownSender { sender });
                self.senders.held.push(Held {
                    qp: q,
                    epoch,
                    taken,
                    wc: *wc,
                    sender,
                    until: self.clock.now().saturating_add(HOLD),
                });
            }
        }
    }

    fn judge_sender(&self, q: usize, header: &[u8; GRH_LEN], src_qp: u32) -> Judgement {
        let Some(qp) = self.qps.get(q) else {
            return Judgement::Dropped;
        };
        let source = source_of(header);
        let local = || {
            let peer = self.qpns.get(&src_qp).and_then(|p| self.qps.get(*p));
            // Its own address handle was judged, and names this endpoint alone.
            let peer = peer.filter(|peer| peer.domain == qp.domain)?;
            Some(self.sessions.get(peer.session)?.gid)
        };
        if source == self.card.gid {
            return local().map_or(Judgement::Dropped, Judgement::Of);
        }
        let Some(partition) = self.sessions.get(qp.session).and_then(|s| s.partition) else {
            return Judgement::Dropped;
        };
        let sender = SenderKey {
            host: address_of(source),
            partition,
            qpn: Qpn::new(src_qp & 0xff_ffff),
        };
        // Programs that do not look at what they receive post one buffer many times: what
        // lies there may be the header of a datagram that was shown already.
        let shown = || self.senders.shown.get(&(source, src_qp));
        let known = &self.senders.known;
        let who = known.get(&sender).or_else(|| known.get(shown()?));
        match who {
            None if local() == Some(source) => Judgement::Of(source),
            None => Judgement::Unknown(sender),
            Some(Some(who)) if who.reaches(qp.endpoint) => Judgement::Of(who.gid),
            Some(_) => Judgement::Dropped,
        }
    }

    /// Shows a datagram, with the virtual addresses in its header.
    fn show(&mut self, q: usize, taken: Taken, wc: &Wc, header: &[u8; GRH_LEN], from: Gid) {
        let Some(qp) = self.qps.get(q) else { return };
        let Some(session) = self.sessions.get(qp.session) else {
            return;
        };
        let shown = renamed(header, from, session.gid);
        let mut pieces = std::mem::take(&mut self.pieces);
        if self.header_pieces(q, taken, &mut pieces).is_some() {
            let mut rest = &shown[..];
            for piece in &pieces {
                let (part, left) = rest.split_at(rest.len().min(piece.len as usize));
                if let Target::Mapped(at) = piece.target {
                    // SAFETY: the piece was resolved just now from a region that is
                    // registered; regions are dropped between turns only.
                    unsafe { store_bytes(at, part) };
                }
                rest = left;
            }
        }
        self.pieces = pieces;
        if let Some(posted) = self.finish(q, taken) {
            self.deliver(q, &posted, wc, Some(wc.src_qp));
        }
    }

    /// A copy of the header before a datagram.
    fn header(&mut self, q: usize, taken: Taken) -> Option<[u8; GRH_LEN]> {
        if let Taken::Own(entry) = taken {
            let rq = self.qps.get(q).and_then(|qp| qp.rq.as_ref());
            if let Some(header) = rq.and_then(|rq| rq.header(entry)) {
                return Some(header);
            }
        }
        let mut pieces = std::mem::take(&mut self.pieces);
        let found = self.header_pieces(q, taken, &mut pieces);
        let mut header = [0; GRH_LEN];
        let mut rest = &mut header[..];
        for piece in &pieces {
            let (part, left) = rest.split_at_mut(rest.len().min(piece.len as usize));
            if let Target::Mapped(from) = piece.target {
                // SAFETY: as in `show`.
                unsafe { load_bytes(from, part) };
            }
            rest = left;
        }
        self.pieces = pieces;
        found.map(|()| header)
    }

    /// Where the header before a datagram lies.
    fn header_pieces(&self, q: usize, taken: Taken, pieces: &mut Vec<Piece>) -> Option<()> {
        pieces.clear();
        let qp = self.qps.get(q)?;
        let (queue, pd, entry) = self.queue_of(qp, taken)?;
        let session = self.sessions.get(qp.session)?;
        let mut left = GRH_LEN as u64;
        for sge in queue.list(entry) {
            let take = u64::from(sge.length).min(left);
            if take == 0 {
                continue;
            }
            let mr = session.regions.get(&sge.lkey).filter(|mr| mr.pd == pd)?;
            let offset = sge.addr.checked_sub(mr.iova)?;
            let region = &mr.host.memory()?.region;
            if !region.pieces(0, offset, take, pieces) {
                return None;
            }
            left -= take;
        }
        (left == 0).then_some(())
    }

    fn queue_of<'a>(&'a self, qp: &'a Qp, taken: Taken) -> Option<(&'a ReceiveQueue, Handle, u32)> {
        match taken {
            Taken::Own(entry) => Some((qp.rq.as_ref()?, qp.pd, entry)),
            Taken::Shared(r, entry) => {
                let srq = self.srqs.get(r)?;
                Some((&srq.queue, srq.pd, entry))
            }
        }
    }

    /// A datagram that nobody is told of: the next one gets its receive.
    fn repost(&mut self, q: usize, taken: Taken) {
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        qp.counters.dropped += 1;
        let (list, id): (&[Sge], u64) = match taken {
            Taken::Own(entry) => {
                let id = WrId::Receive(q, qp.epoch, entry).pack();
                (qp.rq.as_ref().map_or(&[], |rq| rq.list(entry)), id)
            }
            Taken::Shared(r, entry) => {
                let id = WrId::Shared(r, entry).pack();
                (
                    self.srqs.get(r).map_or(&[], |srq| srq.queue.list(entry)),
                    id,
                )
            }
        };
        match (taken, &qp.rq) {
            (Taken::Own(entry), Some(rq)) => rq.push_again(&mut self.receives, id, entry),
            _ => {
                self.receives.push(id, list);
            }
        }
        let (posted, _) = match taken {
            Taken::Own(_) => self.receives.post(&qp.host),
            Taken::Shared(r, _) => match self.srqs.get(r) {
                Some(srq) => self.receives.post_shared(&srq.host),
                None => return,
            },
        };
        if posted == 0 {
            self.fail(q, "the card refused a receive");
        }
    }

    /// The control side knows whose a queue pair of another host is.
    pub(crate) fn learn(&mut self, sender: SenderKey, who: Option<Sender>) {
        if self.senders.known.len() >= MOST_SENDERS {
            self.forget_senders();
        }
        if let Some(who) = &who {
            self.senders
                .shown
                .insert((who.gid, sender.qpn.get()), sender);
        }
        self.senders.known.insert(sender, who);
        let mut held = std::mem::take(&mut self.senders.held);
        held.retain(|held| {
            let is_told = held.sender == sender;
            if is_told {
                self.release(held);
            }
            !is_told
        });
        // What came meanwhile stays behind it.
        held.append(&mut self.senders.held);
        self.senders.held = held;
    }

    fn release(&mut self, held: &Held) {
        if self
            .qps
            .get(held.qp)
            .is_some_and(|qp| qp.epoch == held.epoch)
        {
            self.arrived(held.qp, held.taken, &held.wc);
        }
    }

    pub(crate) fn forget_senders(&mut self) {
        self.senders.known.clear();
        self.senders.shown.clear();
    }

    /// Lets go of datagrams that have waited long enough.
    pub(super) fn take_held_datagrams(&mut self) -> bool {
        if self.senders.held.is_empty() {
            return false;
        }
        let now = self.clock.now();
        let mut held = std::mem::take(&mut self.senders.held);
        let before = held.len();
        held.retain(|held| {
            let is_over = held.until <= now;
            if is_over
                && self
                    .qps
                    .get(held.qp)
                    .is_some_and(|qp| qp.epoch == held.epoch)
            {
                self.repost(held.qp, held.taken);
            }
            !is_over
        });
        let busy = held.len() != before;
        self.senders.held = held;
        busy
    }
}

/// Where the addresses of an IPv4 header are, in the last 20 bytes before a datagram.
const V4_SOURCE: usize = 32;

fn is_v4(header: &[u8; GRH_LEN]) -> bool {
    header[0] >> 4 != 6
}

/// The GID that a datagram came from (RoCEv2 annex A17.4.5.2).
fn source_of(header: &[u8; GRH_LEN]) -> Gid {
    let mut gid = [0; 16];
    if is_v4(header) {
        gid[10..12].fill(0xff);
        gid[12..].copy_from_slice(&header[V4_SOURCE..V4_SOURCE + 4]);
    } else {
        gid.copy_from_slice(&header[8..24]);
    }
    gid
}

/// The same header with virtual addresses. Those of other families than the card's
/// make it an IPv6 header.
fn renamed(header: &[u8; GRH_LEN], from: Gid, to: Gid) -> [u8; GRH_LEN] {
    let v4 = |gid: Gid| match address_of(gid) {
        std::net::IpAddr::V4(v4) => Some(v4.octets()),
        std::net::IpAddr::V6(_) => None,
    };
    let mut shown = *header;
    match (v4(from), v4(to)) {
        (Some(from), Some(to)) => {
            if !is_v4(header) {
                shown.fill(0);
                let total = u16::from_be_bytes([header[4], header[5]]).saturating_add(20);
                let [high, low] = total.to_be_bytes();
                shown[20..30].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0, header[7], 17]);
            }
            shown[V4_SOURCE..V4_SOURCE + 4].copy_from_slice(&from);
            shown[V4_SOURCE + 4..].copy_from_slice(&to);
            shown[30..32].fill(0);
            let sum = checksum(&shown[20..]);
            shown[30..32].copy_from_slice(&sum.to_be_bytes());
        }
        _ => {
            if is_v4(header) {
                shown.fill(0);
                shown[0] = 0x60;
                let total = u16::from_be_bytes([header[22], header[23]]);
                let [high, low] = total.saturating_sub(20).to_be_bytes();
                shown[4..8].copy_from_slice(&[high, low, 17, header[28]]);
            }
            shown[8..24].copy_from_slice(&from);
            shown[24..].copy_from_slice(&to);
        }
    }
    shown
}

/// The checksum of an IPv4 header (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4_header() -> [u8; GRH_LEN] {
        let mut header = [0; GRH_LEN];
        header[20..30].copy_from_slice(&[0x45, 2, 0, 60, 0, 0, 0x40, 0, 64, 17]);
        header[32..].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
        header
    }

    fn mapped(last: u8) -> Gid {
        crate::card::gid_of([10, 0, 0, last].into())
    }

    #[test]
    fn the_source_of_both_families_is_found() {
        assert_eq!(
            source_of(&v4_header()),
            crate::card::gid_of([192, 0, 2, 1].into())
        );
        let mut v6 = [0; GRH_LEN];
        v6[0] = 0x60;
        v6[8..24].fill(7);
        assert_eq!(source_of(&v6), [7; 16]);
    }

    #[test]
    fn tenants_see_virtual_addresses_and_a_right_checksum() {
        let shown = renamed(&v4_header(), mapped(1), mapped(2));
        assert_eq!(shown[32..], [10, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!(shown[20..24], [0x45, 2, 0, 60]);
        assert_eq!(checksum(&shown[20..]), 0);
    }

    #[test]
    fn addresses_of_another_family_make_another_header() {
        let shown = renamed(&v4_header(), [1; 16], [2; 16]);
        assert_eq!(shown[0] >> 4, 6);
        assert_eq!(source_of(&shown), [1; 16]);
        assert_eq!(shown[24..], [2; 16]);
        let back = renamed(&shown, mapped(1), mapped(2));
        assert_eq!((back[0], back[20]), (0, 0x45));
        assert_eq!(source_of(&back), mapped(1));
        assert_eq!(checksum(&back[20..]), 0);
    }
}
