use super::*;
use rustix::pipe::pipe;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// What a [`Counter`] has seen; read without a call, which would be a turn's work.
#[derive(Default)]
struct Seen {
    turns: AtomicU32,
    armed: AtomicBool,
    /// What each wake-up said.
    woken: Mutex<Vec<bool>>,
}

/// Has so many turns' work.
#[derive(Default)]
struct Counter {
    left: u32,
    clock: Clock,
    seen: Arc<Seen>,
    /// Rung in each turn.
    bell: Option<Waker>,
    descriptor: Option<OwnedFd>,
}

impl Engine for Counter {
    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn turn(&mut self) -> bool {
        self.seen.turns.fetch_add(1, Ordering::Relaxed);
        if let Some(bell) = &self.bell {
            bell();
        }
        let busy = self.left > 0;
        self.left = self.left.saturating_sub(1);
        busy
    }

    fn has_work(&self) -> bool {
        self.left > 0
    }

    fn next_wake(&self) -> Option<Nanos> {
        None
    }

    fn set_armed(&mut self, armed: bool) {
        self.seen.armed.store(armed, Ordering::Relaxed);
    }

    fn woken(&mut self, readable: Readable) {
        self.seen.woken.lock().unwrap().push(readable.any());
    }

    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        self.descriptor.iter().map(OwnedFd::try_clone).collect()
    }
}

/// Starts a thread that never polls, with one turn's work, or more.
fn start(mut counter: Counter, left: u32) -> (DataPath<Counter>, Arc<Seen>) {
    let config = DataPathConfig {
        idle: Duration::ZERO,
        ..DataPathConfig::default()
    };
    counter.left = left;
    let seen = Arc::clone(&counter.seen);
    (DataPath::start(0, &config, |_| Ok(counter)).unwrap(), seen)
}

fn until(what: impl Fn() -> bool) {
    let since = Instant::now();
    while !what() {
        assert!(since.elapsed() < Duration::from_secs(20), "it never comes");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_thread_that_never_polls_sleeps_when_its_work_is_done() {
    let (_path, seen) = start(Counter::default(), 3);
    until(|| seen.armed.load(Ordering::Relaxed));
    assert_eq!(seen.turns.load(Ordering::Relaxed), 3);
}

#[test]
fn a_bell_that_finds_the_thread_awake_does_not_disturb_its_sleep() {
    let config = DataPathConfig {
        idle: Duration::ZERO,
        ..DataPathConfig::default()
    };
    let seen = Arc::new(Seen::default());
    let path = DataPath::start(0, &config, |bell| {
        Ok(Counter {
            clock: Clock::default(),
            left: 1,
            seen: Arc::clone(&seen),
            bell: Some(bell),
            descriptor: None,
        })
    })
    .unwrap();
    until(|| seen.armed.load(Ordering::Relaxed));
    // A wake-up that was due would come now.
    std::thread::sleep(Duration::from_millis(50));
    assert!(seen.woken.lock().unwrap().is_empty());
    let bell = path.call(|counter| counter.bell.take()).unwrap().unwrap();
    until(|| seen.armed.load(Ordering::Relaxed));
    bell();
    until(|| !seen.woken.lock().unwrap().is_empty());
    assert_eq!(*seen.woken.lock().unwrap(), [false]);
}

#[test]
fn a_thread_is_told_when_a_descriptor_woke_it() {
    let (reader, writer) = pipe().unwrap();
    let counter = Counter {
        descriptor: Some(reader),
        ..Counter::default()
    };
    let (_path, seen) = start(counter, 1);
    until(|| seen.armed.load(Ordering::Relaxed));
    rustix::io::write(&writer, b"x").unwrap();
    until(|| !seen.woken.lock().unwrap().is_empty());
    assert!(seen.woken.lock().unwrap()[0]);
}
