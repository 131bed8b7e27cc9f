//! Containers, as far as the host can be asked about them: who is inside, which
//! addresses they have, and the directory that is mounted into them.

mod addresses;
mod dir;
mod namespaces;
mod netns;
mod sysfs;

pub(crate) use addresses::Watcher;
pub(crate) use dir::{ContainerDir, Record};
pub(crate) use namespaces::{Namespace, Namespaces};
pub use netns::{NETNS_HELPER, netns_helper};

use masq_admin::{ProcessId, Registration};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How often addresses are read again that change meanwhile.
const DUMPS: usize = 8;

/// All that takes time to learn of a container, learnt away from the loop.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) registration: Registration,
    pub(crate) init: ProcessId,
    /// Readable once the init process has ended.
    pub(crate) pidfd: OwnedFd,
    pub(crate) namespaces: Namespaces,
    /// Tells of changes to the addresses of its network namespace.
    pub(crate) netlink: OwnedFd,
    pub(crate) addresses: Vec<IpAddr>,
    /// What an earlier masqd knew of it.
    pub(crate) before: Option<Before>,
}

/// What is kept of a container that runs when masqd ends. It may have changed its
/// addresses since, so they say no longer what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Before {
    /// Its network namespace.
    pub(crate) net: Namespace,
    /// Addresses that it had before it started: what `network` in a policy is held to.
    pub(crate) placed_at: Vec<IpAddr>,
    /// Those that its endpoint had last.
    pub(crate) held: Vec<IpAddr>,
}

impl Prepared {
    /// Asks the kernel about a container that is about to start, or still runs.
    ///
    /// # Errors
    /// For whoever starts it: what is wrong with it.
    pub(crate) fn new(registration: Registration) -> Result<Self, String> {
        let pid = registration.pid;
        let failed = |what: &'static str| {
            move |error: io::Error| format!("container process {pid}: {what}: {error}")
        };
        let gone = || format!("there is no process {pid}, which is said to be the container's");
        // Negative numbers are none, and process 1 is no container's.
        let number = Some(pid).filter(|pid| *pid > 1).and_then(Pid::from_raw);
        let number = number.ok_or_else(gone)?;
        let pidfd = pidfd_open(number, PidfdFlags::empty()).map_err(|_| gone())?;
        let init = ProcessId::of(pid).map_err(failed("its start time cannot be read"))?;
        let namespaces = Namespaces::of(pid).map_err(failed("its namespaces cannot be read"))?;
        if !namespaces.tell_apart() {
            return Err(
                "the container shares process and mount namespaces with the host, so its \
                 programs cannot be told from the host's; use `masq run` instead"
                    .into(),
            );
        }
        let netlink = netns::open(pidfd.as_fd())
            .map_err(failed("its network namespace cannot be looked into"))?;
        let addresses =
            settled_addresses(netlink.as_fd()).map_err(failed("its addresses cannot be read"))?;
        // All of the above was about this process, if it lives now.
        if has_ended(pidfd.as_fd()) {
            return Err(gone());
        }
        Ok(Self {
            registration,
            init,
            pidfd,
            namespaces,
            netlink,
            addresses,
            before: None,
        })
    }

    /// As [`Self::new`], of a container that an earlier masqd had registered.
    ///
    /// # Errors
    /// As [`Self::new`], or it is no longer the container that was registered.
    pub(crate) fn again(record: Record) -> Result<Self, String> {
        let mut prepared = Self::new(record.registration)?;
        if prepared.init != record.init {
            return Err("it has ended".to_owned());
        }
        if prepared.namespaces.net != record.before.net {
            return Err("its init process has left its network namespace".to_owned());
        }
        prepared.before = Some(record.before);
        Ok(prepared)
    }

    /// Addresses by which the policy decides what it is.
    pub(crate) fn placed_at(&self) -> &[IpAddr] {
        match &self.before {
            Some(before) => &before.placed_at,
            None => &self.addresses,
        }
    }

    /// Addresses that its endpoint may have before others have theirs.
    pub(crate) fn first_addresses(&self) -> Vec<IpAddr> {
        let held = |ip: &&IpAddr| self.before.as_ref().is_none_or(|b| b.held.contains(ip));
        self.addresses.iter().filter(held).copied().collect()
    }
}

/// The addresses of a namespace, which nobody should be changing at this time.
fn settled_addresses(netlink: BorrowedFd<'_>) -> io::Result<Vec<IpAddr>> {
    let mut dump = netns::addresses(netlink)?;
    for _ in 0..DUMPS {
        if !dump.changed {
            break;
        }
        dump = netns::addresses(netlink)?;
    }
    Ok(dump.addresses)
}

/// Whether a process has ended.
pub(crate) fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    !matches!(poll(&mut fds, Some(&now)), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_container_is_refused_with_a_reason() {
        let of = |pid| {
            Prepared::new(Registration {
                pid,
                ..Registration::default()
            })
            .unwrap_err()
        };
        assert!(of(i32::MAX).contains("no process"), "{}", of(i32::MAX));
        assert!(of(-1).contains("no process"));
        assert!(of(0).contains("no process"));
        let own = of(std::process::id() as i32);
        assert!(own.contains("masq run"), "{own}");
    }
}
