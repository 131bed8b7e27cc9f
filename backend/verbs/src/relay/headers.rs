//! Where the card puts the headers of datagrams: memory of masqd's own, so that no
//! program can change a header before masqd has judged it, nor have another receive
//! over it.
#![allow(unsafe_code)] // memory that the card writes

use crate::host::{Mr, Pd};
use masq_memory::load_bytes;
use masq_spec::queue::Sge;
use masq_wire::GRH_LEN;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes from one header to the next.
const STRIDE: usize = 64;
/// `IBV_ACCESS_LOCAL_WRITE`
const LOCAL_WRITE: u32 = 1;

/// A header for each entry of a receive queue.
#[derive(Debug)]
pub(crate) struct Headers {
    mr: Mr<Pages>,
    base: NonNull<u8>,
    entries: u32,
}

// SAFETY: the pages have no thread affinity; they are read by copies only.
unsafe impl Send for Headers {}

#[derive(Debug)]
struct Pages {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an address range without thread affinity.
unsafe impl Send for Pages {}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range is its own.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

impl Headers {
    /// Makes room for the headers of `entries` receives of a domain.
    pub(crate) fn new(pd: &Arc<Pd>, entries: u32) -> io::Result<Self> {
        let len = (entries.max(1) as usize * STRIDE).next_multiple_of(4096);
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, prot, MapFlags::PRIVATE) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let pages = Pages { base, len };
        let iova = base.as_ptr() as u64;
        // SAFETY: the pages stay mapped as long as `pages` lives.
        let mr = unsafe { Mr::new(pd, base, len as u64, iova, LOCAL_WRITE, pages) }?;
        Ok(Self { mr, base, entries })
    }

    /// Where the card is to put the header of an entry.
    pub(crate) fn sge(&self, entry: u32) -> Sge {
        Sge {
            addr: self.base.as_ptr() as u64 + (entry as usize * STRIDE) as u64,
            length: GRH_LEN as u32,
            lkey: self.mr.lkey(),
        }
    }

    /// A copy of the header of an entry.
    pub(crate) fn read(&self, entry: u32) -> Option<[u8; GRH_LEN]> {
        if entry >= self.entries {
            return None;
        }
        let mut header = [0; GRH_LEN];
        // SAFETY: the entry lies inside the pages, which `mr` keeps.
        unsafe { load_bytes(self.base.add(entry as usize * STRIDE), &mut header) };
        Some(header)
    }
}

/// The elements behind the first [`GRH_LEN`] bytes of a list, in `out` from 1 on; how
/// many there are, or None if the list has no room for a header.
pub(crate) fn behind_header(list: &[Sge], out: &mut [Sge]) -> Option<usize> {
    let mut skip = GRH_LEN as u32;
    let mut count = 1;
    for sge in list {
        let cut = skip.min(sge.length);
        skip -= cut;
        if sge.length > cut {
            *out.get_mut(count)? = Sge {
                addr: sge.addr.wrapping_add(u64::from(cut)),
                length: sge.length - cut,
                lkey: sge.lkey,
            };
            count += 1;
        }
    }
    (skip == 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sge(addr: u64, length: u32) -> Sge {
        Sge {
            addr,
            length,
            lkey: 9,
        }
    }

    #[test]
    fn the_first_forty_bytes_are_left_out_wherever_they_lie() {
        let mut out = [Sge::default(); 4];
        assert_eq!(behind_header(&[sge(100, 140)], &mut out), Some(2));
        assert_eq!(out[1], sge(140, 100));
        let split = [sge(0, 30), sge(500, 10), sge(1000, 8)];
        assert_eq!(behind_header(&split, &mut out), Some(2));
        assert_eq!(out[1], sge(1000, 8));
        let late = [sge(0, 30), sge(500, 20)];
        assert_eq!(behind_header(&late, &mut out), Some(2));
        assert_eq!(out[1], sge(510, 10));
        assert_eq!(behind_header(&[sge(0, 40)], &mut out), Some(1));
    }

    #[test]
    fn a_list_without_room_for_a_header_is_told() {
        let mut out = [Sge::default(); 4];
        assert_eq!(behind_header(&[sge(0, 39)], &mut out), None);
        assert_eq!(behind_header(&[], &mut out), None);
    }
}
