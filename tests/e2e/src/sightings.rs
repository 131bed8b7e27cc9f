//! Whose packets a switch carries.

use crate::hub::{Hub, is_roce};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The addresses in the headers of all that a [`Hub`] has carried since.
#[derive(Clone, Debug, Default)]
pub struct Sightings {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    roce: BTreeMap<(IpAddr, IpAddr), u64>,
    all: BTreeSet<IpAddr>,
}

impl Sightings {
    /// Begins to look; the switch has one observer at a time.
    pub fn of(hub: &Hub) -> Self {
        let sightings = Self::default();
        let sink = sightings.clone();
        hub.observe(Box::new(move |_, frame| sink.lock().note(frame)));
        sightings
    }

    /// How many RoCE packets there were from an address to another.
    pub fn roce(&self) -> BTreeMap<(IpAddr, IpAddr), u64> {
        self.lock().roce.clone()
    }

    /// All addresses, of other packets too.
    pub fn all(&self) -> BTreeSet<IpAddr> {
        self.lock().all.clone()
    }

    /// Begins anew.
    pub fn forget(&self) {
        *self.lock() = Seen::default();
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn note(&mut self, frame: &[u8]) {
        let Some([from, to]) = addresses(frame) else {
            return;
        };
        self.all.extend([from, to]);
        if is_roce(frame) {
            *self.roce.entry((from, to)).or_default() += 1;
        }
    }
}

/// Where an IP packet comes from and goes to.
fn addresses(frame: &[u8]) -> Option<[IpAddr; 2]> {
    let v4 = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<16>()?));
    match frame.get(12..14)? {
        [0x08, 0x00] => Some([v4(26)?, v4(30)?]),
        [0x86, 0xdd] => Some([v6(22)?, v6(38)?]),
        _ => None,
    }
}
