//! A data-path thread: polls its engine, yields, sleeps.

use crate::SoftConfig;
use crate::courtesy::Courtesy;
use crate::engine::{Engine, RemotePort, Wire};
use crossbeam_queue::ArrayQueue;
use masq_device::{DeviceError, Result};
use masq_transport::Nanos;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread::JoinHandle;

type Call = Box<dyn FnOnce(&mut Engine) + Send>;

/// Calls of the control side that may wait for one turn.
const CALLS: usize = 64;
/// Tries before a waiting caller lets others run.
const SPINS: u32 = 200;

/// What the thread and its callers share.
struct Shared {
    /// Held by the thread while it is awake.
    engine: Mutex<Engine>,
    calls: ArrayQueue<Call>,
    stop: AtomicBool,
    wake: OwnedFd,
    epoll: OwnedFd,
    /// Duplicates of the port's descriptors, which are being watched.
    ports: Mutex<Vec<OwnedFd>>,
}

/// A running data-path thread; stops when dropped.
pub(crate) struct DataPath {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) fn monotonic() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec as u64)
}

impl DataPath {
    /// Starts a thread; `wire` is its way to other hosts.
    pub(crate) fn start(
        number: usize,
        config: &SoftConfig,
        wire: Option<Wire>,
    ) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(0);
        epoll::add(
            &epoll,
            &wake,
            data,
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )?;
        let shared = Arc::new(Shared {
            engine: Mutex::new(Engine::default()),
            ports: Mutex::default(),
            calls: ArrayQueue::new(CALLS),
            stop: AtomicBool::new(false),
            wake,
            epoll,
        });
        let waker = Arc::downgrade(&shared);
        let port = RemotePort::new(Arc::new(move || {
            if let Some(shared) = waker.upgrade() {
                shared.wake();
            }
        }));
        if let Ok(mut engine) = shared.engine.lock() {
            engine.port = port;
            if let Some(wire) = wire {
                engine.connect_to(wire, number as u32, config.threads.max(1) as u32);
            }
        }
        let descriptors = match shared.engine.lock() {
            Ok(engine) => engine.port_descriptors()?,
            Err(_) => Vec::new(),
        };
        shared.watch_ports(descriptors)?;
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
    pub(crate) fn call<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Engine) -> R + Send + 'static,
    ) -> Result<R> {
        let shared = &self.shared;
        if let Some(mut engine) = shared.idle_engine()? {
            let result = f(&mut engine);
            shared.hand_back(engine);
            return Ok(result);
        }
        let (sender, answer) = crossbeam_channel::bounded(1);
        let mut call: Call = Box::new(move |engine| {
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
    pub(crate) fn watch(&self, kick: BorrowedFd<'_>) -> io::Result<()> {
        // Edge-triggered and never read: a tenant owns the other end.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(
            &self.shared.epoll,
            kick,
            epoll::EventData::new_u64(1),
            flags,
        )?)
    }

    /// Watches the port's descriptors anew: groups were joined or left.
    pub(crate) fn watch_ports(&self) -> Result<()> {
        let exhausted = |_| DeviceError::Exhausted("descriptors");
        let descriptors = self.call(|engine| engine.port_descriptors())?;
        let descriptors = descriptors.map_err(exhausted)?;
        self.shared.watch_ports(descriptors).map_err(exhausted)
    }

    /// Stops watching, before the descriptor is closed: the tenant may keep a
    /// duplicate, which would go on waking the thread.
    pub(crate) fn unwatch(&self, kick: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.shared.epoll, kick);
    }
}

impl Drop for DataPath {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Watches descriptors of the port in place of those before.
    fn watch_ports(&self, current: Vec<OwnedFd>) -> io::Result<()> {
        let Ok(mut ports) = self.ports.lock() else {
            return Ok(());
        };
        for old in ports.drain(..) {
            let _ = epoll::delete(&self.epoll, &old);
        }
        for new in current {
            let data = epoll::EventData::new_u64(2);
            epoll::add(&self.epoll, &new, data, epoll::EventFlags::IN)?;
            ports.push(new);
        }
        Ok(())
    }

    fn wake(&self) {
        // Full means that a wake-up is pending already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// The engine, if the thread sleeps; waiting calls have been served.
    fn idle_engine(&self) -> Result<Option<MutexGuard<'_, Engine>>> {
        match self.engine.try_lock() {
            Ok(mut engine) => {
                self.serve_calls(&mut engine);
                Ok(Some(engine))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Poisoned(_)) => Err(DeviceError::Gone),
        }
    }

    fn hand_back(&self, engine: MutexGuard<'_, Engine>) {
        let has_work = engine.has_work();
        drop(engine);
        if has_work {
            self.wake();
        }
    }

    fn serve_calls(&self, engine: &mut Engine) -> bool {
        let mut busy = false;
        // At most one queue's worth a turn: callers must not starve tenants.
        for _ in 0..CALLS {
            let Some(call) = self.calls.pop() else { break };
            call(engine);
            busy = true;
        }
        busy
    }

    fn run(&self, number: usize, config: &SoftConfig) {
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
        let mut last_work = monotonic();
        let mut empty = 0;
        let mut courtesy = Courtesy::default();
        while !self.stop.load(Ordering::Relaxed) {
            let now = monotonic();
            let called = !self.calls.is_empty() && self.serve_calls(&mut engine);
            if engine.turn(now) || called {
                (last_work, empty) = (now, 0);
                continue;
            }
            empty += 1;
            let mut rest = false;
            // A look at the port is a system call: as dear as many polls.
            let patience = match engine.looks_at_port() {
                true => 1,
                false => config.yield_after,
            };
            if empty >= patience {
                empty = 0;
                rest = courtesy.is_shunned(now);
                if !rest {
                    rustix::thread::sched_yield();
                    courtesy.yielded(now, monotonic());
                }
            }
            if !rest && now.saturating_sub(last_work) < idle {
                std::hint::spin_loop();
                continue;
            }
            engine = match self.sleep(engine) {
                Some(engine) => engine,
                None => return,
            };
            last_work = monotonic();
        }
    }

    /// Arms the doorbells, looks once more, and sleeps without the engine.
    fn sleep<'a>(&'a self, mut engine: MutexGuard<'a, Engine>) -> Option<MutexGuard<'a, Engine>> {
        engine.set_armed(true);
        // Pairs with the driver's fence between its stamps and its look here.
        fence(Ordering::SeqCst);
        if !engine.has_work() && self.calls.is_empty() {
            let now = monotonic();
            let timeout = engine.next_wake(now).map(|at| {
                let left = at.saturating_sub(now);
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
            let _ = epoll::wait(&self.epoll, &mut events[..], timeout.as_ref());
            engine = self.engine.lock().ok()?;
            engine.look_at_port();
        }
        engine.set_armed(false);
        Some(engine)
    }
}
