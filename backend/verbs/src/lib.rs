//! The verbs device: an RDMA card of the host, through the host's own libibverbs.
//! Any card with a Linux driver will do, because only the public verbs API is used.
//!
//! Control verbs are carried out on the card on behalf of the tenants, in a
//! protection domain of each session's own, with the tenants' own addresses as iova.
//! The data path is **relayed**: a data-path thread takes work requests off the
//! tenants' rings, hands them to the card, and brings completions back; the payload
//! goes between the card and the tenants' memory directly. See docs/cards.md.

mod aside;
mod attr;
mod bridge;
mod calls;
mod card;
mod device;
mod error;
mod host;
mod iwarp;
mod mapped;
mod network;
mod relay;
mod session;

pub use device::VerbsDevice;
pub use error::CardError;
pub use network::MANAGEMENT_PORT;

use std::net::IpAddr;

/// What people are told of a card.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CardInfo {
    /// Its name, as `rdma link show` has it.
    pub name: String,
    /// The port that is used.
    pub port: u8,
    /// RoCEv2, InfiniBand or iWARP.
    pub link: &'static str,
    /// Its address on the network between hosts (RoCEv2).
    pub address: Option<IpAddr>,
}

/// Names of the host's cards.
///
/// # Errors
/// [`CardError::NoLibrary`]: rdma-core is missing.
pub fn cards() -> Result<Vec<String>, CardError> {
    host::cards()
}
