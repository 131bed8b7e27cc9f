//! Calls of the kernel that take long: looking for a neighbour, pinning gigabytes. Each is
//! made by a thread beside the control thread, which is asked again meanwhile and serves
//! others.

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use masq_device::{DeviceError, DomainKey, Handle, Result};
use rustc_hash::FxHashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long control waits for an answer before it is asked again.
const SOON: Duration = Duration::from_millis(2);
/// Calls of one tenant at a time: a hostile one may forget that it asked.
const MOST: usize = 16;

/// The calls that are being made on one card.
#[derive(Debug, Default)]
pub(crate) struct Asides(Mutex<FxHashMap<DomainKey, usize>>);

/// One call, until its thread is done with it.
struct Running {
    asides: Arc<Asides>,
    tenant: DomainKey,
}

/// What a call made beside will have returned, and for which object. Whatever comes when
/// nobody waits any more is dropped where it comes.
#[derive(Debug)]
pub(crate) struct Answer<R>(Handle, Receiver<io::Result<R>>);

impl Asides {
    /// Has a thread make a call.
    ///
    /// # Errors
    /// [`DeviceError::Again`] while the tenant has too many; [`DeviceError::Exhausted`].
    pub(crate) fn start<R: Send + 'static>(
        self: &Arc<Self>,
        tenant: DomainKey,
        object: Handle,
        call: impl FnOnce() -> io::Result<R> + Send + 'static,
    ) -> Result<Answer<R>> {
        let running = self.enter(tenant).ok_or(DeviceError::Again)?;
        let (sender, receiver) = bounded(1);
        std::thread::Builder::new()
            .name("masq-aside".into())
            .stack_size(256 << 10)
            .spawn(move || {
                let result = call();
                drop(running);
                let _ = sender.send(result);
            })
            .map_err(|_| DeviceError::Exhausted("threads"))?;
        Ok(Answer(object, receiver))
    }

    /// Whether a call of this tenant could start.
    pub(crate) fn has_room(&self, tenant: DomainKey) -> bool {
        self.lock().get(&tenant).is_none_or(|n| *n < MOST)
    }

    fn enter(self: &Arc<Self>, tenant: DomainKey) -> Option<Running> {
        let mut all = self.lock();
        let of_tenant = all.entry(tenant).or_default();
        if *of_tenant >= MOST {
            return None;
        }
        *of_tenant += 1;
        let asides = Arc::clone(self);
        Some(Running { asides, tenant })
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<DomainKey, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut all = self.asides.lock();
        if let Some(of_tenant) = all.get_mut(&self.tenant) {
            *of_tenant -= 1;
            if *of_tenant == 0 {
                all.remove(&self.tenant);
            }
        }
    }
}

impl<R> Answer<R> {
    /// What came, if it is there soon; else it is kept in `slot`.
    ///
    /// # Errors
    /// [`DeviceError::Again`]
    pub(crate) fn soon(self, slot: &mut Option<Self>) -> Result<io::Result<R>> {
        match self.1.recv_timeout(SOON) {
            Ok(result) => Ok(result),
            Err(RecvTimeoutError::Timeout) => {
                *slot = Some(self);
                Err(DeviceError::Again)
            }
            Err(RecvTimeoutError::Disconnected) => Ok(Err(io::Error::from_raw_os_error(libc::EIO))),
        }
    }

    /// The one in `slot`, if it is of this object. Another one there was forgotten.
    pub(crate) fn of(slot: &mut Option<Self>, object: Handle) -> Option<Self> {
        slot.take().filter(|answer| answer.0 == object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: DomainKey = DomainKey(1);

    #[test]
    fn an_answer_is_waited_for_and_is_its_objects() {
        let asides = Arc::new(Asides::default());
        let (release, held) = bounded::<()>(0);
        let call = move || {
            let _ = held.recv();
            Ok(7)
        };
        let mut slot = None;
        let answer = asides.start(TENANT, 1, call).unwrap();
        assert!(matches!(answer.soon(&mut slot), Err(DeviceError::Again)));
        release.send(()).unwrap();
        let got = loop {
            let answer = Answer::of(&mut slot, 1).unwrap();
            if let Ok(got) = answer.soon(&mut slot) {
                break got;
            }
        };
        assert_eq!(got.unwrap(), 7);
        slot = Some(asides.start(TENANT, 2, || Ok(8)).unwrap());
        assert!(Answer::of(&mut slot, 3).is_none());
        assert!(slot.is_none(), "forgotten");
    }

    #[test]
    fn a_tenant_has_so_many_and_others_go_on() {
        let asides = Arc::new(Asides::default());
        let (release, held) = bounded::<()>(0);
        let start = |tenant| {
            let held = held.clone();
            let call = move || {
                let _ = held.recv();
                Ok(())
            };
            asides.start(tenant, 1, call)
        };
        let answers: Vec<_> = (0..MOST).map(|_| start(TENANT).unwrap()).collect();
        assert!(!asides.has_room(TENANT));
        assert!(matches!(start(TENANT), Err(DeviceError::Again)));
        let other = start(DomainKey(2)).unwrap();
        drop(release);
        for answer in answers.into_iter().chain([other]) {
            let mut slot = Some(answer);
            while let Some(answer) = slot.take() {
                let _ = answer.soon(&mut slot);
            }
        }
        assert!(asides.lock().is_empty(), "nothing is kept of who is done");
    }

    #[test]
    fn a_call_that_panics_is_an_error() {
        let asides = Arc::new(Asides::default());
        let answer = asides.start(TENANT, 1, || -> io::Result<()> { panic!("for the test") });
        let mut slot = Some(answer.unwrap());
        let error = loop {
            let answer = slot.take().unwrap();
            if let Ok(result) = answer.soon(&mut slot) {
                break result.unwrap_err();
            }
        };
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert!(asides.lock().is_empty());
    }
}
