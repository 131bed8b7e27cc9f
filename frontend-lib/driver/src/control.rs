//! Commands on the control queue (SPEC clauses 3.1 and 8).

use crate::DriverError;
use crate::vring::{DESC_NEXT, DESC_WRITE, Vring};
use crate::watch::{Liveness, Uncancelled};
use masq_spec::command::{MAX_COMMAND_LEN, Opcode, RequestHeader, ResponseHeader, Status};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zerocopy::{FromBytes, IntoBytes as _};

/// Two descriptors make a chain, and one command is under way at a time.
const SIZE: u16 = 2;
/// Looks at the ring before the processor is offered to others.
const SPINS: u32 = 200;
/// Offers of the processor before the thread sleeps. With few cores it is these that
/// let the backend run.
const YIELDS: u32 = 60;

/// A yield that takes longer let somebody else run: the backend most likely, with whom
/// the processor is shared. Spinning only keeps it from answering then.
const SHARED: Duration = Duration::from_nanos(1500);

/// The control queue of a session.
#[derive(Debug)]
pub(crate) struct Control {
    ring: Mutex<Vring>,
    /// Whether the last yield let somebody else run.
    shared: AtomicBool,
    alive: Arc<Liveness>,
}

/// What the device answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    /// Bytes of the body.
    pub(crate) len: usize,
}

impl Control {
    pub(crate) fn new(alive: Arc<Liveness>) -> Result<Self, DriverError> {
        Ok(Self {
            ring: Mutex::new(Vring::new(SIZE, MAX_COMMAND_LEN, Vring::new_kick()?)?),
            shared: AtomicBool::new(false),
            alive,
        })
    }

    pub(crate) fn with_ring<R>(&self, f: impl FnOnce(&Vring) -> R) -> R {
        f(&self.ring.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends one command made of `parts` and puts the body of the answer into `out`.
    pub(crate) fn call(
        &self,
        opcode: Opcode,
        parts: &[&[u8]],
        out: &mut [u8],
    ) -> Result<Answer, DriverError> {
        if !self.alive.is_ours() || self.alive.is_gone() {
            return Err(DriverError::Gone);
        }
        let _whole = Uncancelled::new();
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let header = RequestHeader {
            opcode: opcode.raw(),
            flags: 0,
            len: len as u32,
        };
        let mut all: Vec<&[u8]> = vec![header.as_bytes()];
        all.extend_from_slice(parts);
        if !ring.fill(0, &all) {
            return Err(DriverError::Refused(Status::Invalid));
        }
        ring.describe(0, size_of::<RequestHeader>() + len, DESC_NEXT, 1);
        ring.describe(1, MAX_COMMAND_LEN, DESC_WRITE, 0);
        ring.want_calls(false);
        ring.publish(0);
        ring.notify();
        let written = self.wait(&mut ring)?;
        answer(&ring, written, out)
    }

    /// Until the command is used: spinning, then yielding, then asleep.
    fn wait(&self, ring: &mut Vring) -> Result<usize, DriverError> {
        let spins = match self.shared.load(Ordering::Relaxed) {
            true => 0,
            false => SPINS,
        };
        for _ in 0..spins {
            if let Some((_, len)) = ring.pop() {
                return Ok(len as usize);
            }
            std::hint::spin_loop();
        }
        for _ in 0..YIELDS {
            if let Some((_, len)) = ring.pop() {
                return Ok(len as usize);
            }
            let began = Instant::now();
            std::thread::yield_now();
            self.shared
                .store(began.elapsed() > SHARED, Ordering::Relaxed);
        }
        ring.want_calls(true);
        loop {
            if let Some((_, len)) = ring.pop() {
                return Ok(len as usize);
            }
            if self.alive.is_gone() || !self.alive.wait_readable(ring.call.as_raw_fd())? {
                return Err(DriverError::Gone);
            }
            let _ = ring.call.read();
        }
    }
}

fn answer(ring: &Vring, written: usize, out: &mut [u8]) -> Result<Answer, DriverError> {
    const HEADER: usize = size_of::<ResponseHeader>();
    let mut bytes = [0; MAX_COMMAND_LEN];
    ring.copy_out(1, &mut bytes);
    let bad = || DriverError::Unfit("answered with a malformed response");
    let (header, body) = ResponseHeader::read_from_prefix(&bytes).map_err(|_| bad())?;
    let len = header.len as usize;
    if written < HEADER || len > written - HEADER {
        return Err(bad());
    }
    let body = body.get(..len).ok_or_else(bad)?;
    let status = Status::from_raw(header.status).ok_or_else(bad)?;
    let copied = len.min(out.len());
    out[..copied].copy_from_slice(&body[..copied]);
    Ok(Answer { status, len })
}
