//! A data-path thread: polls its engine, yields, sleeps.

use crate::DataPathConfig;
use crate::clock::Clock;
use crate::courtesy::Courtesy;
use crossbeam_queue::ArrayQueue;
use masq_device::{DeviceError, Result};
use masq_transport::Nanos;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread::JoinHandle;

/// What a data-path thread runs.
pub trait Engine: Send + 'static {
    /// The engine's time, which stands still within a turn.
    fn clock(&self) -> &Clock;
    /// Serves all that waits, a bounded piece of each. Returns whether there was
    /// anything to do.
    fn turn(&mut self) -> bool;
    /// Whether the next turn has something to do already.
    fn has_work(&self) -> bool;
    /// When to wake at the latest.
    fn next_wake(&self) -> Option<Nanos>;
    /// Has whoever brings work wake the thread, or not any more.
    fn set_armed(&mut self, armed: bool);
    /// Whether a turn without work costs a system call: as dear as many polls.
    fn looks_are_dear(&self) -> bool {
        false
    }
    /// The thread has slept.
    fn woken(&mut self, readable: Readable) {
        let _ = readable;
    }
    /// Whether [`Self::descriptors`] would answer otherwise than before.
    fn has_other_descriptors(&mut self) -> bool {
        false
    }
    /// Duplicates of the descriptors that wake the thread while they are readable.
    ///
    /// # Errors
    /// The host is out of descriptors.
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }
}

/// Which of an engine's descriptors may be readable, by their places in
/// [`Engine::descriptors`]. Those from the 63rd on are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readable(u64);

impl Readable {
    const ALL: Self = Self(u64::MAX);

    /// Any.
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// This one.
    pub fn has(self, place: usize) -> bool {
        self.0 & Self::bit(place) != 0
    }

    fn bit(place: usize) -> u64 {
        1 << place.min(63)
    }
}

/// Wakes a data-path thread, from any other.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

type Call<E> = Box<dyn FnOnce(&mut E) + Send>;

/// Calls of the control side that may wait for one turn.
const CALLS: usize = 64;
/// Tries before a waiting caller lets others run.
const SPINS: u32 = 200;

/// What an event of epoll is: somebody rang, or the first descriptor of the engine is
/// readable, or the next ones.
const KICK: u64 = 0;
const FIRST_DESCRIPTOR: u64 = 1;

/// Wakes the thread.
struct Bell {
    fd: OwnedFd,
    /// The thread sleeps, or is about to.
    wanted: AtomicBool,
}

/// What the thread and its callers share.
struct Shared<E> {
    /// Held by the thread while it is awake.
    engine: Mutex<E>,
    calls: ArrayQueue<Call<E>>,
    stop: AtomicBool,
    bell: Arc<Bell>,
    epoll: OwnedFd,
    /// Duplicates of the engine's descriptors, which are being watched.
    watched: Mutex<Vec<OwnedFd>>,
}

/// A running data-path thread; stops when dropped.
pub struct DataPath<E: Engine> {
    shared: Arc<Shared<E>>,
    thread: Option<JoinHandle<()>>,
}

impl<E: Engine> DataPath<E> {
    /// Starts thread number `number` of a device, with the engine that `make`
    /// makes; whatever gets the waker may wake it.
    ///
    /// # Errors
    /// The host is out of threads or descriptors, or `make` fails.
    pub fn start(
        number: usize,
        config: &DataPathConfig,
        make: impl FnOnce(Waker) -> io::Result<E>,
    ) -> io::Result<Self> {
        let bell = Arc::new(Bell {
            fd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            wanted: AtomicBool::new(false),
        });
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(KICK);
        epoll::add(
            &epoll,
            &bell.fd,
            data,
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )?;
        let waker = Arc::clone(&bell);
        let engine = make(Arc::new(move || waker.ring_if_wanted()))?;
        let descriptors = engine.descriptors()?;
        let shared = Arc::new(Shared {
            engine: Mutex::new(engine),
            watched: Mutex::default(),
            calls: ArrayQueue::new(CALLS),
            stop: AtomicBool::new(false),
            bell,
            epoll,
        });
        shared.watch_all(descriptors)?;
        let (thread_shared, config) = (Arc::clone(&shared), config.clone());
        let thread = std::thread::Builder::new()
            .name(format!("masq-nic-{number}"))
            .spawn(move || thread_shared.run(number, &config))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Runs `f` on the engine, between two turns.
    ///
    /// # Errors
    /// [`DeviceError::Gone`]: the thread has failed.
    pub fn call<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut E) -> R + Send + 'static,
    ) -> Result<R> {
        let shared = &self.shared;
        if let Some(mut engine) = shared.idle_engine()? {
            let result = f(&mut engine);
            shared.hand_back(engine);
            return Ok(result);
        }
        let (sender, answer) = crossbeam_channel::bounded(1);
        let mut call: Call<E> = Box::new(move |engine| {
            let _ = sender.send(f(engine));
        });
        while let Err(refused) = shared.calls.push(call) {
            call = refused;
            std::thread::yield_now();
        }
        let mut spins = 0;
        loop {
            if let Ok(result) = answer.try_recv() {
                return Ok(result);
            }
            // It may have fallen asleep without having seen the call.
            if let Some(engine) = shared.idle_engine()? {
                shared.hand_back(engine);
                continue;
            }
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Has the thread woken by a kick eventfd.
    ///
    /// # Errors
    /// The host is out of memory.
    pub fn watch(&self, kick: BorrowedFd<'_>) -> io::Result<()> {
        // Edge-triggered and never read: a tenant owns the other end.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(
            &self.shared.epoll,
            kick,
            epoll::EventData::new_u64(KICK),
            flags,
        )?)
    }

    /// Watches the engine's descriptors anew.
    ///
    /// # Errors
    /// [`DeviceError::Exhausted`]
    pub fn watch_again(&self) -> Result<()> {
        let exhausted = |_| DeviceError::Exhausted("descriptors");
        let descriptors = self.call(|engine| engine.descriptors())?;
        let descriptors = descriptors.map_err(exhausted)?;
        self.shared.watch_all(descriptors).map_err(exhausted)
    }

    /// Stops watching, before the descriptor is closed: the tenant may keep a
    /// duplicate, which would go on waking the thread.
    pub fn unwatch(&self, kick: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.shared.epoll, kick);
    }
}

impl Bell {
    fn ring(&self) {
        // Full means that a wake-up is pending already.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// For those whose work the thread finds without being woken, if it is awake: then
    /// it costs no system call, now or when the thread next sleeps.
    fn ring_if_wanted(&self) {
        // The work before the look; pairs with the thread's fence before its last look.
        fence(Ordering::SeqCst);
        if self.wanted.swap(false, Ordering::Relaxed) {
            self.ring();
        }
    }
}

impl<E: Engine> Drop for DataPath<E> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<E: Engine> Shared<E> {
    /// Watches descriptors in place of those before.
    fn watch_all(&self, current: Vec<OwnedFd>) -> io::Result<()> {
        let Ok(mut watched) = self.watched.lock() else {
            return Ok(());
        };
        for old in watched.drain(..) {
            let _ = epoll::delete(&self.epoll, &old);
        }
        for (new, place) in current.into_iter().zip(FIRST_DESCRIPTOR..) {
            let data = epoll::EventData::new_u64(place);
            epoll::add(&self.epoll, &new, data, epoll::EventFlags::IN)?;
            watched.push(new);
        }
        Ok(())
    }

    /// The engine, if the thread sleeps; waiting calls have been served.
    fn idle_engine(&self) -> Result<Option<MutexGuard<'_, E>>> {
        match self.engine.try_lock() {
            Ok(mut engine) => {
                engine.clock().forget();
                self.serve_calls(&mut engine);
                Ok(Some(engine))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Poisoned(_)) => Err(DeviceError::Gone),
        }
    }

    fn hand_back(&self, engine: MutexGuard<'_, E>) {
        let has_work = engine.has_work();
        drop(engine);
        if has_work {
            self.bell.ring();
        }
    }

    fn serve_calls(&self, engine: &mut E) -> bool {
        let mut busy = false;
        // At most one queue's worth a turn: callers must not starve tenants.
        for _ in 0..CALLS {
            let Some(call) = self.calls.pop() else { break };
            call(engine);
            busy = true;
        }
        busy
    }

    fn run(&self, number: usize, config: &DataPathConfig) {
        if let Some(cpu) = config.cpus.get(number % config.cpus.len().max(1)) {
            let mut set = rustix::thread::CpuSet::new();
            set.set(*cpu);
            if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
                tracing::warn!(cpu, %error, "data-path thread cannot be pinned");
            }
        }
        let idle = config.idle.as_nanos() as u64;
        let Ok(mut engine) = self.engine.lock() else {
            return;
        };
        let mut last_work = engine.clock().now();
        let mut empty = 0;
        let mut courtesy = Courtesy::default();
        while !self.stop.load(Ordering::Relaxed) {
            let called = !self.calls.is_empty() && self.serve_calls(&mut engine);
            let worked = engine.turn() || called;
            if engine.has_other_descriptors()
                && let Err(error) = engine.descriptors().and_then(|fds| self.watch_all(fds))
            {
                tracing::error!(%error, "descriptors of the data path are not watched");
            }
            if worked {
                empty = 0;
                if idle > 0 {
                    last_work = engine.clock().now();
                }
                // One that never polls need not look in vain before it sleeps.
                if idle > 0 || engine.has_work() {
                    engine.clock().forget();
                    continue;
                }
            }
            empty += 1;
            let mut rest = idle == 0;
            let patience = match engine.looks_are_dear() {
                true => 1,
                false => config.yield_after,
            };
            if !rest {
                let now = engine.clock().now();
                rest = now.saturating_sub(last_work) >= idle;
                if empty < patience {
                    engine.clock().forget();
                } else {
                    empty = 0;
                    if courtesy.is_shunned(now) {
                        rest = true;
                    } else {
                        rustix::thread::sched_yield();
                        // A clock may cost as much as the yield: the next turn has this time.
                        engine.clock().forget();
                        courtesy.yielded(now, engine.clock().now());
                    }
                }
            }
            if !rest {
                std::hint::spin_loop();
                continue;
            }
            let Some((woken, readable)) = self.sleep(engine) else {
                return;
            };
            engine = woken;
            engine.clock().forget();
            if idle > 0 {
                last_work = engine.clock().now();
            }
            if let Some(readable) = readable {
                engine.woken(readable);
            }
        }
    }

    /// Arms the doorbells, looks once more, and sleeps without the engine; what is
    /// readable then, if it slept.
    fn sleep<'a>(
        &'a self,
        mut engine: MutexGuard<'a, E>,
    ) -> Option<(MutexGuard<'a, E>, Option<Readable>)> {
        let mut slept = None;
        engine.set_armed(true);
        self.bell.wanted.store(true, Ordering::Relaxed);
        // Pairs with the driver's fence between its stamps and its look here.
        fence(Ordering::SeqCst);
        if !engine.has_work() && self.calls.is_empty() {
            let timeout = engine.next_wake().map(|at| {
                let left = at.saturating_sub(engine.clock().now());
                Timespec {
                    tv_sec: (left / 1_000_000_000) as i64,
                    tv_nsec: (left % 1_000_000_000) as i64,
                }
            });
            drop(engine);
            let mut events: [epoll::Event; 64] = std::array::from_fn(|_| epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            });
            let count = epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()).unwrap_or(0);
            let mut readable = Readable::default();
            for event in events.iter().take(count) {
                if let Some(place) = event.data.u64().checked_sub(FIRST_DESCRIPTOR) {
                    readable.0 |= Readable::bit(place as usize);
                }
            }
            // Of more than fit some may have been left out.
            slept = Some(match count == events.len() {
                true => Readable::ALL,
                false => readable,
            });
            engine = self.engine.lock().ok()?;
        }
        self.bell.wanted.store(false, Ordering::Relaxed);
        engine.set_armed(false);
        Some((engine, slept))
    }
}

#[cfg(test)]
mod tests;
