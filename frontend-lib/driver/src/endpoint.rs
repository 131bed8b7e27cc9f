//! Where the endpoint's socket is.

use std::path::{Path, PathBuf};

/// Names the endpoint's socket. Set by `masq run` and the container integrations.
pub const SOCKET_ENV: &str = "MASQ_SOCKET";

/// Where integrations put the socket when they cannot set the environment.
const USUAL: &[&str] = &["/run/masq/masq.sock", "/dev/masq/masq.sock"];

/// The socket of this process: [`SOCKET_ENV`], else the first usual place where
/// something lies. `None`: the process belongs to no endpoint.
///
/// An empty variable turns the search off.
pub fn socket_path() -> Option<PathBuf> {
    match std::env::var_os(SOCKET_ENV) {
        Some(path) if path.is_empty() => None,
        Some(path) => Some(path.into()),
        None => USUAL
            .iter()
            .map(Path::new)
            .find(|p| p.exists())
            .map(Path::to_owned),
    }
}
