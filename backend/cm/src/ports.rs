//! Port spaces of one endpoint: which id holds which port.

use crate::error::CmError;
use crate::types::PortSpace;
use rustc_hash::FxHashMap;
use std::net::IpAddr;

/// Ephemeral ports, as Linux deals them out.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

/// An id that holds a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    pub(crate) id: u32,
    pub(crate) ip: IpAddr,
    /// Shares its port with others that say so too.
    pub(crate) reuse: bool,
    /// Its wildcard means its own family only.
    pub(crate) family_only: bool,
    pub(crate) listening: bool,
}

impl Holder {
    /// Whether both may not have the port; `reuse` is whether sharing counts.
    fn conflicts(&self, other: &Self, reuse: bool) -> bool {
        if self.id == other.id || (reuse && self.reuse && other.reuse) {
            return false;
        }
        if self.family_only && other.family_only && self.ip.is_ipv4() != other.ip.is_ipv4() {
            return false;
        }
        self.ip.is_unspecified() || other.ip.is_unspecified() || self.ip == other.ip
    }

    /// How well it serves a destination: 2 exactly, 1 by a wildcard.
    fn serves(&self, ip: IpAddr) -> u8 {
        if !self.listening {
            0
        } else if self.ip == ip {
            2
        } else {
            let same = self.ip.is_ipv4() == ip.is_ipv4();
            let wide = self.ip.is_ipv6() && ip.is_ipv4() && !self.family_only;
            u8::from(self.ip.is_unspecified() && (same || wide))
        }
    }
}

/// All port spaces of an endpoint.
#[derive(Debug)]
pub(crate) struct Ports {
    held: FxHashMap<(PortSpace, u16), Vec<Holder>>,
    /// Where the search for a free port begins.
    rover: u16,
}

impl Ports {
    pub(crate) fn new(seed: u64) -> Self {
        let (first, last) = EPHEMERAL.into_inner();
        let count = u64::from(last - first) + 1;
        Self {
            held: FxHashMap::default(),
            rover: first + (seed % count) as u16,
        }
    }

    /// Takes `port`, or a free one if it is 0; answers which.
    pub(crate) fn take(
        &mut self,
        space: PortSpace,
        port: u16,
        holder: Holder,
    ) -> Result<u16, CmError> {
        let port = if port == 0 { self.free(space)? } else { port };
        let holders = self.held.entry((space, port)).or_default();
        if holders.iter().any(|other| holder.conflicts(other, true)) {
            return Err(CmError::AddressInUse);
        }
        holders.push(holder);
        Ok(port)
    }

    fn free(&mut self, space: PortSpace) -> Result<u16, CmError> {
        let (first, last) = EPHEMERAL.into_inner();
        for _ in EPHEMERAL {
            let port = self.rover;
            self.rover = if port >= last { first } else { port + 1 };
            if !self.held.contains_key(&(space, port)) {
                return Ok(port);
            }
        }
        Err(CmError::AddressNotAvailable)
    }

    /// Lets the holder listen: from now on the port is no longer shared.
    pub(crate) fn listen(&mut self, space: PortSpace, port: u16, id: u32) -> Result<(), CmError> {
        let holders = self.held.get_mut(&(space, port)).ok_or(CmError::Invalid)?;
        let own = *holders
            .iter()
            .find(|h| h.id == id)
            .ok_or(CmError::Invalid)?;
        if own.reuse && holders.iter().any(|other| own.conflicts(other, false)) {
            return Err(CmError::AddressInUse);
        }
        self.change(space, port, id, |holder| {
            holder.reuse = false;
            holder.listening = true;
        });
        Ok(())
    }

    /// Changes what is known of a holder.
    pub(crate) fn change(
        &mut self,
        space: PortSpace,
        port: u16,
        id: u32,
        change: impl FnOnce(&mut Holder),
    ) {
        let holders = self.held.get_mut(&(space, port));
        if let Some(holder) = holders.and_then(|h| h.iter_mut().find(|h| h.id == id)) {
            change(holder);
        }
    }

    /// Gives the port back.
    pub(crate) fn release(&mut self, space: PortSpace, port: u16, id: u32) {
        if let Some(holders) = self.held.get_mut(&(space, port)) {
            holders.retain(|holder| holder.id != id);
            if holders.is_empty() {
                self.held.remove(&(space, port));
            }
        }
    }

    /// Where somebody listens.
    pub(crate) fn served(&self) -> impl Iterator<Item = (PortSpace, u16)> {
        let served = self.held.iter();
        let served = served.filter(|(_, holders)| holders.iter().any(|holder| holder.listening));
        served.map(|(service, _)| *service)
    }

    /// Who listens for a destination: an exact address before a wildcard.
    pub(crate) fn listener(&self, space: PortSpace, port: u16, ip: IpAddr) -> Option<u32> {
        let holders = self.held.get(&(space, port))?;
        let best = holders.iter().max_by_key(|holder| holder.serves(ip))?;
        (best.serves(ip) > 0).then_some(best.id)
    }

    /// Ports that are held.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
impl Ports {
    /// Ids that hold a port.
    pub(crate) fn holders(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }
}
