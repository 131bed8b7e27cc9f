//! A client that opens a session as it should, and can misbehave afterwards.

use crate::memory::{Memory, SIZE, eventfd, sealed_memfd};
use crate::wire::{Code, Raw, words};
use masq_spec::command::{MAX_COMMAND_LEN, Opcode, RequestHeader, ResponseHeader, Status};
use masq_spec::device::{Features, QUEUE_LAYOUT_MASQ, SPEC_VERSION, version_text};
use masq_spec::doorbell::PAGE_LEN;
use masq_spec::event::Event;
use masq_spec::verbs::{Hello, HelloReply, Join};
use rustix::event::EventfdFlags;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes};

/// A status and the body that came with it.
pub type Reply = (Status, Vec<u8>);

/// Where things lie in the file.
const CONTROL: u64 = 0x1_0000;
const EVENTS: u64 = 0x10_0000;
const HEAP: u64 = 0x80_0000;
/// Size of the queues.
pub(crate) const CONTROL_SIZE: u16 = 8;
const EVENT_SIZE: u16 = 16;

/// Addresses of a virtqueue.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// Descriptor table.
    pub desc: u64,
    /// Available ring.
    pub avail: u64,
    /// Used ring.
    pub used: u64,
    /// Entries.
    pub size: u16,
}

impl Queue {
    fn at(base: u64, size: u16) -> Self {
        Self {
            desc: base,
            avail: base + 0x800,
            used: base + 0x1000,
            size,
        }
    }

    /// Body of SET_VRING_ADDR.
    pub fn address(&self, index: u8) -> Vec<u8> {
        words(&[u64::from(index), self.desc, self.used, self.avail, 0])
    }
}

/// A connection with shared memory and a control queue.
pub struct Client {
    /// The connection.
    pub raw: Raw,
    /// The shared file.
    pub memory: Arc<Memory>,
    /// Kick of the control queue.
    pub kick: OwnedFd,
    /// Call of the control queue.
    pub call: OwnedFd,
    /// Kick of the asynchronous-event queue: the doorbell's.
    pub doorbell_kick: OwnedFd,
    /// Call of the asynchronous-event queue.
    pub event_call: OwnedFd,
    /// The doorbell page.
    pub doorbell: Option<Memory>,
    /// Answer to HELLO.
    pub hello: HelloReply,
    next: u16,
    heap: u64,
    event_next: u16,
    back: Option<Raw>,
}

/// Index and number, as SET_VRING_NUM and others take them.
pub(crate) fn state(index: u8, number: u32) -> Vec<u8> {
    let mut body = u32::from(index).to_ne_bytes().to_vec();
    body.extend_from_slice(&number.to_ne_bytes());
    body
}

impl Client {
    /// Connects, sets up and says HELLO.
    pub fn open(path: &Path) -> Self {
        let mut client = Self::prepare(path);
        let (status, body) = client.say_hello();
        assert_eq!(status, Status::Ok, "HELLO");
        client.hello = HelloReply::read_from_bytes(&body).expect("a HelloReply");
        client
    }

    /// Connects and sets up all but the session.
    pub fn prepare(path: &Path) -> Self {
        let mut client = Self::negotiate(path);
        client.take_doorbell();
        client.start_control();
        client.start_events(1);
        client
    }

    /// Connects and agrees on features, with the memory shared.
    pub fn negotiate(path: &Path) -> Self {
        let raw = Raw::connect(path);
        assert!(raw.tell(Code::SetOwner, &[], &[]).is_ok());
        let offered = raw.ask_u64(Code::GetFeatures, &[], &[]).expect("features");
        let protocol = raw
            .ask_u64(Code::GetProtocol, &[], &[])
            .expect("protocol features");
        raw.tell(Code::SetProtocol, &words(&[protocol]), &[])
            .expect("sent");
        let wanted = Features::from_bits_truncate(offered);
        assert!(raw.accepts(Code::SetFeatures, &words(&[wanted.bits()]), &[]));
        let memory = Memory::map(sealed_memfd(), SIZE);
        let region = words(&[0, 0, SIZE, 0, 0]);
        assert!(raw.accepts(Code::AddMemReg, &region, &[memory.fd.as_fd()]));
        Self {
            raw,
            memory: Arc::new(memory),
            kick: eventfd(0, EventfdFlags::NONBLOCK),
            call: eventfd(0, EventfdFlags::NONBLOCK),
            doorbell_kick: eventfd(0, EventfdFlags::NONBLOCK),
            event_call: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE),
            doorbell: None,
            hello: HelloReply::new_zeroed(),
            next: 0,
            heap: HEAP,
            event_next: 0,
            back: None,
        }
    }

    /// Opens the back channel and maps the page that comes.
    pub fn take_doorbell(&mut self) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_read_timeout(Some(crate::LONG))
            .expect("a deadline");
        assert!(
            self.raw
                .accepts(Code::SetBackendReq, &[], &[theirs.as_fd()])
        );
        let back = Raw { socket: ours };
        let (_, _, mut fds) = back.receive().expect("SHMEM_MAP");
        let page = fds.pop().expect("the doorbell page");
        self.doorbell = Some(Memory::map(page, PAGE_LEN as u64));
        self.back = Some(back);
    }

    /// The control queue.
    pub fn control_queue() -> Queue {
        Queue::at(CONTROL, CONTROL_SIZE)
    }

    /// Event queue `index`.
    pub fn event_queue(index: u8) -> Queue {
        Queue::at(EVENTS + u64::from(index) * 0x4000, EVENT_SIZE)
    }

    /// Sets up a queue; whether masqd took it.
    pub fn start(&self, index: u8, queue: Queue, kick: &OwnedFd, call: &OwnedFd) -> bool {
        let raw = &self.raw;
        let number = words(&[u64::from(index)]);
        raw.accepts(Code::SetVringNum, &state(index, u32::from(queue.size)), &[])
            && raw.accepts(Code::SetVringAddr, &queue.address(index), &[])
            && raw.accepts(Code::SetVringBase, &state(index, 0), &[])
            && raw.accepts(Code::SetVringCall, &number, &[call.as_fd()])
            && raw.accepts(Code::SetVringKick, &number, &[kick.as_fd()])
            && raw.accepts(Code::SetVringEnable, &state(index, 1), &[])
    }

    /// Starts the control queue.
    pub fn start_control(&self) {
        let queue = Self::control_queue();
        assert!(self.start(0, queue, &self.kick, &self.call), "queue 0");
    }

    /// Fills an event queue with buffers and starts it; whether masqd took it.
    pub fn try_start_events(&self, index: u8) -> bool {
        let queue = Self::event_queue(index);
        for i in 0..EVENT_SIZE {
            let buffer = queue.desc + 0x2000 + u64::from(i) * 16;
            let at = queue.desc + u64::from(i) * 16;
            self.memory.descriptor(at, buffer, 16, 2, 0);
            self.memory
                .u16(queue.avail + 4 + u64::from(i) * 2)
                .store(i, Ordering::Relaxed);
        }
        self.memory
            .u16(queue.avail + 2)
            .store(EVENT_SIZE, Ordering::Release);
        self.start(index, queue, &self.doorbell_kick, &self.event_call)
    }

    /// Fills an event queue with buffers and starts it.
    pub fn start_events(&self, index: u8) {
        assert!(self.try_start_events(index), "event queue {index}");
    }

    /// The next event of queue 1, if it comes; its buffer is given back.
    pub fn next_event(&mut self) -> Option<Event> {
        let queue = Self::event_queue(1);
        let used = self.memory.u16(queue.used + 2);
        if !crate::eventually(|| used.load(Ordering::Acquire) != self.event_next) {
            return None;
        }
        let slot = u64::from(self.event_next % EVENT_SIZE);
        let head = self
            .memory
            .u32(queue.used + 4 + slot * 8)
            .load(Ordering::Relaxed);
        let bytes = self
            .memory
            .read(queue.desc + 0x2000 + u64::from(head) * 16, 16);
        let at = queue.avail + 4 + slot * 2;
        self.memory.u16(at).store(head as u16, Ordering::Relaxed);
        self.event_next = self.event_next.wrapping_add(1);
        self.memory
            .u16(queue.avail + 2)
            .store(self.event_next.wrapping_add(EVENT_SIZE), Ordering::Release);
        Event::read_from_bytes(&bytes).ok()
    }

    /// HELLO.
    pub fn say_hello(&mut self) -> Reply {
        let hello = Hello {
            spec_version: SPEC_VERSION,
            queue_layout: QUEUE_LAYOUT_MASQ,
            frontend_version: version_text("test"),
            program: version_text("attacker"),
        };
        self.call(Opcode::Hello, hello.as_bytes())
    }

    /// JOIN.
    pub fn say_join(&mut self, session: u64, secret: [u8; 16], base: u32) -> Reply {
        let join = Join {
            session,
            secret,
            base,
            reserved: 0,
        };
        self.call(Opcode::Join, join.as_bytes())
    }

    /// Bytes of the heap, aligned to a page.
    pub fn alloc(&mut self, len: u64) -> u64 {
        let at = self.heap;
        self.heap += len.next_multiple_of(4096);
        assert!(self.heap <= SIZE, "the heap is used up");
        at
    }

    /// Sends a command and waits for the answer.
    pub fn call(&mut self, opcode: Opcode, body: &[u8]) -> Reply {
        self.try_call(opcode, body).expect("masqd hung up")
    }

    /// As [`Self::call`]; None if masqd hung up.
    pub fn try_call(&mut self, opcode: Opcode, body: &[u8]) -> Option<Reply> {
        self.send(&request(opcode, body))
    }

    /// Sends a command and does not wait.
    pub fn begin(&mut self, opcode: Opcode, body: &[u8]) {
        self.submit(&request(opcode, body));
    }

    /// Sends a request of any bytes.
    pub fn send(&mut self, request: &[u8]) -> Option<Reply> {
        let answer = self.submit(request);
        if !self.is_answered() {
            return None;
        }
        let bytes = self.memory.read(answer, MAX_COMMAND_LEN);
        let (header, body) = ResponseHeader::read_from_prefix(&bytes).ok()?;
        let status = Status::from_raw(header.status).expect("a status");
        Some((status, body.get(..header.len as usize)?.to_vec()))
    }

    /// Where the answer will be.
    fn submit(&mut self, request: &[u8]) -> u64 {
        assert!(
            request.len() <= MAX_COMMAND_LEN,
            "this chain is for good requests"
        );
        let queue = Self::control_queue();
        let (buffer, answer) = (queue.desc + 0x4000, queue.desc + 0x6000);
        self.memory.write(buffer, request);
        let memory = Arc::clone(&self.memory);
        memory.descriptor(queue.desc, buffer, request.len() as u32, 1, 1);
        memory.descriptor(queue.desc + 16, answer, MAX_COMMAND_LEN as u32, 2, 0);
        self.publish(&[0]);
        answer
    }

    /// Makes chains available and kicks.
    pub fn publish(&mut self, heads: &[u16]) {
        let queue = Self::control_queue();
        for head in heads {
            let slot = u64::from(self.next % CONTROL_SIZE);
            self.memory
                .u16(queue.avail + 4 + slot * 2)
                .store(*head, Ordering::Relaxed);
            self.next = self.next.wrapping_add(1);
        }
        self.set_available(self.next);
    }

    /// Sets the available index to anything, and kicks.
    pub fn set_available(&self, index: u16) {
        let queue = Self::control_queue();
        self.memory
            .u16(queue.avail + 2)
            .store(index, Ordering::SeqCst);
        let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }

    /// Waits until all that was published is used; false if masqd hung up.
    pub fn is_answered(&self) -> bool {
        let used = self.memory.u16(Self::control_queue().used + 2);
        let until = Instant::now() + crate::LONG;
        let mut looks = 0u32;
        while used.load(Ordering::Acquire) != self.next {
            looks += 1;
            if looks.is_multiple_of(64) {
                if self.raw.looks_closed() {
                    return false;
                }
                assert!(Instant::now() < until, "no answer");
                std::thread::sleep(Duration::from_micros(100));
            }
            std::hint::spin_loop();
        }
        true
    }

    /// Whether a plain command is served.
    pub fn works(&mut self) -> bool {
        self.try_call(Opcode::QueryDevice, &[])
            .is_some_and(|(status, _)| status == Status::Ok)
    }
}

fn request(opcode: Opcode, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader {
        opcode: opcode.raw(),
        flags: 0,
        len: body.len() as u32,
    };
    [header.as_bytes(), body].concat()
}
