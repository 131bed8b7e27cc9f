//! Peers on other hosts: packets in, packets out.
//!
//! [`Wire`] is what an engine has of the network: its port, who sends the
//! datagrams that arrive, and the way to the control side. A connected queue
//! pair whose peer is elsewhere has a [`Link`], which holds the two halves of
//! `masq-connected`; what these decide happens to the same objects, by the same
//! keys, receives and completions, as between peers of this host.
//!
//! Nothing that arrives is answered at once: a packet changes its queue pair's
//! link and gives the queue pair a turn, in which its answers leave with
//! whatever else it has to send. So ACKs are joined over a batch.
//!
//! While a link or the wire is worked on, it is taken out of its place.

mod arrivals;
mod datagram;
mod drive;
mod emit;
mod fetch;
mod inbox;
mod kept;
mod land;
mod link;
mod pending;
mod report;
mod senders;

pub(super) use datagram::group_address;
pub(super) use drive::describe;
pub(super) use emit::frame;
pub(crate) use inbox::Inbox;
pub(crate) use link::Link;
pub(super) use link::{mtu as mtu_of, path_to};

use super::Engine;
use masq_datapath::Clock;
use masq_device::{MAD_LEN, WireReport};
use masq_port::Port;
use masq_transport::Nanos;
use masq_wire::{Mtu, PKey};
use senders::Senders;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Empty looks at the port until it is looked at less often.
const WARM_LOOKS: u32 = 64;
/// How often it is looked at then, while the thread is awake for other reasons:
/// each look is a system call.
const COLD_LOOK: Nanos = 20_000;

/// The network, as an engine has it.
pub(crate) struct Wire {
    port: Box<dyn Port>,
    senders: Senders,
    inbox: Arc<Inbox>,
    /// Empty looks in a row.
    quiet: u32,
    /// When the port is looked at next.
    look_at: Nanos,
    /// The port was empty a moment ago.
    dry: bool,
    /// PSN of the next management datagram.
    management_psn: u32,
    /// Packets are written and not sent.
    unsent: bool,
    pub(crate) counters: WireCounters,
}

/// Packets that were dropped here, by reason. Those that the port drops are
/// counted there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WireCounters {
    /// No queue pair has this number, or none that is connected over the wire.
    pub(crate) unknown_qp: u64,
    /// It came from another host than the connected one.
    pub(crate) wrong_host: u64,
    /// It bears another partition than the queue pair's.
    pub(crate) wrong_partition: u64,
    /// A datagram with a wrong Q_Key, of a sender that the policy does not let
    /// through, or of an unknown one.
    pub(crate) refused_datagrams: u64,
    /// The tenant's memory took more time than the network.
    pub(crate) no_room: u64,
    /// It made no sense on its connection.
    pub(crate) senseless: u64,
}

impl Wire {
    pub(crate) fn new(port: Box<dyn Port>, inbox: Arc<Inbox>) -> Self {
        Self {
            port,
            senders: Senders::default(),
            inbox,
            quiet: 0,
            look_at: 0,
            dry: false,
            management_psn: 0,
            unsent: false,
            counters: WireCounters::default(),
        }
    }

    /// The largest path MTU, which is the largest datagram too.
    pub(super) fn mtu(&self) -> Mtu {
        self.port.mtu()
    }

    /// Whether it is time to look at the port.
    fn is_due(&self, clock: &Clock) -> bool {
        self.quiet < WARM_LOOKS || clock.now() >= self.look_at
    }

    fn looked(&mut self, found: usize, clock: &Clock) {
        self.quiet = match found {
            0 => self.quiet.saturating_add(1),
            _ => 0,
        };
        if self.quiet >= WARM_LOOKS {
            self.look_at = clock.now().saturating_add(COLD_LOOK);
        }
    }
}

impl Engine {
    /// Gives the engine its way to other hosts, before any session is opened.
    /// Of `threads` engines it is number `number`: it gives out numbers that
    /// tell so, because packets are steered by them.
    pub(crate) fn connect_to(&mut self, wire: Wire, number: u32, threads: u32) {
        self.wire = Some(Box::new(wire));
        self.numbers = super::Numbers { number, threads };
    }

    /// Whether each turn looks at the port, because packets came of late.
    pub(super) fn port_is_warm(&self) -> bool {
        let wire = self.wire.as_ref();
        wire.is_some_and(|wire| wire.quiet < WARM_LOOKS)
    }

    /// The thread was woken, by the port if it is `readable`; if not, the next turn may
    /// spare itself the look.
    pub(super) fn warm_port(&mut self, readable: bool) {
        if let Some(wire) = &mut self.wire {
            wire.quiet = 0;
            wire.dry = !readable;
        }
    }

    /// Duplicates of the descriptors that say that packets wait.
    pub(super) fn port_descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let wire = self.wire.iter();
        wire.flat_map(|wire| wire.port.descriptors())
            .map(|fd| fd.try_clone_to_owned())
            .collect()
    }

    /// Names the hosts that are no masq.
    pub(crate) fn set_strangers(&mut self, hosts: &[IpAddr]) {
        if let Some(wire) = &mut self.wire {
            wire.port.set_strangers(hosts);
        }
    }

    /// What happened on the wire.
    pub(crate) fn wire_report(&self) -> Option<WireReport> {
        let wire = self.wire.as_ref()?;
        Some(report::report(&wire.counters, &wire.port.counters()))
    }

    /// Takes what the port has received.
    pub(super) fn take_packets(&mut self) -> bool {
        let clock = &self.clock;
        if self.wire.as_ref().is_none_or(|wire| !wire.is_due(clock)) {
            return false;
        }
        let Some(mut wire) = self.wire.take_if(|wire| !std::mem::take(&mut wire.dry)) else {
            return false;
        };
        let found = wire.port.receive();
        for index in 0..found {
            // The packet borrows the port, so the rest is given by parts.
            let Wire {
                port,
                senders,
                inbox,
                counters,
                ..
            } = &mut *wire;
            if let Some(incoming) = port.packet(index) {
                let mut desk = arrivals::Desk {
                    senders,
                    inbox,
                    counters,
                };
                self.arrived(&mut desk, &incoming);
            }
        }
        wire.looked(found, &self.clock);
        self.wire = Some(wire);
        found > 0
    }

    /// Sends what the turn has gathered.
    #[inline]
    pub(super) fn flush_port(&mut self) {
        if let Some(wire) = &mut self.wire {
            wire.flush();
        }
    }

    /// Sends a management datagram; false: there was no room.
    pub(crate) fn send_management(
        &mut self,
        to: IpAddr,
        partition: PKey,
        mad: &[u8; MAD_LEN],
    ) -> bool {
        let Some(wire) = &mut self.wire else {
            return false;
        };
        let sent = wire.send_management(to, partition, mad);
        wire.flush();
        sent
    }
}
