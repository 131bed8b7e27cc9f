//! The channels of this process by descriptor, and the session behind them.
//!
//! # Fork
//! The locks are held over a fork, so that the child does not inherit them taken. The
//! child's copies of channels answer ENODEV; what it opens is of a session of its own.

use crate::channel::{Channel, Device};
use crate::{CmError, os};
use masq_driver::{DriverError, EventQueue, Session};
use masq_spec::command::Opcode;
use masq_spec::event::{CONNECTION, Event};
use masq_spec::verbs::CmTarget;
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use zerocopy::{FromBytes, IntoBytes};

/// An event queue of the session.
pub(crate) struct Queue {
    session: Arc<Session>,
    queue: Arc<EventQueue>,
    /// The process that opened it.
    owner: u32,
}

impl Device for Queue {
    fn name(&self) -> u32 {
        self.queue.name()
    }

    fn node_guid(&self) -> u64 {
        self.session.config().node_guid.to_be()
    }

    fn is_same_session(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.session, &other.session)
    }

    fn alive(&self) -> Result<(), DriverError> {
        if self.owner != masq_driver::process_id() || self.session.is_gone() {
            return Err(DriverError::Gone);
        }
        Ok(())
    }

    fn command<R: FromBytes + IntoBytes>(
        &self,
        opcode: Opcode,
        parts: &[&[u8]],
    ) -> Result<R, DriverError> {
        self.session.command_parts(opcode, parts)
    }

    fn taken(&self) -> Result<bool, DriverError> {
        Ok(self.queue.taken()?.is_some())
    }

    fn raise(&self, count: u32) {
        let event = Event {
            kind: CONNECTION,
            ..Event::default()
        };
        self.queue.raise(event, count);
    }

    fn take_back(&self, count: u32) -> u32 {
        self.queue.take_back(count)
    }
}

/// An open channel.
pub(crate) struct Entry {
    pub(crate) channel: Channel<Queue>,
    /// What the descriptor led to when it was opened.
    identity: os::Identity,
}

type Entries = BTreeMap<RawFd, Arc<Entry>>;

static ENTRIES: RwLock<Entries> = RwLock::new(BTreeMap::new());
/// Their number: a process without channels pays for nothing else.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// The session, and the process that opened it.
static SESSION: Mutex<Option<(u32, Arc<Session>)>> = Mutex::new(None);

fn entries() -> RwLockWriteGuard<'static, Entries> {
    ENTRIES.write().unwrap_or_else(PoisonError::into_inner)
}

fn sessions() -> MutexGuard<'static, Option<(u32, Arc<Session>)>> {
    SESSION.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is held over a fork, in the order in which it is taken.
pub(crate) struct Held {
    _session: MutexGuard<'static, Option<(u32, Arc<Session>)>>,
    _entries: RwLockWriteGuard<'static, Entries>,
}

/// Takes all locks.
pub(crate) fn hold() -> Held {
    Held {
        _session: sessions(),
        _entries: entries(),
    }
}

/// The channel that was opened under a number, which may lead elsewhere by now.
pub(crate) fn opened_as(fd: RawFd) -> Option<Arc<Entry>> {
    if COUNT.load(Ordering::Acquire) == 0 {
        return None;
    }
    let entries = ENTRIES.read().unwrap_or_else(PoisonError::into_inner);
    entries.get(&fd).map(Arc::clone)
}

/// The channel behind a descriptor. A number that leads elsewhere by now (it was closed
/// behind our back, and used again) is forgotten.
pub(crate) fn find(fd: RawFd) -> Option<Arc<Entry>> {
    let entry = opened_as(fd)?;
    if os::identity(fd) == Some(entry.identity) {
        return Some(entry);
    }
    if let Some(stale) = remove(fd, Some(&entry)) {
        retire(stale);
    }
    None
}

/// Whether the descriptor still is that channel's.
pub(crate) fn leads_to(fd: RawFd, entry: &Arc<Entry>) -> bool {
    opened_as(fd).is_some_and(|found| Arc::ptr_eq(&found, entry))
}

/// Takes an entry out of the table; only this one, if one is given.
fn remove(fd: RawFd, only: Option<&Arc<Entry>>) -> Option<Arc<Entry>> {
    let mut entries = entries();
    let found = entries.get(&fd)?;
    if only.is_some_and(|only| !Arc::ptr_eq(only, found)) {
        return None;
    }
    let entry = entries.remove(&fd);
    COUNT.store(entries.len(), Ordering::Release);
    entry
}

/// The end of a channel whose descriptor is somebody else's by now: it must not be closed.
fn retire(stale: Arc<Entry>) {
    let queue = stale.channel.device();
    tell(&stale);
    let _ = queue.session.stop_event_queue(&queue.queue);
    std::mem::forget(stale);
}

/// Tells the device that a channel ends. One that is gone knows.
fn tell(entry: &Entry) {
    let queue = entry.channel.device();
    if queue.alive().is_err() {
        return;
    }
    let request = CmTarget {
        channel: queue.name(),
        id: 0,
    };
    let _ = queue.command::<()>(Opcode::CmCloseChannel, &[request.as_bytes()]);
}

fn session(path: &Path) -> Result<Arc<Session>, DriverError> {
    let mut kept = sessions();
    let this = masq_driver::process_id();
    if let Some((owner, session)) = kept.as_ref()
        && *owner == this
        && !session.is_gone()
    {
        return Ok(Arc::clone(session));
    }
    let session = Arc::new(Session::open(path)?);
    *kept = Some((this, Arc::clone(&session)));
    Ok(session)
}

/// Opens a channel on the endpoint at `path`.
pub(crate) fn open(path: &Path, flags: i32) -> Result<RawFd, CmError> {
    let session = session(path)?;
    let queue = session.open_event_queue()?;
    let fd = queue.fd();
    os::apply_open_flags(fd, flags);
    let entry = Arc::new(Entry {
        channel: Channel::new(Queue {
            session,
            queue,
            owner: masq_driver::process_id(),
        }),
        identity: os::identity(fd).ok_or(CmError::NoDescriptor)?,
    });
    let stale = {
        let mut entries = entries();
        let stale = entries.insert(fd, entry);
        COUNT.store(entries.len(), Ordering::Release);
        stale
    };
    // Its number was free, so it had been closed behind our back.
    if let Some(stale) = stale {
        retire(stale);
    }
    Ok(fd)
}

/// Closes a channel; false if the descriptor is none.
pub(crate) fn close(fd: RawFd) -> bool {
    let Some(entry) = find(fd) else {
        return false;
    };
    let Some(removed) = remove(fd, Some(&entry)) else {
        return false;
    };
    tell(&removed);
    let queue = removed.channel.device();
    let _ = queue.session.close_event_queue(&queue.queue);
    // The last one closes the descriptor, unless the session keeps it.
    true
}
