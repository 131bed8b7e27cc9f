//! Messages between connected queue pairs of this host, as the packets that
//! they would have been.
//!
//! Their bytes are read from the requester's side, before its request completes:
//! its program leaves them alone until then. The responder's program may see a
//! message, and change it, as soon as its last byte is there.

use super::{Taps, Trip, known, pair, reversed};
use crate::engine::objects::Current;
use crate::engine::wire::{describe, frame, mtu_of, path_to};
use crate::engine::{Engine, Step};
use masq_connected::Message;
use masq_spec::queue::SendOpcode;
use masq_spec::verbs::QpType;
use masq_transport::{Kind, Nak, rules};
use masq_wire::{
    Aeth, AtomicAckEth, Bth, Extended, HeaderBytes, Headers, Msn, NakCode, Opcode, PKey, Psn, Qpn,
    RnrTimer, Syndrome,
};
use std::sync::Arc;

/// What was shown of a queue pair; it counts while somebody looks.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// Numbers that its requests have taken.
    psns: u32,
    /// Numbers of the present message that were shown.
    shown: u64,
    /// Messages that it has completed as a responder.
    msn: u32,
    /// Bytes of the present message that lie in a process only: they went through
    /// a buffer. And where they begin.
    bytes: Vec<u8>,
    bytes_at: u64,
}

impl Noted {
    /// Fills `out` with the bytes at `offset`, if they were noted.
    fn load(&self, offset: u64, out: &mut [u8]) -> bool {
        let start = offset.checked_sub(self.bytes_at);
        let start = start.and_then(|start| usize::try_from(start).ok());
        let bytes = start.and_then(|start| self.bytes.get(start..)?.get(..out.len()));
        bytes.map(|bytes| out.copy_from_slice(bytes)).is_some()
    }

    /// What was shown need not be kept.
    fn forget_before(&mut self, offset: u64) {
        let past = offset
            .saturating_sub(self.bytes_at)
            .min(self.bytes.len() as u64);
        self.bytes.drain(..past as usize);
        self.bytes_at += past;
    }
}

/// A message that somebody watches.
struct Talk {
    taps: Arc<Taps>,
    time: u64,
    requester: usize,
    forth: Trip,
    message: Message,
    kind: Kind,
    partition: PKey,
    /// The requester's number.
    back: Qpn,
    /// Messages that the responder has completed.
    msn: u32,
    shown: u64,
    qp_type: QpType,
}

impl Talk {
    fn show(
        &self,
        trip: &Trip,
        mut headers: Headers,
        payload: u32,
        load: impl Fn(&mut [u8]) -> usize,
    ) {
        headers.bth.pkey = self.partition;
        let payload = payload as usize;
        if let Ok(emitted) = headers.emit(payload) {
            let len = usize::from(emitted.packet_len());
            let copy = |out: &mut [u8]| lay_out(&emitted, payload, out, &load);
            self.taps.show(self.time, trip, len, copy);
        }
    }

    /// Shows an answer that is no data.
    fn answer(&self, opcode: Opcode, psn: Psn, extended: Extended) {
        let mut back = self.forth;
        back.renamed = reversed(back.renamed);
        let mut bth = Bth::new(opcode, self.back, psn);
        bth.mig_req = true;
        self.show(&back, Headers { bth, extended }, 0, |_| 0);
    }

    fn aeth(&self, syndrome: Syndrome, completed: u32) -> Aeth {
        let msn = Msn::new(self.msn).plus(completed);
        Aeth { syndrome, msn }
    }
}

impl Engine {
    /// A message begins anew.
    #[inline]
    pub(in crate::engine) fn show_begun(&mut self, q: usize) {
        if self.taps.is_some()
            && let Some(qp) = self.qps.get_mut(q)
        {
            qp.noted.shown = 0;
            qp.noted.bytes.clear();
        }
    }

    /// Bytes at `offset` of a message pass through a buffer.
    #[cold]
    pub(in crate::engine) fn note_bytes(&mut self, q: usize, offset: u64, bytes: &[u8]) {
        let Some(qp) = self.qps.get(q) else { return };
        let peer = qp.peer.map(|(endpoint, _)| endpoint);
        let own = self.taps_of(qp.endpoint).is_some();
        let is_watched = own || peer.is_some_and(|peer| self.taps_of(peer).is_some());
        let Some(qp) = self.qps.get_mut(q).filter(|_| is_watched) else {
            return;
        };
        let noted = &mut qp.noted;
        if noted.bytes_at + noted.bytes.len() as u64 != offset {
            noted.bytes.clear();
            noted.bytes_at = offset;
        }
        noted.bytes.extend_from_slice(bytes);
    }

    /// The request came from `before` to its present offset, and no further if it
    /// was not `moved`.
    #[cold]
    pub(in crate::engine) fn show_moved(
        &mut self,
        q: usize,
        p: usize,
        cur: &Current,
        before: u64,
        moved: Result<Step, bool>,
    ) {
        let Some(talk) = self.talk(q, Some(p), cur) else {
            return;
        };
        let packets = talk.message.packets();
        let full = |offset: u64| offset / mtu_of_message(&talk.message);
        let end = match moved {
            Ok(Step::Done) => packets,
            _ if talk.kind == Kind::Atomic => 0,
            _ => full(cur.offset).min(packets),
        };
        // What moved before anybody looked is not shown.
        let start = talk.shown.max(full(before).min(end));
        for index in start..end {
            self.show_packet(&talk, cur, index);
        }
        if let Some(qp) = self.qps.get_mut(q) {
            qp.noted.shown = end.max(talk.shown);
            let mtu = mtu_of_message(&talk.message);
            qp.noted.forget_before(qp.noted.shown * mtu);
        }
    }

    /// The message is complete at its responder.
    #[cold]
    pub(in crate::engine) fn show_delivered(&mut self, q: usize, p: usize, cur: &Current) {
        let Some(talk) = self.talk(q, Some(p), cur) else {
            return;
        };
        let packets = talk.message.packets();
        if talk.qp_type == QpType::Rc && matches!(talk.kind, Kind::Send | Kind::Write) {
            let aeth = talk.aeth(Syndrome::ACK, 1);
            let last = talk.message.psn(packets.saturating_sub(1));
            talk.answer(Opcode::RcAcknowledge, last, Extended::Aeth(aeth));
        }
        self.note_passed(q, packets);
        if let Some(peer) = self.qps.get_mut(p) {
            peer.noted.msn = peer.noted.msn.wrapping_add(talk.message.count());
        }
    }

    /// The responder refused the message, or dropped it.
    #[cold]
    pub(in crate::engine) fn show_refused(
        &mut self,
        q: usize,
        p: usize,
        cur: &Current,
        nak: Option<Nak>,
    ) {
        let Some(talk) = self.talk(q, Some(p), cur) else {
            return;
        };
        if talk.shown == 0 {
            self.show_request(&talk, 0);
        }
        let Some(nak) = nak else {
            return self.note_passed(q, talk.message.packets());
        };
        let syndrome = match nak {
            Nak::ReceiverNotReady(code) => Syndrome::RnrNak(RnrTimer::from_code(code)),
            Nak::InvalidRequest => Syndrome::Nak(NakCode::InvalidRequest),
            Nak::RemoteAccess => Syndrome::Nak(NakCode::RemoteAccess),
            Nak::RemoteOperation => Syndrome::Nak(NakCode::RemoteOperation),
        };
        let last = talk.message.packets().saturating_sub(1);
        let psn = talk.message.psn(talk.shown.min(last));
        let aeth = Extended::Aeth(talk.aeth(syndrome, 0));
        talk.answer(Opcode::RcAcknowledge, psn, aeth);
    }

    /// Nobody takes the message.
    #[cold]
    pub(in crate::engine) fn show_unanswered(&mut self, q: usize, cur: &Current) {
        let Some(talk) = self.talk(q, None, cur) else {
            return;
        };
        if talk.shown == 0 {
            self.show_request(&talk, 0);
        }
        if talk.qp_type != QpType::Rc {
            self.note_passed(q, talk.message.packets());
        }
    }

    fn note_passed(&mut self, q: usize, packets: u64) {
        if let Some(qp) = self.qps.get_mut(q) {
            // The low 24 bits count.
            qp.noted.psns = qp.noted.psns.wrapping_add(packets as u32);
            qp.noted.shown = 0;
            qp.noted.bytes = Vec::new();
        }
    }

    /// None: nobody watches either side.
    fn talk(&self, q: usize, p: Option<usize>, cur: &Current) -> Option<Talk> {
        let qp = self.qps.get(q)?;
        let peer = p.and_then(|p| self.qps.get(p));
        let there = peer.map(|peer| peer.endpoint);
        let taps = self.taps_of(qp.endpoint);
        let taps = taps.or_else(|| self.taps_of(there?))?;
        let opcode = SendOpcode::from_raw(cur.wqe.opcode)?;
        let attr = &qp.attr;
        let src = self.virtual_address(q)?;
        let dst = known(attr.ah.dgid).or_else(|| self.virtual_address(p?));
        let dst = dst.unwrap_or(src);
        let psn = Psn::new(attr.sq_psn).plus(qp.noted.psns & 0xff_ffff);
        let to = Qpn::new(attr.dest_qp_num);
        let session = self.sessions.get(qp.session)?;
        let request = describe(0, Some(opcode), cur);
        Some(Talk {
            taps,
            time: self.clock.now(),
            requester: q,
            forth: Trip {
                ends: [Some(qp.endpoint), there],
                renamed: pair(src, dst),
                wire: None,
                path: path_to(dst, &attr.ah),
            },
            message: Message::new(request, qp.qp_type, psn, mtu_of(attr), to),
            kind: rules(opcode).kind,
            partition: session.partition.unwrap_or(PKey::DEFAULT),
            back: Qpn::new(qp.qpn),
            msn: peer.map_or(0, |peer| peer.noted.msn),
            shown: qp.noted.shown,
            qp_type: qp.qp_type,
        })
    }

    /// Shows what number `index` of the message stands for.
    fn show_packet(&self, talk: &Talk, cur: &Current, index: u64) {
        let message = &talk.message;
        match talk.kind {
            Kind::Read => {
                let (first, _) = message.asked_at(index);
                if index == first {
                    self.show_request(talk, index);
                }
                let completed = (first / masq_connected::READ_SEGMENT) as u32 + 1;
                let aeth = talk.aeth(Syndrome::ACK, completed);
                let headers = message.response(index, aeth, talk.back);
                let (offset, len) = message.piece(index);
                let mut back = talk.forth;
                back.renamed = reversed(back.renamed);
                talk.show(&back, headers, len, |out| {
                    self.load_either(talk, true, offset, out)
                });
            }
            Kind::Atomic => {
                self.show_request(talk, index);
                let original = cur.fetched.unwrap_or_default();
                let aeth = talk.aeth(Syndrome::ACK, 1);
                let extended = Extended::AtomicAck(aeth, AtomicAckEth { original });
                talk.answer(Opcode::RcAtomicAcknowledge, message.psn(index), extended);
            }
            Kind::Send | Kind::Write => self.show_request(talk, index),
            Kind::Local => {}
        }
    }

    /// Shows a packet of the requester.
    fn show_request(&self, talk: &Talk, index: u64) {
        let headers = talk.message.headers(index);
        let (offset, len) = match talk.kind {
            Kind::Send | Kind::Write => talk.message.piece(index),
            _ => (0, 0),
        };
        talk.show(&talk.forth, headers, len, |out| {
            self.load_either(talk, false, offset, out)
        });
    }
}

impl Engine {
    /// Reads the requester's side, or the other one if less of that is missing.
    /// Returns how many bytes there are up to the first that is missing.
    fn load_either(&self, talk: &Talk, own_is_to: bool, offset: u32, out: &mut [u8]) -> usize {
        let (offset, whole) = (u64::from(offset), out.len());
        let noted = self.qps.get(talk.requester).map(|qp| &qp.noted);
        let other = |at: u64, out: &mut [u8]| noted.is_some_and(|noted| noted.load(at, out));
        let loaded = self.load_front(own_is_to, offset, out, other);
        if loaded == whole {
            return whole;
        }
        self.load_front(!own_is_to, offset, out, other)
    }
}

fn mtu_of_message(message: &Message) -> u64 {
    message.mtu().bytes() as u64
}

/// Fills the front of a packet, with zeros for the ICRC. `load` says how much of
/// the payload there is. Returns how much of the packet there is.
pub(super) fn lay_out(
    headers: &HeaderBytes,
    payload: usize,
    out: &mut [u8],
    load: impl Fn(&mut [u8]) -> usize,
) -> usize {
    let (whole, head) = (out.len(), headers.as_bytes().len().min(out.len()));
    let body = frame(headers, payload, out);
    match load(body) {
        all if all == body.len() => whole,
        front => head + front,
    }
}
