//! The way to other masqds of a device whose card belongs to the kernel: management
//! datagrams cannot use the card's own QP1, which is the kernel's, so they travel in
//! UDP datagrams of a port of their own.

use crate::bridge::{Agreed, Bridge};
use crate::iwarp::Connector;
use crate::relay::Relay;
use masq_cm::Mad;
use masq_datapath::DataPath;
use masq_device::{
    Arrival, DeviceError, MAD_LEN, Network, PublishedService, Result, Sender, SenderKey, WireReport,
};
use masq_wire::{Mtu, PKey};
use rustix::event::epoll;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// UDP port of management datagrams between masqds with cards; RoCEv2's own, 4791,
/// is the card's.
pub const MANAGEMENT_PORT: u16 = 4790;
/// What a datagram begins with.
const MAGIC: [u8; 6] = *b"masq\0\x01";
const LEN: usize = MAGIC.len() + 2 + MAD_LEN;
/// Arrivals that wait for the control side.
const MOST_WAITING: usize = 1024;

/// Of those that are not dropped lightly.
const MOST_INSISTED: usize = 32 * MOST_WAITING;
/// Datagrams for nobody that are read in one call.
const MOST_SKIPPED: usize = 64;

/// Questions of the data paths that wait for the control side.
#[derive(Debug)]
pub(crate) struct Waiting {
    arrivals: Mutex<VecDeque<Arrival>>,
    signal: OwnedFd,
}

impl Waiting {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            arrivals: Mutex::default(),
            signal: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Dropped if too many wait already: whoever asks is asked again.
    pub(crate) fn push(&self, arrival: Arrival) {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if arrivals.len() < MOST_WAITING {
            arrivals.push_back(arrival);
            let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
        }
    }

    /// Of what nobody would say again; who asked and was not heard runs into a deadline.
    pub(crate) fn insist(&self, arrival: Arrival) {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if arrivals.len() >= MOST_INSISTED {
            return;
        }
        arrivals.push_back(arrival);
        let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
    }

    fn pop(&self) -> Option<Arrival> {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let arrival = arrivals.pop_front();
        if arrivals.is_empty() {
            let _ = rustix::io::read(&self.signal, &mut [0; 8]);
        }
        arrival
    }
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
    not_sent: AtomicU64,
    malformed: AtomicU64,
}

/// The network of a card.
pub(crate) struct CardNetwork {
    paths: Vec<Arc<DataPath<Relay>>>,
    waiting: Arc<Waiting>,
    socket: UdpSocket,
    /// Readable while the socket or a data path has something.
    epoll: OwnedFd,
    host: IpAddr,
    mtu: Mtu,
    /// Hosts that are no masq, and the way to them.
    strangers: RwLock<Vec<IpAddr>>,
    bridge: Bridge,
    counters: Counters,
    /// Of an iWARP card: has messages of its own.
    connector: Option<Arc<Connector>>,
}

impl CardNetwork {
    pub(crate) fn start(
        paths: Vec<Arc<DataPath<Relay>>>,
        waiting: Arc<Waiting>,
        agreed: Arc<Agreed>,
        (host, socket): (IpAddr, UdpSocket),
        mtu: Mtu,
        connector: Option<Arc<Connector>>,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (token, fd) in [(0, socket.as_fd()), (1, waiting.signal.as_fd())] {
            let data = epoll::EventData::new_u64(token);
            epoll::add(&epoll, fd, data, epoll::EventFlags::IN)?;
        }
        let bridge = Bridge::start(host, agreed, Arc::clone(&waiting))?;
        Ok(Self {
            paths,
            waiting,
            strangers: RwLock::default(),
            bridge,
            socket,
            epoll,
            host,
            mtu,
            counters: Counters::default(),
            connector,
        })
    }

    /// Whether the connector took a datagram.
    fn is_of_connector(&self, from: IpAddr, datagram: &[u8]) -> bool {
        let connector = self.connector.as_ref();
        connector.is_some_and(|connector| connector.takes(from, datagram))
    }
}

fn encode(partition: PKey, mad: &[u8; MAD_LEN]) -> [u8; LEN] {
    let mut datagram = [0; LEN];
    let (head, rest) = datagram.split_at_mut(MAGIC.len());
    head.copy_from_slice(&MAGIC);
    let (key, body) = rest.split_at_mut(2);
    key.copy_from_slice(&partition.0.to_be_bytes());
    body.copy_from_slice(mad);
    datagram
}

fn decode(datagram: &[u8]) -> Option<(PKey, Box<[u8; MAD_LEN]>)> {
    let rest = datagram.strip_prefix(&MAGIC)?;
    let (key, mad) = rest.split_first_chunk::<2>()?;
    let mad: [u8; MAD_LEN] = mad.try_into().ok()?;
    Some((PKey(u16::from_be_bytes(*key)), Box::new(mad)))
}

impl Network for CardNetwork {
    fn host(&self) -> IpAddr {
        self.host
    }

    fn mtu(&self) -> Mtu {
        self.mtu
    }

    fn send(&self, to: IpAddr, partition: PKey, mad: &[u8; MAD_LEN]) -> Result<()> {
        let strangers = self.strangers.read();
        let is_stranger = strangers.is_ok_and(|strangers| strangers.contains(&to));
        if is_stranger {
            // They understand nothing but communication management.
            return match Mad::decode(mad) {
                Ok(mad) => self.bridge.say(to, partition, mad.message),
                Err(_) => Ok(()),
            };
        }
        let to = SocketAddr::new(to, MANAGEMENT_PORT);
        match self.socket.send_to(&encode(partition, mad), to) {
            Ok(_) => {
                self.counters.sent.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(_) => {
                self.counters.not_sent.fetch_add(1, Ordering::Relaxed);
                Err(DeviceError::Exhausted("room for packets"))
            }
        }
    }

    fn receive(&self) -> Option<Arrival> {
        if let Some(arrival) = self.waiting.pop() {
            return Some(arrival);
        }
        let mut datagram = [0; LEN + 1];
        // Others have their turn; the descriptor stays readable.
        for _ in 0..MOST_SKIPPED {
            let (len, from) = match self.socket.recv_from(&mut datagram) {
                Ok(got) => got,
                // An ICMP error of an earlier datagram; the next call goes on.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(_) => return None,
            };
            let datagram = datagram.get(..len).unwrap_or_default();
            let is_of_masqd = from.port() == MANAGEMENT_PORT;
            if is_of_masqd && self.is_of_connector(from.ip().to_canonical(), datagram) {
                self.counters.received.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let decoded = decode(datagram);
            let Some((partition, mad)) = decoded.filter(|_| is_of_masqd) else {
                self.counters.malformed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            self.counters.received.fetch_add(1, Ordering::Relaxed);
            return Some(Arrival::Management {
                from: from.ip().to_canonical(),
                partition,
                mad,
            });
        }
        None
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn learn(&self, sender: SenderKey, who: Option<Sender>) {
        for path in &self.paths {
            let who = who.clone();
            let _ = path.call(move |relay| relay.learn(sender, who));
        }
    }

    fn forget_senders(&self) {
        for path in &self.paths {
            let _ = path.call(Relay::forget_senders);
        }
    }

    /// The card checks packets of all hosts alike; but they hear nothing on the port of
    /// masqds.
    fn set_strangers(&self, hosts: Vec<IpAddr>) {
        let mut strangers = self
            .strangers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        strangers.clone_from(&hosts);
        self.bridge.set_hosts(hosts);
    }

    fn set_services(&self, services: Vec<PublishedService>) {
        self.bridge.set_services(services);
    }

    /// Of management only: what the card sends is not seen here.
    fn report(&self) -> WireReport {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let mut report = WireReport {
            sent_packets: count(&counters.sent),
            sent_bytes: count(&counters.sent) * LEN as u64,
            received_packets: count(&counters.received),
            received_bytes: count(&counters.received) * LEN as u64,
            send_calls: count(&counters.sent),
            receive_calls: count(&counters.received),
            ..WireReport::default()
        };
        report.not_sent.insert("no room", count(&counters.not_sent));
        let bridge = self.bridge.counters();
        report
            .not_sent
            .insert("too many requests to plain hosts", count(&bridge.not_asked));
        for (reason, counter) in [
            ("malformed", &counters.malformed),
            ("request of an unknown host", &bridge.unknown_host),
            ("too many requests of plain hosts", &bridge.too_many),
        ] {
            report.dropped.insert(reason, count(counter));
        }
        if let Some(connector) = &self.connector {
            let unexpected = connector.unexpected();
            report.dropped.insert("no such connection", unexpected);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_management_datagram_comes_through() {
        let mad = [7; MAD_LEN];
        let (partition, body) = decode(&encode(PKey(0x8123), &mad)).unwrap();
        assert_eq!((partition, *body), (PKey(0x8123), mad));
    }

    proptest! {
        #[test]
        fn other_bytes_are_not_taken_for_one(bytes: Vec<u8>) {
            prop_assert!(decode(&bytes).is_none());
        }
    }
}
