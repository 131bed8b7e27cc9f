//! Which ports there are, and how they are opened.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::{Port, PortError, open_raw, open_udp};

/// The most threads that share a host.
const MAX_THREADS: usize = 64;

/// The ways into a host; `docs/ports.md` tells how to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PortKind {
    /// UDP sockets, without a privilege.
    #[default]
    Udp,
    /// Packet sockets, which check every ICRC in full. Needs CAP_NET_RAW.
    Raw,
}

impl PortKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Udp, Self::Raw];

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Raw => "raw",
        }
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no port is called {0:?}: there are udp and raw")]
pub struct UnknownPort(String);

impl FromStr for PortKind {
    type Err = UnknownPort;

    fn from_str(name: &str) -> Result<Self, UnknownPort> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownPort(name.to_owned()))
    }
}

/// How ports are opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address that packets bear; an interface has it.
    pub host: IpAddr,
    /// Threads, each with a port of its own: that of a queue pair is its number
    /// modulo this.
    pub threads: usize,
    /// Bytes of each socket's buffers, and of a ring, if the system allows as
    /// much.
    pub buffer: usize,
    /// Have the kernel cut and join trains of packets.
    pub offload: bool,
}

impl Config {
    /// One thread, 16 MiB and trains.
    pub const fn new(host: IpAddr) -> Self {
        Self {
            host,
            threads: 1,
            buffer: 16 << 20,
            offload: true,
        }
    }

    pub(crate) fn check_threads(&self) -> Result<(), PortError> {
        match self.threads {
            1..=MAX_THREADS => Ok(()),
            threads => Err(PortError::Threads(threads)),
        }
    }
}

/// Opens the ports of all threads of a host, in the order of their numbers, in
/// the calling thread's network namespace.
///
/// # Errors
///
/// No interface has the address, or the system refuses: the privilege is
/// missing, the port number is taken, no memory or descriptors are left.
pub fn open(kind: PortKind, config: &Config) -> Result<Vec<Box<dyn Port>>, PortError> {
    fn boxed<P: Port + 'static>(ports: Vec<P>) -> Vec<Box<dyn Port>> {
        let ports = ports.into_iter();
        ports.map(|port| Box::new(port) as Box<dyn Port>).collect()
    }
    match kind {
        PortKind::Udp => open_udp(config).map(boxed),
        PortKind::Raw => open_raw(config).map(boxed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for kind in PortKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("xdp".parse::<PortKind>().is_err());
    }
}
