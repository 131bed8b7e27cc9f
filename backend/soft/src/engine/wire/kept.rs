//! A packet that is kept longer than the batch that it arrived in.

use masq_port::Incoming;
use masq_wire::{Flow, Packet, TrafficClass};

/// What UDP carried, and how IP did.
pub(super) struct KeptPacket {
    bytes: Vec<u8>,
    flow: Flow,
    traffic_class: TrafficClass,
    hop_limit: u8,
}

impl KeptPacket {
    /// A copy in `buffer`, whatever that held.
    pub(super) fn of(incoming: &Incoming<'_>, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.extend_from_slice(incoming.packet.as_bytes());
        Self {
            bytes: buffer,
            flow: incoming.flow,
            traffic_class: incoming.traffic_class,
            hop_limit: incoming.hop_limit,
        }
    }

    /// The packet as it arrived. It was parsed before, so there always is one.
    pub(super) fn incoming(&self) -> Option<Incoming<'_>> {
        Some(Incoming {
            flow: self.flow,
            traffic_class: self.traffic_class,
            hop_limit: self.hop_limit,
            packet: Packet::parse(&self.bytes).ok()?,
        })
    }

    /// Its buffer, to be used again.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}
