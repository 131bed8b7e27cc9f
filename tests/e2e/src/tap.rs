//! An end of a network cable in user space: an interface of a namespace whose frames this
//! process reads and writes. Without offloads, so that each frame is as it would be on a
//! cable: with its checksums, and no longer than the MTU.
#![allow(unsafe_code)] // one ioctl, which names the interface

use crate::namespace::Namespace;
use anyhow::Context as _;
use rustix::ioctl::{Opcode, Setter, ioctl};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;

const IFF_TAP: u16 = 2;
const IFF_NO_PI: u16 = 0x1000;
/// _IOW('T', 202, int)
const TUNSETIFF: Opcode = 0x4004_54ca;

/// `struct ifreq`, as far as it is read.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Makes the interface `name` in `namespace`. Reading and writing frames never blocks; the
/// interface ends with the file.
///
/// # Errors
/// Not root, there is no /dev/net/tun, or the name is taken.
pub(crate) fn open(namespace: &Namespace, name: &str) -> anyhow::Result<File> {
    let mut request = Request {
        name: [0; 16],
        flags: IFF_TAP | IFF_NO_PI,
        rest: [0; 22],
    };
    // The last byte stays zero.
    for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    namespace.inside(|| {
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nonblock)
            .open("/dev/net/tun")
            .context("no /dev/net/tun")?;
        // SAFETY: TUNSETIFF reads a struct ifreq, whose size Request has, and keeps no
        // pointer to it.
        unsafe { ioctl(&file, Setter::<TUNSETIFF, Request>::new(request)) }
            .context("no tap; it takes root")?;
        Ok(file)
    })
}
