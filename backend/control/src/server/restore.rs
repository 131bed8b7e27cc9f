//! Containers that outlive a masqd.

use super::Server;
use crate::container::{ContainerDir, Prepared};

impl Server {
    /// Takes up again what a masqd before this one had registered; containers that have
    /// ended since are forgotten. Each first has what it had; only then may others have
    /// what they were refused.
    pub(super) fn restore_containers(&mut self) {
        let mut restored = Vec::new();
        for (dir, record) in ContainerDir::existing(&self.containers.root.clone()) {
            let init = record.as_ref().ok().map(|record| record.init);
            let prepared = record
                .map_err(|error| error.to_string())
                .and_then(Prepared::again);
            let reason = match prepared {
                // What the host could not tell now it may tell a masqd after this one.
                Err(reason) if init.is_some_and(|init| init.is_alive()) => {
                    tracing::error!(dir = %dir.path().display(), reason, "a container that runs is not taken up again; start masqd again once it can be");
                    continue;
                }
                Err(reason) => reason,
                Ok(prepared) => {
                    let has = prepared.addresses.clone();
                    match self.register(prepared) {
                        Ok(report) => {
                            restored.push((report.container, has));
                            continue;
                        }
                        Err(reason) => reason,
                    }
                }
            };
            tracing::info!(dir = %dir.path().display(), reason, "a container is not taken up again");
            if let Err(error) = dir.remove() {
                tracing::warn!(dir = %dir.path().display(), %error, "not removed");
            }
        }
        for (id, has) in restored {
            if let Some(key) = self.containers.by_id.get(&id).copied() {
                self.on_addresses(key, has);
            }
        }
    }
}
