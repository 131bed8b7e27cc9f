//! What a device that reaches other hosts offers besides sessions: management
//! datagrams (QP1), and who sends the datagrams that arrive.

use crate::{EndpointKey, Result};
use masq_spec::verbs::Gid;
use masq_wire::{Mtu, PKey, Qpn};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// Bytes of a management datagram (IBA 13.4.2).
pub const MAD_LEN: usize = 256;

/// Something for the control side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A management datagram for QP1.
    Management {
        /// Host that sent it.
        from: IpAddr,
        /// Its partition.
        partition: PKey,
        /// Its bytes.
        mad: Box<[u8; MAD_LEN]>,
    },
    /// A datagram came of a queue pair that is not known; a few are held for a
    /// moment until [`Network::learn`] says whose it is.
    UnknownSender {
        /// Where from.
        sender: SenderKey,
    },
}

/// A queue pair of another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SenderKey {
    /// Its host.
    pub host: IpAddr,
    /// Its partition.
    pub partition: PKey,
    /// Its number.
    pub qpn: Qpn,
}

/// Whose datagrams a queue pair of another host sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// GID that receivers see.
    pub gid: Gid,
    /// Endpoints of this host that the policy lets it reach, in order.
    pub reach: Vec<EndpointKey>,
}

/// The way to other hosts. Calls are bounded and never wait for the network.
pub trait Network: Send + Sync {
    /// This host's address there.
    fn host(&self) -> IpAddr;
    /// The largest path MTU that fits.
    fn mtu(&self) -> Mtu;
    /// Sends a management datagram from QP1.
    ///
    /// # Errors
    /// [`DeviceError::Exhausted`](crate::DeviceError::Exhausted): no room now, as if it were lost.
    fn send(&self, to: IpAddr, partition: PKey, mad: &[u8; MAD_LEN]) -> Result<()>;
    /// The next arrival.
    fn receive(&self) -> Option<Arrival>;
    /// Readable while [`receive`](Self::receive) has something.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// Tells whose a queue pair is; None: nobody's, or nobody's any more.
    fn learn(&self, sender: SenderKey, who: Option<Sender>);
    /// Forgets all senders: the policy or the directory has changed.
    fn forget_senders(&self);
}
