//! What captures see: packets of peers on other hosts as they leave and arrive
//! ([`wire`]), messages of peers on this host as the packets that they would
//! have been ([`local`]).
//!
//! # Invariants
//! 1. Without a capture the data path pays one branch where a packet or a
//!    message passes.
//! 2. Packets go through a ring of places that were allocated when the capture
//!    began. If none is free, the packet is lost and counted; the data path
//!    never waits for a reader, who is another thread.
//! 3. A capture sees what its endpoint sends, and what reaches it. What another
//!    host or tenant merely claims to send to it is dropped before.

mod datagram;
mod local;
mod ring;
mod wire;

pub(crate) use datagram::Seen;
pub(crate) use local::Noted;
pub(crate) use ring::{Kept, Shape, Tap};
pub(crate) use wire::Watch;

use super::Engine;
use masq_device::{CaptureView, EndpointKey};
use masq_port::Path;
use masq_spec::verbs::Gid;
use masq_wire::{Addresses, Flow, ROCE_PORT};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// The captures of an engine; replaced as a whole when one begins or ends.
#[derive(Default)]
pub(crate) struct Taps(Vec<Arc<Tap>>);

/// A packet on its way, as far as it is not in its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trip {
    /// Whose packet it is: its sender, its receiver, if they are here.
    pub(super) ends: [Option<EndpointKey>; 2],
    /// By virtual addresses.
    pub(super) renamed: Addresses,
    /// On the wire, with the IPv4 identification if that is known.
    pub(super) wire: Option<(Flow, Option<u16>)>,
    /// Traffic class and hop limit; its address does not count.
    pub(super) path: Path,
}

impl Taps {
    fn watches(&self, endpoint: EndpointKey) -> bool {
        self.0.iter().any(|tap| tap.endpoint == endpoint)
    }

    /// Shows a packet of `len` bytes, from the BTH to the ICRC, to whom it concerns.
    /// `copy` fills the front of it.
    fn show(&self, time: u64, trip: &Trip, len: usize, copy: impl Fn(&mut [u8]) -> usize) {
        for tap in &self.0 {
            if !trip.ends.contains(&Some(tap.endpoint)) {
                continue;
            }
            let (flow, ip_id, renamed) = match (tap.view, trip.wire) {
                (CaptureView::Wire, None) => continue,
                (CaptureView::Wire, Some((flow, id))) => (flow, id, false),
                (CaptureView::Virtual, wire) => {
                    let src_port = wire.map_or(ROCE_PORT, |(flow, _)| flow.src_port);
                    let addresses = trip.renamed;
                    let flow = Flow {
                        addresses,
                        src_port,
                    };
                    (flow, Some(0), true)
                }
            };
            let shape = Shape {
                time,
                flow,
                ip_id,
                renamed,
                class: trip.path.traffic_class,
                hop_limit: trip.path.hop_limit,
                length: len,
            };
            tap.keep(shape, &copy);
        }
    }
}

impl Engine {
    /// Begins a capture.
    pub(crate) fn tap(&mut self, tap: Arc<Tap>) {
        let old = self.taps.iter().flat_map(|taps| &taps.0);
        let all = old.cloned().chain([tap]).collect();
        self.taps = Some(Arc::new(Taps(all)));
    }

    /// Ends a capture.
    pub(crate) fn untap(&mut self, tap: &Arc<Tap>) {
        let old = self.taps.iter().flat_map(|taps| &taps.0);
        let left: Vec<_> = old.filter(|old| !Arc::ptr_eq(old, tap)).cloned().collect();
        self.taps = (!left.is_empty()).then(|| Arc::new(Taps(left)));
    }

    /// The captures, if one of them is of this endpoint.
    #[inline]
    fn taps_of(&self, endpoint: EndpointKey) -> Option<Arc<Taps>> {
        let taps = self.taps.as_ref()?;
        taps.watches(endpoint).then(|| Arc::clone(taps))
    }

    /// The virtual address of a queue pair's endpoint.
    fn virtual_address(&self, q: usize) -> Option<IpAddr> {
        let qp = self.qps.get(q)?;
        let session = self.sessions.get(qp.session)?;
        Some(address(session.gid))
    }
}

/// The address that a GID stands for.
fn address(gid: Gid) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(gid)).to_canonical()
}

/// The same, if the GID stands for any.
fn known(gid: Gid) -> Option<IpAddr> {
    (gid != Gid::default()).then(|| address(gid))
}

/// Two addresses of whatever families.
fn pair(src: IpAddr, dst: IpAddr) -> Addresses {
    let wide = |address| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    Addresses::new(src, dst).unwrap_or(Addresses::V6 {
        src: wide(src),
        dst: wide(dst),
    })
}

fn reversed(addresses: Addresses) -> Addresses {
    pair(addresses.dst(), addresses.src())
}
