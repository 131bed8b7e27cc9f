//! Addresses and routes: bind, resolve, query.

use super::Agent;
use super::state::{HOP_LIMIT, Id, MAX_WAITING, PACKET_LIFETIME, Phase, Queued};
use crate::address::{any_of, gid_of, is_link_local};
use crate::error::CmError;
use crate::ports::Holder;
use crate::types::{Event, Peer, PortSpace, Target};
use masq_spec::verbs::{CmAddress, CmRoute, Gid, QpType};
use std::net::{IpAddr, SocketAddr};

/// -EHOSTUNREACH: nobody has the address.
const NO_HOST: i32 = -113;
/// -ENETUNREACH: this endpoint has no address of the destination's family.
const NO_NETWORK: i32 = -101;

impl Agent {
    /// Binds an id to an address of this endpoint (loopback means its own one)
    /// or to a wildcard, and to a port.
    ///
    /// # Errors
    /// [`CmError::Invalid`] if it is bound already or the family is not known,
    /// [`CmError::AddressNotAvailable`] for an address of somebody else,
    /// [`CmError::AddressInUse`].
    pub fn bind(&mut self, target: Target, address: CmAddress) -> Result<(), CmError> {
        self.id(target)?;
        let address = address.socket().ok_or(CmError::Invalid)?;
        self.bind_to(target, address)
    }

    pub(super) fn bind_to(&mut self, target: Target, address: SocketAddr) -> Result<(), CmError> {
        let id = self.id(target)?;
        if id.phase != Phase::Idle {
            return Err(CmError::Invalid);
        }
        let mut address = address;
        if !address.ip().is_unspecified() {
            address.set_ip(self.own(address.ip()).ok_or(CmError::AddressNotAvailable)?);
        }
        let (space, holder) = (
            id.port_space,
            Holder {
                id: target.id,
                ip: address.ip(),
                reuse: id.reuse,
                family_only: id.family_only(address.ip()),
                listening: false,
            },
        );
        address.set_port(self.ports.take(space, address.port(), holder)?);
        let id = self.id_mut(target)?;
        id.source = address;
        id.holds_port = true;
        id.phase = Phase::Bound;
        Ok(())
    }

    /// Finds a destination; `known` tells the GID of an endpoint that this one
    /// may know. Queues ADDR_RESOLVED, or ADDR_ERROR, at once. An id that is not
    /// bound yet is bound to `source`, or to a wildcard and a free port.
    ///
    /// # Errors
    /// [`CmError::Invalid`] in another state, or if the families differ;
    /// [`CmError::NoMemory`] if the program takes no events; those of
    /// [`Agent::bind`].
    pub fn resolve_addr(
        &mut self,
        target: Target,
        source: Option<CmAddress>,
        destination: CmAddress,
        known: impl FnOnce(IpAddr) -> Option<Peer>,
    ) -> Result<(), CmError> {
        let id = self.id(target)?;
        let phase = id.phase;
        if id.events.len() >= MAX_WAITING {
            return Err(CmError::NoMemory);
        }
        let mut destination = destination.socket().ok_or(CmError::Invalid)?;
        if destination.ip().is_unspecified() || destination.ip().is_loopback() {
            destination.set_ip(self.config.address);
        }
        let any = any_of(destination.ip());
        match phase {
            Phase::Idle => {
                let source = match source.filter(|source| source.family != 0) {
                    Some(source) => source.socket().ok_or(CmError::Invalid)?,
                    None => SocketAddr::new(any, 0),
                };
                let family = self.own(source.ip()).unwrap_or(source.ip());
                if family.is_ipv4() != any.is_ipv4() {
                    return Err(CmError::Invalid);
                }
                self.bind_to(target, source)?;
            }
            Phase::Bound if self.id(target)?.source.is_ipv4() == any.is_ipv4() => {}
            _ => return Err(CmError::Invalid),
        }
        match self.find_destination(destination.ip(), known) {
            Ok(peer) => self.resolved(target, destination, peer),
            Err(status) => {
                self.id_mut(target)?.destination = Some(destination);
                self.post(target.id, Queued::plain(Event::AddressError, status));
                Ok(())
            }
        }
    }

    fn find_destination(
        &self,
        ip: IpAddr,
        known: impl FnOnce(IpAddr) -> Option<Peer>,
    ) -> Result<Peer, i32> {
        let gid = gid_of(ip);
        if ip.is_multicast() {
            return Ok(Peer { address: ip, gid });
        }
        if self.own(ip).is_some() {
            let address = self.config.address;
            return Ok(Peer { address, gid });
        }
        let same_family = |own: IpAddr| own.is_ipv4() == ip.is_ipv4();
        if !self.addresses().any(same_family) && !is_link_local(ip) {
            return Err(NO_NETWORK);
        }
        known(ip).ok_or(NO_HOST)
    }

    fn resolved(
        &mut self,
        target: Target,
        destination: SocketAddr,
        peer: Peer,
    ) -> Result<(), CmError> {
        let there = destination.ip();
        let mut fit = self
            .addresses()
            .filter(|own| own.is_ipv4() == there.is_ipv4() && !is_link_local(there));
        let here = fit.next().unwrap_or(self.link_local());
        drop(fit);
        let id = self.id_mut(target)?;
        id.destination = Some(destination);
        (id.dgid, id.peer) = (peer.gid, Some(peer.address));
        id.phase = Phase::AddressResolved;
        let (space, port) = (id.port_space, id.source.port());
        if id.source.ip().is_unspecified() {
            id.source.set_ip(here);
            self.ports
                .change(space, port, target.id, |holder| holder.ip = here);
        }
        self.post(target.id, Queued::plain(Event::AddressResolved, 0));
        Ok(())
    }

    /// Finds the route. Queues ROUTE_RESOLVED at once.
    ///
    /// # Errors
    /// [`CmError::Invalid`] unless the address has just been resolved.
    pub fn resolve_route(&mut self, target: Target) -> Result<(), CmError> {
        let id = self.id_mut(target)?;
        if id.phase != Phase::AddressResolved {
            return Err(CmError::Invalid);
        }
        id.phase = Phase::RouteResolved;
        self.post(target.id, Queued::plain(Event::RouteResolved, 0));
        Ok(())
    }

    /// What is known of an id's addresses and path.
    ///
    /// # Errors
    /// [`CmError::NoSuchId`], [`CmError::OtherChannel`].
    pub fn query(&self, target: Target) -> Result<CmRoute, CmError> {
        let id = self.id(target)?;
        let bound = self.has_device(id);
        let paths = bound
            && matches!(
                id.phase,
                Phase::RouteResolved | Phase::Connecting | Phase::Disconnected
            );
        Ok(CmRoute {
            source: CmAddress::from(id.source),
            destination: id.destination.map(CmAddress::from).unwrap_or_default(),
            sgid: if bound { self.source_gid(id) } else { [0; 16] },
            dgid: id.dgid,
            bound: u8::from(bound),
            paths: u8::from(paths),
            traffic_class: id.tos,
            mtu: self.config.mtu,
            lifetime: PACKET_LIFETIME,
            rate: 0,
            hop_limit: HOP_LIMIT,
            reserved: 0,
        })
    }

    /// Whom a connection would be asked of: what the policy is to judge before
    /// [`Agent::connect`].
    ///
    /// # Errors
    /// [`CmError::Invalid`] unless the address is resolved.
    pub fn destination(&self, target: Target) -> Result<(PortSpace, QpType, SocketAddr), CmError> {
        let id = self.id(target)?;
        if !matches!(id.phase, Phase::AddressResolved | Phase::RouteResolved) {
            return Err(CmError::Invalid);
        }
        let mut destination = id.destination.ok_or(CmError::Invalid)?;
        destination.set_ip(id.peer.ok_or(CmError::Invalid)?);
        Ok((id.port_space, id.qp_type, destination))
    }

    /// Whether the id is bound to the device: a wildcard is not.
    pub(super) fn has_device(&self, id: &Id) -> bool {
        id.phase != Phase::Idle && !id.source.ip().is_unspecified()
    }

    pub(super) fn source_gid(&self, id: &Id) -> Gid {
        gid_of(id.source.ip())
    }
}
