//! How captured packets travel from masqd to the operator's command: after
//! [`Answer::Capturing`], records on the same connection until either side ends
//! it. The command ends it by shutting down its half; masqd then sends what it
//! has, and closes.

use crate::client::{AdminError, SOCKET_NAME, send};
use crate::{Answer, Request};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Least and most bytes of a packet that a capture keeps.
pub const SNAP: std::ops::RangeInclusive<u32> = 96..=65_535;

/// How much is read at once.
const CHUNK: usize = 256 << 10;

/// By which addresses packets are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureView {
    /// The tenant's.
    #[default]
    Virtual,
    /// The hosts', and only what travels between hosts.
    Wire,
}

/// What comes before a packet's bytes; numbers are little-endian.
///
/// ```text
///  0: bytes that follow (32)  | length of the whole packet (32)
///  8: nanoseconds since 1970 (64)
/// 16: packets lost before it (64)
/// ```
///
/// A record without a packet has a length of 0: it only tells what was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureRecord {
    /// Bytes that follow.
    pub kept: u32,
    /// Bytes of the whole packet, from the IP header on.
    pub length: u32,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Packets that were lost since the capture began.
    pub lost: u64,
}

impl CaptureRecord {
    /// Bytes of a record without its packet.
    pub const LEN: usize = 24;

    /// As it travels.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let (lengths, numbers) = out.split_at_mut(8);
        lengths[..4].copy_from_slice(&self.kept.to_le_bytes());
        lengths[4..].copy_from_slice(&self.length.to_le_bytes());
        numbers[..8].copy_from_slice(&self.time.to_le_bytes());
        numbers[8..].copy_from_slice(&self.lost.to_le_bytes());
        out
    }

    /// From how it travels.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let (lengths, numbers) = bytes.split_at(8);
        let short = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b));
        let long = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        Self {
            kept: short(&lengths[..4]),
            length: short(&lengths[4..]),
            time: long(&numbers[..8]),
            lost: long(&numbers[8..]),
        }
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Capturing {
    reader: BufReader<UnixStream>,
    end: EndCapture,
}

/// Ends a capture from another thread.
#[derive(Clone, Debug)]
pub struct EndCapture {
    socket: Arc<UnixStream>,
    was_asked: Arc<AtomicBool>,
}

impl EndCapture {
    /// Has masqd send what it has, and end.
    pub fn end(&self) {
        self.was_asked.store(true, Ordering::Relaxed);
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// Asks the masqd of `run_dir` for a capture; `request` is [`Request::Capture`].
///
/// # Errors
/// As [`call`](crate::call).
pub fn capture(run_dir: &Path, request: &Request) -> Result<Capturing, AdminError> {
    let path = run_dir.join(SOCKET_NAME);
    let begin = || {
        let socket = Arc::new(send(&path, request)?);
        let mut reader = BufReader::with_capacity(CHUNK, socket.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let was_asked = Arc::default();
        let end = EndCapture { socket, was_asked };
        Ok((Capturing { reader, end }, line))
    };
    let (capturing, line) = begin().map_err(|source| AdminError::Unreachable {
        path: path.clone(),
        source,
    })?;
    match serde_json::from_str(&line)? {
        Answer::Capturing => Ok(capturing),
        Answer::Error(message) => Err(AdminError::Refused(message)),
        _ => Err(AdminError::Refused(
            "masqd answered another question than was asked".to_owned(),
        )),
    }
}

impl Capturing {
    /// What ends it.
    pub fn ender(&self) -> EndCapture {
        self.end.clone()
    }

    /// Whether the next record is here already, so that reading it does not wait.
    pub fn has_more(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    /// Reads a record, and its packet into `packet`. None: it has ended, as was asked.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: nothing came for `patience`. Others: masqd is
    /// gone.
    pub fn next(
        &mut self,
        packet: &mut Vec<u8>,
        patience: Duration,
    ) -> io::Result<Option<CaptureRecord>> {
        self.end.socket.set_read_timeout(Some(patience))?;
        if self.reader.fill_buf()?.is_empty() {
            return match self.end.was_asked.load(Ordering::Relaxed) {
                true => Ok(None),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        // The rest of a record comes with it.
        let rest = Some(Duration::from_secs(10));
        self.end.socket.set_read_timeout(rest)?;
        let mut head = [0; CaptureRecord::LEN];
        self.reader.read_exact(&mut head)?;
        let record = CaptureRecord::from_bytes(&head);
        if record.kept > *SNAP.end() {
            let reason = "masqd sent a packet that is none";
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        packet.resize(record.kept as usize, 0);
        self.reader.read_exact(packet)?;
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_arrives_as_it_was_sent() {
        let record = CaptureRecord {
            kept: 0x0102_0304,
            length: 0x0506_0708,
            time: 0x1112_1314_1516_1718,
            lost: 0x2122_2324_2526_2728,
        };
        let bytes = record.to_bytes();
        assert_eq!(bytes[..5], [4, 3, 2, 1, 8]);
        assert_eq!(CaptureRecord::from_bytes(&bytes), record);
    }
}
