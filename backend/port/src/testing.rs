//! Packets and hosts for tests.

pub(crate) mod hosts;

use std::net::IpAddr;

use masq_wire::{Bth, Extended, Headers, Opcode, Psn, Qpn, TrafficClass, build, pad_count};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

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

/// Receives until `count` packets came or none comes any more.
pub(crate) fn gather(port: &mut dyn Port, count: usize) -> Vec<(u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut patience = 300;
    while all.len() < count && patience > 0 {
        let some = taken(port);
        if some.is_empty() {
            patience -= 1;
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        all.extend(some);
    }
    all
}

/// Whether something waits.
pub(crate) fn readable(port: &dyn Port) -> bool {
    let descriptors = port.descriptors();
    let mut polled: Vec<_> = descriptors
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut polled, Some(&now)).unwrap() > 0
}
