use std::io;
use std::net::IpAddr;

/// Why a card cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// rdma-core is missing.
    #[error("{name} cannot be loaded ({error}); install rdma-core (Debian: {packages})")]
    NoLibrary {
        /// The library.
        name: &'static str,
        /// What has it, by the names of Debian.
        packages: &'static str,
        /// What the loader says.
        error: String,
    },
    /// There is no such card.
    #[error("there is no RDMA card {name}; {}", listed(.cards))]
    NoCard {
        /// The name that was asked for.
        name: String,
        /// Those that exist.
        cards: Vec<String>,
    },
    /// It does not open.
    #[error(
        "the card {name} does not open: {source}; masqd needs read and write access to /dev/infiniband"
    )]
    Open {
        /// Its name.
        name: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// No port of it is up.
    #[error(
        "no port of {name} is active: set its network interface up (`rdma link show` tells which it is)"
    )]
    PortDown {
        /// Its name.
        name: String,
    },
    /// It has no GID of the host's address.
    #[error("{name} has no RoCEv2 GID of this host's address {address}; {}", has(.addresses))]
    NoGid {
        /// Its name.
        name: String,
        /// The address of the host in the policy.
        address: IpAddr,
        /// Addresses that it has GIDs of.
        addresses: Vec<IpAddr>,
    },
    /// It has no GID at all that fits.
    #[error("{name} has no RoCEv2 GID: give its network interface an address")]
    NoGids {
        /// Its name.
        name: String,
    },
    /// An iWARP card that has not the host's address.
    #[error("{name} has not this host's address {address}; {}", has_addresses(.addresses))]
    NoAddress {
        /// Its name.
        name: String,
        /// The address of the host in the policy.
        address: IpAddr,
        /// Addresses that it has.
        addresses: Vec<IpAddr>,
    },
    /// An iWARP card without any address.
    #[error("{name} has no IPv4 address: give its network interface one")]
    NoAddresses {
        /// Its name.
        name: String,
    },
    /// Something else of the host.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

fn listed(cards: &[String]) -> String {
    match cards {
        [] => {
            "the host has none (`rdma link show`; the soft device needs none: --device soft)".into()
        }
        cards => format!("the host has {}", cards.join(", ")),
    }
}

fn has_addresses(addresses: &[IpAddr]) -> String {
    match addresses {
        [] => "it has none".into(),
        addresses => {
            let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("it has {}", list.join(", "))
        }
    }
}

fn has(addresses: &[IpAddr]) -> String {
    match addresses {
        [] => "it has none of any address".into(),
        addresses => {
            let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("it has those of {}", list.join(", "))
        }
    }
}
