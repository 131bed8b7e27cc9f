//! Whole runs: [`Host`] is a masqd in a directory of its own, [`Pair`] two
//! programs that meet over loopback, each as an endpoint.
//!
//! ```no_run
//! use masq_e2e::{Host, Pair};
//!
//! let host = Host::start()?;
//! Pair::new("ibv_rc_pingpong")
//!     .args(["-g", "3", "-c"])
//!     .run(&host)?;
//! # Ok::<(), anyhow::Error>(())
//! ```

mod binaries;
mod cable;
mod cc;
mod etcd;
mod host;
mod hosts;
mod hub;
mod inside;
mod meeting;
mod namespace;
mod netns;
mod pair;
mod ports;
mod preload;
mod process;
mod sightings;
mod tap;
mod wire;

pub use binaries::{BIN_DIR, Binaries, target_dir, workspace};
pub use cable::Cable;
pub use cc::{compile, compile_shared};
pub use etcd::Etcd;
pub use host::{Host, Place};
pub use hosts::{Hosts, HostsConfig, Joined, NAMES, Network, pair, two_hosts};
pub use hub::{Faults, Happened, Hub, Observer, is_roce};
pub use inside::{Inside, containers, register, wait_for_containers};
pub use meeting::{Meeting, listeners, mckey, wait_for_listeners, wait_for_words};
pub use namespace::Namespace;
pub use netns::{Netns, THREAD_NET, own_network};
pub use pair::{Pair, PairOutput};
pub use ports::{free_port, wait_for_listener, wait_for_listener_in};
pub use preload::{LIBRSPRELOAD, start_over_rdma};
pub use process::{Finished, Running, end_all, spawn};
pub use sightings::Sightings;
pub use wire::{Wire, addresses_of};
