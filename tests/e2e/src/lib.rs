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
mod cc;
mod host;
mod pair;
mod ports;
mod process;

pub use binaries::{BIN_DIR, Binaries, target_dir, workspace};
pub use cc::compile;
pub use host::Host;
pub use pair::{Pair, PairOutput};
pub use ports::{free_port, wait_for_listener};
pub use process::{Finished, Running, end_all, spawn};
