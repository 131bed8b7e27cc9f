//! What a device shows of an endpoint's traffic.

use crate::{DomainKey, EndpointKey};

/// The least that may be kept of a packet: all headers, over IPv6.
pub const MIN_SNAP: u32 = 96;
/// The most: more than any packet has.
pub const MAX_SNAP: u32 = 65_535;

/// By which addresses packets are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureView {
    /// As the endpoint sees them: its own and its peers' virtual addresses, peers
    /// on the same host included, whose messages are shown as the packets that they
    /// would have been.
    Virtual,
    /// As the network between hosts sees them, byte for byte, and nothing else.
    Wire,
}

/// What is to be captured.
#[derive(Clone, Copy, Debug)]
pub struct CaptureSpec {
    /// The endpoint's tenant.
    pub domain: DomainKey,
    /// The endpoint.
    pub endpoint: EndpointKey,
    /// Bytes of a packet that are kept, from the IP header on; within [`MIN_SNAP`] and
    /// [`MAX_SNAP`].
    pub snap: u32,
    /// By which addresses.
    pub view: CaptureView,
}

/// A packet that was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedPacket {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Bytes of the whole packet, from the IP header on.
    pub length: u32,
}

/// A capture; it ends when dropped, by a call to the data path.
///
/// Whoever reads too slowly loses packets; the data path does not wait.
pub trait Capture: Send {
    /// Appends what was kept of the next packet to `out`, from the IP header on.
    /// None: there is none now.
    fn next(&mut self, out: &mut Vec<u8>) -> Option<CapturedPacket>;
    /// Packets that were lost so far.
    fn lost(&self) -> u64;
}
