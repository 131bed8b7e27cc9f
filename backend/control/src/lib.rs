//! The control side of masqd: endpoints, sessions, handles, quotas, policy, and
//! the verbs that cross the control ring.
//!
//! # Threads
//! 1. One thread runs [`Server::run`]: an epoll loop that owns the policy, all
//!    sessions and all quotas. It never waits for a tenant: it reads a message
//!    only when all of it has arrived, and writes to no descriptor of a tenant
//!    that could block.
//!    The connection managers (`masq-cm`) run in it; `fabric` carries their messages.
//! 2. A session's events, and its call eventfds, are written by a thread of
//!    that session, which can be interrupted.
//! 3. Operators are served by a thread that asks the loop and waits for it. What has to
//!    be asked of the kernel about a container before it is registered, that thread asks.
//! 4. A thread follows the addresses of the containers' network namespaces.

mod container;
mod devices;
mod eventfd;
mod fabric;
mod gid;
mod handles;
mod identity;
mod ledger;
mod notifier;
mod protocol;
mod refusal;
mod rights;
mod server;
mod session;
mod underlay;
mod vring;
mod wire;
mod world;

#[cfg(test)]
mod tests;

pub use container::{NETNS_HELPER, netns_helper};
pub use devices::{Devices, DevicesError};
pub use masq_directory::{Directory, Embedded, HostError, LocalHost};
pub use server::{Server, ServerConfig, ServerError, ServerHandle};
pub use world::DeviceIdentity;
