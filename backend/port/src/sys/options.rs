//! Socket options and filters.
#![allow(unsafe_code)] // setsockopt, getsockopt and ioctl of options that rustix lacks

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use zerocopy::{Immutable, IntoBytes};

/// Sets an option whose value holds no pointer.
pub(crate) fn set(
    socket: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &(impl IntoBytes + Immutable),
) -> io::Result<()> {
    let bytes = value.as_bytes();
    // SAFETY: the kernel reads these bytes during the call, and follows no
    // pointer in them: an option whose value has one would be given by numbers
    // that only this crate's callers choose, and none of them is such.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            bytes.as_ptr().cast(),
            bytes.len() as libc::socklen_t,
        )
    };
    check(result)
}

/// One instruction of classic BPF: code, jumps, operand.
pub(crate) type Instruction = (u16, u8, u8, u32);

/// A program of classic BPF.
pub(crate) struct Filter(Vec<libc::sock_filter>);

impl Filter {
    pub(crate) fn new(instructions: &[Instruction]) -> Self {
        let filters = instructions.iter().map(|(code, jt, jf, k)| {
            let (code, jt, jf, k) = (*code, *jt, *jf, *k);
            libc::sock_filter { code, jt, jf, k }
        });
        Self(filters.collect())
    }
}

/// Has a filter decide what a socket takes.
pub(crate) fn attach_filter(socket: BorrowedFd<'_>, filter: &Filter) -> io::Result<()> {
    attach(socket, libc::SO_ATTACH_FILTER, filter)
}

/// Has a filter choose among the sockets that share an address.
pub(crate) fn attach_steering(socket: BorrowedFd<'_>, filter: &Filter) -> io::Result<()> {
    attach(socket, libc::SO_ATTACH_REUSEPORT_CBPF, filter)
}

fn attach(socket: BorrowedFd<'_>, option: i32, filter: &Filter) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.0.len() as u16,
        filter: filter.0.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies `len` instructions from `filter` during the
    // call, which the vector holds, and writes nothing.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    check(result)
}

/// How many packets the kernel dropped for want of room in a socket's buffer.
pub(crate) fn dropped(socket: BorrowedFd<'_>) -> u32 {
    const SO_MEMINFO: i32 = 55;
    let [.., drops] = get::<9>(socket, libc::SOL_SOCKET, SO_MEMINFO);
    drops
}

/// How many frames found no room in a packet socket's ring since the last call.
pub(crate) fn packet_drops(socket: BorrowedFd<'_>) -> u32 {
    let [_packets, drops] = get::<2>(socket, libc::SOL_PACKET, libc::PACKET_STATISTICS);
    drops
}

/// An option that is an array of numbers; zeros if it cannot be had.
fn get<const N: usize>(socket: BorrowedFd<'_>, level: i32, name: i32) -> [u32; N] {
    let mut values = [0; N];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which are ours.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result == 0 { values } else { [0; N] }
}

/// The MTU of an interface in a socket's network namespace.
pub(crate) fn interface_mtu(socket: BorrowedFd<'_>, name: &str) -> io::Result<usize> {
    // SAFETY: all of it are integers and arrays of them, for which zeros do.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    let (last, room) = request.ifr_name.split_last_mut().unzip();
    debug_assert!(last.is_some());
    for (to, from) in room.unwrap_or(&mut []).iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: SIOCGIFMTU reads the name, which ends with zero, and writes an
    // integer; both are in `request`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) };
    check(result)?;
    // SAFETY: SIOCGIFMTU has set this member of the union.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    usize::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn check(result: i32) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
