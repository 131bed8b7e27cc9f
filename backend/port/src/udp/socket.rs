//! How the UDP sockets are set up.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use masq_wire::ROCE_PORT;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use zerocopy::{Immutable, IntoBytes};

use crate::error::doing;
use crate::interface::Interface;
use crate::sender::{DEFAULT_CLASS, DEFAULT_HOP_LIMIT};
use crate::sys::{Filter, attach_steering, set};
use crate::{Config, PortError};

/// `struct ip_mreqn`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Membership4 {
    group: [u8; 4],
    address: [u8; 4],
    interface: i32,
}

/// `struct ipv6_mreq`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Membership6 {
    group: [u8; 16],
    interface: u32,
}

/// A socket at the host's address, to receive and to send.
pub(crate) fn of_host(config: &Config, interface: &Interface) -> Result<OwnedFd, PortError> {
    let socket = open(config.host).map_err(doing("open a socket"))?;
    let fd = socket.as_fd();
    if config.threads > 1 {
        set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1i32)
            .map_err(doing("share a port number among threads"))?;
    }
    prepare(fd, config).map_err(doing("set up a socket"))?;
    prepare_sending(fd, config, interface).map_err(doing("set up a socket"))?;
    bind(fd, &at(config.host, interface)).map_err(doing("bind UDP port 4791"))?;
    Ok(socket)
}

/// A socket at a group's address, to receive.
pub(crate) fn of_group(
    config: &Config,
    interface: &Interface,
    group: IpAddr,
) -> io::Result<OwnedFd> {
    if !group.is_multicast() || group.is_ipv4() != config.host.is_ipv4() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let socket = open(group)?;
    let fd = socket.as_fd();
    // Each socket at a group's address has its own copy.
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1i32)?;
    prepare(fd, config)?;
    bind(fd, &at(group, interface))?;
    match (group, config.host) {
        (IpAddr::V4(group), IpAddr::V4(host)) => {
            set(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, &0i32)?;
            let membership = Membership4 {
                group: group.octets(),
                address: host.octets(),
                interface: interface.index as i32,
            };
            set(fd, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &membership)?;
        }
        (IpAddr::V6(group), _) => {
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_ALL, &0i32)?;
            let membership = Membership6 {
                group: group.octets(),
                interface: interface.index,
            };
            set(
                fd,
                libc::IPPROTO_IPV6,
                libc::IPV6_ADD_MEMBERSHIP,
                &membership,
            )?;
        }
        _ => {}
    }
    Ok(socket)
}

fn open(address: IpAddr) -> io::Result<OwnedFd> {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::DGRAM, flags, None)?)
}

fn at(address: IpAddr, interface: &Interface) -> SocketAddr {
    match address {
        IpAddr::V4(_) => SocketAddr::new(address, ROCE_PORT),
        // The kernel ignores the zone of addresses that have none.
        IpAddr::V6(v6) => SocketAddrV6::new(v6, ROCE_PORT, 0, interface.index).into(),
    }
}

/// What a receiver wants to know, and its buffer.
fn prepare(fd: BorrowedFd<'_>, config: &Config) -> io::Result<()> {
    buffer(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, config)?;
    if config.offload {
        // Kernels before 5.0 lack it, and hand up single packets.
        let _ = set(fd, libc::SOL_UDP, libc::UDP_GRO, &1i32);
    }
    if config.host.is_ipv4() {
        set(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, &1i32)?;
        set(fd, libc::IPPROTO_IP, libc::IP_RECVTTL, &1i32)
    } else {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1i32)?;
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, &1i32)?;
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &1i32)?;
        // RoCEv2 senders leave the checksum out.
        set(fd, libc::SOL_UDP, libc::UDP_NO_CHECK6_RX, &1i32)
    }
}

fn prepare_sending(fd: BorrowedFd<'_>, config: &Config, interface: &Interface) -> io::Result<()> {
    let hop_limit = i32::from(DEFAULT_HOP_LIMIT);
    let class = i32::from(DEFAULT_CLASS.0);
    buffer(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, config)?;
    if let IpAddr::V4(host) = config.host {
        // With it the identification is 0, and the kernel never fragments.
        let level = libc::IPPROTO_IP;
        set(fd, level, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_DO)?;
        set(fd, level, libc::IP_TOS, &class)?;
        set(fd, level, libc::IP_TTL, &hop_limit)?;
        set(fd, level, libc::IP_MULTICAST_TTL, &hop_limit)?;
        set(fd, level, libc::IP_MULTICAST_LOOP, &0i32)?;
        let out = Membership4 {
            group: [0; 4],
            address: host.octets(),
            interface: interface.index as i32,
        };
        set(fd, level, libc::IP_MULTICAST_IF, &out)
    } else {
        let level = libc::IPPROTO_IPV6;
        set(fd, level, libc::IPV6_MTU_DISCOVER, &libc::IPV6_PMTUDISC_DO)?;
        set(fd, level, libc::IPV6_DONTFRAG, &1i32)?;
        set(fd, level, libc::IPV6_TCLASS, &class)?;
        set(fd, level, libc::IPV6_UNICAST_HOPS, &hop_limit)?;
        set(fd, level, libc::IPV6_MULTICAST_HOPS, &hop_limit)?;
        set(fd, level, libc::IPV6_MULTICAST_LOOP, &0i32)?;
        set(fd, level, libc::IPV6_MULTICAST_IF, &interface.index)
    }
}

/// Leaves UDP checksums out, where nothing needs them: the kernel cuts no
/// trains without.
pub(crate) fn set_checksums(
    fd: BorrowedFd<'_>,
    host: IpAddr,
    trains: bool,
) -> Result<(), PortError> {
    let none = i32::from(!trains);
    if host.is_ipv4() {
        set(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, &none)
    } else {
        set(fd, libc::SOL_UDP, libc::UDP_NO_CHECK6_TX, &none)
    }
    .map_err(doing("leave checksums out"))
}

/// Without the privilege for a large buffer, what the system allows.
fn buffer(fd: BorrowedFd<'_>, force: i32, ask: i32, config: &Config) -> io::Result<()> {
    // The kernel doubles it, for its own needs.
    let bytes = i32::try_from(config.buffer / 2).unwrap_or(i32::MAX / 2);
    set(fd, libc::SOL_SOCKET, force, &bytes).or_else(|_| set(fd, libc::SOL_SOCKET, ask, &bytes))
}

/// Has the kernel choose among the sockets at one address by the number of the
/// queue pair, modulo the number of threads.
pub(crate) fn steer(fd: BorrowedFd<'_>, threads: usize) -> Result<(), PortError> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const MODULO: u16 = (libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K) as u16;
    const RETURN_A: u16 = (libc::BPF_RET | libc::BPF_A) as u16;
    // The program sees the UDP payload: the BTH. A packet too short for one
    // gives 0.
    let program = [
        (LOAD_WORD, 0, 0, 4),
        (AND, 0, 0, 0x00ff_ffff),
        (MODULO, 0, 0, threads as u32),
        (RETURN_A, 0, 0, 0),
    ];
    attach_steering(fd, &Filter::new(&program)).map_err(doing("steer packets to threads"))
}
