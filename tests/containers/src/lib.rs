//! Real container runtimes around a masqd of the test's own.
//!
//! - [`Site`]: a masqd with a policy of classes and tenants, and its CDI devices;
//!   [`Bridge`]: that with a network of podman.
//! - [`Podman`], [`Bundles`] (runc and crun), [`Containerd`], [`Docker`]: each starts
//!   [`Container`]s, which are all used alike: run a program inside, look at the
//!   namespaces, remove it.
//! - [`RootFs`]: what runs inside, made once and kept under `target/rootfs/`.
//! - [`Footprint`]: what masqd holds, to be compared before and after.
//!
//! Tests run in processes side by side. So every name holds the process id and a number
//! ([`unique`]), subnets are those that podman finds free, CDI devices have a kind of
//! their own, and whoever starts first makes the root filesystems, under a lock. What a
//! killed test left is removed by the next one ([`sweep`]).

mod available;
mod bridge;
mod bundle;
mod cdi;
mod command;
mod container;
mod containerd;
mod debian;
mod docker;
mod footprint;
mod lock;
mod meet;
mod names;
mod netns;
mod podman;
mod probe;
mod rootfs;
mod site;
mod user;

pub use available::{LEFT_OUT, Runtime, available, usable};
pub use bridge::Bridge;
pub use bundle::{Bundle, Bundles};
pub use cdi::CdiDevices;
pub use command::{command, output_of};
pub use container::{Container, Remains};
pub use containerd::Containerd;
pub use debian::{SUITE, debootstrap, mirror, slim};
pub use docker::Docker;
pub use footprint::Footprint;
pub use lock::Lock;
pub use meet::{Meet, Met};
pub use names::{sweep, unique};
pub use netns::PodNet;
pub use podman::{Launch, Network, Podman};
pub use probe::probe;
pub use rootfs::RootFs;
pub use site::{Site, policy};
pub use user::User;
