//! The endpoints' sockets: one each, made here, the only source of identity.

use super::{ServerError, Token};
use masq_directory::LocalHost;
use masq_policy::{Endpoint, EndpointId, Policy};
use rustix::event::epoll;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Name of an endpoint's socket in its directory.
pub(crate) const SOCKET: &str = "masq.sock";

/// Listening sockets by endpoint.
pub(super) struct Endpoints {
    root: PathBuf,
    mode: u32,
    listeners: HashMap<u32, (EndpointId, UnixListener)>,
    numbers: HashMap<EndpointId, u32>,
    next: u32,
    _lock: OwnedFd,
}

impl Endpoints {
    /// Makes the directory and takes its lock.
    pub(super) fn open(run_dir: &Path, mode: u32) -> Result<Self, ServerError> {
        let remedy = "choose a --run-dir that masqd may write";
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| ServerError::Path {
                path,
                source,
                remedy,
            }
        };
        let root = run_dir.join("endpoints");
        fs::create_dir_all(&root).map_err(at(&root))?;
        let path = run_dir.join("masqd.lock");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let lock = open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| at(&path)(e.into()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| ServerError::InUse(run_dir.to_owned()))?;
        // What a masqd that was killed has left.
        fs::remove_dir_all(&root).map_err(at(&root))?;
        fs::create_dir_all(&root).map_err(at(&root))?;
        Ok(Self {
            root,
            mode,
            listeners: HashMap::new(),
            numbers: HashMap::new(),
            next: 0,
            _lock: lock,
        })
    }

    /// Where an endpoint's socket is.
    pub(super) fn path(&self, id: &EndpointId) -> PathBuf {
        self.root
            .join(id.tenant().as_str())
            .join(id.name().as_str())
            .join(SOCKET)
    }

    /// Opens sockets of new endpoints and removes those of old ones; nothing
    /// changes if one cannot be opened.
    /// Endpoints of other hosts have none here.
    pub(super) fn update(
        &mut self,
        policy: &Policy,
        this: Option<&LocalHost>,
        epoll: &OwnedFd,
    ) -> Result<(), ServerError> {
        let lives_here = |e: &Endpoint| LocalHost::may_have(this, e);
        let before = self.next;
        let mut added = Ok(());
        // A container's socket is in its own directory.
        let fixed = policy.endpoints().filter(|e| e.class().is_none());
        for endpoint in fixed.filter(|e| lives_here(e)) {
            if !self.numbers.contains_key(endpoint.id()) {
                added = added.and_then(|()| self.add(endpoint.id(), epoll));
            }
        }
        let unwanted = |id: &EndpointId, number: u32| match &added {
            Ok(()) => !policy.endpoint(id).is_some_and(lives_here),
            Err(_) => number >= before,
        };
        let gone: Vec<EndpointId> = self
            .numbers
            .iter()
            .filter(|(id, number)| unwanted(id, **number))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.forget(&id, epoll);
        }
        added
    }

    fn forget(&mut self, id: &EndpointId, epoll: &OwnedFd) {
        if let Some(number) = self.numbers.remove(id)
            && let Some((_, listener)) = self.listeners.remove(&number)
        {
            let _ = epoll::delete(epoll, &listener);
        }
        if let Some(dir) = self.path(id).parent() {
            let _ = fs::remove_dir_all(dir);
        }
    }

    fn add(&mut self, id: &EndpointId, epoll: &OwnedFd) -> Result<(), ServerError> {
        let path = self.path(id);
        let listener = self.listen(&path).map_err(|source| ServerError::Path {
            path,
            source,
            remedy: "the endpoint's socket cannot be made there",
        })?;
        let number = self.next;
        self.next += 1;
        epoll::add(
            epoll,
            &listener,
            Token::Listener(number).data(),
            epoll::EventFlags::IN,
        )
        .map_err(|e| ServerError::Host {
            what: "epoll",
            source: e.into(),
        })?;
        self.numbers.insert(id.clone(), number);
        self.listeners.insert(number, (id.clone(), listener));
        Ok(())
    }

    fn listen(&self, path: &Path) -> io::Result<UnixListener> {
        let Some(dir) = path.parent() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        fs::create_dir_all(dir)?;
        // Through a descriptor: two long names do not fit a socket address.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(dir, flags, Mode::empty())?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())).join(SOCKET);
        let listener = UnixListener::bind(&short)?;
        fs::set_permissions(&short, fs::Permissions::from_mode(self.mode))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    pub(super) fn get(&self, number: u32) -> Option<&(EndpointId, UnixListener)> {
        self.listeners.get(&number)
    }

    /// Takes no more connections.
    pub(super) fn close(&mut self, epoll: &OwnedFd) {
        for (_, (_, listener)) in self.listeners.drain() {
            let _ = epoll::delete(epoll, &listener);
        }
        self.remove();
    }

    /// Removes the sockets.
    pub(super) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
