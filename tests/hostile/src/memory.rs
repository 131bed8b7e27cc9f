//! The shared file of an attacker, mapped, and eventfds.
#![allow(unsafe_code)] // mmap, atomics at raw pointers

use rustix::event::{EventfdFlags, eventfd as make_eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Bytes of a client's file; addresses are offsets.
pub const SIZE: u64 = 64 << 20;

/// A memfd of that many bytes, not sealed.
pub fn memfd(len: u64, flags: MemfdFlags) -> OwnedFd {
    let flags = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("attacker", flags).expect("a memfd");
    ftruncate(&fd, len).expect("its size");
    fd
}

/// Seals it as masqd wants it.
pub fn seal(fd: &OwnedFd) {
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(fd, seals).expect("seals");
}

/// A memfd as masqd wants it.
pub fn sealed_memfd() -> OwnedFd {
    let fd = memfd(SIZE, MemfdFlags::empty());
    seal(&fd);
    fd
}

/// An eventfd with a counter.
pub fn eventfd(counter: u64, flags: EventfdFlags) -> OwnedFd {
    let fd = make_eventfd(0, flags | EventfdFlags::CLOEXEC).expect("an eventfd");
    if counter > 0 {
        rustix::io::write(&fd, &counter.to_ne_bytes()).expect("its counter");
    }
    fd
}

/// A file, mapped.
pub struct Memory {
    /// The file.
    pub fd: OwnedFd,
    base: *mut u8,
    len: u64,
}

// SAFETY: the mapping is only reached by atomics and bounded copies.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps the first `len` bytes.
    pub fn map(fd: OwnedFd, len: u64) -> Self {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len as usize,
                prot,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &fd,
                0,
            )
        };
        Self {
            fd,
            base: base.expect("the file is mapped").cast(),
            len,
        }
    }

    fn at(&self, addr: u64, len: u64) -> *mut u8 {
        assert!(addr + len <= self.len, "{addr:#x} is outside");
        // SAFETY: inside the mapping.
        unsafe { self.base.add(addr as usize) }
    }

    /// Copies bytes into it.
    pub fn write(&self, addr: u64, bytes: &[u8]) {
        let to = self.at(addr, bytes.len() as u64);
        // SAFETY: inside the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Copies bytes out of it.
    pub fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let from = self.at(addr, len as u64);
        let mut out = vec![0; len];
        // SAFETY: inside the mapping.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), len) };
        out
    }

    /// The atomic at an aligned address.
    pub fn u16(&self, addr: u64) -> &AtomicU16 {
        assert!(addr.is_multiple_of(2));
        // SAFETY: aligned, inside the mapping, which lives as long as self.
        unsafe { AtomicU16::from_ptr(self.at(addr, 2).cast()) }
    }

    /// The atomic at an aligned address.
    pub fn u32(&self, addr: u64) -> &AtomicU32 {
        assert!(addr.is_multiple_of(4));
        // SAFETY: aligned, inside the mapping, which lives as long as self.
        unsafe { AtomicU32::from_ptr(self.at(addr, 4).cast()) }
    }

    /// The atomic at an aligned address.
    pub fn u64(&self, addr: u64) -> &AtomicU64 {
        assert!(addr.is_multiple_of(8));
        // SAFETY: aligned, inside the mapping, which lives as long as self.
        unsafe { AtomicU64::from_ptr(self.at(addr, 8).cast()) }
    }

    /// Writes a descriptor of a virtqueue.
    pub fn descriptor(&self, at: u64, addr: u64, len: u32, flags: u16, next: u16) {
        self.u64(at).store(addr, Ordering::Relaxed);
        let rest = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.u64(at + 8).store(rest, Ordering::Release);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: self owns the mapping.
        let _ = unsafe { munmap(self.base.cast(), self.len as usize) };
    }
}
