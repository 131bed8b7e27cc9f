//! The address of an iWARP card: its GIDs have none.

use crate::CardError;
use crate::card::Card;
use crate::host::{CmId, UserCm};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The card that an address of this host belongs to, by its GUID.
fn card_of(channel: &Arc<UserCm>, address: IpAddr) -> Option<u64> {
    let id = CmId::new(channel, 0).ok()?;
    id.bind(SocketAddr::new(address, 0)).ok()?;
    id.card().ok().filter(|guid| *guid != 0)
}

/// The address that a card connects from: `host`, if it has it, or else its first of
/// IPv4.
pub(crate) fn own_address(
    channel: &Arc<UserCm>,
    card: &Card,
    host: Option<IpAddr>,
) -> Result<IpAddr, CardError> {
    let name = &card.name;
    let is_own = |address: &IpAddr| card_of(channel, *address) == Some(card.node_guid);
    let fails = |source: nix::errno::Errno| CardError::Host {
        what: "list this host's addresses",
        source: source.into(),
    };
    let own = || -> Result<Vec<IpAddr>, CardError> {
        let all = nix::ifaddrs::getifaddrs().map_err(fails)?;
        let addresses = all.filter_map(|interface| {
            let address = interface.address?;
            Some(IpAddr::V4(address.as_sockaddr_in()?.ip()))
        });
        Ok(addresses.filter(is_own).collect())
    };
    match host {
        Some(host) if is_own(&host) => Ok(host),
        Some(address) => Err(CardError::NoAddress {
            name: name.clone(),
            address,
            addresses: own()?,
        }),
        None => own()?
            .into_iter()
            .next()
            .ok_or_else(|| CardError::NoAddresses { name: name.clone() }),
    }
}
