//! What a port counts.

use masq_wire::{ErrorKind, ParseError};

/// Packets and their bytes, each from BTH to ICRC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Traffic {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// Packets that were not sent, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendErrors {
    /// Longer than the interface or the path takes (EMSGSIZE).
    pub too_long: u64,
    /// No route, or the interface or the host is down.
    pub unreachable: u64,
    /// The socket's or the interface's queue is full.
    pub no_room: u64,
    /// A firewall said no (EPERM, EACCES).
    pub refused: u64,
    /// Anything else, the caller's mistakes included.
    pub other: u64,
}

impl SendErrors {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.too_long + self.unreachable + self.no_room + self.refused + self.other
    }
}

/// What happened on a port since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets handed to the network.
    pub sent: Traffic,
    /// Packets that were handed up.
    pub received: Traffic,
    /// System calls that sent something, or tried.
    pub send_calls: u64,
    /// System calls that looked for packets.
    pub receive_calls: u64,
    /// Packets that were not sent.
    pub send_errors: SendErrors,
    /// Dropped: the ICRC is wrong.
    pub bad_icrc: u64,
    /// Dropped: no RoCEv2 packet; each kind at its number.
    pub malformed: [u64; ErrorKind::ALL.len()],
    /// Dropped: for another host, group or port.
    pub not_for_us: u64,
    /// Dropped: longer than the room for it.
    pub truncated: u64,
    /// Dropped by the system, since they were not received fast enough.
    pub overrun: u64,
    /// Arrived on another thread's port than their queue pair's, and were
    /// handed over. Counted by the port that received them.
    pub handed_over: u64,
}

impl Counters {
    pub(crate) fn count_malformed(&mut self, error: ParseError) {
        if let Some(count) = self.malformed.get_mut(error.kind() as usize) {
            *count += 1;
        }
    }

    /// Packets dropped because they are no RoCEv2 packets.
    pub fn malformed_total(&self) -> u64 {
        self.malformed.iter().sum()
    }

    /// Adds up the ports of several threads.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (mine, its) in [
            (&mut self.sent, &other.sent),
            (&mut self.received, &other.received),
        ] {
            mine.packets += its.packets;
            mine.bytes += its.bytes;
        }
        self.send_calls += other.send_calls;
        self.receive_calls += other.receive_calls;
        self.send_errors.too_long += other.send_errors.too_long;
        self.send_errors.unreachable += other.send_errors.unreachable;
        self.send_errors.no_room += other.send_errors.no_room;
        self.send_errors.refused += other.send_errors.refused;
        self.send_errors.other += other.send_errors.other;
        self.bad_icrc += other.bad_icrc;
        for (mine, its) in self.malformed.iter_mut().zip(other.malformed) {
            *mine += its;
        }
        self.not_for_us += other.not_for_us;
        self.truncated += other.truncated;
        self.overrun += other.overrun;
        self.handed_over += other.handed_over;
        self
    }
}
