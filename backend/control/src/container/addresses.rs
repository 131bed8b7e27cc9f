//! Follows the addresses of containers, in a thread of its own and at a bounded rate: a
//! container may change them as fast as it likes.

use super::netns;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

/// How long changes are collected before they are told: an address comes with a few
/// messages, and often with others.
const SETTLE: Duration = Duration::from_millis(10);
/// The same for a container that goes on changing them.
const MOST: Duration = Duration::from_secs(2);
/// Who changed nothing for so long may begin anew.
const QUIET: Duration = Duration::from_secs(5);
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

/// When news of a container is told.
#[derive(Debug, Default)]
struct Pace {
    /// News waits until then.
    due: Option<Instant>,
    told: Option<Instant>,
    delay: Duration,
}

impl Pace {
    /// There is news.
    fn changed(&mut self, now: Instant) {
        let quiet = |told: Instant| now.duration_since(told) >= QUIET;
        self.delay = match self.told {
            Some(told) if !quiet(told) => (self.delay * 2).clamp(SETTLE, MOST),
            _ => SETTLE,
        };
        self.due.get_or_insert(now + self.delay);
    }

    /// Whether it is time to tell; it is told then.
    fn take(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = None;
            self.told = Some(now);
        }
        is_due
    }
}

struct Watched {
    netlink: OwnedFd,
    pace: Pace,
}

struct Thread {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    changes: Receiver<Change>,
    watched: HashMap<u64, Watched>,
}

/// One event for each time that it is asked for.
const ONCE: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ONESHOT);

impl Thread {
    fn run(mut self, tell: &impl Fn(u64, Vec<IpAddr>)) {
        loop {
            let Ok(changed) = self.wait() else {
                return;
            };
            if !self.take_changes() {
                return;
            }
            let now = Instant::now();
            for key in changed {
                if let Some(watched) = self.watched.get_mut(&key) {
                    watched.pace.changed(now);
                }
            }
            for (key, watched) in &mut self.watched {
                if !watched.pace.take(now) {
                    continue;
                }
                if let Ok(dump) = netns::addresses(watched.netlink.as_fd()) {
                    tell(*key, dump.addresses);
                    if dump.changed {
                        watched.pace.changed(now);
                    }
                }
                let data = epoll::EventData::new_u64(*key);
                let _ = epoll::modify(&self.epoll, &watched.netlink, data, ONCE);
            }
        }
    }

    /// The containers of which there is news; none if it is time to tell older news.
    fn wait(&self) -> io::Result<Vec<u64>> {
        let mut events: [epoll::Event; 64] = std::array::from_fn(|_| epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        });
        let next = self.watched.values().filter_map(|w| w.pace.due).min();
        let timeout = next.map(|due| {
            let left = due.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        let count = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
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
                    if epoll::add(&self.epoll, &netlink, data, ONCE).is_ok() {
                        let pace = Pace::default();
                        self.watched.insert(key, Watched { netlink, pace });
                    }
                }
                Ok(Change::Forget(key)) => {
                    if let Some(watched) = self.watched.remove(&key) {
                        let _ = epoll::delete(&self.epoll, &watched.netlink);
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_change_is_told_soon_and_many_ever_less_often() {
        let begin = Instant::now();
        let mut now = begin;
        let mut pace = Pace::default();
        pace.changed(now);
        assert!(!pace.take(now));
        assert!(pace.take(now + SETTLE));
        // Changes without end, for a minute.
        let mut told = 0;
        while now < begin + Duration::from_secs(60) {
            now += Duration::from_millis(1);
            if pace.due.is_none() {
                pace.changed(now);
            }
            told += u32::from(pace.take(now));
        }
        assert!((30..45).contains(&told), "{told} times");
        // Quiet for a while: soon again.
        now += QUIET + MOST;
        pace.take(now);
        now += QUIET;
        pace.changed(now);
        assert!(pace.take(now + SETTLE));
    }
}
