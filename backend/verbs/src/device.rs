//! The control side's view: [`Device`] and [`Session`] over a card.

use crate::aside::Asides;
use crate::bridge::Agreed;
use crate::card::{Card, Link, address_of};
use crate::host::{Channel, Context, USER_CM, UserCm};
use crate::iwarp::{Connector, own_address};
use crate::network::{CardNetwork, MANAGEMENT_PORT, Waiting};
use crate::relay::{Host, Relay};
use crate::session::VerbsSession;
use crate::{CardError, CardInfo};
use masq_datapath::{DataPath, DataPathConfig};
use masq_device::{
    DataPathKind, Device, DeviceError, DomainKey, Network, Result, Session, SessionSpec,
};
use masq_spec::device::Features;
use masq_spec::verbs::DeviceAttr;
use masq_wire::Mtu;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// An RDMA card of the host.
pub struct VerbsDevice {
    card: Arc<Card>,
    paths: Vec<Arc<DataPath<Relay>>>,
    network: Option<Arc<CardNetwork>>,
    agreed: Arc<Agreed>,
    asides: Arc<Asides>,
    /// Of an iWARP card.
    connector: Option<Arc<Connector>>,
}

impl VerbsDevice {
    /// Opens the card called `name` and starts its data-path threads. `host`: this
    /// host's address, if there are others.
    ///
    /// # Errors
    /// What people have to mend, see [`CardError`].
    pub fn start(
        name: &str,
        config: &DataPathConfig,
        host: Option<IpAddr>,
    ) -> std::result::Result<Self, CardError> {
        let fails = |what| move |source| CardError::Host { what, source };
        let waiting = Arc::new(Waiting::new().map_err(fails("make a descriptor"))?);
        let mut contexts = Vec::new();
        for _ in 0..config.threads.max(1) {
            contexts.push(Context::open(name)?);
        }
        let first = contexts.first().ok_or(CardError::NoCard {
            name: name.into(),
            cards: Vec::new(),
        })?;
        let card = Arc::new(Card::examine(name, first, host)?);
        let gone = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let gone = gone.map_err(|e| fails("make a descriptor")(e.into()))?;
        let gone = Arc::new(gone);
        let mut paths = Vec::new();
        for (number, context) in contexts.into_iter().enumerate() {
            let path = DataPath::start(number, config, |_| {
                let host = Host {
                    channel: Channel::new(&context)?,
                    removal: watch_removal(&card)?,
                    gone: Arc::clone(&gone),
                    context,
                };
                let relay = Relay::new(Arc::clone(&card), host, Arc::clone(&waiting));
                // iWARP has no RNR: a message that finds no receive ends the connection.
                let waits_for_receives = card.link != Link::Iwarp;
                Ok(relay.frugal(config.idle.is_zero() && waits_for_receives))
            });
            paths.push(Arc::new(path.map_err(fails("start a data-path thread"))?));
        }
        let opening = "open the UDP port for management (4790)";
        let socket = host.map(|host| UdpSocket::bind((host, MANAGEMENT_PORT)));
        let socket = socket.transpose().map_err(fails(opening))?;
        let connector = match card.link {
            Link::Iwarp => connector(&card, host, &paths, socket.as_ref(), gone)?,
            _ => None,
        };
        let agreed = Arc::<Agreed>::default();
        let network = match host.zip(socket) {
            None => None,
            Some((host, socket)) => {
                let mtu = Mtu::from_code(card.mtu as u8).unwrap_or(Mtu::B1024);
                let (paths, connector) = (paths.clone(), connector.clone());
                let (agreed, at) = (Arc::clone(&agreed), (host, socket));
                let started = CardNetwork::start(paths, waiting, agreed, at, mtu, connector);
                Some(Arc::new(started.map_err(fails(opening))?))
            }
        };
        Ok(Self {
            card,
            paths,
            network,
            agreed,
            asides: Arc::default(),
            connector,
        })
    }

    /// What people are told of the card.
    pub fn info(&self) -> CardInfo {
        CardInfo {
            name: self.card.name.clone(),
            port: self.card.port,
            link: match self.card.link {
                Link::Ethernet => "RoCEv2",
                Link::InfiniBand { .. } => "InfiniBand",
                Link::Iwarp => "iWARP",
            },
            address: match self.card.link {
                Link::Ethernet => Some(address_of(self.card.gid)),
                Link::InfiniBand { .. } => None,
                Link::Iwarp => self.connector.as_ref().map(|c| c.host()),
            },
        }
    }

    fn path_of(&self, domain: DomainKey) -> Result<(usize, &Arc<DataPath<Relay>>)> {
        let number = domain.0 as usize % self.paths.len().max(1);
        let path = self.paths.get(number).ok_or(DeviceError::Gone)?;
        Ok((number, path))
    }
}

/// What connects the queue pairs of an iWARP card; None without the host's connection
/// manager.
fn connector(
    card: &Card,
    host: Option<IpAddr>,
    paths: &[Arc<DataPath<Relay>>],
    socket: Option<&UdpSocket>,
    gone: Arc<OwnedFd>,
) -> std::result::Result<Option<Arc<Connector>>, CardError> {
    let channel = match UserCm::open() {
        Ok(channel) => Arc::new(channel),
        Err(error) => {
            let card = &card.name;
            tracing::warn!(
                card, %error,
                "{USER_CM} does not open: queue pairs of this card cannot be connected; load the \
                 module rdma_ucm, and let masqd read and write it"
            );
            return Ok(None);
        }
    };
    let own = own_address(&channel, card, host)?;
    let socket = socket.map(UdpSocket::try_clone).transpose();
    let socket = socket.map_err(|source| CardError::Host {
        what: "make a descriptor",
        source,
    })?;
    let started = Connector::start(channel, card, own, paths.to_vec(), (socket, gone))?;
    Ok(Some(Arc::new(started)))
}

/// Readable when something becomes of the card's character device.
fn watch_removal(card: &Card) -> io::Result<Option<OwnedFd>> {
    let Some(node) = card.node.as_ref().filter(|node| node.exists()) else {
        return Ok(None);
    };
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let watch = inotify::init(flags)?;
    inotify::add_watch(&watch, node, inotify::WatchFlags::ATTRIB)?;
    Ok(Some(watch))
}

impl Device for VerbsDevice {
    fn name(&self) -> &str {
        &self.card.name
    }

    fn attributes(&self) -> DeviceAttr {
        self.card.attributes
    }

    fn features(&self) -> Features {
        self.card.features
    }

    fn data_path(&self) -> DataPathKind {
        DataPathKind::Relay
    }

    fn mtu(&self) -> Mtu {
        Mtu::from_code(self.card.mtu as u8).unwrap_or(Mtu::B1024)
    }

    fn separates_hosts(&self) -> bool {
        false
    }

    fn network(&self) -> Option<Arc<dyn Network>> {
        let network = self.network.as_ref()?;
        Some(Arc::clone(network) as Arc<dyn Network>)
    }

    fn open(&self, spec: SessionSpec) -> Result<Box<dyn Session>> {
        let tenant = spec.domain;
        let (number, path) = self.path_of(tenant)?;
        let kick = Arc::clone(&spec.kick);
        path.watch(kick.as_fd())
            .map_err(|_| DeviceError::Exhausted("descriptors"))?;
        let opened = path.call(move |relay| relay.open(spec))?;
        let index = opened.inspect_err(|_| path.unwatch(kick.as_fd()))?;
        let card = Arc::clone(&self.card);
        Ok(Box::new(VerbsSession::new(
            card,
            Arc::clone(&self.agreed),
            (number, Arc::clone(path)),
            index,
            kick,
            (tenant, Arc::clone(&self.asides)),
            self.connector.clone(),
        )))
    }
}
