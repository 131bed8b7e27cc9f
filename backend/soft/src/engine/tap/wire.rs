//! Packets of peers on other hosts.

use super::{Taps, Trip, address, known, pair};
use crate::engine::Engine;
use crate::engine::objects::Ah;
use masq_device::EndpointKey;
use masq_port::{Incoming, Path};
use masq_spec::verbs::{AhAttr, Gid};
use masq_wire::{Addresses, Flow};
use std::net::IpAddr;
use std::sync::Arc;

/// Somebody wants to see the packet that is about to leave.
pub(crate) struct Watch {
    taps: Arc<Taps>,
    time: u64,
    endpoint: EndpointKey,
    renamed: Addresses,
}

impl Watch {
    /// The packet is ready.
    pub(in crate::engine) fn sent(&self, flow: Flow, ip_id: u16, path: &Path, packet: &[u8]) {
        let trip = Trip {
            ends: [Some(self.endpoint), None],
            renamed: self.renamed,
            wire: Some((flow, Some(ip_id))),
            path: *path,
        };
        self.taps
            .show(self.time, &trip, packet.len(), |out| copy(packet, out));
    }
}

impl Engine {
    /// Whether somebody watches what queue pair `q` sends to another host.
    #[inline]
    pub(in crate::engine) fn watch(&self, q: usize, ah: Option<&Ah>, to: IpAddr) -> Option<Watch> {
        self.taps.as_ref()?;
        self.watch_closely(q, ah, to)
    }

    #[cold]
    fn watch_closely(&self, q: usize, ah: Option<&Ah>, to: IpAddr) -> Option<Watch> {
        let qp = self.qps.get(q)?;
        let taps = self.taps_of(qp.endpoint)?;
        let attr: &AhAttr = ah.map_or(&qp.attr.ah, |ah| &ah.attr);
        let peer = match to.is_multicast() {
            true => to,
            false => known(attr.dgid).unwrap_or(to),
        };
        Some(Watch {
            taps,
            time: self.clock.now(),
            endpoint: qp.endpoint,
            renamed: pair(self.virtual_address(q)?, peer),
        })
    }

    /// A packet of its peer arrived for queue pair `q`.
    #[cold]
    pub(in crate::engine) fn show_arrival(&self, q: usize, incoming: &Incoming<'_>) {
        let peer = self.qps.get(q).and_then(|qp| known(qp.attr.ah.dgid));
        let from = peer.unwrap_or(incoming.flow.addresses.src());
        self.show_incoming(q, from, incoming);
    }

    /// A datagram arrived for queue pair `p`.
    #[cold]
    pub(in crate::engine) fn show_datagram(&self, p: usize, from: Gid, incoming: &Incoming<'_>) {
        self.show_incoming(p, address(from), incoming);
    }

    /// The same for member number `at` of a group; an endpoint with several members
    /// sees it once.
    #[cold]
    pub(in crate::engine) fn show_member_datagram(
        &self,
        p: usize,
        at: usize,
        from: Gid,
        group: Gid,
        incoming: &Incoming<'_>,
    ) {
        if !self.is_represented(p, group, at) {
            self.show_datagram(p, from, incoming);
        }
    }

    fn show_incoming(&self, q: usize, from: IpAddr, incoming: &Incoming<'_>) {
        let Some(qp) = self.qps.get(q) else { return };
        let (Some(taps), Some(own)) = (self.taps_of(qp.endpoint), self.virtual_address(q)) else {
            return;
        };
        let packet = incoming.packet.as_bytes();
        let group = incoming.flow.addresses.dst();
        let to = match group.is_multicast() {
            true => group,
            false => own,
        };
        let trip = Trip {
            ends: [Some(qp.endpoint), None],
            renamed: pair(from, to),
            wire: Some((incoming.flow, None)),
            path: Path {
                to,
                traffic_class: incoming.traffic_class,
                hop_limit: incoming.hop_limit,
            },
        };
        taps.show(self.clock.now(), &trip, packet.len(), |out| {
            copy(packet, out)
        });
    }
}

fn copy(packet: &[u8], out: &mut [u8]) -> usize {
    let len = packet.len().min(out.len());
    if let (Some(from), Some(to)) = (packet.get(..len), out.get_mut(..len)) {
        to.copy_from_slice(from);
    }
    len
}
