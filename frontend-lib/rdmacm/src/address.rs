//! Socket addresses of programs, and those of the device.

use crate::CmError;
use crate::abi::{AF_IB, SockaddrIn6, SockaddrStorage};
use masq_spec::verbs::{CmAddress, Gid};

const INET: u16 = libc::AF_INET as u16;
const INET6: u16 = libc::AF_INET6 as u16;

/// Bytes of an address of this family; 0 for one that is not known.
fn size(family: u16) -> u16 {
    match family {
        INET => 16,
        INET6 => 28,
        _ => 0,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u16::from_ne_bytes(*b))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

/// An address that must be one.
pub(crate) fn required(bytes: &[u8]) -> Result<CmAddress, CmError> {
    let family = u16_at(bytes, 0);
    let port = u16::from_be(u16_at(bytes, 2));
    match family {
        INET => {
            let mut ip = [0; 16];
            ip[..4].copy_from_slice(&array::<4>(bytes, 4));
            Ok(CmAddress {
                family,
                port,
                scope: 0,
                ip,
            })
        }
        INET6 => Ok(CmAddress {
            family,
            port,
            scope: u32::from_ne_bytes(array(bytes, 24)),
            ip: array(bytes, 8),
        }),
        _ => Err(CmError::Malformed("address family")),
    }
}

/// An address that may be absent (family 0).
pub(crate) fn optional(bytes: &[u8]) -> Result<CmAddress, CmError> {
    match u16_at(bytes, 0) {
        0 => Ok(CmAddress::default()),
        _ => required(bytes),
    }
}

/// An address whose length is told.
pub(crate) fn sized(bytes: &SockaddrStorage, len: u16) -> Result<CmAddress, CmError> {
    let address = required(bytes)?;
    if size(address.family) != len {
        return Err(CmError::Malformed("length of an address"));
    }
    Ok(address)
}

/// Writes `address` into the front of `to`; absent is all zero. Answers its length.
fn put(address: &CmAddress, to: &mut [u8; 28]) -> u16 {
    let len = size(address.family);
    if len == 0 {
        return 0;
    }
    to[..2].copy_from_slice(&address.family.to_ne_bytes());
    to[2..4].copy_from_slice(&address.port.to_be_bytes());
    if address.family == INET {
        to[4..8].copy_from_slice(&array::<4>(&address.ip, 0));
    } else {
        to[8..24].copy_from_slice(&address.ip);
        to[24..].copy_from_slice(&address.scope.to_ne_bytes());
    }
    len
}

/// As `struct sockaddr_in6`, which holds an IPv4 address too.
pub(crate) fn to_in6(address: &CmAddress) -> SockaddrIn6 {
    let mut bytes = [0; 28];
    put(address, &mut bytes);
    bytes
}

/// As `struct sockaddr_storage`, with its length.
pub(crate) fn to_storage(address: &CmAddress) -> (SockaddrStorage, u16) {
    let mut bytes = [0; 128];
    let len = bytes.first_chunk_mut().map_or(0, |to| put(address, to));
    (bytes, len)
}

/// `struct sockaddr_ib` of a GID, without a service id; and its length.
pub(crate) fn gid_to_storage(gid: &Gid, pkey: u16) -> (SockaddrStorage, u16) {
    const LEN: u16 = 48;
    let mut bytes = [0; 128];
    bytes[..2].copy_from_slice(&AF_IB.to_ne_bytes());
    bytes[2..4].copy_from_slice(&pkey.to_be_bytes());
    bytes[8..24].copy_from_slice(gid);
    (bytes, LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_lies_in_the_front_in_network_order() {
        let address = CmAddress {
            family: INET,
            port: 7471,
            scope: 0,
            ip: [10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        let bytes = to_in6(&address);
        assert_eq!(&bytes[..8], &[2, 0, 0x1d, 0x2f, 10, 0, 0, 2]);
        assert_eq!(required(&bytes).unwrap(), address);
        assert_eq!(to_storage(&address).1, 16);
    }

    #[test]
    fn an_ipv6_address_keeps_its_scope() {
        let address = CmAddress {
            family: INET6,
            port: 1,
            scope: 7,
            ip: [0xfe; 16],
        };
        assert_eq!(required(&to_in6(&address)).unwrap(), address);
        let (storage, len) = to_storage(&address);
        assert_eq!(sized(&storage, len).unwrap(), address);
        assert!(sized(&storage, len - 1).is_err());
    }

    #[test]
    fn an_infiniband_address_is_refused_and_an_absent_one_is_allowed_where_it_may_be() {
        let (ib, len) = gid_to_storage(&[1; 16], 0xffff);
        assert!(required(&ib).is_err() && sized(&ib, len).is_err() && optional(&ib).is_err());
        assert_eq!(optional(&[0; 28]).unwrap(), CmAddress::default());
        assert!(required(&[0; 28]).is_err());
    }
}
