//! What goes in and out by packet.

use masq_wire::{Headers, RKey};

/// A packet to send: its headers, and where its payload lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Headers.
    pub headers: Headers,
    /// Payload, to be gathered by the caller.
    pub payload: Payload,
}

/// Where the payload of a packet lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// It has none.
    None,
    /// In the requester's own pieces.
    Request {
        /// [`Request::id`](crate::Request::id).
        id: u64,
        /// Bytes from the start of the message.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// In the responder's memory, under a key that was checked when the READ
    /// came and is to be checked again now: it may have been revoked. If it
    /// was, or if the memory does not answer, the packet is not sent and
    /// [`Responder::gather_failed`](crate::Responder::gather_failed) called.
    Memory {
        /// Key.
        key: RKey,
        /// Address.
        addr: u64,
        /// Bytes.
        len: u32,
    },
}

impl Payload {
    /// Bytes.
    pub const fn len(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Request { len, .. } | Self::Memory { len, .. } => *len,
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What became of a packet that arrived; for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was used.
    Taken,
    /// It is older than what was expected: a repetition or a ghost.
    Duplicate,
    /// A packet before it is missing.
    OutOfOrder,
    /// It waits for a receive, or the requester must.
    NotReady,
    /// It makes no sense on this connection: forged, or a peer's mistake that
    /// deserves no answer.
    Dropped,
    /// A fault; see [`Arrival::failure`](crate::Arrival::failure).
    Faulty,
}
