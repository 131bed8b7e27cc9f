//! Bytes of packets that lie in a process only: a helper reads them in chunks,
//! and the packet that wants them waits.

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
    pub(super) fn done(&mut self, id: JobId, bytes: &mut Option<Vec<u8>>) -> bool {
        let Some((_, source)) = self.reading.filter(|(job, _)| *job == id) else {
            return false;
        };
        self.reading = None;
        self.chunk = Some((source, bytes.take().unwrap_or_default()));
        true
    }
}
