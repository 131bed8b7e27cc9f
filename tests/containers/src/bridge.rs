//! A podman network whose addresses are blue's and red's, and a masqd for it.

use crate::available::{Runtime, usable};
use crate::container::Container;
use crate::podman::{Launch, Network, Podman};
use crate::rootfs::RootFs;
use crate::site::{Site, policy};

/// The network goes before podman's settings, and masqd last: hooks ask it.
#[derive(Debug)]
pub struct Bridge {
    network: Network,
    podman: Podman,
    site: Site,
}

impl Bridge {
    /// With [`policy`]; none if podman cannot work here.
    ///
    /// # Errors
    /// podman or masqd failed.
    pub fn new() -> anyhow::Result<Option<Self>> {
        Self::with_policy(policy)
    }

    /// With the policy that `text` makes of the network's addresses.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_policy(text: impl FnOnce(&str) -> String) -> anyhow::Result<Option<Self>> {
        if !usable(Runtime::Podman) {
            return Ok(None);
        }
        let podman = Podman::new()?;
        let network = podman.network()?;
        let site = Site::start(&text(network.subnet()))?;
        Ok(Some(Self {
            network,
            podman,
            site,
        }))
    }

    /// A container of blue on the network.
    pub fn blue(&self, image: &RootFs) -> Launch {
        self.of("blue", image)
    }

    /// A container that asks for this device, on the network.
    pub fn of(&self, device: &str, image: &RootFs) -> Launch {
        Launch::of(image)
            .on(&self.network)
            .device(self.site.devices(), device)
    }

    /// Starts two alike.
    ///
    /// # Errors
    /// One does not start.
    pub fn two(&self, launch: &Launch) -> anyhow::Result<[Container; 2]> {
        Ok([self.podman.start(launch)?, self.podman.start(launch)?])
    }

    /// podman.
    pub fn podman(&self) -> &Podman {
        &self.podman
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// masqd.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// masqd, to be killed and the like.
    pub fn site_mut(&mut self) -> &mut Site {
        &mut self.site
    }
}
