//! Ids that end when they are dropped.

use super::{Parameters, UserCm};
use masq_cm::PortSpace;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// An id for connections. It ends when it is dropped; where the kernel has asked a host
/// that did not answer yet, that may take its time.
#[derive(Debug)]
pub(crate) struct CmId {
    channel: Arc<UserCm>,
    number: u32,
}

impl CmId {
    pub(crate) fn new(channel: &Arc<UserCm>, port: u16) -> io::Result<Self> {
        let number = channel.create(PortSpace::Tcp, port)?;
        Ok(Self::adopt(channel, number))
    }

    /// The id of a request, which nobody else ends.
    pub(crate) fn adopt(channel: &Arc<UserCm>, number: u32) -> Self {
        let channel = Arc::clone(channel);
        Self { channel, number }
    }

    /// What events name it by.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Binds it to an address of this host; port 0: any that is free.
    pub(crate) fn bind(&self, to: SocketAddr) -> io::Result<()> {
        self.channel.bind(self.number, to)
    }

    /// Binds even if connections of an earlier listener still linger.
    pub(crate) fn set_reuse_address(&self) -> io::Result<()> {
        self.channel.set_reuse_address(self.number)
    }

    /// Takes requests from now on. iWARP: a TCP port of the kernel's.
    pub(crate) fn listen(&self, backlog: u32) -> io::Result<()> {
        self.channel.listen(self.number, backlog)
    }

    pub(crate) fn resolve_address(&self, from: IpAddr, to: SocketAddr) -> io::Result<()> {
        self.channel.resolve_address(self.number, from, to)
    }

    pub(crate) fn resolve_route(&self) -> io::Result<()> {
        self.channel.resolve_route(self.number)
    }

    /// Asks the peer. Some drivers (siw) wait for the TCP connection in the call.
    pub(crate) fn connect(&self, parameters: &Parameters) -> io::Result<()> {
        self.channel.connect(self.number, parameters)
    }

    pub(crate) fn accept(&self, parameters: &Parameters) -> io::Result<()> {
        self.channel.accept(self.number, Some(parameters))
    }

    pub(crate) fn reject(&self) -> io::Result<()> {
        self.channel.reject(self.number, &[])
    }

    /// The address of the other side.
    pub(crate) fn peer(&self) -> io::Result<SocketAddr> {
        self.channel.peer(self.number)
    }

    /// Node GUID of the card that it was bound to, by an address of this host or a way to
    /// another; in network order, 0: of none.
    pub(crate) fn card(&self) -> io::Result<u64> {
        self.channel.card(self.number)
    }
}

impl Drop for CmId {
    fn drop(&mut self) {
        if let Err(error) = self.channel.destroy(self.number) {
            tracing::debug!(%error, "an id of the host's connection manager does not end");
        }
    }
}
