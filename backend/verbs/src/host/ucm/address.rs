//! Socket addresses as the kernel has them.

use masq_verbs_abi::ucm::SockaddrStorage;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const INET: u16 = libc::AF_INET as u16;
const INET6: u16 = libc::AF_INET6 as u16;

/// `struct sockaddr_storage` of an address, and the length of what it holds.
pub(super) fn storage(address: SocketAddr) -> (SockaddrStorage, u16) {
    let mut bytes = Vec::with_capacity(28);
    match address {
        SocketAddr::V4(v4) => {
            bytes.extend(INET.to_ne_bytes());
            bytes.extend(v4.port().to_be_bytes());
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend(INET6.to_ne_bytes());
            bytes.extend(v6.port().to_be_bytes());
            bytes.extend(v6.flowinfo().to_be_bytes());
            bytes.extend(v6.ip().octets());
            bytes.extend(v6.scope_id().to_ne_bytes());
        }
    }
    let mut field = [0; 128];
    for (to, from) in field.iter_mut().zip(&bytes) {
        *to = *from;
    }
    (field, bytes.len() as u16)
}

/// The address of a storage, IPv4 as such; `None`: it has none of IP.
pub(super) fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let (family, rest) = storage.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let ip = match u16::from_ne_bytes(*family) {
        INET => IpAddr::from(*rest.first_chunk::<4>()?),
        INET6 => {
            let ip = rest.get(4..)?.first_chunk::<16>()?;
            Ipv6Addr::from(*ip).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_address_comes_back_as_it_was(ip: IpAddr, port: u16) {
            let socket = SocketAddr::new(ip, port);
            let (bytes, len) = storage(socket);
            prop_assert_eq!(len, if socket.is_ipv4() { 16 } else { 28 });
            prop_assert_eq!(address(&bytes), Some(SocketAddr::new(ip.to_canonical(), port)));
        }
    }

    #[test]
    fn ports_and_addresses_are_in_network_order() {
        let (bytes, _) = storage("10.1.2.3:4790".parse().unwrap());
        assert_eq!(bytes[2..8], [0x12, 0xb6, 10, 1, 2, 3]);
    }

    #[test]
    fn a_storage_of_no_address_has_none() {
        assert_eq!(address(&[0; 128]), None);
    }
}
