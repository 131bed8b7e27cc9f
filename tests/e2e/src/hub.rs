//! A switch in user space, which can damage what it carries, shows every frame, and takes
//! frames of anybody's making.

use crate::namespace::Namespace;
use crate::tap;
use crate::wire::addresses_of;
use anyhow::Context as _;
use ipnet::IpNet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A frame of the largest MTU fits.
const ROOM: usize = 9000 + 64;
/// How long a frame is held back, unless so many others pass it sooner.
const HELD: Duration = Duration::from_millis(2);
const PASSED: u32 = 4;
/// Frames of one interface that are carried before it is another's turn.
const TURN: usize = 64;

/// What happens to RoCE packets, each of 1000. Others (the programs' TCP, ARP) are spared:
/// it is not TCP that is tested.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The same seed and the same frames, the same faults.
    pub seed: u64,
    /// Never arrive.
    pub lost: u32,
    /// Arrive twice.
    pub repeated: u32,
    /// Arrive after some that were sent later.
    pub reordered: u32,
    /// Arrive with a bit that is another.
    pub corrupted: u32,
}

/// How often each happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// RoCE packets that came.
    pub packets: u64,
    /// Of these, never carried.
    pub lost: u64,
    /// Carried twice.
    pub repeated: u64,
    /// Held back.
    pub reordered: u64,
    /// Damaged.
    pub corrupted: u64,
}

/// Sees each frame as it came, before anything happens to it, and the number of the
/// interface where it came in.
pub type Observer = Box<dyn FnMut(usize, &[u8]) + Send>;

/// The switch; it ends with this.
pub struct Hub {
    mtu: u32,
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ends: AtomicBool,
}

#[derive(Default)]
struct State {
    taps: Vec<Arc<File>>,
    /// By the last address of a sender.
    places: BTreeMap<[u8; 6], usize>,
    faults: Faults,
    random: u64,
    happened: Happened,
    held: Vec<Held>,
    observer: Option<Observer>,
}

struct Held {
    to: Vec<usize>,
    frame: Vec<u8>,
    until: Instant,
    passed: u32,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hub {{ mtu: {}, {:?} }}", self.mtu, self.happened())
    }
}

impl Hub {
    /// One that carries packets of `mtu` bytes, unharmed.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(mtu: u32) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = {
            let shared = shared.clone();
            let run = move || shared.run();
            std::thread::Builder::new().name("hub".into()).spawn(run)?
        };
        Ok(Self {
            mtu,
            shared,
            worker: Some(worker),
        })
    }

    /// A new namespace whose interface `eth0` is at the switch and has these addresses.
    ///
    /// # Errors
    /// Not root, or there is no /dev/net/tun.
    pub fn host(&self, addresses: &[IpNet]) -> anyhow::Result<Namespace> {
        let host = Namespace::new()?;
        let tap = tap::open(&host, "eth0")?;
        host.shell(&format!("ip link set eth0 mtu {}", self.mtu))?;
        // In the switch before the interface is up: nothing that it says is lost.
        self.shared.with(|state| state.taps.push(Arc::new(tap)));
        host.shell(&addresses_of("eth0", addresses))?;
        Ok(host)
    }

    /// What happens to packets from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.with(|state| {
            state.faults = faults;
            // Any number but zero; near seeds must not begin alike.
            state.random = (faults.seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        });
    }

    /// What happened so far.
    pub fn happened(&self) -> Happened {
        self.shared.with(|state| state.happened)
    }

    /// Who sees the frames from now on.
    pub fn observe(&self, observer: Observer) {
        self.shared.with(|state| state.observer = Some(observer));
    }

    /// Gives a frame to interface number `to`, as if it came from one of the others. False:
    /// the interface has no room, or is down.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn inject(&self, to: usize, frame: &[u8]) -> anyhow::Result<bool> {
        let tap = self.shared.with(|state| state.taps.get(to).cloned());
        let tap = tap.context("no such interface")?;
        Ok((&*tap).write(frame).is_ok())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn run(&self) {
        let mut buffer = vec![0; ROOM];
        while !self.ends.load(Ordering::Relaxed) {
            let (taps, held) = self.with(|state| (state.taps.clone(), !state.held.is_empty()));
            let mut fds: Vec<_> = taps
                .iter()
                .map(|tap| PollFd::new(&**tap, PollFlags::IN))
                .collect();
            let wait = Timespec {
                tv_sec: 0,
                tv_nsec: if held { 1_000_000 } else { 20_000_000 },
            };
            let _ = poll(&mut fds, Some(&wait));
            let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (from, tap) in taps.iter().enumerate() {
                if !ready.get(from).is_some_and(|ready| *ready) {
                    continue;
                }
                for _ in 0..TURN {
                    let Ok(len) = (&**tap).read(&mut buffer) else {
                        break;
                    };
                    let frame = buffer.get_mut(..len).unwrap_or_default();
                    self.with(|state| state.carry(from, frame));
                }
            }
            self.with(State::release);
        }
    }
}

impl State {
    fn carry(&mut self, from: usize, frame: &mut [u8]) {
        if let Some(observer) = &mut self.observer {
            observer(from, frame);
        }
        let Some((destination, source)) = stations(frame) else {
            return;
        };
        self.places.insert(source, from);
        let to = match self.places.get(&destination) {
            Some(to) => vec![*to],
            None => (0..self.taps.len()).collect(),
        };
        let to: Vec<_> = to.into_iter().filter(|to| *to != from).collect();
        if !is_roce(frame) {
            return self.give(&to, frame);
        }
        self.happened.packets += 1;
        let faults = self.faults;
        if self.chance(faults.lost) {
            self.happened.lost += 1;
            return;
        }
        if self.chance(faults.corrupted) {
            self.happened.corrupted += 1;
            // Not in the headers that say where it goes.
            let bits = (frame.len().saturating_sub(HEADERS)) * 8;
            let at = HEADERS * 8 + usize::try_from(self.next()).unwrap_or(0) % bits.max(1);
            if let Some(byte) = frame.get_mut(at / 8) {
                *byte ^= 1 << (at % 8);
            }
            without_checksum(frame);
        }
        if self.chance(faults.repeated) {
            self.happened.repeated += 1;
            self.hold(&to, frame);
        }
        if self.chance(faults.reordered) {
            self.happened.reordered += 1;
            return self.hold(&to, frame);
        }
        self.give(&to, frame);
        for held in &mut self.held {
            held.passed += 1;
        }
    }

    fn hold(&mut self, to: &[usize], frame: &[u8]) {
        self.held.push(Held {
            to: to.to_owned(),
            frame: frame.to_owned(),
            until: Instant::now() + HELD,
            passed: 0,
        });
    }

    fn release(&mut self) {
        let now = Instant::now();
        let is_due = |held: &mut Held| held.until <= now || held.passed >= PASSED;
        let due: Vec<_> = self.held.extract_if(.., is_due).collect();
        for held in due {
            self.give(&held.to, &held.frame);
        }
    }

    fn give(&self, to: &[usize], frame: &[u8]) {
        for tap in to.iter().filter_map(|to| self.taps.get(*to)) {
            // One that is down takes none, as a cable that is unplugged.
            let _ = (&**tap).write(frame);
        }
    }

    fn chance(&mut self, of_1000: u32) -> bool {
        of_1000 != 0 && self.next() % 1000 < u64::from(of_1000)
    }

    /// xorshift64*
    fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

/// Ethernet, IPv6 (the longer one) and UDP.
const HEADERS: usize = 14 + 40 + 8;

/// Where a frame goes and where it comes from.
fn stations(frame: &[u8]) -> Option<([u8; 6], [u8; 6])> {
    let destination = frame.first_chunk()?;
    let source = frame.get(6..)?.first_chunk()?;
    Some((*destination, *source))
}

/// Removes UDP's checksum, which IPv4 leaves to the sender: the ICRC is to find what is
/// wrong, not the kernel.
fn without_checksum(frame: &mut [u8]) {
    let is_ipv4 = frame.get(12..14) == Some(&[0x08, 0x00]);
    if let Some(sum) = frame.get_mut(40..42).filter(|_| is_ipv4) {
        sum.fill(0);
    }
}

/// Whether a frame is a UDP datagram for port 4791.
pub fn is_roce(frame: &[u8]) -> bool {
    const UDP: u8 = 17;
    let ports = match frame.get(12..14) {
        Some([0x08, 0x00]) if frame.get(23) == Some(&UDP) => frame.get(34..38),
        Some([0x86, 0xdd]) if frame.get(20) == Some(&UDP) => frame.get(54..58),
        _ => None,
    };
    ports.is_some_and(|ports| ports.ends_with(&masq_wire::ROCE_PORT.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(port: u16) -> Vec<u8> {
        let mut frame = vec![0; 200];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[23] = 17;
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        frame
    }

    #[test]
    fn only_roce_is_harmed_and_the_same_seed_harms_the_same() {
        let run = |port, seed| {
            let hub = Hub::new(1500).unwrap();
            hub.set_faults(Faults {
                seed,
                lost: 100,
                repeated: 100,
                reordered: 100,
                corrupted: 100,
            });
            for _ in 0..1000 {
                hub.shared.with(|state| state.carry(0, &mut frame(port)));
            }
            hub.happened()
        };
        assert_eq!(run(4790, 1), Happened::default());
        let one = run(4791, 1);
        assert_eq!(one.packets, 1000);
        for count in [one.lost, one.repeated, one.reordered, one.corrupted] {
            assert!((50..200).contains(&count), "{one:?}");
        }
        assert_eq!(one, run(4791, 1));
        assert_ne!(one, run(4791, 2));
    }
}
