//! Events reach their queue at no cost to the data path, which has them.

use super::*;
use crate::eventfd::signaller;
use crate::notifier::{EventQueue, Sink};
use allocation_counter::measure;
use masq_device::EventSink as _;
use masq_spec::event::COMPLETION;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{pread, pwrite, read};
use std::fs::File;

const QUEUE: u32 = 2;
const SIZE: u16 = 64;
const DESC: u64 = 0x1_0000;
const AVAIL: u64 = DESC + SIZE as u64 * 16;
const USED: u64 = DESC + 0x1000;
const BUFFERS: u64 = DESC + 0x2000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// What a driver has of an event queue.
struct Driver {
    memory: OwnedFd,
    call: Arc<File>,
    notifier: Arc<Notifier>,
}

impl Driver {
    fn new() -> Self {
        let memory = sealed();
        let shared = SharedFile::check(memory.try_clone().unwrap()).unwrap();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let call = Arc::new(File::from(eventfd(0, flags).unwrap()));
        let config = VringConfig {
            size: SIZE,
            desc: DESC,
            avail: AVAIL,
            used: USED,
            ..VringConfig::default()
        };
        let notifier = Notifier::new("test".into());
        let queue = EventQueue {
            vring: Vring::new(&shared, &config).unwrap(),
            call: Arc::clone(&call),
        };
        notifier.set_queue::<()>(QUEUE, || Ok(queue)).unwrap();
        Self {
            memory,
            call,
            notifier,
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        assert_eq!(pwrite(&self.memory, bytes, at).unwrap(), bytes.len());
    }

    /// Describes a buffer and makes it the head of the chain of that number.
    fn describe(&self, number: u16, len: u32, flags: u16) {
        let at = BUFFERS + u64::from(number) * 16;
        let chained = [flags.to_le_bytes(), (number + 1).to_le_bytes()].concat();
        let bytes = [&at.to_le_bytes()[..], &len.to_le_bytes(), &chained].concat();
        self.write(DESC + u64::from(number) * 16, &bytes);
        self.write(AVAIL + 4 + u64::from(number) * 2, &number.to_le_bytes());
    }

    fn offer(&self, count: u16) {
        self.write(AVAIL + 2, &count.to_le_bytes());
    }

    fn used(&self) -> u16 {
        let mut index = [0; 2];
        pread(&self.memory, &mut index, USED + 2).unwrap();
        u16::from_le_bytes(index)
    }
}

#[test]
fn an_event_is_delivered_without_an_allocation() {
    if signaller().is_none() {
        eprintln!("not tried: this kernel signals no eventfds by itself");
        return;
    }
    let driver = Driver::new();
    for number in 0..SIZE {
        driver.describe(number, 16, WRITE);
    }
    driver.offer(SIZE);
    let sink = Sink(Arc::clone(&driver.notifier));
    sink.completion(QUEUE, 7);
    let allocations = measure(|| {
        for _ in 1..SIZE {
            sink.completion(QUEUE, 7);
        }
    });
    assert_eq!(allocations.count_total, 0);
    assert_eq!(driver.used(), SIZE);
    let mut count = [0; 8];
    read(&*driver.call, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), u64::from(SIZE));
    let mut event = [0; 8];
    pread(&driver.memory, &mut event, BUFFERS).unwrap();
    let expected = [COMPLETION.to_le_bytes(), 7u32.to_le_bytes()].concat();
    assert_eq!(event[..], expected);
}

/// SPEC 3.5.
#[test]
fn an_event_queue_with_something_to_read_is_broken() {
    for len in [4096, 0] {
        let driver = Driver::new();
        driver.describe(0, len, NEXT);
        driver.describe(1, 16, WRITE);
        driver.offer(1);
        let sink = Sink(Arc::clone(&driver.notifier));
        sink.completion(QUEUE, 7);
        assert!(driver.notifier.trouble().is_some(), "{len} bytes");
        assert_eq!(driver.used(), 0);
    }
}
