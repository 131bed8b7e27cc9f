//! Linux guests with the kernel's own `rdma_rxe` or `siw`: peers of tests, or the cards of
//! a masqd inside.
//!
//! [`Kit`] fetches and builds what a guest needs and keeps it; [`Wire`] joins guests and
//! namespaces of this machine; [`Guest`] is a running one, in which programs run.
//! Everything needs root (namespaces, taps); nothing needs KVM.
//!
//! ```no_run
//! use masq_guest::{Driver, Guest, GuestConfig, Kind, Kit, Wire};
//! use std::time::Duration;
//!
//! let kit = Kit::prepare(Kind::Uml, &[Driver::Rxe], &mut |words| println!("{words}"))?;
//! let wire = Wire::new(1500)?;
//! let guest = Guest::boot(&kit, &GuestConfig::on(&wire, "10.77.0.1/24".parse()?)?)?;
//! let out = guest.run("ibv_devinfo", Duration::from_secs(5))?.success()?;
//! assert!(out.stdout.contains("rxe0"));
//! # Ok::<(), anyhow::Error>(())
//! ```

mod apt;
mod cache;
mod channel;
mod gid;
mod guest;
mod kit;
mod qemu;
mod root;
mod siw;
mod uml;
mod watch;

pub use cache::CACHE_DIR;
pub use gid::{Gid, GidIndex, GidTable};
pub use guest::{Driver, Guest, GuestConfig, Interface, Job, Output, SHARE};
pub use kit::{Kind, Kit};
pub use masq_e2e::{Namespace, Wire};
