//! Calls of the kernel that wait for another host, each on a thread of its own: siw
//! makes its TCP connection within the call to connect, and an id that was not answered
//! yet ends when it has been.

use crossbeam_channel::{Receiver, Sender, unbounded};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Calls under way; whoever owns this bounds their number. What returns afterwards is
/// dropped where it returns.
pub(crate) struct Calls<T> {
    wake: Arc<OwnedFd>,
    under_way: usize,
    tell: Sender<T>,
    returned: Receiver<T>,
}

impl<T: Send + 'static> Calls<T> {
    /// `wake`: an eventfd that is rung when a call has returned.
    pub(crate) fn new(wake: Arc<OwnedFd>) -> Self {
        let (tell, returned) = unbounded();
        Self {
            wake,
            under_way: 0,
            tell,
            returned,
        }
    }

    /// Those whose results have not been taken.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Starts a call.
    ///
    /// # Errors
    /// The host is out of threads; what `call` owned is dropped.
    pub(crate) fn start(&mut self, call: impl FnOnce() -> T + Send + 'static) -> io::Result<()> {
        let (tell, wake) = (self.tell.clone(), Arc::clone(&self.wake));
        let thread = std::thread::Builder::new().name("masq-connecting".into());
        thread.stack_size(256 << 10).spawn(move || {
            let _ = tell.send(call());
            let _ = rustix::io::write(&wake, &1u64.to_ne_bytes());
        })?;
        self.under_way += 1;
        Ok(())
    }

    /// The result of one that has returned.
    pub(crate) fn returned(&mut self) -> Option<T> {
        let result = self.returned.try_recv().ok()?;
        self.under_way = self.under_way.saturating_sub(1);
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

    #[test]
    fn who_waits_for_calls_is_woken_and_others_go_on() {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let mut calls = Calls::new(Arc::clone(&wake));
        let (release, blocked) = crossbeam_channel::bounded::<()>(0);
        calls.start(move || blocked.recv().is_ok()).unwrap();
        calls.start(|| false).unwrap();
        let wait = |wake: &OwnedFd| {
            let mut fds = [PollFd::new(wake, PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            rustix::io::read(wake, &mut [0; 8]).unwrap();
        };
        wait(&wake);
        assert_eq!(calls.returned(), Some(false), "the other one still waits");
        assert_eq!((calls.returned(), calls.under_way()), (None, 1));
        release.send(()).unwrap();
        wait(&wake);
        assert_eq!((calls.returned(), calls.under_way()), (Some(true), 0));
    }

    #[test]
    fn what_returns_to_nobody_is_dropped() {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let mut calls = Calls::new(wake);
        let (release, blocked) = crossbeam_channel::bounded::<()>(0);
        let (kept, seen) = crossbeam_channel::bounded::<()>(1);
        calls
            .start(move || {
                let _ = blocked.recv();
                kept
            })
            .unwrap();
        drop(calls);
        release.send(()).unwrap();
        assert!(seen.recv().is_err(), "its result is gone");
    }
}
