//! Delivers the events of one session: at once, by whoever has one, if the kernel lets
//! an eventfd be signalled without waiting for the tenant and nothing else is being
//! delivered. What is left (a full event queue, an old kernel) is a thread's of its own,
//! because writing a tenant's call eventfd can block, and may then hurt this session
//! only. The thread starts with the first event that needs it.

use crate::eventfd::{Signaller, signaller};
use crate::vring::Vring;
use crossbeam_queue::SegQueue;
use masq_device::{EventSink, Handle};
use masq_spec::event::{AsyncEvent, COMPLETION, CONNECTION, Event};
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;
use zerocopy::IntoBytes;

/// Events that may wait; a session that lets more pile up is ended.
const BACKLOG: usize = 65_536;
/// How soon a full event queue is looked at again, at first and at last: a
/// session that never reads must cost nearly nothing.
const RETRY: Duration = Duration::from_millis(1);
const RETRY_MOST: Duration = Duration::from_millis(32);
/// Every so many signals the processor's time of one is taken.
const SAMPLE: u32 = 4;
/// A signal that costs more has too many waiters, which only a tenant that means harm has:
/// its events are its own thread's once the next ones have shown the same.
const DEAR: Duration = Duration::from_millis(1);
/// How many after a dear one are looked at, and how many of these must be dear too. Some
/// kernels (User-Mode Linux) count in ticks, and a cheap one may have all of a tick.
const CHECKS: u32 = 8;
const CONFIRMED: u32 = 3;
/// Interrupts a blocked write; its handler does nothing.
pub(crate) const INTERRUPT: Signal = Signal::SIGUSR2;

/// What the thread is asked to do.
enum Item {
    /// Deliver an event on a queue.
    Event(u32, Event),
    /// Signal the control queue.
    Control,
    /// Signal the queue of an event that was handed over.
    Signal(Arc<File>),
}

/// An event queue and its call eventfd.
pub(crate) struct EventQueue {
    pub(crate) vring: Vring,
    pub(crate) call: Arc<File>,
}

/// `None` once it was taken away while the thread looked at it.
type Slot = Arc<Mutex<Option<EventQueue>>>;

/// What became of an event.
enum Handed {
    /// The tenant is to be told by this eventfd.
    Over(Arc<File>),
    Full,
    NoQueue,
    Broken,
}

/// Shared between the control side, the device and the thread.
pub(crate) struct Notifier {
    label: String,
    items: SegQueue<Item>,
    /// Items that are not delivered yet, wherever they are.
    waiting: AtomicUsize,
    overflowed: AtomicBool,
    broken: AtomicBool,
    stop: AtomicBool,
    starting: AtomicBool,
    wake: OnceLock<Thread>,
    handle: Mutex<Option<JoinHandle<()>>>,
    queues: Mutex<HashMap<u32, Slot>>,
    control: Mutex<Option<Arc<File>>>,
    /// Signals that were made at once.
    signals: AtomicU32,
    /// After a dear one: how many are still to be looked at, and how many were dear.
    checks: AtomicU32,
    confirmed: AtomicU32,
    /// They are dear.
    dear: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Notifier {
    pub(crate) fn new(label: String) -> Arc<Self> {
        Arc::new(Self {
            label,
            items: SegQueue::new(),
            waiting: AtomicUsize::new(0),
            overflowed: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            starting: AtomicBool::new(false),
            wake: OnceLock::new(),
            handle: Mutex::default(),
            queues: Mutex::default(),
            control: Mutex::default(),
            signals: AtomicU32::new(0),
            checks: AtomicU32::new(0),
            confirmed: AtomicU32::new(0),
            dear: AtomicBool::new(false),
        })
    }

    /// Adds an event queue, or puts another in its place; `make` runs when the
    /// thread has let go of the old one, and no event is lost meanwhile.
    pub(crate) fn set_queue<E>(
        &self,
        number: u32,
        make: impl FnOnce() -> Result<EventQueue, E>,
    ) -> Result<(), E> {
        let slot = Arc::clone(lock(&self.queues).entry(number).or_default());
        let mut slot = lock(&slot);
        *slot = None;
        *slot = Some(make()?);
        Ok(())
    }

    /// Takes an event queue away; events for it are dropped, and its memory is
    /// not touched after the return.
    pub(crate) fn remove_queue(&self, number: u32) {
        let slot = lock(&self.queues).remove(&number);
        if let Some(slot) = slot {
            *lock(&slot) = None;
        }
    }

    pub(crate) fn has_queue(&self, number: u32) -> bool {
        lock(&self.queues).contains_key(&number)
    }

    pub(crate) fn set_control_call(&self, call: Option<Arc<File>>) {
        *lock(&self.control) = call;
    }

    /// Has the control queue's call eventfd written.
    pub(crate) fn signal_control(self: &Arc<Self>) {
        self.push(Item::Control);
    }

    /// Has a program told of an event of one of its connection-management ids.
    pub(crate) fn connection(self: &Arc<Self>, queue: u32, id: u32) {
        let event = Event {
            kind: CONNECTION,
            element: id,
            reserved: 0,
        };
        self.push(Item::Event(queue, event));
    }

    /// Why the session has to end, if it has.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        if self.overflowed.load(Ordering::Relaxed) {
            Some("too many events were left unread")
        } else if self.broken.load(Ordering::Relaxed) {
            Some("an event ring broke the rules")
        } else {
            None
        }
    }

    /// Ends the thread. Returns whether it has ended; if not, it was
    /// interrupted and this is to be called again.
    pub(crate) fn stop(&self) -> bool {
        self.stop.store(true, Ordering::SeqCst);
        let mut handle = lock(&self.handle);
        match handle.take() {
            None => !self.starting.load(Ordering::SeqCst),
            Some(thread) if thread.is_finished() => {
                let _ = thread.join();
                self.starting.store(false, Ordering::SeqCst);
                true
            }
            Some(thread) => {
                thread.thread().unpark();
                // It was not joined, so its id still names it.
                let _ = pthread_kill(thread.as_pthread_t(), INTERRUPT);
                *handle = Some(thread);
                false
            }
        }
    }

    fn push(self: &Arc<Self>, item: Item) {
        if self.stop.load(Ordering::SeqCst) {
            return;
        }
        let waiting = self.waiting.fetch_add(1, Ordering::Acquire);
        if waiting >= BACKLOG {
            self.overflowed.store(true, Ordering::Relaxed);
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        // Not before what was there first.
        let at_once = waiting == 0 && !self.dear.load(Ordering::Relaxed);
        let left = match signaller().filter(|_| at_once) {
            Some(signaller) => self.deliver_now(signaller, item),
            None => Some(item),
        };
        let Some(item) = left else {
            self.waiting.fetch_sub(1, Ordering::Release);
            return;
        };
        self.items.push(item);
        if let Some(thread) = self.wake.get() {
            thread.unpark();
        } else if !self.starting.swap(true, Ordering::SeqCst) {
            self.start();
        }
    }

    /// Delivers an item without waiting for anybody; gives back what is left to do.
    fn deliver_now(&self, signaller: &Signaller, item: Item) -> Option<Item> {
        let call = match &item {
            Item::Signal(call) => Some(Arc::clone(call)),
            Item::Control => match self.control.try_lock() {
                Ok(control) => control.clone(),
                Err(_) => return Some(item),
            },
            Item::Event(number, event) => {
                let slot = match self.queues.try_lock() {
                    Ok(queues) => queues.get(number).cloned(),
                    Err(_) => return Some(item),
                };
                let handed = match slot.as_ref().map(|slot| slot.try_lock()) {
                    None => Handed::NoQueue,
                    Some(Ok(mut queue)) => hand_over(queue.as_mut(), event),
                    Some(Err(_)) => return Some(item),
                };
                match handed {
                    Handed::Over(call) => Some(call),
                    Handed::Full => return Some(item),
                    Handed::NoQueue => None,
                    Handed::Broken => {
                        self.broken.store(true, Ordering::Relaxed);
                        None
                    }
                }
            }
        };
        let call = call?;
        let signalled = self.sampled(|| signaller.add_one(&call));
        signalled.is_err().then_some(Item::Signal(call))
    }

    /// Does it, and looks now and then at what it costs: the kernel tells all waiters of an
    /// eventfd in the time of who signals.
    fn sampled<T>(&self, signal: impl FnOnce() -> T) -> T {
        let count = self.signals.fetch_add(1, Ordering::Relaxed);
        let checks = self.checks.load(Ordering::Relaxed);
        if checks == 0 && !count.is_multiple_of(SAMPLE) {
            return signal();
        }
        let before = processor_time();
        let done = signal();
        let is_dear = processor_time().saturating_sub(before) > DEAR;
        if self.confirms(checks, is_dear) {
            tracing::warn!(
                session = self.label,
                "its eventfd has too many waiters; its events are delivered by its own thread"
            );
            self.dear.store(true, Ordering::Relaxed);
        }
        done
    }

    /// Whether enough signals were dear, this one included. `checks`: how many were still to
    /// be looked at before it. Threads that signal at once may miscount by one.
    fn confirms(&self, checks: u32, is_dear: bool) -> bool {
        if checks == 0 {
            if is_dear {
                self.confirmed.store(0, Ordering::Relaxed);
                self.checks.store(CHECKS, Ordering::Relaxed);
            }
            return false;
        }
        self.checks.store(checks - 1, Ordering::Relaxed);
        is_dear && self.confirmed.fetch_add(1, Ordering::Relaxed) + 1 >= CONFIRMED
    }

    fn start(self: &Arc<Self>) {
        let notifier = Arc::clone(self);
        // Held while it starts, so that `stop` finds the handle.
        let mut handle = lock(&self.handle);
        let spawned = std::thread::Builder::new()
            .name("masq-events".into())
            .stack_size(64 << 10)
            .spawn(move || {
                masq_sched::shorten_slice();
                notifier.run();
            });
        match spawned {
            Ok(thread) => *handle = Some(thread),
            Err(error) => {
                tracing::error!(session = self.label, %error, "no thread for events");
                self.broken.store(true, Ordering::Relaxed);
                self.starting.store(false, Ordering::SeqCst);
            }
        }
    }

    fn run(&self) {
        // Before the first look: whoever pushes later finds whom to wake.
        let _ = self.wake.set(std::thread::current());
        let mut backlog: BTreeMap<u32, VecDeque<Event>> = BTreeMap::new();
        let mut retry = RETRY;
        while !self.stop.load(Ordering::SeqCst) {
            let mut busy = false;
            while let Some(item) = self.items.pop() {
                busy = true;
                match item {
                    Item::Event(queue, event) => {
                        backlog.entry(queue).or_default().push_back(event);
                    }
                    Item::Control => {
                        let control = lock(&self.control).clone();
                        if let Some(call) = control {
                            self.signal(&call);
                        }
                        self.waiting.fetch_sub(1, Ordering::Release);
                    }
                    Item::Signal(call) => {
                        self.signal(&call);
                        self.waiting.fetch_sub(1, Ordering::Release);
                    }
                }
                if self.stop.load(Ordering::SeqCst) {
                    return;
                }
            }
            busy |= self.deliver(&mut backlog);
            if busy {
                retry = RETRY;
            } else if backlog.is_empty() {
                std::thread::park();
            } else {
                std::thread::park_timeout(retry);
                retry = (retry * 2).min(RETRY_MOST);
            }
        }
    }

    /// Delivers what fits, in the order of each queue; whether anything did.
    fn deliver(&self, backlog: &mut BTreeMap<u32, VecDeque<Event>>) -> bool {
        let mut moved = false;
        backlog.retain(|number, events| {
            while let Some(event) = events.front() {
                if self.stop.load(Ordering::SeqCst) {
                    return true;
                }
                let slot = lock(&self.queues).get(number).cloned();
                let handed = match slot {
                    Some(slot) => hand_over(lock(&slot).as_mut(), event),
                    None => Handed::NoQueue,
                };
                match handed {
                    Handed::Full => return true,
                    Handed::Over(call) => {
                        events.pop_front();
                        // Without the lock: this may block until the tenant reads.
                        self.signal(&call);
                        self.waiting.fetch_sub(1, Ordering::Release);
                    }
                    Handed::Broken => {
                        self.broken.store(true, Ordering::Relaxed);
                        self.waiting.fetch_sub(events.len(), Ordering::Relaxed);
                        return false;
                    }
                    Handed::NoQueue => {
                        self.waiting.fetch_sub(events.len(), Ordering::Relaxed);
                        return false;
                    }
                }
                moved = true;
            }
            false
        });
        moved
    }

    /// Adds one to an eventfd; may block until the tenant reads it, or until
    /// [`Self::stop`] interrupts.
    fn signal(&self, mut call: &File) {
        let mut retry = RETRY;
        while !self.stop.load(Ordering::SeqCst) {
            match call.write(&1u64.to_ne_bytes()) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::sleep(retry);
                    retry = (retry * 2).min(RETRY_MOST);
                }
                _ => return,
            }
        }
    }
}

/// What this thread has had of the processor.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Puts an event into its queue.
fn hand_over(queue: Option<&mut EventQueue>, event: &Event) -> Handed {
    let Some(queue) = queue else {
        return Handed::NoQueue;
    };
    match queue.vring.take_room() {
        Ok(None) => Handed::Full,
        Ok(Some(chain)) => match queue.vring.answer(&chain, event.as_bytes()) {
            Ok(()) => Handed::Over(Arc::clone(&queue.call)),
            Err(_) => Handed::Broken,
        },
        Err(_) => Handed::Broken,
    }
}

/// The device's end of a [`Notifier`].
pub(crate) struct Sink(pub(crate) Arc<Notifier>);

impl EventSink for Sink {
    fn completion(&self, event_queue: u32, cq: Handle) {
        let event = Event {
            kind: COMPLETION,
            element: cq,
            reserved: 0,
        };
        self.0.push(Item::Event(event_queue, event));
    }

    fn asynchronous(&self, kind: AsyncEvent, element: u32) {
        let event = Event {
            kind: kind as u32,
            element,
            reserved: 0,
        };
        self.0.push(Item::Event(
            u32::from(masq_spec::device::ASYNC_EVENT_QUEUE),
            event,
        ));
    }
}

/// Makes the interrupting signal end a blocked write, and do nothing else.
#[allow(unsafe_code)] // sigaction
pub(crate) fn install_interrupt() -> std::io::Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};
    extern "C" fn nothing(_: nix::libc::c_int) {}
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler touches nothing.
    unsafe { sigaction(INTERRUPT, &action) }?;
    Ok(())
}

#[cfg(test)]
mod tests;
