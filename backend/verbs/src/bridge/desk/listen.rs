//! Services that plain hosts may ask for: the kernel listens for them.

use super::{AGAIN, BACKLOG, Desk, Listener, Manager};
use masq_cm::PortSpace;
use masq_device::PublishedService;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

impl<M: Manager> Desk<M> {
    /// Serves these services from now on, and no others.
    pub(in crate::bridge) fn set_services(
        &mut self,
        now: Instant,
        services: Vec<PublishedService>,
    ) {
        let wanted: BTreeSet<_> = services
            .iter()
            .filter_map(|service| Some((PortSpace::from_raw(service.port_space)?, service.port)))
            .collect();
        self.services = services;
        let gone: Vec<_> = self.listeners.keys().copied().collect();
        for service in gone.into_iter().filter(|s| !wanted.contains(s)) {
            if let Some(Listener { id: Some(id), .. }) = self.listeners.remove(&service) {
                self.manager.destroy(id);
            }
        }
        for (space, port) in wanted {
            if !self.listeners.contains_key(&(space, port)) {
                self.listen(now, space, port);
            }
        }
    }

    pub(super) fn listen(&mut self, now: Instant, space: PortSpace, port: u16) {
        let address = SocketAddr::new(self.host, port);
        let made = self.manager.create(space, port).and_then(|id| {
            let bound = self.manager.bind(id, address);
            let listens = bound.and_then(|()| self.manager.listen(id, BACKLOG));
            listens.inspect_err(|_| self.manager.destroy(id))?;
            Ok(id)
        });
        let is_new = !self.listeners.contains_key(&(space, port));
        let listener = match made {
            Ok(id) => Listener {
                id: Some(id),
                try_again: None,
            },
            Err(error) => {
                if is_new {
                    let space = space.name();
                    tracing::warn!(
                        %error, %address, space,
                        "plain hosts cannot reach a tenant's rdma_cm service: the host's \
                         connection manager does not listen there (EADDRINUSE: another \
                         program of this host does)"
                    );
                }
                Listener {
                    id: None,
                    try_again: Some(now + AGAIN),
                }
            }
        };
        self.listeners.insert((space, port), listener);
    }
}
