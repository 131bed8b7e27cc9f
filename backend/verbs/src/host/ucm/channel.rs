//! The kernel's device, and how it is spoken to.
#![allow(unsafe_code)] // the kernel reads and answers at addresses that commands name

use masq_verbs_abi::ucm::rdma_ucm_cmd_hdr;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// The device.
pub(crate) const USER_CM: &str = "/dev/infiniband/rdma_cm";

/// An event channel, with all its ids; they end with it. Commands may be carried out
/// from any thread.
#[derive(Debug)]
pub(crate) struct UserCm {
    file: OwnedFd,
}

impl UserCm {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(USER_CM, flags, Mode::empty())?;
        Ok(Self { file })
    }

    /// Carries out a command that names no address.
    pub(super) fn tell<C: IntoBytes + Immutable>(
        &self,
        number: u32,
        command: &C,
    ) -> io::Result<()> {
        // SAFETY: it names none.
        unsafe { self.command(number, command.as_bytes(), 0) }
    }

    /// Carries out a command that is answered at an address, which `command` is given.
    pub(super) fn ask<C, R>(&self, number: u32, command: impl FnOnce(u64) -> C) -> io::Result<R>
    where
        C: IntoBytes + Immutable,
        R: FromBytes + FromZeros,
    {
        let mut answer = Box::new(R::new_zeroed());
        let at = (&raw mut *answer).expose_provenance() as u64;
        // SAFETY: the answer is ours, of that size, and may have any bytes.
        unsafe { self.command(number, command(at).as_bytes(), size_of::<R>())? };
        Ok(*answer)
    }

    /// Carries out a command with a value at an address, which `command` is given.
    pub(super) fn give<C, V>(
        &self,
        number: u32,
        value: V,
        command: impl FnOnce(u64) -> C,
    ) -> io::Result<()>
    where
        C: IntoBytes + Immutable,
        V: IntoBytes + Immutable,
    {
        let value = Box::new(value);
        let at = (&raw const *value).expose_provenance() as u64;
        // SAFETY: the value is ours until after the call, and is read only.
        unsafe { self.command(number, command(at).as_bytes(), 0) }
    }

    /// # Safety
    /// What the kernel reads or writes, `out` bytes, at addresses in `body` is the
    /// caller's, exposed, and as large as the command says.
    unsafe fn command(&self, number: u32, body: &[u8], out: usize) -> io::Result<()> {
        let header = rdma_ucm_cmd_hdr {
            cmd: number,
            r#in: body.len() as u16,
            out: out as u16,
        };
        let whole = [header.as_bytes(), body].concat();
        // SAFETY: the bytes are ours; the rest by contract.
        let written =
            unsafe { libc::write(self.file.as_raw_fd(), whole.as_ptr().cast(), whole.len()) };
        match usize::try_from(written) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

impl AsFd for UserCm {
    /// Readable while an event waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
