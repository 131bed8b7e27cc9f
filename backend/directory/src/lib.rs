//! Which host has which virtual address.
//!
//! The policy says it of endpoints with `host` and of hosts outside. Of all others, a
//! [`Directory`] does: each host announces what lives there, and hears what others
//! announce. A [`View`] holds that against the policy: a directory is believed about
//! where something lives, never about who may live there.
//!
//! An address of a tenant has one holder: whoever claimed it first has it until it is
//! given up, and a claim that lost is tried again then.
#![forbid(unsafe_code)]

mod embedded;
mod etcd;
mod local;
mod view;

pub use embedded::Embedded;
pub use etcd::{AddressError, Etcd, EtcdConfig, SILENCE, TTL, Tls};
pub use local::{HostError, LocalHost};
pub use view::{Ignored, View};

use masq_policy::{EndpointId, EndpointName, TenantName};
use std::fmt;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// A virtual address: it means something within its tenant only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// The tenant.
    pub tenant: TenantName,
    /// The address, never IPv4-mapped.
    pub address: IpAddr,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.address, self.tenant)
    }
}

/// What this host says of an endpoint that lives here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The endpoint.
    pub id: EndpointId,
    /// The class that it is an instance of.
    pub class: Option<EndpointName>,
    /// Its virtual addresses, none of them IPv4-mapped.
    pub addresses: Vec<IpAddr>,
}

/// What a host says of a virtual address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The endpoint that has it, in the tenant of the [`Slot`].
    pub endpoint: EndpointName,
    /// The class that it is an instance of.
    pub class: Option<EndpointName>,
    /// The host where it lives, never IPv4-mapped.
    pub host: IpAddr,
}

/// News of an address that another host had or has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The address.
    pub slot: Slot,
    /// What is said of it now; `None`: nothing any more.
    pub entry: Option<Entry>,
}

/// An address that another host claimed before this one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The address.
    pub slot: Slot,
    /// The endpoint of this host that wants it.
    pub wanted_by: EndpointId,
    /// The host that has it.
    pub host: IpAddr,
    /// Its endpoint.
    pub endpoint: EndpointName,
}

/// How a directory fares, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// `embedded` or `etcd`.
    pub kind: &'static str,
    /// Where it is; no secrets. Empty if it is nowhere else.
    pub place: String,
    /// Seconds that it has not been reached for; `None` while it is.
    pub away_seconds: Option<u64>,
    /// The latest error, if it is away.
    pub error: Option<String>,
    /// Addresses that other hosts have.
    pub entries: usize,
    /// Addresses that this host has in it.
    pub claims: usize,
    /// Addresses that others claimed first.
    pub conflicts: Vec<Conflict>,
    /// What was read since the start and made no sense.
    pub malformed_total: u64,
    /// How often it was lost since the start.
    pub losses_total: u64,
}

/// Tells other hosts what lives here, and this one what lives there. No call waits for
/// the network.
pub trait Directory: Send {
    /// Whether it hears of other hosts at all.
    fn hears_others(&self) -> bool;
    /// Claims the addresses of an endpoint that lives here, instead of those that were
    /// claimed for it before.
    fn announce(&self, claim: Claim);
    /// Gives up the addresses of an endpoint.
    fn withdraw(&self, id: &EndpointId);
    /// News since the last call. What this host says itself is no news.
    fn changes(&self) -> Vec<Change>;
    /// Readable once there is news; an eventfd, which [`Directory::changes`] clears.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
    /// How it fares.
    fn state(&self) -> State;
}
