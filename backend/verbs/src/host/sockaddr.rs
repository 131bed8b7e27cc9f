//! Socket addresses in the form of C.
#![allow(unsafe_code)] // a storage that holds one of several structures

use libc::{sockaddr_in, sockaddr_in6, sockaddr_storage};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The C form of an address.
pub(super) fn to_c(address: SocketAddr) -> sockaddr_storage {
    // SAFETY: integers only.
    let mut storage: sockaddr_storage = unsafe { std::mem::zeroed() };
    let at = &raw mut storage;
    match address {
        SocketAddr::V4(v4) => {
            let raw = sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: a storage has room for every kind and its alignment.
            unsafe { at.cast::<sockaddr_in>().write(raw) };
        }
        SocketAddr::V6(v6) => {
            let raw = sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { at.cast::<sockaddr_in6>().write(raw) };
        }
    }
    storage
}

/// The address of a storage; `None`: it has none of IP.
pub(super) fn from_c(storage: &sockaddr_storage) -> Option<SocketAddr> {
    let at = &raw const *storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: large enough and aligned for every kind; integers only.
            let raw = unsafe { at.cast::<sockaddr_in>().read() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let raw = unsafe { at.cast::<sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Some(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_address_comes_back_as_it_was(ip: std::net::IpAddr, port: u16) {
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(from_c(&to_c(address)), Some(address));
        }
    }

    #[test]
    fn ports_and_addresses_are_in_network_order() {
        let storage = to_c("10.1.2.3:4790".parse().unwrap());
        // SAFETY: a storage is made of bytes.
        let bytes: [u8; 8] = unsafe { (&raw const storage).cast::<[u8; 8]>().read() };
        assert_eq!(bytes[2..], [0x12, 0xb6, 10, 1, 2, 3]);
    }

    #[test]
    fn a_storage_of_no_address_has_none() {
        // SAFETY: integers only.
        let storage: sockaddr_storage = unsafe { std::mem::zeroed() };
        assert_eq!(from_c(&storage), None);
    }
}
