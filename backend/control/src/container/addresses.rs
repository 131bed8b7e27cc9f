//! Follows the addresses of containers, in a thread of its own: a container may change
//! them as fast as it likes.

use super::netns;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// How long changes are collected before they are told.
const SETTLE: Duration = Duration::from_millis(10);
/// The token of the wake-up, which is no container's.
const WAKE: u64 = u64::MAX;

enum Change {
    Watch(u64, OwnedFd),
    Forget(u64),
}

/// Watches network namespaces.
#[derive(Debug)]
pub(crate) struct Watcher {
    changes: Sender<Change>,
    wake: Arc<OwnedFd>,
}

impl Watcher {
    /// Starts the thread; `tell` is called in it with a container's key and what its
    /// addresses are now.
    pub(crate) fn start(tell: impl Fn(u64, Vec<IpAddr>) + Send + 'static) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(WAKE);
        epoll::add(&epoll, &wake, data, epoll::EventFlags::IN)?;
        let (sender, changes) = channel();
        let thread = Thread {
            epoll,
            wake: Arc::clone(&wake),
            changes,
            watched: HashMap::new(),
        };
        std::thread::Builder::new()
            .name("masq-addresses".into())
            .spawn(move || thread.run(&tell))?;
        Ok(Self {
            changes: sender,
            wake,
        })
    }

    /// Tells of the addresses of a namespace whenever they change.
    pub(crate) fn watch(&self, key: u64, netlink: OwnedFd) {
        self.send(Change::Watch(key, netlink));
    }

    /// Tells no more of them.
    pub(crate) fn forget(&self, key: u64) {
        self.send(Change::Forget(key));
    }

    fn send(&self, change: Change) {
        let _ = self.changes.send(change);
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // The thread ends when it finds nobody at the other end.
        let (nobody, _) = channel();
        self.changes = nobody;
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

struct Thread {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    changes: Receiver<Change>,
    watched: HashMap<u64, OwnedFd>,
}

impl Thread {
    fn run(mut self, tell: &impl Fn(u64, Vec<IpAddr>)) {
        let settle = Timespec {
            tv_sec: 0,
            tv_nsec: SETTLE.as_nanos() as i64,
        };
        loop {
            let Ok(mut changed) = self.wait(None) else {
                return;
            };
            if !self.take_changes() {
                return;
            }
            if changed.is_empty() {
                continue;
            }
            // An address comes with a few messages, and often with others.
            std::thread::sleep(SETTLE);
            changed.extend(self.wait(Some(&settle)).unwrap_or_default());
            changed.sort_unstable();
            changed.dedup();
            for key in changed {
                if let Some(netlink) = self.watched.get(&key)
                    && let Ok(addresses) = netns::addresses(netlink.as_fd())
                {
                    tell(key, addresses);
                }
            }
        }
    }

    /// The containers of which there is news.
    fn wait(&self, timeout: Option<&Timespec>) -> io::Result<Vec<u64>> {
        let mut events: [epoll::Event; 64] = std::array::from_fn(|_| epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        });
        let count = match epoll::wait(&self.epoll, &mut events[..], timeout) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let keys = events.iter().take(count).map(|event| event.data.u64());
        Ok(keys.filter(|key| *key != WAKE).collect())
    }

    /// False once nobody asks any more.
    fn take_changes(&mut self) -> bool {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&*self.wake, &mut counter);
        loop {
            match self.changes.try_recv() {
                Ok(Change::Watch(key, netlink)) => {
                    let data = epoll::EventData::new_u64(key);
                    if epoll::add(&self.epoll, &netlink, data, epoll::EventFlags::IN).is_ok() {
                        self.watched.insert(key, netlink);
                    }
                }
                Ok(Change::Forget(key)) => {
                    if let Some(netlink) = self.watched.remove(&key) {
                        let _ = epoll::delete(&self.epoll, &netlink);
                    }
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => return true,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }
}
