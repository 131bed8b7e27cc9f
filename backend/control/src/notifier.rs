//! Delivers the events of one session: a thread of its own, because writing a
//! tenant's call eventfd can block (the tenant may have filled it), and may
//! then hurt this session only. The thread starts with the first event.

use crate::vring::Vring;
use crossbeam_queue::SegQueue;
use masq_device::{EventSink, Handle};
use masq_spec::event::{AsyncEvent, COMPLETION, Event};
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;
use zerocopy::IntoBytes;

/// Events that may wait; a session that lets more pile up is ended.
const BACKLOG: usize = 65_536;
/// How often a full event queue is looked at again.
const RETRY: Duration = Duration::from_millis(1);
/// Interrupts a blocked write; its handler does nothing.
pub(crate) const INTERRUPT: Signal = Signal::SIGUSR2;

/// What the thread is asked to do.
enum Item {
    /// Deliver an event on a queue.
    Event(u32, Event),
    /// Signal the control queue.
    Control,
}

/// An event queue and its call eventfd.
pub(crate) struct EventQueue {
    pub(crate) vring: Vring,
    pub(crate) call: File,
}

/// Shared between the control side, the device and the thread.
pub(crate) struct Notifier {
    label: String,
    items: SegQueue<Item>,
    waiting: AtomicUsize,
    overflowed: AtomicBool,
    stop: AtomicBool,
    finished: AtomicBool,
    thread: OnceLock<(Thread, Pthread)>,
    starting: AtomicBool,
    queues: Mutex<HashMap<u32, Arc<Mutex<EventQueue>>>>,
    control: Mutex<Option<Arc<File>>>,
}

impl Notifier {
    pub(crate) fn new(label: String) -> Arc<Self> {
        Arc::new(Self {
            label,
            items: SegQueue::new(),
            waiting: AtomicUsize::new(0),
            overflowed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            thread: OnceLock::new(),
            starting: AtomicBool::new(false),
            queues: Mutex::default(),
            control: Mutex::default(),
        })
    }

    /// Adds or replaces an event queue.
    pub(crate) fn set_queue(&self, number: u32, queue: EventQueue) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.insert(number, Arc::new(Mutex::new(queue)));
    }

    /// Takes an event queue away; events for it are dropped.
    pub(crate) fn remove_queue(&self, number: u32) {
        self.queues
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&number);
    }

    pub(crate) fn has_queue(&self, number: u32) -> bool {
        self.queues
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&number)
    }

    pub(crate) fn set_control_call(&self, call: Option<Arc<File>>) {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = call;
    }

    /// Has the control queue's call eventfd written.
    pub(crate) fn signal_control(self: &Arc<Self>) {
        self.push(Item::Control);
    }

    /// Whether the session let too many events pile up.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Ends the thread. Returns whether it has ended; if not, it was
    /// interrupted and this is to be called again.
    pub(crate) fn stop(&self) -> bool {
        self.stop.store(true, Ordering::SeqCst);
        match self.thread.get() {
            None => !self.starting.load(Ordering::SeqCst),
            Some(_) if self.finished.load(Ordering::SeqCst) => true,
            Some((thread, id)) => {
                thread.unpark();
                // It has not finished, so the thread and its id still exist.
                let _ = pthread_kill(*id, INTERRUPT);
                self.finished.load(Ordering::SeqCst)
            }
        }
    }

    fn push(self: &Arc<Self>, item: Item) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= BACKLOG {
            self.overflowed.store(true, Ordering::Relaxed);
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        self.items.push(item);
        if let Some((thread, _)) = self.thread.get() {
            thread.unpark();
        } else if !self.starting.swap(true, Ordering::SeqCst) {
            let notifier = Arc::clone(self);
            let spawned = std::thread::Builder::new()
                .name("masq-events".into())
                .stack_size(64 << 10)
                .spawn(move || notifier.run());
            if let Err(error) = spawned {
                tracing::error!(session = self.label, %error, "no thread for events");
                self.overflowed.store(true, Ordering::Relaxed);
                self.starting.store(false, Ordering::SeqCst);
            }
        }
    }

    fn run(&self) {
        let _ = self.thread.set((std::thread::current(), pthread_self()));
        let mut backlog: VecDeque<(u32, Event)> = VecDeque::new();
        while !self.stop.load(Ordering::SeqCst) {
            let mut idle = true;
            while let Some(item) = self.items.pop() {
                idle = false;
                match item {
                    Item::Event(queue, event) => {
                        backlog.push_back((queue, event));
                    }
                    Item::Control => {
                        self.waiting.fetch_sub(1, Ordering::Relaxed);
                        let control = self
                            .control
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .clone();
                        if let Some(call) = control {
                            self.signal(&call);
                        }
                    }
                }
                if self.stop.load(Ordering::SeqCst) {
                    break;
                }
            }
            let before = backlog.len();
            self.deliver(&mut backlog);
            if !idle || backlog.len() != before {
                continue;
            }
            if backlog.is_empty() {
                std::thread::park();
            } else {
                std::thread::park_timeout(RETRY);
            }
        }
        self.finished.store(true, Ordering::SeqCst);
    }

    /// Delivers what fits; an event that finds its queue full keeps its place.
    fn deliver(&self, backlog: &mut VecDeque<(u32, Event)>) {
        for _ in 0..backlog.len() {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let Some((number, event)) = backlog.pop_front() else {
                return;
            };
            let queue = self
                .queues
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&number)
                .cloned();
            let Some(queue) = queue else {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                continue;
            };
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = match queue.vring.take() {
                Ok(taken) => taken,
                Err(_) => {
                    self.overflowed.store(true, Ordering::Relaxed);
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
            };
            match taken {
                None => backlog.push_back((number, event)),
                Some(chain) => {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    if queue.vring.answer(&chain, event.as_bytes()).is_ok() {
                        let EventQueue { call, .. } = &*queue;
                        self.signal(call);
                    }
                }
            }
        }
    }

    /// Adds one to an eventfd; may block until the tenant reads it, or until
    /// [`Self::stop`] interrupts.
    fn signal(&self, mut call: &File) {
        while !self.stop.load(Ordering::SeqCst) {
            match call.write(&1u64.to_ne_bytes()) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::park_timeout(RETRY);
                }
                _ => return,
            }
        }
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
