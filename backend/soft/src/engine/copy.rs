//! Moving the bytes of a message, at most one turn's worth at a time.
//!
//! Both piece lists cover the whole message; a chunk begins at the request's
//! offset. If every piece of the chunk is mapped, there is one copy. If some
//! are not, the chunk goes through a buffer, and a helper of the session that
//! owns the memory reads or writes its part ([`super::remote`]).
#![allow(unsafe_code)] // copies between resolved pieces

use super::objects::{Current, Waiting};
use super::remote::{DEADLINE, Deferred, JobId, JobKind, Part, Stage, Work};
use super::{Engine, Step};
use masq_memory::{
    Piece, Target, atomic_u64, copy_pieces, load_bytes, store_bytes, store_last_byte,
};
use masq_transport::AtomicOp;

/// Most bytes that go through a buffer at once.
const REMOTE_CHUNK: u64 = 256 << 10;

impl Engine {
    /// Moves the next chunk. An error says which side's memory did not answer:
    /// true for the side that is read.
    pub(super) fn transfer(
        &mut self,
        q: usize,
        cur: &mut Current,
        bytes: &mut u64,
    ) -> Result<Step, bool> {
        loop {
            match std::mem::replace(&mut cur.stage, Stage::Fresh) {
                Stage::New | Stage::Fresh | Stage::Delivered(_) => {}
                Stage::Gathered(buffer) => match self.scatter(q, cur, &buffer)? {
                    Step::Done => {}
                    step => return Ok(step),
                },
                Stage::Scattered { len, last } => {
                    cur.offset += len;
                    self.store_last(cur.offset, last);
                }
                Stage::Failed { reading } => return Err(reading),
            }
            if cur.offset >= cur.total {
                return Ok(Step::Done);
            }
            if *bytes == 0 {
                return Ok(Step::More);
            }
            let want = (cur.total - cur.offset).min(*bytes);
            // SAFETY: both lists were resolved in this turn, and regions are
            // only dropped between turns.
            let moved = unsafe { copy_pieces(&self.from, &self.to, cur.offset, want, cur.total) };
            cur.offset += moved;
            *bytes -= moved;
            if moved < want {
                return self.through_buffer(q, cur);
            }
        }
    }

    /// Begins a chunk that a helper must read or write.
    fn through_buffer(&mut self, q: usize, cur: &mut Current) -> Result<Step, bool> {
        let len = (cur.total - cur.offset).min(REMOTE_CHUNK);
        let mut buffer = vec![0; len as usize];
        match load_parts(&self.from, cur.offset, &mut buffer) {
            None => match self.scatter(q, cur, &buffer)? {
                Step::Done => Ok(Step::More),
                step => Ok(step),
            },
            Some((session, parts)) => {
                self.submit(q, session, JobKind::Read { parts, buffer }, true)
            }
        }
    }

    /// Writes the bytes at the request's offset to where they belong, the last
    /// byte of the message after all others.
    pub(super) fn scatter(
        &mut self,
        q: usize,
        cur: &mut Current,
        buffer: &[u8],
    ) -> Result<Step, bool> {
        match std::mem::replace(&mut cur.stage, Stage::Fresh) {
            // The result of an atomic, which a helper has written.
            Stage::Scattered { len, last } => {
                cur.offset += len;
                self.store_last(cur.offset, last);
                return Ok(Step::Done);
            }
            Stage::Failed { reading } => return Err(reading),
            _ => {}
        }
        // The result of an atomic is known without.
        if self.taps.is_some() && cur.fetched.is_none() {
            self.note_bytes(q, cur.offset, buffer);
        }
        let len = buffer.len() as u64;
        let ends = cur.offset + len == cur.total;
        let (remote, last) = store_parts(&self.to, cur.offset, buffer, ends);
        let Some((session, parts)) = remote else {
            cur.offset += len;
            self.store_last(cur.offset, last);
            return Ok(Step::Done);
        };
        let kind = JobKind::Write {
            parts,
            buffer: buffer.to_vec(),
            last,
        };
        self.submit(q, session, kind, false)
    }

    /// Stores the byte before `end` of the scatter list.
    pub(super) fn store_last(&self, end: u64, last: Option<u8>) {
        let (Some(last), Some(at)) = (last, end.checked_sub(1)) else {
            return;
        };
        for_each_part(&self.to, at, 1, |piece, _| {
            if let Target::Mapped(ptr) = piece.target {
                // SAFETY: as in `transfer`.
                unsafe { store_last_byte(ptr, last) };
            }
        });
    }

    /// Hands a job to the helper of `session` and lets `q` wait for it.
    pub(super) fn submit(
        &mut self,
        q: usize,
        session: usize,
        kind: JobKind,
        reading: bool,
    ) -> Result<Step, bool> {
        let id = self.send_job(q, session, kind).ok_or(reading)?;
        let qp = self.qps.get_mut(q).ok_or(reading)?;
        qp.waiting = Waiting::Job { id, reading };
        Ok(Step::Wait)
    }
}

impl Engine {
    /// Hands a job to the helper of `session`. None: it takes none.
    pub(super) fn send_job(&mut self, q: usize, session: usize, kind: JobKind) -> Option<JobId> {
        let deadline = self.clock.now().saturating_add(DEADLINE);
        let id = self.timers.add(deadline, q, Some(session));
        let state = self.sessions.get_mut(session)?;
        let answers = &self.port;
        let work = Work { kind, answers };
        state.helper.submit(id, q, session, work).then_some(id)
    }

    /// Copies what `from` lists from `offset` on. False: a part of it lies in a
    /// process only, or is not there.
    pub(super) fn load_mapped(&self, offset: u64, out: &mut [u8]) -> bool {
        load_pieces(&self.from, offset, out)
    }

    /// Copies what `from`, or `to` if `of_to`, list from `offset` on; what lies in a
    /// process only is asked of `other`. Returns how many bytes there are up to the
    /// first that is missing.
    pub(super) fn load_front(
        &self,
        of_to: bool,
        offset: u64,
        out: &mut [u8],
        other: impl Fn(u64, &mut [u8]) -> bool,
    ) -> usize {
        let pieces = if of_to { &self.to } else { &self.from };
        let mut loaded = 0;
        for_each_part(pieces, offset, out.len() as u64, |piece, at| {
            let Some(out) = out.get_mut(at..at + piece.len as usize) else {
                return;
            };
            let there = match piece.target {
                Target::Mapped(ptr) => {
                    // SAFETY: as in `transfer`.
                    unsafe { load_bytes(ptr, out) };
                    true
                }
                Target::Remote { .. } => other(offset + at as u64, out),
            };
            if there && loaded == at {
                loaded += out.len();
            }
        });
        loaded
    }

    /// Stores bytes at `offset` of what `to` lists, the last one after all
    /// others. False: nothing was stored, a part of it lies in a process only.
    pub(super) fn store_mapped(&self, offset: u64, bytes: &[u8]) -> bool {
        let is_mapped = |piece: &Piece| matches!(piece.target, Target::Mapped(_));
        if !self.to.iter().all(is_mapped) {
            return false;
        }
        for_each_part(&self.to, offset, bytes.len() as u64, |piece, at| {
            let part = bytes.get(at..at + piece.len as usize);
            if let (Target::Mapped(ptr), Some((end, body))) =
                (piece.target, part.and_then(<[u8]>::split_last))
            {
                // SAFETY: as in `transfer`; the last byte is inside the piece.
                unsafe {
                    store_bytes(ptr, body);
                    store_last_byte(ptr.add(body.len()), *end);
                }
            }
        });
        true
    }

    /// The same where a part lies in a process: a helper writes that part, and
    /// the last byte is stored after it, by [`store_last`](Self::store_last), if
    /// it is mapped. Some(None): there was none.
    pub(super) fn store_remote(
        &mut self,
        q: usize,
        offset: u64,
        bytes: &[u8],
    ) -> Option<Option<JobId>> {
        let (remote, last) = store_parts(&self.to, offset, bytes, true);
        let Some((session, parts)) = remote else {
            self.store_last(offset + bytes.len() as u64, last);
            return Some(None);
        };
        let kind = JobKind::Write {
            parts,
            buffer: bytes.to_vec(),
            last,
        };
        self.send_job(q, session, kind).map(Some)
    }

    /// Has a helper read `len` bytes of what `from` lists from `offset` on.
    pub(super) fn fetch_remote(&mut self, q: usize, offset: u64, len: u64) -> Option<JobId> {
        let mut buffer = vec![0; len as usize];
        let (session, parts) = load_parts(&self.from, offset, &mut buffer)?;
        self.send_job(q, session, JobKind::Read { parts, buffer })
    }
}

/// What became of an atomic.
pub(super) enum Performed {
    /// It was carried out, and found this.
    Found(u64),
    /// A helper has to.
    Elsewhere { session: u32, addr: u64 },
}

/// Carries out an atomic on what `pieces`, a list of the engine of this turn,
/// hold. None: they are not 8 aligned bytes.
pub(super) fn perform(pieces: &[Piece], op: AtomicOp) -> Option<Performed> {
    let piece = pieces.first()?;
    match (piece.target, piece.len) {
        (Target::Mapped(ptr), 8) if ptr.as_ptr().cast::<u64>().is_aligned() => {
            // SAFETY: aligned, and 8 bytes long; else as in `transfer`.
            Some(Performed::Found(unsafe { atomic_u64(ptr, op) }))
        }
        (Target::Remote { session, addr }, 8) => Some(Performed::Elsewhere { session, addr }),
        _ => None,
    }
}

/// Copies what `pieces`, a list of the engine of this turn, hold from `offset` on.
fn load_pieces(pieces: &[Piece], offset: u64, out: &mut [u8]) -> bool {
    let mut loaded = 0;
    for_each_part(pieces, offset, out.len() as u64, |piece, at| {
        if let (Target::Mapped(ptr), Some(out)) =
            (piece.target, out.get_mut(at..at + piece.len as usize))
        {
            // SAFETY: as in `transfer`.
            unsafe { load_bytes(ptr, out) };
            loaded += out.len();
        }
    });
    loaded == out.len()
}

/// Calls `f` with the pieces of `[offset, offset + len)` of a message, each
/// with its place in a buffer of `len` bytes.
fn for_each_part(pieces: &[Piece], offset: u64, len: u64, mut f: impl FnMut(Piece, usize)) {
    let (mut skip, mut at) = (offset, 0u64);
    for piece in pieces {
        if at == len {
            break;
        }
        if skip >= piece.len {
            skip -= piece.len;
            continue;
        }
        let take = (piece.len - skip).min(len - at);
        let target = match piece.target {
            // SAFETY: skip is inside the piece.
            Target::Mapped(ptr) => Target::Mapped(unsafe { ptr.add(skip as usize) }),
            Target::Remote { session, addr } => Target::Remote {
                session,
                addr: addr + skip,
            },
        };
        f(Piece { target, len: take }, at as usize);
        at += take;
        skip = 0;
    }
}

/// What of a list lies in a process: whose helper reaches it, and which parts.
type Remote = (usize, Vec<Part>);

fn add_part(remote: &mut Option<Remote>, session: u32, part: Part) {
    let (_, parts) = remote.get_or_insert_with(|| (session as usize, Vec::new()));
    parts.push(part);
}

/// Loads what is mapped of `pieces` from `offset` on, and lists the rest.
fn load_parts(pieces: &[Piece], offset: u64, out: &mut [u8]) -> Option<Remote> {
    let mut remote = None;
    for_each_part(pieces, offset, out.len() as u64, |piece, at| {
        let len = piece.len as usize;
        match (piece.target, out.get_mut(at..at + len)) {
            // SAFETY: as in `transfer`.
            (Target::Mapped(ptr), Some(out)) => unsafe { load_bytes(ptr, out) },
            (Target::Remote { session, addr }, _) => {
                add_part(&mut remote, session, Part { addr, at, len });
            }
            (Target::Mapped(_), None) => {}
        }
    });
    remote
}

/// Stores bytes in what is mapped of `pieces` from `offset` on, and lists the
/// rest. With `but_last` the last byte is left out and returned, if its place
/// is mapped.
fn store_parts(
    pieces: &[Piece],
    offset: u64,
    bytes: &[u8],
    but_last: bool,
) -> (Option<Remote>, Option<u8>) {
    let (mut remote, mut last) = (None, None);
    for_each_part(pieces, offset, bytes.len() as u64, |piece, at| {
        let len = piece.len as usize;
        let Some(mut part) = bytes.get(at..at + len) else {
            return;
        };
        match piece.target {
            Target::Mapped(ptr) => {
                if let (true, Some((end, body))) =
                    (but_last && at + len == bytes.len(), part.split_last())
                {
                    (part, last) = (body, Some(*end));
                }
                // SAFETY: as in `transfer`.
                unsafe { store_bytes(ptr, part) };
            }
            Target::Remote { session, addr } => {
                add_part(&mut remote, session, Part { addr, at, len });
            }
        }
    });
    (remote, last)
}

impl Engine {
    /// Has a helper read the part of a datagram that lies in the process.
    pub(super) fn gather_remote(&mut self, q: usize, cur: &Current) -> Result<Step, bool> {
        let mut buffer = vec![0; cur.total as usize];
        let (session, parts) = load_parts(&self.from, 0, &mut buffer).ok_or(true)?;
        self.submit(q, session, JobKind::Read { parts, buffer }, true)
    }

    /// Writes a datagram to a receive that lies in the process in part; its
    /// completion follows the helper's answer.
    pub(super) fn deliver_remote(
        &mut self,
        p: usize,
        session: usize,
        buffer: Vec<u8>,
        deferred: Deferred,
    ) {
        let (remote, _) = store_parts(&self.to, 0, &buffer, false);
        let parts = remote.map_or_else(Vec::new, |(_, parts)| parts);
        let kind = JobKind::Deliver {
            parts,
            buffer,
            deferred,
        };
        if self.send_job(p, session, kind).is_some()
            && let Some(peer) = self.qps.get_mut(p)
        {
            peer.deliveries += 1;
        }
        // Else the receive stays taken and is flushed when the queue pair ends.
    }

    /// Copies header and payload of a datagram to mapped pieces, in order.
    pub(super) fn copy_datagram(&mut self, payload: u64) {
        let total = payload + self.grh.0.len() as u64;
        let header = Piece {
            target: Target::Mapped(std::ptr::NonNull::from(&mut self.grh.0[0])),
            len: self.grh.0.len() as u64,
        };
        self.from.insert(0, header);
        // SAFETY: the header is ours, the rest as in `transfer`.
        unsafe { copy_pieces(&self.from, &self.to, 0, total, total) };
        self.from.remove(0);
    }

    /// Appends the mapped bytes of `from` to a buffer.
    pub(super) fn append_from(&self, payload: u64, buffer: &mut Vec<u8>) {
        let at = buffer.len();
        buffer.resize(at + payload as usize, 0);
        if let Some(out) = buffer.get_mut(at..) {
            load_pieces(&self.from, 0, out);
        }
    }
}
