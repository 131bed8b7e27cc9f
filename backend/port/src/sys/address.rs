//! Socket addresses as the kernel lays them out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const INET: u16 = libc::AF_INET as u16;
const INET6: u16 = libc::AF_INET6 as u16;

/// `struct sockaddr_in` or `struct sockaddr_in6`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct RawAddress {
    bytes: [u8; Self::LEN],
}

impl RawAddress {
    pub(crate) const LEN: usize = 28;

    pub(crate) const EMPTY: Self = Self {
        bytes: [0; Self::LEN],
    };

    /// `scope` is the interface for link-local addresses.
    pub(crate) fn new(address: IpAddr, port: u16, scope: u32) -> Self {
        let mut raw = Self::EMPTY;
        let [f0, f1, p0, p1, rest @ ..] = &mut raw.bytes;
        [*p0, *p1] = port.to_be_bytes();
        let family = match address {
            IpAddr::V4(v4) => {
                copy(rest, &v4.octets());
                INET
            }
            IpAddr::V6(v6) => {
                let (_flow, rest) = rest.split_at_mut(4);
                let (to, to_scope) = rest.split_at_mut(16);
                copy(to, &v6.octets());
                copy(to_scope, &scope.to_ne_bytes());
                INET6
            }
        };
        [*f0, *f1] = family.to_ne_bytes();
        raw
    }

    /// Bytes that count.
    pub(crate) fn len(&self) -> u32 {
        let [f0, f1, ..] = self.bytes;
        if u16::from_ne_bytes([f0, f1]) == INET {
            16
        } else {
            28
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Address and port, if it is of IP.
    pub(crate) fn read(&self) -> Option<(IpAddr, u16)> {
        let [f0, f1, p0, p1, rest @ ..] = &self.bytes;
        let port = u16::from_be_bytes([*p0, *p1]);
        let address = match u16::from_ne_bytes([*f0, *f1]) {
            INET => IpAddr::V4(Ipv4Addr::from(*rest.first_chunk::<4>()?)),
            INET6 => {
                let (_flow, rest) = rest.split_at(4);
                IpAddr::V6(Ipv6Addr::from(*rest.first_chunk::<16>()?))
            }
            _ => return None,
        };
        Some((address, port))
    }
}

fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_laid_out_as_the_kernel_reads_them() {
        let v4 = RawAddress::new([10, 1, 2, 3].into(), 4791, 9);
        assert_eq!(v4.len(), 16);
        assert_eq!(
            v4.as_bytes()[..16],
            [2, 0, 0x12, 0xb7, 10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(v4.read(), Some(([10, 1, 2, 3].into(), 4791)));
        let address: IpAddr = "fe80::1:2".parse().unwrap();
        let v6 = RawAddress::new(address, 1, 9);
        assert_eq!(v6.len(), 28);
        assert_eq!(v6.read(), Some((address, 1)));
        assert_eq!(v6.as_bytes()[24..], 9u32.to_ne_bytes());
        assert_eq!(RawAddress::EMPTY.read(), None);
    }
}
