//! Packets for tests.

use std::net::IpAddr;

use masq_wire::{Bth, Extended, Headers, Opcode, Psn, Qpn, TrafficClass, build, pad_count};

use crate::{Incoming, Path, Port};

pub(crate) const SHORTEST: usize = 16;

pub(crate) fn headers(qpn: u32, psn: u32) -> Headers {
    Headers {
        bth: Bth::new(Opcode::RcSendMiddle, Qpn::new(qpn), Psn::new(psn)),
        extended: Extended::Plain,
    }
}

pub(crate) fn path(to: IpAddr) -> Path {
    Path {
        to,
        traffic_class: TrafficClass(0),
        hop_limit: 64,
    }
}

/// What packet number `psn` with this much payload carries.
pub(crate) fn payload(psn: u32, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (psn as usize * 7 + i * 31) as u8)
        .collect()
}

/// Places and commits a packet; false if the batch is full.
pub(crate) fn put(port: &mut dyn Port, path: &Path, qpn: u32, psn: u32, len: usize) -> bool {
    let Some(place) = port.place(path, len + pad_count(len) + SHORTEST) else {
        return false;
    };
    let written = build(
        &headers(qpn, psn),
        &[&payload(psn, len)],
        &place.flow,
        place.ip_id,
        place.buffer,
    );
    assert_eq!(written.unwrap(), place.buffer.len());
    port.commit();
    true
}

/// The packets of a batch: PSN and payload.
pub(crate) fn taken(port: &mut dyn Port) -> Vec<(u32, Vec<u8>)> {
    let count = port.receive();
    (0..count)
        .filter_map(|index| port.packet(index))
        .map(|Incoming { packet, .. }| (packet.bth().psn().get(), packet.payload().to_vec()))
        .collect()
}
