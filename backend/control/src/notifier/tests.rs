//! Who signals, and at whose cost.

use super::*;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Waiters that a process may have, and that cost more than [`DEAR`].
const WAITERS: usize = 60_000;

#[test]
fn who_has_too_many_waiters_is_signalled_by_its_own_thread() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let mut waiters = Vec::new();
    for _ in 0..WAITERS {
        let Ok(waiter) = fd.try_clone() else { break };
        let data = epoll::EventData::new_u64(0);
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        if epoll::add(&watch, &waiter, data, edge).is_err() {
            break;
        }
        waiters.push(waiter);
    }
    if waiters.len() < WAITERS {
        eprintln!("not tried: this host allows {} descriptors", waiters.len());
        return;
    }
    let notifier = Notifier::new("test".into());
    let call = Arc::new(File::from(fd));
    notifier.set_control_call(Some(Arc::clone(&call)));
    for _ in 0..2 * SAMPLE {
        notifier.signal_control();
    }
    assert!(notifier.dear.load(Ordering::Relaxed));
    while !notifier.stop() {
        std::thread::sleep(RETRY);
    }
    let mut count = [0; 8];
    rustix::io::read(&*call, &mut count).unwrap();
    assert!(u64::from_ne_bytes(count) > u64::from(SAMPLE) / 2);
}

#[test]
fn an_ordinary_eventfd_is_signalled_at_once() {
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let notifier = Notifier::new("test".into());
    let call = Arc::new(File::from(fd));
    notifier.set_control_call(Some(Arc::clone(&call)));
    for _ in 0..3 {
        notifier.signal_control();
    }
    let mut count = [0; 8];
    rustix::io::read(&*call, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 3);
    assert!(lock(&notifier.handle).is_none(), "no thread was needed");
}

/// A kernel that counts in ticks has a cheap signal look dear now and then.
#[test]
fn one_dear_signal_among_cheap_ones_changes_nothing() {
    let notifier = Notifier::new("test".into());
    let look = |is_dear| notifier.confirms(notifier.checks.load(Ordering::Relaxed), is_dear);
    for _ in 0..10 {
        assert!(!look(true));
        for cheap in 0..CHECKS {
            assert!(!look(cheap == 2 || cheap == 5));
        }
    }
    let dear = (0..=CONFIRMED).map(|_| look(true));
    assert!(dear.eq([false, false, false, true]));
}
