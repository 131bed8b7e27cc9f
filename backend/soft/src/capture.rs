//! The reading side of a capture: from what the data path kept to IP packets.

use crate::engine::Engine;
use crate::engine::{Kept, Shape, Tap};
use masq_datapath::{DataPath, monotonic};
use masq_device::{Capture, CaptureSpec, CapturedPacket, Result};
use masq_wire::{
    Addresses, BthBytes, ICRC_LEN, Icrc, IcrcCheck, Ipv4, Ipv4Bytes, Ipv6, Ipv6Bytes, Packet,
    ROCE_PORT, UDP_LEN, Udp,
};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// A capture of the soft device.
pub(crate) struct SoftCapture {
    path: Arc<DataPath<Engine>>,
    tap: Arc<Tap>,
    snap: usize,
    /// From the engine's clock to 1970.
    epoch: u64,
}

impl SoftCapture {
    pub(crate) fn begin(path: &Arc<DataPath<Engine>>, spec: &CaptureSpec) -> Result<Self> {
        let snap = spec
            .snap
            .clamp(masq_device::MIN_SNAP, masq_device::MAX_SNAP) as usize;
        // An IPv6 header leaves less room; then the end is cut off later.
        let keep = snap - Ipv4::LEN - UDP_LEN;
        let tap = Arc::new(Tap::new(spec.endpoint, spec.view, keep));
        let begun = Arc::clone(&tap);
        path.call(move |engine| engine.tap(begun))?;
        Ok(Self {
            path: Arc::clone(path),
            tap,
            snap,
            epoch: realtime().saturating_sub(monotonic()),
        })
    }
}

impl Capture for SoftCapture {
    fn next(&mut self, out: &mut Vec<u8>) -> Option<CapturedPacket> {
        loop {
            let kept = self.tap.take()?;
            let start = out.len();
            let packet = assemble(&kept, out).map(|length| CapturedPacket {
                time: kept.shape.map_or(0, |s| s.time).saturating_add(self.epoch),
                length,
            });
            self.tap.give_back(kept);
            out.truncate(start + self.snap);
            if packet.is_some() {
                return packet;
            }
        }
    }

    fn lost(&self) -> u64 {
        self.tap.lost()
    }
}

impl Drop for SoftCapture {
    fn drop(&mut self) {
        let tap = Arc::clone(&self.tap);
        let _ = self.path.call(move |engine| engine.untap(&tap));
    }
}

fn realtime() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    (time.tv_sec as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec as u64)
}

/// Appends IP and UDP headers and what was kept; returns the length of the whole
/// packet. A packet that was kept whole has its ICRC.
pub(crate) fn assemble(kept: &Kept, out: &mut Vec<u8>) -> Option<u32> {
    let shape = kept.shape.as_ref()?;
    let bytes = kept.bytes();
    let is_whole = bytes.len() == shape.length;
    let packet_len = u16::try_from(shape.length).ok()?;
    let udp_len = packet_len.checked_add(UDP_LEN as u16)?;
    let udp = Udp {
        src_port: shape.flow.src_port,
        dst_port: ROCE_PORT,
    }
    .to_bytes(packet_len);
    let (bth, rest) = BthBytes::ref_from_prefix(bytes).ok()?;
    let (icrc, header_len) = match shape.flow.addresses {
        Addresses::V4 { src, dst } => {
            let ip = Ipv4 {
                class: shape.class,
                id: shape.ip_id.unwrap_or_else(|| identification(shape, bytes)),
                dont_fragment: true,
                ttl: shape.hop_limit,
                src,
                dst,
            };
            let ip: Ipv4Bytes = ip.to_bytes(udp_len);
            out.extend_from_slice(ip.as_bytes());
            (Icrc::of_v4(&ip, &udp, bth), Ipv4::LEN)
        }
        Addresses::V6 { src, dst } => {
            let ip = Ipv6 {
                class: shape.class,
                flow_label: 0,
                hop_limit: shape.hop_limit,
                src,
                dst,
            };
            let ip: Ipv6Bytes = ip.to_bytes(udp_len);
            out.extend_from_slice(ip.as_bytes());
            (Icrc::of_v6(&ip, &udp, bth), Ipv6::LEN)
        }
    };
    out.extend_from_slice(udp.as_bytes());
    match rest.split_last_chunk::<ICRC_LEN>() {
        Some((covered, _)) if is_whole && shape.renamed => {
            let mut icrc = icrc;
            icrc.update(covered);
            out.extend_from_slice(bth.as_bytes());
            out.extend_from_slice(covered);
            out.extend_from_slice(&icrc.finish());
        }
        _ => out.extend_from_slice(bytes),
    }
    u32::try_from(header_len + usize::from(udp_len)).ok()
}

/// The IPv4 identification of a packet that arrived, as its ICRC tells it.
fn identification(shape: &Shape, bytes: &[u8]) -> u16 {
    if bytes.len() != shape.length {
        return 0;
    }
    match Packet::parse(bytes).map(|packet| packet.check_icrc(&shape.flow)) {
        Ok(IcrcCheck::RightWithId(id)) => id,
        _ => 0,
    }
}

/// All packets of a ring.
#[cfg(test)]
pub(crate) fn collect(tap: &Tap) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| {
        let kept = tap.take()?;
        let mut out = Vec::new();
        assemble(&kept, &mut out)?;
        tap.give_back(kept);
        Some(out)
    })
    .collect()
}
