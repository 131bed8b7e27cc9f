//! The interface that has the host's address.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use masq_wire::Mtu;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::PortError;
use crate::error::doing;
use crate::sys;

/// An interface, and a socket in its network namespace to ask about it.
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    host: IpAddr,
    asking: OwnedFd,
}

impl Interface {
    /// Finds it in the calling thread's network namespace.
    pub(crate) fn of(host: IpAddr) -> Result<Self, PortError> {
        let all = nix::ifaddrs::getifaddrs()
            .map_err(doing("list the host's addresses"))?
            .filter(|one| {
                let address = one.address.as_ref();
                let v4 = address.and_then(|a| a.as_sockaddr_in());
                let v6 = address.and_then(|a| a.as_sockaddr_in6());
                let ip = v4.map(|a| IpAddr::V4(a.ip()));
                ip.or(v6.map(|a| IpAddr::V6(a.ip()))) == Some(host)
            });
        let name = all
            .map(|one| one.interface_name)
            .next()
            .ok_or(PortError::NoInterface(host))?;
        let asking = socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(doing("open a socket"))?;
        let index = rustix::net::netdevice::name_to_index(&asking, &name)
            .map_err(doing("find the interface's number"))?;
        let found = Self {
            name,
            index,
            host,
            asking,
        };
        let mtu = sys::interface_mtu(found.asking(), &found.name)
            .map_err(doing("read the interface's MTU"))?;
        match Mtu::fitting(mtu, host.is_ipv6()) {
            Some(_) => Ok(found),
            None => Err(PortError::Mtu {
                interface: found.name,
                mtu,
            }),
        }
    }

    /// The largest path MTU now. The smallest if not even that fits.
    pub(crate) fn path_mtu(&self) -> Mtu {
        sys::interface_mtu(self.asking(), &self.name)
            .ok()
            .and_then(|mtu| Mtu::fitting(mtu, self.host.is_ipv6()))
            .unwrap_or(Mtu::B256)
    }

    fn asking(&self) -> BorrowedFd<'_> {
        self.asking.as_fd()
    }
}
