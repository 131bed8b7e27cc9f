//! Ports joined in memory: a network for tests, with seeded faults.
//!
//! Packets travel when they are flushed. Each port checks the ICRC under the
//! identification that it gave out, so that a sender which forgets it is found.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use masq_wire::{Addresses, Flow, IcrcCheck, Mtu, Packet, ROCE_PORT, TrafficClass};
use rustix::event::{EventfdFlags, eventfd};

use crate::{Counters, Incoming, MAX_PACKET, MIN_PACKET, Path, Place, Port};

/// Packets of a batch, both ways.
const BATCH: usize = 64;
/// Identifications go round below this, as those of a train would.
const TRAIN: u16 = 16;

/// What the network does to packets, each with a chance of n in 1000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The packet is lost.
    pub lose: u32,
    /// It arrives twice.
    pub duplicate: u32,
    /// It arrives before some that were sent earlier.
    pub reorder: u32,
    /// A bit of it is turned, which the ICRC finds.
    pub corrupt: u32,
    /// It is marked as having met congestion, if its sender reacts to marks.
    pub mark: u32,
}

struct Held {
    flow: Flow,
    traffic_class: TrafficClass,
    hop_limit: u8,
    ip_id: u16,
    bytes: Vec<u8>,
}

struct Host {
    address: IpAddr,
    groups: Vec<IpAddr>,
    queue: VecDeque<Held>,
    ready: Arc<OwnedFd>,
}

struct Wires {
    faults: Faults,
    random: u64,
    hosts: Vec<Host>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
}

/// A network of hosts in memory.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Wires>>);

/// A host's port.
pub struct MemoryPort {
    network: Network,
    index: usize,
    host: IpAddr,
    ready: Arc<OwnedFd>,
    mtu: Mtu,
    batch: VecDeque<Held>,
    placed: Option<Held>,
    received: Vec<Held>,
    counters: Counters,
}

/// Two hosts, 10.0.0.1 and 10.0.0.2, with an MTU of 4096.
///
/// # Errors
///
/// No descriptor is left.
pub fn pair(faults: Faults, seed: u64) -> io::Result<(MemoryPort, MemoryPort)> {
    let network = Network::new(faults, seed);
    let port = |last| network.port(IpAddr::from([10, 0, 0, last]), Mtu::B4096);
    Ok((port(1)?, port(2)?))
}

impl Network {
    /// A network without hosts.
    pub fn new(faults: Faults, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Wires {
            faults,
            random: seed,
            hosts: Vec::new(),
            spare: Vec::new(),
        })))
    }

    /// Connects a host.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn port(&self, host: IpAddr, mtu: Mtu) -> io::Result<MemoryPort> {
        let ready = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let ready = Arc::new(ready);
        let mut wires = self.lock();
        wires.hosts.push(Host {
            address: host,
            groups: Vec::new(),
            queue: VecDeque::new(),
            ready: Arc::clone(&ready),
        });
        Ok(MemoryPort {
            network: self.clone(),
            index: wires.hosts.len() - 1,
            host,
            ready,
            mtu,
            batch: VecDeque::with_capacity(BATCH),
            placed: None,
            received: Vec::with_capacity(BATCH),
            counters: Counters::default(),
        })
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    fn lock(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wires {
    /// splitmix64: good enough for faults, and the same everywhere.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn happens(&mut self, in_1000: u32) -> bool {
        in_1000 != 0 && self.random() % 1000 < u64::from(in_1000)
    }

    fn copy(&mut self, held: &Held) -> Held {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(&held.bytes);
        Held { bytes, ..*held }
    }

    fn send(&mut self, from: usize, held: Held) {
        let to = held.flow.addresses.dst();
        for index in 0..self.hosts.len() {
            let Some(host) = self.hosts.get(index) else {
                continue;
            };
            let joined = index != from && host.groups.contains(&to);
            if host.address == to || joined {
                let copy = self.copy(&held);
                self.deliver(index, copy);
            }
        }
        self.spare.push(held.bytes);
    }

    fn deliver(&mut self, index: usize, mut held: Held) {
        let faults = self.faults;
        if self.happens(faults.lose) {
            self.spare.push(held.bytes);
            return;
        }
        if self.happens(faults.mark) && held.traffic_class.0 & 3 != 0 {
            held.traffic_class.0 |= 3;
        }
        let twice = self.happens(faults.duplicate).then(|| self.copy(&held));
        if self.happens(faults.corrupt) {
            let bit = self.random() as usize % (held.bytes.len() * 8);
            if let Some(byte) = held.bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
        for held in std::iter::once(held).chain(twice) {
            let early = self.happens(faults.reorder);
            let step = self.random() as usize % 8;
            if let Some(host) = self.hosts.get_mut(index) {
                let len = host.queue.len();
                let at = len - if early { step.min(len) } else { 0 };
                host.queue.insert(at, held);
                // Full means that it is readable already.
                let _ = rustix::io::write(&host.ready, &1u64.to_ne_bytes());
            }
        }
    }
}

impl Port for MemoryPort {
    fn host(&self) -> IpAddr {
        self.host
    }

    fn mtu(&self) -> Mtu {
        self.mtu
    }

    fn place(&mut self, path: &Path, len: usize) -> Option<Place<'_>> {
        let taken_back = self.placed.take();
        let addresses = Addresses::new(self.host, path.to);
        let (Some(addresses), MIN_PACKET..=MAX_PACKET, 0) = (addresses, len, len % 4) else {
            self.counters.send_errors.other += 1;
            return None;
        };
        if self.batch.len() == BATCH {
            return None;
        }
        let mut bytes = match taken_back {
            Some(held) => held.bytes,
            None => self.network.lock().spare.pop().unwrap_or_default(),
        };
        bytes.resize(len, 0xa5);
        let flow = Flow {
            addresses,
            src_port: ROCE_PORT,
        };
        let ip_id = match addresses {
            Addresses::V4 { .. } => self.batch.len() as u16 % TRAIN,
            Addresses::V6 { .. } => 0,
        };
        let held = self.placed.insert(Held {
            flow,
            traffic_class: path.traffic_class,
            hop_limit: path.hop_limit.max(1),
            ip_id,
            bytes,
        });
        Some(Place {
            buffer: &mut held.bytes,
            flow,
            ip_id,
        })
    }

    fn commit(&mut self) {
        self.batch.extend(self.placed.take());
    }

    fn continues(&self, _: &Path) -> bool {
        !self.batch.len().is_multiple_of(usize::from(TRAIN))
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        self.counters.send_calls += 1;
        let mut wires = self.network.lock();
        for held in self.batch.drain(..) {
            self.counters.sent.add(held.bytes.len());
            wires.send(self.index, held);
        }
    }

    fn receive(&mut self) -> usize {
        self.counters.receive_calls += 1;
        let mut wires = self.network.lock();
        wires.spare.extend(self.received.drain(..).map(|h| h.bytes));
        let Some(host) = wires.hosts.get_mut(self.index) else {
            return 0;
        };
        let batch = host.queue.len().min(BATCH);
        for held in host.queue.drain(..batch) {
            let packet = match Packet::parse(&held.bytes) {
                Ok(packet) => packet,
                Err(error) => {
                    self.counters.count_malformed(error);
                    continue;
                }
            };
            let right = match packet.check_icrc(&held.flow) {
                IcrcCheck::Right => held.ip_id == 0,
                IcrcCheck::RightWithId(id) => held.ip_id == id,
                IcrcCheck::Wrong => false,
            };
            if right {
                self.counters.received.add(held.bytes.len());
                self.received.push(held);
            } else {
                self.counters.bad_icrc += 1;
            }
        }
        if host.queue.is_empty() {
            let _ = rustix::io::read(&host.ready, &mut [0; 8]);
        }
        self.received.len()
    }

    fn packet(&self, index: usize) -> Option<Incoming<'_>> {
        let held = self.received.get(index)?;
        Some(Incoming {
            flow: held.flow,
            traffic_class: held.traffic_class,
            hop_limit: held.hop_limit,
            packet: Packet::parse(&held.bytes).ok()?,
        })
    }

    fn join(&mut self, group: IpAddr) -> io::Result<()> {
        if !group.is_multicast() || group.is_ipv4() != self.host.is_ipv4() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if let Some(host) = self.network.lock().hosts.get_mut(self.index) {
            host.groups.push(group);
        }
        Ok(())
    }

    fn leave(&mut self, group: IpAddr) {
        if let Some(host) = self.network.lock().hosts.get_mut(self.index)
            && let Some(at) = host.groups.iter().position(|joined| *joined == group)
        {
            host.groups.swap_remove(at);
        }
    }

    fn set_strangers(&mut self, _: &[IpAddr]) {}

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.ready.as_fd()]
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
