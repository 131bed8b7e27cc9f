//! The groups that a port has joined.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Groups, each with the socket that holds the membership.
#[derive(Default)]
pub(crate) struct Groups(Vec<Group>);

struct Group {
    address: IpAddr,
    joined: usize,
    socket: OwnedFd,
}

impl Groups {
    /// See [`Port::join`](crate::Port::join); `open` makes the socket of a group that
    /// is new.
    pub(crate) fn join(
        &mut self,
        address: IpAddr,
        open: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> io::Result<()> {
        if let Some(known) = self.0.iter_mut().find(|group| group.address == address) {
            known.joined += 1;
            return Ok(());
        }
        let socket = open()?;
        self.0.push(Group {
            address,
            joined: 1,
            socket,
        });
        Ok(())
    }

    /// See [`Port::leave`](crate::Port::leave).
    pub(crate) fn leave(&mut self, address: IpAddr) {
        for group in self.0.iter_mut().filter(|group| group.address == address) {
            group.joined -= 1;
        }
        self.0.retain(|group| group.joined > 0);
    }

    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|group| group.address == address)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Address and socket of a group.
    pub(crate) fn get(&self, index: usize) -> Option<(IpAddr, BorrowedFd<'_>)> {
        let group = self.0.get(index)?;
        Some((group.address, group.socket.as_fd()))
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|group| group.socket.as_fd())
    }
}
