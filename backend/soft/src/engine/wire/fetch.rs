//! Bytes of packets that lie in a process only: a helper reads them in chunks,
//! and the packet that wants them waits.

use super::Link;
use crate::engine::Engine;
use crate::engine::remote::JobId;
use masq_connected::Transmit;

/// Bytes that are read at once.
pub(super) const CHUNK: u64 = 64 << 10;

/// Whose bytes, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Of a request, by its name, from this offset on.
    Request { id: u64, offset: u64 },
    /// Of memory under a key, from this address on.
    Memory { key: u32, addr: u64 },
}

/// What packets of one direction wait for.
#[derive(Default)]
pub(super) struct Fetch {
    /// A packet that could not be written yet.
    pub(super) waiting: Option<Transmit>,
    /// The job that reads, and what.
    pub(super) reading: Option<(JobId, Source)>,
    /// What was read; empty if it could not be.
    pub(super) chunk: Option<(Source, Vec<u8>)>,
}

impl Fetch {
    /// Copies bytes from the chunk, if it has them. Some(false): they could not
    /// be read.
    pub(super) fn take(&self, source: Source, out: &mut [u8]) -> Option<bool> {
        let (of, bytes) = self.chunk.as_ref()?;
        let at = match (*of, source) {
            (
                Source::Request { id, offset },
                Source::Request {
                    id: wanted,
                    offset: at,
                },
            ) if id == wanted => at.checked_sub(offset)?,
            (
                Source::Memory { key, addr },
                Source::Memory {
                    key: wanted,
                    addr: at,
                },
            ) if key == wanted => at.checked_sub(addr)?,
            _ => return None,
        };
        if bytes.is_empty() && at == 0 {
            return Some(false);
        }
        let at = usize::try_from(at).ok()?;
        let found = bytes.get(at..at.checked_add(out.len())?)?;
        out.copy_from_slice(found);
        Some(true)
    }

    /// A job that it waits for is done.
    fn done(&mut self, id: JobId, bytes: &mut Option<Vec<u8>>) -> bool {
        let Some((_, source)) = self.reading.filter(|(job, _)| *job == id) else {
            return false;
        };
        self.reading = None;
        self.chunk = Some((source, bytes.take().unwrap_or_default()));
        true
    }
}

impl Engine {
    /// A helper answered a job of a link's queue pair. False: it is none of its.
    pub(in crate::engine) fn link_job_done(
        &mut self,
        q: usize,
        id: JobId,
        mut bytes: Option<Vec<u8>>,
    ) -> bool {
        let Some(qp) = self.qps.get_mut(q) else {
            return false;
        };
        let Some(link) = qp.link.as_deref_mut().filter(|link| link.born < id) else {
            return false;
        };
        let failed = bytes.is_none();
        if link.requests.done(id, &mut bytes) || link.answers.done(id, &mut bytes) {
            self.enqueue(q);
        } else if link.atomic == Some(id) {
            link.atomic = None;
            let value = bytes
                .as_deref()
                .and_then(|b| b.try_into().ok())
                .map(u64::from_ne_bytes);
            self.atomic_found(q, value);
        } else if failed {
            let fault = masq_transport::ResponderFault::Memory;
            self.responder_fault(q, None, fault);
        }
        self.enqueue(q);
        true
    }

    fn atomic_found(&mut self, q: usize, value: Option<u64>) {
        let Some(mut link) = self.qps.get_mut(q).and_then(|qp| qp.link.take()) else {
            return;
        };
        let outcome = value.ok_or(masq_transport::ResponderFault::Memory);
        if let Some(arrival) = link.responder.atomic_done(outcome) {
            self.concluded(q, &mut link, &arrival);
        }
        self.put_back(q, link);
    }

    /// Puts a link back that was worked on.
    pub(super) fn put_back(&mut self, q: usize, mut link: Box<Link>) {
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        if qp.state == masq_spec::verbs::State::Err && !link.ended {
            link.end();
        }
        qp.link = Some(link);
    }
}
